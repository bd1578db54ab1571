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

/// What a decision is made from.
pub struct Facts<'a> {
    /// The replica set.
    pub set: &'a SetView,
    /// How its works name it.
    pub owner: &'a str,
    /// What is known of its placements, in order.
    pub decided: &'a [Decided],
    /// Its works.
    pub works: &'a [Work],
    /// The time.
    pub now: Timestamp,
}

/// Decides. `current` tells whether a work has the template; `closed` why a cluster cannot have a work at present.
pub fn plan(
    facts: &Facts<'_>,
    current: impl Fn(&Work) -> bool,
    closed: impl Fn(&str) -> Option<String>,
) -> Plan {
    let look = Look::new(facts, current);
    let mut plan = Plan {
        writes: look.surplus().map(Write::delete).collect(),
        ..Plan::default()
    };
    let mut seen = HashSet::new();
    for (place, reference) in facts.set.placement_refs.iter().enumerate() {
        if seen.insert(reference.name.as_str()) {
            let (placed, writes) = look.place(place, &closed);
            plan.writes.extend(writes);
            plan.placed.push(placed);
        }
    }
    plan.recheck = plan
        .placed
        .iter()
        .filter_map(|placed| placed.rollout.recheck)
        .min();
    plan
}

/// The facts, sorted by cluster.
struct Look<'a, F> {
    facts: &'a Facts<'a>,
    current: F,
    /// Which placement has a cluster: the first that decided for it.
    claims: HashMap<&'a str, usize>,
    /// The one work that a cluster keeps.
    keepers: HashMap<&'a str, &'a Work>,
}

impl<'a, F: Fn(&Work) -> bool> Look<'a, F> {
    fn new(facts: &'a Facts<'a>, current: F) -> Self {
        let mut claims = HashMap::new();
        for (place, decided) in facts.decided.iter().enumerate() {
            for cluster in decided.groups.iter().flatten().flat_map(|group| &group.clusters) {
                claims.entry(cluster.as_str()).or_insert(place);
            }
        }
        let mut look = Self {
            facts,
            current,
            claims,
            keepers: HashMap::new(),
        };
        for work in facts.works {
            let keeper = look.keepers.get(&*work.cluster);
            if keeper.is_none_or(|keeper| look.rank(work) < look.rank(keeper)) {
                look.keepers.insert(&work.cluster, work);
            }
        }
        look
    }

    /// The lowest of a cluster's works is kept.
    fn rank(&self, work: &Work) -> (bool, bool, bool) {
        let claimed = self.claims.get(&*work.cluster);
        let at_home = claimed.is_some_and(|place| self.name(*place) == work.view.placement());
        (work.view.deleting, !at_home, !(self.current)(work))
    }

    fn name(&self, place: usize) -> &str {
        &self.facts.set.placement_refs[place].name
    }

    fn is_kept(&self, work: &Work) -> bool {
        let keeper = self.keepers.get(&*work.cluster);
        keeper.is_some_and(|keeper| keeper.name == work.name)
    }

    /// Whether a work is of a placement for which nothing is decided, on a cluster that nobody else decided for.
    fn is_undecided(&self, work: &Work) -> bool {
        let mut places = self.facts.decided.iter().enumerate();
        !self.claims.contains_key(&*work.cluster)
            && places
                .any(|(place, decided)| decided.groups.is_none() && self.name(place) == work.view.placement())
    }

    /// The works that are to go.
    fn surplus(&self) -> impl Iterator<Item = &'a Work> {
        let stays = |work: &Work| {
            if self.claims.contains_key(&*work.cluster) {
                self.is_kept(work)
            } else {
                self.is_undecided(work)
            }
        };
        let all = self.facts.works.iter();
        all.filter(move |work| !work.view.deleting && !stays(work))
    }

    /// One placement: how its works are, and what is to be done.
    fn place(&self, place: usize, closed: &impl Fn(&str) -> Option<String>) -> (Placed, Vec<Write>) {
        let decided = &self.facts.decided[place];
        let mut placed = Placed {
            name: self.name(place).to_owned(),
            decided: decided.groups.is_some(),
            ..Placed::default()
        };
        let mut writes = Vec::new();
        if let Some(groups) = &decided.groups {
            let everywhere: usize = groups.iter().map(|group| group.clusters.len()).sum();
            placed.groups = groups.iter().filter(|group| !group.clusters.is_empty()).count();
            placed.announced = decided.selected.saturating_sub(everywhere);
            let mut open = Vec::new();
            for group in groups {
                let mut clusters = Vec::new();
                let ours = |cluster: &&String| self.claims.get(cluster.as_str()) == Some(&place);
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
            writes = self.deploy(place, &open, &mut placed);
        }
        for work in self.facts.works {
            let ours = match self.claims.get(&*work.cluster) {
                Some(claimed) => *claimed == place,
                None => self.is_undecided(work) && work.view.placement() == placed.name,
            };
            if ours && self.is_kept(work) && !work.view.deleting && (self.current)(work) {
                count(&mut placed.summary, &work.view);
            }
        }
        if !placed.decided {
            // What is there is all that is known to be wanted.
            placed.clusters = usize::try_from(placed.summary.total).unwrap_or(0);
        }
        placed.summary.desired_total = i64::try_from(placed.clusters).unwrap_or(i64::MAX);
        (placed, writes)
    }

    /// Brings the template, and labels, to the clusters of these groups.
    fn deploy(&self, place: usize, groups: &[Group], placed: &mut Placed) -> Vec<Write> {
        let reference = &self.facts.set.placement_refs[place];
        let state = |cluster: &str| match self.keepers.get(cluster) {
            // Another is made when it is gone.
            Some(work) if work.view.deleting => State::Applying(None),
            Some(work) if (self.current)(work) => work.view.state(),
            _ => State::ToApply,
        };
        match rollout::plan(&reference.rollout_strategy, groups, state, self.facts.now) {
            Ok(rollout) => placed.rollout = rollout,
            Err(problem) => placed.problem = Some(problem),
        }
        let start: HashSet<&str> = placed.rollout.start.iter().map(String::as_str).collect();
        let wanted = self.facts.set.work_labels(self.facts.owner, &reference.name);
        let clusters = groups.iter().flat_map(|group| &group.clusters);
        clusters
            .filter_map(|cluster| {
                let starts = start.contains(cluster.as_str());
                match self.keepers.get(cluster.as_str()) {
                    None => starts.then(|| Write::Create {
                        cluster: cluster.clone(),
                        placement: reference.name.clone(),
                    }),
                    Some(work) => change(work, starts, &wanted),
                }
            })
            .collect()
    }
}

/// Gives a work what it lacks.
fn change(work: &Work, spec: bool, wanted: &BTreeMap<String, String>) -> Option<Write> {
    let lacks = |(key, value): &(&String, &String)| work.view.labels.get(*key) != Some(*value);
    let labels: BTreeMap<String, String> = wanted
        .iter()
        .filter(lacks)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let needed = !work.view.deleting && (spec || !labels.is_empty());
    needed.then(|| Write::Change {
        cluster: work.cluster.clone(),
        name: work.name.clone(),
        uid: work.view.uid.clone(),
        spec,
        labels,
    })
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
