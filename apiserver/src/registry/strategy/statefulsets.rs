//! What of a StatefulSet other workloads do not have: claims, ordinals, the order of its pods.

use super::check::{Errors, Spot};
use super::go::{self, Part, Shape};
use super::json::{items, text};
use super::pod_rules::{not_negative, validate_template_at};
use super::{claims, selector};
use crate::registry::names;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const STRATEGY: &Shape = &[
    ("Type", "type", Part::Text),
    ("RollingUpdate", "rollingUpdate", Part::One(ROLLING)),
];
const ROLLING: &Shape = &[
    ("Partition", "partition", Part::Plain),
    ("MaxUnavailable", "maxUnavailable", Part::Plain),
];

/// What is wrong with a StatefulSet.
pub(super) fn validate(spec: &Value) -> Errors {
    let spec = Spot::new(spec, "spec");
    let mut errors = Vec::new();
    let policy = spec.at("podManagementPolicy");
    if !matches!(policy.text(), "" | "OrderedReady" | "Parallel") {
        policy.invalid(&mut errors, "must be 'OrderedReady' or 'Parallel'");
    }
    validate_strategy(&spec.at("updateStrategy"), &mut errors);
    let retention = spec.at("persistentVolumeClaimRetentionPolicy");
    for when in ["whenDeleted", "whenScaled"] {
        retention
            .at(when)
            .among_if_set(&mut errors, &["Retain", "Delete"]);
    }
    for claim in spec.list("volumeClaimTemplates") {
        claims::validate(&claim.at("spec"), &mut errors);
    }
    for key in ["replicas", "minReadySeconds"] {
        spec.at(key).not_negative(&mut errors);
    }
    spec.at("ordinals").at("start").not_negative(&mut errors);
    spec.at("serviceName")
        .named_if_given(&mut errors, names::dns_label);
    selector::validate_template("statefulset", spec.value, &mut errors);
    let template = with_claims(spec.value);
    errors.extend(validate_template_at(&template, "spec.template"));
    let restart = spec.at("template").at("spec").at("restartPolicy");
    restart.among_if_set(&mut errors, &["Always"]);
    errors
}

/// The template as its pods have it: with a volume for each claim.
fn with_claims(spec: &Value) -> Value {
    let claimed: Vec<&str> = items(spec, "volumeClaimTemplates")
        .map(|claim| text(&claim["metadata"], "name"))
        .collect();
    let mut template = spec["template"].clone();
    if claimed.is_empty() || !template["spec"].is_object() {
        return template;
    }
    let names: BTreeSet<&str> = claimed.iter().copied().collect();
    let claims = names
        .iter()
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    let others = items(&template["spec"], "volumes")
        .filter(|volume| !claimed.contains(&text(volume, "name")))
        .cloned();
    let volumes: Vec<Value> = claims.chain(others).collect();
    template["spec"]["volumes"] = volumes.into();
    template
}

fn validate_strategy(strategy: &Spot<'_>, errors: &mut Errors) {
    let update = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "RollingUpdate" | "" => {
            let partition = update.at("partition");
            not_negative(errors, &partition.path, partition.value);
        }
        "OnDelete" if update.is_set() => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            update.invalid_shown(errors, &go::shown(update.value, ROLLING), why);
        }
        "OnDelete" => {}
        _ => {
            let shown = go::shown(strategy.value, STRATEGY);
            strategy.invalid_shown(errors, &shown, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_volumes_of_the_template() {
        let set = |mounted: &str| {
            json!({"serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
                "volumeClaimTemplates": [{"metadata": {"name": "d"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
                    "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always",
                        "volumeMounts": [{"name": mounted, "mountPath": "/d"}]}]}}})
        };
        assert_eq!(validate(&set("d")), []);
        let fields: Vec<String> = validate(&set("z")).into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["spec.template.spec.containers[0].volumeMounts[0].name"]);
        for (key, value, field) in [
            ("serviceName", json!("S_"), "spec.serviceName"),
            ("ordinals", json!({"start": -1}), "spec.ordinals.start"),
            (
                "persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "x"}),
                "spec.persistentVolumeClaimRetentionPolicy.whenDeleted",
            ),
            ("podManagementPolicy", json!("x"), "spec.podManagementPolicy"),
            ("updateStrategy", json!({"type": "x"}), "spec.updateStrategy"),
        ] {
            let mut set = set("d");
            set[key] = value;
            let fields: Vec<String> = validate(&set).into_iter().map(|e| e.field).collect();
            assert_eq!(fields, [field], "{key}");
        }
    }
}
