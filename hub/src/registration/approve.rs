//! Approves certificate requests of agents (ocm-wire §2.4): renewals of those the hub lets renew, and first requests
//! of users it was told to trust. Nothing is ever denied here: what is not approved waits for a person.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
};
use kube::{Api, api::PostParams};
use muster_crds::constants::{conditions, names, reasons};
use serde_json::json;

use super::{
    csr::{self, Agent},
    view::CsrView,
};
use crate::{
    cache::Cache,
    error::Error,
    queue::Next,
    writer::{Writer, guarded, what},
};

/// The message of the approval, as OCM writes it.
const MESSAGE: &str = "Auto approving Managed cluster agent certificate after SubjectAccessReview.";

/// What to do about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing; a person may.
    Leave(String),
    /// Approve when the hub lets its requester renew.
    AskRenewal(Agent),
    /// Approve.
    Approve(Agent),
}

/// Decides about a request. `users` are those whose first requests are approved.
pub fn decide(csr: &CsrView, users: &[String]) -> Decision {
    if csr.decided {
        return Decision::Leave("it is decided".to_owned());
    }
    let agent = match csr::validate(csr) {
        Ok(agent) => agent,
        Err(reason) => return Decision::Leave(reason.to_string()),
    };
    if csr.user == agent.user() {
        Decision::AskRenewal(agent)
    } else if users.contains(&csr.user) {
        Decision::Approve(agent)
    } else {
        Decision::Leave(format!(
            "a person has to approve it: its requester {:?} is not trusted to",
            csr.user
        ))
    }
}

/// The question whether the requester may renew certificates.
pub fn may_renew(csr: &CsrView) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(csr.user.clone()),
            uid: Some(csr.user_uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(csr.groups.clone()),
            extra: Some(csr.extra.clone()).filter(|extra| !extra.is_empty()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(names::REGISTER_GROUP.to_owned()),
                resource: Some("managedclusters".to_owned()),
                subresource: Some("clientcertificates".to_owned()),
                verb: Some("renew".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// What the controller works with.
pub struct Context {
    /// What is known.
    pub requests: Arc<Cache<CertificateSigningRequest, CsrView>>,
    /// How to write.
    pub writer: Arc<Writer>,
    /// Whose first requests are approved.
    pub users: Vec<String>,
}

impl Context {
    /// Decides about one request.
    pub async fn reconcile(&self, name: &str) -> Result<Next, Error> {
        let Some(csr) = self.requests.get("", name) else {
            return Ok(Next::Idle);
        };
        let agent = match decide(&csr, &self.users) {
            Decision::Leave(reason) => {
                tracing::debug!(request = name, "left alone: {reason}");
                return Ok(Next::Idle);
            }
            Decision::Approve(agent) => agent,
            Decision::AskRenewal(agent) => {
                if !self.allowed(&csr, name).await? {
                    tracing::info!(
                        request = name,
                        cluster = agent.cluster,
                        "left alone: its requester may not renew"
                    );
                    return Ok(Next::Idle);
                }
                agent
            }
        };
        self.approve(name, &csr).await?;
        tracing::info!(
            request = name,
            cluster = agent.cluster,
            agent = agent.agent,
            "certificate approved"
        );
        Ok(Next::Idle)
    }

    async fn allowed(&self, csr: &CsrView, name: &str) -> Result<bool, Error> {
        let api = Api::<SubjectAccessReview>::all(self.writer.client());
        let review = may_renew(csr);
        let parameters = PostParams::default();
        let ask = api.create(&parameters, &review);
        let answer = self
            .writer
            .bounded(format!("review access for request {name}"), ask)
            .await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn approve(&self, name: &str, csr: &CsrView) -> Result<(), Error> {
        let api = Api::<CertificateSigningRequest>::all(self.writer.client());
        let condition = json!({
            "type": conditions::CSR_APPROVED,
            "status": "True",
            "reason": reasons::CSR_AUTO_APPROVED,
            "message": MESSAGE,
            "lastUpdateTime": format!("{:.0}", Timestamp::now()),
        });
        let patch = guarded(
            json!({"status": {"conditions": [condition]}}),
            &csr.uid,
            Some(&csr.resource_version),
        );
        let subject = what::<CertificateSigningRequest>(name);
        match self
            .writer
            .patch(&api, name, Some("approval"), &patch, &subject)
            .await
        {
            Ok(answer) => {
                self.requests.wrote(&answer);
                Ok(())
            }
            // Its maker gave up on it.
            Err(error) if error.status().is_some_and(|status| status.code == 404) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
