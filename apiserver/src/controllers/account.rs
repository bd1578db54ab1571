//! Secrets of type `kubernetes.io/service-account-token`: they get a token of their ServiceAccount, and go with it.

use super::kinds;
use super::plan::{Action, Plan};
use crate::ApiError;
use crate::object;
use crate::rest::params::Propagation;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Type of those Secrets.
pub const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// The name of the ServiceAccount that a Secret asks for a token of.
pub fn account_of(secret: &Value) -> Option<&str> {
    let name = secret["metadata"]["annotations"][ACCOUNT].as_str()?;
    (secret["type"] == TOKEN_TYPE && !name.is_empty()).then_some(name)
}

/// What a Secret lacks. `sign` makes a token that is good as long as Secret and account are there.
pub fn decide(
    secret: &Value,
    account: Option<&Value>,
    ca_pem: &str,
    sign: impl FnOnce(&Value) -> Result<String, ApiError>,
) -> Result<Plan, ApiError> {
    if account_of(secret).is_none() || object::is_deleting(secret) {
        return Ok(Plan::default());
    }
    let told = secret["metadata"]["annotations"][ACCOUNT_UID]
        .as_str()
        .unwrap_or_default();
    let Some(account) = account.filter(|a| told.is_empty() || told == object::uid(a)) else {
        let action = Action::delete_unchanged(kinds::SECRETS, secret, Propagation::Background);
        return Ok(Plan::of([action]));
    };
    let is_set = |key: &str| secret["data"][key].as_str().is_some_and(|v| !v.is_empty());
    let ca = STANDARD.encode(ca_pem);
    let complete = !told.is_empty() && is_set("token") && is_set("namespace");
    if complete && secret["data"]["ca.crt"] == ca.as_str() {
        return Ok(Plan::default());
    }
    let mut new = secret.clone();
    new["metadata"]["annotations"][ACCOUNT_UID] = object::uid(account).into();
    let data = object::child_mut(&mut new, "data");
    data.insert("ca.crt".into(), ca.into());
    if !is_set("namespace") {
        data.insert(
            "namespace".into(),
            STANDARD.encode(object::namespace(secret)).into(),
        );
    }
    if !is_set("token") {
        data.insert("token".into(), STANDARD.encode(sign(account)?).into());
    }
    Ok(Plan::of([Action::update(kinds::SECRETS, new)]))
}

/// Claims of such a token: it has no end.
pub fn claims(secret: &Value, account: &Value) -> Value {
    let (namespace, name) = (object::namespace(account), object::name(account));
    json!({
        "iss": crate::auth::tokens::ISSUER_OF_SECRETS,
        "sub": crate::auth::rbac::service_account_user(namespace, name),
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": object::name(secret),
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": object::uid(account),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_filled_and_go_with_their_account() {
        let account = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u"}});
        let secret = json!({"type": TOKEN_TYPE, "metadata": {"name": "s", "namespace": "n", "uid": "x",
            "annotations": {ACCOUNT: "a"}}});
        let sign = |_: &Value| Ok("t".to_owned());
        let plan = decide(&secret, Some(&account), "pem", sign).unwrap();
        let [Action::Update { object: filled, .. }] = plan.actions.as_slice() else {
            panic!("{plan:?}");
        };
        assert_eq!(
            filled["data"],
            json!({"ca.crt": "cGVt", "namespace": "bg==", "token": "dA=="})
        );
        assert_eq!(filled["metadata"]["annotations"][ACCOUNT_UID], "u");
        assert!(
            decide(filled, Some(&account), "pem", sign)
                .unwrap()
                .actions
                .is_empty()
        );
        let again = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u2"}});
        for (secret, account) in [(filled, None), (filled, Some(&again)), (&secret, None)] {
            let plan = decide(secret, account, "pem", sign).unwrap();
            assert!(
                matches!(plan.actions.as_slice(), [Action::Delete { .. }]),
                "{plan:?}"
            );
        }
        let opaque = json!({"type": "Opaque", "metadata": {"annotations": {ACCOUNT: "a"}}});
        assert!(decide(&opaque, None, "pem", sign).unwrap().actions.is_empty());
    }
}
