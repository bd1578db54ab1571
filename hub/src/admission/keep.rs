//! Keeps certificates and configurations as they should be: at the start, when time has come, and whenever somebody
//! changes or deletes them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    core::v1::{Namespace, Secret},
};
use kube::{
    Api,
    api::{ObjectMeta, PartialObjectMeta, PostParams},
    runtime::watcher::Config,
};
use muster_crds::{
    cluster::v1::ManagedCluster,
    constants::{admission, labels},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    certificate::{self, Due, Kept, Lives},
    configuration::{self, Configuration, Terms},
    options::Place,
    server::Served,
};
use crate::{
    cache::Cache,
    error::Error,
    gates::Feature,
    options::HubOptions,
    queue::{Next, Queue},
    writer::{FIELD_MANAGER, Writer, guarded, what},
};

/// The one key of the queue.
const KEY: &str = "admission webhook";
/// Somebody who changes a configuration back this often within a [`PEACE`] is another hub with other options.
const QUARREL: u32 = 60;
/// How long a quarrel rests.
const PEACE: Duration = Duration::from_secs(60);
/// How long the API server may take at the start until it asks the webhook.
const HEARD: Duration = Duration::from_secs(5);

/// Keeps what the webhook needs at the API server.
pub struct Keeper {
    writer: Arc<Writer>,
    place: Place,
    served: Arc<Served>,
    namespace: String,
    default_set: bool,
    nil_executor: bool,
    replica_sets: bool,
    /// The API server goes with this hub: nobody else serves at this place.
    beside: bool,
    lives: Lives,
    repairs: Mutex<Repairs>,
    /// Whether it keeps nothing any more; held while something is written.
    ended: tokio::sync::Mutex<bool>,
    /// What is served with.
    last: Mutex<Option<Kept>>,
}

#[derive(Default)]
struct Repairs {
    since: Option<Instant>,
    bundle: String,
    count: u32,
}

impl Repairs {
    /// Counts one; whether that is one too many for now. With another bundle there is nobody to quarrel with.
    fn one_too_many(&mut self, bundle: &str, now: Instant) -> bool {
        if self.bundle != bundle || self.since.is_none_or(|since| now.duration_since(since) > PEACE) {
            *self = Self {
                since: Some(now),
                bundle: bundle.to_owned(),
                count: 0,
            };
        }
        self.count += 1;
        self.count > QUARREL
    }
}

