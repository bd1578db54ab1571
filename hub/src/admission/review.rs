//! AdmissionReviews, v1 and v1beta1: what is asked, and what is answered.

use std::{borrow::Cow, collections::BTreeMap};

use base64::Engine as _;
use muster_crds::{cluster, work};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

const VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];

/// A review as it comes: objects stay text, of which each rule reads what it looks at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Review<'a> {
    api_version: Cow<'a, str>,
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

/// A write that somebody wants to do.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// Ties the answer to the question.
    pub uid: Cow<'a, str>,
    /// Name of the object; empty when the server is to make one.
    #[serde(default)]
    pub name: Cow<'a, str>,
    /// Its namespace.
    #[serde(default)]
    pub namespace: Cow<'a, str>,
    /// Who asks.
    pub user_info: User,
    /// The object as it is to be.
    #[serde(borrow)]
    pub object: Option<&'a RawValue>,
    /// The object as it is, unless it is made.
    #[serde(borrow)]
    pub old_object: Option<&'a RawValue>,
}

/// Who asks, as the API server knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct User {
    /// Name.
    pub username: String,
    /// Uid.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else authenticators told.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What an authorizer, or the hub's API, has to be asked before a write is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether the user may do this.
    May(Attributes),
    /// Whether a namespace stays.
    NamespaceStays(String),
}

/// A right, as RBAC knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// API group.
    pub group: &'static str,
    /// Resource.
    pub resource: &'static str,
    /// Subresource; empty for none.
    pub subresource: &'static str,
    /// Verb.
    pub verb: &'static str,
    /// Namespace; empty for what is in none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// How a no is said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    BadRequest,
    /// About a resource of that group and name.
    Forbidden(&'static str, &'static str, String),
}

/// A no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    shape: Shape,
    why: String,
}

impl Refusal {
    /// The request makes no sense.
    pub fn bad_request(why: impl Into<String>) -> Self {
        Self {
            shape: Shape::BadRequest,
            why: why.into(),
        }
    }

    /// The user may not do this with a resource of the cluster group.
    pub fn forbidden(resource: &'static str, name: &str, why: impl Into<String>) -> Self {
        Self {
            shape: Shape::Forbidden(cluster::GROUP, resource, name.to_owned()),
            why: why.into(),
        }
    }

    /// The same no for another reason: the question could not be answered.
    pub fn because(self, why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            ..self
        }
    }

    /// As the user reads it.
    pub fn message(&self) -> String {
        match &self.shape {
            Shape::BadRequest => self.why.clone(),
            Shape::Forbidden(group, resource, name) => {
                format!("{resource}.{group} {name:?} is forbidden: {}", self.why)
            }
        }
    }

    /// A Kubernetes Status.
    pub fn status(&self) -> Value {
        let (code, reason, details) = match &self.shape {
            Shape::BadRequest => (400, "BadRequest", None),
            Shape::Forbidden(group, resource, name) => {
                let details = json!({"group": group, "kind": resource, "name": name});
                (403, "Forbidden", Some(details))
            }
        };
        let mut status = json!({
            "metadata": {}, "status": "Failure", "message": self.message(), "reason": reason, "code": code,
        });
        if let Some(details) = details {
            status["details"] = details;
        }
        status
    }
}

/// One thing to ask, and the no if the answer is no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What to ask.
    pub question: Question,
    /// What to say when the answer is no.
    pub refusal: Refusal,
}

/// What a rule comes to: a no, or what is still to be asked, in this order.
pub type Decision = Result<Vec<Check>, Refusal>;

/// The end of a review.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// So be it.
    Allowed,
    /// With these changes, as JSON Patch.
    Changed(Vec<Value>),
    /// No.
    Refused(Refusal),
}

impl<'a> Review<'a> {
    /// Reads a review; the error says why it is none.
    pub fn read(text: &'a str) -> Result<Self, String> {
        let review: Self =
            serde_json::from_str(text).map_err(|error| format!("no AdmissionReview: {error}"))?;
        if review.kind != "AdmissionReview" || !VERSIONS.contains(&&*review.api_version) {
            return Err(format!(
                "{} {} is not understood: send an AdmissionReview of {}",
                review.api_version,
                review.kind,
                VERSIONS.join(" or ")
            ));
        }
        Ok(review)
    }

