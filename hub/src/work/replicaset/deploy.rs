//! What a replica set's works come to: which are made, changed and deleted (ocm-wire §4).
//!
//! A cluster has one work of a replica set: where placements overlap, the first in order has it. A placement for which
//! nothing is decided says nothing: its works stay as they are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use muster_crds::{
    constants::{labels, reasons},
    work::v1alpha1::ManifestWorkReplicaSetSummary,
};

use super::{
    outline::{DecisionView, Said, SetView, Work, WorkView},
    rollout::{self, Group, Rollout, State},
};

/// What is known of a placement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// The groups of its decisions, by index; `None` while there are no decisions, or no placement.
    pub groups: Option<Vec<Group>>,
    /// How many clusters it says it selected.
    pub selected: usize,
}

impl Decided {
    /// From the decisions of a placement that is there.
    pub fn of<'a>(decisions: impl Iterator<Item = &'a DecisionView>, selected: i32) -> Self {
        let mut groups: BTreeMap<(i32, &str), BTreeSet<&str>> = BTreeMap::new();
        let mut any = false;
        for decision in decisions {
            any = true;
            groups
                .entry((decision.index, &decision.group))
                .or_default()
                .extend(decision.clusters.iter().map(String::as_str));
        }
        // One that is in two groups is in the first.
        let mut seen = HashSet::new();
        let groups = groups.into_iter().map(|((index, name), clusters)| Group {
            index,
            name: name.to_owned(),
            clusters: clusters
                .into_iter()
                .filter(|cluster| seen.insert(*cluster))
                .map(str::to_owned)
                .collect(),
        });
        Self {
            groups: any.then(|| groups.collect()),
            selected: usize::try_from(selected).unwrap_or(0),
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Make a work.
    Create {
        /// For this cluster.
        cluster: String,
        /// Of this placement.
        placement: String,
    },
    /// Change a work.
    Change {
        /// Its cluster.
        cluster: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// Its uid.
        uid: String,
        /// Give it the template.
        spec: bool,
        /// Labels that it lacks.
        labels: BTreeMap<String, String>,
    },
    /// Delete a work.
    Delete {
        /// Its cluster.
        cluster: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// Its uid.
        uid: String,
    },
}

impl Write {
    /// The cluster that it is about.
    pub fn cluster(&self) -> &str {
        match self {
            Self::Create { cluster, .. } => cluster,
            Self::Change { cluster, .. } | Self::Delete { cluster, .. } => cluster,
        }
    }

    /// That this work is to go.
    pub fn delete(work: &Work) -> Self {
        Self::Delete {
            cluster: work.cluster.clone(),
            name: work.name.clone(),
            uid: work.view.uid.clone(),
        }
    }

    /// Whether it needs the template.
    pub fn has_spec(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Change { spec: true, .. })
    }
}

/// How a placement's works are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Its name.
    pub name: String,
    /// Whether anything is decided.
    pub decided: bool,
    /// How many groups its decisions have.
    pub groups: usize,
    /// How many clusters it has here.
    pub clusters: usize,
    /// How many it says it selected, if those are more than its decisions have yet.
    pub announced: usize,
    /// Its works.
    pub summary: ManifestWorkReplicaSetSummary,
    /// How far the template is.
    pub rollout: Rollout,
    /// What of its strategy makes no sense.
    pub problem: Option<String>,
    /// Clusters that cannot have a work at present, and why not.
    pub closed: Vec<(String, String)>,
}

/// What a replica set comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do, in no order.
    pub writes: Vec<Write>,
    /// The placements, in order.
    pub placed: Vec<Placed>,
    /// When time alone may change the answer.
    pub recheck: Option<Duration>,
}

/// Decides. `current` tells whether a work has the template; `closed` why a cluster cannot have a work at present.
pub fn plan(
    set: &SetView,
    owner: &str,
    decided: &[Decided],
    works: &[Work],
    current: impl Fn(&Work) -> bool,
    closed: impl Fn(&str) -> Option<String>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let claims = claims(set, decided);
    let mut keepers: HashMap<&str, &Work> = HashMap::new();
    let is_better = |work: &Work, than: &Work| {
        let rank = |work: &Work| {
            let at_home = claims
                .get(&*work.cluster)
                .is_some_and(|placement| set.placement_refs[*placement].name == work.view.placement());
            (work.view.deleting, !at_home, !current(work))
        };
        rank(work) < rank(than)
    };
    for work in works {
        let keeper = keepers.entry(&work.cluster).or_insert(work);
        if is_better(work, keeper) {
            *keeper = work;
        }
    }
    let undecided: HashSet<&str> = set
        .placement_refs
        .iter()
        .zip(decided)
        .filter(|(_, decided)| decided.groups.is_none())
        .map(|(reference, _)| reference.name.as_str())
        .collect();
    for work in works {
        let keeps = keepers
            .get(&*work.cluster)
            .is_some_and(|keeper| keeper.name == work.name);
        let wanted = if claims.contains_key(&*work.cluster) {
            keeps
        } else {
            undecided.contains(work.view.placement())
        };
        if !wanted && !work.view.deleting {
            plan.writes.push(Write::delete(work));
        }
    }
    let mut seen = HashSet::new();
    for (place, (reference, decided)) in set.placement_refs.iter().zip(decided).enumerate() {
        if !seen.insert(reference.name.as_str()) {
            continue;
        }
        let mut placed = Placed {
            name: reference.name.clone(),
            decided: decided.groups.is_some(),
            ..Placed::default()
        };
        if let Some(groups) = &decided.groups {
            let ours = |cluster: &&String| claims.get(cluster.as_str()) == Some(&place);
            let everywhere: usize = groups.iter().map(|group| group.clusters.len()).sum();
            placed.groups = groups.iter().filter(|group| !group.clusters.is_empty()).count();
            placed.announced = decided.selected.saturating_sub(everywhere);
            let mut open = Vec::new();
            for group in groups {
                let mut clusters = Vec::new();
                for cluster in group.clusters.iter().filter(ours) {
                    placed.clusters += 1;
                    match closed(cluster) {
                        None => clusters.push(cluster.clone()),
                        Some(why) => placed.closed.push((cluster.clone(), why)),
                    }
                }
                open.push(Group {
                    clusters,
                    ..group.clone()
                });
            }
            deploy(
                &mut plan,
                &mut placed,
                set,
                owner,
                place,
                &open,
                &keepers,
                &current,
                now,
            );
        }
        for work in works {
            let mine = claims.get(&*work.cluster) == Some(&place)
                || (undecided.contains(reference.name.as_str())
                    && work.view.placement() == reference.name
                    && !claims.contains_key(&*work.cluster));
            let keeps = keepers
                .get(&*work.cluster)
                .is_some_and(|keeper| keeper.name == work.name);
            if mine && keeps && !work.view.deleting && current(work) {
                count(&mut placed.summary, &work.view);
            }
        }
        if !placed.decided {
            // What is there is all that is known to be wanted.
            placed.clusters = usize::try_from(placed.summary.total).unwrap_or(0);
        }
        placed.summary.desired_total = i64::try_from(placed.clusters).unwrap_or(i64::MAX);
        if let Some(recheck) = placed.rollout.recheck {
            plan.recheck = Some(plan.recheck.map_or(recheck, |before| before.min(recheck)));
        }
        plan.placed.push(placed);
    }
    plan
}

