//! Joining the hub and staying joined (wire §2): names, bootstrap, certificate, and the session that runs on it.

pub mod credentials;
pub mod csr;
pub mod facts;
pub mod kubeconfig;
mod prepare;
pub mod quantity;
pub mod session;
pub mod status;

use crate::work::Backoff;
use crate::work::objects::{self, RequestError};
use crate::{Error, Options};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use credentials::{Credentials, Place};
use csr::CsrError;
use jiff::Timestamp;
use kube::Client;
use kubeconfig::Server;
use muster_crds::names;
use serde_json::json;
use session::{End, HubClient, Identity, Session};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A first contact that fails is tried again this long: hub and klusterlet may be starting together.
const FIRST_CONTACT: Duration = Duration::from_secs(5);
/// A denied request is not repeated at once: a person decided.
const AFTER_DENIAL: Duration = Duration::from_secs(60);

/// The managed cluster and the way to it.
struct Spoke {
    client: Client,
    url: String,
    ca: Vec<u8>,
}

/// Runs the klusterlet until `stop`. Errors end it only before it has joined for the first time.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    options.check()?;
    let bootstrap = match &options.bootstrap_kubeconfig {
        Some(path) => Some((path.clone(), kubeconfig::read("bootstrap", path)?)),
        None => None,
    };
    let spoke = connect_spoke(&options).await?;
    let prepared = stop
        .run_until_cancelled(prepare::prepare(
            &spoke.client,
            &options.namespace,
            options.gates()?,
        ))
        .await;
    let Some(prepared) = prepared else { return Ok(()) };
    prepared?;
    let place = Place {
        dir: options.hub_kubeconfig_dir.clone(),
        namespace: options.namespace.clone(),
        secret: options.hub_kubeconfig_secret.clone(),
    };
    loop {
        let earlier = earlier(&spoke.client, &place).await?;
        let (cluster, agent) = credentials::identity(
            options.cluster_name.as_deref(),
            options.agent_id.as_deref(),
            &earlier,
        )?;
        let identity = Identity { cluster, agent };
        let hub = match &bootstrap {
            Some((path, config)) => {
                Some(kubeconfig::server(config).map_err(|problem| Error::Kubeconfig {
                    role: "bootstrap",
                    path: path.clone(),
                    problem,
                })?)
            }
            None => None,
        };
        let checked = earlier.check(hub.as_ref(), &identity.cluster, &identity.agent, Timestamp::now());
        let (credentials, validity) = match (checked, &bootstrap, hub) {
            (Ok(validity), ..) => (earlier, validity),
            (Err(problem), Some((path, config)), Some(hub)) => {
                tracing::info!(cluster = identity.cluster, %problem, hub = hub.url, "registering at the hub");
                let client = kubeconfig::client("bootstrap", path, config.clone()).await?;
                let register = register(&client, path, &hub, &spoke, &identity, &options, &place);
                match stop.run_until_cancelled(register).await {
                    Some(joined) => joined?,
                    None => return Ok(()),
                }
            }
            (Err(problem), ..) => {
                return Err(Error::Option(format!(
                    "there are no valid credentials for a hub in {} ({problem}): give --bootstrap-kubeconfig",
                    place.dir.display()
                )));
            }
        };
        credentials.write_dir(&place.dir)?;
        let server = credentials.server().map_err(|problem| Error::Kubeconfig {
            role: "hub",
            path: place.dir.clone(),
            problem,
        })?;
        tracing::info!(cluster = identity.cluster, agent = identity.agent, hub = server.url, until = %validity.not_after, "working for the hub");
        let session = Session {
            spoke: spoke.client.clone(),
            hub: HubClient::new(session::hub_client(&credentials, &place).await?),
            server,
            identity,
            place: place.clone(),
            options: options.clone(),
            validity,
        };
        if session.run(&stop).await == End::Shutdown {
            return Ok(());
        }
    }
}

