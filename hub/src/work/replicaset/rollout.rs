//! Which clusters a change reaches next (ocm-wire §4): all at once, so many at a time, or a decision group at a time.
//!
//! Nothing is kept between two looks: how far a rollout is follows from what the clusters say of the present template.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use muster_crds::cluster::v1alpha1::{MandatoryDecisionGroup, RolloutConfig, RolloutStrategy, RolloutType};

/// A decision group: clusters, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its index.
    pub index: i32,
    /// Its name; often empty.
    pub name: String,
    /// Its clusters, by name.
    pub clusters: Vec<String>,
}

/// How far a cluster is with the template, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has no work, or one of another template.
    ToApply,
    /// It has the template, and has not said what came of it.
    Applying(Option<Timestamp>),
    /// It is not yet what it should be.
    Progressing(Option<Timestamp>),
    /// Something is wrong.
    Failed(Option<Timestamp>),
    /// It is what it should be.
    Succeeded(Option<Timestamp>),
}

/// What comes next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// Clusters that get the template now.
    pub start: Vec<String>,
    /// Clusters that took longer than they may.
    pub timed_out: Vec<String>,
    /// How many are done, and have been for long enough.
    pub succeeded: usize,
    /// More failed than may: nothing new is started.
    pub breach: bool,
    /// When time alone may change the answer.
    pub recheck: Option<Duration>,
}

/// How the template comes to the clusters of `groups` (by index); an error says what of the strategy makes no sense.
pub fn plan(
    strategy: &RolloutStrategy,
    groups: &[Group],
    state: impl Fn(&str) -> State,
    now: Timestamp,
) -> Result<Rollout, String> {
    let none = RolloutConfig::default();
    let all: Vec<&Group> = groups.iter().collect();
    match strategy.type_ {
        RolloutType::All => {
            let config = strategy.all.as_ref().map_or(&none, |all| &all.config);
            let mut engine = Engine::new(config, state, now)?;
            let clusters = members(&all);
            let everything = clusters.len();
            engine.clusters(&clusters, everything, everything);
            Ok(engine.rollout)
        }
        RolloutType::Progressive => {
            let given = strategy.progressive.as_ref();
            let mut engine = Engine::new(given.map_or(&none, |given| &given.config), state, now)?;
            let listed = given.map_or(&[][..], |given| &given.mandatory_decision_groups);
            let (mandatory, rest) = split(&all, listed);
            let rest = members(&rest);
            let total = rest.len();
            // Clients in Go send 0 when nothing was said.
            let concurrency = match share(given.and_then(|given| given.max_concurrency.as_ref()), total)? {
                0 => total,
                some => some,
            };
            let failures = share(given.and_then(|given| given.config.max_failures.as_ref()), total)?;
            if engine.groups(&mandatory, 0) {
                engine.clusters(&rest, concurrency, failures);
            } else {
                engine.look(&rest);
            }
            Ok(engine.rollout)
        }
        RolloutType::ProgressivePerGroup => {
            let given = strategy.progressive_per_group.as_ref();
            let mut engine = Engine::new(given.map_or(&none, |given| &given.config), state, now)?;
            let listed = given.map_or(&[][..], |given| &given.mandatory_decision_groups);
            let (mandatory, rest) = split(&all, listed);
            let total = members(&rest).len();
            let failures = share(given.and_then(|given| given.config.max_failures.as_ref()), total)?;
            if engine.groups(&mandatory, 0) {
                engine.groups(&rest, failures);
            } else {
                engine.look(&members(&rest));
            }
            Ok(engine.rollout)
        }
    }
}

/// How a cluster counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Waits,
    InFlight { failed: bool },
    TimedOut,
    Done,
}

struct Engine<F> {
    state: F,
    now: Timestamp,
    soak: SignedDuration,
    deadline: Option<SignedDuration>,
    rollout: Rollout,
}

impl<F: Fn(&str) -> State> Engine<F> {
    fn new(config: &RolloutConfig, state: F, now: Timestamp) -> Result<Self, String> {
        let soak = config.min_success_time.as_deref().unwrap_or_default();
        let soak = if soak.is_empty() {
            SignedDuration::ZERO
        } else {
            duration(soak).ok_or_else(|| format!("minSuccessTime {soak:?} is no duration like 5m"))?
        };
        let deadline = match config.progress_deadline.as_deref() {
            None | Some("" | "None") => None,
            Some(text) => Some(duration(text).ok_or_else(|| {
                format!("progressDeadline {text:?} is neither None nor a duration like 5m")
            })?),
        };
        Ok(Self {
            state,
            now,
            soak,
            deadline,
            rollout: Rollout::default(),
        })
    }

    /// Whether `span` has passed since `since`; when not, somebody has to look again.
    fn passed(&mut self, since: Timestamp, span: SignedDuration) -> bool {
        let left = since
            .checked_add(span)
            .map_or(SignedDuration::MAX, |due| due.duration_since(self.now));
        if left <= SignedDuration::ZERO {
            return true;
        }
        let left = Duration::try_from(left).unwrap_or(Duration::MAX);
        self.rollout.recheck = Some(self.rollout.recheck.map_or(left, |before| before.min(left)));
        false
    }