impl Keeper {
    /// Keeps nothing yet.
    pub fn new(writer: Arc<Writer>, place: Place, served: Arc<Served>, options: &HubOptions) -> Self {
        Self {
            writer,
            place,
            served,
            namespace: options.namespace.clone(),
            default_set: options.gates().enabled(Feature::DefaultClusterSet),
            nil_executor: options.gates().enabled(Feature::NilExecutorValidating),
            replica_sets: options.gates().enabled(Feature::ManifestWorkReplicaSet),
            beside: options.webhook.webhook_beside,
            lives: options.webhook.lives,
            repairs: Mutex::default(),
            ended: tokio::sync::Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// Makes everything for the first time. An API server that is away is waited for.
    pub async fn begin(self: &Arc<Self>, policies: bool) -> Result<(), Error> {
        crate::install::until_done("admission webhook", || self.clone().whole(policies)).await?;
        self.heard().await;
        Ok(())
    }

    /// All of it, to its end, also when nobody waits for that any more: a write whose answer nobody hears would come after
    /// what the end takes away.
    async fn whole(self: Arc<Self>, policies: bool) -> Result<Timestamp, Error> {
        let all = tokio::spawn(async move {
            let ended = self.ended.lock().await;
            if *ended {
                return Ok(Timestamp::MAX);
            }
            self.all(policies).await
        });
        all.await.unwrap_or(Err(Error::Ended("admission webhook")))
    }

    /// Waits until the API server asks: it learns of a configuration a moment after it was made.
    async fn heard(&self) {
        let deadline = Instant::now() + HEARD;
        let mut delay = Duration::from_millis(20);
        loop {
            let unheard = match asks(&self.writer).await {
                Asked::Yes => {
                    tracing::info!(place = %self.place, "the API server asks the admission webhook");
                    return;
                }
                // It may not try. Whoever may will see.
                Asked::Unknown(why) => {
                    tracing::debug!(
                        why,
                        "whether the API server asks the admission webhook was not tried"
                    );
                    return;
                }
                Asked::No => "it does not ask yet".to_owned(),
                Asked::Unreachable(why) => why,
            };
            if Instant::now() >= deadline {
                tracing::error!(
                    place = %self.place, why = unheard,
                    "the API server cannot ask the admission webhook: until it can, it refuses new ManagedClusters and \
                     ManifestWorks; look at --webhook-service or --webhook-url, and at what is between"
                );
                return;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(1));
        }
    }

    /// Serves with the certificate that is kept, and with every one that follows, until `stop`.
    pub fn serve(self: Arc<Self>, stop: &CancellationToken, tasks: &mut JoinSet<()>) {
        let queue = Queue::new();
        queue.add(KEY);
        self.watch_secret(&queue, stop, tasks);
        let stop = stop.clone();
        tasks.spawn(async move {
            let keeper = &self;
            queue
                .run("admission webhook's certificate", 1, stop, |_| async move {
                    // Who leads makes it; here it is only taken up.
                    if let (_, Some(kept)) = keeper.read().await? {
                        keeper.serve_with(&kept)?;
                    }
                    Ok(Next::Idle)
                })
                .await;
        });
    }

    /// Keeps configurations as they should be, until `stop`.
    pub fn keep(self: Arc<Self>, policies: bool, stop: &CancellationToken, tasks: &mut JoinSet<()>) {
        let queue = Queue::new();
        queue.add(KEY);
        self.watch_secret(&queue, stop, tasks);
        let client = self.writer.client();
        let ours = Config::default().labels(&format!("{}={}", labels::MANAGED_BY, labels::MANAGED_BY_HUB));
        tasks.spawn(seen::<ValidatingWebhookConfiguration>().run(
            "ValidatingWebhookConfigurations",
            Api::all(client.clone()),
            ours.clone(),
            stop.clone(),
            changed(&queue),
        ));
        tasks.spawn(seen::<MutatingWebhookConfiguration>().run(
            "MutatingWebhookConfigurations",
            Api::all(client),
            ours,
            stop.clone(),
            changed(&queue),
        ));
        let stop = stop.clone();
        tasks.spawn(async move {
            let keeper = &self;
            queue
                .run(KEY, 1, stop, |_| async move {
                    Ok(after(keeper.clone().whole(policies).await?))
                })
                .await;
        });
    }

    fn watch_secret(&self, queue: &Arc<Queue>, stop: &CancellationToken, tasks: &mut JoinSet<()>) {
        tasks.spawn(seen::<Secret>().run(
            "the admission webhook's Secret",
            Api::namespaced(self.writer.client(), &self.namespace),
            Config::default().fields(&format!("metadata.name={}", admission::WEBHOOK_SECRET)),
            stop.clone(),
            changed(queue),
        ));
    }

    /// Certificates and configurations. Gives when time alone makes a difference.
    async fn all(&self, policies: bool) -> Result<Timestamp, Error> {
        let (there, found) = self.read().await?;
        let mut left = false;
        if let Some(kept) = &found {
            // The server knows whom to trust before anything new is served with.
            left = !self.configure_all(kept, policies).await?;
        }
        let now = Timestamp::now();
        let due = certificate::due(found.as_ref(), &self.place.names(), self.lives, now);
        let next = match (due, found) {
            (Due::Nothing(next), Some(kept)) => {
                self.serve_with(&kept)?;
                next
            }
            (due, found) => {
                let renewed = self.renew(there, found, due, now).await?;
                self.serve_with(&renewed)?;
                left = !self.configure_all(&renewed, policies).await?;
                match certificate::due(Some(&renewed), &self.place.names(), self.lives, now) {
                    Due::Nothing(next) => next,
                    // One thing at a time.
                    _ => now,
                }
            }
        };
        let rest = Timestamp::now().saturating_add(jiff::SignedDuration::try_from(PEACE).unwrap_or_default());
        Ok(if left {
            next.min(rest.unwrap_or(next))
        } else {
            next
        })
    }

    async fn configure_all(&self, kept: &Kept, policies: bool) -> Result<bool, Error> {
        let terms = Terms {
            place: &self.place,
            bundle: &kept.bundle(),
            policies,
            default_set: self.default_set,
            nil_executor: self.nil_executor,
            replica_sets: self.replica_sets,
        };
        let validating = self.configure::<ValidatingWebhookConfiguration>(&terms).await?;
        let mutating = self.configure::<MutatingWebhookConfiguration>(&terms).await?;
        Ok(validating && mutating)
    }

    fn serve_with(&self, kept: &Kept) -> Result<(), Error> {
        self.served.set(&kept.serving, &kept.serving_key).map_err(|why| {
            Error::Several(format!(
                "cannot serve with the admission webhook's certificate: {why}"
            ))
        })?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept.clone());
        Ok(())
    }

    async fn read(&self) -> Result<(Option<Secret>, Option<Kept>), Error> {
        let subject = what::<Secret>(admission::WEBHOOK_SECRET);
        let api = self.secrets();
        let request = api.get_opt(admission::WEBHOOK_SECRET);
        let there = self.writer.bounded(format!("read {subject}"), request).await?;
        let found = there
            .as_ref()
            .and_then(|secret| Kept::read(secret.data.as_ref()?));
        Ok((there, found))
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.writer.client(), &self.namespace)
    }

