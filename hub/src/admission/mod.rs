//! Admission that policies cannot say (ocm-wire §8): a webhook that the hub serves itself.
//!
//! [`crate::install::admission`] installs what the API server can judge alone. Here is the rest: what rules come to is
//! decided purely in `cluster`, `binding` and `work`; `ask` asks what a rule leaves open; `server` listens; `keep`
//! makes the certificates and tells the API server about it all.

mod ask;
mod binding;
mod certificate;
mod cluster;
mod configuration;
mod keep;
mod options;
mod review;
mod server;
mod tls;
mod work;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use kube::Client;
use muster_crds::constants::admission;
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use certificate::Lives;
pub(crate) use configuration::SPEC_CHANGES;
pub use options::{Place, WebhookOptions, WebhookService, WebhookUrl};

use crate::{
    error::Error,
    gates::{Feature, FeatureGates},
    options::HubOptions,
    writer::Writer,
};
use review::{Decision, Refusal, Request, Review, Verdict};
use server::{Reply, Served};

/// What the rules were told, and whom they ask.
#[derive(Clone)]
struct Rules {
    client: Client,
    default_set: bool,
    limits: work::Limits,
    /// The namespace that the hub itself is in.
    namespace: String,
    replica_sets: bool,
}

impl Rules {
    fn new(client: Client, options: &HubOptions, gates: &FeatureGates) -> Self {
        Self {
            client,
            default_set: gates.enabled(Feature::DefaultClusterSet),
            limits: work::Limits {
                manifests: options.webhook.manifest_limit,
                nil_executor: gates.enabled(Feature::NilExecutorValidating),
            },
            namespace: options.namespace.clone(),
            replica_sets: gates.enabled(Feature::ManifestWorkReplicaSet),
        }
    }

    async fn answer(&self, path: &str, body: &[u8]) -> Reply {
        let rule = match path {
            admission::VALIDATE_CLUSTER
            | admission::MUTATE_CLUSTER
            | admission::VALIDATE_BINDING
            | admission::VALIDATE_WORK
            | admission::VALIDATE_REPLICA_SET => path,
            _ => return Reply::NoSuchPath,
        };
        let read = std::str::from_utf8(body)
            .map_err(|_| "the review is not UTF-8".to_owned())
            .and_then(Review::read);
        let review = match read {
            Ok(review) => review,
            Err(why) => return Reply::NoReview(why),
        };
        let request = match review.request() {
            Ok(request) => request,
            Err(why) => return Reply::NoReview(why),
        };
        let verdict = self.judge(rule, request).await.unwrap_or_else(Verdict::Refused);
        if let Verdict::Refused(refusal) = &verdict {
            tracing::debug!(
                path,
                user = request.user_info.username,
                namespace = &*request.namespace,
                name = &*request.name,
                why = refusal.message(),
                "refused"
            );
        }
        Reply::Answer(review.answer(&request.uid, &verdict).to_string())
    }

    async fn judge(&self, rule: &str, request: &Request<'_>) -> Result<Verdict, Refusal> {
        let user = &request.user_info;
        let checks = match rule {
            admission::MUTATE_CLUSTER => {
                let (new, old) = objects(request)?;
                let patch = cluster::mutate(&new, old.as_ref(), self.default_set, Timestamp::now())?;
                return Ok(Verdict::Changed(patch));
            }
            admission::VALIDATE_CLUSTER => decide(request, |new, old| {
                cluster::validate(user, new, old, &self.namespace)
            })?,
            admission::VALIDATE_BINDING => decide(request, |new, old| binding::validate(user, new, old))?,
            admission::VALIDATE_REPLICA_SET if !self.replica_sets => {
                return Err(Refusal::bad_request("ManifestWorkReplicaSet feature is disabled"));
            }
            admission::VALIDATE_REPLICA_SET => decide(request, |new, old| {
                work::validate_replica_set(user, new, old, self.limits)
            })?,
            _ => decide(request, |new, old| {
                work::validate(user, &request.namespace, new, old, self.limits)
            })?,
        };
        ask::all(&self.client, user, checks).await?;
        Ok(Verdict::Allowed)
    }
}

fn objects<'a, T: Deserialize<'a>>(request: &Request<'a>) -> Result<(T, Option<T>), Refusal> {
    Ok((request.new_object()?, request.old_object()?))
}

fn decide<'a, T: Deserialize<'a>>(
    request: &Request<'a>,
    rule: impl FnOnce(&T, Option<&T>) -> Decision,
) -> Decision {
    let (new, old) = objects(request)?;
    rule(&new, old.as_ref())
}

/// The webhook of this hub. It serves until it ends, whether this hub leads or not.
pub struct Webhook {
    keeper: Arc<keep::Keeper>,
    served: Arc<Served>,
    serving: CancellationToken,
    server: JoinSet<()>,
}

/// Listens, if there is to be a webhook. What its certificate needs goes on `tasks`.
pub async fn listen(
    writer: &Arc<Writer>,
    options: &HubOptions,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<Option<Webhook>, Error> {
    if !options.webhook.is_on() {
        return Ok(None);
    }
    if options.webhook.webhook_beside {
        // What a killed hub left would refuse all until this one serves.
        keep::forget(writer).await?;
    }
    let asked = options.webhook.address();
    let listen = |error: std::io::Error| {
        Error::Listen(format!(
            "cannot listen on {asked} for the admission webhook: {error}; give --webhook-bind and --webhook-port an \
             address of this machine that nobody else uses"
        ))
    };
    let listener = TcpListener::bind(asked).await.map_err(listen)?;
    let place = options.webhook.place(listener.local_addr().map_err(listen)?);
    let gates = options.gates();
    let served = Arc::<Served>::default();
    let rules = Rules::new(writer.client(), options, &gates);
    let answer = move |path: String, body: Bytes| {
        let rules = rules.clone();
        async move { rules.answer(&path, &body).await }
    };
    let tls = options.webhook.tls.builder().map_err(|error| {
        Error::Option(format!(
            "the admission webhook cannot speak TLS as --tls-min-version and --tls-cipher-suites say: {error}"
        ))
    })?;
    let (serving, mut server) = (CancellationToken::new(), JoinSet::new());
    server.spawn(server::serve(
        listener,
        tls,
        served.clone(),
        answer,
        serving.clone(),
    ));
    let keeper = Arc::new(keep::Keeper::new(writer.clone(), place, served.clone(), options));
    keeper.clone().serve(stop, tasks);
    Ok(Some(Webhook {
        keeper,
        served,
        serving,
        server,
    }))
}

/// Has the API server ask the webhook, and keeps it so on `tasks`. Whether times on taints are set by a webhook from
/// now on: this one, or one that was there.
pub async fn lead(
    webhook: Option<&Webhook>,
    writer: &Writer,
    policies: bool,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<bool, Error> {
    let Some(webhook) = webhook else {
        return keep::without(writer).await;
    };
    webhook.keeper.begin(policies).await?;
    webhook.keeper.clone().keep(policies, stop, tasks);
    Ok(true)
}

impl Webhook {
    /// Whether it can be asked.
    pub fn readiness(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let served = self.served.clone();
        move || {
            let missing = || "the admission webhook has no certificate yet".to_owned();
            served.is_set().then_some(()).ok_or_else(missing)
        }
    }

    /// Tells the API server to ask no more, where that is for this hub to say, and lets what is asked end.
    pub async fn end(mut self) {
        self.keeper.end().await;
        self.serving.cancel();
        while self.server.join_next().await.is_some() {}
    }
}

#[cfg(test)]
#[path = "mod_tests.rs"]
mod tests;
