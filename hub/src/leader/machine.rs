//! Who leads, as a state machine: what was seen and what time it is decide, nothing else.
//!
//! Two hubs never lead at once. A leader counts the time it was granted from before it asked, and ends when it could not
//! renew for `renew`; another takes over only when, by its own clock, nothing was written for the longer `lease` since it
//! last saw a change. No clock is compared with another's. A Lease that somebody deletes while it is held counts as held
//! until it would have run out.

use std::time::Duration;

use tokio::time::Instant;

/// How long things take: `lease` > `renew` > `retry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For how long a leader that is not heard of is waited for.
    pub lease: Duration,
    /// For how long a leader may fail to renew.
    pub renew: Duration,
    /// How often it renews, and how soon what failed is tried again.
    pub retry: Duration,
}

/// The Lease, as it was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its uid.
    pub uid: String,
    /// Its resource version.
    pub version: String,
    /// Who leads; empty: nobody.
    pub holder: String,
    /// For how long.
    pub duration: Duration,
    /// How often that changed.
    pub transitions: i32,
}

/// Where a hub stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It does not know yet.
    Starting,
    /// Another leads, or nobody.
    Following {
        /// What the Lease says; none: there is none.
        record: Option<Record>,
        /// When it last changed.
        since: Instant,
        /// Not to be tried before.
        not_before: Instant,
        /// Whether it is just being tried.
        trying: bool,
    },
    /// It leads.
    Leading {
        /// The Lease.
        record: Record,
        /// When the last renewal that succeeded was asked for.
        renewed: Instant,
        /// When the next is due.
        next: Instant,
        /// Whether one is under way.
        renewing: bool,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The Lease is like this; none: it is not there.
    Seen(Option<Record>),
    /// The Lease can not be seen.
    Unseen,
    /// The write that was asked for at that time was done.
    Wrote {
        /// The Lease after it.
        record: Record,
        /// When it was asked for.
        asked: Instant,
    },
    /// The write failed, or met another's.
    Failed,
    /// The time it was waited for has come.
    Time,
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A new Lease.
    Create,
    /// Makes this hub the holder.
    Take(Record),
    /// Keeps it the holder.
    Renew(Record),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing but wait.
    None,
    /// Write.
    Write(Write),
}

impl State {
    /// Whether this hub leads.
    pub fn leads(&self) -> bool {
        matches!(self, Self::Leading { .. })
    }

    /// Who leads instead.
    pub fn follows(&self) -> Option<&str> {
        match self {
            Self::Following {
                record: Some(record), ..
            } if !record.holder.is_empty() => Some(&record.holder),
            _ => None,
        }
    }

    /// Whether a write's end is waited for.
    pub fn waits(&self) -> bool {
        match self {
            Self::Starting => false,
            Self::Following { trying, .. } => *trying,
            Self::Leading { renewing, .. } => *renewing,
        }
    }

    /// When time alone makes a difference.
    pub fn wake(&self, timing: &Timing) -> Option<Instant> {
        match self {
            Self::Starting | Self::Following { trying: true, .. } => None,
            Self::Following {
                record,
                since,
                not_before,
                ..
            } => Some(free(record.as_ref(), *since).max(*not_before)),
            Self::Leading {
                renewed,
                next,
                renewing,
                ..
            } => {
                let end = *renewed + timing.renew;
                Some(if *renewing { end } else { end.min(*next) })
            }
        }
    }

