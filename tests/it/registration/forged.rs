//! Certificate requests that are not what they should be. The first two are those of OCM's csr_security_validation test.

use super::{csr, csr_of_pem, honest, name, not_somebodys, until_signed};
use crate::Result;
use anyhow::Context as _;
use muster_apiserver::pki::{new_key, request};
use muster_crds::constants::names;
use muster_crds::names::{cluster_group as group, user};
use muster_tests::objects::CSRS;
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Kube};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, SanType};
use serde_json::{Value, json};

const CLIENT: &str = names::KUBE_API_SERVER_CLIENT_SIGNER;

fn all() -> String {
    names::MANAGED_CLUSTERS_GROUP.to_owned()
}

/// Makes every request, then an honest one: the hub looks at requests in the order they come, so once that is signed it has
/// seen the others. None of them may have been decided on.
async fn none_is_approved(
    fleet: &Fleet,
    bootstrap: &Kube,
    forged: Vec<(&Kube, &str, Value)>,
) -> anyhow::Result<usize> {
    let mut made = Vec::new();
    for (asker, what, csr) in forged {
        // Some are too odd for the API server already.
        match asker.create(CSRS, &csr).await {
            Ok(csr) => made.push((name(&csr).to_owned(), what)),
            Err(refused) => assert!([400, 403, 422].contains(&refused.code), "{what}: {refused}"),
        }
    }
    let stranger = format!("honest-{:08x}", rand::random::<u32>());
    let good = bootstrap.create(CSRS, &honest(&stranger, "a")?).await?;
    until_signed(&fleet.kube(), name(&good)).await?;
    for (name, what) in &made {
        let csr = fleet.kube().get(&format!("{CSRS}/{name}")).await?;
        let decided = &csr["status"]["conditions"];
        assert_eq!(*decided, Value::Null, "{what}: it was decided on");
        assert_eq!(
            csr["status"]["certificate"],
            Value::Null,
            "{what}: it got a certificate"
        );
    }
    Ok(made.len())
}

