//! Two controllers that fight over an object are noticed, and this one backs off: repairing for ever at the speed of a watch
//! would only burn both API servers (and whoever fights back would never be found).

use super::difference::Difference;
use super::drift;
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// So many repairs are made at once …
const ROUNDS: usize = 5;
/// … so many where the object was deleted: a person who does that a few times wants to see it come back …
const DELETIONS: usize = 100;
/// … within this time; after that it is a fight.
const WINDOW: Duration = Duration::from_secs(120);
/// First and longest wait between repairs in a fight.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The fight over one object, if there is one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contention {
    rounds: Vec<Instant>,
    deletions: Vec<Instant>,
    level: u32,
    until: Option<Instant>,
    told: String,
    /// What the API server said last that an apply makes of the object.
    confirmed: String,
}

/// What became of an object that was as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drifted {
    /// It is another.
    Changed,
    /// It is gone.
    Deleted,
}

/// What to do about drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Take it back.
    Repair,
    /// Not before this has passed.
    Wait(Duration),
}

impl Contention {
    /// The object drifted. `told` says who did what, for people.
    pub fn drifted(&mut self, now: Instant, how: Drifted, told: String) -> Verdict {
        let (rounds, most) = match how {
            Drifted::Changed => (&mut self.rounds, ROUNDS),
            Drifted::Deleted => (&mut self.deletions, DELETIONS),
        };
        if let Some(until) = self.until {
            if now < until {
                return Verdict::Wait(until - now);
            }
            self.until = None;
            self.level = self.level.saturating_add(1);
            rounds.push(now);
            return Verdict::Repair;
        }
        rounds.retain(|at| now.duration_since(*at) < WINDOW);
        if rounds.len() < most && self.level == 0 {
            rounds.push(now);
            return Verdict::Repair;
        }
        self.told = told;
        self.level = self.level.max(1);
        let wait = self.wait();
        self.until = Some(now + wait);
        Verdict::Wait(wait)
    }

    /// Whether it was repaired lately, or is fought over.
    pub fn is_known(&self) -> bool {
        *self != self.over()
    }

    /// No fight any more.
    fn over(&self) -> Self {
        Self {
            confirmed: self.confirmed.clone(),
            ..Self::default()
        }
    }

    /// An apply was answered with this.
    pub fn confirm(&mut self, print: String) {
        self.confirmed = print;
    }

    /// Whether that was the last answer.
    pub fn is_confirmed(&self, print: &str) -> bool {
        self.confirmed == print
    }

    /// The repair that was to be made last changed nothing: it was none.
    pub fn nothing_changed(&mut self) {
        self.rounds.pop();
    }

    /// The object that was to be made again last was not.
    pub fn not_made(&mut self) {
        self.deletions.pop();
    }

    /// The object is as it should be. While a fight is not over: when to look whether it is.
    pub fn calm(&mut self, now: Instant) -> Option<Duration> {
        if self.level == 0 {
            for rounds in [&mut self.rounds, &mut self.deletions] {
                rounds.retain(|at| now.duration_since(*at) < WINDOW);
            }
            return None;
        }
        self.until = None;
        let last = self.rounds.last().max(self.deletions.last());
        let over = last.map(|last| *last + 2 * self.wait());
        match over {
            Some(over) if now < over => Some(over - now),
            _ => {
                *self = self.over();
                None
            }
        }
    }

    /// Who fights over what, while they do.
    pub fn told(&self) -> Option<&str> {
        (self.level > 0).then_some(self.told.as_str())
    }

    fn wait(&self) -> Duration {
        WAITS
            .0
            .saturating_mul(1 << (self.level.saturating_sub(1)).min(10))
            .min(WAITS.1)
    }
}

