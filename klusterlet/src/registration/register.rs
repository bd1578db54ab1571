//! One attempt to register at a hub with bootstrap data (wire §2.2, §2.3): who is there, the ManagedCluster, a certificate.
//! Every way it can fail has its own error, because the person who reads it must know what to do.

use super::bootstrap::Bootstrap;
use super::credentials::{Credentials, Validity};
use super::csr::{self, Counted, CsrError};
use super::introduce::Introduction;
use super::kubeconfig::{Server, by_way};
use super::machine::Failure;
use super::rights::Rights;
use super::session::Identity;
use super::{Context, FIRST_CONTACT, credentials, patiently};
use crate::Error;
use crate::work::Backoff;
use crate::work::objects::{self, RequestError};
use kube::Client;
use muster_crds::cluster::v1::{ManagedCluster, ManagedClusterStatus};
use muster_crds::conditions::is_true;
use muster_crds::constants::{annotations, conditions as types};
use muster_crds::names;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A question whose answer is not needed to go on.
const ASKED_IN_PASSING: Duration = Duration::from_secs(2);
/// A hub that is just starting has yet to install its API.
const BECOMES_A_HUB: Duration = Duration::from_secs(15);
/// A ManagedCluster that was made is looked for again after this, up to twice as late (wire §2.2).
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
const CLUSTERS: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters";

/// What an attempt that succeeds comes to.
pub struct Registered {
    /// The agent's own.
    pub credentials: Credentials,
    /// When they are good.
    pub validity: Validity,
    /// What becomes of the cluster at the hub.
    pub rights: Option<Rights>,
}

/// Registers: contact, ManagedCluster, certificate request, then the wait for the hub's decision, however long it takes.
pub async fn register(
    context: &Context,
    hub: &Client,
    bootstrap: &Bootstrap,
    identity: &Identity,
) -> Result<Registered, Error> {
    let server = &bootstrap.server;
    let made = ensure_cluster(context, hub, bootstrap, identity).await?;
    let certificate = certificate(context, hub, identity, Counted::First);
    let rights = made.map(|cluster| Rights::follow(hub, *cluster));
    if rights.is_none() {
        tracing::warn!(
            cluster = identity.cluster,
            "the ManagedCluster can neither be read nor made; the hub's operator may make it, and it is tried again"
        );
    }
    let certified = tokio::select! {
        certified = certificate => certified,
        error = keep_cluster(context, hub, bootstrap, identity, rights.is_some()) => return Err(error),
    };
    let (certificate, key) = certified.map_err(|error| match error {
        CsrError::Request(error) => refusal(&error, bootstrap, "make certificate signing requests"),
        other => Error::Csr(Box::new(other)),
    })?;
    let Identity { cluster, agent } = identity;
    let credentials = Credentials::new(server, cluster, agent, &certificate, key.as_bytes());
    let validity = credentials
        .check(Some(server), cluster, agent, context.clock.at_hub())
        .map_err(|problem| Error::Csr(Box::new(CsrError::Wrong(problem))))?;
    Ok(Registered {
        credentials,
        validity,
        rights,
    })
}

/// Tries to make the ManagedCluster until it may: the hub may be giving the right to at this moment. Once it is there, it is made
/// again when somebody deletes it, who may take days to approve the request. Ends only with an error that somebody must mend.
async fn keep_cluster(
    context: &Context,
    hub: &Client,
    bootstrap: &Bootstrap,
    identity: &Identity,
    mut made: bool,
) -> Error {
    let mut backoff = Backoff::default();
    loop {
        if made {
            tokio::time::sleep(LOOK_AGAIN.mul_f64(rand::random_range(1.0..2.0))).await;
        } else {
            backoff.wait().await;
        }
        match ensure_cluster(context, hub, bootstrap, identity).await {
            Ok(found) => made = found.is_some(),
            Err(error) if error.failure() == Failure::NameTaken => return error,
            Err(error) => tracing::debug!(%error, "the ManagedCluster could not be made, it is tried again"),
        }
    }
}

