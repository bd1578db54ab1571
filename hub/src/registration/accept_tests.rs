use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use muster_crds::conditions::{find, set_condition};
use serde_json::Value;

use super::*;
use crate::registration::{
    plan::Remaining,
    rbac::Desired,
    view::{ItemView, LeaseView, ObjectView},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn policy() -> Policy {
    Policy {
        resource_cleanup: true,
        default_set: true,
        lease_grace_factor: 5.0,
        ..Policy::default()
    }
}

/// A hub made of what plans write, so that a test can run decisions until nothing is left to do.
#[derive(Default)]
struct World {
    observed: Observed,
    events: usize,
}

impl World {
    fn new(name: &str, accepts: bool) -> Self {
        let cluster = ClusterView {
            name: name.to_owned(),
            created: Some(at(1000)),
            lease_seconds: Some(60),
            accepts,
            ..ClusterView::default()
        };
        Self {
            observed: Observed {
                cluster: Arc::new(cluster),
                ..Observed::default()
            },
            events: 0,
        }
    }

    fn cluster(&mut self) -> &mut ClusterView {
        Arc::make_mut(&mut self.observed.cluster)
    }

    /// Decides and writes until there is nothing to write; returns the number of writes.
    fn settle(&mut self, now: i64, policy: &Policy) -> usize {
        let mut writes = 0;
        for _ in 0..20 {
            let plan = decide(&self.observed, at(now), policy);
            if plan.stages.is_empty() {
                return writes;
            }
            for write in plan.stages.into_iter().flatten() {
                writes += 1;
                self.write(write);
            }
        }
        panic!("does not settle: {:?}", decide(&self.observed, at(now), policy));
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::PatchCluster(patch) => self.patch(&patch),
            Write::SetConditions(conditions) => self.cluster().conditions = conditions,
            Write::Create(desired) | Write::Update(desired, _) => self.put(&desired),
            Write::Delete(kind, _, name, _) => {
                let slot = self.slot(kind, &name);
                let view = slot.as_mut().map(Arc::make_mut).unwrap();
                assert!(!view.deleting, "{name} deleted twice");
                view.deleting = true;
                if view.finalizers.is_empty() {
                    *slot = None;
                }
            }
            Write::SetFinalizers(kind, _, name, _, finalizers) => {
                let slot = self.slot(kind, &name);
                let view = slot.as_mut().map(Arc::make_mut).unwrap();
                view.finalizers = finalizers;
                if view.deleting && view.finalizers.is_empty() {
                    *slot = None;
                }
            }
            Write::DeleteLease => self.observed.lease = None,
            Write::DeleteItem(resource, name) => {
                let items = &mut self.observed.remaining[resource].items;
                let (_, item) = items.iter_mut().find(|(known, _)| *known == name).unwrap();
                assert!(!item.deleting, "{name} deleted twice");
                Arc::make_mut(item).deleting = true;
            }
            Write::Event { .. } => self.events += 1,
        }
    }

    fn patch(&mut self, patch: &Value) {
        let cluster = self.cluster();
        if let Some(finalizers) = patch.pointer("/metadata/finalizers") {
            cluster.finalizers = serde_json::from_value(finalizers.clone()).unwrap();
        }
        if let Some(labels) = patch.pointer("/metadata/labels") {
            cluster.set = labels[labels::CLUSTER_SET].as_str().map(str::to_owned);
        }
        cluster.accepted_once |= patch.pointer("/metadata/annotations").is_some();
        cluster.accepts |= patch.pointer("/spec/hubAcceptsClient") == Some(&json!(true));
        if let Some(taints) = patch.pointer("/spec/taints") {
            cluster.taints = serde_json::from_value(taints.clone()).unwrap_or_default();
        }
    }

    fn put(&mut self, desired: &Desired) {
        if desired.kind == Kind::Lease {
            let renewed = desired.body["spec"]["renewTime"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            self.observed.lease = Some(Arc::new(LeaseView {
                renewed: Some(renewed),
                ..LeaseView::default()
            }));
            return;
        }
        let finalizers = desired
            .body
            .pointer("/metadata/finalizers")
            .cloned()
            .unwrap_or(json!([]));
        *self.slot(desired.kind, &desired.name) = Some(Arc::new(ObjectView {
            uid: "uid".to_owned(),
            finalizers: serde_json::from_value(finalizers).unwrap(),
            content: desired.content,
            role_ref: desired.role_ref,
            cluster: desired
                .body
                .pointer("/metadata/labels")
                .and_then(|all| all[labels::CLUSTER_NAME].as_str())
                .map(str::to_owned),
            former: desired
                .body
                .pointer("/metadata/annotations")
                .and_then(|notes| notes[annotations::FORMER_AGENTS].as_str())
                .map(|list| list.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            ..ObjectView::default()
        }));
    }

    fn slot(&mut self, kind: Kind, name: &str) -> &mut Option<Arc<ObjectView>> {
        match kind {
            Kind::Namespace => &mut self.observed.namespace,
            Kind::ClusterRole => &mut self.observed.role,
            Kind::ClusterRoleBinding => &mut self.observed.role_binding,
            Kind::RoleBinding if name.ends_with(":work") => &mut self.observed.work,
            Kind::RoleBinding => &mut self.observed.registration,
            Kind::Lease => panic!("no slot for a lease"),
        }
    }

    fn condition(&self, type_: &str) -> Option<(&str, &str)> {
        find(&self.observed.cluster.conditions, type_).map(|one| (one.status.as_str(), one.reason.as_str()))
    }

    fn available(&mut self, now: i64) {
        let condition = NewCondition::new(
            conditions::CLUSTER_AVAILABLE,
            true,
            reasons::CLUSTER_AVAILABLE,
            "",
        );
        set_condition(&mut self.cluster().conditions, condition, at(now));
    }
}

#[test]
fn a_cluster_nobody_accepted_gets_a_taint_and_nothing_else() {
    let mut world = World::new("c1", false);
    assert_eq!(world.settle(1000, &policy()), 1);
    assert!(
        world.observed.namespace.is_none() && world.observed.role.is_none() && world.observed.lease.is_none()
    );
    assert_eq!(
        world.observed.cluster.taints[0].key,
        muster_crds::constants::taints::UNREACHABLE
    );
    assert_eq!(world.observed.cluster.set.as_deref(), Some("default"));
    assert_eq!(world.condition(conditions::HUB_ACCEPTED), None);
}

#[test]
fn acceptance_costs_one_patch_six_objects_and_one_status_and_then_nothing() {
    for auto_accept in [false, true] {
        let mut world = World::new("c1", !auto_accept);
        let policy = Policy {
            auto_accept,
            ..policy()
        };
        assert_eq!(
            world.settle(1000, &policy),
            1 + 6 + 1,
            "auto accept {auto_accept}"
        );
        assert_eq!(
            world.condition(conditions::HUB_ACCEPTED),
            Some(("True", reasons::HUB_ACCEPTED))
        );
        assert_eq!(world.observed.cluster.finalizers.len(), 2);
        assert_eq!(world.settle(1001, &policy), 0, "a second pass writes");
        world.available(1002);
        assert_eq!(world.settle(1002, &policy), 1, "the taint goes");
        assert!(world.observed.cluster.taints.is_empty());
    }
}

#[test]
fn rights_come_after_the_namespace_and_the_condition_after_the_rights() {
    let mut world = World::new("c1", true);
    let first = decide(&world.observed, at(1000), &policy());
    assert!(
        first.again
            && matches!(first.stages.as_slice(), [stage] if matches!(stage.as_slice(), [Write::PatchCluster(_)]))
    );
    first
        .stages
        .into_iter()
        .flatten()
        .for_each(|write| world.write(write));
    let plan = decide(&world.observed, at(1000), &policy());
    let kinds: Vec<Vec<&str>> = plan
        .stages
        .iter()
        .map(|stage| {
            let kind = |write: &Write| match write {
                Write::Create(desired) => desired.kind.as_str(),
                Write::SetConditions(_) => "conditions",
                _ => "other",
            };
            stage.iter().map(kind).collect()
        })
        .collect();
    let wanted: [&[&str]; 3] = [
        &["Namespace", "ClusterRole", "ClusterRoleBinding"],
        &["RoleBinding", "RoleBinding", "Lease"],
        &["conditions"],
    ];
    assert_eq!(kinds, wanted);
}

#[test]
fn what_somebody_changed_is_put_back() {
    let mut world = World::new("c1", true);
    world.settle(1000, &policy());
    Arc::make_mut(world.observed.role.as_mut().unwrap()).content ^= 1;
    assert_eq!(world.settle(1001, &policy()), 1);
    world.observed.registration = None;
    assert_eq!(world.settle(1002, &policy()), 1);
    // A roleRef cannot be changed: the binding goes, finalizer and all, and comes back.
    Arc::make_mut(world.observed.work.as_mut().unwrap()).role_ref ^= 1;
    assert_eq!(world.settle(1003, &policy()), 3);
    assert_eq!(world.settle(1004, &policy()), 0);
}

/// Its agent may write the status, as long as it has rights.
#[test]
fn a_denial_holds_though_the_cluster_took_its_condition_away() {
    for known in ["the finalizer", "the role", "both"] {
        let mut world = World::new("c1", true);
        world.settle(1000, &policy());
        world.cluster().accepts = false;
        world.cluster().conditions.clear();
        match known {
            "the finalizer" => {
                world.observed.role = None;
                world.observed.role_binding = None;
            }
            "the role" => world.cluster().finalizers.clear(),
            _ => {}
        }
        world.settle(1001, &policy());
        assert_eq!(
            world.condition(conditions::HUB_ACCEPTED),
            Some(("False", reasons::HUB_DENIED)),
            "{known}"
        );
        assert!(world.observed.registration.is_none() && world.observed.work.is_none());
    }
    // One that nobody ever let in is not denied.
    let mut world = World::new("c1", false);
    world.settle(1000, &policy());
    assert_eq!(world.condition(conditions::HUB_ACCEPTED), None);
}

/// Somebody took the finalizer of a ManagedCluster off and made another of its name before the hub looked.
#[test]
fn what_a_former_cluster_left_goes_and_denies_nobody() {
    let mut world = World::new("c1", true);
    world.settle(1000, &policy());
    let observed = &mut world.observed;
    for view in [
        &mut observed.role,
        &mut observed.role_binding,
        &mut observed.registration,
        &mut observed.work,
    ] {
        Arc::make_mut(view.as_mut().unwrap()).created = Some(at(1000));
    }
    for (made, accepts, works) in [
        (1001, false, 0),
        (1001, true, 0),
        (1000, false, 0),
        (1001, false, 1),
    ] {
        let mut next = World::new("c1", accepts);
        next.cluster().created = Some(at(made));
        let former = &world.observed;
        next.observed = Observed {
            cluster: next.observed.cluster.clone(),
            works,
            ..former.clone()
        };
        next.settle(1002, &policy());
        let left = [
            next.observed.role.is_some(),
            next.observed.role_binding.is_some(),
            next.observed.registration.is_some(),
            next.observed.work.is_some(),
        ];
        let (wanted, condition) = match (made, accepts) {
            (1001, false) => ([false, false, false, works > 0], None),
            (_, true) => ([true; 4], Some(("True", reasons::HUB_ACCEPTED))),
            _ => ([true, true, false, false], Some(("False", reasons::HUB_DENIED))),
        };
        assert_eq!(left, wanted, "{made} {accepts} {works}");
        assert_eq!(
            next.condition(conditions::HUB_ACCEPTED),
            condition,
            "{made} {accepts}"
        );
    }
}

#[test]
fn of_a_cluster_that_is_gone_nothing_is_left_but_the_way_out_of_its_works() {
    let mut world = World::new("c1", true);
    world.settle(1000, &policy());
    world.observed.cluster = Arc::new(ClusterView {
        name: "c1".to_owned(),
        ..ClusterView::default()
    });
    world.observed.works = 1;
    let revoke = |world: &mut World| {
        let writes = revoke(&world.observed);
        writes.iter().cloned().for_each(|write| world.write(write));
        writes.len()
    };
    assert_eq!(revoke(&mut world), 4);
    assert_eq!(revoke(&mut world), 0, "its agent has a work to take away");
    world.observed.works = 0;
    assert_eq!(revoke(&mut world), 1);
    assert!(world.observed.work.is_none());
    // What is not said to be a cluster's is not the hub's to delete.
    for cluster in [None, Some(""), Some("c2")] {
        let other = ObjectView {
            cluster: cluster.map(str::to_owned),
            ..ObjectView::default()
        };
        let other = Some(Arc::new(other));
        let observed = Observed {
            role: other.clone(),
            role_binding: other.clone(),
            registration: other.clone(),
            work: other,
            ..world.observed.clone()
        };
        assert_eq!(super::revoke(&observed), [], "{cluster:?}");
    }
}

#[test]
fn a_denied_cluster_keeps_its_work_binding_until_its_last_work_is_gone() {
    let mut world = World::new("c1", true);
    world.settle(1000, &policy());
    world.observed.works = 2;
    world.cluster().accepts = false;
    world.settle(1001, &policy());
    assert_eq!(
        world.condition(conditions::HUB_ACCEPTED),
        Some(("False", reasons::HUB_DENIED))
    );
    assert!(world.observed.registration.is_none());
    assert!(world.observed.work.as_ref().unwrap().deleting);
    let denied = rbac::cluster_role("c1", false, &BTreeMap::new());
    assert_eq!(world.observed.role.as_ref().unwrap().content, denied.content);
    world.observed.works = 0;
    assert_eq!(world.settle(1002, &policy()), 1);
    assert!(world.observed.work.is_none());
    // And back: also while the binding is still on its way out.
    world.cluster().accepts = true;
    world.settle(1003, &policy());
    world.observed.works = 1;
    world.cluster().accepts = false;
    world.settle(1004, &policy());
    world.cluster().accepts = true;
    world.settle(1005, &policy());
    assert!(!world.observed.work.as_ref().unwrap().deleting);
    assert_eq!(
        world.condition(conditions::HUB_ACCEPTED),
        Some(("True", reasons::HUB_ACCEPTED))
    );
}

#[test]
fn automatic_acceptance_happens_once() {
    let auto = Policy {
        auto_accept: true,
        ..policy()
    };
    let mut world = World::new("c1", false);
    world.settle(1000, &auto);
    world.cluster().accepts = false;
    world.settle(1001, &auto);
    assert!(!world.observed.cluster.accepts);
    assert_eq!(
        world.condition(conditions::HUB_ACCEPTED),
        Some(("False", reasons::HUB_DENIED))
    );
}

#[test]
fn names_that_would_give_rights_elsewhere_are_refused() {
    for name in [
        "kube-system",
        "default",
        "work",
        "registration",
        "a.b",
        "open-cluster-management-hub",
    ] {
        for auto_accept in [false, true] {
            let mut world = World::new(name, !auto_accept);
            world.settle(
                1000,
                &Policy {
                    auto_accept,
                    ..policy()
                },
            );
            assert!(
                world.observed.namespace.is_none() && world.observed.role.is_none(),
                "{name}"
            );
            assert!(world.observed.lease.is_none(), "{name}");
            let wanted = (!auto_accept).then_some(("False", reasons::ERROR));
            assert_eq!(world.condition(conditions::HUB_ACCEPTED), wanted, "{name}");
        }
    }
    for name in ["c1", "work1", "registration-a", "kube", "local-cluster"] {
        assert_eq!(refuse(name, Some("muster")), None);
    }
    assert!(refuse("muster", Some("muster")).is_some(), "the hub's own");
}

/// A cluster of such a name has a ClusterRole of its name beside it, which is all clusters'.
#[test]
fn a_cluster_named_like_a_shared_role_neither_gets_nor_changes_it() {
    for (name, role) in [
        ("work", names::WORK_CLUSTER_ROLE),
        ("registration", names::REGISTRATION_CLUSTER_ROLE),
    ] {
        let none = BTreeMap::new();
        let shared = rbac::shared_roles(&none)
            .into_iter()
            .find(|one| one.name == role)
            .unwrap();
        let there = |world: &mut World| {
            world.put(&shared);
            world.observed.role.clone()
        };
        // Nobody let it in: it has nothing, and nothing is written but its set and its taint.
        let mut world = World::new(name, false);
        let before = there(&mut world);
        assert_eq!(world.settle(1000, &policy()), 1, "{name}");
        assert_eq!(world.observed.role, before, "{name}");
        assert!(!world.observed.was_let_in());
        assert_eq!(world.condition(conditions::HUB_ACCEPTED), None);
        // What an earlier hub bound for it goes, whatever its ManagedCluster says.
        for (accepts, deleting) in [(false, false), (true, false), (false, true)] {
            let mut world = World::new(name, accepts);
            let before = there(&mut world);
            world.cluster().finalizers = vec![finalizers::MANAGED_CLUSTER.to_owned()];
            world.cluster().deleting = deleting;
            let holders = rbac::Holders::Group;
            for desired in [
                rbac::cluster_role_binding(name, &holders, &none),
                rbac::registration_binding(name, &holders, &none),
                rbac::work_binding(name, &holders, &none),
            ] {
                world.put(&desired);
            }
            world.settle(1000, &policy());
            assert_eq!(world.observed.role, before, "{name} {accepts} {deleting}");
            let left = [
                &world.observed.role_binding,
                &world.observed.registration,
                &world.observed.work,
            ];
            assert!(
                left.into_iter().all(Option::is_none),
                "{name} {accepts} {deleting}"
            );
            if !deleting {
                assert_eq!(
                    world.condition(conditions::HUB_ACCEPTED),
                    Some(("False", reasons::ERROR))
                );
            }
        }
    }
}

#[test]
fn a_silent_cluster_becomes_unknown_once_and_is_tainted() {
    let mut world = World::new("c1", true);
    world.settle(1000, &policy());
    world.available(1000);
    world.settle(1000, &policy());
    assert_eq!(decide(&world.observed, at(1001), &policy()).next, Some(at(1300)));
    assert_eq!(world.settle(1299, &policy()), 0);
    assert_eq!(world.settle(1300, &policy()), 3, "status, event, taint");
    assert_eq!(
        world.condition(conditions::CLUSTER_AVAILABLE),
        Some(("Unknown", reasons::LEASE_UPDATE_STOPPED))
    );
    assert_eq!(world.events, 1);
    assert_eq!(
        world.observed.cluster.taints[0].key,
        muster_crds::constants::taints::UNREACHABLE
    );
    assert_eq!(world.settle(9999, &policy()), 0);
}

#[test]
fn a_cluster_is_taken_for_lost_only_after_a_look_at_its_lease() {
    let mut world = World::new("c1", true);
    world.settle(1000, &policy());
    world.available(1000);
    world.settle(1000, &policy());
    for (now, doubt) in [(1299, false), (1300, true)] {
        assert_eq!(decide(&world.observed, at(now), &policy()).doubt, doubt, "{now}");
    }
    world.settle(1300, &policy());
    assert!(
        !decide(&world.observed, at(9999), &policy()).doubt,
        "it is Unknown already"
    );
}

fn items(names: &[(&str, u8)]) -> Vec<(String, Arc<ItemView>)> {
    names
        .iter()
        .map(|(name, priority)| {
            (
                (*name).to_owned(),
                Arc::new(ItemView {
                    deleting: false,
                    priority: *priority,
                }),
            )
        })
        .collect()
}

fn deleting_names(remaining: &Remaining) -> Vec<&str> {
    let gone = remaining.items.iter().filter(|(_, item)| item.deleting);
    gone.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_deleted_cluster_is_cleaned_up_kind_by_kind_and_priority_by_priority() {
    let mut world = World::new("c1", true);
    world.settle(1000, &policy());
    world.cluster().deleting = true;
    world.observed.works = 2;
    let kind = |resource: usize, plural: &str, names: &[(&str, u8)]| Remaining {
        resource,
        plural: plural.to_owned(),
        items: items(names),
    };
    world.observed.remaining = vec![
        kind(0, "managedclusteraddons", &[("a", 0), ("b", 10)]),
        kind(1, "manifestworks", &[("w", 0), ("v", 0)]),
    ];
    world.settle(1001, &policy());
    assert_eq!(deleting_names(&world.observed.remaining[0]), ["a"]);
    assert_eq!(
        world.condition(conditions::DELETING),
        Some(("False", reasons::RESOURCE_REMAINING))
    );
    assert!(world.observed.role.is_none() && world.observed.registration.is_none());

    world.observed.remaining[0].items.remove(0);
    assert_eq!(world.settle(1002, &policy()), 1);
    assert_eq!(deleting_names(&world.observed.remaining[0]), ["b"]);
    assert!(deleting_names(&world.observed.remaining[1]).is_empty());

    world.observed.remaining[0].items.clear();
    world.settle(1003, &policy());
    assert_eq!(deleting_names(&world.observed.remaining[1]), ["w", "v"]);
    assert!(
        world.observed.work.is_some(),
        "the agent still has works to finish"
    );

    world.observed.work = None;
    world.settle(1003, &policy());
    assert!(
        world.observed.work.as_ref().is_some_and(|work| work.deleting),
        "somebody took it away: it is back"
    );

    world.observed.remaining[1].items.clear();
    world.observed.works = 0;
    world.settle(1004, &policy());
    assert_eq!(
        world.condition(conditions::DELETING),
        Some(("True", reasons::NO_RESOURCE))
    );
    assert!(world.observed.cluster.finalizers.is_empty());
    assert!(world.observed.work.is_none() && world.observed.lease.is_none());
    assert!(
        world.observed.namespace.is_some(),
        "the namespace is not the hub's to delete"
    );
    assert_eq!(world.settle(1005, &policy()), 0);
}

#[test]
fn who_had_a_name_is_remembered_and_its_heir_has_the_rights_alone() {
    let mut world = World::new("c1", true);
    world.cluster().agent = Some("first".to_owned());
    world.settle(1000, &policy());
    assert_eq!(world.observed.holders(), rbac::Holders::Group);
    world.cluster().deleting = true;
    world.settle(1001, &policy());
    assert!(world.observed.cluster.finalizers.is_empty());
    let namespace = world.observed.namespace.clone();
    assert_eq!(namespace.as_ref().unwrap().former, ["first"]);

    let mut world = World::new("c1", true);
    world.observed.namespace = namespace;
    world.cluster().agent = Some("heir".to_owned());
    world.settle(2000, &policy());
    let alone = rbac::Holders::Agent("heir".to_owned());
    let content = |view: &Option<Arc<ObjectView>>| view.as_ref().unwrap().content;
    let (none, observed) = (BTreeMap::new(), &world.observed);
    for (view, wanted) in [
        (
            &observed.role_binding,
            rbac::cluster_role_binding("c1", &alone, &none),
        ),
        (
            &observed.registration,
            rbac::registration_binding("c1", &alone, &none),
        ),
        (&observed.work, rbac::work_binding("c1", &alone, &none)),
    ] {
        assert_eq!(content(view), wanted.content);
    }
    assert_eq!(world.settle(2001, &policy()), 0);
    // The first one comes back for good: it has them, and the other not.
    world.cluster().former = vec!["heir".to_owned()];
    world.cluster().agent = Some("first".to_owned());
    assert_eq!(world.settle(2002, &policy()), 3);
    assert_eq!(world.observed.holders(), rbac::Holders::Agent("first".to_owned()));
}

#[test]
fn other_peoples_conditions_and_finalizers_stay() {
    let mut world = World::new("c1", true);
    world.cluster().finalizers = vec!["example.com/mine".to_owned()];
    world.cluster().conditions = vec![Condition {
        type_: "Mine".to_owned(),
        status: "True".to_owned(),
        reason: "R".to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1)),
    }];
    world.settle(1000, &policy());
    assert_eq!(world.observed.cluster.finalizers[0], "example.com/mine");
    assert_eq!(world.condition("Mine"), Some(("True", "R")));
    world.cluster().deleting = true;
    world.settle(1001, &policy());
    assert_eq!(world.observed.cluster.finalizers, ["example.com/mine"]);
}
