//! Who may approve requests to a signer, and who may answer them (kube-apiserver's plugins CertificateApproval and
//! CertificateSigning): a signer is a name that rights are given for, besides those for the requests themselves.

use super::{Api, Operation, Review, subject};
use crate::ApiError;
use crate::auth::Attributes;
use crate::controllers::kinds::CSRS;
use serde_json::Value;

/// Refuses an approval or a certificate of who has no right to give it.
pub fn validate(
    api: &Api,
    review: &Review<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let (Some(new), Some(old)) = (new, old) else {
        return Ok(());
    };
    if &*review.resource.storage != CSRS || review.operation != Operation::Update {
        return Ok(());
    }
    let verb = match review.subresource {
        "approval" => "approve",
        "status" if answers(new, old) => "sign",
        _ => return Ok(()),
    };
    let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
    let domain = signer.split('/').next().unwrap_or_default();
    let may = [signer.to_owned(), format!("{domain}/*")]
        .into_iter()
        .any(|name| {
            let asked = Attributes {
                verb: verb.into(),
                group: review.resource.group.clone(),
                version: "*".into(),
                resource: "signers".into(),
                name,
                is_resource: true,
                ..Attributes::default()
            };
            api.authorizer.authorize(review.user, &asked).is_allowed()
        });
    if may {
        return Ok(());
    }
    Err(ApiError::forbidden(
        subject(review.resource, review.name),
        &format!("user not permitted to {verb} requests with signerName {signer:?}"),
    ))
}

/// Whether a status says something that only the signer may say.
fn answers(new: &Value, old: &Value) -> bool {
    let certificate = |csr: &Value| {
        csr["status"]["certificate"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let conditions = |csr: &Value| {
        let conditions = csr["status"]["conditions"].as_array();
        conditions.cloned().unwrap_or_default()
    };
    certificate(new) != certificate(old) || conditions(new) != conditions(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn certificates_and_conditions_are_the_signers() {
        let of = |status: Value| json!({ "status": status });
        for (new, old, want) in [
            (json!({}), json!({"conditions": [], "certificate": ""}), false),
            (json!({"certificate": "YQ=="}), json!({}), true),
            (
                json!({"certificate": "YQ=="}),
                json!({"certificate": "YQ=="}),
                false,
            ),
            (json!({"conditions": [{"type": "Failed"}]}), json!({}), true),
            (json!({"other": 1}), json!({}), false),
        ] {
            assert_eq!(answers(&of(new.clone()), &of(old)), want, "{new}");
        }
    }
}
