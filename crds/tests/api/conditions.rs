//! Conditions keep their history.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use muster_crds::conditions::{
    NewCondition, Status, find, is_false, is_true, is_unknown, remove, set_condition,
};

fn at(second: i64) -> Timestamp {
    Timestamp::new(second, 0).unwrap()
}

fn ready(status: Status, reason: &str, message: &str, generation: Option<i64>) -> NewCondition {
    NewCondition::new("Ready", status, reason, message).observed(generation)
}

#[test]
fn time_moves_with_status_and_nothing_else() {
    use Status::{False, True, Unknown};
    // what is set at second 20 over True/Up/"ok"/generation 1 of second 10; whether it changed; the time after
    let table = [
        ("the same", ready(True, "Up", "ok", Some(1)), false, 10),
        ("another message", ready(True, "Up", "fine", Some(1)), true, 10),
        ("another reason", ready(True, "Well", "ok", Some(1)), true, 10),
        ("another generation", ready(True, "Up", "ok", Some(2)), true, 10),
        ("no generation", ready(True, "Up", "ok", None), true, 10),
        ("another status", ready(False, "Up", "ok", Some(1)), true, 20),
        ("all unknown", ready(Unknown, "Lost", "?", Some(2)), true, 20),
    ];
    for (what, new, changes, time) in table {
        let mut conditions = Vec::new();
        assert!(
            set_condition(&mut conditions, NewCondition::new("Other", true, "Up", ""), at(5)),
            "{what}"
        );
        assert!(
            set_condition(&mut conditions, ready(True, "Up", "ok", Some(1)), at(10)),
            "{what}"
        );
        assert_eq!(
            set_condition(&mut conditions, new.clone(), at(20)),
            changes,
            "{what}"
        );
        let expected = Condition {
            type_: "Ready".into(),
            status: new.status.as_str().into(),
            reason: new.reason,
            message: new.message,
            observed_generation: new.observed_generation,
            last_transition_time: at(time).into(),
        };
        assert_eq!(find(&conditions, "Ready"), Some(&expected), "{what}");
        assert_eq!(conditions.len(), 2, "{what}");
        assert_eq!(
            find(&conditions, "Other").unwrap().last_transition_time,
            at(5).into(),
            "{what}"
        );
    }
}

/// What is kept equals what comes back from a server, which knows seconds only.
#[test]
fn times_are_whole_seconds() {
    let mut conditions = Vec::new();
    let now = at(10) + SignedDuration::from_millis(999);
    set_condition(&mut conditions, NewCondition::new("Ready", true, "Up", ""), now);
    let wire = serde_json::to_string(&conditions).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Condition>>(&wire).unwrap(), conditions);
    assert_eq!(conditions[0].last_transition_time, at(10).into());
}

#[test]
fn a_message_is_cut_to_what_the_api_takes() {
    let mut conditions = Vec::new();
    let long = "ü".repeat(40_000);
    set_condition(
        &mut conditions,
        NewCondition::new("Ready", false, "Long", long.clone()),
        at(1),
    );
    assert_eq!(conditions[0].message.chars().count(), 32_768);
    assert!(!set_condition(
        &mut conditions,
        NewCondition::new("Ready", false, "Long", long),
        at(2)
    ));
}

#[test]
fn status_is_asked_by_type() {
    let mut conditions = Vec::new();
    for (type_, status) in [("T", Status::True), ("F", Status::False), ("U", Status::Unknown)] {
        set_condition(&mut conditions, NewCondition::new(type_, status, "R", ""), at(1));
    }
    let table = [
        ("T", true, false, false),
        ("F", false, true, false),
        ("U", false, false, true),
        ("-", false, false, true),
    ];
    for (type_, holds, does_not, nobody_knows) in table {
        assert_eq!(is_true(&conditions, type_), holds, "{type_}");
        assert_eq!(is_false(&conditions, type_), does_not, "{type_}");
        assert_eq!(is_unknown(&conditions, type_), nobody_knows, "{type_}");
    }
    assert!(remove(&mut conditions, "F"));
    assert!(!remove(&mut conditions, "F"));
    assert_eq!(
        conditions
            .iter()
            .map(|one| one.type_.as_str())
            .collect::<Vec<_>>(),
        ["T", "U"]
    );
}
