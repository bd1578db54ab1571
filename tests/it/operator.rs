//! What an operator sees of a hub: when credentials end, metrics, who leads.

use crate::{MUSTER, Result};
use anyhow::Context as _;
use muster_crds::validity::Validity;
use muster_hub::Feature;
use muster_tests::control_plane::BOOTSTRAP_USER;
use muster_tests::objects::{self, cluster_path, configmap, configmap_path, work, work_path};
use muster_tests::program::Process;
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube, Program, eventually};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Where a process serves metrics and health checks, as it says.
async fn listens(process: &Process) -> anyhow::Result<SocketAddr> {
    eventually(SOON, "it says where it serves metrics", || {
        let log = process.stderr();
        let line = log
            .lines()
            .find(|line| line.contains("metrics and health checks are served"));
        let address = line
            .and_then(|line| line.split_once("address="))
            .map(|(_, rest)| rest.trim());
        std::future::ready(address.and_then(|address| address.parse().ok()).ok_or(log))
    })
    .await
}

/// Status and body of an answer.
async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("it is no HTTP")?;
    let status = head.split(' ').nth(1).context("it has no status")?;
    Ok((status.parse()?, body.to_owned()))
}

/// The value of a series; `None` where there is none, or nobody answers.
async fn metric(address: SocketAddr, series: &str) -> Option<f64> {
    let (_, text) = ask(address, "/metrics").await.ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

/// Waits until a series is as it should be.
async fn until_metric(address: SocketAddr, series: &str, check: impl Fn(f64) -> bool) -> Result {
    eventually(SOON, series, || async {
        match metric(address, series).await {
            Some(value) if check(value) => Ok(()),
            other => Err(format!("it is {other:?}")),
        }
    })
    .await
}

/// The hub itself notes when an agent's certificate ends, whatever the agent says or keeps to itself.
#[tokio::test(flavor = "multi_thread")]
async fn when_a_certificate_ends_is_seen_at_the_hub() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let name = fleet.clusters[0].name.clone();
    let pem = std::fs::read(fleet.clusters[0].credentials().join("tls.crt"))?;
    let issued = muster_hub::certificate::validity(&pem).expect("the klusterlet's certificate has dates");
    let note = "registration.muster.open-cluster-management.io/client-certificate";
    let path = cluster_path(&name);
    fleet
        .kube()
        .until(&path, SOON, "the hub notes the certificate", |object| {
            let object = object.ok_or("it is not there")?;
            match object["metadata"]["annotations"][note].as_str() {
                Some(text) if text.parse() == Ok(issued) => Ok(()),
                other => Err(format!("the note is {other:?}, not {issued}")),
            }
        })
        .await?;

    let program = Program::new(MUSTER)?;
    let hub = fleet.hub.plane.kubeconfig().display().to_string();
    let get = ["get", "clusters", &name, "-o", "wide", "--kubeconfig", &hub];
    let run = program.run(&get).await?;
    assert!(
        run.stdout.lines().next().unwrap_or_default().ends_with("EXPIRES"),
        "{run:?}"
    );
    assert!(run.stdout.contains("   in "), "{run:?}");
    assert!(run.stderr.is_empty(), "{run:?}");

    // What should have been renewed long ago is warned of, in every form of the table.
    let late = Validity {
        not_before: "2020-01-01T00:00:00Z".parse()?,
        not_after: "2020-02-01T00:00:00Z".parse()?,
    };
    fleet.clusters[0].stop().await?;
    fleet.hub.stop().await?;
    let said = json!({"status": {"conditions": null}});
    fleet.kube().merge(&format!("{path}/status"), &said).await?;
    let noted = json!({"metadata": {"annotations": {note: late.to_string()}}});
    fleet.kube().merge(&path, &noted).await?;
    let narrow = ["get", "clusters", &name, "--kubeconfig", &hub];
    let run = program.run(&narrow).await?;
    let warning = format!("warning: the certificate of cluster {name} expired at 2020-02-01");
    assert!(
        run.stderr.contains(&warning) && !run.stdout.contains("EXPIRES"),
        "{run:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_health_tell_of_hub_and_klusterlet() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    fleet.hub.stop().await?;
    let program = Program::new(MUSTER)?;
    let admin = fleet.hub.plane.kubeconfig().display().to_string();
    let hub = program.spawn(&[
        "hub",
        "--kubeconfig",
        &admin,
        "--disable-leader-election",
        "--listen=127.0.0.1:0",
        "--feature-gates=ManagedClusterAutoApproval=true",
        "--auto-approved-csr-users",
        BOOTSTRAP_USER,
    ])?;
    let at_hub = listens(&hub).await?;
    eventually(SOON, "the hub is ready", || async {
        match ask(at_hub, "/readyz").await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;

    let cluster = &fleet.clusters[0];
    let (name, ns) = (cluster.name.clone(), cluster.namespace());
    let options = &cluster.options;
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|p| p.display().to_string()).unwrap_or_default()
    };
    let klusterlet = program.spawn(&[
        "klusterlet",
        "--cluster-name",
        &name,
        "--namespace",
        &options.namespace,
        "--bootstrap-kubeconfig",
        &path(&options.bootstrap_kubeconfig),
        "--spoke-kubeconfig",
        &path(&options.spoke_kubeconfig),
        "--hub-kubeconfig-dir",
        &options.hub_kubeconfig_dir.display().to_string(),
        "--listen=127.0.0.1:0",
    ])?;
    let at_klusterlet = listens(&klusterlet).await?;
    fleet.until_available().await?;
    fleet
        .create(&work(&name, "app", &[configmap(&ns, "app", "1")]))
        .await?;
    fleet.until_applied(&name, "app").await?;

    // The hub's.
    let mine = format!("{{cluster=\"{name}\"}}");
    let now = f64::from(u32::try_from(jiff::Timestamp::now().as_second())?);
    let expiry = format!("muster_hub_cluster_certificate_expiration_timestamp_seconds{mine}");
    until_metric(at_hub, &expiry, |end| end > now).await?;
    until_metric(
        at_hub,
        &format!("muster_hub_cluster_lease_age_seconds{mine}"),
        |age| age < 120.0,
    )
    .await?;
    let available = "muster_hub_clusters{condition=\"ManagedClusterConditionAvailable\",status=\"True\"}";
    until_metric(at_hub, available, |number| number >= 1.0).await?;
    let approved = "muster_hub_certificate_requests_answered_total{outcome=\"approved\"}";
    until_metric(at_hub, approved, |number| number >= 1.0).await?;
    until_metric(at_hub, "muster_hub_works{state=\"present\"}", |number| {
        number >= 1.0
    })
    .await?;
    let reconciled = "muster_hub_reconcile_total{controller=\"ManagedCluster\",result=\"success\"}";
    until_metric(at_hub, reconciled, |number| number >= 1.0).await?;
    until_metric(
        at_hub,
        "muster_hub_requests_total{verb=\"create\",code=\"2xx\"}",
        |number| number >= 1.0,
    )
    .await?;
    let own = "muster_hub_certificate_expiration_timestamp_seconds{certificate=\"kubeconfig\"}";
    if fleet.hub.plane.is_embedded() {
        until_metric(at_hub, own, |end| end > now).await?;
    }

    // The klusterlet's; drift that is repaired is counted.
    let ends = "muster_klusterlet_certificate_expiration_timestamp_seconds";
    until_metric(at_klusterlet, ends, |end| end > now).await?;
    until_metric(
        at_klusterlet,
        "muster_klusterlet_works{applied=\"True\"}",
        |number| number >= 1.0,
    )
    .await?;
    until_metric(at_klusterlet, "muster_klusterlet_watches", |number| number >= 1.0).await?;
    let repairs = "muster_klusterlet_drift_repairs_total";
    let before = metric(at_klusterlet, repairs)
        .await
        .context("repairs are not counted")?;
    let path = configmap_path(&ns, "app");
    cluster
        .kube()
        .merge(&path, &json!({"data": {"value": "2"}}))
        .await?;
    until_metric(at_klusterlet, repairs, |number| number > before).await?;
    cluster
        .kube()
        .until(&path, SOON, "it is put back", |map| match map {
            Some(map) if map["data"]["value"] == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
    cluster.kube().delete(&path).await?;
    until_metric(at_klusterlet, repairs, |number| number > before + 1.0).await?;
    for (address, path) in [
        (at_hub, "/livez"),
        (at_hub, "/healthz"),
        (at_klusterlet, "/healthz?verbose"),
        (at_klusterlet, "/readyz"),
    ] {
        let (status, text) = ask(address, path).await?;
        assert_eq!(status, 200, "{path}: {text}");
        assert_eq!(
            text.contains("[+]hub-kube-config ok"),
            path.ends_with("verbose"),
            "{text}"
        );
    }
    // No secret of the fleet is told.
    let (_, text) = ask(at_hub, "/metrics").await?;
    assert!(!text.contains("BEGIN") && text.ends_with("# EOF\n"), "{text}");
    Ok(())
}

/// A hub that takes part in an election, in a namespace of the test's own.
fn candidate(program: &Program, admin: &str, namespace: &str, more: &[&str]) -> anyhow::Result<Process> {
    let mut line = vec![
        "hub",
        "--kubeconfig",
        admin,
        "--namespace",
        namespace,
        "--listen=127.0.0.1:0",
    ];
    line.extend(more);
    program.spawn(&line)
}

async fn holder(kube: &Kube, namespace: &str) -> anyhow::Result<(String, i64)> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/muster-hub");
    let lease = kube.get(&path).await?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    Ok((
        holder.to_owned(),
        lease["spec"]["leaseTransitions"].as_i64().unwrap_or(-1),
    ))
}

const LEADS: &str = "muster_hub_leader";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_followed_by_another() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions {
        clusters: 0,
        ..FleetOptions::default()
    })
    .await?;
    fleet.hub.stop().await?;
    let program = Program::new(MUSTER)?;
    let admin = fleet.hub.plane.kubeconfig().display().to_string();
    let namespace = format!("election-{:08x}", rand::random::<u32>());
    let short = [
        "--leader-election-lease-duration=3s",
        "--leader-election-renew-deadline=2s",
        "--leader-election-retry-period=500ms",
    ];
    let mut first = candidate(&program, &admin, &namespace, &short)?;
    let at_first = listens(&first).await?;
    until_metric(at_first, LEADS, |leads| leads > 0.5).await?;
    let (leader, transitions) = holder(&fleet.kube(), &namespace).await?;
    let second = candidate(&program, &admin, &namespace, &short)?;
    let at_second = listens(&second).await?;
    // The other is ready to take over, and does not while the first lives: for longer than a Lease lasts.
    for _ in 0..40 {
        assert_eq!(metric(at_second, LEADS).await, Some(0.0), "two lead");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(ask(at_second, "/readyz").await?.0, 200);
    assert_eq!(holder(&fleet.kube(), &namespace).await?.0, leader);

    first.kill()?;
    until_metric(at_second, LEADS, |leads| leads > 0.5).await?;
    let (next, after) = holder(&fleet.kube(), &namespace).await?;
    assert_ne!(next, leader);
    assert_eq!(after, transitions + 1);
    // And it does a leader's work.
    let name = format!("led-{:08x}", rand::random::<u32>());
    let cluster = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": name}, "spec": {"hubAcceptsClient": true}});
    fleet.kube().create(objects::CLUSTERS, &cluster).await?;
    fleet
        .until_condition(&name, "HubAcceptedManagedCluster", "True")
        .await?;
    fleet.kube().delete(&cluster_path(&name)).await?;
    fleet.kube().until_gone(&cluster_path(&name), SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_lets_go_at_once_and_one_whose_lease_is_taken_stops() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions {
        clusters: 0,
        ..FleetOptions::default()
    })
    .await?;
    fleet.hub.stop().await?;
    let program = Program::new(MUSTER)?;
    let admin = fleet.hub.plane.kubeconfig().display().to_string();
    let namespace = format!("election-{:08x}", rand::random::<u32>());
    // Nobody waits this long: only letting go lets another lead in time.
    let long = [
        "--leader-election-lease-duration=20m",
        "--leader-election-renew-deadline=10m",
    ];
    let mut first = candidate(&program, &admin, &namespace, &long)?;
    let at_first = listens(&first).await?;
    until_metric(at_first, LEADS, |leads| leads > 0.5).await?;
    let second = candidate(&program, &admin, &namespace, &long)?;
    let at_second = listens(&second).await?;
    until_metric(at_second, LEADS, |leads| leads < 0.5).await?;
    first.signal("TERM")?;
    assert_eq!(first.until_ended(SOON).await?, Some(0), "{}", first.stderr());
    until_metric(at_second, LEADS, |leads| leads > 0.5).await?;

    // A person gives the lead to somebody else: the leader ends its controllers, and the process stays.
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/muster-hub");
    fleet
        .kube()
        .merge(&path, &json!({"spec": {"holderIdentity": "a-person"}}))
        .await?;
    until_metric(at_second, LEADS, |leads| leads < 0.5).await?;
    assert_eq!(
        metric(at_second, "muster_hub_queue_depth{controller=\"ManagedCluster\"}").await,
        None
    );
    fleet
        .kube()
        .merge(&path, &json!({"spec": {"holderIdentity": ""}}))
        .await?;
    until_metric(at_second, LEADS, |leads| leads > 0.5).await
}

/// Works that are complete go after their time, others stay (gate CleanUpCompletedManifestWork).
#[tokio::test(flavor = "multi_thread")]
async fn completed_works_go_after_their_time() -> Result {
    let fleet = Fleet::start(FleetOptions {
        gates: vec![Feature::CleanUpCompletedManifestWork],
        ..FleetOptions::default()
    })
    .await?;
    fleet.until_available().await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (cluster.name.clone(), cluster.namespace());
    let done = |of: &str| {
        json!([{"resourceIdentifier": {"group": "", "resource": "configmaps", "namespace": ns, "name": of},
            "conditionRules": [{"type": "CEL", "condition": "Complete", "celExpressions": ["object.data.value == 'done'"]}]}])
    };
    let ttl = |seconds: i64| json!({"propagationPolicy": "Foreground", "ttlSecondsAfterFinished": seconds});
    let owned = json!({"work.open-cluster-management.io/manifestworkreplicaset": "ns.set"});
    for (work, value, delete, labels) in [
        ("goes", "done", Some(ttl(1)), None),
        ("goes-at-once", "done", Some(ttl(0)), None),
        ("later", "done", Some(ttl(3600)), None),
        ("no-time", "done", None, None),
        ("not-done", "open", Some(ttl(0)), None),
        ("of-a-set", "done", Some(ttl(0)), Some(owned)),
    ] {
        let manifests = [configmap(&ns, work, value)];
        let mut object = objects::work_with(&name, work, &manifests, &json!({"manifestConfigs": done(work)}));
        if let Some(delete) = delete {
            object["spec"]["deleteOption"] = delete;
        }
        if let Some(labels) = labels {
            object["metadata"]["labels"] = labels;
        }
        fleet.create(&object).await?;
    }
    for gone in ["goes", "goes-at-once"] {
        fleet.kube().until_gone(&work_path(&name, gone), SOON).await?;
        cluster
            .kube()
            .until_gone(&configmap_path(&ns, gone), SOON)
            .await?;
    }
    for stays in ["later", "no-time", "of-a-set"] {
        fleet
            .kube()
            .until(
                &work_path(&name, stays),
                SOON,
                &format!("{stays} is complete"),
                |work| objects::has_condition(work, "Complete", "True"),
            )
            .await?;
    }
    fleet.until_applied(&name, "not-done").await?;
    // What becomes done later goes, too; what is given another time goes when that has passed.
    fleet
        .set_manifests(&name, "not-done", &[configmap(&ns, "not-done", "done")])
        .await?;
    fleet
        .kube()
        .until_gone(&work_path(&name, "not-done"), SOON)
        .await?;
    let sooner = json!({"spec": {"deleteOption": ttl(0)}});
    fleet.kube().merge(&work_path(&name, "later"), &sooner).await?;
    fleet.kube().until_gone(&work_path(&name, "later"), SOON).await?;
    for stays in ["no-time", "of-a-set"] {
        assert!(
            fleet.kube().find(&work_path(&name, stays)).await?.is_some(),
            "{stays} went"
        );
    }
    Ok(())
}

/// A hub with no room says so once, asks seldom, and goes on when there is room; no cluster is taken for lost meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_room_says_so_once_and_waits() -> Result {
    const SPARE: usize = 100;
    let whole = Program::new(MUSTER)?;
    let full = whole.with_little_room()?;
    let hub = |program: &Program| {
        program.spawn(&[
            "hub",
            "--standalone",
            "--data-dir",
            "hub",
            "--bind",
            "127.0.0.1:0",
            "--listen=127.0.0.1:0",
            "--lease-grace-factor=1.5",
            "--feature-gates=ManagedClusterAutoApproval=true",
        ])
    };
    let mut process = hub(&full)?;
    let admin = whole.home().join("hub/admin.kubeconfig");
    process.until_file(&admin).await?;
    let address = listens(&process).await?;
    let kube = Kube::from_file("hub", &admin).await?;
    // Clusters whose leases nobody renews: in six seconds the hub has something to write of each.
    let names: Vec<String> = (0..20).map(|number| format!("cluster{number}")).collect();
    for name in &names {
        let cluster = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
            "metadata": {"name": name}, "spec": {"hubAcceptsClient": true, "leaseDurationSeconds": 4}});
        kube.create(objects::CLUSTERS, &cluster).await?;
    }
    for name in &names {
        let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{name}/leases/managed-cluster-lease");
        kube.until_there(&lease, SOON).await?;
    }
    let maps = "/api/v1/namespaces/default/configmaps";
    let filler = |name: &str, size: usize| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"filler": "x".repeat(size)}})
    };
    // Until not even the smallest fits.
    let mut size = 100_000;
    for number in 0.. {
        anyhow::ensure!(number < 2000, "the disk does not fill");
        if kube
            .create(maps, &filler(&format!("m{number}"), size))
            .await
            .is_err()
        {
            if size == SPARE {
                break;
            }
            size = (size / 10).max(SPARE);
        }
    }
    until_metric(address, "muster_hub_storage_full", |is| is > 0.5).await?;
    let refused = "muster_hub_requests_total{verb=\"patch\",code=\"500\"}";
    until_metric(address, refused, |number| number >= 1.0).await?;
    // Twenty clusters want to be written of, again and again; in four seconds no more than a try or two is made.
    // What was under way when the first was refused may end.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = metric(address, refused).await.context("nothing is counted")?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let after = metric(address, refused).await.context("nothing is counted")?;
    assert!(after - before <= 4.0, "{} requests in 4 s", after - before);
    let log = process.stderr();
    assert_eq!(
        log.matches("has no room to store anything: until").count(),
        1,
        "{log}"
    );
    assert!(log.lines().count() < 100, "it says too much: {log}");
    assert_eq!(
        ask(address, "/livez").await?.0,
        200,
        "it would be started again for nothing"
    );
    process.kill()?;

    // With room again, everything is as it was, and goes on.
    let mut process = hub(&whole)?;
    let address = listens(&process).await?;
    until_metric(address, "muster_hub_storage_full", |is| is < 0.5).await?;
    process.until_file(&admin).await?;
    let kube = eventually(SOON, "the hub answers", || async {
        let kube = Kube::from_file("hub", &admin)
            .await
            .map_err(|error| error.to_string())?;
        let found = kube
            .list(objects::CLUSTERS)
            .await
            .map_err(|error| error.to_string())?;
        if found.len() == names.len() {
            Ok(kube)
        } else {
            Err(format!("{} clusters", found.len()))
        }
    })
    .await?;
    for name in &names {
        let path = cluster_path(name);
        kube.until(
            &path,
            SOON,
            "it is noticed that nobody renews the lease",
            |cluster| objects::has_condition(cluster, "ManagedClusterConditionAvailable", "Unknown"),
        )
        .await?;
    }
    Ok(())
}