    /// The write, if there is one.
    pub fn request(&self) -> Result<&Request<'a>, String> {
        self.request
            .as_ref()
            .ok_or_else(|| "the AdmissionReview has no request".to_owned())
    }

    /// The answer to this review, in its version.
    pub fn answer(&self, uid: &str, verdict: &Verdict) -> Value {
        let mut response = json!({"uid": uid, "allowed": !matches!(verdict, Verdict::Refused(_))});
        match verdict {
            Verdict::Changed(patch) if !patch.is_empty() => {
                let patch = Value::Array(patch.clone()).to_string();
                response["patch"] = base64::engine::general_purpose::STANDARD.encode(patch).into();
                response["patchType"] = "JSONPatch".into();
            }
            Verdict::Allowed | Verdict::Changed(_) => {}
            Verdict::Refused(refusal) => response["status"] = refusal.status(),
        }
        json!({"apiVersion": self.api_version, "kind": "AdmissionReview", "response": response})
    }
}

impl<'a> Request<'a> {
    /// The object as it is to be.
    pub fn new_object<T: Deserialize<'a>>(&self) -> Result<T, Refusal> {
        let object = self
            .object
            .ok_or_else(|| Refusal::bad_request("there is no content to decode"))?;
        read(object)
    }

    /// The object as it is; `None` when it is made.
    pub fn old_object<T: Deserialize<'a>>(&self) -> Result<Option<T>, Refusal> {
        self.old_object.map(read).transpose()
    }
}

fn read<'a, T: Deserialize<'a>>(object: &'a RawValue) -> Result<T, Refusal> {
    serde_json::from_str(object.get()).map_err(|error| Refusal::bad_request(error.to_string()))
}

/// A right on works of a namespace.
pub fn works(verb: &'static str, namespace: &str, name: String) -> Attributes {
    Attributes {
        group: work::GROUP,
        resource: "manifestworks",
        verb,
        namespace: namespace.to_owned(),
        name,
        ..Attributes::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(version: &str) -> String {
        json!({
            "apiVersion": version, "kind": "AdmissionReview",
            "request": {
                "uid": "u1", "name": "n", "operation": "UPDATE", "namespace": "s",
                "kind": {"group": "g", "version": "v", "kind": "K"},
                "userInfo": {"username": "jane", "groups": ["a"], "extra": {"k": ["v"]}},
                "object": {"a": 1}, "oldObject": null, "dryRun": false, "options": {},
            },
        })
        .to_string()
    }

    #[test]
    fn answers_come_in_the_version_of_the_question() {
        for version in VERSIONS {
            let text = review(version);
            let review = Review::read(&text).unwrap();
            let request = review.request().unwrap();
            assert_eq!((&*request.name, &*request.namespace), ("n", "s"));
            assert_eq!(request.user_info.extra["k"], ["v"]);
            assert_eq!(request.new_object::<Value>().unwrap(), json!({"a": 1}));
            assert_eq!(request.old_object::<Value>().unwrap(), None);
            let answer = review.answer(&request.uid, &Verdict::Allowed);
            assert_eq!(
                answer,
                json!({"apiVersion": version, "kind": "AdmissionReview", "response": {"uid": "u1", "allowed": true}})
            );
        }
    }

    #[test]
    fn what_is_no_review_is_told_so() {
        let other = json!({"apiVersion": "admission.k8s.io/v2", "kind": "AdmissionReview"}).to_string();
        let empty = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}).to_string();
        for (text, reason) in [
            ("[]", "no AdmissionReview"),
            ("{\"apiVersion\"", "no AdmissionReview"),
            (
                other.as_str(),
                "admission.k8s.io/v2 AdmissionReview is not understood",
            ),
            (empty.as_str(), "has no request"),
        ] {
            let error = Review::read(text)
                .and_then(|review| review.request().map(|_| ()))
                .unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_no_is_a_status_and_a_change_a_patch() {
        let text = review(VERSIONS[0]);
        let review = Review::read(&text).unwrap();
        let answer = review.answer("u1", &Verdict::Refused(Refusal::bad_request("not so")));
        assert_eq!(answer["response"]["allowed"], false);
        assert_eq!(
            answer["response"]["status"],
            json!({"metadata": {}, "status": "Failure", "message": "not so", "reason": "BadRequest", "code": 400})
        );
        let refusal = Refusal::forbidden("managedclusters/accept", "c1", "user \"u\" cannot");
        let status = refusal.status();
        assert_eq!(
            status["message"],
            "managedclusters/accept.cluster.open-cluster-management.io \"c1\" is forbidden: user \"u\" cannot"
        );
        assert_eq!(
            (&status["code"], &status["reason"]),
            (&json!(403), &json!("Forbidden"))
        );
        let patch = vec![json!({"op": "add", "path": "/a", "value": 1})];
        let answer = review.answer("u1", &Verdict::Changed(patch));
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        let nothing = review.answer("u1", &Verdict::Changed(Vec::new()));
        assert_eq!(nothing["response"], json!({"uid": "u1", "allowed": true}));
    }
}
