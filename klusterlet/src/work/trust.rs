//! What a hub says is believed as far as it goes on from what it said before (law 3). A hub that was restored from a backup,
//! or another one at the same address, may have other works of the same names, older ones, or none. What they say is
//! applied, but nothing is removed for it before the grace period is over, and it is told why.

use jiff::{SignedDuration, Timestamp};
use muster_crds::conditions::{NewCondition, find};
use muster_crds::constants::{annotations, conditions as types, reasons};
use muster_crds::work::v1::{AppliedManifestWork, ManifestWork};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which work it was that the cluster last heard of under a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Its UID.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
}

impl Told {
    /// Of a work.
    pub fn of(work: &ManifestWork) -> Self {
        Self {
            uid: work.metadata.uid.clone().unwrap_or_default(),
            generation: work.metadata.generation.unwrap_or_default(),
        }
    }
}

/// Which hub it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubSeen {
    /// UID of this cluster's ManagedCluster: another hub has another.
    pub cluster: String,
    /// Highest resourceVersion that it had; a hub that was restored has a lower one. 0: not comparable.
    pub revision: u64,
}

/// Why removal waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The work is another one, of the same name.
    Another,
    /// The work is as it was before.
    Older,
    /// The work was gone, and it is not known whether what is there now is the same.
    Back,
}

impl Doubt {
    /// Reason in conditions and annotations.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Another => reasons::HUB_REPLACED,
            Self::Older => reasons::HUB_RESTORED,
            Self::Back => reasons::WORKS_GONE,
        }
    }
}

/// Whether a work goes on from what the cluster was told before. `of`: UID of the work that the record was made for, where it
/// says so; what was told of another is of no account then. `evicting`: it was gone in between. `ended`: whether the hub was
/// seen to delete the work with a UID; the next by its name goes on from there then.
pub fn doubt(
    of: Option<&str>,
    told: Option<&Told>,
    work: &ManifestWork,
    evicting: bool,
    ended: impl Fn(&str) -> bool,
) -> Option<Doubt> {
    let now = Told::of(work);
    let before = of.or(told.map(|told| told.uid.as_str()));
    if before.is_some_and(|before| before != now.uid && ended(before)) {
        return None;
    }
    if of.is_some_and(|of| of != now.uid) {
        return Some(Doubt::Another);
    }
    match told.filter(|told| of.is_none_or(|of| of == told.uid)) {
        None => evicting.then_some(Doubt::Back),
        Some(told) if told.uid != now.uid => Some(Doubt::Another),
        Some(told) if told.generation > now.generation => Some(Doubt::Older),
        Some(_) => None,
    }
}

/// Whether a work ended before it was ever told to be applied. A kube-apiserver forgets a finalizer that is added in the
/// middle of a deletion, and then the work ends without its agent's doing.
pub fn has_hardly_begun(work: &ManifestWork) -> bool {
    let conditions = work.status.as_ref().map(|status| status.conditions.as_slice());
    find(conditions.unwrap_or_default(), types::APPLIED).is_none()
}

/// Whether a hub goes on from what it was before; the reason why not.
pub fn changed(before: &HubSeen, now: &HubSeen) -> Option<&'static str> {
    if before.cluster != now.cluster {
        Some(reasons::HUB_REPLACED)
    } else if now.revision != 0 && now.revision < before.revision {
        Some(reasons::HUB_RESTORED)
    } else {
        None
    }
}

/// Whether what changed is most likely only that the cluster was registered anew: by another name, or after it was detached.
/// The hub has gone on since then, which one that was restored or replaced has only by chance.
pub fn is_anew(before: &HubSeen, now: &HubSeen) -> bool {
    before.cluster != now.cluster && before.revision != 0 && now.revision > before.revision
}

/// Since when, and why, nothing that a work applied may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
}

impl Hold {
    /// As the annotation of an AppliedManifestWork has it.
    pub fn of(applied: &AppliedManifestWork) -> Option<Self> {
        let text = applied
            .metadata
            .annotations
            .as_ref()?
            .get(annotations::REMOVAL_HELD)?;
        let (since, reason) = text.split_once(' ').unwrap_or((text, reasons::WORKS_GONE));
        Some(Self {
            // What can not be read holds nothing up for ever.
            since: since.parse().unwrap_or(Timestamp::UNIX_EPOCH),
            reason: reason.to_owned(),
        })
    }

    /// The annotation.
    pub fn text(&self) -> String {
        format!("{} {}", self.since, self.reason)
    }

