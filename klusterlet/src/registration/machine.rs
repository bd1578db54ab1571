//! Where the agent stands with its hub, and what follows from what happens: the start-up and re-bootstrap of wire §2.2 as a
//! state machine that knows no client and no clock. Nothing in it ever removes anything from the managed cluster (law 3): a
//! hub that refuses the agent only makes it register again, while what it works for stays in place.

use std::time::Duration;

/// So many refusals in a row are believed: an API server that starts, or whose authentication webhook is away, says 401 too.
const BELIEVED: u32 = 3;

/// Where the agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Several hubs, none chosen: `attempt` rounds found none.
    Choosing {
        /// Rounds before.
        attempt: u32,
    },
    /// There are no good credentials, and nothing to register with.
    Waiting,
    /// Registering. A session of earlier credentials goes on meanwhile, as far as the hub lets it.
    Registering {
        /// Attempts that failed before.
        attempt: u32,
        /// The credentials look good, but the hub refuses them: it may come to its senses.
        doubted: bool,
        /// They look good, but the hub had no ManagedCluster: somebody may make it again.
        detached: bool,
    },
    /// The credentials are good as far as anybody knows.
    Working,
    /// The hub answered 401 and is asked again.
    Doubting {
        /// Refusals in a row.
        refusals: u32,
        /// Questions in all.
        asked: u32,
    },
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Credentials and bootstrap data were compared: at the start, and when either changed.
    Looked {
        /// The credentials are good for the hub the bootstrap data name.
        good: bool,
    },
    /// They were, and the credentials are good, but the hub has no ManagedCluster of this cluster.
    Detached,
    /// The hub took a renewal of the lease.
    Heard,
    /// Some request with the agent's credentials was answered 401.
    Refused,
    /// The agent's credentials were tried on purpose.
    Probed(Probe),
    /// The certificate ran out.
    Expired,
    /// A new certificate is there.
    Registered,
    /// There is none.
    Failed(Failure),
    /// The hub denied the cluster, or has not been reached for too long, and there are others.
    Lost,
    /// The hubs were asked: one of them would take the cluster, or none.
    Chosen(bool),
}

/// What a question with the agent's own credentials came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Any answer but 401: the hub knows the agent, whatever it allows.
    Known,
    /// 401.
    Refused,
    /// No answer.
    Unreachable,
}

/// Why an attempt to register failed, as far as it matters for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The hub can not be reached, or is not what it should be.
    Unreachable,
    /// The bootstrap credential is not taken, or may not do what is needed.
    Refused,
    /// A person said no.
    Denied,
    /// Too many requests wait at the hub.
    TooMany,
    /// Another cluster has the name.
    NameTaken,
    /// Anything else.
    Other,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Go on with what is being done, if anything.
    Continue,
    /// Leave what is being done; wait for something to happen.
    Rest,
    /// Compare credentials and bootstrap data.
    Look,
    /// Ask the hubs which of them would take the cluster.
    Choose(Duration),
    /// Try the agent's credentials.
    Probe(Duration),
    /// Register; try the agent's credentials once more before, when they are only doubted.
    Register {
        /// Not before this.
        after: Duration,
        /// Try the old credentials first.
        probe: bool,
    },
}

fn grown(first: Duration, attempt: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << attempt.min(16)).min(most)
}

const fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// How long to wait after an attempt to register failed. People who said no, or have to act, are asked seldom.
pub fn wait(failure: Failure, attempt: u32) -> Duration {
    match failure {
        Failure::Unreachable | Failure::Other => grown(Duration::from_millis(500), attempt, seconds(60)),
        Failure::Refused => grown(seconds(2), attempt, seconds(300)),
        Failure::Denied | Failure::TooMany | Failure::NameTaken => grown(seconds(60), attempt, seconds(3600)),
    }
}

fn probe_wait(asked: u32) -> Duration {
    grown(Duration::from_millis(250), asked, seconds(30))
}

impl State {
    /// Where it stands after `event`, and what to do. `bootstrap` says whether there is anything to register with.
    pub fn step(self, event: Event, bootstrap: bool) -> (Self, Action) {
        let begin = |doubted, detached| {
            if bootstrap {
                let after = Duration::ZERO;
                let registering = Self::Registering {
                    attempt: 0,
                    doubted,
                    detached,
                };
                (registering, Action::Register { after, probe: false })
            } else {
                (Self::Waiting, Action::Rest)
            }
        };
        let register = |doubted| begin(doubted, false);
        match (self, event) {
            (_, Event::Lost) => (Self::Choosing { attempt: 0 }, Action::Choose(Duration::ZERO)),
            // A renewal: no other answer says that the cluster may be there again.
            (Self::Choosing { .. }, Event::Chosen(true))
            | (Self::Registering { detached: true, .. }, Event::Heard) => (self, Action::Look),
            (Self::Choosing { attempt }, Event::Chosen(false)) => (
                Self::Choosing { attempt: attempt + 1 },
                Action::Choose(grown(seconds(1), attempt, seconds(60))),
            ),
            // Bytes say nothing against what the hub said.
            (Self::Registering { doubted: true, .. }, Event::Looked { good: true }) if bootstrap => {
                register(true)
            }
            // Whoever was asked goes on deciding.
            (Self::Registering { detached: true, .. }, Event::Detached)
            | (Self::Doubting { .. } | Self::Working, Event::Looked { good: true }) => {
                (self, Action::Continue)
            }
            (_, Event::Detached) => begin(false, true),
            (Self::Working, Event::Refused) => (
                Self::Doubting {
                    refusals: 0,
                    asked: 0,
                },
                Action::Probe(Duration::ZERO),
            ),
            (_, Event::Looked { good: true })
            | (
                Self::Doubting { .. } | Self::Registering { doubted: true, .. },
                Event::Probed(Probe::Known),
            )
            | (Self::Registering { .. }, Event::Registered) => (Self::Working, Action::Rest),
            (Self::Doubting { refusals, asked }, Event::Probed(Probe::Refused)) => {
                if refusals + 1 >= BELIEVED && bootstrap {
                    register(true)
                } else {
                    let next = Self::Doubting {
                        refusals: refusals + 1,
                        asked: asked + 1,
                    };
                    (next, Action::Probe(probe_wait(asked)))
                }
            }
            (Self::Doubting { asked, .. }, Event::Probed(Probe::Unreachable)) => (
                Self::Doubting {
                    refusals: 0,
                    asked: asked + 1,
                },
                Action::Probe(probe_wait(asked)),
            ),
            (_, Event::Looked { good: false })
            | (
                Self::Working | Self::Doubting { .. } | Self::Registering { doubted: true, .. },
                Event::Expired,
            ) => register(false),
            (
                Self::Registering {
                    attempt,
                    doubted,
                    detached,
                },
                Event::Failed(failure),
            ) => (
                Self::Registering {
                    attempt: attempt + 1,
                    doubted,
                    detached,
                },
                Action::Register {
                    after: wait(failure, attempt),
                    probe: doubted,
                },
            ),
            // Late news of what was left behind.
            _ => (self, Action::Continue),
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
