use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn group(index: i32, name: &str, clusters: &[&str]) -> Group {
    Group {
        index,
        name: name.to_owned(),
        clusters: clusters.iter().map(|cluster| (*cluster).to_owned()).collect(),
    }
}

/// `a` applying, `p` progressing, `f` failed, `s` succeeded, each `age` seconds long; anything else has yet to be told.
fn state(states: &str, age: i64) -> impl Fn(&str) -> State {
    let states: Vec<(String, State)> = states
        .split_whitespace()
        .map(|one| {
            let (cluster, what) = one.split_once(':').unwrap();
            let since = Some(at(NOW - age));
            let state = match what {
                "a" => State::Applying(since),
                "p" => State::Progressing(since),
                "f" => State::Failed(since),
                "s" => State::Succeeded(since),
                other => panic!("{other}"),
            };
            (cluster.to_owned(), state)
        })
        .collect();
    move |cluster| {
        let found = states.iter().find(|(name, _)| name == cluster);
        found.map_or(State::ToApply, |(_, state)| *state)
    }
}

fn run(strategy: Value, groups: &[Group], states: &str, age: i64) -> Result<Rollout, String> {
    let strategy: RolloutStrategy = serde_json::from_value(strategy).unwrap();
    plan(&strategy, groups, state(states, age), at(NOW))
}

/// What starts, what timed out, how many are done, whether it stopped, and in how many seconds to look again.
fn told(rollout: &Rollout) -> String {
    let mut words = rollout.start.clone();
    if !rollout.timed_out.is_empty() {
        words.push(format!("late:{}", rollout.timed_out.join(",")));
    }
    if rollout.succeeded > 0 {
        words.push(format!("done:{}", rollout.succeeded));
    }
    if rollout.breach {
        words.push("breach".to_owned());
    }
    if let Some(recheck) = rollout.recheck {
        words.push(format!("in:{}", recheck.as_secs()));
    }
    words.join(" ")
}

fn check(cases: &[(Value, &str, i64, &str)], groups: &[Group]) {
    for (strategy, states, age, wanted) in cases {
        let rollout = run(strategy.clone(), groups, states, *age).unwrap();
        assert_eq!(told(&rollout), *wanted, "{strategy} {states} {age}");
    }
}

#[test]
fn all_at_once() {
    let all = |settings: Value| json!({"type": "All", "all": settings});
    let groups = [group(0, "", &["a", "c"]), group(1, "", &["b"])];
    check(
        &[
            (json!({}), "", 0, "a b c"),
            (json!({"type": "All"}), "a:s", 0, "b c done:1"),
            (all(json!({})), "a:f b:p", 0, "c"),
            (all(json!({"progressDeadline": "None"})), "a:f b:p c:a", 9999, ""),
            // What failed is told, and stops nothing.
            (
                all(json!({"progressDeadline": "10s"})),
                "a:f b:p",
                10,
                "c late:a,b",
            ),
            (
                all(json!({"progressDeadline": "10s"})),
                "a:f b:p c:s",
                4,
                "done:1 in:6",
            ),
            (all(json!({"minSuccessTime": "1m"})), "a:s b:s c:s", 20, "in:40"),
            (all(json!({"minSuccessTime": "1m"})), "a:s b:s c:s", 60, "done:3"),
        ],
        &groups,
    );
}