    /// When it is over.
    pub fn until(&self, grace: Duration) -> Timestamp {
        later(self.since, grace)
    }

    /// What is left of it.
    pub fn left(&self, now: Timestamp, grace: Duration) -> Option<Duration> {
        let left = Duration::try_from(self.until(grace).duration_since(now)).ok()?;
        // A clock that was set back makes nothing last longer than it should.
        (!left.is_zero()).then_some(left.min(grace))
    }

    /// In words, for the work itself.
    pub fn told(&self, grace: Duration) -> String {
        format!(
            "nothing that this work applied before is removed from the cluster before {}: {}. To remove it now, take the \
             annotation {} off the AppliedManifestWork on the cluster",
            self.until(grace),
            why(&self.reason, "the work was gone from the hub for a while"),
            annotations::REMOVAL_HELD
        )
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn why<'a>(reason: &str, otherwise: &'a str) -> &'a str {
    match reason {
        reasons::HUB_REPLACED => {
            "the hub is another one than before, or was restored, and has another work of this name"
        }
        reasons::HUB_RESTORED => "the hub was restored from an older backup",
        _ => otherwise,
    }
}

/// Names told at most.
const NAMES: usize = 5;

/// What is on the cluster without the hub saying so, as a condition of the ManagedCluster; `None`: nothing. `hub`: why the
/// hub itself is not what it was.
pub fn kept<'a>(
    all: impl Iterator<Item = &'a AppliedManifestWork>,
    hub: Option<&'static str>,
    grace: Duration,
) -> Option<NewCondition> {
    let mut works: Vec<(&str, Timestamp)> = all
        .filter(|a| a.metadata.deletion_timestamp.is_none())
        .filter_map(|applied| {
            let since = applied.status.as_ref()?.eviction_start_time.as_ref()?.0;
            Some((applied.spec.manifest_work_name.as_str(), later(since, grace)))
        })
        .collect();
    works.sort_unstable();
    let first = works.iter().map(|(_, until)| *until).min()?;
    let mut names: Vec<&str> = works.iter().take(NAMES).map(|(name, _)| *name).collect();
    let more = format!("and {} more", works.len().saturating_sub(NAMES));
    if works.len() > NAMES {
        names.push(&more);
    }
    let reason = hub.unwrap_or(reasons::WORKS_GONE);
    let because = match reason {
        reasons::HUB_REPLACED => "it is another hub than before, or this cluster was registered anew",
        reasons::HUB_RESTORED => "it was restored from an older backup",
        _ => "they were there before and are not listed any more",
    };
    let message = format!(
        "The hub does not have {} of the works that are applied here ({}): {because}. What they applied stays until {first}; \
         works of the same names keep it",
        works.len(),
        names.join(", "),
    );
    Some(NewCondition::new(types::WORKS_KEPT, true, reason, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn work(uid: &str, generation: i64) -> ManifestWork {
        serde_json::from_value(
            json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
            "metadata": {"name": "w", "uid": uid, "generation": generation}}),
        )
        .unwrap()
    }

    fn applied(name: &str, metadata: &serde_json::Value, evicted: Option<&str>) -> AppliedManifestWork {
        serde_json::from_value(
            json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "AppliedManifestWork",
            "metadata": metadata, "spec": {"manifestWorkName": name, "hubHash": "h", "agentID": "a"},
            "status": {"evictionStartTime": evicted}}),
        )
        .unwrap()
    }

    #[test]
    fn only_what_goes_on_from_before_is_believed_at_once() {
        let told = Told {
            uid: "a".into(),
            generation: 5,
        };
        let cases = [
            (None, None, work("a", 1), false, None),
            (None, None, work("a", 1), true, Some(Doubt::Back)),
            (None, Some(&told), work("a", 5), false, None),
            (None, Some(&told), work("a", 5), true, None),
            (None, Some(&told), work("a", 6), false, None),
            (None, Some(&told), work("a", 4), false, Some(Doubt::Older)),
            (None, Some(&told), work("b", 9), false, Some(Doubt::Another)),
            (None, Some(&told), work("b", 5), true, Some(Doubt::Another)),
            // The record knows which work it was made for.
            (Some("a"), Some(&told), work("a", 5), false, None),
            (Some("a"), Some(&told), work("a", 4), false, Some(Doubt::Older)),
            (Some("a"), None, work("a", 1), true, Some(Doubt::Back)),
            (Some("a"), Some(&told), work("b", 9), false, Some(Doubt::Another)),
            (Some("a"), None, work("b", 9), false, Some(Doubt::Another)),
            // It was deleted and made again, and what is remembered is older than that.
            (Some("b"), Some(&told), work("b", 1), false, None),
            (Some("b"), Some(&told), work("b", 1), true, Some(Doubt::Back)),
        ];
        for (of, told, work, evicting, expected) in cases {
            let found = doubt(of, told, &work, evicting, |_| false);
            assert_eq!(found, expected, "{of:?} {told:?} {:?}", work.metadata);
        }
        // The hub was seen to delete the work `a`.
        let ended = |uid: &str| uid == "a";
        for (of, told, work, expected) in [
            (Some("a"), Some(&told), work("b", 1), None),
            (Some("a"), None, work("b", 1), None),
            (None, Some(&told), work("b", 1), None),
            (Some("x"), Some(&told), work("b", 1), Some(Doubt::Another)),
            (Some("a"), Some(&told), work("a", 4), Some(Doubt::Older)),
        ] {
            for evicting in [false, true] {
                let found = doubt(of, told, &work, evicting, ended);
                assert_eq!(found, expected, "{of:?} {told:?} {:?}", work.metadata);
            }
        }
    }

    #[test]
    fn a_work_that_was_told_to_be_applied_has_begun() {
        let mut work = work("a", 1);
        assert!(has_hardly_begun(&work));
        work.status = serde_json::from_value(json!({"conditions": []})).unwrap();
        assert!(has_hardly_begun(&work));
        work.status = serde_json::from_value(json!({"conditions": [{"type": "Applied", "status": "False",
            "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}))
        .unwrap();
        assert!(!has_hardly_begun(&work));
    }

    #[test]
    fn another_hub_and_an_older_one_are_known() {
        let seen = |cluster: &str, revision| HubSeen {
            cluster: cluster.into(),
            revision,
        };
        let before = seen("a", 100);
        for (now, expected, anew) in [
            (seen("a", 100), None, false),
            (seen("a", 101), None, false),
            (seen("a", 0), None, false),
            (seen("a", 99), Some(reasons::HUB_RESTORED), false),
            (seen("b", 500), Some(reasons::HUB_REPLACED), true),
            (seen("b", 99), Some(reasons::HUB_REPLACED), false),
            (seen("b", 0), Some(reasons::HUB_REPLACED), false),
        ] {
            assert_eq!(changed(&before, &now), expected, "{now:?}");
            assert_eq!(is_anew(&before, &now), anew, "{now:?}");
        }
    }

    #[test]
    fn a_hold_is_kept_on_the_cluster_and_ends() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let grace = Duration::from_secs(60);
        let hold = Hold {
            since: at(1000),
            reason: reasons::HUB_RESTORED.into(),
        };
        let annotated = applied(
            "w",
            &json!({"annotations": {(annotations::REMOVAL_HELD): hold.text()}}),
            None,
        );
        assert_eq!(Hold::of(&annotated), Some(hold.clone()));
        for (now, left) in [
            (1000, Some(60)),
            (1059, Some(1)),
            (1060, None),
            (5000, None),
            (0, Some(60)),
        ] {
            assert_eq!(hold.left(at(now), grace), left.map(Duration::from_secs), "{now}");
        }
        assert!(hold.told(grace).contains("older backup"));
        let broken = applied(
            "w",
            &json!({"annotations": {(annotations::REMOVAL_HELD): "soon"}}),
            None,
        );
        assert_eq!(Hold::of(&broken).unwrap().left(at(1000), grace), None);
        assert_eq!(Hold::of(&applied("w", &json!({}), None)), None);
    }

    #[test]
    fn what_is_kept_is_told() {
        let grace = Duration::from_secs(3600);
        let since = Some("2026-01-01T00:00:00Z");
        let gone: Vec<_> = (0..7)
            .map(|i| applied(&format!("w{i}"), &json!({"name": i.to_string()}), since))
            .chain([applied("there", &json!({"name": "t"}), None)])
            .collect();
        let told = kept(gone.iter(), None, grace).unwrap();
        assert_eq!(told.reason, reasons::WORKS_GONE);
        for part in [
            "7 of the works",
            "(w0, w1, w2, w3, w4, and 2 more)",
            "until 2026-01-01T01:00:00Z",
        ] {
            assert!(told.message.contains(part), "{}", told.message);
        }
        let told = kept(gone.iter().take(1), Some(reasons::HUB_RESTORED), grace).unwrap();
        assert!(told.message.contains("older backup"), "{}", told.message);
        assert!(kept(gone.iter().skip(7), Some(reasons::HUB_REPLACED), grace).is_none());
    }
}
