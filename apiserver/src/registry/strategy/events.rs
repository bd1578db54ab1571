//! Events: both groups' forms of them.

use super::check::{Errors, Spot};
use super::go::{self, OBJECT_REFERENCE};
use super::json::{same, text};
use crate::error::FieldError;
use crate::object;
use crate::registry::names;
use serde_json::{Value, json};

/// What is wrong with an Event. `modern` tells events.k8s.io from core Events.
pub(super) fn validate(event: &Value, modern: bool) -> Errors {
    // Both groups' names of the same fields.
    let of = |new: &str, old: &str| -> Value {
        event
            .get(new)
            .or_else(|| event.get(old))
            .cloned()
            .unwrap_or_default()
    };
    let about = of("involvedObject", "regarding");
    let (own, theirs) = (object::namespace(event), text(&about, "namespace"));
    let mut errors = Vec::new();
    let fits = if theirs.is_empty() {
        matches!(own, "" | "default")
    } else {
        // The newer form may be about something elsewhere.
        modern || own == theirs
    };
    let mismatch = || {
        FieldError::invalid(
            "involvedObject.namespace",
            &json!(theirs),
            "does not match event.namespace",
        )
    };
    if !fits {
        errors.push(mismatch());
    }
    let timed = event["eventTime"].is_string();
    if timed {
        let controller = of("reportingController", "reportingComponent");
        let name = controller.as_str().unwrap_or_default();
        let field = if modern {
            "reportingController"
        } else {
            "reportingComponent"
        };
        if name.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else {
            for message in names::qualified_name(name) {
                errors.push(FieldError::invalid(field, &controller, &message));
            }
        }
        for key in ["reportingInstance", "action", "reason"] {
            let value = text(event, key);
            if value.is_empty() {
                errors.push(FieldError::required(key, ""));
            } else if value.len() > 128 {
                errors.push(FieldError::invalid(
                    key,
                    &event[key],
                    "can have at most 128 characters",
                ));
            }
        }
        let note = of("message", "note");
        if note.as_str().is_some_and(|n| n.len() > 1024) {
            errors.push(FieldError::invalid(
                "message",
                &note,
                "can have at most 1024 characters",
            ));
        }
    }
    if modern {
        if !timed {
            errors.push(FieldError::required("eventTime", ""));
        }
        let series = Spot::new(&event["series"], "series");
        if series.is_set() {
            if series.at("count").number() < 2 {
                let count = series.at("count");
                count.invalid_shown(&mut errors, "\"\"", "should be at least 2");
            }
            series.at("lastObservedTime").required(&mut errors, "");
        }
        let kind = text(event, "type");
        if !matches!(kind, "Normal" | "Warning") {
            errors.push(FieldError::invalid(
                "type",
                &json!(kind),
                &format!("has invalid value: {kind}"),
            ));
        }
        for (new, old) in [
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
        ] {
            if of(new, old).is_string() {
                errors.push(FieldError::invalid(old, &of(new, old), "needs to be unset"));
            }
        }
    }
    errors
}

/// What of an Event of events.k8s.io may not change: all of it but its series.
pub(super) fn validate_update(new: &Value, old: &Value) -> Errors {
    const FIXED: &str = "field is immutable";
    let mut errors = Vec::new();
    for (key, name) in [
        ("regarding", "involvedObject"),
        ("reason", "reason"),
        ("note", "message"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        if same(&new[key], &old[key]) {
            continue;
        }
        let spot = Spot::new(&new[key], name);
        let shown = match key {
            "regarding" => go::shown(spot.value, OBJECT_REFERENCE),
            "related" if spot.is_set() => go::shown(spot.value, OBJECT_REFERENCE),
            "related" => "null".to_owned(),
            _ => format!("{:?}", spot.text()),
        };
        spot.invalid_shown(&mut errors, &shown, FIXED);
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modern_events_stay() {
        let old = json!({"reason": "R", "note": "n", "regarding": {"kind": "Pod", "name": "p"}});
        for (change, want) in [
            (json!({"series": {"count": 2}}), ""),
            (
                json!({"reason": "S"}),
                "reason: Invalid value: \"S\": field is immutable",
            ),
            (
                json!({"note": ""}),
                "message: Invalid value: \"\": field is immutable",
            ),
            (
                json!({"regarding": {"kind": "Pod"}}),
                "involvedObject: Invalid value: {\"Kind\":\"Pod\",\"Namespace\":\"\",\"Name\":\"\",\"UID\":\"\",\"APIVersion\":\"\",\"ResourceVersion\":\"\",\"FieldPath\":\"\"}: field is immutable",
            ),
        ] {
            let mut new = old.clone();
            for (key, value) in change.as_object().into_iter().flatten() {
                new[key] = value.clone();
            }
            let told: Vec<String> = validate_update(&new, &old)
                .iter()
                .map(|e| format!("{}: {}", e.field, e.message))
                .collect();
            assert_eq!(told.join("; "), want, "{change}");
        }
    }
}
