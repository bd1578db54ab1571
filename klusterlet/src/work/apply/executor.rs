//! Works that are applied on behalf of a service account: what it may not do is not done for it (wire §3.6).

use super::rights::Deed;
use super::{Applier, Target};
use crate::limits::Server;
use crate::work::drift::{self, Decision};
use crate::work::objects::{self, RequestError};
use kube::Client;
use muster_crds::work::v1::{ManifestWorkExecutor, ManifestWorkSubjectServiceAccount};
use serde_json::{Value, json};
use tokio::time::Instant;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// Kinds that give rights: the server itself must say that the executor has what it would give.
const RBAC: &str = "rbac.authorization.k8s.io";

/// A client whose requests are made as the service account; `None` where its name can not stand in a header. Never one that
/// makes them as the agent.
pub fn impersonating(server: &Server, account: &ManifestWorkSubjectServiceAccount) -> Option<Server> {
    // The server adds a service account's groups by itself. To name them would take the right to act as any group.
    let user = http::HeaderValue::from_str(&user(account)).ok()?;
    let inner = server.client().clone();
    let service = tower::service_fn(move |mut request: http::Request<kube::client::Body>| {
        let inner = inner.clone();
        request.headers_mut().append("impersonate-user", user.clone());
        async move { inner.send(request).await }
    });
    Some(server.by(Client::new(service, "default")))
}

fn user(account: &ManifestWorkSubjectServiceAccount) -> String {
    format!("system:serviceaccount:{}:{}", account.namespace, account.name)
}

fn groups(account: &ManifestWorkSubjectServiceAccount) -> impl Iterator<Item = String> {
    [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{}", account.namespace),
        "system:authenticated".to_owned(),
    ]
    .into_iter()
}

/// The service account of an executor; `None` where the work has no executor. One that names no account is not the agent.
pub fn account(
    executor: Option<&ManifestWorkExecutor>,
) -> Option<Result<&ManifestWorkSubjectServiceAccount, &'static str>> {
    let account = executor?.subject.service_account.as_ref();
    Some(account.ok_or("the executor service account is nil"))
}

/// What an executor may not.
pub struct Denied {
    /// In words.
    pub why: String,
    /// Whether it may see the object at least.
    pub may_get: bool,
}

impl Applier {
    /// Whether the executor may do what is about to be done; `Some` says what it may not.
    pub(super) async fn executor_may(
        &self,
        account: &ManifestWorkSubjectServiceAccount,
        target: &Target<'_>,
        owns: bool,
    ) -> Result<Option<Denied>, RequestError> {
        let no = |why: &str, may_get| {
            Ok(Some(Denied {
                why: denied(account, target, why),
                may_get,
            }))
        };
        let Some(client) = impersonating(&target.spoke, account) else {
            return no("is no name of a service account", false);
        };
        let mut verbs = vec!["create", "update", "patch", "get"];
        if owns {
            verbs.push("delete");
        }
        let answers = self.reviews(account, target, verbs).await?;
        let may_get = answers.contains(&("get", true));
        if let Some((verb, _)) = answers.into_iter().find(|(_, allowed)| !allowed) {
            return no(&format!("may not {verb} it"), may_get);
        }
        if target.served.group != RBAC {
            return Ok(None);
        }
        match self.dry_run(&client, target).await {
            Ok(_) => Ok(None),
            Err(error) if matches!(error.code(), 401 | 403) => no(&error.to_string(), may_get),
            Err(error) => Err(error),
        }
    }

    /// Whether the executor may see the object.
    pub(super) async fn executor_may_get(
        &self,
        account: &ManifestWorkSubjectServiceAccount,
        target: &Target<'_>,
    ) -> Result<bool, RequestError> {
        let answers = self.reviews(account, target, vec!["get"]).await?;
        Ok(answers.contains(&("get", true)))
    }

    /// Which of the verbs the executor has.
    async fn reviews(
        &self,
        account: &ManifestWorkSubjectServiceAccount,
        target: &Target<'_>,
        verbs: Vec<&'static str>,
    ) -> Result<Vec<(&'static str, bool)>, RequestError> {
        let reviews = verbs.into_iter().map(|verb| async move {
            let deed = Deed {
                user: user(account),
                verb,
                group: target.served.group.clone(),
                resource: target.served.plural.clone(),
                namespace: target.key.namespace.clone(),
                name: target.key.name.clone(),
            };
            let known = self.with_rights(|r| r.allows(&deed, Instant::now()));
            if known {
                return Ok((verb, true));
            }
            let changes = self.with_rights(|r| r.changes());
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
                "user": deed.user,
                "groups": groups(account).collect::<Vec<_>>(),
                "resourceAttributes": {"verb": verb, "group": deed.group, "version": target.served.version,
                    "resource": deed.resource, "namespace": deed.namespace, "name": deed.name}}});
            let answer =
                objects::request(&target.spoke, http::Method::POST, REVIEWS, objects::JSON, Some(&review)).await?;
            let allowed = answer["status"]["allowed"].as_bool() == Some(true);
            if allowed {
                self.with_rights(|r| r.learn(deed, changes, Instant::now()));
            }
            Ok::<_, RequestError>((verb, allowed))
        });
        futures::future::try_join_all(reviews).await
    }

    /// Writes as the executor, without effect: the API server's own check against giving rights that one does not have.
    async fn dry_run(&self, client: &Server, target: &Target<'_>) -> Result<Value, RequestError> {
        let object = drift::created(&target.required, &target.marks);
        let path = format!("{}?dryRun=All", target.collection);
        let post = http::Method::POST;
        match objects::request(client, post, &path, objects::JSON, Some(&object)).await {
            Err(error) if error.already_exists() => {}
            other => return other,
        }
        let live = objects::get(&target.spoke, &target.path).await?;
        match drift::decide(&target.required, &live, &target.marks) {
            Decision::Replace(new) | Decision::ReplaceIfOther(new, _) => {
                let path = format!("{}?dryRun=All", target.path);
                objects::request(client, http::Method::PUT, &path, objects::JSON, Some(&new)).await
            }
            Decision::Keep | Decision::Recreate => Ok(live),
        }
    }
}

fn denied(account: &ManifestWorkSubjectServiceAccount, target: &Target<'_>, why: &str) -> String {
    format!(
        "not allowed to apply the resource {}/{} {}/{}: the executor {}/{}: {why}",
        target.served.group,
        target.served.plural,
        target.key.namespace,
        target.key.name,
        account.namespace,
        account.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn every_request_is_made_as_the_account_or_not_at_all() {
        let seen: Arc<Mutex<Vec<http::HeaderMap>>> = Arc::default();
        let record = seen.clone();
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            record.lock().unwrap().push(request.headers().clone());
            let answer = http::Response::new(kube::client::Body::from(b"{}".to_vec()));
            async move { Ok::<_, std::convert::Infallible>(answer) }
        });
        let client = Server::new("test", Client::new(server, "default"));
        let account = |name: &str| ManifestWorkSubjectServiceAccount {
            namespace: "ns".into(),
            name: name.into(),
        };
        let acting = impersonating(&client, &account("sa")).unwrap();
        objects::get(&acting, "/api/v1/x").await.unwrap();
        let headers = seen.lock().unwrap().pop().unwrap();
        assert_eq!(headers["impersonate-user"], "system:serviceaccount:ns:sa");
        assert!(!headers.contains_key("impersonate-group"));
        assert!(impersonating(&client, &account("a\nb")).is_none());
    }
}
