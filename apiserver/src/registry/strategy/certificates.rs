//! CertificateSigningRequests (`pkg/apis/certificates`): who asks is the server's word, what was asked never changes,
//! and approval, denial and certificates go through their own endpoints.

use super::Context;
use super::json::{copy, items, same, text};
use crate::error::FieldError;
use crate::object;
use crate::registry::names;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The signer of requests that named none.
const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// Shortest lifetime that can be asked for, in seconds.
const SHORTEST: i64 = 600;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Writes who asks over whatever the client wrote there.
pub(super) fn prepare_create(ctx: &Context<'_>, csr: &mut Value) {
    let spec = object::child_mut(csr, "spec");
    for key in ["username", "uid", "groups", "extra"] {
        spec.remove(key);
    }
    spec.insert("username".to_owned(), ctx.user.name.as_str().into());
    if !ctx.user.uid.is_empty() {
        spec.insert("uid".to_owned(), ctx.user.uid.as_str().into());
    }
    if !ctx.user.groups.is_empty() {
        spec.insert("groups".to_owned(), json!(ctx.user.groups));
    }
    if !ctx.user.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(ctx.user.extra));
    }
    csr["status"] = json!({});
}

fn is_decision(condition: &Value) -> bool {
    matches!(text(condition, "type"), "Approved" | "Denied")
}

/// Keeps what the endpoint may not write and fills in the times of conditions.
pub(super) fn prepare_update(subresource: &str, ctx: &Context<'_>, new: &mut Value, old: &Value) {
    copy(old, new, "spec");
    let mut conditions: Vec<Value> = items(&new["status"], "conditions").cloned().collect();
    match subresource {
        "" => return copy(old, new, "status"),
        // Approval writes conditions and nothing else.
        "approval" => copy(old, new, "status"),
        _ => {
            // Decisions a status write leaves out stay.
            for kept in items(&old["status"], "conditions").filter(|c| is_decision(c)) {
                if !conditions.iter().any(|c| c["type"] == kept["type"]) {
                    conditions.push(kept.clone());
                }
            }
        }
    }
    let now = json!(ctx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    for condition in &mut conditions {
        let before = items(&old["status"], "conditions").find(|c| c["type"] == condition["type"]);
        let same_status = before.is_some_and(|b| b["status"] == condition["status"]);
        for (key, keep) in [
            ("lastTransitionTime", same_status),
            ("lastUpdateTime", before.is_some()),
        ] {
            if condition.is_object() && condition[key].is_null() {
                let kept = before
                    .filter(|_| keep)
                    .map(|b| b[key].clone())
                    .filter(|t| !t.is_null());
                condition[key] = kept.unwrap_or_else(|| now.clone());
            }
        }
    }
    let status = object::child_mut(new, "status");
    if conditions.is_empty() {
        status.remove("conditions");
    } else {
        status.insert("conditions".to_owned(), Value::Array(conditions));
    }
}

fn validate_request(spec: &Value, errors: &mut Vec<FieldError>) {
    let encoded = text(spec, "request");
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    let problem = match pem::parse(&bytes) {
        Ok(block) if block.tag() == "CERTIFICATE REQUEST" => {
            use x509_parser::prelude::FromDer as _;
            x509_parser::certification_request::X509CertificationRequest::from_der(block.contents())
                .err()
                .map(|_| "asn1: structure error: malformed certificate request".to_owned())
        }
        _ => Some("PEM block type must be CERTIFICATE REQUEST".to_owned()),
    };
    if let Some(problem) = problem {
        errors.push(FieldError::invalid("spec.request", &json!(encoded), &problem));
    }
}

fn validate_signer(spec: &Value, errors: &mut Vec<FieldError>) {
    let name = text(spec, "signerName");
    if name.is_empty() {
        errors.push(FieldError::required("spec.signerName", ""));
        return;
    }
    let value = &spec["signerName"];
    if name == LEGACY {
        let message = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid("spec.signerName", value, message));
    }
    match name.split_once('/') {
        Some((domain, path)) if !path.contains('/') && !domain.is_empty() && !path.is_empty() => {
            let mut messages = names::dns_subdomain(domain);
            if !domain.contains('.') {
                messages.push("should be a domain with at least two segments separated by dots".to_owned());
            }
            messages.extend(names::dns_subdomain(path));
            errors.extend(
                messages
                    .iter()
                    .map(|m| FieldError::invalid("spec.signerName", value, m)),
            );
        }
        _ => {
            let message = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(FieldError::invalid("spec.signerName", value, message));
        }
    }
}

