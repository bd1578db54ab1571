//! The demo's application, as a work, and what is seen of it.

use crate::{Error, manifests};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ObjectMeta;
use muster_crds::conditions::{find, is_true};
use muster_crds::constants::conditions as types;
use muster_crds::work::v1::{
    FeedBackType, FeedbackRule, JsonPath, ManifestConfigOption, ManifestWork, ManifestWorkSpec,
    ManifestsTemplate, ResourceIdentifier,
};
use serde_json::Value;

/// Name of the work and of the namespace it makes.
pub const NAME: &str = "shop";
/// The Deployment that is looked at.
pub const WEB: &str = "web";
const MANIFESTS: &str = include_str!("shop.yaml");
const IMAGE_PATH: &str = ".spec.template.spec.containers[0].image";

/// One state of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Image of the web tier.
    pub image: &'static str,
    /// Its replicas.
    pub replicas: i32,
    /// A value of its configuration.
    pub banner: &'static str,
}

/// What the demo begins with.
pub const FIRST: Version = Version {
    image: "nginx:1.28",
    replicas: 2,
    banner: "Welcome",
};
/// What it changes to.
pub const SECOND: Version = Version {
    image: "nginx:1.29",
    replicas: 3,
    banner: "Winter sale",
};

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            image,
            replicas,
            banner,
        } = self;
        write!(f, "web {image}, {replicas} replicas, banner {banner:?}")
    }
}

/// The work that brings this version to a cluster.
pub fn work(cluster: &str, version: Version) -> Result<ManifestWork, Error> {
    let prepared = manifests::prepare(manifests::parse("the demo's application", MANIFESTS)?, None)?;
    let mut objects: Vec<_> = prepared.into_iter().map(|m| m.object).collect();
    for object in &mut objects {
        match (object["kind"].as_str(), object["metadata"]["name"].as_str()) {
            (Some("Deployment"), Some(WEB)) => {
                object["spec"]["replicas"] = version.replicas.into();
                object["spec"]["template"]["spec"]["containers"][0]["image"] = version.image.into();
            }
            (Some("ConfigMap"), _) => object["data"]["banner"] = version.banner.into(),
            _ => {}
        }
    }
    let path = |name: &str, path: &str| JsonPath {
        name: name.into(),
        path: path.into(),
        version: String::new(),
    };
    let rule = |type_, json_paths| FeedbackRule { type_, json_paths };
    let config = |group: &str, resource: &str, name: &str, feedback_rules| ManifestConfigOption {
        resource_identifier: ResourceIdentifier {
            group: group.into(),
            resource: resource.into(),
            name: name.into(),
            namespace: NAME.into(),
        },
        feedback_rules,
        ..ManifestConfigOption::default()
    };
    let manifest_configs = vec![
        config(
            "apps",
            "deployments",
            WEB,
            vec![
                rule(FeedBackType::WellKnownStatus, Vec::new()),
                rule(FeedBackType::JsonPaths, vec![path("image", IMAGE_PATH)]),
            ],
        ),
        config(
            "",
            "configmaps",
            "settings",
            vec![rule(
                FeedBackType::JsonPaths,
                vec![path("banner", ".data.banner")],
            )],
        ),
    ];
    Ok(ManifestWork {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(cluster.into()),
            ..ObjectMeta::default()
        },
        spec: ManifestWorkSpec {
            workload: ManifestsTemplate {
                manifests: objects.into_iter().map(Into::into).collect(),
            },
            manifest_configs,
            ..ManifestWorkSpec::default()
        },
        status: None,
    })
}