/// Who keeps changing an object: the field managers that wrote the differing fields, the last to write first; where they are
/// this agent itself, the other works that have the object; else the last foreign one.
pub fn writers(live: &Value, differences: &[Difference], rivals: &[String]) -> Vec<String> {
    let mut entries: Vec<(&Value, Option<Timestamp>)> = live["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|e| drift::is_foreign(e))
        .map(|e| (e, e["time"].as_str().and_then(|t| t.parse().ok())))
        .collect();
    entries.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    let wrote = |entry: &Value| differences.iter().any(|d| holds(&entry["fieldsV1"], &d.path));
    let mut names: Vec<String> = Vec::new();
    let mut add = |entry: &Value| {
        let name = entry["manager"].as_str().unwrap_or_default().to_owned();
        if !names.contains(&name) {
            names.push(name);
        }
    };
    entries.iter().filter(|(e, _)| wrote(e)).for_each(|(e, _)| add(e));
    if names.is_empty() {
        names.extend(rivals.iter().map(|work| format!("the work {work}")));
    }
    if names.is_empty()
        && let Some((last, _)) = entries.first()
    {
        let name = last["manager"].as_str().unwrap_or_default().to_owned();
        names.push(name);
    }
    names
}

/// Whether a fieldsV1 set has the path, as far as it can be followed by names: items of lists have keys there.
fn holds(fields: &Value, path: &[String]) -> bool {
    let mut at = fields;
    for step in path {
        let Some(next) = at.get(format!("f:{step}")) else {
            let Some(map) = at.as_object() else { return false };
            return map.is_empty() || map.keys().any(|k| k.starts_with("k:") || k.starts_with("v:"));
        };
        at = next;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::Drifted::{Changed, Deleted};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_fight_is_noticed_slows_down_and_ends() {
        let mut fight = Contention::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        for round in 0..ROUNDS as u64 {
            assert_eq!(fight.drifted(at(round), Changed, "x".into()), Verdict::Repair);
            assert_eq!(fight.told(), None);
            assert_eq!(fight.calm(at(round)), None);
        }
        assert_eq!(
            fight.drifted(at(10), Changed, "kubectl: spec.a".into()),
            Verdict::Wait(WAITS.0)
        );
        assert_eq!(fight.told(), Some("kubectl: spec.a"));
        assert_eq!(
            fight.drifted(at(510), Changed, "x".into()),
            Verdict::Wait(Duration::from_millis(500))
        );
        assert_eq!(fight.drifted(at(1010), Changed, "x".into()), Verdict::Repair);
        assert_eq!(
            fight.drifted(at(1020), Changed, "x".into()),
            Verdict::Wait(2 * WAITS.0),
            "it waits longer each time"
        );
        assert_eq!(fight.drifted(at(3020), Changed, "x".into()), Verdict::Repair);
        let look = fight.calm(at(3030)).unwrap();
        assert!(fight.told().is_some());
        assert_eq!(fight.calm(at(3030) + look), None);
        assert_eq!(fight, Contention::default());
    }

    #[test]
    fn an_object_is_made_again_many_times_before_it_is_a_fight() {
        let mut fight = Contention::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        for round in 0..DELETIONS as u64 {
            assert_eq!(fight.drifted(at(round), Deleted, "x".into()), Verdict::Repair);
            assert_eq!(fight.calm(at(round)), None);
        }
        let now = at(DELETIONS as u64);
        assert_eq!(fight.clone().drifted(now, Changed, "x".into()), Verdict::Repair);
        let mut failing = fight.clone();
        failing.not_made();
        assert_eq!(failing.drifted(now, Deleted, "x".into()), Verdict::Repair);
        assert_eq!(
            fight.drifted(now, Deleted, "it goes".into()),
            Verdict::Wait(WAITS.0)
        );
        assert_eq!(fight.told(), Some("it goes"));
    }

    #[test]
    fn repairs_that_change_nothing_are_no_fight() {
        let mut fight = Contention::default();
        let start = Instant::now();
        for round in 0..3 * ROUNDS as u64 {
            let now = start + Duration::from_millis(round);
            assert_eq!(fight.drifted(now, Changed, "x".into()), Verdict::Repair);
            fight.nothing_changed();
            fight.confirm(format!("{round}"));
            assert!(!fight.is_known() && fight.is_confirmed(&format!("{round}")));
        }
    }

    #[test]
    fn repairs_far_apart_are_no_fight() {
        let mut fight = Contention::default();
        let start = Instant::now();
        for round in 0..50 {
            assert_eq!(
                fight.drifted(start + round * WINDOW / 4, Changed, "x".into()),
                Verdict::Repair
            );
        }
    }

    #[test]
    fn writers_of_the_fields_are_named() {
        let entry = |manager: &str, time: &str, fields: Value| json!({"manager": manager, "operation": "Update", "time": time, "fieldsV1": fields});
        let live = json!({"metadata": {"managedFields": [
            entry("old", "2026-01-01T00:00:00Z", json!({"f:spec": {"f:replicas": {}}})),
            entry("new", "2026-01-02T00:00:00Z", json!({"f:spec": {"f:replicas": {}}})),
            entry("other", "2026-01-03T00:00:00Z", json!({"f:data": {"f:k": {}}})),
            entry(drift::FIELD_MANAGER, "2026-01-04T00:00:00Z", json!({"f:spec": {"f:replicas": {}}})),
            entry("items", "2026-01-01T00:00:00Z", json!({"f:spec": {"f:list": {"k:{\"name\":\"a\"}": {"f:image": {}}}}}))]}});
        let differs = |path: &[&str]| {
            vec![Difference {
                path: path.iter().map(|s| (*s).to_owned()).collect(),
                is: None,
                should: None,
            }]
        };
        let cases: [(&[&str], &[&str]); 3] = [
            (&["spec", "replicas"], &["new", "old"]),
            (&["spec", "list", "0", "image"], &["items"]),
            (&["nobody"], &["other"]),
        ];
        for (path, expected) in cases {
            assert_eq!(writers(&live, &differs(path), &[]), expected, "{path:?}");
        }
        let rivals = ["shop".to_owned()];
        let found = |path: &[&str]| writers(&live, &differs(path), &rivals);
        assert_eq!(found(&["spec", "replicas"]), ["new", "old"]);
        assert_eq!(
            found(&["nobody"]),
            ["the work shop"],
            "this agent wrote it for another work"
        );
    }
}
