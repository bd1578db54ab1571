//! Feature gates, by OCM's names and defaults (ocm-wire §7.6).

use std::{collections::BTreeMap, fmt, str::FromStr};

/// A feature that can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// The sets `default` and `global` exist, and a cluster without a set is in `default`.
    DefaultClusterSet,
    /// Bootstrap CSRs of allowed users are approved, and new clusters accepted, without a person.
    ManagedClusterAutoApproval,
    /// What is left in a deleted cluster's namespace is deleted first.
    ResourceCleanup,
    /// Certificate requests in v1beta1. Every Kubernetes that Muster runs on serves v1, so it changes nothing.
    V1beta1CsrApiCompatibility,
    /// ClusterProfile objects mirror clusters.
    ClusterProfile,
    /// The hub installs the agent with a given kubeconfig.
    ClusterImporter,
    /// ManifestWorkReplicaSets fan out.
    ManifestWorkReplicaSet,
    /// Works that are complete are deleted after their time.
    CleanUpCompletedManifestWork,
    /// Admission checks the executor of works that name none.
    NilExecutorValidating,
    /// Works travel over a message broker.
    CloudEventsDrivers,
    /// Add-ons are installed and configured.
    AddonManagement,
    /// Placement decisions as SIG-Multicluster has them.
    SigPlacementDecision,
    /// An endpoint that explains placements.
    PlacementDebugServer,
}

struct Gate {
    feature: Feature,
    name: &'static str,
    default: bool,
    /// Whether this hub can do both.
    switchable: bool,
}

const fn gate(feature: Feature, name: &'static str, default: bool, switchable: bool) -> Gate {
    Gate {
        feature,
        name,
        default,
        switchable,
    }
}

const GATES: &[Gate] = &[
    gate(Feature::DefaultClusterSet, "DefaultClusterSet", true, true),
    gate(
        Feature::ManagedClusterAutoApproval,
        "ManagedClusterAutoApproval",
        false,
        true,
    ),
    gate(Feature::ResourceCleanup, "ResourceCleanup", true, true),
    gate(
        Feature::V1beta1CsrApiCompatibility,
        "V1beta1CSRAPICompatibility",
        false,
        true,
    ),
    gate(Feature::ClusterProfile, "ClusterProfile", false, true),
    gate(Feature::ClusterImporter, "ClusterImporter", false, false),
    gate(
        Feature::ManifestWorkReplicaSet,
        "ManifestWorkReplicaSet",
        false,
        true,
    ),
    gate(
        Feature::CleanUpCompletedManifestWork,
        "CleanUpCompletedManifestWork",
        false,
        true,
    ),
    gate(
        Feature::NilExecutorValidating,
        "NilExecutorValidating",
        false,
        true,
    ),
    gate(Feature::CloudEventsDrivers, "CloudEventsDrivers", false, false),
    gate(Feature::AddonManagement, "AddonManagement", true, true),
    gate(
        Feature::SigPlacementDecision,
        "SIGPlacementDecision",
        false,
        false,
    ),
    gate(
        Feature::PlacementDebugServer,
        "PlacementDebugServer",
        false,
        false,
    ),
];

/// One gate as given on the command line: `Name=true` or `Name=false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureGate {
    /// Which feature.
    pub feature: Feature,
    /// On or off.
    pub enabled: bool,
}

impl FromStr for FeatureGate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is no feature gate: write Name=true or Name=false"))?;
        let gate = GATES
            .iter()
            .find(|gate| gate.name == name.trim())
            .ok_or_else(|| {
                let known: Vec<_> = GATES.iter().map(|gate| gate.name).collect();
                format!(
                    "there is no feature gate {name:?}; known are {}",
                    known.join(", ")
                )
            })?;
        let enabled = match value.trim() {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => true,
            "false" | "False" | "FALSE" | "f" | "F" | "0" => false,
            other => return Err(format!("feature gate {name} is true or false, not {other:?}")),
        };
        if enabled && !gate.default && !gate.switchable {
            return Err(format!(
                "feature gate {name} cannot be switched on: this hub does not have the feature yet"
            ));
        }
        Ok(Self {
            feature: gate.feature,
            enabled,
        })
    }
}

impl fmt::Display for FeatureGate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = GATES
            .iter()
            .find(|gate| gate.feature == self.feature)
            .map_or("", |gate| gate.name);
        write!(formatter, "{name}={}", self.enabled)
    }
}

/// Every gate's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates(BTreeMap<Feature, bool>);

impl FeatureGates {
    /// The defaults with `given` over them; the last word on a gate counts.
    pub fn new(given: &[FeatureGate]) -> Self {
        Self(given.iter().map(|gate| (gate.feature, gate.enabled)).collect())
    }

    /// Whether the feature is on.
    pub fn enabled(&self, feature: Feature) -> bool {
        self.0
            .get(&feature)
            .copied()
            .unwrap_or_else(|| GATES.iter().any(|gate| gate.feature == feature && gate.default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_read_as_ocm_writes_them() {
        let gates = FeatureGates::new(&[]);
        assert!(gates.enabled(Feature::DefaultClusterSet));
        assert!(gates.enabled(Feature::ResourceCleanup));
        assert!(!gates.enabled(Feature::ManagedClusterAutoApproval));
        let given: FeatureGate = "ManagedClusterAutoApproval=true".parse().unwrap();
        assert_eq!(given.to_string(), "ManagedClusterAutoApproval=true");
        let off: FeatureGate = "DefaultClusterSet=false".parse().unwrap();
        let gates = FeatureGates::new(&[given, off]);
        assert!(gates.enabled(Feature::ManagedClusterAutoApproval));
        assert!(!gates.enabled(Feature::DefaultClusterSet));
    }

    #[test]
    fn bad_gates_are_refused_with_the_reason() {
        for (text, reason) in [
            ("Nonsense=true", "there is no feature gate \"Nonsense\""),
            ("DefaultClusterSet", "write Name=true"),
            ("DefaultClusterSet=maybe", "true or false, not \"maybe\""),
            ("ClusterImporter=true", "does not have the feature yet"),
        ] {
            let error = text.parse::<FeatureGate>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        for text in ["ClusterImporter=false", "V1beta1CSRAPICompatibility=true"] {
            assert!(text.parse::<FeatureGate>().is_ok(), "{text}");
        }
    }
}