/// Whether the hub was told that a cluster has this version, all of it and running; else what is missing.
pub fn reported(work: Option<&ManifestWork>, version: Version) -> Result<(), String> {
    let work = work.ok_or("its work is not there")?;
    let status = work.status.clone().unwrap_or_default();
    let seen = find(&status.conditions, types::APPLIED).and_then(|c| c.observed_generation);
    if seen.is_none() || seen < work.metadata.generation {
        return Err("it has not reported on the last change of its work".into());
    }
    for type_ in [types::APPLIED, types::AVAILABLE] {
        if !is_true(&status.conditions, type_) {
            let problem = crate::work::first_problem(work).unwrap_or_else(|| "no reason is given".into());
            return Err(format!("its work is not {type_}: {problem}"));
        }
    }
    let values = status
        .resource_status
        .manifests
        .iter()
        .flat_map(|m| &m.status_feedbacks.values);
    let values: Vec<(&str, String)> = values
        .map(|v| (v.name.as_str(), crate::work::value(&v.value)))
        .collect();
    let replicas = version.replicas.to_string();
    for (name, want) in [
        ("image", version.image),
        ("banner", version.banner),
        ("ReadyReplicas", &replicas),
        ("Replicas", &replicas),
    ] {
        match values.iter().find(|(found, _)| *found == name) {
            Some((_, value)) if value == want => {}
            Some((_, value)) => return Err(format!("it reports {name} {value}, not {want}")),
            None => return Err(format!("it does not report {name}")),
        }
    }
    Ok(())
}

/// What a cluster really runs, in a few words.
pub fn running(web: &Deployment) -> String {
    let spec = serde_json::to_value(&web.spec).unwrap_or_default();
    let image = spec
        .pointer("/template/spec/containers/0/image")
        .and_then(Value::as_str)
        .unwrap_or("no image");
    let ready = web
        .status
        .as_ref()
        .and_then(|s| s.ready_replicas)
        .unwrap_or_default();
    format!("web {image}, {ready} of {} ready", spec["replicas"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_are_in_the_manifests() {
        let first = work("c", FIRST).unwrap();
        let second = work("c", SECOND).unwrap();
        let plain = manifests::prepare(manifests::parse("f", MANIFESTS).unwrap(), None).unwrap();
        // The file is the first version, so that who reads it sees what runs.
        assert_eq!(
            first
                .spec
                .workload
                .manifests
                .iter()
                .map(|m| &m.0)
                .collect::<Vec<_>>(),
            plain.iter().map(|m| &m.object).collect::<Vec<_>>()
        );
        let changed = first
            .spec
            .workload
            .manifests
            .iter()
            .zip(&second.spec.workload.manifests)
            .filter(|(a, b)| a != b);
        assert_eq!(changed.count(), 2);
    }

    #[test]
    fn reported_needs_all_of_it() {
        let mut work = work("c", FIRST).unwrap();
        assert!(reported(None, FIRST).is_err());
        work.metadata.generation = Some(2);
        let condition = |type_: &str, generation: i64| json!({"type": type_, "status": "True", "reason": "r", "message": "", "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let mut status = |generation, values: Value| {
            work.status = serde_json::from_value(json!({"conditions": [condition("Applied", generation), condition("Available", generation)],
                "resourceStatus": {"manifests": [{"resourceMeta": {"ordinal": 0}, "conditions": [], "statusFeedback": {"values": values}}]}})).unwrap();
            reported(Some(&work), FIRST)
        };
        let integer = |name: &str, value: i64| json!({"name": name, "fieldValue": {"type": "Integer", "integer": value}});
        let string = |name: &str, value: &str| json!({"name": name, "fieldValue": {"type": "String", "string": value}});
        let all = json!([
            integer("ReadyReplicas", 2),
            integer("Replicas", 2),
            string("image", FIRST.image),
            string("banner", FIRST.banner)
        ]);
        assert_eq!(status(2, all.clone()), Ok(()));
        assert!(status(1, all.clone()).unwrap_err().contains("last change"));
        assert!(
            status(
                2,
                json!([string("image", FIRST.image), string("banner", FIRST.banner)])
            )
            .unwrap_err()
            .contains("ReadyReplicas")
        );
        let mut old = all;
        old[2] = string("image", "old");
        assert_eq!(
            status(2, old).unwrap_err(),
            "it reports image old, not nginx:1.28"
        );
    }
}