async fn connect_spoke(options: &Options) -> Result<Spoke, Error> {
    let (client, server) = if let Some(path) = &options.spoke_kubeconfig {
        let config = kubeconfig::read("spoke", path)?;
        let server = kubeconfig::server(&config).map_err(|problem| Error::Kubeconfig {
            role: "spoke",
            path: path.clone(),
            problem,
        })?;
        (
            kubeconfig::client("spoke", path, config).await?,
            (server.url, server.ca),
        )
    } else {
        let problem = |e: &dyn std::fmt::Display| {
            Error::Option(format!(
                "this is no Pod of a cluster ({e}): give --spoke-kubeconfig"
            ))
        };
        let config = kube::Config::incluster().map_err(|e| problem(&e))?;
        let url = config.cluster_url.to_string();
        let ca = std::fs::read("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt").unwrap_or_default();
        (Client::try_from(config).map_err(|e| problem(&e))?, (url, ca))
    };
    let (url, ca) = server;
    let deadline = tokio::time::Instant::now() + FIRST_CONTACT;
    let mut backoff = Backoff::default();
    loop {
        let error = match tokio::time::timeout(FIRST_CONTACT, client.apiserver_version()).await {
            // Any answer is an answer.
            Ok(Ok(_) | Err(kube::Error::Api(_))) => return Ok(Spoke { client, url, ca }),
            Ok(Err(error)) => innermost(&error),
            Err(_) => "no answer".to_owned(),
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(Error::Unreachable {
                role: "managed cluster",
                server: url,
                problem: error,
            });
        }
        backoff.wait().await;
    }
}

/// The deepest cause says what is wrong; the layers above only that something is.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Credentials of an earlier run: the Secret's, or the files' where there is no Secret.
async fn earlier(spoke: &Client, place: &Place) -> Result<Credentials, Error> {
    match Credentials::read_secret(spoke, &place.namespace, &place.secret).await {
        Ok(found) if found != Credentials::default() => Ok(found),
        Ok(_) => Credentials::read_dir(&place.dir),
        Err(error) => {
            tracing::warn!(%error, "the Secret with the hub's credentials can not be read; using the files");
            Credentials::read_dir(&place.dir)
        }
    }
}