/// What is wrong with a CertificateSigningRequest, `subresource` being where it was written.
pub(super) fn validate(csr: &Value, old: Option<&Value>, subresource: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &csr["spec"];
    if old.is_none() {
        validate_request(spec, &mut errors);
        if items(spec, "usages").next().is_none() {
            errors.push(FieldError::required("spec.usages", ""));
        }
        let mut seen = BTreeSet::new();
        for (i, usage) in items(spec, "usages").enumerate() {
            let name = usage.as_str().unwrap_or_default();
            if !USAGES.contains(&name) {
                errors.push(FieldError::not_supported(
                    format!("spec.usages[{i}]"),
                    usage,
                    &USAGES,
                ));
            }
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("spec.usages[{i}]"), usage));
            }
        }
        validate_signer(spec, &mut errors);
        if let Some(seconds) = spec["expirationSeconds"].as_i64()
            && seconds < SHORTEST
        {
            let message = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid(
                "spec.expirationSeconds",
                &json!(seconds),
                message,
            ));
        }
    }
    validate_conditions(csr, &mut errors);
    if let Some(old) = old {
        validate_change(csr, old, subresource, &mut errors);
    }
    errors
}

fn validate_conditions(csr: &Value, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    let mut decision: Option<&str> = None;
    for (i, condition) in items(&csr["status"], "conditions").enumerate() {
        let at = format!("status.conditions[{i}]");
        let kind = text(condition, "type");
        if kind.is_empty() {
            errors.push(FieldError::required(format!("{at}.type"), ""));
        }
        let allowed: &[&str] = if is_decision(condition) || kind == "Failed" {
            &["True"]
        } else {
            &["False", "True", "Unknown"]
        };
        let status = text(condition, "status");
        if status.is_empty() {
            errors.push(FieldError::required(format!("{at}.status"), ""));
        } else if !allowed.contains(&status) {
            errors.push(FieldError::not_supported(
                format!("{at}.status"),
                &condition["status"],
                allowed,
            ));
        }
        if is_decision(condition) {
            if decision.is_some_and(|d| d != kind) {
                let message = "Approved and Denied conditions are mutually exclusive";
                errors.push(FieldError::invalid("status.conditions", &json!(kind), message));
            }
            decision = Some(kind);
        }
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(format!("{at}.type"), &condition["type"]));
        }
    }
    let certificate = text(&csr["status"], "certificate");
    if !certificate.is_empty() {
        let bytes = STANDARD.decode(certificate).unwrap_or_default();
        let blocks = pem::parse_many(&bytes).unwrap_or_default();
        let problem = if blocks.is_empty() {
            Some("must contain at least one CERTIFICATE PEM block")
        } else if blocks.iter().any(|b| b.tag() != "CERTIFICATE") {
            Some("only CERTIFICATE PEM blocks are allowed, found another")
        } else {
            None
        };
        if let Some(problem) = problem {
            let field = "status.certificate";
            errors.push(FieldError::invalid(field, &json!("<certificate data>"), problem));
        }
    }
}

fn validate_change(new: &Value, old: &Value, subresource: &str, errors: &mut Vec<FieldError>) {
    let decisions = |csr: &Value| -> Vec<Value> {
        items(&csr["status"], "conditions")
            .filter(|c| is_decision(c))
            .cloned()
            .collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        let has = |csr: &Value| items(&csr["status"], "conditions").any(|c| text(c, "type") == kind);
        if has(old) && !has(new) {
            let message = format!("updates may not remove a condition of type {kind:?}");
            errors.push(FieldError::forbidden("status.conditions", &message));
        }
    }
    if subresource != "approval" && !same(&json!(decisions(new)), &json!(decisions(old))) {
        let message = "updates may not add a condition of type \"Approved\" or \"Denied\"";
        errors.push(FieldError::forbidden("status.conditions", message));
    }
    let (certificate, was) = (&new["status"]["certificate"], &old["status"]["certificate"]);
    if was.is_string() && !same(certificate, was) {
        let message = "updates may not modify existing certificate content";
        errors.push(FieldError::forbidden("status.certificate", message));
    }
}