    /// What follows.
    pub fn step(self, event: Event, now: Instant, me: &str, timing: &Timing) -> (Self, Action) {
        match self {
            Self::Starting => match event {
                Event::Seen(record) => Self::follow(record, now, now),
                Event::Unseen => Self::follow(None, now, now),
                Event::Wrote { .. } | Event::Failed | Event::Time => (self, Action::None),
            },
            Self::Following {
                record,
                since,
                not_before,
                trying,
            } => match event {
                Event::Seen(Some(seen)) if record.as_ref() != Some(&seen) => {
                    let next = Self::Following {
                        record: Some(seen),
                        since: now,
                        not_before,
                        trying,
                    };
                    next.attempt(now)
                }
                // Whoever held it may not know yet that it is gone.
                Event::Seen(None) if record.as_ref().is_some_and(|record| !record.holder.is_empty()) => {
                    let record = record.map(|record| Record {
                        uid: String::new(),
                        ..record
                    });
                    let next = Self::Following {
                        record,
                        since,
                        not_before,
                        trying,
                    };
                    next.attempt(now)
                }
                Event::Seen(None) => {
                    let next = Self::Following {
                        record: None,
                        since,
                        not_before,
                        trying,
                    };
                    next.attempt(now)
                }
                Event::Wrote { record, asked } if record.holder == me => {
                    let next = Self::Leading {
                        record,
                        renewed: asked,
                        next: asked + timing.retry,
                        renewing: false,
                    };
                    // An answer that took too long grants nothing.
                    next.keep(now, timing)
                }
                Event::Wrote { .. } | Event::Failed => {
                    let next = Self::Following {
                        record,
                        since,
                        not_before: now + timing.retry,
                        trying: false,
                    };
                    (next, Action::None)
                }
                Event::Seen(_) | Event::Unseen | Event::Time => {
                    let same = Self::Following {
                        record,
                        since,
                        not_before,
                        trying,
                    };
                    same.attempt(now)
                }
            },
            Self::Leading {
                record,
                renewed,
                next,
                renewing,
            } => match event {
                Event::Seen(Some(seen)) if seen.holder == me => {
                    // Somebody else touched it, or it is the echo of a write of ours.
                    let same = Self::Leading {
                        record: seen,
                        renewed,
                        next,
                        renewing,
                    };
                    same.keep(now, timing)
                }
                Event::Seen(seen) => Self::follow(seen, now, now + timing.retry),
                Event::Wrote { record, asked } if record.holder == me => {
                    let renewed = Self::Leading {
                        record,
                        renewed: asked,
                        next: asked + timing.retry,
                        renewing: false,
                    };
                    renewed.keep(now, timing)
                }
                Event::Wrote { record, .. } => Self::follow(Some(record), now, now + timing.retry),
                Event::Failed => {
                    let same = Self::Leading {
                        record,
                        renewed,
                        next: now + timing.retry,
                        renewing: false,
                    };
                    same.keep(now, timing)
                }
                Event::Unseen | Event::Time => {
                    let same = Self::Leading {
                        record,
                        renewed,
                        next,
                        renewing,
                    };
                    same.keep(now, timing)
                }
            },
        }
    }

    fn follow(record: Option<Record>, now: Instant, not_before: Instant) -> (Self, Action) {
        let next = Self::Following {
            record,
            since: now,
            not_before,
            trying: false,
        };
        next.attempt(now)
    }

    /// Tries to lead where nobody does.
    fn attempt(self, now: Instant) -> (Self, Action) {
        let Self::Following {
            record,
            since,
            not_before,
            trying: false,
        } = &self
        else {
            return (self, Action::None);
        };
        if now < free(record.as_ref(), *since) || now < *not_before {
            return (self, Action::None);
        }
        let write = match record {
            Some(record) if !record.uid.is_empty() => Write::Take(record.clone()),
            _ => Write::Create,
        };
        let next = Self::Following {
            record: record.clone(),
            since: *since,
            not_before: *not_before,
            trying: true,
        };
        (next, Action::Write(write))
    }

    /// Renews when it is time, and leads no more when that failed for too long.
    fn keep(self, now: Instant, timing: &Timing) -> (Self, Action) {
        let Self::Leading {
            record,
            renewed,
            next,
            renewing,
        } = self
        else {
            return (self, Action::None);
        };
        if now >= renewed + timing.renew {
            // By its own word it is held for longer yet: nobody may take it before, this hub included.
            return Self::follow(Some(record), now, now + timing.retry);
        }
        let due = now >= next && !renewing;
        let action = if due {
            Action::Write(Write::Renew(record.clone()))
        } else {
            Action::None
        };
        let same = Self::Leading {
            record,
            renewed,
            next,
            renewing: renewing || due,
        };
        (same, action)
    }
}