    fn standing(&mut self, cluster: &str) -> Standing {
        let (since, failed) = match (self.state)(cluster) {
            State::ToApply => return Standing::Waits,
            State::Succeeded(since) => {
                let soaked = since.is_none_or(|since| self.passed(since, self.soak));
                if soaked {
                    self.rollout.succeeded += 1;
                    return Standing::Done;
                }
                return Standing::InFlight { failed: false };
            }
            State::Applying(since) | State::Progressing(since) => (since, false),
            State::Failed(since) => (since, true),
        };
        match (since, self.deadline) {
            (Some(since), Some(deadline)) if self.passed(since, deadline) => {
                self.rollout.timed_out.push(cluster.to_owned());
                Standing::TimedOut
            }
            _ => Standing::InFlight { failed },
        }
    }

    fn look(&mut self, clusters: &[&str]) -> Vec<Standing> {
        clusters.iter().map(|cluster| self.standing(cluster)).collect()
    }

    /// So many clusters at a time.
    fn clusters(&mut self, clusters: &[&str], at_a_time: usize, max_failures: usize) {
        let standings = self.look(clusters);
        let under_way = in_flight(&standings);
        let breach = failures(&standings) > max_failures;
        self.rollout.breach |= breach;
        if !breach {
            let waiting = waiting(clusters, &standings);
            let room = at_a_time.saturating_sub(under_way);
            self.rollout.start.extend(waiting.take(room).map(str::to_owned));
        }
    }

    /// A group at a time. Whether all are through, and no more failed than may.
    fn groups(&mut self, groups: &[&Group], max_failures: usize) -> bool {
        let looked: Vec<(Vec<&str>, Vec<Standing>)> = groups
            .iter()
            .map(|group| {
                let clusters = members(&[*group]);
                let standings = self.look(&clusters);
                (clusters, standings)
            })
            .collect();
        let failed: usize = looked.iter().map(|(_, standings)| failures(standings)).sum();
        let breach = failed > max_failures;
        self.rollout.breach |= breach;
        for (clusters, standings) in &looked {
            let mut waiting = waiting(clusters, standings).peekable();
            if waiting.peek().is_some() || in_flight(standings) > 0 {
                if !breach {
                    self.rollout.start.extend(waiting.map(str::to_owned));
                }
                return false;
            }
        }
        !breach
    }
}

fn in_flight(standings: &[Standing]) -> usize {
    let flying = |standing: &&Standing| matches!(standing, Standing::InFlight { .. });
    standings.iter().filter(flying).count()
}

fn failures(standings: &[Standing]) -> usize {
    let bad =
        |standing: &&Standing| matches!(standing, Standing::TimedOut | Standing::InFlight { failed: true });
    standings.iter().filter(bad).count()
}

fn waiting<'a>(clusters: &'a [&str], standings: &'a [Standing]) -> impl Iterator<Item = &'a str> {
    let pairs = clusters.iter().zip(standings);
    pairs
        .filter(|(_, standing)| **standing == Standing::Waits)
        .map(|(cluster, _)| *cluster)
}

/// The clusters of groups, by name.
fn members<'a>(groups: &[&'a Group]) -> Vec<&'a str> {
    let mut clusters: Vec<&str> = groups
        .iter()
        .flat_map(|group| group.clusters.iter().map(String::as_str))
        .collect();
    clusters.sort_unstable();
    clusters
}

/// The mandatory groups, in the order they are listed, and the others.
fn split<'a>(groups: &[&'a Group], listed: &[MandatoryDecisionGroup]) -> (Vec<&'a Group>, Vec<&'a Group>) {
    let mut rest = groups.to_vec();
    let mut mandatory = Vec::new();
    for wanted in listed {
        let is_meant = |group: &&Group| {
            if wanted.group_name.is_empty() {
                group.index == wanted.group_index
            } else {
                group.name == wanted.group_name
            }
        };
        while let Some(place) = rest.iter().position(is_meant) {
            mandatory.push(rest.remove(place));
        }
    }
    (mandatory, rest)
}

/// A number, or a share of `total`, rounded up; 0 when nothing is said.
fn share(given: Option<&IntOrString>, total: usize) -> Result<usize, String> {
    let text = match given {
        None => return Ok(0),
        Some(IntOrString::Int(number)) => return Ok(usize::try_from(*number).unwrap_or(0)),
        Some(IntOrString::String(text)) => text,
    };
    let wrong = || format!("{text:?} is neither a number nor a share like 25%");
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent: usize = percent.parse().map_err(|_| wrong())?;
            Ok(total.saturating_mul(percent).div_ceil(100))
        }
        None => text.parse().map_err(|_| wrong()),
    }
}

/// A duration as Go writes it: `90s`, `1h30m`, `1.5h`, `0`. Not a negative one.
fn duration(text: &str) -> Option<SignedDuration> {
    if text == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut total = SignedDuration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let span = SignedDuration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(span)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
