//! Whether the cluster's name at the hub is still this cluster's. Rights at a hub go by the name: a cluster that was let go of
//! and comes back, while another has come under its name, must neither work for the other's works nor report in its place.

use super::hub_client::HubClient;
use super::lease;
use super::register;
use super::seen::Seen;
use super::session::{Identity, News, Shared};
use super::trouble::Matter;
use crate::work::{Backoff, is_forbidden};
use futures::TryStreamExt as _;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher;
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::constants::annotations;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A person who accepts clusters is given this long before the cluster's operator is told.
const TO_BE_ACCEPTED: Duration = Duration::from_secs(60);

/// A right that is missing for so long does not come by waiting.
const SHUT_FOR_GOOD: Duration = Duration::from_secs(60);

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

/// Whether the hub has accepted the cluster, which is this one, and says that another agent has its name.
pub fn is_replaced(cluster: &ManagedCluster, identity: &Identity, uid: Option<&str>) -> bool {
    let note = |key: &str| cluster.metadata.annotations.as_ref().and_then(|a| a.get(key));
    let ours = uid.is_some() && note(annotations::CLUSTER_UID).map(String::as_str) == uid;
    let others = note(annotations::AGENT).is_some_and(|agent| *agent != identity.agent);
    ours && others && cluster.spec.hub_accepts_client
}

/// Says that the name is another's, and what to do.
pub fn words(why: &str) -> String {
    format!(
        "the name is another cluster's at the hub now: {why}; this cluster reports nothing and applies nothing new, and \
         what it applied stays: join under another --cluster-name, or detach the other"
    )
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
        let mut shut: Option<tokio::time::Instant> = None;
        loop {
            let event = events.try_next().await;
            match &event {
                // A watch that begins anew says so before it is answered.
                Ok(Some(watcher::Event::Init)) => {}
                Err(error) if is_forbidden(error) => {}
                _ => shut = None,
            }
            match event {
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
                        let since = *shut.get_or_insert_with(tokio::time::Instant::now);
                        if since.elapsed() >= SHUT_FOR_GOOD {
                            shut = None;
                            self.tell(News::Shut);
                        }
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
                self.context.trouble.is(Matter::Acceptance, words.to_owned());
            }
            Some((_, words)) => tracing::info!(cluster, hub = self.url, "{words}"),
            None => {}
        }
        if *self.seen.borrow() == Seen::Accepted {
            self.context.trouble.over(Matter::Acceptance);
        }
    }

    /// That nobody accepts the cluster is no trouble where people do it; that nobody has for a minute, its operator wants to know.
    pub async fn tell_of_waiting(self: Arc<Self>) {
        let mut seen = self.seen.subscribe();
        let waits = |seen: &Seen| matches!(seen, Seen::Refused | Seen::Waiting);
        loop {
            let Ok(words) = seen.wait_for(waits).await.map(|seen| seen.words(Seen::Nothing)) else {
                return;
            };
            tokio::select! {
                biased;
                over = seen.wait_for(|seen| !waits(seen)) => match over {
                    Ok(_) => continue,
                    Err(_) => return,
                },
                () = tokio::time::sleep(TO_BE_ACCEPTED) => {}
            }
            if let Some(words) = words {
                self.context.trouble.is(Matter::Acceptance, words.to_owned());
            }
            if seen.wait_for(|seen| !waits(seen)).await.is_err() {
                return;
            }
        }
    }

    /// Notes whose the name is, and says it once; whether this cluster may use it.
    fn stands(&self, now: Standing) -> bool {
        let ours = !matches!(now, Standing::Taken(_));
        match &now {
            Standing::Taken(why) if *self.standing.borrow() != now => {
                let (words, cluster) = (words(why), &self.identity.cluster);
                tracing::warn!(cluster, "{words}");
                self.context.trouble.is(Matter::Name, words);
            }
            Standing::Ours => self.context.trouble.over(Matter::Name),
            _ => {}
        }
        self.standing.send_if_modified(|known| {
            let news = *known != now;
            *known = now;
            news
        });
        ours
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
            let cluster = cluster(uid, agent, available);
            let standing = of(&cluster, &identity, Some("me"));
            assert_eq!(
                standing == Standing::Ours,
                ours,
                "{uid:?} {agent:?} {available}: {standing:?}"
            );
            let replaced = uid == Some("me") && agent == Some("a2");
            for accepted in [false, true] {
                let mut cluster = cluster.clone();
                cluster.spec.hub_accepts_client = accepted;
                let is = is_replaced(&cluster, &identity, Some("me"));
                assert_eq!(is, accepted && replaced, "{uid:?} {agent:?}");
                assert!(!is_replaced(&cluster, &identity, None));
            }
        }
    }
}
