//! ConfigMaps, Secrets and ServiceAccounts.

use super::json::{copy, default, items, remove, same, text};
use crate::error::{FieldError, FieldErrorKind};
use crate::registry::names;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Keys and values of a ConfigMap or Secret together, in bytes (1 MiB).
const SIZE_MAX: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";
const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// Moves a Secret's `stringData` into `data`, over keys of the same name, and names its type.
pub(super) fn default_secret(secret: &mut Value) {
    if let Some(Value::Object(plain)) = secret.as_object_mut().and_then(|s| s.remove("stringData")) {
        default(secret, "data", json!({}));
        if let Value::Object(data) = &mut secret["data"] {
            for (key, value) in plain {
                data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
            }
        }
    }
    default(secret, "type", "Opaque");
    if text(secret, "type").is_empty() {
        secret["type"] = "Opaque".into();
    }
}

/// A change that leaves the type out keeps it.
pub(super) fn prepare_secret_update(new: &mut Value, old: &Value) {
    if text(new, "type").is_empty() {
        copy(old, new, "type");
    }
}

/// Empty maps are as good as none in what is stored.
pub(super) fn drop_empty(object: &mut Value) {
    for key in ["data", "binaryData"] {
        if object[key].as_object().is_some_and(serde_json::Map::is_empty) || object[key].is_null() {
            remove(object, key);
        }
    }
}

fn check_keys(object: &Value, key: &str, errors: &mut Vec<FieldError>) {
    for name in object[key].as_object().into_iter().flatten().map(|(k, _)| k) {
        for message in names::config_key(name) {
            errors.push(FieldError::invalid(
                format!("{key}[{name}]"),
                &json!(name),
                &message,
            ));
        }
    }
}

fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn check_size(size: usize, field: &str, errors: &mut Vec<FieldError>) {
    if size > SIZE_MAX {
        let message = format!("Too long: may not be more than {SIZE_MAX} bytes");
        errors.push(FieldError::new(FieldErrorKind::TooLong, field, message));
    }
}

/// What is wrong with a ConfigMap.
pub(super) fn validate_config_map(map: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in map["data"].as_object().into_iter().flatten() {
        for message in names::config_key(key) {
            errors.push(FieldError::invalid(format!("data[{key}]"), &json!(key), &message));
        }
        if !map["binaryData"][key].is_null() {
            let message = "duplicate of key present in binaryData";
            errors.push(FieldError::invalid(format!("data[{key}]"), &json!(key), message));
        }
        size += value.as_str().map_or(0, str::len);
    }
    check_keys(map, "binaryData", &mut errors);
    size += map["binaryData"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, v)| decoded_len(v))
        .sum::<usize>();
    // All of it: no field has a name there.
    check_size(size, "[]", &mut errors);
    errors
}

/// What is wrong with a Secret, by its type.
pub(super) fn validate_secret(secret: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_keys(secret, "data", &mut errors);
    let data = &secret["data"];
    let size = data
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, v)| decoded_len(v))
        .sum();
    check_size(size, "data", &mut errors);
    let required = |key: &str| FieldError::required(format!("data[{key}]"), "");
    match text(secret, "type") {
        TOKEN_TYPE
            if secret["metadata"]["annotations"][ACCOUNT_NAME]
                .as_str()
                .unwrap_or_default()
                .is_empty() =>
        {
            errors.push(FieldError::required(
                format!("metadata.annotations[{ACCOUNT_NAME}]"),
                "",
            ));
        }
        "kubernetes.io/tls" => {
            errors.extend(
                ["tls.crt", "tls.key"]
                    .iter()
                    .filter(|k| data[**k].is_null())
                    .map(|k| required(k)),
            );
        }
        "kubernetes.io/dockerconfigjson" => json_key(data, ".dockerconfigjson", &mut errors),
        "kubernetes.io/dockercfg" => json_key(data, ".dockercfg", &mut errors),
        "kubernetes.io/basic-auth" if data["username"].is_null() && data["password"].is_null() => {
            errors.push(required("username"));
            errors.push(required("password"));
        }
        "kubernetes.io/ssh-auth" if decoded_len(&data["ssh-privatekey"]) == 0 => {
            errors.push(required("ssh-privatekey"));
        }
        _ => {}
    }
    errors
}

fn json_key(data: &Value, key: &str, errors: &mut Vec<FieldError>) {
    let field = format!("data[{key}]");
    match data[key].as_str() {
        None => errors.push(FieldError::required(field, "")),
        Some(encoded) => {
            let decoded = STANDARD.decode(encoded).unwrap_or_default();
            if serde_json::from_slice::<Value>(&decoded).is_err() {
                // The value is secret and stays out of the message, but for the character that is wrong.
                let why = crate::rest::go_json::complaint(&decoded);
                errors.push(FieldError::invalid(
                    field,
                    &json!("<secret contents redacted>"),
                    why.as_deref().unwrap_or("invalid JSON"),
                ));
            }
        }
    }
}

/// What of a ConfigMap or Secret may not change.
pub(super) fn validate_update(secret: bool, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if secret && !same(&new["type"], &old["type"]) {
        errors.push(FieldError::invalid("type", &new["type"], "field is immutable"));
    }
    if old["immutable"] == json!(true) {
        if new["immutable"] != json!(true) {
            errors.push(FieldError::forbidden("immutable", FROZEN));
        }
        for key in ["data", "binaryData"] {
            if !same(&new[key], &old[key]) {
                errors.push(FieldError::forbidden(key, FROZEN));
            }
        }
    }
    errors
}

/// What is wrong with a ServiceAccount: nothing its schema does not say.
pub(super) fn validate_service_account(account: &Value) -> Vec<FieldError> {
    items(account, "secrets")
        .enumerate()
        .filter(|(_, s)| s.is_null())
        .map(|(i, _)| FieldError::required(format!("secrets[{i}]"), ""))
        .collect()
}