/// Registers: ManagedCluster and certificate request at the same time, then the wait for the hub's decision.
async fn register(
    hub: &Client,
    bootstrap: &Path,
    server: &Server,
    spoke: &Spoke,
    identity: &Identity,
    options: &Options,
    place: &Place,
) -> Result<(Credentials, credentials::Validity), Error> {
    first_contact(hub, bootstrap, server).await?;
    let mut backoff = Backoff::default();
    loop {
        let (cluster, certificate) = tokio::join!(
            ensure_cluster(hub, spoke, identity, options),
            certificate(hub, identity, options.client_cert_expiration_seconds)
        );
        if let Err(error) = cluster {
            tracing::warn!(%error, "the ManagedCluster could not be made; the hub's operator may make it");
        }
        let problem = match certificate {
            Ok((certificate, key)) => {
                let credentials = Credentials::new(
                    server,
                    &identity.cluster,
                    &identity.agent,
                    &certificate,
                    key.as_bytes(),
                );
                let checked =
                    credentials.check(Some(server), &identity.cluster, &identity.agent, Timestamp::now());
                match checked {
                    Ok(validity) => {
                        credentials.write_dir(&place.dir)?;
                        let written = credentials
                            .write_secret(&spoke.client, &place.namespace, &place.secret)
                            .await;
                        written.map_err(|e| Error::SpokeRefused {
                            what: "keep the hub's credentials in a Secret",
                            problem: e.to_string(),
                        })?;
                        return Ok((credentials, validity));
                    }
                    Err(problem) => problem,
                }
            }
            Err(CsrError::Request(error)) if error.code() == 401 => {
                return Err(Error::BootstrapRefused {
                    server: server.url.clone(),
                    path: bootstrap.to_owned(),
                    problem: error.to_string(),
                });
            }
            Err(error @ (CsrError::Denied { .. } | CsrError::TooMany(_))) => {
                tracing::warn!(%error, "the hub does not let this cluster in; it asks again in a minute");
                tokio::time::sleep(AFTER_DENIAL.mul_f64(rand::random_range(1.0..1.25))).await;
                continue;
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!(%problem, "registration failed, it is tried again");
        backoff.wait().await;
    }
}

/// Whether the hub is there and knows the credential at all. Asked once, so that a wrong file is told at once.
async fn first_contact(hub: &Client, bootstrap: &Path, server: &Server) -> Result<(), Error> {
    let deadline = tokio::time::Instant::now() + FIRST_CONTACT;
    let mut backoff = Backoff::default();
    loop {
        let path = "/apis/cluster.open-cluster-management.io/v1/managedclusters?limit=1";
        let answer = tokio::time::timeout(FIRST_CONTACT, objects::get(hub, path)).await;
        let problem = match answer {
            Ok(Err(error)) if error.code() == 401 => {
                return Err(Error::BootstrapRefused {
                    server: server.url.clone(),
                    path: bootstrap.to_owned(),
                    problem: error.to_string(),
                });
            }
            Ok(Err(RequestError::Kube(error))) if !matches!(*error, kube::Error::Api(_)) => {
                innermost(&*error)
            }
            Err(_) | Ok(Err(RequestError::Timeout)) => "no answer".to_owned(),
            // 403 and 404 are answers too: the cluster may have been made by the hub's operator.
            Ok(_) => return Ok(()),
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(Error::Unreachable {
                role: "hub",
                server: server.url.clone(),
                problem,
            });
        }
        backoff.wait().await;
    }
}

/// Creates the ManagedCluster when it is not there (wire §2.2).
async fn ensure_cluster(
    hub: &Client,
    spoke: &Spoke,
    identity: &Identity,
    options: &Options,
) -> Result<(), RequestError> {
    let collection = "/apis/cluster.open-cluster-management.io/v1/managedclusters";
    match objects::get(hub, &format!("{collection}/{}", identity.cluster)).await {
        Ok(_) => return Ok(()),
        Err(error) if matches!(error.code(), 403 | 404) => {}
        Err(error) => return Err(error),
    }
    let urls = if options.spoke_external_server_urls.is_empty() {
        Vec::new()
    } else {
        let ca = STANDARD.encode(&spoke.ca);
        options
            .spoke_external_server_urls
            .iter()
            .map(|url| json!({"url": url, "caBundle": ca}))
            .collect()
    };
    let annotations: BTreeMap<&str, &str> = options
        .cluster_annotations
        .iter()
        .filter_map(|a| a.split_once('='))
        .collect();
    let object = json!({
        "apiVersion": "cluster.open-cluster-management.io/v1",
        "kind": "ManagedCluster",
        "metadata": {"name": identity.cluster, "annotations": annotations},
        "spec": {"hubAcceptsClient": false, "leaseDurationSeconds": 60, "managedClusterClientConfigs": urls},
    });
    match objects::create(hub, collection, &object).await {
        Err(error) if !error.already_exists() => Err(error),
        _ => {
            tracing::debug!(
                spoke = spoke.url,
                cluster = identity.cluster,
                "the ManagedCluster is there"
            );
            Ok(())
        }
    }
}

async fn certificate(
    hub: &Client,
    identity: &Identity,
    expiration_seconds: i32,
) -> Result<(Vec<u8>, String), CsrError> {
    let Identity { cluster, agent } = identity;
    let request = csr::request(cluster, agent)?;
    let name = csr::create(hub, cluster, &request, expiration_seconds).await?;
    tracing::info!(
        csr = name,
        "waiting for the hub to approve this cluster's certificate"
    );
    let certificate = csr::wait(hub, &name, &names::user(cluster, agent)).await?;
    Ok((certificate, request.key))
}
