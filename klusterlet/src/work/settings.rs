//! What a work says about one of its manifests beyond its content: strategy, feedback, ownership (wire §3.3, §3.7).

use muster_crds::work::v1::{
    ConditionRule, DeletePropagationPolicyType, FeedbackRule, ManifestConfigOption, ManifestResourceMeta,
    ManifestWorkSpec, ResourceIdentifier, UpdateStrategy,
};

/// The settings of one manifest, each from the first option that has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings<'a> {
    /// How to apply; `None` is `Update`.
    pub strategy: Option<&'a UpdateStrategy>,
    /// What to report back.
    pub feedback: &'a [FeedbackRule],
    /// What conditions to derive.
    pub conditions: &'a [ConditionRule],
}

/// Finds the settings of a manifest.
pub fn settings<'a>(configs: &'a [ManifestConfigOption], meta: &ManifestResourceMeta) -> Settings<'a> {
    let mut found = Settings::default();
    for config in configs.iter().filter(|c| names(&c.resource_identifier, meta)) {
        if found.strategy.is_none() {
            found.strategy = config.update_strategy.as_ref();
        }
        if found.feedback.is_empty() {
            found.feedback = &config.feedback_rules;
        }
        if found.conditions.is_empty() {
            found.conditions = &config.condition_rules;
        }
    }
    found
}

fn names(identifier: &ResourceIdentifier, meta: &ManifestResourceMeta) -> bool {
    identifier.group == meta.group
        && identifier.resource == meta.resource
        && glob(&identifier.name, &meta.name)
        && glob(&identifier.namespace, &meta.namespace)
}

/// `*` stands for any text, also none.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut text) = text.strip_prefix(head).and_then(|t| t.strip_suffix(tail)) else {
        return false;
    };
    // The first place where a part is leaves the most for the others: nothing is ever tried again.
    for part in middle.split('*') {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    true
}

/// Whether the work owns the object of this manifest, so that it goes when the work goes.
pub fn owns(spec: &ManifestWorkSpec, meta: &ManifestResourceMeta) -> bool {
    let Some(option) = &spec.delete_option else {
        return true;
    };
    match option.propagation_policy {
        DeletePropagationPolicyType::Foreground => true,
        DeletePropagationPolicyType::Orphan => false,
        DeletePropagationPolicyType::SelectivelyOrphan => {
            let rules = option
                .selectively_orphan
                .as_ref()
                .map_or(&[][..], |s| &s.orphaning_rules);
            !rules.iter().any(|r| {
                r.group == meta.group
                    && r.resource == meta.resource
                    && r.name == meta.name
                    && r.namespace == meta.namespace
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meta(name: &str) -> ManifestResourceMeta {
        ManifestResourceMeta {
            group: "apps".into(),
            resource: "deployments".into(),
            name: name.into(),
            namespace: "default".into(),
            ..ManifestResourceMeta::default()
        }
    }

    #[test]
    fn first_match_wins_for_each_setting() {
        let configs: Vec<ManifestConfigOption> = serde_json::from_value(json!([
            {"resourceIdentifier": {"group": "apps", "resource": "deployments", "name": "other", "namespace": "default"},
             "updateStrategy": {"type": "ReadOnly"}},
            {"resourceIdentifier": {"group": "apps", "resource": "deployments", "name": "a*", "namespace": "*"},
             "feedbackRules": [{"type": "WellKnownStatus"}]},
            {"resourceIdentifier": {"group": "apps", "resource": "deployments", "name": "ab", "namespace": "default"},
             "updateStrategy": {"type": "CreateOnly"}, "feedbackRules": [{"type": "JSONPaths"}]},
        ]))
        .unwrap();
        let meta = meta("ab");
        let found = settings(&configs, &meta);
        assert_eq!(found.strategy, configs[2].update_strategy.as_ref());
        assert_eq!(found.feedback, configs[1].feedback_rules);
    }

    #[test]
    fn globs() {
        let cases = [
            ("*", "", true),
            ("*", "abc", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c*d", "abcd", true),
            ("a*b*c*d", "aXbYbZcWd", true),
            ("a*b*c*d", "aXcYbZd", false),
            ("ab*ba", "aba", false),
            ("ab*ba", "abba", true),
            ("**", "", true),
            ("*a*a*", "aXa", true),
            ("*a*a*", "a", false),
            (&"*a".repeat(100), &"a".repeat(253), true),
            (&("*a".repeat(100) + "*b"), &"a".repeat(253), false),
            ("a*d", "abc", false),
            ("abc", "abcd", false),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn ownership() {
        let spec =
            |option| -> ManifestWorkSpec { serde_json::from_value(json!({"deleteOption": option})).unwrap() };
        assert!(owns(&ManifestWorkSpec::default(), &meta("a")));
        assert!(owns(
            &spec(json!({"propagationPolicy": "Foreground"})),
            &meta("a")
        ));
        assert!(!owns(&spec(json!({"propagationPolicy": "Orphan"})), &meta("a")));
        let selective = spec(
            json!({"propagationPolicy": "SelectivelyOrphan", "selectivelyOrphans": {"orphaningRules": [
            {"group": "apps", "resource": "deployments", "name": "a", "namespace": "default"}]}}),
        );
        assert!(!owns(&selective, &meta("a")));
        assert!(owns(&selective, &meta("b")));
    }
}
