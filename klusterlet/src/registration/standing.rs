//! Whether the cluster's name at the hub is still this cluster's. Rights at a hub go by the name: a cluster that was let go of
//! and comes back, while another has come under its name, must neither work for the other's works nor report in its place.

use super::hub_client::HubClient;
use super::lease;
use super::register;
use super::seen::Seen;
use super::session::{Identity, News, Shared, is_accepted};
use crate::work::objects::{self, RequestError};
use crate::work::{Backoff, is_forbidden};
use futures::TryStreamExt as _;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher;
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::constants::annotations;
use std::sync::Arc;
use tokio::sync::watch;

/// Whose the name is, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody asked yet.
    Unknown,
    /// It could not be asked.
    Unreachable,
    /// This cluster's, or nobody else's.
    Ours,
    /// Another's: in what words.
    Taken(String),
}

/// Whose the name is by its ManagedCluster. A cluster of the same `uid` is this one whatever agent it has; another one has the
/// name while it is available, and when the hub says that another agent has it.
pub fn of(cluster: &ManagedCluster, identity: &Identity, uid: Option<&str>) -> Standing {
    let note = |key: &str| cluster.metadata.annotations.as_ref().and_then(|a| a.get(key));
    let (theirs, agent) = (note(annotations::CLUSTER_UID), note(annotations::AGENT));
    if uid.is_some() && theirs.map(String::as_str) == uid {
        return Standing::Ours;
    }
    if let Some(agent) = agent.filter(|agent| **agent != identity.agent) {
        return Standing::Taken(format!(
            "its agent is {agent:?}, and this one is {:?}",
            identity.agent
        ));
    }
    match serde_json::to_value(cluster) {
        Ok(cluster) => register::taken(&cluster, uid).map_or(Standing::Ours, Standing::Taken),
        Err(_) => Standing::Ours,
    }
}

/// Says that the name is another's, and what to do.
pub fn warn(cluster: &str, why: &str) {
    tracing::warn!(
        cluster,
        "the name is another cluster's at the hub now: {why}; this cluster reports nothing and applies nothing new, and \
         what it applied stays: join under another --cluster-name, or detach the other"
    );
}

/// A client for what must not be asked in another's name: it waits until it is known whose the name is.
pub fn guarded(hub: &HubClient, standing: &watch::Sender<Standing>) -> Client {
    let (hub, standing) = (hub.client(), standing.subscribe());
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (hub, mut standing) = (hub.clone(), standing.clone());
        async move {
            let known = standing.wait_for(|s| *s != Standing::Unknown).await;
            let known = known.map(|known| known.clone());
            let refused = match known {
                Ok(Standing::Ours) => None,
                Ok(Standing::Taken(why)) => Some(format!("the cluster's name is another's: {why}")),
                _ => Some("the hub can not be reached".to_owned()),
            };
            match refused {
                None => hub.send(request).await,
                Some(why) => Err(kube::Error::Service(why.into())),
            }
        }
    });
    Client::new(service, "default")
}