    /// Makes what is due, and stores it.
    async fn renew(
        &self,
        there: Option<Secret>,
        found: Option<Kept>,
        due: Due,
        now: Timestamp,
    ) -> Result<Kept, Error> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (before, due) = match (found, last) {
            // Whoever deletes the Secret wants new keys, and no write to fail meanwhile.
            (None, Some(last)) => (Some(last), Due::Authority),
            (found, _) => (found, due),
        };
        let names = self.place.names();
        let made = certificate::renew(before.as_ref(), due, &names, self.lives, now);
        let renewed = match made {
            Ok(Some(renewed)) => renewed,
            Ok(None) => {
                return Err(Error::Several(
                    "the admission webhook has no certificate".to_owned(),
                ));
            }
            Err(error) => {
                return Err(Error::Several(format!(
                    "cannot make the admission webhook's certificate: {error}"
                )));
            }
        };
        self.store(there, &renewed).await?;
        tracing::info!(?due, "the admission webhook's certificates are new");
        Ok(renewed)
    }

    async fn store(&self, there: Option<Secret>, kept: &Kept) -> Result<(), Error> {
        let (api, subject) = (self.secrets(), what::<Secret>(admission::WEBHOOK_SECRET));
        let data = Some(kept.data());
        let Some(there) = there else {
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(admission::WEBHOOK_SECRET.to_owned()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                data,
                ..Secret::default()
            };
            self.namespace().await?;
            return self.writer.create(&api, &secret, &subject).await.map(|_| ());
        };
        // At the version that was seen: another replica may have been first.
        let secret = Secret { data, ..there };
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let request = api.replace(admission::WEBHOOK_SECRET, &parameters, &secret);
        self.writer.bounded(format!("update {subject}"), request).await?;
        Ok(())
    }

    async fn namespace(&self) -> Result<(), Error> {
        let api = Api::<Namespace>::all(self.writer.client());
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let subject = what::<Namespace>(&self.namespace);
        match self.writer.create(&api, &namespace, &subject).await {
            // Whoever may not make namespaces has one made for them: then the Secret goes in.
            Err(error)
                if error
                    .status()
                    .is_some_and(|status| matches!(status.code, 403 | 409)) =>
            {
                Ok(())
            }
            made => made.map(|_| ()),
        }
    }

    /// Brings every configuration of a kind to what it should be; false when it is left for a while.
    async fn configure<K: Configuration>(&self, terms: &Terms<'_>) -> Result<bool, Error> {
        let api = Api::<K>::all(self.writer.client());
        let mut all = true;
        for name in K::NAMES
            .iter()
            .filter(|name| configuration::concerns(name, terms))
        {
            let subject = what::<K>(name);
            let there = self
                .writer
                .bounded(format!("read {subject}"), api.get_opt(name))
                .await?;
            match (configuration::wanted::<K>(name, terms), there) {
                (Some(wanted), None) => {
                    let object = serde_json::from_value::<K>(wanted).map_err(|error| {
                        Error::request(format!("make {subject}"))(kube::Error::SerdeError(error))
                    })?;
                    if self.may_repair(&subject, terms) {
                        self.writer.create(&api, &object, &subject).await?;
                    } else {
                        all = false;
                    }
                }
                (Some(wanted), Some(there)) => {
                    let Some(patch) = configuration::difference(&wanted, &there) else {
                        continue;
                    };
                    if self.may_repair(&subject, terms) {
                        let metadata = there.meta();
                        let uid = metadata.uid.as_deref().unwrap_or_default();
                        let patch = guarded(patch, uid, metadata.resource_version.as_deref());
                        self.writer.patch(&api, name, None, &patch, &subject).await?;
                    } else {
                        all = false;
                    }
                }
                // What is needed no more.
                (None, Some(there)) => {
                    remove_ours(&self.writer, name, &there).await?;
                }
                (None, None) => {}
            }
        }
        Ok(all)
    }

    fn may_repair(&self, subject: &str, terms: &Terms<'_>) -> bool {
        let mut repairs = self.repairs.lock().unwrap_or_else(PoisonError::into_inner);
        if !repairs.one_too_many(terms.bundle, Instant::now()) {
            return true;
        }
        tracing::warn!(
            "{subject} is changed again and again: does another hub run here with other options? It is left as it is \
             for {} s",
            PEACE.as_secs()
        );
        false
    }

    /// Takes the configurations away where nobody else serves: from now on nobody does.
    pub async fn end(&self) {
        if !self.beside {
            return;
        }
        *self.ended.lock().await = true;
        if let Err(error) = remove_all(&self.writer).await {
            tracing::warn!(%error, "the admission webhook's configuration stays behind; the next hub replaces it");
        }
    }
}

