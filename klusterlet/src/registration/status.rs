//! The part of a ManagedCluster's status that the agent writes, as a pure function of what is known (wire §2.7).

use super::credentials::Validity;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use muster_crds::cluster::v1::{ManagedClusterClaim, ManagedClusterStatus, ManagedClusterVersion};
use muster_crds::conditions::{NewCondition, is_true, remove, set_condition};
use muster_crds::constants::{conditions as types, reasons};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Whether the cluster's API server is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Ok,
    /// It is not: HTTP code and words.
    Bad(u16, String),
}

/// What is known of the cluster now. `None` keeps what the hub has.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Health of the API server.
    pub health: Health,
    /// `gitVersion` of the API server.
    pub version: Option<String>,
    /// Sums over the nodes.
    pub resources: Option<(BTreeMap<String, Quantity>, BTreeMap<String, Quantity>)>,
    /// Claims to report.
    pub claims: Option<Vec<ManagedClusterClaim>>,
    /// The agent's present certificate.
    pub certificate: Option<Validity>,
    /// Why the certificate could not be renewed, when it could not.
    pub rotation_problem: Option<String>,
    /// How managed namespaces came out.
    pub namespaces: BTreeMap<String, Option<String>>,
    /// What is applied without the hub saying so, when anything is.
    pub kept: Option<NewCondition>,
}

/// The status as it should be. Nothing is reported of a cluster that the hub has not accepted.
pub fn status(old: &ManagedClusterStatus, observed: &Observed, now: Timestamp) -> ManagedClusterStatus {
    let mut new = old.clone();
    if !is_true(&old.conditions, types::HUB_ACCEPTED) {
        return new;
    }
    let joined = NewCondition::new(types::JOINED, true, reasons::JOINED, "Managed cluster joined");
    set_condition(&mut new.conditions, joined, now);
    match &observed.kept {
        Some(kept) => drop(set_condition(&mut new.conditions, kept.clone(), now)),
        None => drop(remove(&mut new.conditions, types::WORKS_KEPT)),
    }
    let rotated = match (&observed.rotation_problem, observed.certificate) {
        (Some(problem), _) => Some(NewCondition::new(
            types::CERTIFICATE_ROTATED,
            false,
            reasons::CLIENT_CERTIFICATE_UPDATE_FAILED,
            problem.as_str(),
        )),
        (None, Some(validity)) => Some(NewCondition::new(
            types::CERTIFICATE_ROTATED,
            true,
            reasons::CLIENT_CERTIFICATE_UPDATED,
            format!(
                "client certificate rotated starting from {} to {}",
                validity.not_before, validity.not_after
            ),
        )),
        (None, None) => None,
    };
    if let Some(condition) = rotated {
        set_condition(&mut new.conditions, condition, now);
    }
    match &observed.health {
        Health::Bad(code, words) => {
            let message = format!("The kube-apiserver is not ok, status code: {code}, {words}");
            let condition = NewCondition::new(
                types::CLUSTER_AVAILABLE,
                false,
                reasons::KUBE_API_SERVER_UNAVAILABLE,
                message,
            );
            set_condition(&mut new.conditions, condition, now);
            return new;
        }
        Health::Ok => {
            let condition = NewCondition::new(
                types::CLUSTER_AVAILABLE,
                true,
                reasons::CLUSTER_AVAILABLE,
                "Managed cluster is available",
            );
            set_condition(&mut new.conditions, condition, now);
        }
    }
    if let Some(version) = &observed.version {
        new.version = ManagedClusterVersion {
            kubernetes: version.clone(),
        };
    }
    if let Some((capacity, allocatable)) = &observed.resources {
        // Resources that somebody else reports there stay.
        new.capacity.extend(capacity.clone());
        new.allocatable = allocatable.clone();
    }
    if let Some(claims) = &observed.claims {
        new.cluster_claims.clone_from(claims);
    }
    super::namespaces::report(&mut new, &observed.namespaces, now);
    new
}

/// The merge patch that makes `new` of `old`: what is gone must be said to be.
pub fn patch(old: &ManagedClusterStatus, new: &ManagedClusterStatus) -> Value {
    let mut patch = json!(new);
    forget(&json!(old), &mut patch);
    patch
}

