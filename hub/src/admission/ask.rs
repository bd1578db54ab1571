//! What is still to be asked of a write, asked of the hub's API.

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::Namespace,
};
use kube::{Api, Client, api::PostParams};

use super::review::{Attributes, Check, Question, Refusal, User};
use crate::error::innermost;

/// Asks, in order, until an answer is no. What cannot be told is a no that says why.
pub async fn all(client: &Client, user: &User, checks: Vec<Check>) -> Result<(), Refusal> {
    for check in checks {
        match ask(client, user, &check.question).await {
            Ok(true) => {}
            Ok(false) => return Err(check.refusal),
            Err(error) => return Err(check.refusal.because(innermost(&error))),
        }
    }
    Ok(())
}

async fn ask(client: &Client, user: &User, question: &Question) -> Result<bool, kube::Error> {
    match question {
        Question::May(right) => {
            let review = Api::<SubjectAccessReview>::all(client.clone())
                .create(&PostParams::default(), &access_review(user, right))
                .await?;
            Ok(review.status.is_some_and(|status| status.allowed))
        }
        Question::NamespaceStays(name) => {
            let namespace = Api::<Namespace>::all(client.clone()).get_opt(name).await?;
            let phase = namespace.and_then(|namespace| namespace.status?.phase);
            Ok(phase.as_deref() != Some("Terminating"))
        }
    }
}

/// The user whole, as the API server knows them: rights may hang on any of it.
fn access_review(user: &User, right: &Attributes) -> SubjectAccessReview {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: text(&user.username),
            uid: text(&user.uid),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                group: text(right.group),
                resource: text(right.resource),
                subresource: text(right.subresource),
                verb: text(right.verb),
                namespace: text(&right.namespace),
                name: text(&right.name),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_user_is_asked_about_whole() {
        let user = User {
            username: "u".to_owned(),
            uid: "1".to_owned(),
            groups: vec!["g".to_owned()],
            extra: [("k".to_owned(), vec!["v".to_owned()])].into(),
        };
        let right = Attributes {
            group: "a",
            resource: "r",
            verb: "x",
            name: "n".to_owned(),
            ..Attributes::default()
        };
        let review = serde_json::to_value(access_review(&user, &right)).unwrap();
        assert_eq!(
            review["spec"],
            json!({"user": "u", "uid": "1", "groups": ["g"], "extra": {"k": ["v"]},
                "resourceAttributes": {"group": "a", "resource": "r", "verb": "x", "name": "n"}})
        );
    }
}