/// When the Lease may be taken.
fn free(record: Option<&Record>, since: Instant) -> Instant {
    match record {
        Some(record) if !record.holder.is_empty() => since + record.duration,
        _ => since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        lease: Duration::from_secs(15),
        renew: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };

    /// A hub under test: its clock counts seconds.
    struct Hub {
        state: State,
        start: Instant,
        wrote: Vec<(u64, Write)>,
    }

    impl Hub {
        fn new() -> Self {
            Self {
                state: State::Starting,
                start: Instant::now(),
                wrote: Vec::new(),
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// Brings an event at a time; what is written then, in a word.
        fn step(&mut self, seconds: u64, event: Event) -> &'static str {
            let now = self.at(seconds);
            let (next, action) = self.state.clone().step(event, now, "me", &TIMING);
            self.state = next;
            match action {
                Action::None => "",
                Action::Write(write) => {
                    let word = match write {
                        Write::Create => "create",
                        Write::Take(_) => "take",
                        Write::Renew(_) => "renew",
                    };
                    self.wrote.push((seconds, write));
                    word
                }
            }
        }

        fn wrote(&mut self, seconds: u64, asked: u64, version: &str) -> &'static str {
            let asked = self.at(asked);
            let record = lease("me", version);
            self.step(seconds, Event::Wrote { record, asked })
        }

        fn wakes(&self) -> Option<u64> {
            let wake = self.state.wake(&TIMING)?;
            Some(wake.duration_since(self.start).as_secs())
        }
    }

    fn lease(holder: &str, version: &str) -> Record {
        Record {
            uid: "u".to_owned(),
            version: version.to_owned(),
            holder: holder.to_owned(),
            duration: Duration::from_secs(if holder.is_empty() { 1 } else { 15 }),
            transitions: 0,
        }
    }

    fn seen(holder: &str, version: &str) -> Event {
        Event::Seen(Some(lease(holder, version)))
    }

    /// A hub that leads since second 0.
    fn leader() -> Hub {
        let mut hub = Hub::new();
        assert_eq!(hub.step(0, Event::Seen(None)), "create");
        assert_eq!(hub.wrote(0, 0, "1"), "");
        assert!(hub.state.leads());
        hub
    }

    #[test]
    fn the_first_leads_and_renews() {
        let mut hub = leader();
        assert_eq!(hub.wakes(), Some(2));
        assert_eq!(hub.step(2, Event::Time), "renew");
        assert_eq!(
            hub.wakes(),
            Some(10),
            "one renewal at a time, and an end to waiting for it"
        );
        // The watch may be faster than the answer.
        assert_eq!(hub.step(2, seen("me", "2")), "");
        assert_eq!(hub.wrote(3, 2, "2"), "");
        assert_eq!(hub.wakes(), Some(4));
        assert_eq!(hub.step(4, Event::Time), "renew");
    }

    #[test]
    fn another_waits_and_takes_over_when_nothing_was_heard_for_the_whole_lease() {
        let mut hub = Hub::new();
        assert_eq!(hub.step(0, seen("other", "1")), "");
        assert_eq!(hub.wakes(), Some(15));
        assert_eq!(hub.step(10, seen("other", "2")), "");
        assert_eq!(hub.wakes(), Some(25), "it was renewed");
        // The same again, after the watch was broken, is no renewal.
        assert_eq!(hub.step(20, seen("other", "2")), "");
        assert_eq!(hub.wakes(), Some(25));
        assert_eq!(hub.step(25, Event::Time), "take");
        assert_eq!(hub.wrote.last().unwrap().1, Write::Take(lease("other", "2")));
        assert_eq!(hub.wakes(), None);
        hub.wrote(25, 25, "3");
        assert!(hub.state.leads());
    }

    #[test]
    fn a_lease_that_is_let_go_of_is_taken_at_once() {
        let mut hub = Hub::new();
        hub.step(0, seen("other", "1"));
        assert_eq!(hub.step(3, seen("", "2")), "take");
        let mut late = Hub::new();
        assert_eq!(late.step(0, seen("", "1")), "take");
    }

    #[test]
    fn who_comes_second_waits_for_the_first() {
        let mut hub = Hub::new();
        assert_eq!(hub.step(0, seen("", "1")), "take");
        assert_eq!(hub.step(0, seen("other", "2")), "");
        assert_eq!(hub.step(0, Event::Failed), "");
        assert!(!hub.state.leads());
        assert_eq!(hub.wakes(), Some(15));
    }

    #[test]
    fn a_server_that_refuses_is_asked_again_and_not_at_once() {
        let mut hub = Hub::new();
        assert_eq!(hub.step(0, Event::Unseen), "create");
        assert_eq!(hub.step(0, Event::Failed), "");
        assert_eq!(hub.step(1, Event::Unseen), "");
        assert_eq!(hub.wakes(), Some(2));
        assert_eq!(hub.step(2, Event::Time), "create");
    }

    #[test]
    fn a_leader_that_cannot_renew_ends_before_another_may_begin() {
        let mut hub = leader();
        for second in [2, 4, 6, 8] {
            assert_eq!(hub.step(second, Event::Time), "renew");
            assert_eq!(hub.step(second, Event::Failed), "");
        }
        assert!(hub.state.leads());
        assert_eq!(hub.wakes(), Some(10));
        hub.step(10, Event::Time);
        assert!(!hub.state.leads());
        assert_eq!(hub.wakes(), Some(25), "and takes it no sooner than anybody");
        // An answer that never came ends it, too.
        let mut hub = leader();
        assert_eq!(hub.step(2, Event::Time), "renew");
        hub.step(10, Event::Time);
        assert!(!hub.state.leads());
        // And one that comes too late grants nothing.
        let mut hub = Hub::new();
        assert_eq!(hub.step(0, Event::Seen(None)), "create");
        hub.wrote(11, 0, "1");
        assert!(!hub.state.leads());
    }

    #[test]
    fn a_leader_ends_when_another_has_the_lease_or_nobody() {
        for event in [seen("other", "2"), seen("", "2"), Event::Seen(None)] {
            let mut hub = leader();
            hub.step(1, event.clone());
            assert!(!hub.state.leads(), "{event:?}");
        }
        // A write of somebody else's to a lease that stays its own is no reason.
        let mut hub = leader();
        hub.step(1, seen("me", "7"));
        assert!(hub.state.leads());
        assert_eq!(hub.step(2, Event::Time), "renew");
        assert_eq!(hub.wrote.last().unwrap().1, Write::Renew(lease("me", "7")));
    }

    #[test]
    fn a_lease_that_is_deleted_while_held_counts_until_it_had_run_out() {
        let mut hub = Hub::new();
        hub.step(0, seen("other", "1"));
        assert_eq!(hub.step(5, Event::Seen(None)), "");
        assert_eq!(hub.wakes(), Some(15));
        assert_eq!(hub.step(15, Event::Time), "create");
    }

    /// Two hubs, a server that loses any request or answer, any order: never two leaders at once.
    #[test]
    fn never_two_at_once() {
        for seed in 0_u64..400 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut draw = move |sides: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % sides
            };
            let start = Instant::now();
            let names = ["a", "b"];
            let mut states = [State::Starting, State::Starting];
            let mut server: Option<Record> = None;
            let mut version = 0;
            // An answer on its way: for whom, when, and what.
            let mut answers: Vec<(usize, u64, Event)> = Vec::new();
            let mut led = [0_u32; 2];
            for tick in 0_u64..600 {
                let now = start + Duration::from_millis(500 * tick);
                for (index, name) in names.into_iter().enumerate() {
                    let mut events = Vec::new();
                    let due: Vec<_> = answers
                        .iter()
                        .filter(|(to, at, _)| *to == index && *at <= tick)
                        .cloned()
                        .collect();
                    answers.retain(|(to, at, _)| *to != index || *at > tick);
                    events.extend(due.into_iter().map(|(_, _, event)| event));
                    if draw(4) == 0 {
                        events.push(Event::Seen(server.clone()));
                    }
                    if states[index].wake(&TIMING).is_some_and(|wake| wake <= now) {
                        events.push(Event::Time);
                    }
                    for event in events {
                        // An answer to a write that is not waited for any more is dropped with it.
                        let stale =
                            matches!(event, Event::Wrote { .. } | Event::Failed) && !states[index].waits();
                        if stale {
                            continue;
                        }
                        let (next, action) = states[index].clone().step(event, now, name, &TIMING);
                        states[index] = next;
                        let Action::Write(write) = action else { continue };
                        let fits = match &write {
                            Write::Create => server.is_none(),
                            Write::Take(record) | Write::Renew(record) => server
                                .as_ref()
                                .is_some_and(|there| there.version == record.version),
                        };
                        let arrives = draw(5) > 0;
                        let at = tick + draw(30);
                        if fits && arrives {
                            version += 1;
                            server = Some(lease(name, &version.to_string()));
                            let event = Event::Wrote {
                                record: lease(name, &version.to_string()),
                                asked: now,
                            };
                            let lost = draw(4) == 0;
                            answers.push((index, at, if lost { Event::Failed } else { event }));
                        } else {
                            answers.push((index, at, Event::Failed));
                        }
                    }
                    led[index] += u32::from(states[index].leads());
                }
                let both = states.iter().all(|state| {
                    // One that is past its time ends as soon as it is woken.
                    state.leads() && state.wake(&TIMING).is_some_and(|wake| wake > now)
                });
                assert!(!both, "seed {seed}, tick {tick}: {states:?}");
            }
            assert!(led[0] + led[1] > 0, "seed {seed}: nobody ever led");
        }
    }
}