impl Shared {
    /// Watches this cluster's own ManagedCluster, and nothing else of its kind.
    pub async fn follow_cluster(self: Arc<Self>) {
        let api: Api<ManagedCluster> = Api::all(self.hub.clone());
        let fields = format!("metadata.name={}", self.identity.cluster);
        let begin = || Box::pin(watcher(api.clone(), watcher::Config::default().fields(&fields)));
        let mut events = begin();
        let mut backoff = Backoff::default();
        let mut seen = false;
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => seen = false,
                Ok(Some(watcher::Event::InitApply(cluster) | watcher::Event::Apply(cluster))) => {
                    backoff = Backoff::default();
                    seen = true;
                    self.saw(cluster);
                }
                Ok(Some(watcher::Event::InitDone)) => {
                    backoff = Backoff::default();
                    if !seen {
                        self.no_cluster();
                    }
                }
                Ok(Some(watcher::Event::Delete(_))) => self.no_cluster(),
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "the ManagedCluster can not be watched, it goes on");
                    if is_forbidden(&error) {
                        self.sees(Seen::refused);
                    }
                    // Who may not see its cluster sees none of another's works either.
                    let answered = matches!(
                        &error,
                        watcher::Error::InitialListFailed(kube::Error::Api(_))
                            | watcher::Error::WatchStartFailed(kube::Error::Api(_))
                            | watcher::Error::WatchError(_)
                    );
                    self.stands(if answered {
                        Standing::Ours
                    } else {
                        Standing::Unreachable
                    });
                    self.tell(News::Pulse);
                    backoff.wait().await;
                    // A watch that goes on says nothing while nothing changes: whose the name is now must be asked.
                    events = begin();
                }
            }
        }
    }

    /// The ManagedCluster is so.
    pub fn saw(&self, cluster: ManagedCluster) {
        let ours = self.stands(of(&cluster, &self.identity, self.context.spoke.uid.as_deref()));
        if ours && let Some(now) = Seen::of(&cluster) {
            self.sees(|_| now);
        }
        let now = tokio::time::Instant::now();
        self.missed
            .send_modify(|missed| *missed = lease::missed_since(*missed, &cluster, now));
        // Of another's cluster there is nothing to tell, and no lease to renew.
        self.cluster.send_replace(ours.then(|| Arc::new(cluster)));
    }

    fn no_cluster(&self) {
        self.sees(|_| Seen::Gone);
        self.stands(Standing::Ours);
        self.cluster.send_replace(None);
    }

    /// Notes how the cluster stands at the hub, and says what is new about it.
    fn sees(&self, next: impl FnOnce(Seen) -> Seen) {
        let mut words = None;
        self.seen.send_modify(|known| {
            let now = next(*known);
            words = now.words(*known).map(|words| (now, words));
            *known = now;
        });
        let cluster = self.identity.cluster.as_str();
        match words {
            Some((Seen::Denied | Seen::Leaving | Seen::Gone, words)) => {
                tracing::warn!(cluster, hub = self.url, "{words}");
            }
            Some((_, words)) => tracing::info!(cluster, hub = self.url, "{words}"),
            None => {}
        }
    }

    /// Notes whose the name is, and says it once; whether this cluster may use it.
    fn stands(&self, now: Standing) -> bool {
        let ours = !matches!(now, Standing::Taken(_));
        if let Standing::Taken(why) = &now
            && *self.standing.borrow() != now
        {
            warn(&self.identity.cluster, why);
        }
        self.standing.send_if_modified(|known| {
            let news = *known != now;
            *known = now;
            news
        });
        ours
    }

    /// Writes into the accepted ManagedCluster which cluster is behind it, so that another of the same name is told apart.
    pub async fn claim_name(self: Arc<Self>) {
        let Some(uid) = self.context.spoke.uid.clone() else {
            return;
        };
        let mut cluster = self.cluster.subscribe();
        let mut backoff = Backoff::default();
        loop {
            let unclaimed = |c: &Option<Arc<ManagedCluster>>| {
                c.as_ref().is_some_and(|c| {
                    let known = c
                        .metadata
                        .annotations
                        .as_ref()
                        .and_then(|a| a.get(annotations::CLUSTER_UID));
                    is_accepted(c) && c.metadata.deletion_timestamp.is_none() && known != Some(&uid)
                })
            };
            if cluster.wait_for(unclaimed).await.is_err() {
                return;
            }
            match self.write_uid(&uid).await {
                // The hub does not let agents write there: then it does not.
                Err(error) if error.code() == 403 => return,
                Err(error) => tracing::debug!(%error, "the cluster's UID was not written"),
                Ok(()) => {}
            }
            backoff.wait().await;
        }
    }

    async fn write_uid(&self, uid: &str) -> Result<(), RequestError> {
        let path = format!(
            "/apis/cluster.open-cluster-management.io/v1/managedclusters/{}",
            self.identity.cluster
        );
        let mut object = objects::get(&self.hub, &path).await?;
        let known = &mut object["metadata"]["annotations"][annotations::CLUSTER_UID];
        match known.as_str() {
            Some(same) if same == uid => return Ok(()),
            Some(other) => {
                tracing::warn!(
                    other,
                    "this name belonged to another cluster before; it is this cluster's now"
                );
            }
            None => {}
        }
        *known = uid.into();
        objects::replace(&self.hub, &path, &object).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_name_is_whose_the_hub_says() {
        let identity = Identity {
            cluster: "c1".into(),
            agent: "a1".into(),
        };
        let cluster = |uid: Option<&str>, agent: Option<&str>, available: &str| {
            let notes = [(annotations::CLUSTER_UID, uid), (annotations::AGENT, agent)];
            let notes = notes
                .into_iter()
                .filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned())));
            let mut cluster = ManagedCluster::default();
            cluster.metadata.annotations = Some(notes.collect());
            cluster.status = serde_json::from_value(json!({"conditions": [{
                "type": "ManagedClusterConditionAvailable", "status": available, "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}))
            .unwrap();
            cluster
        };
        for (uid, agent, available, ours) in [
            (None, None, "True", true),
            (Some("me"), None, "True", true),
            // The same cluster, whose agent lost its name.
            (Some("me"), Some("a2"), "True", true),
            (None, Some("a1"), "True", true),
            (None, Some("a2"), "Unknown", false),
            (Some("other"), None, "True", false),
            (Some("other"), None, "Unknown", true),
            (Some("other"), Some("a2"), "Unknown", false),
            // This agent was let in after the other was lost; the other's UID is still there.
            (Some("other"), Some("a1"), "Unknown", true),
        ] {
            let standing = of(&cluster(uid, agent, available), &identity, Some("me"));
            assert_eq!(
                standing == Standing::Ours,
                ours,
                "{uid:?} {agent:?} {available}: {standing:?}"
            );
        }
    }
}
