//! `muster work diff`: what applying would change, worked out where it would be applied.

use crate::{MUSTER, Result};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_tests::objects::{
    condition, configmap, configmap_path, deployment, deployment_path, work, work_path, works_path,
};
use muster_tests::program::Run;
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Kube, Program};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const DRY_RUN: &str = "work.muster.open-cluster-management.io/dry-run";

struct Bench {
    fleet: Fleet,
    program: Program,
    hub: String,
}

impl Bench {
    async fn new() -> anyhow::Result<Self> {
        let fleet = Fleet::joined(1).await?;
        let hub = fleet.hub.plane.kubeconfig().display().to_string();
        Ok(Self {
            fleet,
            program: Program::new(MUSTER)?,
            hub,
        })
    }

    fn cluster(&self) -> &str {
        &self.fleet.clusters[0].name
    }

    fn namespace(&self) -> String {
        self.fleet.clusters[0].namespace()
    }

    fn spoke(&self) -> Kube {
        self.fleet.clusters[0].kube()
    }

    /// Runs `muster work diff`, with these manifests as a file if there are any.
    async fn diff(&self, name: &str, manifests: &[Value], more: &[&str]) -> anyhow::Result<Run> {
        let mut args = vec![
            "work",
            "diff",
            name,
            "--cluster",
            self.cluster(),
            "--kubeconfig",
            &self.hub,
        ];
        if !manifests.is_empty() {
            let text: Vec<String> = manifests.iter().map(Value::to_string).collect();
            std::fs::write(self.program.home().join("new.yaml"), text.join("\n---\n"))?;
            args.extend(["-f", "new.yaml"]);
        }
        args.extend(more);
        self.program.run(&args).await
    }

    /// Nothing of a question is left at the hub.
    async fn is_clean(&self) -> Result {
        for work in self.fleet.kube().list(&works_path(self.cluster())).await? {
            let name = work["metadata"]["name"]
                .as_str()
                .context("a work has a name")?
                .to_owned();
            assert!(!name.starts_with("muster-diff-"), "{work}");
            assert!(work["metadata"]["annotations"][DRY_RUN].is_null(), "{work}");
            self.fleet
                .until_work(
                    self.cluster(),
                    &name,
                    "the answer is gone with the question",
                    |work| match condition(work, "DryRun") {
                        None => Ok(()),
                        Some(found) => Err(format!("{found:?}")),
                    },
                )
                .await?;
        }
        Ok(())
    }
}