/// Makes the ManagedCluster when it is not there, and finds out whether it is this cluster's. Nothing when the credential may
/// neither see nor make it.
pub async fn ensure_cluster(
    context: &Context,
    hub: &Client,
    bootstrap: &Bootstrap,
    identity: &Identity,
) -> Result<Option<Box<ManagedCluster>>, Error> {
    let server = &bootstrap.server;
    let there = |cluster| Some(Box::new(serde_json::from_value(cluster).unwrap_or_default()));
    match first_contact(hub, bootstrap, &identity.cluster).await? {
        Found::Cluster(cluster) => match taken(&cluster, context.spoke.uid.as_deref()) {
            Some(problem) => Err(Error::NameTaken {
                cluster: identity.cluster.clone(),
                server: server.url.clone(),
                problem,
            }),
            None => Ok(there(cluster)),
        },
        Found::Nothing => create_cluster(context, hub, server, identity).await.map(there),
        // Where clusters may not be read, the hub's operator may make them too.
        Found::Hidden => match create_cluster(context, hub, server, identity).await {
            Err(Error::NameForbidden { problem, .. }) => {
                tracing::debug!(problem, "the ManagedCluster can neither be read nor made");
                Ok(None)
            }
            other => other.map(there),
        },
    }
}

enum Found {
    Cluster(Value),
    Nothing,
    Hidden,
}

/// Whether the hub is there, is a hub, and knows the credential; and the ManagedCluster.
async fn first_contact(hub: &Client, bootstrap: &Bootstrap, cluster: &str) -> Result<Found, Error> {
    let server = &bootstrap.server.url;
    let begun = tokio::time::Instant::now();
    let mut backoff = Backoff::default();
    loop {
        let answer = patiently("hub", server, objects::get(hub, &format!("{CLUSTERS}/{cluster}"))).await;
        let problem = match answer {
            Ok(cluster) => return Ok(Found::Cluster(cluster)),
            Err(error) if error.code() == 401 => {
                return Err(refusal(&error, bootstrap, "find its ManagedCluster"));
            }
            Err(error) if error.code() == 403 => return Ok(Found::Hidden),
            Err(error) if error.is_not_found() => {
                // A Kubernetes API server that serves ManagedClusters says which one it misses.
                if error.reason() == "NotFound" && names_the_cluster(&error, cluster) {
                    return Ok(Found::Nothing);
                }
                if begun.elapsed() >= BECOMES_A_HUB {
                    return Err(Error::NotAHub {
                        server: server.clone(),
                        problem: error.to_string(),
                    });
                }
                backoff.wait().await;
                continue;
            }
            Err(RequestError::Kube(error)) => match untrusted(&error) {
                // Waiting does not mend a certificate.
                Some(problem) => {
                    return Err(Error::Untrusted {
                        server: server.clone(),
                        path: bootstrap.origin.clone(),
                        problem,
                    });
                }
                None => innermost(&*error),
            },
            Err(error) => error.to_string(),
        };
        if begun.elapsed() >= FIRST_CONTACT {
            return Err(Error::Unreachable {
                role: "hub",
                server: server.clone(),
                problem: by_way(&bootstrap.server, problem),
            });
        }
        backoff.wait().await;
    }
}

/// What the hub says of the cluster of that name: nothing when there is none. No answer, and any other than these, is none.
pub async fn find(hub: &Client, cluster: &str) -> Option<Option<ManagedCluster>> {
    let path = format!("{CLUSTERS}/{cluster}");
    match tokio::time::timeout(ASKED_IN_PASSING, objects::get(hub, &path)).await {
        Ok(Ok(found)) => serde_json::from_value(found).ok().map(Some),
        Ok(Err(error))
            if error.is_not_found() && error.reason() == "NotFound" && names_the_cluster(&error, cluster) =>
        {
            Some(None)
        }
        _ => None,
    }
}

fn names_the_cluster(error: &RequestError, cluster: &str) -> bool {
    error.to_string().contains(&format!("{cluster:?}"))
}

