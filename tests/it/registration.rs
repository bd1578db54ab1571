//! Joining a hub: how a cluster becomes Available, who gets a certificate and who does not, and joining again.

use crate::Result;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_apiserver::pki::{new_key, request};
use muster_crds::constants::{conditions, labels, names};
use muster_crds::names as naming;
use muster_tests::control_plane::is_embedded;
use muster_tests::objects::{CLUSTERS, CSRS, cluster_path, has_condition};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn three_clusters_join() -> Result {
    let fleet = Fleet::start(FleetOptions {
        clusters: 3,
        nodes: if is_embedded() { 2 } else { 0 },
        ..FleetOptions::default()
    })
    .await?;
    fleet.until_available().await?;
    let hub = fleet.kube();
    for cluster in &fleet.clusters {
        let name = &cluster.name;
        let what = "it tells about itself";
        let object = hub
            .until(&cluster_path(name), SOON, what, |object| {
                for condition in [
                    conditions::HUB_ACCEPTED,
                    conditions::JOINED,
                    conditions::CLUSTER_AVAILABLE,
                ] {
                    has_condition(object, condition, "True")?;
                }
                let object = object.ok_or("it is not there")?;
                if is_embedded() && object["status"]["capacity"]["cpu"].is_null() {
                    return Err(format!("no capacity: {}", object["status"]));
                }
                Ok(object.clone())
            })
            .await?;
        let version = cluster.kube().get("/version").await?;
        assert_eq!(object["status"]["version"]["kubernetes"], version["gitVersion"]);

        let namespace = hub.get(&format!("/api/v1/namespaces/{name}")).await?;
        assert_eq!(
            namespace["metadata"]["labels"][labels::CLUSTER_NAME],
            name.as_str()
        );
        let lease = format!(
            "/apis/coordination.k8s.io/v1/namespaces/{name}/leases/{}",
            names::CLUSTER_LEASE
        );
        hub.until(&lease, SOON, "the klusterlet renews its lease", |lease| {
            let renewed = lease.is_some_and(|lease| lease["spec"]["renewTime"].is_string());
            renewed.then_some(()).ok_or_else(|| "no renewTime".into())
        })
        .await?;

        let secret = format!(
            "/api/v1/namespaces/{}/secrets/{}",
            cluster.options.namespace, cluster.options.hub_kubeconfig_secret
        );
        let secret = cluster.kube().get(&secret).await?;
        for key in ["cluster-name", "agent-name", "kubeconfig", "tls.crt", "tls.key"] {
            assert!(
                secret["data"][key].is_string(),
                "the Secret with the hub's credentials has no {key}"
            );
        }
        assert_eq!(secret["data"]["cluster-name"], STANDARD.encode(name));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_accepts_a_cluster() -> Result {
    let fleet = Fleet::start(FleetOptions {
        auto_approve: false,
        ..FleetOptions::default()
    })
    .await?;
    let (hub, name) = (fleet.kube(), &fleet.clusters[0].name);
    let cluster = hub.until_there(&cluster_path(name), SOON).await?;
    assert_eq!(cluster["spec"]["hubAcceptsClient"], false);

    let csr = csr_of(&hub, name).await?;
    let csr_name = csr["metadata"]["name"].as_str().context("a CSR has a name")?;
    approve(&hub, csr_name).await?;
    hub.until(&format!("{CSRS}/{csr_name}"), SOON, "it is signed", |csr| {
        let signed = csr.is_some_and(|csr| csr["status"]["certificate"].is_string());
        signed.then_some(()).ok_or_else(|| "no certificate".into())
    })
    .await?;
    // With a certificate, but not accepted, a cluster has nothing.
    let cluster = hub.get(&cluster_path(name)).await?;
    assert!(has_condition(Some(&cluster), conditions::JOINED, "True").is_err());
    assert!(hub.find(&format!("/api/v1/namespaces/{name}")).await?.is_none());

    hub.merge(&cluster_path(name), &json!({"spec": {"hubAcceptsClient": true}}))
        .await?;
    fleet.until_available().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_cluster_can_do_nothing_until_it_is_accepted_again() -> Result {
    let fleet = Fleet::joined(1).await?;
    let (hub, cluster) = (fleet.kube(), &fleet.clusters[0]);
    let works = muster_tests::objects::works_path(&cluster.name);
    let agent = cluster.at_hub().await?;
    agent.list(&works).await?;

    hub.merge(
        &cluster_path(&cluster.name),
        &json!({"spec": {"hubAcceptsClient": false}}),
    )
    .await?;
    fleet
        .until_condition(&cluster.name, conditions::HUB_ACCEPTED, "False")
        .await?;
    let refused = muster_tests::eventually(SOON, "its works are closed to it", async || {
        match agent.list(&works).await {
            Err(refused) => Ok(refused),
            Ok(_) => Err("it still lists works".into()),
        }
    });
    assert_eq!(refused.await?.code, 403);

    eprintln!(
        "{:#?}",
        hub.list(&format!(
            "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
            cluster.name
        ))
        .await?
    );
    hub.merge(
        &cluster_path(&cluster.name),
        &json!({"spec": {"hubAcceptsClient": true}}),
    )
    .await?;
    fleet
        .until_condition(&cluster.name, conditions::HUB_ACCEPTED, "True")
        .await?;
    eprintln!(
        "{:#?}",
        hub.list(&format!(
            "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
            cluster.name
        ))
        .await?
    );
    muster_tests::eventually(SOON, "its works are open again", async || {
        agent.list(&works).await.map(drop).map_err(|e| e.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_names_are_refused_before_anything_is_written() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let before = fleet.kube().list(CLUSTERS).await?.len();
    let cases = [
        "Upper",
        "under_score",
        "dots.are.not",
        "-dash",
        "",
        &"x".repeat(64),
    ];
    for name in cases {
        let cluster = &mut fleet.clusters[0];
        cluster.options.cluster_name = Some(name.to_owned());
        cluster.start();
        let error = cluster.failure().await?;
        assert!(
            error.contains(&format!("cluster name {name:?} is not valid")),
            "{name:?}: {error}"
        );
        assert!(!error.contains('\n'), "more than one line: {error}");
    }
    assert_eq!(fleet.kube().list(CLUSTERS).await?.len(), before);
    let agent = format!("/api/v1/namespaces/{}", fleet.clusters[0].options.namespace);
    assert!(
        fleet.clusters[0].kube().find(&agent).await?.is_none(),
        "something was written on the cluster"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_requests_get_no_certificate() -> Result {
    let fleet = Fleet::joined(2).await?;
    let (one, two) = (&fleet.clusters[0].name, &fleet.clusters[1].name);
    let stranger = format!("stranger-{:08x}", rand::random::<u32>());
    let bootstrap = fleet
        .hub
        .plane
        .bootstrap_kubeconfig(fleet.hub.plane.address())
        .await?;
    let bootstrap = Kube::from_file("hub as bootstrap user", &bootstrap).await?;
    let agent = fleet.clusters[0].at_hub().await?;
    let group = naming::cluster_group;
    let all = names::MANAGED_CLUSTERS_GROUP.to_owned();
    let client = names::KUBE_API_SERVER_CLIENT_SIGNER;
    let user = naming::user;

    // who asks, label, CN, O, signer, what is forged
    let other_signer = "example.com/signer";
    #[allow(clippy::type_complexity)] // a table reads best as tuples
    let forged: Vec<(&Kube, &str, String, Vec<String>, &str, &str)> = vec![
        (
            &bootstrap,
            &stranger,
            user(&stranger, "a"),
            vec![group(&stranger), all.clone(), "system:masters".into()],
            client,
            "a system group besides",
        ),
        (
            &bootstrap,
            &stranger,
            user(&stranger, "a"),
            vec![group(one), all.clone()],
            client,
            "another cluster's group",
        ),
        (
            &bootstrap,
            &stranger,
            user(&stranger, "a"),
            vec![group(&stranger), group(one), all.clone()],
            client,
            "another cluster's group besides",
        ),
        (
            &bootstrap,
            &stranger,
            user(&stranger, "a"),
            vec![all.clone()],
            client,
            "no cluster's group",
        ),
        (
            &bootstrap,
            &stranger,
            user(one, "a"),
            vec![group(&stranger), all.clone()],
            client,
            "another cluster's user",
        ),
        (
            &bootstrap,
            one,
            user(&stranger, "a"),
            vec![group(&stranger), all.clone()],
            client,
            "a label of another cluster",
        ),
        (
            &bootstrap,
            &stranger,
            "system:admin".into(),
            vec![group(&stranger), all.clone()],
            client,
            "a system user",
        ),
        (
            &bootstrap,
            &stranger,
            format!("{}:b", user(&stranger, "a")),
            vec![group(&stranger), all.clone()],
            client,
            "one part too many",
        ),
        (
            &bootstrap,
            &stranger,
            user(&stranger, ""),
            vec![group(&stranger), all.clone()],
            client,
            "no agent",
        ),
        (
            &bootstrap,
            &stranger,
            group(&stranger),
            vec![group(&stranger), all.clone()],
            client,
            "a group for a user",
        ),
        (
            &bootstrap,
            "",
            user(&stranger, "a"),
            vec![group(&stranger), all.clone()],
            client,
            "an empty label",
        ),
        (
            &bootstrap,
            &stranger,
            user(&stranger, "a"),
            vec![group(&stranger), all.clone()],
            other_signer,
            "another signer",
        ),
        (
            &agent,
            two,
            user(two, "a"),
            vec![group(two), all.clone()],
            client,
            "a klusterlet for another cluster",
        ),
        (
            &agent,
            one,
            user(two, "a"),
            vec![group(two), all.clone()],
            client,
            "the same under its own label",
        ),
        (
            &agent,
            one,
            user(one, "somebody-else"),
            vec![group(one), all.clone()],
            client,
            "a klusterlet for another agent",
        ),
    ];
    let mut made = Vec::new();
    for (asker, label, cn, organizations, signer, what) in forged {
        let csr = csr(label, &cn, &organizations, signer)?;
        // Some are too odd for the API server already.
        match asker.create(CSRS, &csr).await {
            Ok(csr) => made.push((
                csr["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                what,
            )),
            Err(refused) => assert!([403, 422].contains(&refused.code), "{what}: {refused}"),
        }
    }
    assert!(made.len() > 10, "nearly all of them have to reach the hub");

    // The hub looks at requests in the order they come: once it approved this one, it has seen those.
    let good = csr(&stranger, &user(&stranger, "a"), &[group(&stranger), all], client)?;
    let good = bootstrap.create(CSRS, &good).await?;
    let path = format!("{CSRS}/{}", good["metadata"]["name"].as_str().unwrap_or_default());
    fleet
        .kube()
        .until(&path, SOON, "the right one is signed", |csr| {
            let signed = csr.is_some_and(|csr| csr["status"]["certificate"].is_string());
            signed.then_some(()).ok_or_else(|| format!("{csr:?}"))
        })
        .await?;
    for (name, what) in made {
        let csr = fleet.kube().get(&format!("{CSRS}/{name}")).await?;
        assert_eq!(
            csr["status"]["conditions"],
            Value::Null,
            "{what}: it was decided on"
        );
        assert_eq!(
            csr["status"]["certificate"],
            Value::Null,
            "{what}: it got a certificate"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_approval_by_the_hub_nobody_gets_in() -> Result {
    // The bootstrap user is not among those the hub approves by itself.
    let fleet = Fleet::start(FleetOptions {
        auto_approve: false,
        ..FleetOptions::default()
    })
    .await?;
    let name = &fleet.clusters[0].name;
    let csr = csr_of(&fleet.kube(), name).await?;
    assert_eq!(csr["status"]["conditions"], Value::Null);
    assert!(!fleet.clusters[0].credentials().join("tls.crt").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_may_not_be_made_yet_comes_once_it_may() -> Result {
    if !is_embedded() {
        eprintln!("skipped: on a shared hub the bootstrap role is everybody's");
        return Ok(());
    }
    let mut fleet = Fleet::prepare(FleetOptions {
        auto_approve: false,
        ..FleetOptions::default()
    })
    .await?;
    let hub = fleet.kube();
    let role = format!(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/{}",
        names::BOOTSTRAP_CLUSTER_ROLE
    );
    let whole = hub.get(&role).await?["rules"].clone();
    // Only what certificates need.
    let rules: Vec<&Value> = whole
        .as_array()
        .into_iter()
        .flatten()
        .filter(|rule| rule["apiGroups"] == json!(["certificates.k8s.io"]))
        .collect();
    hub.merge(&role, &json!({ "rules": rules })).await?;
    // Rights follow their role a moment later on a kube-apiserver.
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": "somebody", "groups": [names::BOOTSTRAP_GROUP], "resourceAttributes": {"verb": "create",
        "group": "cluster.open-cluster-management.io", "resource": "managedclusters"}}});
    let deadline = tokio::time::Instant::now() + SOON;
    while hub
        .create("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)
        .await?["status"]["allowed"]
        == true
    {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the bootstrap group may still make clusters"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    fleet.clusters[0].start();
    let name = fleet.clusters[0].name.clone();
    csr_of(&hub, &name).await?;
    assert!(hub.find(&cluster_path(&name)).await?.is_none());
    hub.merge(&role, &json!({ "rules": whole })).await?;
    hub.until_there(&cluster_path(&name), SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstrap_kubeconfig_may_be_in_a_secret() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let cluster = &mut fleet.clusters[0];
    let file = cluster
        .options
        .bootstrap_kubeconfig
        .take()
        .context("the fleet gives one")?;
    let agent = cluster.options.namespace.clone();
    let namespaces = "/api/v1/namespaces";
    cluster
        .kube()
        .ensure(namespaces, &muster_tests::objects::namespace(&agent))
        .await?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": names::BOOTSTRAP_SECRET},
        "stringData": {"kubeconfig": std::fs::read_to_string(file)?}});
    cluster
        .kube()
        .create(&format!("{namespaces}/{agent}/secrets"), &secret)
        .await?;
    cluster.start();
    fleet.until_available().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_klusterlet_uses_the_certificate_it_has() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let certificate = std::fs::read(fleet.clusters[0].credentials().join("tls.crt"))?;
    let requests = requests_of(&fleet).await?;
    for from in ["files", "Secret"] {
        fleet.clusters[0].stop().await?;
        if from == "Secret" {
            std::fs::remove_dir_all(fleet.clusters[0].credentials())?;
        }
        renew_stops(&fleet).await?;
        fleet.clusters[0].start();
        renewed(&fleet).await.context(from)?;
        assert_eq!(
            requests_of(&fleet).await?,
            requests,
            "{from}: it asked for a certificate although it has one"
        );
        assert_eq!(
            std::fs::read(fleet.clusters[0].credentials().join("tls.crt"))?,
            certificate
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_klusterlet_that_lost_its_credentials_joins_again() -> Result {
    let mut fleet = Fleet::joined(1).await?;
    let requests = requests_of(&fleet).await?;
    let cluster = &mut fleet.clusters[0];
    cluster.stop().await?;
    let old = std::fs::read(cluster.credentials().join("tls.crt"))?;
    std::fs::remove_dir_all(cluster.credentials())?;
    let (namespace, secret) = (&cluster.options.namespace, &cluster.options.hub_kubeconfig_secret);
    cluster
        .kube()
        .delete(&format!("/api/v1/namespaces/{namespace}/secrets/{secret}"))
        .await?;
    renew_stops(&fleet).await?;
    fleet.clusters[0].start();
    renewed(&fleet).await?;
    assert_eq!(requests_of(&fleet).await?, requests + 1);
    assert_ne!(
        std::fs::read(fleet.clusters[0].credentials().join("tls.crt"))?,
        old
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_bootstrap_credential_is_told_at_once() -> Result {
    let mut fleet = Fleet::prepare(FleetOptions::default()).await?;
    let hub = &fleet.hub.plane;
    let expired = json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-expird", "namespace": "kube-system"},
        "stringData": {"token-id": "expird", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "expiration": "2020-01-01T00:00:00Z",
            "auth-extra-groups": names::BOOTSTRAP_GROUP}});
    hub.kube()
        .ensure("/api/v1/namespaces/kube-system/secrets", &expired)
        .await?;
    let link = fleet.clusters[0].link.address();
    let files = [
        hub.token_kubeconfig("expird.0123456789abcdef", link)?,
        hub.token_kubeconfig("nobody.fedcba9876543210", link)?,
    ];
    for file in files {
        let cluster = &mut fleet.clusters[0];
        cluster.options.bootstrap_kubeconfig = Some(file.clone());
        cluster.start();
        let error = cluster.failure().await?;
        assert!(
            error.contains("refuses the credential") && error.contains(&file.display().to_string()),
            "{error}"
        );
        assert!(
            !error.contains('\n') && !error.contains("fedcba9876543210"),
            "{error}"
        );
        assert!(
            !cluster.credentials().join("kubeconfig").exists(),
            "half of the credentials were written"
        );
    }
    Ok(())
}

fn csr(label: &str, user: &str, organizations: &[String], signer: &str) -> anyhow::Result<Value> {
    let organizations: Vec<&str> = organizations.iter().map(String::as_str).collect();
    let pem = request::write(user, &organizations, &new_key()?)?;
    Ok(
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "forged-", "labels": {labels::CLUSTER_NAME: label}},
        "spec": {"request": STANDARD.encode(pem), "signerName": signer,
            "usages": ["digital signature", "key encipherment", "client auth"]}}),
    )
}

async fn csr_of(hub: &Kube, cluster: &str) -> anyhow::Result<Value> {
    let path = format!(
        "{CSRS}?labelSelector={}%3D{cluster}",
        labels::CLUSTER_NAME.replace('/', "%2F")
    );
    hub.until_all(&path, SOON, "the klusterlet asks for a certificate", |csrs| {
        csrs.values().next().cloned().ok_or_else(|| "no CSR".into())
    })
    .await
}

async fn approve(hub: &Kube, name: &str) -> Result {
    let path = format!("{CSRS}/{name}");
    let mut csr = hub.get(&path).await?;
    csr["status"]["conditions"] =
        json!([{"type": "Approved", "status": "True", "reason": "Test", "message": "by hand"}]);
    hub.replace(&format!("{path}/approval"), &csr).await?;
    Ok(())
}

/// How many certificates this fleet's only cluster asked for.
async fn requests_of(fleet: &Fleet) -> anyhow::Result<usize> {
    let label = labels::CLUSTER_NAME.replace('/', "%2F");
    let path = format!("{CSRS}?labelSelector={label}%3D{}", fleet.clusters[0].name);
    Ok(fleet.kube().list(&path).await?.len())
}

fn lease(fleet: &Fleet) -> String {
    let name = &fleet.clusters[0].name;
    format!(
        "/apis/coordination.k8s.io/v1/namespaces/{name}/leases/{}",
        names::CLUSTER_LEASE
    )
}

/// Sets the lease back, so that its next renewal is the klusterlet's that is started after this.
async fn renew_stops(fleet: &Fleet) -> Result {
    let past = json!({"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}});
    fleet.kube().merge(&lease(fleet), &past).await?;
    Ok(())
}

async fn renewed(fleet: &Fleet) -> Result {
    fleet
        .kube()
        .until(
            &lease(fleet),
            SOON,
            "the klusterlet works with the hub again",
            |lease| {
                let at = lease
                    .and_then(|lease| lease["spec"]["renewTime"].as_str())
                    .unwrap_or("2020");
                (!at.starts_with("2020"))
                    .then_some(())
                    .ok_or_else(|| format!("last renewed {at}"))
            },
        )
        .await?;
    fleet.until_available().await
}
