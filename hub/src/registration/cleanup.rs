//! What deleting a cluster comes to (ocm-wire §2.5): what is in its namespace goes first, kind by kind and priority
//! by priority, then its rights.

use jiff::Timestamp;
use muster_crds::{
    conditions::NewCondition,
    constants::{conditions, finalizers, reasons},
    names as naming,
};
use serde_json::json;

use super::{
    accept::withdraw,
    lease::{self, Heard},
    plan::{Observed, Plan, Policy, Remaining, Write, delete, set_conditions},
    rbac::{self, Kind},
};

/// What to do about a cluster that is being deleted.
pub fn decide(observed: &Observed, now: Timestamp, policy: &Policy) -> Plan {
    let cluster = &observed.cluster;
    let mut plan = Plan::default();
    let mut new = Vec::new();
    let mut done = Vec::new();
    let mut writes = Vec::new();

    if cluster.has_finalizer(finalizers::MANAGED_CLUSTER_RESOURCES) {
        let left = observed
            .remaining
            .iter()
            .find(|remaining| !remaining.items.is_empty());
        if let Some(remaining) = left {
            writes.extend(batch(remaining));
            // No count: it would be a write for every object that goes.
            let message = format!("There are {} left in the cluster's namespace", remaining.plural);
            new.push(NewCondition::new(
                conditions::DELETING,
                false,
                reasons::RESOURCE_REMAINING,
                message,
            ));
        } else {
            let message = "Nothing is left in the cluster's namespace";
            new.push(NewCondition::new(
                conditions::DELETING,
                true,
                reasons::NO_RESOURCE,
                message,
            ));
            done.push(finalizers::MANAGED_CLUSTER_RESOURCES);
        }
    }
    if cluster.has_finalizer(finalizers::MANAGED_CLUSTER) {
        let role = naming::cluster_role(&cluster.name);
        for (kind, view) in [
            (Kind::ClusterRole, observed.own_role()),
            (Kind::ClusterRoleBinding, observed.role_binding.as_ref()),
        ] {
            writes.extend(
                view.iter()
                    .filter(|view| !view.deleting)
                    .map(|view| delete(kind, "", &role, view)),
            );
        }
        writes.extend(withdraw(observed));
        if observed.work.is_none() && observed.works > 0 && cluster.accepts {
            // Somebody took it away; without it the agent can never finish.
            writes.push(Write::Create(rbac::work_binding(
                &cluster.name,
                &observed.holders(),
                &policy.labels,
            )));
        }
        let remembered = remember(observed, policy);
        let is_remembered = remembered.is_none();
        writes.extend(remembered);
        if is_remembered
            && observed.own_role().is_none()
            && observed.role_binding.is_none()
            && observed.registration.is_none()
            && observed.work.is_none()
            && observed.works == 0
        {
            done.push(finalizers::MANAGED_CLUSTER);
        } else {
            plan.notes.push(format!(
                "waiting for its rights to be withdrawn, with {} works left",
                observed.works
            ));
        }
    }
    // Somebody may look at a cluster whose agent is gone and wonder: say so.
    if observed.lease.is_none()
        && !cluster.conditions.is_empty()
        && lease::heard(observed, now, 1.0) == Heard::Silent
    {
        new.extend(lease::unknown(observed));
    }
    plan.stage(writes);
    if let Some(write) = set_conditions(cluster, new, now) {
        plan.stage(vec![write]);
        plan.again = !done.is_empty();
    } else if !done.is_empty() {
        let left: Vec<_> = cluster
            .finalizers
            .iter()
            .filter(|finalizer| !done.contains(&finalizer.as_str()))
            .collect();
        let mut last = vec![Write::PatchCluster(json!({"metadata": {"finalizers": left}}))];
        // The next cluster of that name starts with a lease of its own.
        if observed.lease.is_some() && done.contains(&finalizers::MANAGED_CLUSTER) {
            last.push(Write::DeleteLease);
        }
        plan.stage(last);
    }
    plan
}

/// Who had the name is kept where the next cluster of that name finds it: its rights will not be theirs.
fn remember(observed: &Observed, policy: &Policy) -> Option<Write> {
    let namespace = observed.namespace.as_ref().filter(|one| !one.deleting)?;
    let agent = observed.cluster.agent.as_ref()?;
    let former = rbac::with_former(&observed.former(), agent);
    (former != namespace.former).then(|| {
        let desired = rbac::namespace_of(&observed.cluster.name, &former, &policy.labels);
        Write::Update(desired, namespace.uid.clone())
    })
}

/// Deletes what has the lowest priority of all that is left.
fn batch(remaining: &Remaining) -> impl Iterator<Item = Write> + '_ {
    let lowest = remaining.items.iter().map(|(_, item)| item.priority).min();
    remaining
        .items
        .iter()
        .filter(move |(_, item)| Some(item.priority) == lowest && !item.deleting)
        .map(|(name, _)| Write::DeleteItem(remaining.resource, name.clone()))
}