fn changed(queue: &Arc<Queue>) -> impl Fn(&str, &str) + Send + use<> {
    let queue = queue.clone();
    move |_, _| queue.add(KEY)
}

fn after(next: Timestamp) -> Next {
    let wait = next.duration_since(Timestamp::now());
    Next::After(wait.try_into().unwrap_or_default())
}

fn seen<K>() -> Arc<Cache<PartialObjectMeta<K>, ()>>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + 'static,
{
    Cache::new(|_: &PartialObjectMeta<K>, _, _| ())
}

/// Takes away what a hub before this one left. An API server that is away is waited for.
pub async fn forget(writer: &Writer) -> Result<(), Error> {
    crate::install::until_done("admission webhook", || remove_all(writer)).await
}

/// Without a webhook. An API server that is away is waited for.
pub async fn without(writer: &Writer) -> Result<bool, Error> {
    crate::install::until_done("admission", || none(writer)).await
}

/// Takes away a configuration of ours behind which nobody answers, and says what is not checked.
/// Whether somebody else's webhook completes clusters.
async fn none(writer: &Writer) -> Result<bool, Error> {
    let mutating = Api::<MutatingWebhookConfiguration>::all(writer.client());
    let subject = what::<MutatingWebhookConfiguration>(admission::CLUSTER_MUTATORS);
    let request = mutating.get_opt(admission::CLUSTER_MUTATORS);
    let there = match writer.bounded(format!("read {subject}"), request).await {
        // Whoever may not read it cannot have made it.
        Err(error) if error.status().is_some_and(|status| status.code == 403) => None,
        there => there?,
    };
    let ours = there
        .as_ref()
        .and_then(|there| serde_json::to_value(there).ok())
        .is_some_and(|there| configuration::is_ours(&there));
    if there.is_some() && (!ours || matches!(asks(writer).await, Asked::Yes | Asked::Unknown(_))) {
        tracing::info!("this hub serves no admission webhook; the one that is configured goes on");
        return Ok(true);
    }
    remove_all(writer).await?;
    tracing::warn!(
        "no admission webhook: give --webhook-service or --webhook-url where the API server can reach this hub. Without \
         one nobody checks the size of works, objects that are in a work twice, who sets times of taints, and whether \
         the namespace of a cluster that is let in is going"
    );
    Ok(false)
}

