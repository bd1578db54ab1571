//! What tokens mean: ServiceAccount tokens bound to objects that must still be there, and bootstrap tokens from Secrets.

use super::jwt::ServiceAccountKeys;
use super::rbac::service_account_user;
use super::types::{ALL_AUTHENTICATED, UserInfo};
use crate::error::ApiError;
use crate::object;
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Who issues the cluster's ServiceAccount tokens, and the audience of the API server itself.
pub const ISSUER: &str = "https://kubernetes.default.svc";
/// Who issues the tokens that are in Secrets: they have no audience and no end.
pub const ISSUER_OF_SECRETS: &str = "kubernetes/serviceaccount";
/// Key of a token's id in a user's `extra`.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// Group of every ServiceAccount; with `:<namespace>` of those of a namespace.
pub const SERVICE_ACCOUNTS_GROUP: &str = "system:serviceaccounts";

/// Private claims under this name say which objects a token is bound to.
const PRIVATE: &str = "kubernetes.io";

/// Type of the Secrets that are bootstrap tokens, and where they live.
/// What their names begin with.
pub const BOOTSTRAP_PREFIX: &str = "bootstrap-token-";
/// Type of the Secret of a bootstrap token.
pub const BOOTSTRAP_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Where those Secrets are.
pub const BOOTSTRAP_NAMESPACE: &str = "kube-system";
/// Group of everyone with a bootstrap token; extra groups begin with it.
pub const BOOTSTRAPPERS_GROUP: &str = "system:bootstrappers";

/// Looks up a stored object by resource (`/secrets`), namespace and name.
pub trait Objects {
    /// The object as it is now.
    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value>;
}

impl Objects for crate::store::Store {
    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.get(&crate::store::Key::new(resource, namespace, name))
            .map(|e| e.value())
    }
}

/// What a token is issued for.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// The ServiceAccount object.
    pub account: &'a Value,
    /// Who it is for.
    pub audiences: &'a [String],
    /// Life in seconds.
    pub seconds: i64,
    /// What it is bound to: the claim's name (`pod`, `secret`, `node`) and the object.
    pub bound: Option<(&'static str, &'a Value)>,
}

/// Issues a ServiceAccount token with a new id.
pub fn issue(keys: &ServiceAccountKeys, grant: &Grant<'_>, now: Timestamp) -> Result<String, ApiError> {
    let (namespace, name) = (object::namespace(grant.account), object::name(grant.account));
    let mut private = json!({
        "namespace": namespace,
        "serviceaccount": { "name": name, "uid": object::uid(grant.account) },
    });
    if let Some((kind, bound)) = grant.bound {
        private[kind] = json!({ "name": object::name(bound), "uid": object::uid(bound) });
    }
    let issued = now.as_second();
    let claims = json!({
        "iss": ISSUER,
        "sub": service_account_user(namespace, name),
        "aud": grant.audiences,
        "iat": issued,
        "nbf": issued,
        "exp": issued.saturating_add(grant.seconds),
        "jti": uuid::Uuid::new_v4().to_string(),
        PRIVATE: private,
    });
    keys.sign(&claims).map_err(|e| ApiError::Internal(e.to_string()))
}

/// A token that is good: whose, and for which of the audiences asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub user: UserInfo,
    /// Audiences it has in common with those asked for.
    pub audiences: Vec<String>,
}

/// Checks the claims of a ServiceAccount token whose signature is good: issuer, life, audience, and that the account and what
/// the token is bound to are still the very same objects. The error is for logs and TokenReviews.
pub fn check_claims(
    claims: &Value,
    wanted: &[String],
    objects: &impl Objects,
    now: Timestamp,
) -> Result<Verified, String> {
    if claims["iss"] != ISSUER {
        return Err("the token's issuer is not this cluster".into());
    }
    let time = |claim: &str| {
        claims[claim]
            .as_i64()
            .ok_or_else(|| format!("the token has no {claim}"))
    };
    if now.as_second() >= time("exp")? {
        return Err("the token has expired".into());
    }
    if now.as_second() < time("nbf")? {
        return Err("the token is not valid yet".into());
    }
    let own: Vec<&str> = match &claims["aud"] {
        Value::String(one) => vec![one],
        many => many
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect(),
    };
    let audiences: Vec<String> = wanted
        .iter()
        .filter(|w| own.contains(&w.as_str()))
        .cloned()
        .collect();
    if audiences.is_empty() {
        return Err(format!(
            "[invalid bearer token, token audiences {own:?} is invalid for the target audiences {wanted:?}]"
        ));
    }

    let private = &claims[PRIVATE];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let namespace = text(&private["namespace"]);
    let account = &private["serviceaccount"];
    let name = text(&account["name"]);
    if namespace.is_empty() || name.is_empty() || claims["sub"] != service_account_user(&namespace, &name) {
        return Err("the token names no ServiceAccount".into());
    }
    same_object(objects, "/serviceaccounts", &namespace, account, now)?;
    let mut user = service_account_info(&namespace, &name, &text(&account["uid"]));
    let jti = text(&claims["jti"]);
    if !jti.is_empty() {
        user.extra
            .insert(CREDENTIAL_ID.into(), vec![format!("JTI={jti}")]);
    }
    for (kind, resource, namespace) in [
        ("secret", "/secrets", namespace.as_str()),
        ("pod", "/pods", &namespace),
        ("node", "/nodes", ""),
    ] {
        let bound = &private[kind];
        if bound.is_null() {
            continue;
        }
        same_object(objects, resource, namespace, bound, now)?;
        if kind != "secret" {
            for part in ["name", "uid"] {
                user.extra.insert(
                    format!("authentication.kubernetes.io/{kind}-{part}"),
                    vec![text(&bound[part])],
                );
            }
        }
    }
    Ok(Verified { user, audiences })
}

