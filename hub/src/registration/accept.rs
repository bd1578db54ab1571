//! What accepting, and denying, a cluster comes to (ocm-wire §2.4, §2.5).

use std::sync::Arc;

use jiff::{Timestamp, Unit};
use muster_crds::{
    conditions::{NewCondition, Status},
    constants::{annotations, conditions, finalizers, labels, names, reasons},
    names as naming,
};
use serde_json::{Map, Value, json};

use super::{
    cleanup,
    lease::{self, Heard},
    plan::{Observed, Plan, Policy, Write, delete, keep, release, set_conditions},
    rbac::{self, Kind},
    taints,
    view::{ClusterView, ObjectView},
};

/// What to do about a cluster at `now`.
pub fn decide(observed: &Observed, now: Timestamp, policy: &Policy) -> Plan {
    let cluster = &observed.cluster;
    if cluster.deleting {
        return cleanup::decide(observed, now, policy);
    }
    let mut plan = Plan::default();
    let refused = refuse(&cluster.name, policy.namespace.as_deref());
    if let Some(patch) = metadata(cluster, now, policy, refused.is_none(), &mut plan) {
        // Finalizers come before what they guard, acceptance before what it grants.
        plan.stage(vec![Write::PatchCluster(patch)]);
        plan.again = true;
        return plan;
    }
    let mut new = Vec::new();
    if let Some(reason) = refused {
        if cluster.accepts || observed.was_let_in() {
            plan.stage(revoke(observed));
            new.push(accepted(Status::False, reasons::ERROR, &reason));
            plan.notes.push(format!("not accepted: {reason}"));
        }
    } else if cluster.accepts {
        grant(observed, now, policy, &mut plan);
        new.push(accepted(
            Status::True,
            reasons::HUB_ACCEPTED,
            "Accepted by hub cluster admin",
        ));
    } else if observed.was_let_in() {
        deny(observed, policy, &mut plan);
        new.push(accepted(
            Status::False,
            reasons::HUB_DENIED,
            "Denied by hub cluster admin",
        ));
    } else {
        // What a former cluster of that name left gives this one nothing.
        plan.stage(revoke(observed));
    }
    let mut silent = false;
    if observed.was_let_in() || cluster.accepts {
        match lease::heard(observed, now, policy.lease_grace_factor) {
            Heard::Until(expiry) => plan.look_at(expiry),
            Heard::Silent => {
                let unknown = lease::unknown(observed);
                silent = unknown.is_some();
                new.extend(unknown);
            }
            Heard::NoLease => {}
        }
        new.extend(lease::clock(observed, policy.lease_grace_factor));
    }
    plan.stage(set_conditions(cluster, new, now).into_iter().collect());
    plan.doubt = silent;
    if silent {
        let note = "The cluster's agent stopped updating its lease.".to_owned();
        plan.stage(vec![Write::Event {
            reason: lease::EVENT_AVAILABLE_UNKNOWN,
            note,
        }]);
    }
    plan
}

fn accepted(status: Status, reason: &str, message: &str) -> NewCondition {
    NewCondition::new(conditions::HUB_ACCEPTED, status, reason, message)
}

/// Why no cluster may have that name: it names a namespace in which its agent gets rights, and RBAC objects. `hub` is the
/// namespace that the hub itself is in.
pub fn refuse(name: &str, hub: Option<&str>) -> Option<String> {
    if let Err(why) = naming::validate_cluster_name(name) {
        return Some(format!("the name {name:?} cannot be a cluster's: it {why}"));
    }
    if rbac::is_shared(&naming::cluster_role(name)) {
        return Some(format!(
            "the name {name:?} is reserved: its ClusterRole would be the one all clusters share"
        ));
    }
    (name.starts_with("kube-") || reserved(hub).contains(&name))
        .then(|| format!("the name {name:?} is reserved: the namespace of that name is not a cluster's"))
}

/// The names that no cluster may have, beside those that begin with `kube-`.
pub fn reserved(hub: Option<&str>) -> Vec<&str> {
    let roles = [names::REGISTRATION_CLUSTER_ROLE, names::WORK_CLUSTER_ROLE];
    let namespaces = [
        "default",
        names::OPERATOR_NAMESPACE,
        names::HUB_NAMESPACE,
        names::AGENT_NAMESPACE,
        names::ADDON_NAMESPACE,
    ];
    roles
        .into_iter()
        .filter_map(|role| role.strip_prefix(names::MANAGED_CLUSTER_ROLE_PREFIX))
        .chain(namespaces)
        .chain(hub.filter(|name| !name.is_empty()))
        .collect()
}

