//! The program itself: what it does, and one clear line for each bad input.

mod bundles;
mod log;

use crate::{MUSTER, Result};
use muster_tests::objects::{self, deployment_path};
use muster_tests::program::Run;
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube, Program, eventually};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;

/// That a program refused with one line that mentions all of these.
fn refused(run: &Run, code: i32, mentions: &[&str]) {
    assert_eq!(run.code, code, "{run:?}");
    assert!(run.stdout.is_empty(), "it wrote to its standard output: {run:?}");
    for mention in mentions {
        assert!(run.stderr.contains(mention), "no {mention:?} in {run:?}");
    }
    assert!(!run.stderr.contains("panicked"), "{run:?}");
    if code == 1 {
        let errors = run
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .count();
        assert_eq!(errors, 1, "not one line: {run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_one_line_and_writes_nothing() -> Result {
    let fleet = Fleet::joined(1).await?;
    let program = Program::new(MUSTER)?;
    let home = program.home();
    let write = |name: &str, text: &str| std::fs::write(home.join(name), text);
    write(
        "good.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\n",
    )?;
    write(
        "no-kind.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nmetadata: {name: b}\n",
    )?;
    write(
        "no-name.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: default}\n",
    )?;
    write(
        "bad.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\nkind: ConfigMap\n  metadata: [\n",
    )?;
    write("empty.yaml", "# nothing\n")?;
    write("bad.kubeconfig", "clusters: 7\n")?;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let text = std::fs::read_to_string(fleet.hub.plane.kubeconfig())?;
    write(
        "nobody.kubeconfig",
        &muster_tests::control_plane::redirected(&text, nobody)?,
    )?;
    let wrong = fleet
        .hub
        .plane
        .token_kubeconfig("nobody.fedcba9876543210", fleet.hub.plane.address())?;
    let hub = fleet.hub.plane.kubeconfig().display().to_string();
    let wrong = wrong.display().to_string();
    let cluster = &fleet.clusters[0].name;

    let create = |file: &'static str| {
        vec![
            "work",
            "create",
            "x",
            "--cluster",
            cluster,
            "--kubeconfig",
            &hub,
            "-f",
            file,
        ]
    };
    let refuses = ["refuses", &wrong];
    let cases: Vec<(Vec<&str>, i32, &[&str])> = vec![
        (create("no-kind.yaml"), 1, &["no-kind.yaml", "document 2", "kind"]),
        (create("no-name.yaml"), 1, &["no-name.yaml", "name"]),
        (create("bad.yaml"), 1, &["bad.yaml", "document 2", "line"]),
        (create("empty.yaml"), 1, &["empty.yaml"]),
        (create("missing.yaml"), 1, &["missing.yaml"]),
        (
            vec![
                "work",
                "create",
                "x",
                "--cluster",
                "nowhere",
                "--kubeconfig",
                &hub,
                "-f",
                "good.yaml",
            ],
            1,
            &["nowhere"],
        ),
        (
            vec![
                "work",
                "create",
                "x",
                "--cluster",
                "Not_A_Label",
                "--kubeconfig",
                &hub,
                "-f",
                "good.yaml",
            ],
            2,
            &["Not_A_Label"],
        ),
        (
            vec![
                "work",
                "status",
                "missing",
                "--cluster",
                cluster,
                "--kubeconfig",
                &hub,
            ],
            1,
            &["missing"],
        ),
        (
            vec![
                "work",
                "delete",
                "missing",
                "--cluster",
                cluster,
                "--kubeconfig",
                &hub,
            ],
            1,
            &["missing"],
        ),
        (
            vec!["get", "clusters", "nowhere", "--kubeconfig", &hub],
            1,
            &["nowhere"],
        ),
        (vec!["get", "clusters", "--nonsense"], 2, &["--nonsense"]),
        (vec!["nonsense"], 2, &["nonsense"]),
        (
            vec!["get", "clusters", "--kubeconfig", "missing.kubeconfig"],
            1,
            &["missing.kubeconfig"],
        ),
        (
            vec!["get", "clusters", "--kubeconfig", "bad.kubeconfig"],
            1,
            &["bad.kubeconfig"],
        ),
        (
            vec!["get", "clusters", "--kubeconfig", &hub, "--context", "nowhere"],
            1,
            &["nowhere"],
        ),
        (
            vec!["get", "clusters", "--kubeconfig", "nobody.kubeconfig"],
            1,
            &["can not be reached", "nobody.kubeconfig"],
        ),
        (vec!["get", "clusters", "--kubeconfig", &wrong], 1, &refuses),
        (vec!["get", "clusters"], 1, &["no kubeconfig"]),
        (
            vec!["hub", "--kubeconfig", "missing.kubeconfig"],
            1,
            &["missing.kubeconfig"],
        ),
        (
            vec!["hub", "--kubeconfig", "nobody.kubeconfig"],
            1,
            &["does not answer"],
        ),
        (vec!["hub", "--kubeconfig", &wrong], 1, &["refuses"]),
        (
            vec!["hub", "--kubeconfig", &hub, "--feature-gates", "Nonsense=true"],
            2,
            &["Nonsense"],
        ),
        (
            vec![
                "klusterlet",
                "--cluster-name",
                "c",
                "--spoke-kubeconfig",
                "missing.kubeconfig",
                "--hub-kubeconfig-dir",
                "hk",
            ],
            1,
            &["missing.kubeconfig"],
        ),
        (
            vec![
                "klusterlet",
                "--cluster-name",
                "Not_A_Label",
                "--spoke-kubeconfig",
                &hub,
                "--hub-kubeconfig-dir",
                "hk",
            ],
            1,
            &["Not_A_Label"],
        ),
        (
            vec![
                "klusterlet",
                "--cluster-name",
                "c",
                "--spoke-kubeconfig",
                &hub,
                "--hub-kubeconfig-dir",
                "hk",
                "--namespace",
                "c-agent",
            ],
            1,
            &["--bootstrap-kubeconfig"],
        ),
        (
            vec![
                "klusterlet",
                "--cluster-name",
                "c",
                "--spoke-kubeconfig",
                &hub,
                "--hub-kubeconfig-dir",
                "hk",
                "--namespace",
                "c-agent",
                "--bootstrap-kubeconfig",
                "nobody.kubeconfig",
            ],
            1,
            &["can not be reached"],
        ),
        (
            vec![
                "klusterlet",
                "--cluster-name",
                "c",
                "--spoke-kubeconfig",
                &hub,
                "--hub-kubeconfig-dir",
                "hk",
                "--namespace",
                "c-agent",
                "--bootstrap-kubeconfig",
                &wrong,
            ],
            1,
            &refuses,
        ),
    ];
    for (args, code, mentions) in cases {
        let run = program.run(&args).await?;
        refused(&run, code, mentions);
    }
    assert!(
        fleet.kube().list(&objects::works_path(cluster)).await?.is_empty(),
        "a work was made all the same"
    );
    assert!(
        !home.join("hk").join("kubeconfig").exists(),
        "credentials were written all the same"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_and_a_taken_folder_are_told() -> Result {
    let program = Program::new(MUSTER)?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    for command in [&["apiserver"][..], &["hub", "--standalone"]] {
        let args = [command, &["--data-dir", "data", "--bind", &address]].concat();
        refused(&program.run(&args).await?, 1, &[&address]);
    }
    let mut first = program.spawn(&[
        "apiserver",
        "--data-dir",
        "data",
        "--bind",
        "127.0.0.1:0",
        "--write-kubeconfig",
        "k",
    ])?;
    first.until_file(&program.home().join("k")).await?;
    let second = program
        .run(&["apiserver", "--data-dir", "data", "--bind", "127.0.0.1:0"])
        .await?;
    refused(&second, 1, &["data"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn works_are_made_shown_explained_and_deleted() -> Result {
    let fleet = Fleet::joined(2).await?;
    let program = Program::new(MUSTER)?;
    let hub = fleet.hub.plane.kubeconfig().display().to_string();
    let (one, two) = (&fleet.clusters[0], &fleet.clusters[1].name);
    let ns = one.namespace();
    let ok = async |args: &[&str]| -> anyhow::Result<String> {
        let run = program.run(&[args, &["--kubeconfig", &hub]].concat()).await?;
        anyhow::ensure!(run.code == 0, "{args:?}: {run:?}");
        Ok(run.stdout)
    };
    let clusters = ok(&["get", "clusters"]).await?;
    let lines: Vec<&str> = clusters
        .lines()
        .filter(|l| l.contains(&one.name) || l.contains(two))
        .collect();
    assert_eq!(lines.len(), 2, "{clusters}");
    assert!(
        lines.iter().all(|line| line.matches("True").count() >= 2),
        "{clusters}"
    );
    let json: Value = serde_json::from_str(&ok(&["get", "clusters", "-o", "json"]).await?)?;
    assert!(
        json["items"].as_array().is_some_and(|items| items.len() >= 2),
        "{json}"
    );

    let app = [
        objects::configmap(&ns, "settings", "1"),
        objects::deployment(&ns, "web", 1),
    ];
    let text: Vec<String> = app.iter().map(Value::to_string).collect();
    std::fs::write(program.home().join("app.yaml"), text.join("\n---\n"))?;
    let name = one.name.as_str();
    ok(&[
        "work",
        "create",
        "app",
        "--cluster",
        name,
        "-f",
        "app.yaml",
        "--wait",
    ])
    .await?;
    one.kube().get(&deployment_path(&ns, "web")).await?;
    assert!(ok(&["get", "works", "--cluster", name]).await?.contains("app"));
    let status = ok(&["work", "status", "app", "--cluster", name]).await?;
    assert!(status.contains("settings") && status.contains("web"), "{status}");

    let again = program
        .run(&[
            "work",
            "create",
            "app",
            "--cluster",
            name,
            "-f",
            "app.yaml",
            "--kubeconfig",
            &hub,
        ])
        .await?;
    assert!(again.code == 0 || again.stderr.contains("app"), "{again:?}");

    // Why something is not applied is there to read.
    let mut wrong = objects::deployment(&ns, "wrong", 1);
    wrong["spec"]["selector"]["matchLabels"]["app"] = "another".into();
    std::fs::write(program.home().join("wrong.yaml"), wrong.to_string())?;
    ok(&["work", "create", "wrong", "--cluster", name, "-f", "wrong.yaml"]).await?;
    eventually(SOON, "the reason is shown", async || {
        let status = ok(&["work", "status", "wrong", "--cluster", name])
            .await
            .map_err(|e| e.to_string())?;
        if status.contains("selector") {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await?;

    ok(&["work", "delete", "app", "--cluster", name, "--wait"]).await?;
    one.kube().until_gone(&deployment_path(&ns, "web"), SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_hub_is_a_hub_and_ends_in_order() -> Result {
    let program = Program::new(MUSTER)?;
    let mut hub = program.spawn(&[
        "hub",
        "--standalone",
        "--data-dir",
        "hub",
        "--bind",
        "127.0.0.1:0",
    ])?;
    let admin = program.home().join("hub/admin.kubeconfig");
    hub.until_file(&admin).await?;
    assert_eq!(std::fs::metadata(&admin)?.permissions().mode() & 0o777, 0o600);
    let kube = Kube::from_file("standalone hub", &admin).await?;
    assert!(kube.list(objects::CLUSTERS).await?.is_empty());
    kube.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/open-cluster-management:bootstrap")
        .await?;
    let run = program
        .run(&["get", "clusters", "--kubeconfig", "hub/admin.kubeconfig"])
        .await?;
    assert_eq!(run.code, 0, "{run:?}");
    hub.signal("TERM")?;
    assert_eq!(hub.until_ended(SOON).await?, Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_and_klusterlet_run_as_programs() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    fleet.hub.stop().await?;
    let program = Program::new(MUSTER)?;
    let hub = fleet.hub.plane.kubeconfig().display().to_string();
    let _hub = program.spawn(&[
        "hub",
        "--kubeconfig",
        &hub,
        "--feature-gates",
        "ManagedClusterAutoApproval=true",
        "--auto-approved-csr-users",
        muster_tests::control_plane::BOOTSTRAP_USER,
    ])?;
    let cluster = &fleet.clusters[0];
    let options = &cluster.options;
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|p| p.display().to_string()).unwrap_or_default()
    };
    let _klusterlet = program.spawn(&[
        "klusterlet",
        "--cluster-name",
        &cluster.name,
        "--namespace",
        &options.namespace,
        "--bootstrap-kubeconfig",
        &path(&options.bootstrap_kubeconfig),
        "--spoke-kubeconfig",
        &path(&options.spoke_kubeconfig),
        "--hub-kubeconfig-dir",
        &options.hub_kubeconfig_dir.display().to_string(),
    ])?;
    fleet.until_available().await?;
    let ns = cluster.namespace();
    fleet
        .create(&objects::work(
            &cluster.name,
            "app",
            &[objects::configmap(&ns, "settings", "1")],
        ))
        .await?;
    fleet.until_applied(&cluster.name, "app").await?;
    for file in ["kubeconfig", "tls.key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(cluster.credentials().join(file))?
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    Ok(())
}