/// Whose token in a Secret this is, its signature being good: as long as it is the Secret's token and the account is the same.
pub fn check_secret_claims(
    token: &str,
    claims: &Value,
    objects: &impl Objects,
    same: impl Fn(&[u8], &[u8]) -> bool,
    now: Timestamp,
) -> Result<UserInfo, String> {
    let text = |claim: &str| {
        let claim = &claims[format!("kubernetes.io/serviceaccount/{claim}")];
        claim.as_str().unwrap_or_default().to_owned()
    };
    let (namespace, secret) = (text("namespace"), text("secret.name"));
    let (name, uid) = (text("service-account.name"), text("service-account.uid"));
    if namespace.is_empty() || name.is_empty() || claims["sub"] != service_account_user(&namespace, &name) {
        return Err("the token names no ServiceAccount".into());
    }
    let stored = objects
        .object("/secrets", &namespace, &secret)
        .filter(|s| !object::is_deleting(s))
        .ok_or_else(|| format!("the token's secret {secret:?} is not there"))?;
    let own = STANDARD.decode(stored["data"]["token"].as_str().unwrap_or_default());
    if !own.is_ok_and(|own| same(&own, token.as_bytes())) {
        return Err(format!("the token is not that of its secret {secret:?}"));
    }
    let account = json!({"name": name, "uid": uid});
    same_object(objects, "/serviceaccounts", &namespace, &account, now)?;
    Ok(service_account_info(&namespace, &name, &uid))
}

/// The object named by `{name, uid}` is there, with that uid, and its deletion time, if any, has not passed.
fn same_object(
    objects: &impl Objects,
    resource: &str,
    namespace: &str,
    reference: &Value,
    now: Timestamp,
) -> Result<(), String> {
    let name = reference["name"].as_str().unwrap_or_default();
    let what = resource.trim_start_matches('/');
    let found = objects
        .object(resource, namespace, name)
        .ok_or_else(|| format!("[invalid bearer token, {what} {name:?} not found]"))?;
    if object::uid(&found).is_empty() || reference["uid"] != object::uid(&found) {
        return Err(format!("the token's {what} {name:?} was replaced"));
    }
    let deletion = object::meta(&found, "deletionTimestamp").parse::<Timestamp>();
    if deletion.is_ok_and(|at| at <= now) {
        return Err(format!("the token's {what} {name:?} is being deleted"));
    }
    Ok(())
}

/// The user that a ServiceAccount is, without what a particular token adds.
pub fn service_account_info(namespace: &str, name: &str, uid: &str) -> UserInfo {
    let mut user = UserInfo::new(
        service_account_user(namespace, name),
        [
            SERVICE_ACCOUNTS_GROUP.to_owned(),
            format!("{SERVICE_ACCOUNTS_GROUP}:{namespace}"),
            ALL_AUTHENTICATED.into(),
        ],
    );
    uid.clone_into(&mut user.uid);
    user
}

/// The namespace and name in a ServiceAccount's user name.
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The parts of a bootstrap token `<id>.<secret>`, 6 and 16 of `[a-z0-9]`; `None` for any other string.
pub fn split_bootstrap(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let fits =
        |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (fits(id, 6) && fits(secret, 16)).then_some((id, secret))
}

/// Who a bootstrap token is: user `system:bootstrap:<id>` in `system:bootstrappers` and the groups its Secret adds.
///
/// The Secret `bootstrap-token-<id>` in kube-system must be of the right type, not going away, not expired, hold the same id
/// and secret, and be usable for authentication.
pub fn check_bootstrap(
    id: &str,
    secret: &str,
    objects: &impl Objects,
    same: impl Fn(&[u8], &[u8]) -> bool,
    now: Timestamp,
) -> Result<UserInfo, String> {
    let stored = objects
        .object(
            "/secrets",
            BOOTSTRAP_NAMESPACE,
            &format!("{BOOTSTRAP_PREFIX}{id}"),
        )
        .ok_or("there is no such bootstrap token")?;
    if object::is_deleting(&stored) || stored["type"] != BOOTSTRAP_TYPE {
        return Err("the bootstrap token's secret is not usable".into());
    }
    let data = |key: &str| {
        let bytes = STANDARD
            .decode(stored["data"][key].as_str().unwrap_or_default())
            .unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let own = data("token-secret");
    if own.is_empty() || !same(own.as_bytes(), secret.as_bytes()) || data("token-id") != id {
        return Err("the bootstrap token is wrong".into());
    }
    let expiration = data("expiration");
    // A date that cannot be read must not make a token eternal.
    if !expiration.is_empty() && !expiration.parse::<Timestamp>().is_ok_and(|at| at > now) {
        return Err("the bootstrap token has expired".into());
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("the bootstrap token is not for authentication".into());
    }
    let mut user = UserInfo::new(format!("system:bootstrap:{id}"), [BOOTSTRAPPERS_GROUP]);
    let groups = data("auth-extra-groups");
    for group in groups.split(',').filter(|g| !g.is_empty()) {
        if !is_bootstrap_group(group) {
            return Err(format!(
                "the bootstrap token has a group {group:?} that it may not have"
            ));
        }
        user = user.with_group(group);
    }
    Ok(user.with_group(ALL_AUTHENTICATED))
}

/// `system:bootstrappers:` and up to 256 of `[a-z0-9:-]`, the last one a letter or digit (bootstrapapi's pattern).
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else {
        return false;
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=256).contains(&rest.len())
        && rest.bytes().all(|b| plain(b) || b == b':' || b == b'-')
        && rest.bytes().last().is_some_and(plain)
}
