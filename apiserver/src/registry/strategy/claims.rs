//! Claims of storage: a claim's own, those pods make for themselves and those a StatefulSet makes for its pods.

use super::check::{Errors, Spot};
use super::quantity;
use super::selector;
use crate::registry::names;

const MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

/// What is wrong with the spec of a claim.
pub(super) fn validate(spec: &Spot<'_>, errors: &mut Errors) {
    let modes = spec.at("accessModes");
    modes.required(errors, "at least 1 access mode is required");
    if let Some(selector) = spec.given("selector") {
        errors.extend(selector::validate(selector.value, &selector.path));
    }
    access_modes(spec, errors);
    let requests = spec.at("resources").at("requests");
    let mut size = Spot::new(
        &requests.value["storage"],
        format!("{}.resources[storage]", spec.path),
    );
    if size.required(errors, "") {
        size.value = &requests.value["storage"];
        positive(&size, errors);
    }
    spec.at("storageClassName")
        .named_if_given(errors, names::dns_subdomain);
    spec.at("volumeMode")
        .among_if_set(errors, &["Block", "Filesystem"]);
    for source in ["dataSource", "dataSourceRef"] {
        if let Some(source) = spec.given(source) {
            data_source(&source, errors);
        }
    }
    spec.at("volumeAttributesClassName")
        .named_if_given(errors, names::dns_subdomain);
}

/// Modes that there are, and none beside the one that stands alone.
pub(super) fn access_modes(spec: &Spot<'_>, errors: &mut Errors) {
    let list = spec.at("accessModes");
    for mode in list.items() {
        Spot::new(mode.value, &list.path).among(errors, &MODES);
    }
    let modes = list.items();
    let known = modes.iter().map(Spot::text).filter(|mode| MODES.contains(mode));
    let (once, others): (Vec<&str>, Vec<&str>) = known.partition(|mode| *mode == "ReadWriteOncePod");
    if !once.is_empty() && !others.is_empty() {
        list.forbidden(errors, "may not use ReadWriteOncePod with other access modes");
    }
}

/// More than nothing.
pub(super) fn positive(amount: &Spot<'_>, errors: &mut Errors) {
    let nanos = amount.value.as_str().and_then(quantity::nanos);
    if nanos.is_some_and(|n| n <= 0) {
        amount.invalid(errors, "must be greater than zero");
    }
}

fn data_source(source: &Spot<'_>, errors: &mut Errors) {
    source.at("name").required(errors, "");
    let kind = source.at("kind");
    kind.required(errors, "");
    if source.at("apiGroup").is_empty() && kind.text() != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        source.invalid_shown(errors, &format!("{:?}", kind.text()), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn claims() {
        let good = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        for (change, want) in [
            (json!({}), vec![]),
            (json!({"accessModes": []}), vec!["s.accessModes"]),
            (json!({"accessModes": ["Frob"]}), vec!["s.accessModes"]),
            (
                json!({"accessModes": ["ReadWriteOnce", "ReadWriteOncePod"]}),
                vec!["s.accessModes"],
            ),
            (json!({"resources": {}}), vec!["s.resources[storage]"]),
            (
                json!({"resources": {"requests": {"storage": "0"}}}),
                vec!["s.resources[storage]"],
            ),
            (json!({"volumeMode": ""}), vec!["s.volumeMode"]),
            (json!({"storageClassName": ""}), vec![]),
            (
                json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "c"}}),
                vec![],
            ),
            (
                json!({"dataSourceRef": {"kind": "Foo", "name": "c"}}),
                vec!["s.dataSourceRef"],
            ),
            (
                json!({"volumeAttributesClassName": "A_"}),
                vec!["s.volumeAttributesClassName"],
            ),
        ] {
            let mut spec = good.clone();
            for (key, value) in change.as_object().into_iter().flatten() {
                spec[key] = Value::clone(value);
            }
            let mut errors = Vec::new();
            validate(&Spot::new(&spec, "s"), &mut errors);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields, want, "{change}");
        }
    }
}
