//! What the status of a ResourceClaim may say: what it was given, who uses it, and how its devices are.

use super::check::{Errors, Spot, unique};
use super::go::{self, Part, Shape};
use super::json::same;
use super::volume_sources::driver;
use crate::error::FieldErrorKind;
use crate::registry::names;
use serde_json::Value;
use std::collections::BTreeSet;

const DEVICE: &Shape = &[
    ("Driver", "driver", Part::Text),
    ("Pool", "pool", Part::Text),
    ("Device", "device", Part::Text),
    ("ShareID", "shareID", Part::Text),
];
const RESULT: &Shape = &[
    ("Request", "request", Part::Text),
    ("Driver", "driver", Part::Text),
    ("Pool", "pool", Part::Text),
    ("Device", "device", Part::Text),
    ("AdminAccess", "adminAccess", Part::Plain),
    ("Tolerations", "tolerations", Part::Plain),
    ("BindingConditions", "bindingConditions", Part::Plain),
    (
        "BindingFailureConditions",
        "bindingFailureConditions",
        Part::Plain,
    ),
    ("ShareID", "shareID", Part::Plain),
    ("ConsumedCapacity", "consumedCapacity", Part::Plain),
];
const ALLOCATION: &Shape = &[
    (
        "Devices",
        "devices",
        Part::Own(&[
            ("Results", "results", Part::Many(RESULT)),
            ("Config", "config", Part::Plain),
        ]),
    ),
    ("NodeSelector", "nodeSelector", Part::Plain),
    ("AllocationTimestamp", "allocationTimestamp", Part::Plain),
];

/// What is wrong with the status of `claim`, which was `old`'s.
pub(super) fn validate(claim: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let status = Spot::new(&claim["status"], "status");
    let (allocation, was) = (status.at("allocation"), &old["status"]["allocation"]);
    if allocation.is_set() && !was.is_null() && !same(allocation.value, was) {
        let shown = go::shown(allocation.value, ALLOCATION);
        allocation.invalid_shown(&mut errors, &shown, "field is immutable");
    }
    if was.is_null() {
        for result in allocation.at("devices").list("results") {
            let request = result.at("request");
            for part in request.text().splitn(2, '/') {
                for message in names::dns_label(part) {
                    request.invalid_shown(&mut errors, &format!("{part:?}"), &message);
                }
            }
        }
    }
    validate_devices(&status, &allocation, &mut errors);
    let users = status.at("reservedFor");
    if !users.is_empty() && !allocation.is_set() {
        let why = "may not be specified when `allocated` is not set";
        users.forbidden(&mut errors, why);
    }
    let mut seen = BTreeSet::new();
    for user in users.items() {
        for key in ["resource", "name", "uid"] {
            user.at(key).required(&mut errors, "");
        }
        let uid = user.at("uid");
        if !uid.is_empty() && !seen.insert(uid.text()) {
            Spot::new(uid.value, &user.path).duplicate(&mut errors);
        }
    }
    errors
}

fn validate_devices(status: &Spot<'_>, allocation: &Spot<'_>, errors: &mut Errors) {
    let given: BTreeSet<String> = allocation
        .at("devices")
        .list("results")
        .iter()
        .map(|result| go::shown(result.value, DEVICE))
        .collect();
    let mut seen = BTreeSet::new();
    for device in status.list("devices") {
        driver(&device.at("driver"), errors);
        let pool = device.at("pool");
        if pool.required(errors, "") {
            for part in pool.text().split('/') {
                for message in names::dns_subdomain(part) {
                    pool.invalid_shown(errors, &format!("{part:?}"), &message);
                }
            }
        }
        device.at("device").named(errors, names::dns_label);
        let shown = go::shown(device.value, DEVICE);
        if !given.contains(&shown) {
            device.invalid_shown(errors, &shown, "must be an allocated device in the claim");
        }
        if !seen.insert(shown.clone()) {
            let message = format!("Duplicate value: {shown}");
            device.refuse(errors, FieldErrorKind::Duplicate, message);
        }
        conditions(&device.at("conditions"), errors);
    }
}

/// A list of `metav1.Condition`s.
fn conditions(list: &Spot<'_>, errors: &mut Errors) {
    const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
    unique(&list.items(), "type", errors);
    for condition in list.items() {
        let kind = condition.at("type");
        kind.named(errors, names::qualified_name);
        condition
            .at("status")
            .among(errors, &["False", "True", "Unknown"]);
        condition.at("lastTransitionTime").required(errors, "");
        let reason = condition.at("reason");
        if reason.required(errors, "") && !is_reason(reason.text()) {
            reason.invalid(errors, REASON);
        }
    }
}

fn is_reason(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b',' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn statuses() {
        let result = json!({"request": "r", "driver": "d.io", "pool": "p", "device": "d"});
        let allocation = json!({"devices": {"results": [result]}});
        let device = json!({"driver": "d.io", "pool": "p", "device": "d"});
        let user = json!({"resource": "pods", "name": "p", "uid": "u"});
        for (status, want) in [
            (
                json!({"allocation": allocation, "reservedFor": [user], "devices": [device]}),
                "",
            ),
            (json!({"reservedFor": [user]}), "status.reservedFor"),
            (
                json!({"allocation": allocation, "reservedFor": [user, user]}),
                "status.reservedFor[1]",
            ),
            (
                json!({"allocation": allocation, "reservedFor": [{"resource": "pods", "uid": "u"}]}),
                "status.reservedFor[0].name",
            ),
            (
                json!({"allocation": allocation, "devices": [{"driver": "d.io", "pool": "p", "device": "e"}]}),
                "status.devices[0]",
            ),
            (
                json!({"allocation": {"devices": {"results": []}}}),
                "status.allocation",
            ),
        ] {
            let old = json!({"status": {"allocation": allocation}});
            let errors = validate(&json!({ "status": status }), &old);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields.join(" "), want, "{status}");
        }
    }

    #[test]
    fn conditions_are_whole() {
        let good = json!({"type": "Ready", "status": "True", "reason": "R", "lastTransitionTime": "2024-01-01T00:00:00Z"});
        for (change, want) in [
            (json!({}), ""),
            (json!({"status": "x"}), "c[0].status"),
            (json!({"reason": ""}), "c[0].reason"),
            (json!({"reason": "1a"}), "c[0].reason"),
            (json!({"lastTransitionTime": null}), "c[0].lastTransitionTime"),
        ] {
            let mut condition = good.clone();
            for (key, value) in change.as_object().into_iter().flatten() {
                condition[key] = value.clone();
            }
            let list = json!([condition]);
            let mut errors = Vec::new();
            conditions(&Spot::new(&list, "c"), &mut errors);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields.join(" "), want, "{change}");
        }
    }
}