async fn bootstrap_user(fleet: &Fleet) -> anyhow::Result<Kube> {
    let plane = &fleet.hub.plane;
    let file = plane.bootstrap_kubeconfig(plane.address()).await?;
    Kube::from_file("hub as bootstrap user", &file).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_that_does_not_agree_with_its_label_gets_no_certificate() -> Result {
    let fleet = Fleet::joined(2).await?;
    let (one, two) = (fleet.clusters[0].name.as_str(), fleet.clusters[1].name.as_str());
    let stranger = format!("stranger-{:08x}", rand::random::<u32>());
    let (stranger, near) = (stranger.as_str(), format!("{one}0"));
    let bootstrap = bootstrap_user(&fleet).await?;
    let cases: Vec<(&str, &str, String, Vec<String>)> = vec![
        (
            "a group that only begins with the cluster's",
            one,
            user(one, "a"),
            vec![group(&near), all()],
        ),
        (
            "group and user of another cluster",
            one,
            user(&near, "a"),
            vec![group(&near), all()],
        ),
        (
            "the cluster's for one that begins with it",
            &near,
            user(one, "a"),
            vec![group(one), all()],
        ),
        (
            "a user that only begins with the cluster's",
            one,
            user(&near, "a"),
            vec![group(one), all()],
        ),
        (
            "a system group besides",
            stranger,
            user(stranger, "a"),
            vec![group(stranger), all(), "system:masters".into()],
        ),
        (
            "a system group instead",
            stranger,
            user(stranger, "a"),
            vec!["system:masters".into()],
        ),
        (
            "nodes' group",
            stranger,
            user(stranger, "a"),
            vec![group(stranger), "system:nodes".into()],
        ),
        (
            "another cluster's group",
            stranger,
            user(stranger, "a"),
            vec![group(one), all()],
        ),
        (
            "another cluster's group besides",
            stranger,
            user(stranger, "a"),
            vec![group(stranger), group(one), all()],
        ),
        ("no cluster's group", stranger, user(stranger, "a"), vec![all()]),
        ("no group", stranger, user(stranger, "a"), vec![]),
        (
            "another cluster's user",
            stranger,
            user(one, "a"),
            vec![group(stranger), all()],
        ),
        (
            "a label of another cluster",
            one,
            user(stranger, "a"),
            vec![group(stranger), all()],
        ),
        (
            "a system user",
            stranger,
            "system:admin".into(),
            vec![group(stranger), all()],
        ),
        (
            "one part too many",
            stranger,
            format!("{}:b", user(stranger, "a")),
            vec![group(stranger), all()],
        ),
        (
            "no agent",
            stranger,
            user(stranger, ""),
            vec![group(stranger), all()],
        ),
        (
            "an agent's name that is a list of two",
            stranger,
            user(stranger, "a,b"),
            vec![group(stranger), all()],
        ),
        (
            "an agent's name with a line's end",
            stranger,
            user(stranger, "a\nb"),
            vec![group(stranger), all()],
        ),
        (
            "a group for a user",
            stranger,
            group(stranger),
            vec![group(stranger), all()],
        ),
        (
            "an add-on's user",
            stranger,
            format!("{}cluster:{stranger}:addon:a:agent:a", names::USER_PREFIX),
            vec![group(stranger), all()],
        ),
        (
            "an empty label",
            "",
            user(stranger, "a"),
            vec![group(stranger), all()],
        ),
        (
            "the group's other form",
            stranger,
            user(stranger, "a"),
            vec![format!("open-cluster-management:{stranger}"), all()],
        ),
        (
            "a space behind the group",
            stranger,
            user(stranger, "a"),
            vec![format!("{} ", group(stranger)), all()],
        ),
    ];
    let mut forged = Vec::new();
    for (what, label, cn, organizations) in cases {
        forged.push((&bootstrap, what, csr(label, &cn, &organizations, CLIENT)?));
    }
    let agent = fleet.clusters[0].at_hub().await?;
    let mine = |label: &str, cluster: &str, agent: &str| {
        csr(label, &user(cluster, agent), &[group(cluster), all()], CLIENT)
    };
    forged.push((&agent, "a klusterlet for another cluster", mine(two, two, "a")?));
    forged.push((
        &agent,
        "a klusterlet for another cluster's very agent",
        mine(two, two, &format!("agent-{two}"))?,
    ));
    forged.push((&agent, "the same under its own label", mine(one, two, "a")?));
    forged.push((
        &agent,
        "a klusterlet for a cluster whose name begins with its own",
        mine(&near, &near, "a")?,
    ));
    forged.push((
        &agent,
        "a klusterlet for another agent",
        mine(one, one, "somebody-else")?,
    ));
    let count = none_is_approved(&fleet, &bootstrap, forged).await?;
    // The API server refuses those of a klusterlet whose label is another cluster's, where it has policies.
    assert!(count >= 22, "only {count} of them reached the hub");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_more_than_a_client_certificate_gets_none() -> Result {
    let fleet = Fleet::joined(1).await?;
    let stranger = format!("stranger-{:08x}", rand::random::<u32>());
    let bootstrap = bootstrap_user(&fleet).await?;
    let organizations = [group(&stranger), all()];
    let plain = request::write(
        &user(&stranger, "a"),
        &[&organizations[0], &organizations[1]],
        &new_key()?,
    )?;
    let evil = request::write("admin", &["system:masters"], &new_key()?)?;
    let key = KeyPair::generate()?;
    let with = |change: &dyn Fn(&mut CertificateParams)| -> anyhow::Result<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, user(&stranger, "a"));
        params
            .distinguished_name
            .push(DnType::OrganizationName, group(&stranger));
        change(&mut params);
        Ok(params.serialize_request(&key)?.pem()?)
    };
    let dns = rcgen::string::Ia5String::try_from("kubernetes.default.svc")?;
    let mail = rcgen::string::Ia5String::try_from("admin@example.com")?;
    let uri = rcgen::string::Ia5String::try_from("spiffe://hub/admin")?;
    let names = |name: SanType| with(&move |params| params.subject_alt_names.push(name.clone()));
    let mut forged: Vec<(&Kube, &str, Value)> = Vec::new();
    for (what, pem) in [
        ("a DNS name", names(SanType::DnsName(dns))?),
        ("an address", names(SanType::IpAddress([127, 0, 0, 1].into()))?),
        ("a mail address", names(SanType::Rfc822Name(mail))?),
        ("a URI", names(SanType::URI(uri))?),
        (
            "an authority",
            with(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))?,
        ),
        (
            "a part of the subject more",
            with(&|params| {
                params
                    .distinguished_name
                    .push(DnType::OrganizationalUnitName, "x");
            })?,
        ),
        ("two blocks, the good one first", format!("{plain}{evil}")),
        ("two blocks, the good one last", format!("{evil}{plain}")),
        ("text before the block", format!("x\n{plain}")),
        ("text behind the block", format!("{plain}x\n")),
        (
            "a block of another kind",
            plain.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        ),
        ("no request", "hello".to_owned()),
    ] {
        forged.push((&bootstrap, what, csr_of_pem(&stranger, pem.as_bytes(), CLIENT)));
    }
    for signer in [
        "example.com/signer",
        "kubernetes.io/kube-apiserver-client-kubelet",
        "kubernetes.io/legacy-unknown",
    ] {
        forged.push((
            &bootstrap,
            "another signer",
            csr_of_pem(&stranger, plain.as_bytes(), signer),
        ));
    }
    for usages in [
        json!([
            "digital signature",
            "key encipherment",
            "client auth",
            "server auth"
        ]),
        json!(["client auth", "cert sign"]),
        json!(["digital signature", "key encipherment"]),
        json!(["any"]),
    ] {
        let mut csr = csr_of_pem(&stranger, plain.as_bytes(), CLIENT);
        csr["spec"]["usages"] = usages;
        forged.push((&bootstrap, "other usages", csr));
    }
    let mut unlabelled = csr_of_pem(&stranger, plain.as_bytes(), CLIENT);
    unlabelled["metadata"]["labels"] = json!({});
    forged.push((&bootstrap, "no label", unlabelled));
    let mut addon = csr_of_pem(&stranger, plain.as_bytes(), CLIENT);
    addon["metadata"]["labels"]["open-cluster-management.io/addon-name"] = "a".into();
    forged.push((&bootstrap, "an add-on's label", addon));
    let count = none_is_approved(&fleet, &bootstrap, forged).await?;
    assert!(count >= 12, "only {count} of them reached the hub");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_agent_of_the_name_renews_nothing() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    let fleet = Fleet::joined(1).await?;
    let cluster = fleet.clusters[0].name.as_str();
    let bootstrap = bootstrap_user(&fleet).await?;
    // Its certificate is still good, and rights go by the group in it: but no other agent of the name gets a new one.
    let groups = [group(cluster), all()];
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let former = fleet.hub.plane.as_user(&user(cluster, "former"), &groups).await?;
    let renewal = honest(cluster, "former")?;
    let count = none_is_approved(&fleet, &bootstrap, vec![(&former, "a former agent", renewal)]).await?;
    assert_eq!(count, 1, "the API server refused it already");
    let events = format!("/apis/events.k8s.io/v1/namespaces/{cluster}/events");
    let hub = fleet.kube();
    hub.until_all(&events, SOON, "its cluster is told", |events| {
        let told = events
            .values()
            .find(|event| event["reason"] == "CertificateNotRenewed");
        let note = told.and_then(|event| event["note"].as_str()).unwrap_or_default();
        note.contains("has the name")
            .then_some(())
            .ok_or_else(|| format!("{events:?}"))
    })
    .await?;
    // The one that has the name does.
    let agent = fleet.clusters[0].at_hub().await?;
    let own = honest(
        cluster,
        fleet.clusters[0]
            .options
            .agent_id
            .as_deref()
            .context("the fleet names it")?,
    )?;
    let made = agent.create(CSRS, &own).await?;
    until_signed(&fleet.kube(), name(&made)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_by_whom_the_hub_does_not_know_is_left_alone() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    // CN, O, label and requester agree, as somebody's who had this CA sign for a cluster that nobody accepted.
    let fleet = Fleet::joined(1).await?;
    let stranger = "never-accepted";
    let bootstrap = bootstrap_user(&fleet).await?;
    let groups = [group(stranger), all(), names::BOOTSTRAP_GROUP.to_owned()];
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let asker = fleet.hub.plane.as_user(&user(stranger, "a"), &groups).await?;
    let forged = vec![(&asker, "a renewal without the right to", honest(stranger, "a")?)];
    assert_eq!(none_is_approved(&fleet, &bootstrap, forged).await?, 1);
    Ok(())
}

/// A klusterlet counts the requests of its cluster, and asks for nothing when there are too many: they are not to be others'.
#[tokio::test(flavor = "multi_thread")]
async fn no_klusterlet_asks_in_the_name_of_another_cluster() -> Result {
    let fleet = Fleet::joined(2).await?;
    let agent = fleet.clusters[0].at_hub().await?;
    let (own, other) = (fleet.clusters[0].name.as_str(), fleet.clusters[1].name.as_str());
    let refused = agent.create(CSRS, &honest(other, "a")?).await;
    let refused = refused.err().context("it may ask for another cluster")?;
    assert_eq!(refused.code, 403, "{refused}");
    let words = format!("cannot request a certificate for cluster \"{other}\"");
    assert!(refused.message.contains(&words), "{refused}");
    agent.create(CSRS, &honest(own, "a")?).await?;
    Ok(())
}
