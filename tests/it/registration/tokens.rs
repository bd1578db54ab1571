//! Join tokens: what they bring, what the hub holds their holders to, and how they end.

use super::{accept, csr_of, denied_csr, honest, name, until_available, until_said};
use crate::{MUSTER, Result};
use anyhow::Context as _;
use muster_crds::constants::{annotations, conditions, labels, names, reasons};
use muster_tests::objects::{CLUSTERS, CSRS, cluster_path, condition, has_condition};
use muster_tests::wait::{SOON, eventually};
use muster_tests::{Fleet, FleetOptions, Kube, Program, tokens};
use serde_json::{Value, json};

/// A hub that approves and accepts nobody by itself, and clusters that do not run yet.
async fn strict(clusters: usize) -> anyhow::Result<Fleet> {
    Fleet::prepare(FleetOptions {
        clusters,
        auto_approve: false,
        ..FleetOptions::default()
    })
    .await
}

/// Gives a cluster a token to come with.
fn give(fleet: &mut Fleet, index: usize, token: &str) -> Result {
    let plane = &fleet.hub.plane;
    let cluster = fleet.clusters.get_mut(index).context("the fleet has it")?;
    let file = plane.token_kubeconfig(token, cluster.link.address())?;
    cluster.options.bootstrap_kubeconfig = Some(file);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_joins_a_cluster_with_all_that_its_token_brings() -> Result {
    let mut fleet = strict(1).await?;
    let hub = fleet.kube();
    let set = format!("burst-{:08x}", rand::random::<u32>());
    let sets = "/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets";
    let object = json!({"apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSet",
        "metadata": {"name": set}, "spec": {"clusterSelector": {"selectorType": "ExclusiveClusterSetLabel"}}});
    hub.create(sets, &object).await?;

    let program = Program::new(MUSTER)?;
    let admin = fleet.hub.plane.kubeconfig().display().to_string();
    let cluster = fleet.clusters[0].name.clone();
    let create = [
        "token",
        "create",
        "--kubeconfig",
        &admin,
        "--clusters",
        &cluster,
        "--uses",
        "2",
        "--ttl",
        "1h",
        "--accept",
        "--set",
        &set,
        "--label",
        "env=test",
        "--label",
        "tier=edge",
    ];
    let made = program.run(&create).await?;
    anyhow::ensure!(made.code == 0, "{made:?}");
    let mut line: Vec<&str> = made.stdout.split_whitespace().collect();
    assert_eq!(line.remove(0), "muster", "{}", made.stdout);
    let spoke = fleet.clusters[0].plane.kubeconfig().display().to_string();
    let agent = fleet.clusters[0].options.namespace.clone();
    line.extend([
        "--kubeconfig",
        &spoke,
        "--dir",
        "agent",
        "--",
        "--namespace",
        &agent,
    ]);
    let mut joined = program.spawn(&line)?;
    until_available(&hub, &cluster)
        .await
        .with_context(|| joined.stderr())?;

    let object = hub.get(&cluster_path(&cluster)).await?;
    let label = |key: &str| object["metadata"]["labels"][key].as_str().unwrap_or_default();
    assert_eq!(
        (label("env"), label("tier"), label(labels::CLUSTER_SET)),
        ("test", "edge", set.as_str())
    );
    let run = async |args: &[&str]| -> anyhow::Result<String> {
        let run = program.run(&[args, &["--kubeconfig", &admin]].concat()).await?;
        anyhow::ensure!(run.code == 0, "{args:?}: {run:?}");
        Ok(run.stdout)
    };
    let token = line[4];
    let (id, secret) = token.split_once('.').context("a token has two parts")?;
    let listed = run(&["token", "list"]).await?;
    let row = listed
        .lines()
        .find(|row| row.starts_with(id))
        .with_context(|| listed.clone())?;
    for cell in [cluster.as_str(), "1/2", "true", &set, "env=test"] {
        assert!(row.contains(cell), "no {cell} in {row}");
    }
    for text in [
        &listed,
        &run(&["token", "list", "-o", "yaml"]).await?,
        &joined.stderr(),
        &joined.stdout(),
    ] {
        assert!(!text.contains(secret), "the secret is shown: {text}");
    }

    // What came with it stays when it is revoked; what comes later is refused.
    run(&["token", "revoke", id]).await?;
    super::renew_stops(&hub, &cluster).await?;
    super::lease_of(&hub, &cluster, 1).await?;
    super::renewed(&hub, &cluster).await?;
    // A kube-apiserver believes a token for some seconds after it was asked about it; the hub does not.
    let holder = super::holder(&fleet, token).await?;
    eventually(SOON, "the API server refuses the token", async || {
        let answer = holder.get(&cluster_path(&cluster)).await.map_err(|r| r.code);
        (answer == Err(401))
            .then_some(())
            .ok_or_else(|| format!("{answer:?}"))
    })
    .await?;
    give(&mut fleet, 0, token)?;
    let other = &mut fleet.clusters[0];
    other.options.cluster_name = Some(format!("{cluster}-2"));
    other.options.namespace = "agent-of-another".into();
    other.start();
    let error = other.failure().await?;
    assert!(
        error.contains("refuses the credential") && !error.contains(secret),
        "{error}"
    );
    let again = program
        .run(&["token", "revoke", id, "--kubeconfig", &admin])
        .await?;
    assert!(
        again.code == 1 && again.stderr.contains("muster token list"),
        "{again:?}"
    );
    joined.signal("TERM")?;
    assert_eq!(joined.until_ended(SOON).await?, Some(0));
    hub.delete(&format!("{sets}/{set}")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_accept_leaves_that_to_a_person() -> Result {
    let mut fleet = strict(1).await?;
    let hub = fleet.kube();
    let token = tokens::make(&hub, &["--label", "env=test"]).await?;
    give(&mut fleet, 0, &token)?;
    fleet.clusters[0].start();
    let cluster = fleet.clusters[0].name.clone();
    let csr = csr_of(&hub, &cluster).await?;
    super::until_signed(&hub, name(&csr)).await?;
    let object = hub.get(&cluster_path(&cluster)).await?;
    assert_eq!(object["spec"]["hubAcceptsClient"], false);
    assert!(has_condition(Some(&object), conditions::HUB_ACCEPTED, "True").is_err());
    assert!(
        hub.find(&format!("/api/v1/namespaces/{cluster}"))
            .await?
            .is_none()
    );
    accept(&hub, &cluster, true).await?;
    until_available(&hub, &cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_token_does_not_allow_is_denied_with_the_reason() -> Result {
    let mut fleet = strict(1).await?;
    let hub = fleet.kube();
    let token = tokens::make(&hub, &["--clusters", "burst-*", "--accept"]).await?;
    give(&mut fleet, 0, &token)?;
    fleet.clusters[0].start();
    let cluster = fleet.clusters[0].name.clone();
    let (reason, message) = denied_csr(&hub, &cluster).await?;
    assert_eq!(reason, reasons::CSR_TOKEN_REFUSED);
    assert!(
        message.contains(&cluster) && message.contains("only for burst-*"),
        "{message}"
    );
    assert_eq!(
        hub.get(&cluster_path(&cluster)).await?["spec"]["hubAcceptsClient"],
        false
    );
    assert!(!fleet.clusters[0].credentials().join("tls.crt").exists());
    // The cluster says so too, until it comes with one that allows it.
    until_said(
        &hub,
        &cluster,
        conditions::JOIN_REFUSED,
        "True",
        "only for burst-*",
    )
    .await?;
    let right = tokens::make(&hub, &["--clusters", &cluster, "--accept"]).await?;
    fleet.clusters[0].stop().await?;
    give(&mut fleet, 0, &right)?;
    fleet.clusters[0].start();
    until_available(&hub, &cluster).await?;
    until_said(&hub, &cluster, conditions::JOIN_REFUSED, "False", "approved").await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_clusters_that_come_at_once_only_as_many_get_in_as_the_token_has_uses() -> Result {
    let mut fleet = strict(4).await?;
    let hub = fleet.kube();
    let token = tokens::make(&hub, &["--uses", "2", "--accept"]).await?;
    for index in 0..4 {
        give(&mut fleet, index, &token)?;
    }
    for cluster in &mut fleet.clusters {
        cluster.start();
    }
    let mine: Vec<String> = fleet.clusters.iter().map(|c| c.name.clone()).collect();
    let decided = hub
        .until_all(CSRS, SOON, "all four are decided", |csrs| {
            let mut decided = std::collections::BTreeMap::new();
            for csr in csrs.values() {
                let Some(cluster) = mine
                    .iter()
                    .find(|m| csr["metadata"]["labels"][labels::CLUSTER_NAME] == **m)
                else {
                    continue;
                };
                if let Some(condition) = csr["status"]["conditions"].as_array().and_then(|all| all.first()) {
                    decided.insert(cluster.clone(), condition.clone());
                }
            }
            (decided.len() == 4)
                .then(|| decided.clone())
                .ok_or_else(|| format!("{decided:?}"))
        })
        .await?;
    let (in_, out): (Vec<_>, Vec<_>) = decided.iter().partition(|(_, c)| c["type"] == "Approved");
    assert_eq!((in_.len(), out.len()), (2, 2), "{decided:#?}");
    for (_, condition) in &out {
        let message = condition["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("is used up: 2 of 2 clusters came with it"),
            "{message}"
        );
    }
    for (cluster, _) in &in_ {
        until_available(&hub, cluster).await?;
    }
    let secret = hub.get(&tokens::secret_path(&token)).await?;
    let used = secret["metadata"]["annotations"][annotations::TOKEN_USED_BY]
        .as_str()
        .unwrap_or_default();
    let used: std::collections::BTreeSet<&str> = used.split(',').collect();
    assert_eq!(used, in_.iter().map(|(c, _)| c.as_str()).collect());
    for (cluster, _) in &out {
        assert_eq!(
            hub.get(&cluster_path(cluster)).await?["spec"]["hubAcceptsClient"],
            false
        );
        until_said(
            &hub,
            cluster,
            conditions::JOIN_REFUSED,
            "True",
            "is used up: 2 of 2",
        )
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ran_out_after_it_was_used_to_ask_lets_nobody_in() -> Result {
    // The API server takes a token until its end; the hub looks again when it decides.
    let mut fleet = strict(1).await?;
    let hub = fleet.kube();
    let token = tokens::make(&hub, &["--accept"]).await?;
    fleet.hub.stop().await?;
    give(&mut fleet, 0, &token)?;
    fleet.clusters[0].start();
    let cluster = fleet.clusters[0].name.clone();
    csr_of(&hub, &cluster).await?;
    let past = json!({"metadata": {"annotations": {annotations::TOKEN_EXPIRATION: "2020-01-01T00:00:00Z"}}});
    hub.merge(&tokens::secret_path(&token), &past).await?;
    fleet.hub.start();
    let (reason, message) = denied_csr(&hub, &cluster).await?;
    assert_eq!(reason, reasons::CSR_TOKEN_REFUSED);
    let said = "expired at 2020-01-01T00:00:00Z";
    assert!(message.contains(said), "{message}");
    until_said(&hub, &cluster, conditions::JOIN_REFUSED, "True", said).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_a_token_chooses_neither_set_nor_labels_nor_acceptance() -> Result {
    let fleet = strict(0).await?;
    let hub = fleet.kube();
    let token = tokens::make(&hub, &["--label", "env=test"]).await?;
    let id = token.split('.').next().unwrap_or_default().to_owned();
    let holder = super::believed(&fleet, &token).await?;
    let stranger = format!("stranger-{:08x}", rand::random::<u32>());
    let cluster = |metadata: Value, spec: Value| {
        let mut object = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
            "metadata": metadata, "spec": spec});
        object["metadata"]["name"] = stranger.as_str().into();
        object
    };
    let forged = [
        (
            "acceptance",
            cluster(json!({}), json!({"hubAcceptsClient": true})),
        ),
        ("a label", cluster(json!({"labels": {"env": "prod"}}), json!({}))),
        (
            "another set",
            cluster(json!({"labels": {labels::CLUSTER_SET: "production"}}), json!({})),
        ),
        (
            "that it came with the token",
            cluster(json!({"annotations": {annotations::JOINED_WITH: id}}), json!({})),
        ),
        (
            "an agent",
            cluster(json!({"annotations": {annotations::AGENT: "a"}}), json!({})),
        ),
        (
            "a taint",
            cluster(json!({}), json!({"taints": [{"key": "a", "effect": "NoSelect"}]})),
        ),
        (
            "a finalizer that nobody takes away",
            cluster(json!({"finalizers": ["example.com/holds"]}), json!({})),
        ),
        (
            "that nobody notices when it is lost",
            cluster(json!({}), json!({"leaseDurationSeconds": i32::MAX})),
        ),
    ];
    for (what, object) in &forged {
        match holder.create(CLUSTERS, object).await {
            Err(refused) => assert!([400, 403].contains(&refused.code), "{what}: {refused}"),
            Ok(made) => panic!("{what}: {made}"),
        }
    }
    // As a klusterlet makes it, it may; and then it may do nothing more with it.
    let honest_one = cluster(
        json!({"annotations": {"agent.open-cluster-management.io/cluster-uid": "u"}}),
        json!({"hubAcceptsClient": false, "leaseDurationSeconds": 60}),
    );
    holder.create(CLUSTERS, &honest_one).await?;
    let path = cluster_path(&stranger);
    for (what, answer) in [
        (
            "change",
            holder
                .merge(&path, &json!({"metadata": {"labels": {"env": "prod"}}}))
                .await,
        ),
        ("delete", holder.delete(&path).await),
        (
            "status",
            holder
                .merge(&format!("{path}/status"), &json!({"status": {"conditions": []}}))
                .await,
        ),
    ] {
        assert_eq!(answer.map_err(|r| r.code), Err(403), "{what}");
    }
    let csr = holder.create(CSRS, &honest(&stranger, "a")?).await?;
    super::until_signed(&hub, name(&csr)).await?;
    let object = hub.get(&path).await?;
    assert_eq!(object["metadata"]["labels"]["env"], "test");
    assert_eq!(object["spec"]["hubAcceptsClient"], false);
    hub.delete(&path).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_bootstrap_token_waits_for_a_person_and_accepts_nobody() -> Result {
    let mut fleet = strict(2).await?;
    let hub = fleet.kube();
    // One comes with an accepting token, the other as OCM's agents do.
    let token = tokens::make(&hub, &["--accept"]).await?;
    give(&mut fleet, 0, &token)?;
    for cluster in &mut fleet.clusters {
        cluster.start();
    }
    until_available(&hub, &fleet.clusters[0].name).await?;
    let plain = fleet.clusters[1].name.clone();
    let csr = csr_of(&hub, &plain).await?;
    let object = hub.until_there(&cluster_path(&plain), SOON).await?;
    assert_eq!(object["spec"]["hubAcceptsClient"], false);
    assert_eq!(
        hub.get(&format!("{CSRS}/{}", name(&csr))).await?["status"]["conditions"],
        Value::Null
    );
    super::approve(&hub, name(&csr)).await?;
    accept(&hub, &plain, true).await?;
    until_available(&hub, &plain).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_cluster_has_is_denied_and_the_other_unharmed() -> Result {
    let mut fleet = strict(2).await?;
    let hub = fleet.kube();
    let token = tokens::make(&hub, &["--accept"]).await?;
    give(&mut fleet, 0, &token)?;
    fleet.clusters[0].start();
    let taken = fleet.clusters[0].name.clone();
    until_available(&hub, &taken).await?;
    let before = hub.get(&cluster_path(&taken)).await?;
    // The klusterlet asks who is there, and is told; where it may not ask, the hub refuses.
    let holder = super::believed(&fleet, &token).await?;
    holder.create(CSRS, &honest(&taken, "second")?).await?;
    let (reason, message) = denied_csr(&hub, &taken).await?;
    assert_eq!(reason, reasons::CSR_CLUSTER_NAME_TAKEN);
    assert!(
        message.contains(&format!("the name {taken} is taken"))
            && message.contains("join under another name"),
        "{message}"
    );
    // Whoever asks for a name in vain writes nothing about the one that has it.
    let other = tokens::make(&hub, &["--clusters", "burst-*"]).await?;
    let holder = super::believed(&fleet, &other).await?;
    let csr = holder.create(CSRS, &honest(&taken, "third")?).await?;
    let path = format!("{CSRS}/{}", name(&csr));
    hub.until(&path, SOON, "it is denied", |csr| {
        has_condition(csr, "Denied", "True")
    })
    .await?;
    let now = hub.get(&cluster_path(&taken)).await?;
    assert!(condition(&now, conditions::JOIN_REFUSED).is_none(), "{now}");
    super::returning::unharmed(&hub, &before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_older_than_its_cluster_is_noted_like_any_other() -> Result {
    let fleet = strict(1).await?;
    let hub = fleet.kube();
    let token = tokens::make(&hub, &["--accept"]).await?;
    let holder = super::believed(&fleet, &token).await?;
    let cluster = fleet.clusters[0].name.clone();
    let csr = holder.create(CSRS, &honest(&cluster, "a1")?).await?;
    let made = &csr["metadata"]["creationTimestamp"];
    let made: jiff::Timestamp = made.as_str().context("it was made")?.parse()?;
    eventually(SOON, "the request is older than now, to the second", async || {
        let now = jiff::Timestamp::now();
        (now.as_second() > made.as_second())
            .then_some(())
            .ok_or_else(|| now.to_string())
    })
    .await?;
    let object = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": cluster}, "spec": {"hubAcceptsClient": false}});
    holder.create(CLUSTERS, &object).await?;
    super::until_signed(&hub, name(&csr)).await?;
    let what = "when its certificate ends is noted";
    hub.until(&cluster_path(&cluster), SOON, what, |object| {
        let notes = object.map(|object| &object["metadata"]["annotations"]);
        let noted = notes.is_some_and(|notes| notes[annotations::CLIENT_CERTIFICATE].is_string());
        noted.then_some(()).ok_or_else(|| format!("{notes:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_brings_no_certificate_for_a_name_that_is_no_clusters() -> Result {
    let fleet = strict(1).await?;
    let hub = fleet.kube();
    let token = tokens::make(&hub, &["--accept"]).await?;
    let holder = super::believed(&fleet, &token).await?;
    holder.create(CSRS, &honest("kube-public", "a1")?).await?;
    let (reason, message) = denied_csr(&hub, "kube-public").await?;
    assert_eq!(reason, reasons::CSR_CLUSTER_NAME_RESERVED);
    assert!(message.contains("is reserved"), "{message}");
    Ok(())
}

/// Its agent would get rights in that namespace: to every Lease there, for one.
#[tokio::test(flavor = "multi_thread")]
async fn no_token_lets_a_cluster_into_a_namespace_that_is_not_its() -> Result {
    let fleet = strict(0).await?;
    let hub = fleet.kube();
    let name = format!("somebodys-{:08x}", rand::random::<u32>());
    hub.create("/api/v1/namespaces", &json!({"metadata": {"name": name}}))
        .await?;
    let token = tokens::make(&hub, &["--accept"]).await?;
    let holder = super::believed(&fleet, &token).await?;
    let object = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": name}, "spec": {}});
    holder.create(CLUSTERS, &object).await?;
    holder.create(CSRS, &honest(&name, "a")?).await?;
    let (reason, message) = denied_csr(&hub, &name).await?;
    assert_eq!(reason, reasons::CSR_TOKEN_REFUSED);
    assert!(message.contains("is no cluster's"), "{message}");
    let cluster = hub.get(&cluster_path(&name)).await?;
    assert_ne!(cluster["spec"]["hubAcceptsClient"], true);
    let told = condition(&cluster, conditions::JOIN_REFUSED);
    assert_eq!(told.map(|(status, _)| status), Some("True"));
    hub.delete(&cluster_path(&name)).await?;
    hub.delete(&format!("/api/v1/namespaces/{name}")).await?;
    Ok(())
}

/// Two klusterlets of one name, before anything is known of either.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_ask_for_one_name_at_once_one_gets_it() -> Result {
    let fleet = strict(0).await?;
    let hub = fleet.kube();
    let name = format!("both-{:08x}", rand::random::<u32>());
    let token = tokens::make(&hub, &["--accept"]).await?;
    let holder = super::believed(&fleet, &token).await?;
    let object = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": name}, "spec": {}});
    holder.create(CLUSTERS, &object).await?;
    let (one, two) = (honest(&name, "a")?, honest(&name, "b")?);
    let (one, two) = tokio::join!(holder.create(CSRS, &one), holder.create(CSRS, &two));
    let asked = [self::name(&one?).to_owned(), self::name(&two?).to_owned()];
    let decisions = async || {
        let mut all = Vec::new();
        for one in &asked {
            let csr = hub.get(&format!("{CSRS}/{one}")).await?;
            all.push(csr["status"]["conditions"][0].clone());
        }
        anyhow::Ok(all)
    };
    let approved = |all: &[Value]| all.iter().filter(|one| one["type"] == "Approved").count();
    eventually(SOON, "one of them gets it", async || {
        let all = decisions().await.map_err(|e| e.to_string())?;
        (approved(&all) == 1)
            .then_some(())
            .ok_or_else(|| format!("{all:?}"))
    })
    .await?;
    // The other waits, for the first may never come.
    super::stays(std::time::Duration::from_secs(1), "one waits", async || {
        let all = decisions().await?;
        anyhow::ensure!(all.iter().filter(|one| one.is_null()).count() == 1, "{all:?}");
        Ok(())
    })
    .await?;
    let path = cluster_path(&name);
    let mut object = hub.get(&path).await?;
    let joined = json!({"type": conditions::JOINED, "status": "True", "reason": "R", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut all = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    all.push(joined);
    object["status"]["conditions"] = all.into();
    let patch = json!({"status": {"conditions": object["status"]["conditions"]}});
    hub.merge(&format!("{path}/status"), &patch).await?;
    eventually(SOON, "and is denied once it has come", async || {
        let all = decisions().await.map_err(|e| e.to_string())?;
        let denied = all
            .iter()
            .any(|one| one["type"] == "Denied" && one["reason"] == reasons::CSR_CLUSTER_NAME_TAKEN);
        (denied && approved(&all) == 1)
            .then_some(())
            .ok_or_else(|| format!("{all:?}"))
    })
    .await
}

/// OCM's bootstrap ServiceAccount is held to the same as who holds a token.
#[tokio::test(flavor = "multi_thread")]
async fn the_bootstrap_service_account_chooses_neither_labels_nor_set() -> Result {
    let fleet = strict(0).await?;
    let (namespace, account) = (names::OPERATOR_NAMESPACE, names::BOOTSTRAP_SERVICE_ACCOUNT);
    let groups = ["system:serviceaccounts", "system:authenticated"];
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let newcomer = Kube::impersonating(fleet.hub.plane.kubeconfig(), &user, &groups).await?;
    let name = format!("stranger-{:08x}", rand::random::<u32>());
    let cluster = |metadata: Value| {
        let mut object = json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
            "metadata": metadata, "spec": {}});
        object["metadata"]["name"] = name.as_str().into();
        object
    };
    let dry = format!("{CLUSTERS}?dryRun=All");
    for (what, metadata) in [
        ("a label", json!({"labels": {"env": "prod"}})),
        ("a finalizer", json!({"finalizers": ["example.com/holds"]})),
        ("an agent", json!({"annotations": {annotations::AGENT: "a"}})),
    ] {
        eventually(SOON, &format!("{what} is refused"), async || {
            match newcomer.create(&dry, &cluster(metadata.clone())).await {
                Err(refused) if refused.code == 403 && refused.message.contains("cannot choose") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
    }
    newcomer.create(&dry, &cluster(json!({}))).await?;
    Ok(())
}

/// Whoever holds a token that lets nobody in does not come in a lost cluster's place; one with a token that does takes it over,
/// and leaves what it is chosen by as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_clusters_name_is_had_with_a_token_that_lets_clusters_in() -> Result {
    let mut fleet = strict(1).await?;
    let hub = fleet.kube();
    let first = tokens::make(&hub, &["--accept", "--label", "env=prod"]).await?;
    give(&mut fleet, 0, &first)?;
    fleet.clusters[0].start();
    let cluster = fleet.clusters[0].name.clone();
    until_available(&hub, &cluster).await?;
    super::lose(&fleet, 0).await?;
    let agent = |object: &Value| object["metadata"]["annotations"][annotations::AGENT].clone();
    let before = agent(&hub.get(&cluster_path(&cluster)).await?);

    let plain = tokens::make(&hub, &["--label", "env=test"]).await?;
    let holder = super::believed(&fleet, &plain).await?;
    let csr = holder.create(CSRS, &honest(&cluster, "other")?).await?;
    let path = format!("{CSRS}/{}", name(&csr));
    super::stays(
        std::time::Duration::from_secs(2),
        "it is left to a person",
        async || {
            let csr = hub.get(&path).await?;
            anyhow::ensure!(csr["status"]["conditions"].is_null(), "{csr}");
            let object = hub.get(&cluster_path(&cluster)).await?;
            anyhow::ensure!(agent(&object) == before, "{object}");
            anyhow::ensure!(object["metadata"]["labels"]["env"] == "prod", "{object}");
            Ok(())
        },
    )
    .await?;
    hub.delete(&path).await?;

    let accepting = tokens::make(&hub, &["--accept", "--label", "env=test"]).await?;
    let holder = super::believed(&fleet, &accepting).await?;
    let csr = holder.create(CSRS, &honest(&cluster, "other")?).await?;
    super::until_signed(&hub, name(&csr)).await?;
    let object = hub.get(&cluster_path(&cluster)).await?;
    assert_eq!(agent(&object), "other");
    assert_eq!(object["metadata"]["labels"]["env"], "prod");
    Ok(())
}