/// One patch of metadata and spec for everything that is to change there.
fn metadata(
    cluster: &ClusterView,
    now: Timestamp,
    policy: &Policy,
    acceptable: bool,
    plan: &mut Plan,
) -> Option<Value> {
    let (mut metadata, mut spec) = (Map::new(), Map::new());
    let mut accepts = cluster.accepts;
    if policy.auto_accept && acceptable && !cluster.accepted_once {
        let time = now.round(Unit::Second).unwrap_or(now).to_string();
        metadata.insert(
            "annotations".to_owned(),
            json!({annotations::AUTOMATICALLY_ACCEPTED_ON: time}),
        );
        if !accepts {
            spec.insert("hubAcceptsClient".to_owned(), json!(true));
            accepts = true;
        }
        plan.notes
            .push("accepted by itself, as ManagedClusterAutoApproval says".to_owned());
    }
    let wanted = [
        (accepts && acceptable, finalizers::MANAGED_CLUSTER),
        (
            policy.resource_cleanup && acceptable,
            finalizers::MANAGED_CLUSTER_RESOURCES,
        ),
    ];
    let missing: Vec<_> = wanted
        .into_iter()
        .filter(|(wanted, finalizer)| *wanted && !cluster.has_finalizer(finalizer))
        .map(|(_, finalizer)| finalizer.to_owned())
        .collect();
    if !missing.is_empty() {
        let all: Vec<_> = cluster.finalizers.iter().cloned().chain(missing).collect();
        metadata.insert("finalizers".to_owned(), json!(all));
    }
    if policy.default_set && cluster.set.as_deref().is_none_or(str::is_empty) {
        metadata.insert(
            "labels".to_owned(),
            json!({labels::CLUSTER_SET: names::DEFAULT_CLUSTER_SET}),
        );
    }
    if let Some(taints) = taints::decide(&cluster.taints, &cluster.conditions, policy.stamped, now) {
        let taints = if taints.is_empty() {
            Value::Null
        } else {
            json!(taints)
        };
        spec.insert("taints".to_owned(), taints);
    }
    let mut patch = Map::new();
    for (field, map) in [("metadata", metadata), ("spec", spec)] {
        if !map.is_empty() {
            patch.insert(field.to_owned(), Value::Object(map));
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Namespace and cluster-wide rights, then what lives in the namespace.
fn grant(observed: &Observed, now: Timestamp, policy: &Policy, plan: &mut Plan) {
    let (name, extra) = (observed.cluster.name.as_str(), &policy.labels);
    if observed
        .namespace
        .as_ref()
        .is_some_and(|namespace| namespace.deleting)
    {
        plan.notes
            .push("its namespace is being deleted; it is made anew when it is gone".to_owned());
        return;
    }
    let mut first = keep(rbac::namespace(name, extra), observed.namespace.as_deref());
    first.extend(keep(
        rbac::cluster_role(name, true, extra),
        observed.own_role().map(Arc::as_ref),
    ));
    first.extend(keep(
        rbac::cluster_role_binding(name, &observed.holders(), extra),
        observed.role_binding.as_deref(),
    ));
    let mut second = keep(
        rbac::registration_binding(name, &observed.holders(), extra),
        observed.registration.as_deref(),
    );
    second.extend(keep(
        rbac::work_binding(name, &observed.holders(), extra),
        observed.work.as_deref(),
    ));
    if observed.lease.is_none() {
        let labels = json!({labels::CLUSTER_NAME: name});
        second.push(Write::Create(lease::first(
            name,
            observed.cluster.lease_seconds,
            &labels,
            now,
        )));
    }
    plan.stage(first);
    plan.stage(second);
}

/// Leaves a denied cluster the right to see that it is denied and, as long as it has works, to finish them.
fn deny(observed: &Observed, policy: &Policy, plan: &mut Plan) {
    let (name, extra) = (observed.cluster.name.as_str(), &policy.labels);
    let mut writes = keep(
        rbac::cluster_role(name, false, extra),
        observed.own_role().map(Arc::as_ref),
    );
    writes.extend(keep(
        rbac::cluster_role_binding(name, &observed.holders(), extra),
        observed.role_binding.as_deref(),
    ));
    writes.extend(withdraw(observed));
    plan.stage(writes);
}

/// Deletes what says that it is the cluster's of all that gives it rights.
pub fn revoke(observed: &Observed) -> Vec<Write> {
    let name = observed.cluster.name.as_str();
    let role = naming::cluster_role(name);
    let own = |view: &&Arc<ObjectView>| view.is_of(name);
    let mut writes: Vec<Write> = [
        (Kind::ClusterRole, observed.own_role()),
        (Kind::ClusterRoleBinding, observed.role_binding.as_ref()),
    ]
    .into_iter()
    .filter_map(|(kind, view)| {
        let view = view.filter(own).filter(|view| !view.deleting)?;
        Some(delete(kind, "", &role, view))
    })
    .collect();
    let bindings = Observed {
        registration: observed.registration.clone().filter(|view| own(&view)),
        work: observed.work.clone().filter(|view| own(&view)),
        ..observed.clone()
    };
    writes.extend(withdraw(&bindings));
    writes
}

/// Deletes both RoleBindings; the one for works vanishes with the last work.
pub fn withdraw(observed: &Observed) -> Vec<Write> {
    let name = observed.cluster.name.as_str();
    let mut writes = Vec::new();
    let bindings = [
        (naming::registration_role_binding(name), &observed.registration),
        (naming::work_role_binding(name), &observed.work),
    ];
    for (binding, view) in bindings {
        let Some(view) = view else { continue };
        if !view.deleting {
            writes.push(delete(Kind::RoleBinding, name, &binding, view));
        } else if observed.works == 0 {
            writes.extend(release(Kind::RoleBinding, name, &binding, view));
        }
    }
    writes
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
