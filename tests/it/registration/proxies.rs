//! A hub behind a proxy: the kubeconfig's own, or the environment's.

use super::{not_somebodys, until_available};
use crate::{MUSTER, Result};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_apiserver::server::ServerOptions;
use muster_tests::control_plane::HIDDEN_NAME;
use muster_tests::objects::{configmap, work};
use muster_tests::{Fleet, FleetOptions, Program, Proxy};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

async fn hidden() -> anyhow::Result<(Fleet, Proxy)> {
    let fleet = Fleet::prepare(FleetOptions {
        server: ServerOptions {
            server_names: vec![HIDDEN_NAME.to_owned()],
            ..ServerOptions::default()
        },
        ..FleetOptions::default()
    })
    .await?;
    let proxy = Proxy::start(fleet.hub.plane.address()).await?;
    Ok((fleet, proxy))
}

/// The cluster's bootstrap kubeconfig, for the hidden hub.
fn bootstrap(fleet: &Fleet, proxy: Option<&str>) -> anyhow::Result<PathBuf> {
    let cluster = &fleet.clusters[0];
    let file = cluster
        .options
        .bootstrap_kubeconfig
        .as_ref()
        .context("the fleet gives one")?;
    let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(file)?)?;
    let hub = &mut config["clusters"][0]["cluster"];
    hub["server"] = format!("https://{HIDDEN_NAME}:6443").into();
    if let Some(proxy) = proxy {
        hub["proxy-url"] = proxy.into();
    }
    let path = cluster.dir().join("hidden.kubeconfig");
    std::fs::write(&path, config.to_string())?;
    Ok(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_kubeconfig_is_used_for_all_that_goes_to_the_hub() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    let (mut fleet, proxy) = hidden().await?;
    let file = bootstrap(&fleet, Some(&proxy.url()))?;
    fleet.clusters[0].options.bootstrap_kubeconfig = Some(file);
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let cluster = &fleet.clusters[0];
    let app = work(
        &cluster.name,
        "app",
        &[configmap(&cluster.namespace(), "settings", "1")],
    );
    fleet.create(&app).await?;
    fleet.until_applied(&cluster.name, "app").await?;
    let asked = proxy.asked();
    assert!(
        asked
            .iter()
            .all(|target| target == &format!("{HIDDEN_NAME}:6443"))
            && asked.len() >= 2,
        "{asked:?}"
    );
    let kept = std::fs::read_to_string(cluster.credentials().join("kubeconfig"))?;
    assert!(kept.contains("proxy-url") && kept.contains(HIDDEN_NAME), "{kept}");
    Ok(())
}

/// The same proxy over TLS, as long as the guard is there: its URL, and the CA of its certificate.
async fn over_tls(proxy: &Proxy) -> anyhow::Result<(String, String, DropGuard)> {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "the proxy's");
    let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate()?)?;
    let key = rcgen::KeyPair::generate()?;
    let certificate =
        rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &authority)?;
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )?;
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("https://{}", listener.local_addr()?);
    let to = proxy.url().replace("http://", "");
    let stop = CancellationToken::new();
    let accepting = stop.clone();
    tokio::spawn(accepting.run_until_cancelled_owned(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, to) = (tls.clone(), to.clone());
            tokio::spawn(async move {
                let (mut here, mut there) = tokio::try_join!(tls.accept(stream), TcpStream::connect(to))?;
                tokio::io::copy_bidirectional(&mut here, &mut there).await
            });
        }
    }));
    Ok((url, authority.pem(), stop.drop_guard()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_be_spoken_to_over_tls() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    let (mut fleet, proxy) = hidden().await?;
    let (url, ca, _running) = over_tls(&proxy).await?;
    let path = bootstrap(&fleet, Some(&url))?;
    // Both certificates are judged by the kubeconfig's CA bundle, as with Go's clients.
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let bundle = &mut config["clusters"][0]["cluster"]["certificate-authority-data"];
    let hubs = STANDARD.decode(bundle.as_str().context("the CA is in it")?)?;
    *bundle = STANDARD.encode([hubs, ca.into_bytes()].concat()).into();
    std::fs::write(&path, config.to_string())?;
    fleet.clusters[0].options.bootstrap_kubeconfig = Some(path);
    fleet.clusters[0].start();
    fleet.until_available().await?;
    let asked = proxy.asked();
    assert!(
        asked.len() >= 2
            && asked
                .iter()
                .all(|target| target == &format!("{HIDDEN_NAME}:6443")),
        "{asked:?}"
    );
    let kept = std::fs::read_to_string(fleet.clusters[0].credentials().join("kubeconfig"))?;
    assert!(kept.contains(&url), "{kept}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environments_proxy_is_used_but_for_the_hosts_it_excepts() -> Result {
    if !not_somebodys() {
        return Ok(());
    }
    let (fleet, proxy) = hidden().await?;
    let bootstrap = bootstrap(&fleet, None)?.display().to_string();
    let cluster = &fleet.clusters[0];
    let spoke = cluster.plane.kubeconfig().display().to_string();
    let program = Program::new(MUSTER)?;
    let args = [
        "klusterlet",
        "--cluster-name",
        &cluster.name,
        "--namespace",
        &cluster.options.namespace,
        "--bootstrap-kubeconfig",
        &bootstrap,
        "--spoke-kubeconfig",
        &spoke,
        "--hub-kubeconfig-dir",
        "hk",
    ];
    let through = proxy.url();
    let mut excepted = program.spawn_in(
        &args,
        &[("HTTPS_PROXY", &through), ("NO_PROXY", "other,.invalid")],
    )?;
    assert_eq!(excepted.until_ended(muster_tests::wait::SOON).await?, Some(1));
    assert!(
        excepted.stderr().contains("can not be reached"),
        "{}",
        excepted.stderr()
    );
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());
    let joined = program.spawn_in(&args, &[("HTTPS_PROXY", &through), ("NO_PROXY", "other")])?;
    until_available(&fleet.kube(), &cluster.name)
        .await
        .with_context(|| joined.stderr())?;
    // The managed cluster, on this machine, is reached without it.
    let asked = proxy.asked();
    assert!(
        asked
            .iter()
            .all(|target| target == &format!("{HIDDEN_NAME}:6443")),
        "{asked:?}"
    );
    Ok(())
}