/// The deepest cause says what is wrong; the layers above only that something is.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// What is wrong with the server's certificate, in words that say what to do.
pub fn untrusted(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    use rustls::CertificateError as C;
    let mut cause = Some(error);
    let found = loop {
        let now = cause?;
        if let Some(rustls::Error::InvalidCertificate(problem)) = now.downcast_ref() {
            break problem;
        }
        // An I/O error leaves out what it wraps when it is asked for its source.
        cause = match now
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(wrapped) => Some(wrapped),
            None => now.source(),
        };
    };
    Some(match found {
        C::UnknownIssuer | C::BadSignature => {
            "its certificate is not signed by the CA in the kubeconfig: the CA is wrong or was replaced, or this is \
             another server"
                .to_owned()
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            format!("its certificate is for other names than the kubeconfig's server ({found})")
        }
        C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => {
            format!("its certificate is not valid now ({found}): it was not renewed, or this machine's clock is wrong")
        }
        other => format!("its certificate can not be trusted: {other}"),
    })
}

/// A refused request as the error that says which credential, and what to do.
fn refusal(error: &RequestError, bootstrap: &Bootstrap, what: &'static str) -> Error {
    let server = bootstrap.server.url.clone();
    match (error.code(), error) {
        (401, _) => Error::BootstrapRefused {
            server,
            path: bootstrap.origin.clone(),
            problem: error.to_string(),
        },
        (403, _) => Error::Forbidden {
            server,
            path: bootstrap.origin.clone(),
            what,
            problem: error.to_string(),
        },
        (0, RequestError::Kube(cause)) => match untrusted(cause) {
            Some(problem) => Error::Untrusted {
                server,
                path: bootstrap.origin.clone(),
                problem,
            },
            None => Error::Unreachable {
                role: "hub",
                server,
                problem: by_way(&bootstrap.server, innermost(&**cause)),
            },
        },
        (0, _) => Error::Unreachable {
            role: "hub",
            server,
            problem: error.to_string(),
        },
        _ => Error::Hub {
            server,
            problem: told(error),
        },
    }
}

/// What is wrong with the server or the way to it, in its own words where it gave any.
pub fn said(error: &RequestError) -> String {
    match error {
        RequestError::Kube(cause) if error.code() == 0 => {
            untrusted(cause).unwrap_or_else(|| innermost(&**cause))
        }
        _ => told(error),
    }
}

/// The hub's words; where they do not say what to do, what to do.
fn told(error: &RequestError) -> String {
    if error.is_no_room() {
        format!("it has no room to store anything, and its operator has to make some ({error})")
    } else {
        error.to_string()
    }
}

impl Error {
    /// What it means for the next attempt to register.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Unreachable { .. } | Self::Untrusted { .. } | Self::NotAHub { .. } => Failure::Unreachable,
            Self::BootstrapRefused { .. } | Self::Forbidden { .. } => Failure::Refused,
            Self::NameTaken { .. } | Self::NameForbidden { .. } => Failure::NameTaken,
            Self::Csr(error) => match &**error {
                CsrError::Denied { .. } => Failure::Denied,
                CsrError::TooMany(_) => Failure::TooMany,
                _ => Failure::Other,
            },
            _ => Failure::Other,
        }
    }

    /// Before a cluster has ever joined, somebody waits for the answer: what he must mend ends the program. Afterwards nothing
    /// does.
    pub fn ends_first_join(&self) -> bool {
        match self {
            Self::Csr(_) | Self::Hub { .. } => false,
            _ => {
                self.failure() != Failure::Other
                    || matches!(self, Self::Kubeconfig { .. } | Self::SpokeRefused { .. })
            }
        }
    }
}