async fn versions(kube: &Kube, paths: &[String]) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut out = BTreeMap::new();
    for path in paths {
        let found = kube.find(path).await?;
        out.insert(
            path.clone(),
            found.map(|o| o["metadata"]["resourceVersion"].clone()).into(),
        );
    }
    Ok(out)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_says_what_would_change_and_changes_nothing() -> Result {
    let bench = Bench::new().await?;
    let (name, ns) = (bench.cluster(), bench.namespace());
    let secret = |value: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": ns},
            "data": {"password": STANDARD.encode(value)}})
    };
    let app = [
        configmap(&ns, "settings", "1"),
        configmap(&ns, "same", "1"),
        configmap(&ns, "old", "1"),
        deployment(&ns, "web", 2),
        secret("former-hidden"),
    ];
    bench.fleet.create(&work(name, "app", &app)).await?;
    bench.fleet.until_applied(name, "app").await?;
    let none = bench.diff("app", &[], &[]).await?;
    assert_eq!(
        (none.code, none.stdout.as_str()),
        (0, "5 unchanged\n"),
        "{none:?}"
    );

    let paths = [
        configmap_path(&ns, "settings"),
        configmap_path(&ns, "old"),
        configmap_path(&ns, "new"),
        deployment_path(&ns, "web"),
    ];
    let before = versions(&bench.spoke(), &paths).await?;
    let new = [
        configmap(&ns, "settings", "2"),
        configmap(&ns, "same", "1"),
        deployment(&ns, "web", 3),
        secret("latter-hidden"),
        configmap(&ns, "new", "1"),
    ];
    let changed = bench.diff("app", &new, &[]).await?;
    assert_eq!(changed.code, 1, "{changed:?}");
    assert_eq!(changed.stderr, "", "{changed:?}");
    for part in [
        &format!("change ConfigMap {ns}/settings\n- data.value: \"1\"\n+ data.value: \"2\"\n"),
        &format!("change Deployment.apps {ns}/web\n- spec.replicas: 2\n+ spec.replicas: 3\n"),
        &format!("change Secret {ns}/key\n- data.password: (not shown)\n+ data.password: (not shown)\n"),
        &format!("create ConfigMap {ns}/new\n+ "),
        &format!("delete ConfigMap {ns}/old\n"),
        "1 to create, 3 to change, 1 to delete, 1 unchanged\n",
    ] {
        assert!(changed.stdout.contains(part), "no {part:?} in {}", changed.stdout);
    }
    let hidden = [
        "hidden",
        &STANDARD.encode("former-hidden"),
        &STANDARD.encode("latter-hidden"),
    ];
    assert!(
        !hidden.iter().any(|h| changed.stdout.contains(h)),
        "{}",
        changed.stdout
    );
    assert!(
        !changed.stdout.contains('\x1b'),
        "colours only on a terminal: {}",
        changed.stdout
    );
    bench.is_clean().await?;
    assert_eq!(versions(&bench.spoke(), &paths).await?, before);

    let json = bench.diff("app", &new, &["-o", "json"]).await?;
    assert_eq!(json.code, 1, "{json:?}");
    let value: Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(
        (&value["unchanged"], &value["work"]),
        (&json!(1), &json!("app")),
        "{value}"
    );
    let actions: Vec<&str> = value["objects"]
        .as_array()
        .context("objects")?
        .iter()
        .filter_map(|o| o["action"].as_str())
        .collect();
    assert_eq!(
        actions,
        ["Change", "Change", "Change", "Create", "Delete"],
        "{value}"
    );
    assert_eq!(
        value["objects"][0]["fields"],
        json!([{"path": "data.value", "old": "\"1\"", "new": "\"2\""}])
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_tells_drift_refusals_and_works_that_are_not_there_yet() -> Result {
    let bench = Bench::new().await?;
    let (name, ns) = (bench.cluster(), bench.namespace());
    // Drift that is only reported.
    let mut app = work(name, "app", &[configmap(&ns, "settings", "1")]);
    app["metadata"]["annotations"] = json!({"work.muster.open-cluster-management.io/drift": "Report"});
    bench.fleet.create(&app).await?;
    bench.fleet.until_applied(name, "app").await?;
    let path = configmap_path(&ns, "settings");
    bench
        .spoke()
        .merge(&path, &json!({"data": {"value": "drifted"}}))
        .await?;
    let drift = bench.diff("app", &[], &[]).await?;
    assert_eq!(drift.code, 1, "{drift:?}");
    assert!(
        drift
            .stdout
            .contains("- data.value: \"drifted\"\n+ data.value: \"1\"\n"),
        "{}",
        drift.stdout
    );

    // What the server refuses, what is somebody else's, and a namespace and a kind that come with the work.
    let other = format!("{ns}-new");
    let mut invalid = deployment(&ns, "invalid", 1);
    invalid["spec"]["selector"]["matchLabels"]["app"] = json!("another");
    let new = [
        muster_tests::objects::namespace(&other),
        configmap(&other, "inside", "1"),
        configmap("no-such-namespace", "lost", "1"),
        invalid,
    ];
    let run = bench.diff("not-there-yet", &new, &[]).await?;
    assert_eq!(run.code, 2, "{run:?}");
    for part in [
        &format!("create Namespace {other}\n"),
        &format!("create ConfigMap {other}/inside\n! its namespace comes with this work\n"),
        "error ConfigMap no-such-namespace/lost\n! ",
        &format!("error Deployment.apps {ns}/invalid\n! "),
        "2 to create, 2 not possible, 0 unchanged\n",
    ] {
        assert!(run.stdout.contains(part), "no {part:?} in {}", run.stdout);
    }
    assert!(
        run.stderr.starts_with("error: not everything could be applied"),
        "{run:?}"
    );
    assert!(
        bench
            .spoke()
            .find(&format!("/api/v1/namespaces/{other}"))
            .await?
            .is_none()
    );
    bench.is_clean().await?;

    for (work, kubeconfig, part) in [
        ("no-such-work", bench.hub.as_str(), "has no work"),
        ("app", "/nowhere", "/nowhere"),
    ] {
        let args = [
            "work",
            "diff",
            work,
            "--cluster",
            name,
            "--kubeconfig",
            kubeconfig,
        ];
        let run = bench.program.run(&args).await?;
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.stderr.contains(part), "{run:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_that_gets_no_answer_leaves_nothing_behind() -> Result {
    let mut bench = Bench::new().await?;
    let (name, ns) = (bench.cluster().to_owned(), bench.namespace());
    bench
        .fleet
        .create(&work(&name, "app", &[configmap(&ns, "settings", "1")]))
        .await?;
    bench.fleet.until_applied(&name, "app").await?;
    bench.fleet.clusters[0].stop().await?;
    let late = bench
        .diff("app", &[configmap(&ns, "settings", "2")], &["--timeout", "1s"])
        .await?;
    assert_eq!(late.code, 2, "{late:?}");
    assert!(
        late.stderr.contains("within 1 s") && late.stderr.contains("is it available"),
        "{late:?}"
    );
    bench.is_clean().await?;
    // Also when whoever asks has enough of it; for works that exist and that do not.
    for work in ["app", "another"] {
        let mut process = bench.program.spawn(&[
            "work",
            "diff",
            work,
            "--cluster",
            &name,
            "-f",
            "new.yaml",
            "--kubeconfig",
            &bench.hub,
        ])?;
        bench
            .fleet
            .kube()
            .until_all(&works_path(&name), SOON, "the question is asked", |works| {
                works
                    .values()
                    .any(|w| w["metadata"]["annotations"][DRY_RUN].is_string())
                    .then_some(())
                    .ok_or_else(|| "it is not".into())
            })
            .await?;
        process.signal("INT")?;
        assert_eq!(process.until_ended(SOON).await?, Some(2), "{}", process.stderr());
        assert!(
            process.stderr().contains("stopped before"),
            "{}",
            process.stderr()
        );
        bench.is_clean().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_that_only_asks_is_not_applied() -> Result {
    let bench = Bench::new().await?;
    let (name, ns) = (bench.cluster(), bench.namespace());
    let mut asking = work(name, "asking", &[configmap(&ns, "asked", "1")]);
    asking["metadata"]["annotations"] = json!({DRY_RUN: "true"});
    bench.fleet.create(&asking).await?;
    let answered = bench
        .fleet
        .until_work(name, "asking", "it is answered", |work| {
            match condition(work, "DryRun") {
                Some(("True", answer)) if answer.contains("\"action\":\"Create\"") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
    assert!(answered["metadata"]["finalizers"].is_null(), "{answered}");
    assert!(condition(&answered, "Applied").is_none(), "{answered}");
    assert!(bench.spoke().find(&configmap_path(&ns, "asked")).await?.is_none());
    // Without the question it is a work like others.
    let patch = json!({"metadata": {"annotations": {DRY_RUN: null}}});
    bench
        .fleet
        .kube()
        .merge(&work_path(name, "asking"), &patch)
        .await?;
    let applied = bench.fleet.until_applied(name, "asking").await?;
    assert!(condition(&applied, "DryRun").is_none(), "{applied}");
    // And one that asks again is left as it is.
    let patch = json!({"metadata": {"annotations": {DRY_RUN: "true"}}});
    bench
        .fleet
        .kube()
        .merge(&work_path(name, "asking"), &patch)
        .await?;
    bench
        .fleet
        .set_manifests(name, "asking", &[configmap(&ns, "asked", "2")])
        .await?;
    bench
        .fleet
        .until_work(name, "asking", "it is answered", |work| {
            match condition(work, "DryRun") {
                Some(("True", answer)) if answer.contains("\"new\":\"\\\"2\\\"\"") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
    let live = bench.spoke().get(&configmap_path(&ns, "asked")).await?;
    assert_eq!(live["data"]["value"], "1");
    Ok(())
}
