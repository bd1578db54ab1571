use super::*;

const LIVES: Lives = Lives {
    authority: SignedDuration::from_hours(90 * 24),
    serving: SignedDuration::from_hours(30 * 24),
    settle: SignedDuration::from_mins(10),
};

fn day(day: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn first() -> Kept {
    let names = names(&["hub.ns.svc", "127.0.0.1"]);
    let due = due(None, &names, LIVES, day(0));
    assert_eq!(due, Due::Everything);
    renew(None, due, &names, LIVES, day(0)).unwrap().unwrap()
}

#[test]
fn what_is_kept_is_read_again_and_nothing_else() {
    let kept = first();
    let data = kept.data();
    assert_eq!(Kept::read(&data), Some(kept.clone()));
    assert_eq!(kept.names(), names(&["hub.ns.svc", "127.0.0.1"]));
    let other = first().data();
    for key in KEYS {
        let mut broken = data.clone();
        broken.remove(key);
        assert_eq!(Kept::read(&broken), None, "without {key}");
        for value in ["", "nonsense"] {
            broken.insert(key.to_owned(), ByteString(value.into()));
            assert_eq!(Kept::read(&broken), None, "{key} is {value:?}");
        }
        broken.insert(key.to_owned(), other[key].clone());
        assert_eq!(Kept::read(&broken), None, "another's {key}");
    }
    assert!(!format!("{kept:?}").contains("PRIVATE"), "keys are not shown");
}

#[test]
fn the_serving_certificate_is_renewed_with_a_third_of_its_life_left() {
    let kept = first();
    let own = kept.names();
    assert_eq!(due(Some(&kept), &own, LIVES, day(0)), Due::Nothing(day(20)));
    assert_eq!(due(Some(&kept), &own, LIVES, day(20)), Due::Serving);
    let next = renew(Some(&kept), Due::Serving, &own, LIVES, day(20))
        .unwrap()
        .unwrap();
    assert_eq!(next.bundle(), kept.bundle());
    assert_ne!(next.serving, kept.serving);
    assert_eq!(due(Some(&next), &own, LIVES, day(20)), Due::Nothing(day(40)));
    assert_eq!(Kept::read(&next.data()), Some(next));
}

#[test]
fn a_new_authority_is_trusted_first_and_served_with_later() {
    let mut kept = first();
    let own = kept.names();
    let mut steps = Vec::new();
    let mut now = day(0);
    // From step to step, as the controller goes: two years long.
    while now < day(730) {
        match due(Some(&kept), &own, LIVES, now) {
            Due::Nothing(next) => {
                assert!(next > now);
                now = next;
            }
            step => {
                let next = renew(Some(&kept), step, &own, LIVES, now).unwrap().unwrap();
                let (served, before) = (
                    Facts::of(&next.serving).unwrap(),
                    Facts::of(&kept.serving).unwrap(),
                );
                assert!(now < before.not_after, "it ran out: {step:?} at {now}");
                let issuer = |bundle: &[String], of: &Facts| {
                    bundle.iter().any(|one| {
                        let one = Facts::of(one).unwrap();
                        one.subject == of.issuer && one.not_after >= of.not_after.min(now)
                    })
                };
                // Old bundle with the new certificate, and the other way round, go together.
                assert!(issuer(&kept.bundle, &served), "{step:?} at {now}");
                assert!(issuer(&next.bundle, &before), "{step:?} at {now}");
                assert!(next.bundle.len() <= 3);
                if step == Due::Authority {
                    assert_eq!(next.serving, kept.serving);
                    assert_eq!(due(Some(&next), &own, LIVES, now), {
                        let settled = now + LIVES.settle;
                        Due::Nothing(Timestamp::from_second(settled.as_second()).unwrap())
                    });
                }
                steps.push(step);
                kept = next;
            }
        }
    }
    assert!(
        steps.iter().filter(|step| **step == Due::Authority).count() >= 10,
        "{steps:?}"
    );
    assert!(!steps.contains(&Due::Everything), "{steps:?}");
}

#[test]
fn another_name_is_added_at_once_and_a_dead_authority_is_replaced() {
    let kept = first();
    let other = names(&["hub.example"]);
    assert_eq!(due(Some(&kept), &other, LIVES, day(1)), Due::Serving);
    let next = renew(Some(&kept), Due::Serving, &other, LIVES, day(1))
        .unwrap()
        .unwrap();
    // The replica with the other names does not take them away again.
    assert_eq!(next.names(), names(&["hub.example", "hub.ns.svc", "127.0.0.1"]));
    assert_eq!(
        due(Some(&next), &kept.names(), LIVES, day(1)),
        Due::Nothing(day(21))
    );
    let later = renew(Some(&next), Due::Serving, &other, LIVES, day(21))
        .unwrap()
        .unwrap();
    assert_eq!(later.names(), other);

    assert_eq!(due(Some(&kept), &kept.names(), LIVES, day(91)), Due::Everything);
    let anew = renew(Some(&kept), Due::Everything, &other, LIVES, day(91))
        .unwrap()
        .unwrap();
    assert_eq!(anew.bundle.len(), 1, "nobody trusts what has run out");
}