#[test]
fn so_many_at_a_time() {
    let progressive = |settings: Value| json!({"type": "Progressive", "progressive": settings});
    let two = |more: Value| {
        let mut settings = json!({"maxConcurrency": 2});
        for (field, value) in more.as_object().unwrap() {
            settings[field] = value.clone();
        }
        progressive(settings)
    };
    let groups = [group(0, "", &["e", "d", "c"]), group(1, "", &["b", "a"])];
    check(
        &[
            (json!({"type": "Progressive"}), "", 0, "a b c d e"),
            (progressive(json!({"maxConcurrency": 0})), "", 0, "a b c d e"),
            (progressive(json!({"maxConcurrency": 9})), "", 0, "a b c d e"),
            (progressive(json!({"maxConcurrency": "2"})), "", 0, "a b"),
            (progressive(json!({"maxConcurrency": "0%"})), "", 0, "a b c d e"),
            (progressive(json!({"maxConcurrency": "1%"})), "", 0, "a"),
            (progressive(json!({"maxConcurrency": "20%"})), "", 0, "a"),
            (progressive(json!({"maxConcurrency": "21%"})), "", 0, "a b"),
            (progressive(json!({"maxConcurrency": "50%"})), "", 0, "a b c"),
            (progressive(json!({"maxConcurrency": "100%"})), "", 0, "a b c d e"),
            (two(json!({})), "", 0, "a b"),
            // Whoever is not done takes a place, wherever in the alphabet.
            (two(json!({})), "a:a", 0, "b"),
            (two(json!({})), "e:p", 0, "a"),
            (two(json!({})), "a:p b:a", 0, ""),
            (two(json!({})), "a:s b:p", 0, "c done:1"),
            (two(json!({})), "a:s b:s c:s d:s e:s", 0, "done:5"),
            // None may fail unless it is said otherwise.
            (two(json!({})), "a:s b:f", 0, "done:1 breach"),
            (two(json!({"maxFailures": 1})), "a:s b:f", 0, "c done:1"),
            (two(json!({"maxFailures": 1})), "a:f b:f", 0, "breach"),
            (two(json!({"maxFailures": "20%"})), "a:s b:f", 0, "c done:1"),
            (two(json!({"maxFailures": "21%"})), "a:f b:f", 0, ""),
            (two(json!({"maxFailures": "20%"})), "a:f b:f", 0, "breach"),
            // One that failed keeps its place until it may take no longer.
            (
                two(json!({"maxFailures": 2, "progressDeadline": "10s"})),
                "a:f b:f",
                9,
                "in:1",
            ),
            (
                two(json!({"maxFailures": 2, "progressDeadline": "10s"})),
                "a:f b:f",
                10,
                "c d late:a,b",
            ),
            (
                two(json!({"progressDeadline": "10s"})),
                "a:p b:s",
                10,
                "late:a done:1 breach",
            ),
            (
                two(json!({"maxFailures": 1, "progressDeadline": "10s"})),
                "a:a b:a",
                10,
                "late:a,b breach",
            ),
            (two(json!({"minSuccessTime": "5m"})), "a:s b:s", 299, "in:1"),
            (two(json!({"minSuccessTime": "5m"})), "a:s b:s", 300, "c d done:2"),
        ],
        &groups,
    );
}

#[test]
fn mandatory_groups_come_first_and_may_not_fail() {
    let groups = [
        group(0, "", &["a", "b"]),
        group(1, "canary", &["z"]),
        group(2, "", &["x", "y"]),
    ];
    let progressive = |more: Value| {
        let mut settings = json!({"maxConcurrency": 1, "maxFailures": 5,
            "mandatoryDecisionGroups": [{"groupName": "canary"}, {"groupIndex": 2}, {"groupName": "nobody"}]});
        for (field, value) in more.as_object().unwrap() {
            settings[field] = value.clone();
        }
        json!({"type": "Progressive", "progressive": settings})
    };
    check(
        &[
            (progressive(json!({})), "", 0, "z"),
            (progressive(json!({})), "z:p", 0, ""),
            (progressive(json!({})), "z:s", 0, "x y done:1"),
            (progressive(json!({})), "z:s x:s y:p", 0, "done:2"),
            (progressive(json!({})), "z:s x:f", 0, "done:1 breach"),
            (progressive(json!({})), "z:s x:s y:s", 0, "a done:3"),
            (progressive(json!({})), "z:s x:s y:s a:f", 0, "done:3"),
            (
                progressive(json!({"progressDeadline": "10s"})),
                "z:p",
                10,
                "late:z breach",
            ),
            (progressive(json!({"minSuccessTime": "10s"})), "z:s", 3, "in:7"),
        ],
        &groups,
    );
    let mut per_group = progressive(json!({}));
    per_group["type"] = "ProgressivePerGroup".into();
    per_group["progressivePerGroup"] = per_group["progressive"].take();
    check(
        &[
            (per_group.clone(), "", 0, "z"),
            (per_group.clone(), "z:s x:s y:s", 0, "a b done:3"),
            (per_group, "z:f", 0, "breach"),
        ],
        &groups,
    );
}