/// Whether another cluster works under this name now; in what words. A cluster that is no longer heard of gives its name to
/// whoever is allowed to come.
pub fn taken(cluster: &Value, uid: Option<&str>) -> Option<String> {
    let other = cluster["metadata"]["annotations"][annotations::CLUSTER_UID].as_str()?;
    let status: ManagedClusterStatus = serde_json::from_value(cluster["status"].clone()).unwrap_or_default();
    let alive = is_true(&status.conditions, types::CLUSTER_AVAILABLE);
    (alive && uid? != other).then(|| {
        format!(
            "the cluster with the kube-system UID {other} is available under it, and this cluster's is {}",
            uid.unwrap_or_default()
        )
    })
}

/// Makes the ManagedCluster; what it is then, when that is known.
async fn create_cluster(
    context: &Context,
    hub: &Client,
    server: &Server,
    identity: &Identity,
) -> Result<Value, Error> {
    let object = cluster_object(context, identity);
    match objects::create(hub, CLUSTERS, &object).await {
        Ok(made) => Ok(made),
        Err(error) if error.already_exists() => Ok(Value::Null),
        Err(error) if error.code() == 403 => Err(Error::NameForbidden {
            cluster: identity.cluster.clone(),
            server: server.url.clone(),
            problem: error.to_string(),
        }),
        Err(error) => Err(Error::Hub {
            server: server.url.clone(),
            problem: format!("the ManagedCluster can not be made: {}", told(&error)),
        }),
    }
}

fn cluster_object(context: &Context, identity: &Identity) -> Value {
    let options = &context.options;
    let mut annotations: BTreeMap<&str, &str> = options
        .cluster_annotations
        .iter()
        .filter_map(|a| a.split_once('='))
        .collect();
    if let Some(uid) = &context.spoke.uid {
        annotations.insert(annotations::CLUSTER_UID, uid);
    }
    json!({
        "apiVersion": "cluster.open-cluster-management.io/v1",
        "kind": "ManagedCluster",
        "metadata": {"name": identity.cluster, "annotations": annotations},
        "spec": {"hubAcceptsClient": false, "leaseDurationSeconds": 60, "managedClusterClientConfigs": Introduction::of(context).configs()},
    })
}

/// A certificate for this identity, with whatever credentials `hub` has.
pub async fn certificate(
    context: &Context,
    hub: &Client,
    identity: &Identity,
    counted: Counted,
) -> Result<(Vec<u8>, String), CsrError> {
    let Identity { cluster, agent } = identity;
    let request = csr::request(cluster, agent)?;
    let seconds = context.options.client_cert_expiration_seconds;
    let user = names::user(cluster, agent);
    let name = csr::create(hub, cluster, (counted, &user), &request, seconds).await?;
    tracing::info!(
        csr = name,
        "waiting for the hub to approve this cluster's certificate"
    );
    let certificate = csr::wait(hub, &name, &user, &|| context.clock.at_hub()).await?;
    Ok((certificate, request.key))
}

/// Asks the hub with the agent's own credentials whether it still knows them.
pub async fn probe(hub: &Client, cluster: &str) -> super::machine::Probe {
    use super::machine::Probe;
    match objects::get(hub, &format!("{CLUSTERS}/{cluster}")).await {
        Ok(_) => Probe::Known,
        Err(error) => match error.code() {
            401 => Probe::Refused,
            0 | 500.. => Probe::Unreachable,
            _ => Probe::Known,
        },
    }
}

/// Credentials of an earlier run: the Secret's, or the files' where there is no Secret.
pub async fn earlier(spoke: &Client, place: &credentials::Place) -> Result<Credentials, Error> {
    match Credentials::read_secret(spoke, &place.namespace, &place.secret).await {
        Ok(found) if found.has_kubeconfig() => Ok(found),
        Ok(names) => {
            let files = Credentials::read_dir(&place.dir)?;
            // Of names alone the Secret's count: it outlives the files.
            let both = files.has_kubeconfig() || names == Credentials::default();
            Ok(if both { files } else { names })
        }
        Err(error) => {
            tracing::warn!(%error, "the Secret with the hub's credentials can not be read; using the files");
            Credentials::read_dir(&place.dir)
        }
    }
}