fn forget(old: &Value, new: &mut Value) {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object_mut()) else {
        return;
    };
    for (key, before) in old {
        match new.get_mut(key) {
            Some(now) => forget(before, now),
            None => drop(new.insert(key.clone(), Value::Null)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_crds::conditions::find;

    fn observed(health: Health) -> Observed {
        Observed {
            health,
            version: Some("v1.36.0".into()),
            resources: Some((
                BTreeMap::from([("cpu".into(), Quantity("4".into()))]),
                BTreeMap::new(),
            )),
            claims: None,
            certificate: None,
            rotation_problem: None,
            namespaces: BTreeMap::new(),
            kept: None,
        }
    }

    fn accepted() -> ManagedClusterStatus {
        let mut status = ManagedClusterStatus::default();
        let condition = NewCondition::new(types::HUB_ACCEPTED, true, reasons::HUB_ACCEPTED, "");
        set_condition(&mut status.conditions, condition, Timestamp::UNIX_EPOCH);
        status
    }

    #[test]
    fn nothing_is_said_of_a_cluster_that_is_not_accepted() {
        let old = ManagedClusterStatus::default();
        assert_eq!(status(&old, &observed(Health::Ok), Timestamp::UNIX_EPOCH), old);
    }

    #[test]
    fn joined_available_and_measured() {
        let first = status(&accepted(), &observed(Health::Ok), Timestamp::UNIX_EPOCH);
        assert!(
            is_true(&first.conditions, types::JOINED) && is_true(&first.conditions, types::CLUSTER_AVAILABLE)
        );
        assert_eq!(
            (
                first.version.kubernetes.as_str(),
                first.capacity["cpu"].0.as_str()
            ),
            ("v1.36.0", "4")
        );
        let later = Timestamp::from_second(99).unwrap();
        assert_eq!(
            status(&first, &observed(Health::Ok), later),
            first,
            "nothing changed"
        );
    }

    #[test]
    fn what_is_gone_is_taken_away() {
        let claim = |name: &str| ManagedClusterClaim {
            name: name.into(),
            value: "v".into(),
        };
        let quantities = |names: &[&str]| -> BTreeMap<String, Quantity> {
            names
                .iter()
                .map(|n| ((*n).to_owned(), Quantity("1".into())))
                .collect()
        };
        let old = ManagedClusterStatus {
            cluster_claims: vec![claim("a")],
            allocatable: quantities(&["cpu", "gpu"]),
            ..ManagedClusterStatus::default()
        };
        let new = ManagedClusterStatus {
            allocatable: quantities(&["cpu"]),
            ..ManagedClusterStatus::default()
        };
        let patch = patch(&old, &new);
        assert_eq!(patch["clusterClaims"], Value::Null);
        assert!(patch.as_object().unwrap().contains_key("clusterClaims"));
        assert_eq!(patch["allocatable"], json!({"cpu": "1", "gpu": null}));
        assert_eq!(super::patch(&new, &new), json!(new));
    }

    #[test]
    fn what_is_kept_without_the_hub_is_told_until_it_is_over() {
        let mut keeping = observed(Health::Ok);
        keeping.kept = Some(NewCondition::new(
            types::WORKS_KEPT,
            true,
            reasons::WORKS_GONE,
            "m",
        ));
        let first = status(&accepted(), &keeping, Timestamp::UNIX_EPOCH);
        assert!(is_true(&first.conditions, types::WORKS_KEPT));
        let second = status(&first, &observed(Health::Ok), Timestamp::UNIX_EPOCH);
        assert!(find(&second.conditions, types::WORKS_KEPT).is_none());
    }

    #[test]
    fn a_sick_api_server_keeps_the_rest() {
        let first = status(&accepted(), &observed(Health::Ok), Timestamp::UNIX_EPOCH);
        let mut sick = observed(Health::Bad(500, "etcd".into()));
        sick.version = Some("other".into());
        let second = status(&first, &sick, Timestamp::from_second(9).unwrap());
        let available = find(&second.conditions, types::CLUSTER_AVAILABLE).unwrap();
        assert_eq!(
            available.message,
            "The kube-apiserver is not ok, status code: 500, etcd"
        );
        assert_eq!(second.version, first.version);
    }
}
