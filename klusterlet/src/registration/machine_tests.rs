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
    State::Registering {
        attempt,
        doubted,
        detached: false,
    }
}

#[test]
fn the_ways_through() {
    use Event::{Chosen, Detached, Expired, Failed, Heard, Looked, Lost, Probed, Refused, Registered};
    let detached = |attempt| State::Registering {
        attempt,
        doubted: false,
        detached: true,
    };
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
            "detached",
            true,
            vec![good, Detached],
            detached(0),
            register(NOW, false),
        ),
        (
            "detached still",
            true,
            vec![good, Detached, Failed(Failure::Denied), Detached],
            detached(1),
            Action::Continue,
        ),
        (
            "detached, and any answer",
            true,
            vec![good, Detached, Probed(Probe::Known)],
            detached(0),
            Action::Continue,
        ),
        (
            "detached, and its lease is there again",
            true,
            vec![good, Detached, Heard],
            detached(0),
            Action::Look,
        ),
        (
            "detached, and all of it is there again",
            true,
            vec![good, Detached, Heard, good],
            State::Working,
            Action::Rest,
        ),
        (
            "its lease is taken, as always",
            true,
            vec![good, Heard],
            State::Working,
            Action::Continue,
        ),
        (
            "another hub's lease",
            true,
            vec![good, bad, Heard],
            registering(0, false),
            Action::Continue,
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
    use Event::{Chosen, Detached, Expired, Failed, Heard, Looked, Lost, Probed, Refused, Registered};
    let events = [
        Detached,
        Heard,
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
