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
        let register = |doubted| {
            if bootstrap {
                let after = Duration::ZERO;
                (
                    Self::Registering { attempt: 0, doubted },
                    Action::Register { after, probe: false },
                )
            } else {
                (Self::Waiting, Action::Rest)
            }
        };
        match (self, event) {
            (_, Event::Lost) => (Self::Choosing { attempt: 0 }, Action::Choose(Duration::ZERO)),
            (Self::Choosing { .. }, Event::Chosen(true)) => (self, Action::Look),
            (Self::Choosing { attempt }, Event::Chosen(false)) => (
                Self::Choosing { attempt: attempt + 1 },
                Action::Choose(grown(seconds(1), attempt, seconds(60))),
            ),
            // Bytes say nothing against what the hub said.
            (Self::Registering { doubted: true, .. }, Event::Looked { good: true }) if bootstrap => {
                register(true)
            }
            (Self::Doubting { .. } | Self::Working, Event::Looked { good: true }) => (self, Action::Continue),
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
            (Self::Registering { attempt, doubted }, Event::Failed(failure)) => (
                Self::Registering {
                    attempt: attempt + 1,
                    doubted,
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
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    /// Plays events and returns where they lead.
    fn play(mut state: State, bootstrap: bool, events: &[Event]) -> (State, Action) {
        let mut action = Action::Rest;
        for event in events {
            (state, action) = state.step(*event, bootstrap);
        }
        (state, action)
    }

    fn registering(attempt: u32, doubted: bool) -> State {
        State::Registering { attempt, doubted }
    }

    #[test]
    fn the_ways_through() {
        use Event::{Chosen, Expired, Failed, Looked, Lost, Probed, Refused, Registered};
        let start = State::Waiting;
        let register = |after, probe| Action::Register { after, probe };
        let (good, bad) = (Looked { good: true }, Looked { good: false });
        let three = [Probed(Probe::Refused); 3];
        let believed = [&[good, Refused][..], &three].concat();
        let with = |more: &[Event]| [&believed[..], more].concat();
        let cases: Vec<(&str, bool, Vec<Event>, State, Action)> = vec![
            ("good credentials", true, vec![good], State::Working, Action::Rest),
            (
                "no credentials",
                true,
                vec![bad],
                registering(0, false),
                register(NOW, false),
            ),
            ("nothing at all", false, vec![bad], State::Waiting, Action::Rest),
            (
                "joined",
                true,
                vec![bad, Registered],
                State::Working,
                Action::Rest,
            ),
            (
                "the hub changed",
                true,
                vec![good, bad],
                registering(0, false),
                register(NOW, false),
            ),
            (
                "the token changed",
                true,
                vec![good, good],
                State::Working,
                Action::Continue,
            ),
            (
                "bootstrap data vanished",
                false,
                vec![good, good],
                State::Working,
                Action::Continue,
            ),
            (
                "expired",
                true,
                vec![good, Expired],
                registering(0, false),
                register(NOW, false),
            ),
            (
                "expired with nothing",
                false,
                vec![good, Expired],
                State::Waiting,
                Action::Rest,
            ),
            (
                "data came",
                true,
                vec![good, Expired, bad],
                registering(0, false),
                register(NOW, false),
            ),
            (
                "one 401 is asked about",
                true,
                vec![good, Refused],
                State::Doubting {
                    refusals: 0,
                    asked: 0,
                },
                Action::Probe(NOW),
            ),
            (
                "a false alarm",
                true,
                vec![good, Refused, Probed(Probe::Known)],
                State::Working,
                Action::Rest,
            ),
            (
                "believed",
                true,
                believed.clone(),
                registering(0, true),
                register(NOW, false),
            ),
            (
                "believed, with nothing to register with",
                false,
                believed.clone(),
                State::Doubting {
                    refusals: 3,
                    asked: 3,
                },
                Action::Probe(Duration::from_secs(1)),
            ),
            (
                "an outage in between starts the count anew",
                true,
                vec![
                    good,
                    Refused,
                    three[0],
                    three[0],
                    Probed(Probe::Unreachable),
                    three[0],
                ],
                State::Doubting {
                    refusals: 1,
                    asked: 4,
                },
                Action::Probe(Duration::from_secs(2)),
            ),
            (
                "the bootstrap is refused too: the old is tried again first",
                true,
                with(&[Failed(Failure::Refused)]),
                registering(1, true),
                register(Duration::from_secs(2), true),
            ),
            (
                "the hub came to its senses",
                true,
                with(&[Failed(Failure::Refused), Probed(Probe::Known)]),
                State::Working,
                Action::Rest,
            ),
            (
                "new bootstrap data while it is doubted",
                true,
                with(&[Failed(Failure::Refused), good]),
                registering(0, true),
                register(NOW, false),
            ),
            (
                "denied twice",
                true,
                vec![bad, Failed(Failure::Denied), Failed(Failure::Denied)],
                registering(2, false),
                register(Duration::from_secs(120), false),
            ),
            (
                "the credentials were put back by hand",
                true,
                vec![bad, Failed(Failure::Denied), good],
                State::Working,
                Action::Rest,
            ),
            (
                "lost",
                true,
                vec![good, Lost],
                State::Choosing { attempt: 0 },
                Action::Choose(NOW),
            ),
            (
                "chosen",
                true,
                vec![good, Lost, Chosen(true)],
                State::Choosing { attempt: 0 },
                Action::Look,
            ),
            (
                "the old one again",
                true,
                vec![good, Lost, Chosen(true), good],
                State::Working,
                Action::Rest,
            ),
            (
                "another",
                true,
                vec![good, Lost, Chosen(true), bad],
                registering(0, false),
                register(NOW, false),
            ),
            (
                "none",
                true,
                vec![good, Lost, Chosen(false), Chosen(false)],
                State::Choosing { attempt: 2 },
                Action::Choose(Duration::from_secs(2)),
            ),
            (
                "late news",
                true,
                vec![good, Probed(Probe::Refused)],
                State::Working,
                Action::Continue,
            ),
        ];
        for (what, bootstrap, events, state, action) in cases {
            assert_eq!(play(start, bootstrap, &events), (state, action), "{what}");
        }
    }

    #[test]
    fn no_sequence_of_events_leads_nowhere() {
        use Event::{Chosen, Expired, Failed, Looked, Lost, Probed, Refused, Registered};
        let events = [
            Looked { good: true },
            Looked { good: false },
            Refused,
            Probed(Probe::Known),
            Probed(Probe::Refused),
            Probed(Probe::Unreachable),
            Expired,
            Registered,
            Failed(Failure::Denied),
            Lost,
            Chosen(true),
            Chosen(false),
        ];
        // Every state that five events reach, and from each a way to Working.
        let mut states = vec![State::Waiting];
        for _ in 0..5 {
            let next: Vec<_> = states
                .iter()
                .flat_map(|s| events.iter().map(|e| s.step(*e, true).0))
                .filter(|s| !states.contains(s))
                .collect();
            states.extend(next);
            states.dedup();
        }
        for state in states {
            let (then, _) = play(
                state,
                true,
                &[
                    Chosen(true),
                    Probed(Probe::Known),
                    Looked { good: true },
                    Registered,
                ],
            );
            assert_eq!(then, State::Working, "from {state:?}");
        }
    }

    #[test]
    fn waits_grow_and_end() {
        for failure in [
            Failure::Unreachable,
            Failure::Refused,
            Failure::Denied,
            Failure::TooMany,
        ] {
            let waits: Vec<_> = (0..40).map(|n| wait(failure, n)).collect();
            assert!(waits.windows(2).all(|w| w[0] <= w[1]) && waits[39] <= Duration::from_secs(3600));
            assert!(waits[1] > waits[0]);
        }
    }
}
