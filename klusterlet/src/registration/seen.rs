//! How the cluster stands at the hub, in plain words for whoever reads the log: one line when it changes. The requests that
//! are refused meanwhile say the same many times over, and less plainly.

use super::session::{is_accepted, is_denied};
use muster_crds::cluster::v1::ManagedCluster;

/// What was last seen of the cluster at the hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nothing yet.
    #[default]
    Nothing,
    /// The hub does not let it see its ManagedCluster, and it never did in this session.
    Refused,
    /// Nobody has accepted it so far.
    Waiting,
    /// The hub lets it in.
    Accepted,
    /// The hub let it in and does so no longer.
    Denied,
    /// Its ManagedCluster is being deleted: it goes when what the works applied is taken away.
    Leaving,
    /// It has no ManagedCluster any more.
    Gone,
}

impl Seen {
    /// By its ManagedCluster; `None` while the hub is at it.
    pub fn of(cluster: &ManagedCluster) -> Option<Self> {
        if cluster.metadata.deletion_timestamp.is_some() {
            Some(Self::Leaving)
        } else if is_denied(cluster) {
            Some(Self::Denied)
        } else if !cluster.spec.hub_accepts_client {
            Some(Self::Waiting)
        } else {
            is_accepted(cluster).then_some(Self::Accepted)
        }
    }

    /// After the hub refused to show it its ManagedCluster. Whoever was let in may see it as long as it is there.
    pub fn refused(self) -> Self {
        match self {
            Self::Nothing => Self::Refused,
            Self::Accepted => Self::Gone,
            same => same,
        }
    }

    /// What there is to say when it stood as `before`.
    pub fn words(self, before: Self) -> Option<&'static str> {
        match self {
            same if same == before => None,
            Self::Refused => Some(
                "the hub does not let this cluster in: it waits to be accepted there (spec.hubAcceptsClient of its \
                 ManagedCluster), or is no longer a cluster of the hub",
            ),
            // Said already.
            Self::Waiting if before == Self::Refused => None,
            Self::Waiting => Some(
                "this cluster waits to be accepted at the hub: spec.hubAcceptsClient of its ManagedCluster is false",
            ),
            Self::Accepted if before == Self::Nothing => None,
            Self::Accepted => Some("the hub accepts this cluster"),
            Self::Denied => Some(
                "the hub denied this cluster (spec.hubAcceptsClient is false): it reports nothing and applies nothing new, \
                 and what it applied stays; it goes on when it is accepted again",
            ),
            Self::Leaving => Some(
                "this cluster is being detached at the hub: what its works applied is taken away, and then it is no longer a \
                 cluster of the hub; stop the klusterlet then, or give it a new bootstrap kubeconfig to join again",
            ),
            // Said already.
            Self::Gone if before == Self::Leaving => None,
            Self::Gone if matches!(before, Self::Nothing | Self::Refused | Self::Waiting) => {
                Some("the hub has no ManagedCluster of this cluster")
            }
            Self::Gone => Some(
                "this cluster is no longer a cluster of the hub, it was detached or denied there: nothing is reported any more, and \
                 what it applied stays; stop the klusterlet, or give it a new bootstrap kubeconfig to join again",
            ),
            Self::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Seen::{Accepted, Denied, Gone, Leaving, Nothing, Refused, Waiting};

    #[test]
    fn it_is_said_once_and_plainly() {
        for (before, now, wanted) in [
            (Nothing, Accepted, None),
            (Nothing, Waiting, Some("waits to be accepted")),
            (Nothing, Refused, Some("waits to be accepted")),
            (Refused, Refused, None),
            (Refused, Waiting, None),
            (Waiting, Accepted, Some("accepts")),
            (Refused, Accepted, Some("accepts")),
            (Accepted, Accepted, None),
            (Accepted, Denied, Some("denied")),
            (Denied, Accepted, Some("accepts")),
            (Accepted, Gone, Some("no longer a cluster of the hub")),
            (Denied, Gone, Some("no longer a cluster of the hub")),
            (Accepted, Leaving, Some("being detached")),
            (Leaving, Gone, None),
            (Waiting, Gone, Some("no ManagedCluster")),
            (Gone, Waiting, Some("waits to be accepted")),
        ] {
            let words = now.words(before);
            assert_eq!(words.is_some(), wanted.is_some(), "{before:?} {now:?}: {words:?}");
            assert!(
                words.unwrap_or_default().contains(wanted.unwrap_or_default()),
                "{before:?} {now:?}: {words:?}"
            );
        }
    }

    #[test]
    fn a_refusal_says_what_it_can_after_what_was_seen() {
        for (before, wanted) in [
            (Nothing, Refused),
            (Refused, Refused),
            (Waiting, Waiting),
            (Accepted, Gone),
            (Denied, Denied),
            (Leaving, Leaving),
            (Gone, Gone),
        ] {
            assert_eq!(before.refused(), wanted);
        }
    }

    #[test]
    fn a_cluster_that_is_just_being_accepted_is_not_told_to_wait() {
        let cluster = |accepts: bool, condition: Option<&str>| -> ManagedCluster {
            let conditions: Vec<_> = condition
                .iter()
                .map(|status| {
                    serde_json::json!({"type": "HubAcceptedManagedCluster", "status": status, "reason": "R",
                        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
                })
                .collect();
            serde_json::from_value(
                serde_json::json!({"apiVersion": "cluster.open-cluster-management.io/v1",
                "kind": "ManagedCluster", "metadata": {"name": "c"}, "spec": {"hubAcceptsClient": accepts},
                "status": {"conditions": conditions}}),
            )
            .unwrap()
        };
        for (accepts, condition, wanted) in [
            (false, None, Some(Waiting)),
            (true, None, None),
            (true, Some("True"), Some(Accepted)),
            (false, Some("True"), Some(Denied)),
            (true, Some("False"), None),
        ] {
            assert_eq!(
                Seen::of(&cluster(accepts, condition)),
                wanted,
                "{accepts} {condition:?}"
            );
        }
    }
}
