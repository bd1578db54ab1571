//! Several hubs (wire §2.8): which of them the agent works for. A hub is good when its bootstrap credential may do all that
//! registering needs, and it either does not know the cluster or lets it in.

use super::Context;
use super::bootstrap::Bootstrap;
use super::register;
use crate::Error;
use crate::work::objects;
use futures::future::join_all;
use muster_crds::cluster::v1::ManagedCluster;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// A hub that does not answer within this is none.
const ANSWER: Duration = Duration::from_secs(10);

/// What the agent must be able to do with a bootstrap credential: group, resource, verbs.
const NEEDED: [(&str, &str, &[&str]); 2] = [
    (
        "cluster.open-cluster-management.io",
        "managedclusters",
        &["create", "get"],
    ),
    (
        "certificates.k8s.io",
        "certificatesigningrequests",
        &["create", "get", "list", "watch"],
    ),
];

/// A hub and what came of asking it: nothing, or why it is no good.
#[derive(Debug)]
pub struct Asked {
    /// The hub's URL, when its kubeconfig could be read.
    pub url: Option<String>,
    /// Why it is no good.
    pub problem: Option<String>,
}

/// Chooses: the present hub when it is good, else the first good one in order.
pub fn choose(asked: &[Asked], present: Option<&str>) -> Option<usize> {
    let good = |a: &Asked| a.problem.is_none();
    let kept = asked
        .iter()
        .position(|a| good(a) && present.is_some() && a.url.as_deref() == present);
    kept.or_else(|| asked.iter().position(good))
}

/// What is wrong with each, in one line.
pub fn problems(asked: &[Asked]) -> String {
    let each = asked.iter().filter_map(|hub| {
        let url = hub.url.as_deref().unwrap_or("no URL");
        Some(format!("{url}: {}", hub.problem.as_deref()?))
    });
    each.collect::<Vec<_>>().join("; ")
}

/// Asks all hubs at once.
pub async fn ask(context: &Context, files: &[PathBuf], cluster: &str) -> Vec<Asked> {
    join_all(files.iter().map(|path| async move {
        let (url, answer) = match Bootstrap::from_file(path) {
            Ok(bootstrap) => {
                let url = bootstrap.server.url.clone();
                let answer = tokio::time::timeout(ANSWER, good(context, &bootstrap, cluster)).await;
                (Some(url), answer.unwrap_or_else(|_| Err("no answer".to_owned())))
            }
            Err(error) => (None, Err(error.to_string())),
        };
        let problem = answer.err();
        if let Some(problem) = &problem {
            tracing::info!(hub = url, file = %path.display(), problem, "this hub is not for now");
        }
        Asked { url, problem }
    }))
    .await
}

async fn good(context: &Context, bootstrap: &Bootstrap, cluster: &str) -> Result<(), String> {
    let text = |e: &Error| e.to_string();
    let hub = context.connect.bootstrap(bootstrap).await.map_err(|e| text(&e))?;
    let said = |error: objects::RequestError| register::said(&error);
    for (group, resource, verbs) in NEEDED {
        for verb in verbs {
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {"group": group, "resource": resource, "verb": verb}}});
            let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            let answer = objects::create(&hub, path, &review).await.map_err(said)?;
            if answer["status"]["allowed"] != true {
                return Err(format!("its credential may not {verb} {resource}"));
            }
        }
    }
    let path = format!("/apis/cluster.open-cluster-management.io/v1/managedclusters/{cluster}");
    match objects::get(&hub, &path).await {
        Ok(found) => match serde_json::from_value::<ManagedCluster>(found) {
            Ok(found) if found.spec.hub_accepts_client => Ok(()),
            Ok(_) => Err("it does not accept this cluster".into()),
            Err(error) => Err(error.to_string()),
        },
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(said(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_hub_stays_while_it_is_good() {
        let asked = |list: &[(&str, bool)]| -> Vec<Asked> {
            list.iter()
                .map(|(url, good)| Asked {
                    url: Some((*url).to_owned()),
                    problem: (!good).then(|| "no".to_owned()),
                })
                .collect()
        };
        for (list, present, expected) in [
            (&[("a", true), ("b", true)][..], None, Some(0)),
            (&[("a", true), ("b", true)], Some("b"), Some(1)),
            (&[("a", true), ("b", false)], Some("b"), Some(0)),
            (&[("a", false), ("b", true)], Some("a"), Some(1)),
            (&[("a", false), ("b", true)], Some("gone"), Some(1)),
            (&[("a", false), ("b", false)], Some("a"), None),
        ] {
            assert_eq!(choose(&asked(list), present), expected, "{list:?} {present:?}");
        }
    }
}