async fn remove_all(writer: &Writer) -> Result<(), Error> {
    remove::<ValidatingWebhookConfiguration>(writer).await?;
    remove::<MutatingWebhookConfiguration>(writer).await
}

async fn remove<K: Configuration>(writer: &Writer) -> Result<(), Error> {
    let api = Api::<K>::all(writer.client());
    for name in K::NAMES {
        let read = writer
            .bounded(format!("read {}", what::<K>(name)), api.get_opt(name))
            .await;
        match read {
            Ok(Some(there)) => remove_ours(writer, name, &there).await?,
            Err(error) if error.status().is_none_or(|status| status.code != 403) => return Err(error),
            Ok(None) | Err(_) => {}
        }
    }
    Ok(())
}

async fn remove_ours<K: Configuration>(writer: &Writer, name: &str, there: &K) -> Result<(), Error> {
    let ours = serde_json::to_value(there).is_ok_and(|there| configuration::is_ours(&there));
    if ours {
        let api = Api::<K>::all(writer.client());
        writer
            .delete(&api, name, there.meta().uid.as_deref(), &what::<K>(name))
            .await?;
    }
    Ok(())
}

/// Whether the API server asks a webhook.
enum Asked {
    Yes,
    /// It lets writes through without asking.
    No,
    /// It wants to ask, and nobody answers.
    Unreachable(String),
    /// It was not to be found out.
    Unknown(String),
}

/// Tries, by a cluster that is made but not stored: whether its taint gets a time.
async fn asks(writer: &Writer) -> Asked {
    let body: Value = json!({
        "apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"generateName": "muster-webhook-try-"},
        "spec": {"taints": [{"key": "try", "effect": "NoSelect"}]},
    });
    let cluster: ManagedCluster = match serde_json::from_value(body) {
        Ok(cluster) => cluster,
        Err(error) => return Asked::Unknown(error.to_string()),
    };
    let api = Api::<ManagedCluster>::all(writer.client());
    let parameters = PostParams {
        dry_run: true,
        field_manager: Some(FIELD_MANAGER.to_owned()),
    };
    let request = api.create(&parameters, &cluster);
    match writer
        .bounded("try the admission webhook".to_owned(), request)
        .await
    {
        Ok(made) if made.spec.taints.iter().any(|taint| taint.time_added.is_some()) => Asked::Yes,
        Ok(_) => Asked::No,
        Err(error) => match error.status() {
            Some(status) if status.message.contains("failed calling webhook") => {
                Asked::Unreachable(status.message.clone())
            }
            _ => Asked::Unknown(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarrel_rests_and_single_repairs_do_not() {
        let (mut repairs, start) = (Repairs::default(), Instant::now());
        for minute in 0..100 {
            assert!(!repairs.one_too_many("a", start + Duration::from_secs(61 * minute)));
        }
        let start = start + Duration::from_secs(100_000);
        let at = |n| start + Duration::from_millis(n);
        let refused = (0..80).filter(|n| repairs.one_too_many("a", at(*n))).count();
        assert_eq!(refused, 20);
        assert!(!repairs.one_too_many("b", at(80)));
        assert!(!repairs.one_too_many("b", start + PEACE * 2));
    }
}
