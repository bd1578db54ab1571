//! What a cluster says of itself in its ManagedCluster, beside its status: which cluster is behind the name, so that another of
//! the same name is told apart, and under which URLs its API can be reached. The bootstrap credential may only make the object;
//! of one that was there already, made by an administrator or by an earlier run, the agent says it once it is accepted.

use super::Context;
use super::session::{Shared, is_accepted};
use crate::work::Backoff;
use crate::work::objects::{self, RequestError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::constants::annotations;
use serde_json::{Value, json};
use std::sync::Arc;

/// What there is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// UID of the cluster, where it is known.
    pub uid: Option<String>,
    /// URLs of its API.
    pub urls: Vec<String>,
    /// The CA bundle for each of them, in base64.
    pub ca: String,
}

impl Introduction {
    /// Of this cluster.
    pub fn of(context: &Context) -> Self {
        Self {
            uid: context.spoke.uid.clone(),
            urls: context.options.spoke_external_server_urls.clone(),
            ca: STANDARD.encode(&context.spoke.ca),
        }
    }

    /// The client configs for a ManagedCluster.
    pub fn configs(&self) -> Vec<Value> {
        let config = |url: &String| json!({"url": url, "caBundle": self.ca});
        self.urls.iter().map(config).collect()
    }

    /// Writes into a ManagedCluster what it does not say yet; whether that was anything. What others say there stays.
    pub fn say(&self, cluster: &mut Value) -> bool {
        let mut news = false;
        if let Some(uid) = &self.uid {
            let known = &mut cluster["metadata"]["annotations"][annotations::CLUSTER_UID];
            news = *known != uid.as_str();
            *known = uid.as_str().into();
        }
        if self.urls.is_empty() {
            return news;
        }
        let known = &mut cluster["spec"]["managedClusterClientConfigs"];
        if !known.is_array() {
            *known = json!([]);
        }
        for config in self.configs() {
            let Some(known) = known.as_array_mut() else {
                continue;
            };
            match known.iter_mut().find(|known| known["url"] == config["url"]) {
                Some(known) if *known == config => continue,
                Some(known) => *known = config,
                None => known.push(config),
            }
            news = true;
        }
        news
    }
}

impl Shared {
    /// Says it in the accepted ManagedCluster, for as long as that does not.
    pub async fn introduce(self: Arc<Self>) {
        let introduction = Introduction::of(&self.context);
        let mut cluster = self.cluster.subscribe();
        let mut backoff = Backoff::default();
        let mut refused = false;
        loop {
            let unsaid = |c: &Option<Arc<ManagedCluster>>| {
                c.as_ref().is_some_and(|c| {
                    let said = serde_json::to_value(&**c).is_ok_and(|mut c| !introduction.say(&mut c));
                    is_accepted(c) && c.metadata.deletion_timestamp.is_none() && !said
                })
            };
            if cluster.wait_for(unsaid).await.is_err() {
                return;
            }
            match self.say(&introduction).await {
                // The right may be on its way, or somebody may have to give it.
                Err(error) if matches!(error.code(), 403 | 422) => {
                    if !std::mem::replace(&mut refused, true) {
                        tracing::warn!(%error, "the hub does not take what this cluster says of itself in its ManagedCluster yet");
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the ManagedCluster was not written, it is tried again");
                }
                Ok(()) => {
                    backoff = Backoff::default();
                    refused = false;
                }
            }
            backoff.wait().await;
        }
    }

    async fn say(&self, introduction: &Introduction) -> Result<(), RequestError> {
        let path = format!(
            "/apis/cluster.open-cluster-management.io/v1/managedclusters/{}",
            self.identity.cluster
        );
        let mut object = objects::get(&self.hub, &path).await?;
        let known = object["metadata"]["annotations"][annotations::CLUSTER_UID].clone();
        if let (Some(other), Some(uid)) = (known.as_str(), &introduction.uid)
            && other != uid
        {
            tracing::warn!(
                other,
                "this name belonged to another cluster before; it is this cluster's now"
            );
        }
        if introduction.say(&mut object) {
            objects::replace(&self.hub, &path, &object).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_yet_is_said_once_and_what_others_say_stays() {
        let introduction = Introduction {
            uid: Some("me".into()),
            urls: vec!["https://a".into(), "https://b".into()],
            ca: "Y2E=".into(),
        };
        let mine =
            json!([{"url": "https://a", "caBundle": "Y2E="}, {"url": "https://b", "caBundle": "Y2E="}]);
        let theirs = json!({"url": "https://old", "caBundle": "b2xk"});
        for (configs, wanted) in [
            (Value::Null, mine.clone()),
            (mine.clone(), mine.clone()),
            (json!([theirs]), json!([theirs, mine[0], mine[1]])),
            // Another CA, as after the cluster was set up anew.
            (
                json!([{"url": "https://b", "caBundle": "b2xk"}]),
                json!([mine[1], mine[0]]),
            ),
        ] {
            let mut cluster =
                json!({"metadata": {"name": "c1"}, "spec": {"managedClusterClientConfigs": configs}});
            assert!(introduction.say(&mut cluster), "its UID is news");
            assert_eq!(cluster["spec"]["managedClusterClientConfigs"], wanted);
            assert_eq!(cluster["metadata"]["annotations"][annotations::CLUSTER_UID], "me");
            assert!(!introduction.say(&mut cluster), "it is said");
        }
        let nothing = Introduction {
            uid: None,
            urls: Vec::new(),
            ca: String::new(),
        };
        let mut cluster = json!({"metadata": {"name": "c1"}, "spec": {}});
        assert!(!nothing.say(&mut cluster));
        assert_eq!(cluster, json!({"metadata": {"name": "c1"}, "spec": {}}));
    }
}
