use super::*;
use serde_json::json;

const SINCE: &str = "2026-01-01T00:00:00Z";

fn since() -> Timestamp {
    SINCE.parse().unwrap()
}

/// An Event object of the managed cluster.
struct Told<'a> {
    event: &'a str,
    object: &'a str,
    warning: bool,
    message: &'a str,
    count: u64,
    second: i64,
}

impl Default for Told<'_> {
    fn default() -> Self {
        Self {
            event: "e",
            object: "web-1",
            warning: true,
            message: "it fails",
            count: 1,
            second: 1,
        }
    }
}

impl Told<'_> {
    fn seen(&self) -> Seen {
        let at = |second: i64| (since() + jiff::SignedDuration::from_secs(second)).to_string();
        serde_json::from_value(json!({
            "metadata": {"uid": self.event}, "reason": "Failed", "message": self.message,
            "type": if self.warning { "Warning" } else { "Normal" }, "count": self.count,
            "firstTimestamp": at(self.second.min(1)), "lastTimestamp": at(self.second),
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": self.object, "uid": self.object},
        }))
        .unwrap()
    }
}

fn record(ledger: &mut Ledger, now: Instant, work: &str, told: &Told<'_>) -> bool {
    ledger.record(now, since(), (work, work), &told.seen())
}

