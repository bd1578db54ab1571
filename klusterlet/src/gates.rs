//! Feature gates of the agent, by OCM's names and defaults (wire §7.6). One registry for registration and work, because both
//! are set by the same flag.

/// A feature that can be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// ClusterClaims are reported to the hub.
    ClusterClaim,
    /// ClusterProperties are reported as claims, and come before ClusterClaims of the same name.
    ClusterProperty,
    /// Add-ons' agents are registered and their leases looked after.
    AddonManagement,
    /// Certificate requests in v1beta1. Every Kubernetes that Muster runs on serves v1, so it changes nothing.
    V1beta1CsrApiCompatibility,
    /// Several hubs, one after the other (wire §2.8).
    MultipleHubs,
    /// Answers about what an executor may do are remembered.
    ExecutorValidatingCaches,
    /// Feedback may carry raw JSON.
    RawFeedbackJsonString,
    /// Muster's own: what a work's executor stands for is written as the executor itself, by impersonation.
    ExecutorImpersonation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Alpha,
    Beta,
}

struct Known {
    gate: Gate,
    name: &'static str,
    default: bool,
    stage: Stage,
}

const fn known(gate: Gate, name: &'static str, default: bool, stage: Stage) -> Known {
    Known {
        gate,
        name,
        default,
        stage,
    }
}

/// In the order of [`Gate`].
const KNOWN: [Known; 8] = [
    known(Gate::ClusterClaim, "ClusterClaim", true, Stage::Beta),
    known(Gate::ClusterProperty, "ClusterProperty", false, Stage::Alpha),
    known(Gate::AddonManagement, "AddonManagement", true, Stage::Beta),
    known(
        Gate::V1beta1CsrApiCompatibility,
        "V1beta1CSRAPICompatibility",
        false,
        Stage::Alpha,
    ),
    known(Gate::MultipleHubs, "MultipleHubs", false, Stage::Alpha),
    known(
        Gate::ExecutorValidatingCaches,
        "ExecutorValidatingCaches",
        false,
        Stage::Alpha,
    ),
    known(
        Gate::RawFeedbackJsonString,
        "RawFeedbackJsonString",
        false,
        Stage::Alpha,
    ),
    known(
        Gate::ExecutorImpersonation,
        "ExecutorImpersonation",
        false,
        Stage::Alpha,
    ),
];

/// Which gates are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gates([bool; KNOWN.len()]);

impl Default for Gates {
    fn default() -> Self {
        Self(std::array::from_fn(|i| KNOWN[i].default))
    }
}

impl Gates {
    /// Reads `Name=true` and `Name=false`. `AllAlpha` and `AllBeta` set every gate of that stage that is not named itself, as
    /// Kubernetes has it; of several values for one name the last counts.
    pub fn parse(settings: &[String]) -> Result<Self, String> {
        let mut all: [Option<bool>; 2] = [None; 2];
        let mut named: [Option<bool>; KNOWN.len()] = [None; KNOWN.len()];
        for setting in settings.iter().map(|s| s.trim()).filter(|s| !s.is_empty()) {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| format!("feature gate {setting:?} must be NAME=true or NAME=false"))?;
            let (name, value) = (name.trim(), value.trim());
            let on = match value.to_ascii_lowercase().as_str() {
                "true" | "t" | "1" => true,
                "false" | "f" | "0" => false,
                _ => return Err(format!("feature gate {name}={value:?} must be true or false")),
            };
            match name {
                "AllAlpha" => all[0] = Some(on),
                "AllBeta" => all[1] = Some(on),
                _ => {
                    let Some(index) = KNOWN.iter().position(|k| k.name == name) else {
                        let names: Vec<_> = KNOWN.iter().map(|k| k.name).collect();
                        return Err(format!(
                            "unrecognized feature gate: {name}; there are {}",
                            names.join(", ")
                        ));
                    };
                    named[index] = Some(on);
                }
            }
        }
        Ok(Self(std::array::from_fn(|i| {
            let of_stage = all[usize::from(KNOWN[i].stage == Stage::Beta)];
            named[i].or(of_stage).unwrap_or(KNOWN[i].default)
        })))
    }

    /// Whether the gate is on.
    pub fn on(&self, gate: Gate) -> bool {
        KNOWN
            .iter()
            .position(|k| k.gate == gate)
            .is_some_and(|i| self.0[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Gates, String> {
        Gates::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn defaults_are_ocms() {
        let gates = Gates::default();
        assert!(gates.on(Gate::ClusterClaim) && gates.on(Gate::AddonManagement));
        for gate in [
            Gate::ClusterProperty,
            Gate::V1beta1CsrApiCompatibility,
            Gate::MultipleHubs,
            Gate::ExecutorValidatingCaches,
            Gate::RawFeedbackJsonString,
            Gate::ExecutorImpersonation,
        ] {
            assert!(!gates.on(gate), "{gate:?}");
        }
        assert_eq!(parse("").unwrap(), gates);
    }

    #[test]
    fn gates_are_set_by_name_and_by_stage() {
        let gates = parse("ClusterClaim=false,AllAlpha=true, MultipleHubs=False").unwrap();
        assert!(!gates.on(Gate::ClusterClaim) && gates.on(Gate::AddonManagement));
        assert!(gates.on(Gate::ClusterProperty) && !gates.on(Gate::MultipleHubs));
        assert!(parse("MultipleHubs=true,MultipleHubs=false").is_ok_and(|g| !g.on(Gate::MultipleHubs)));
    }

    #[test]
    fn unknown_gates_and_values_are_refused() {
        for (text, expected) in [
            ("Nope=true", "unrecognized feature gate: Nope"),
            ("ClusterClaim=maybe", "true or false"),
            ("ClusterClaim", "NAME=true"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