#[test]
fn a_group_at_a_time() {
    let per_group = |settings: Value| json!({"type": "ProgressivePerGroup", "progressivePerGroup": settings});
    let groups = [group(0, "", &["c", "d"]), group(1, "", &["a", "b"])];
    check(
        &[
            (json!({"type": "ProgressivePerGroup"}), "", 0, "c d"),
            (per_group(json!({})), "c:s", 0, "d done:1"),
            (per_group(json!({})), "c:s d:p", 0, "done:1"),
            (per_group(json!({})), "c:s d:s", 0, "a b done:2"),
            (per_group(json!({})), "c:s d:f", 0, "done:1 breach"),
            // Within the deadline it may still come good: the group is not through.
            (per_group(json!({"maxFailures": 1})), "c:s d:f", 0, "done:1"),
            (
                per_group(json!({"maxFailures": "25%", "progressDeadline": "10s"})),
                "c:s d:f",
                10,
                "a b late:d done:1",
            ),
            (
                per_group(json!({"maxFailures": "25%", "progressDeadline": "10s"})),
                "c:f d:f",
                10,
                "late:c,d breach",
            ),
            (per_group(json!({"minSuccessTime": "10s"})), "c:s d:s", 9, "in:1"),
            (per_group(json!({})), "c:s d:s a:s b:s", 0, "done:4"),
        ],
        &groups,
    );
}

#[test]
fn what_makes_no_sense_is_told() {
    let groups = [group(0, "", &["a"])];
    for (settings, reason) in [
        (json!({"minSuccessTime": "soon"}), "minSuccessTime \"soon\""),
        (json!({"minSuccessTime": "-5m"}), "minSuccessTime \"-5m\""),
        (json!({"progressDeadline": "5"}), "progressDeadline \"5\""),
        (json!({"progressDeadline": "5m?"}), "progressDeadline \"5m?\""),
        (json!({"progressDeadline": "1e99h"}), "progressDeadline"),
        (json!({"maxConcurrency": "x%"}), "\"x%\" is neither"),
        (json!({"maxFailures": "some"}), "\"some\" is neither"),
    ] {
        let strategy = json!({"type": "Progressive", "progressive": settings});
        let error = run(strategy, &groups, "", 0).unwrap_err();
        assert!(error.contains(reason), "{settings}: {error}");
    }
    // The settings of another way are no concern.
    let other = json!({"type": "All", "progressive": {"minSuccessTime": "soon"}});
    assert!(run(other, &groups, "", 0).is_ok());
}

#[test]
fn durations_read_as_go_writes_them() {
    for (text, millis) in [
        ("0", Some(0)),
        ("0s", Some(0)),
        ("300ms", Some(300)),
        ("5s", Some(5000)),
        ("1h30m", Some(5_400_000)),
        ("1.5h", Some(5_400_000)),
        ("1m0.5s", Some(60_500)),
        ("2562047h", Some(9_223_369_200_000)),
        ("", None),
        ("5", None),
        ("s", None),
        ("1h-5m", None),
        ("99999999999999999999h", None),
    ] {
        let read = duration(text).map(|read| read.as_millis());
        assert_eq!(read, millis, "{text:?}");
    }
}

#[test]
fn what_has_no_time_waits_for_ever_or_not_at_all() {
    let strategy: RolloutStrategy = serde_json::from_value(json!({"type": "Progressive", "progressive":
        {"maxConcurrency": 1, "progressDeadline": "1s", "minSuccessTime": "1h"}}))
    .unwrap();
    let groups = [group(0, "", &["a", "b"])];
    for (state, wanted) in [
        (State::Progressing(None), ""),
        (State::Succeeded(None), "b done:1"),
    ] {
        let of = |cluster: &str| if cluster == "a" { state } else { State::ToApply };
        let rollout = plan(&strategy, &groups, of, at(NOW)).unwrap();
        assert_eq!(told(&rollout), wanted);
    }
}