/// Which placement has a cluster: the first that decided for it.
fn claims<'a>(set: &SetView, decided: &'a [Decided]) -> HashMap<&'a str, usize> {
    let mut claims = HashMap::new();
    for (place, (_, decided)) in set.placement_refs.iter().zip(decided).enumerate() {
        for group in decided.groups.iter().flatten() {
            for cluster in &group.clusters {
                claims.entry(cluster.as_str()).or_insert(place);
            }
        }
    }
    claims
}

#[allow(clippy::too_many_arguments)] // the parts of one function's state
fn deploy(
    plan: &mut Plan,
    placed: &mut Placed,
    set: &SetView,
    owner: &str,
    place: usize,
    groups: &[Group],
    keepers: &HashMap<&str, &Work>,
    current: &impl Fn(&Work) -> bool,
    now: Timestamp,
) {
    let reference = &set.placement_refs[place];
    let state = |cluster: &str| match keepers.get(cluster) {
        // Another is made when it is gone.
        Some(work) if work.view.deleting => State::Applying(None),
        Some(work) if current(work) => work.view.state(),
        _ => State::ToApply,
    };
    match rollout::plan(&reference.rollout_strategy, groups, state, now) {
        Ok(rollout) => placed.rollout = rollout,
        Err(problem) => placed.problem = Some(problem),
    }
    let start: HashSet<&str> = placed.rollout.start.iter().map(String::as_str).collect();
    let wanted = set.work_labels(owner, &reference.name);
    for cluster in groups.iter().flat_map(|group| &group.clusters) {
        let starts = start.contains(cluster.as_str());
        let Some(work) = keepers.get(cluster.as_str()) else {
            if starts {
                plan.writes.push(Write::Create {
                    cluster: cluster.clone(),
                    placement: reference.name.clone(),
                });
            }
            continue;
        };
        if work.view.deleting {
            continue;
        }
        let lacks = |(key, value): &(&String, &String)| work.view.labels.get(*key) != Some(*value);
        let labels: BTreeMap<String, String> = wanted
            .iter()
            .filter(lacks)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if starts || !labels.is_empty() {
            plan.writes.push(Write::Change {
                cluster: work.cluster.clone(),
                name: work.name.clone(),
                uid: work.view.uid.clone(),
                spec: starts,
                labels,
            });
        }
    }
}

/// Counts a work with the present template by what its klusterlet says, unless that is of an earlier generation.
fn count(summary: &mut ManifestWorkReplicaSetSummary, work: &WorkView) {
    let holds = |said: Option<Said>| {
        let said = said.filter(|said| said.of.is_none() || said.of == work.generation);
        i64::from(said.is_some_and(|said| said.holds == Some(true)))
    };
    summary.total += 1;
    summary.updated += 1;
    summary.applied += holds(work.applied);
    summary.available += holds(work.available);
    summary.progressing += holds(work.progressing);
    summary.degraded += holds(work.degraded);
}

/// The label that names a replica set on its works, or why there can be none.
pub fn owner(namespace: &str, name: &str) -> Result<String, (&'static str, String)> {
    let owner = format!("{namespace}.{name}");
    if owner.len() > 63 {
        let why = format!(
            "the label {}={owner} of its works would have {} characters, of which 63 are allowed: give the replica set a \
             shorter name",
            labels::REPLICA_SET,
            owner.len()
        );
        return Err((reasons::INVALID_MANIFEST_WORK_NAME, why));
    }
    Ok(owner)
}

/// The replica set, as `namespace/name`, that a label names. No namespace has a `.` in it; names may.
pub fn key(owner: &str) -> Option<String> {
    let (namespace, name) = owner.split_once('.')?;
    Some(format!("{namespace}/{name}"))
}

#[cfg(test)]
#[path = "deploy_tests.rs"]
mod tests;
