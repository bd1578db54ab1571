//! What would change, for people: like a diff, with colours on a terminal, and without what Secrets hold.

use crate::error::one_line;
use muster_crds::Manifest;
use muster_klusterlet::work::dry_run::{Action, Answer, Object};
use serde_json::Value;
use std::fmt::Write as _;

/// Lines shown of an object that would be made.
const MAX_LINES: usize = 60;

/// `Deployment.apps shop/web`.
pub fn title(object: &Object) -> String {
    let mut text = object.kind.clone();
    if !object.group.is_empty() {
        text.extend([".", &object.group]);
    }
    text.push(' ');
    if !object.namespace.is_empty() {
        text.extend([&object.namespace, "/"]);
    }
    text.push_str(&object.name);
    text
}

/// The answer for people, like a diff. `manifests` are those that were asked about.
pub fn shown(answer: &Answer, manifests: &[Manifest], colours: bool) -> String {
    let mut out = String::new();
    let mut line = |colour: &str, text: &str| {
        if colours && !colour.is_empty() {
            let _ = writeln!(out, "\x1b[{colour}m{text}\x1b[0m");
        } else {
            let _ = writeln!(out, "{text}");
        }
    };
    let (red, green, yellow, bold, plain) = ("31", "32", "33", "1", "");
    for object in &answer.objects {
        let title = title(object);
        let what = match object.action {
            Action::Create => "create",
            Action::Change => "change",
            Action::Replace => "delete and create anew",
            Action::Delete => "delete",
            Action::Conflict => "conflict",
            Action::LeaveAlone => "leave alone",
            Action::Error => "error",
        };
        line(bold, &format!("{what} {title}"));
        if !object.message.is_empty() {
            line(yellow, &format!("! {}", one_line(&object.message)));
        }
        for field in &object.fields {
            for (sign, colour, value) in [('-', red, &field.old), ('+', green, &field.new)] {
                if let Some(value) = value {
                    line(colour, &format!("{sign} {}: {value}", field.path));
                }
            }
        }
        if object.more_fields > 0 {
            line(plain, &format!("  and {} more fields", object.more_fields));
        }
        let manifest = object.ordinal.and_then(|at| manifests.get(at));
        if let (Action::Create, Some(manifest)) = (object.action, manifest) {
            let text = serde_saphyr::to_string(&without_secrets(&manifest.0)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for text in lines.iter().take(MAX_LINES) {
                line(green, &format!("+ {text}"));
            }
            if lines.len() > MAX_LINES {
                line(plain, &format!("  and {} more lines", lines.len() - MAX_LINES));
            }
        }
        line(plain, "");
    }
    if answer.more_objects > 0 {
        line(plain, &format!("and {} more objects\n", answer.more_objects));
    }
    line(plain, &sum(answer));
    out
}

/// How many of each.
fn sum(answer: &Answer) -> String {
    let count = |actions: &[Action]| {
        answer
            .objects
            .iter()
            .filter(|o| actions.contains(&o.action))
            .count()
    };
    let parts = [
        (count(&[Action::Create]), "to create"),
        (count(&[Action::Change]), "to change"),
        (count(&[Action::Replace]), "to create anew"),
        (count(&[Action::Delete]), "to delete"),
        (count(&[Action::LeaveAlone]), "left alone"),
        (count(&[Action::Conflict, Action::Error]), "not possible"),
        (answer.unchanged, "unchanged"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, what)| *count > 0 || *what == "unchanged")
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    parts.join(", ")
}

/// A manifest as it may be shown.
fn without_secrets(manifest: &Value) -> Value {
    let mut shown = manifest.clone();
    if shown["kind"] == "Secret" {
        for field in ["data", "stringData"] {
            for (_, value) in shown[field].as_object_mut().into_iter().flatten() {
                *value = "(not shown)".into();
            }
        }
        if let Some(annotations) = shown["metadata"]["annotations"].as_object_mut() {
            // kubectl keeps a copy of the whole Secret there.
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_klusterlet::work::dry_run::Field;
    use serde_json::json;

    fn object(action: Action, kind: &str, name: &str) -> Object {
        Object {
            action,
            kind: kind.into(),
            namespace: "shop".into(),
            name: name.into(),
            ..Object::default()
        }
    }

    fn answer() -> Answer {
        Answer {
            id: "a".into(),
            unchanged: 3,
            objects: vec![
                Object {
                    group: "apps".into(),
                    fields: vec![
                        Field {
                            path: "spec.replicas".into(),
                            old: Some("2".into()),
                            new: Some("3".into()),
                        },
                        Field {
                            path: "spec.paused".into(),
                            old: Some("true".into()),
                            new: None,
                        },
                    ],
                    more_fields: 4,
                    ..object(Action::Change, "Deployment", "web")
                },
                Object {
                    ordinal: Some(1),
                    ..object(Action::Create, "Secret", "key")
                },
                object(Action::Delete, "ConfigMap", "old"),
                Object {
                    message: "conflict with\n\"kubectl\"".into(),
                    ..object(Action::Conflict, "Service", "web")
                },
            ],
            more_objects: 2,
        }
    }

    #[test]
    fn it_reads_like_a_diff_and_shows_no_secret() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hidden"}},
            "data": {"k": "aGlkZGVu"}, "stringData": {"t": "hidden"}});
        let manifests: Vec<Manifest> = vec![json!({}).into(), secret.into()];
        let text = shown(&answer(), &manifests, false);
        let expected = "change Deployment.apps shop/web\n- spec.replicas: 2\n+ spec.replicas: 3\n- spec.paused: true\n  and 4 more fields\n\n\
            create Secret shop/key\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.contains("(not shown)") && !text.contains("hidden") && !text.contains("aGlkZGVu"),
            "{text}"
        );
        let end = "delete ConfigMap shop/old\n\nconflict Service shop/web\n! conflict with; \"kubectl\"\n\nand 2 more objects\n\n\
            1 to create, 1 to change, 1 to delete, 1 not possible, 3 unchanged\n";
        assert!(text.ends_with(end), "{text}");
        assert!(!text.contains('\x1b'));
        let coloured = shown(&answer(), &manifests, true);
        assert!(
            coloured.contains("\x1b[31m- spec.replicas: 2\x1b[0m"),
            "{coloured}"
        );
        assert_eq!(shown(&Answer::default(), &[], true), "0 unchanged\n");
    }
}