fn take(ledger: &mut Ledger, now: Instant) -> Note {
    match ledger.next(now) {
        Next::Tell(note) => *note,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_is_told_once_and_counted() {
    let now = Instant::now();
    let mut ledger = Ledger::new(Limits::default());
    let first = Told::default();
    assert!(record(&mut ledger, now, "w", &first));
    let note = take(&mut ledger, now);
    assert_eq!((note.count, note.known, note.work.as_str()), (1, false, "w"));
    assert_eq!(ledger.next(now), Next::Idle);
    ledger.told(note.id);

    assert!(!record(&mut ledger, now, "w", &first), "nothing new");
    let again = Told {
        count: 3,
        second: 5,
        ..Told::default()
    };
    assert!(record(&mut ledger, now, "w", &again));
    // Another Event of the same content, as a recorder that was restarted writes.
    let other = Told {
        event: "f",
        second: 9,
        ..Told::default()
    };
    assert!(record(&mut ledger, now, "w", &other));
    let later = take(&mut ledger, now);
    assert_eq!((later.id, later.count, later.known), (note.id, 4, true));
    assert_eq!(later.last, since() + jiff::SignedDuration::from_secs(9));
    assert_eq!(later.first, note.first);

    // Of another object, work or message it is another event.
    for told in [
        (
            "w",
            Told {
                object: "web-2",
                ..Told::default()
            },
        ),
        ("v", Told::default()),
        (
            "w",
            Told {
                message: "it fails worse",
                ..Told::default()
            },
        ),
    ] {
        assert!(record(&mut ledger, now, told.0, &told.1));
        let note = take(&mut ledger, now);
        assert!(note.id != later.id && note.count == 1, "{note:?}");
    }
}

#[test]
fn a_restart_goes_on_with_the_hubs_event() {
    let now = Instant::now();
    let mut first = Ledger::new(Limits::default());
    record(
        &mut first,
        now,
        "w",
        &Told {
            count: 6,
            ..Told::default()
        },
    );
    let told = take(&mut first, now);

    // What happened 6 times before this run happens a 7th time.
    let mut second = Ledger::new(Limits::default());
    let seventh = Told {
        count: 7,
        second: 20,
        ..Told::default()
    };
    let later = since() + jiff::SignedDuration::from_secs(10);
    assert!(second.record(now, later, ("w", "w"), &seventh.seen()));
    let note = take(&mut second, now);
    assert_eq!(note.id, told.id, "the name is the same");
    assert!(!note.known);
    assert_eq!(second.learn(&note, 6, Some(told.first)), 7);
    assert!(
        second.record(
            now,
            later,
            ("w", "w"),
            &Told {
                count: 9,
                second: 30,
                ..Told::default()
            }
            .seen()
        )
    );
    let note = take(&mut second, now);
    assert_eq!((note.count, note.known), (9, true));
    second.forget(note.id);
    second.give_back(note);
    assert!(!take(&mut second, now).known, "the hub let it expire");
}

#[test]
fn warnings_come_first_and_keep_half_of_the_budget() {
    let limits = Limits {
        work: Rate {
            burst: 6.0,
            per_second: 0.5,
        },
        ..Limits::default()
    };
    let start = Instant::now();
    let mut ledger = Ledger::new(limits);
    let objects: Vec<String> = (0..10).map(|n| format!("o{n}")).collect();
    for (index, object) in objects.iter().enumerate() {
        let told = Told {
            object,
            warning: index >= 8,
            ..Told::default()
        };
        record(&mut ledger, start, "w", &told);
    }
    let taken: Vec<bool> = (0..3).map(|_| take(&mut ledger, start).warning).collect();
    assert_eq!(
        taken,
        [true, true, false],
        "two Warnings, then Normals down to half"
    );
    // Three of six tokens are left; a Normal event needs more than half.
    let Next::Wait(wait) = ledger.next(start) else {
        panic!("over its budget")
    };
    assert!(
        wait > Duration::from_secs(1) && wait < Duration::from_secs(3),
        "{wait:?}"
    );
    record(
        &mut ledger,
        start,
        "w",
        &Told {
            object: "late",
            ..Told::default()
        },
    );
    assert!(take(&mut ledger, start).warning, "Warnings need not wait");
    // Another work has its own budget.
    record(
        &mut ledger,
        start,
        "v",
        &Told {
            warning: false,
            ..Told::default()
        },
    );
    assert_eq!(take(&mut ledger, start).work, "v");
    assert!(!take(&mut ledger, start + wait + Duration::from_secs(2)).warning);
}

#[test]
fn a_flood_is_bounded_and_the_newest_warnings_stay() {
    let now = Instant::now();
    let limits = Limits::default();
    let mut ledger = Ledger::new(limits);
    let names: Vec<String> = (0..10_000).map(|n| format!("pod-{n}")).collect();
    for (index, object) in names.iter().enumerate() {
        record(
            &mut ledger,
            now,
            "w",
            &Told {
                object,
                event: object,
                warning: index % 2 == 0,
                ..Told::default()
            },
        );
        assert!(ledger.waiting() <= limits.pending_per_work);
    }
    assert!(ledger.tallies.len() <= limits.remembered + 1);
    assert!(ledger.take_left_out() > 9_000);
    // Many works that flood do not push out one that does not.
    record(&mut ledger, now, "v", &Told::default());
    for work in 0..20 {
        for object in &names[..100] {
            record(
                &mut ledger,
                now,
                &format!("w{work}"),
                &Told {
                    object,
                    ..Told::default()
                },
            );
        }
    }
    assert_eq!(ledger.waiting(), limits.pending);
    let mut told = Vec::new();
    while let Next::Tell(note) = ledger.next(now) {
        told.push(*note);
    }
    assert_eq!(told.len(), 100, "the whole budget of the cluster");
    assert!(told.iter().all(|n| n.warning));
    assert!(told.iter().any(|n| n.work == "v"));

    let mut ledger = Ledger::new(limits);
    for (index, object) in names[..200].iter().enumerate() {
        record(
            &mut ledger,
            now,
            "w",
            &Told {
                object,
                warning: index % 2 == 0,
                ..Told::default()
            },
        );
    }
    let first = take(&mut ledger, now);
    assert_eq!(
        first.subject.name, "pod-72",
        "the 64 newest of 100 Warnings, oldest of them first"
    );
}

#[test]
fn many_messages_of_one_object_are_combined() {
    let now = Instant::now();
    let mut ledger = Ledger::new(Limits::default());
    let messages: Vec<String> = (0..1000).map(|n| format!("probe took {n} ms")).collect();
    for message in &messages {
        record(
            &mut ledger,
            now,
            "w",
            &Told {
                message,
                event: message,
                ..Told::default()
            },
        );
    }
    let mut told = Vec::new();
    while let Next::Tell(note) = ledger.next(now) {
        told.push(*note);
    }
    assert_eq!(told.len(), VARIETY + 1);
    let last = told.last().unwrap();
    assert!(last.combined && last.message == "probe took 999 ms" && last.count == 990);
    // After a while they are told apart again.
    record(
        &mut ledger,
        now + VARIETY_WINDOW,
        "w",
        &Told {
            message: "new",
            event: "new",
            ..Told::default()
        },
    );
    assert!(!take(&mut ledger, now + VARIETY_WINDOW).combined);
}

#[test]
fn what_could_not_be_told_waits_and_is_merged() {
    let now = Instant::now();
    let mut ledger = Ledger::new(Limits::default());
    record(&mut ledger, now, "w", &Told::default());
    let note = take(&mut ledger, now);
    record(
        &mut ledger,
        now,
        "w",
        &Told {
            object: "other",
            ..Told::default()
        },
    );
    ledger.give_back(note.clone());
    assert_eq!(take(&mut ledger, now).id, note.id, "it was first");
    let again = Told {
        count: 2,
        second: 3,
        ..Told::default()
    };
    record(&mut ledger, now, "w", &again);
    ledger.give_back(note.clone());
    assert_eq!(ledger.waiting(), 2);
    let _other = take(&mut ledger, now);
    assert_eq!(take(&mut ledger, now).count, 2);
}
