//! FlowSchemas and PriorityLevelConfigurations: defaults and rules of fairness between clients.

use super::check::{Errors, Spot};
use super::go::{self, Part, Shape};
use super::json::{at, default, made, text};
use crate::error::FieldError;
use crate::object;
use crate::registry::names;
use serde_json::Value;

const EXEMPT: &str = "exempt";
/// The last place in the order of FlowSchemas.
const LAST: i64 = 10_000;
const MOST_QUEUES: i64 = 10_000_000;
/// As many bits as one hash has for dealing hands of queues.
const ENTROPY_BITS: f64 = 60.0;
const VERBS: [&str; 9] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];
const NOT_NEGATIVE: &str = "must be a non-negative integer";
const PERCENT: &str = "must be between 0 and 100, inclusive";
const DISTINGUISHER: &Shape = &[("Type", "type", Part::Text)];

/// Defaults by plural.
pub(super) fn defaults(plural: &str, object: &mut Value) {
    match plural {
        "flowschemas" => {
            if let Some(spec) = made(object, "spec") {
                // Its zero value is always there.
                if spec["matchingPrecedence"] == 0 {
                    spec["matchingPrecedence"] = Value::Null;
                }
                default(spec, "matchingPrecedence", 1000);
            }
        }
        "prioritylevelconfigurations" => {
            let Some(spec) = at(object, "spec") else { return };
            if text(spec, "type") == "Exempt"
                && let Some(exempt) = made(spec, EXEMPT)
            {
                default(exempt, "nominalConcurrencyShares", 0);
                default(exempt, "lendablePercent", 0);
            }
            let Some(limited) = at(spec, "limited") else {
                return;
            };
            default(limited, "nominalConcurrencyShares", 30);
            default(limited, "lendablePercent", 0);
            if let Some(queuing) = at(limited, "limitResponse").and_then(|r| at(r, "queuing")) {
                for (key, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                    if queuing[key] == 0 {
                        queuing[key] = Value::Null;
                    }
                    default(queuing, key, value);
                }
            }
        }
        _ => {}
    }
}

/// What is wrong with an object of these kinds.
pub(super) fn validate(plural: &str, object: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = Spot::new(&object["spec"], "spec");
    match plural {
        "flowschemas" => validate_schema(object::name(object), &spec, &mut errors),
        "prioritylevelconfigurations" => validate_level(object::name(object), &spec, &mut errors),
        _ => {}
    }
    errors
}

fn validate_schema(name: &str, spec: &Spot<'_>, errors: &mut Errors) {
    let precedence = spec.at("matchingPrecedence");
    if precedence.number() == 1 && name != EXEMPT {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        precedence.invalid(errors, why);
    }
    precedence.at_least(errors, 1, "must be a positive value");
    if precedence.number() > LAST {
        precedence.invalid(errors, &format!("must not be greater than {LAST}"));
    }
    if let Some(method) = spec.given("distinguisherMethod")
        && !matches!(method.at("type").text(), "ByNamespace" | "ByUser")
    {
        let kind = method.at("type");
        let message = format!(
            "Unsupported value: {}: supported values: \"ByNamespace\", \"ByUser\"",
            go::shown(method.value, DISTINGUISHER)
        );
        kind.refuse(errors, crate::error::FieldErrorKind::NotSupported, message);
    }
    let level = spec.at("priorityLevelConfiguration").at("name");
    if level.required(errors, "must reference a priority level") {
        level.named(errors, names::dns_subdomain);
    }
    for rule in spec.list("rules") {
        validate_rule(&rule, errors);
    }
}

/// Whose requests a rule is about, and which of them.
fn validate_rule(rule: &Spot<'_>, errors: &mut Errors) {
    let subjects = rule.at("subjects");
    subjects.required(errors, "subjects must contain at least one value");
    for subject in subjects.items() {
        validate_subject(&subject, errors);
    }
    let (resources, others) = (rule.at("resourceRules"), rule.at("nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        rule.missing(errors, why);
    }
    for resource in resources.items() {
        verbs(&resource, errors);
        let groups = resource.at("apiGroups");
        let none = "resource rules must supply at least one api group";
        if groups.required(errors, none) {
            alone(&groups, "api groups", errors);
        }
        let kinds = resource.at("resources");
        let none = "resource rules must supply at least one resource";
        if kinds.required(errors, none) {
            alone(&kinds, "resources", errors);
        }
        let namespaces = resource.at("namespaces");
        if namespaces.is_empty() && resource.value["clusterScope"] != true {
            let why = "resource rules that are not cluster scoped must supply at least one namespace";
            namespaces.missing(errors, why);
        }
        if alone(&namespaces, "namespaces", errors) {
            for namespace in namespaces.items().iter().filter(|n| n.text() != "*") {
                for message in names::dns_label(namespace.text()) {
                    let why = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                    namespace.invalid(errors, &why);
                }
            }
        }
    }
    for other in others.items() {
        verbs(&other, errors);
        let urls = other.at("nonResourceURLs");
        let none = "nonResourceURLs must contain at least one value";
        if urls.required(errors, none) && alone(&urls, "non-resource URLs", errors) {
            for url in urls.items() {
                validate_url(&url, errors);
            }
        }
    }
}

fn validate_url(url: &Spot<'_>, errors: &mut Errors) {
    let text = url.text();
    let why = match text {
        "*" | "/" => return,
        "" => "must not be empty",
        _ if !text.starts_with('/') => "must start with slash",
        _ if text.contains(' ') => "must not contain white-space",
        _ if text.contains("//") => "must not contain double slash",
        _ if text.strip_suffix('*').unwrap_or(text).contains('*')
            || (text.ends_with('*') && !text.ends_with("/*")) =>
        {
            "wildcard can only do suffix matching"
        }
        _ => return,
    };
    url.invalid(errors, why);
}

/// Everything stands alone.
fn alone(list: &Spot<'_>, what: &str, errors: &mut Errors) -> bool {
    let items = list.items();
    let mixed = items.len() > 1 && items.iter().any(|item| item.text() == "*");
    if mixed {
        let why = format!("if '*' is present, must not specify other {what}");
        list.invalid(errors, &why);
    }
    !mixed
}

fn verbs(rule: &Spot<'_>, errors: &mut Errors) {
    let verbs = rule.at("verbs");
    if !verbs.required(errors, "verbs must contain at least one value") || !alone(&verbs, "verbs", errors) {
        return;
    }
    let known = |verb: &Spot<'_>| verb.text() == "*" || VERBS.contains(&verb.text());
    if !verbs.items().iter().all(known) {
        errors.push(FieldError::not_supported(&verbs.path, verbs.value, &VERBS));
    }
}

fn validate_subject(subject: &Spot<'_>, errors: &mut Errors) {
    let kind = subject.at("kind");
    kind.among(errors, &["Group", "ServiceAccount", "User"]);
    for (name, key) in [
        ("ServiceAccount", "serviceAccount"),
        ("User", "user"),
        ("Group", "group"),
    ] {
        let part = subject.at(key);
        if kind.text() != name {
            if part.is_set() {
                let why = format!("{key} is forbidden when subject kind is not '{name}'");
                part.forbidden(errors, &why);
            }
        } else if part.is_empty() {
            let why = format!("{key} is required when subject kind is '{name}'");
            part.missing(errors, &why);
        } else if key == "serviceAccount" {
            let (account, namespace) = (part.at("name"), part.at("namespace"));
            if account.required(errors, "") && account.text() != "*" {
                account.named(errors, names::dns_subdomain);
            }
            let none = "must specify namespace for service account";
            if namespace.required(errors, none) {
                namespace.named(errors, names::dns_label);
            }
        } else {
            part.at("name").required(errors, "");
        }
    }
}

fn validate_level(name: &str, spec: &Spot<'_>, errors: &mut Errors) {
    let kind = spec.at("type");
    let (limited, exempt) = (spec.at("limited"), spec.at("exempt"));
    let is_exempt = kind.text() == "Exempt";
    if kind.is_set() && is_exempt != (name == EXEMPT) {
        let why = "must be 'Exempt' if and only if `name` is 'exempt'";
        kind.invalid(errors, why);
    }
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden(errors, "must be nil if the type is not Limited");
            }
            shares(&exempt, errors);
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden(errors, "must be nil if the type is Limited");
            }
            if limited.is_set() {
                validate_limited(&limited, errors);
            } else {
                limited.missing(errors, "must not be empty when type is Limited");
            }
        }
        _ => kind.among(errors, &["Exempt", "Limited"]),
    }
}

fn shares(level: &Spot<'_>, errors: &mut Errors) {
    level
        .at("nominalConcurrencyShares")
        .at_least(errors, 0, NOT_NEGATIVE);
    level.at("lendablePercent").between(errors, 0, 100, PERCENT);
}

fn validate_limited(limited: &Spot<'_>, errors: &mut Errors) {
    let response = limited.at("limitResponse");
    let queuing = response.at("queuing");
    shares(limited, errors);
    let why = "if specified, must be a non-negative integer";
    limited.at("borrowingLimitPercent").at_least(errors, 0, why);
    match response.at("type").text() {
        "Queue" if queuing.is_set() => {
            let (queues, hand) = (queuing.at("queues"), queuing.at("handSize"));
            queues.at_least(errors, 1, "must be positive");
            if queues.number() > MOST_QUEUES {
                queues.invalid(errors, &format!("must not be greater than {MOST_QUEUES}"));
            }
            hand.at_least(errors, 1, "must be positive");
            let (deck, size) = (queues.number(), hand.number());
            if size > deck {
                hand.invalid(errors, &format!("should not be greater than queues ({deck})"));
            } else if entropy(deck, size) > ENTROPY_BITS {
                let why = format!(
                    "required entropy bits of deckSize {deck} and handSize {size} should not be greater than 60"
                );
                hand.invalid(errors, &why);
            }
            queuing
                .at("queueLengthLimit")
                .at_least(errors, 1, "must be positive");
        }
        "Queue" => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            queuing.missing(errors, why);
        }
        "Reject" if queuing.is_set() => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            queuing.forbidden(errors, why);
        }
        "Reject" => {}
        _ => response.at("type").among(errors, &["Queue", "Reject"]),
    }
}

/// How many bits it takes to deal a hand of `size` from a deck, as far as that is allowed.
#[allow(clippy::cast_precision_loss)] // decks are small
fn entropy(deck: i64, size: i64) -> f64 {
    let mut bits = 0.0;
    for i in 0..size.min(deck) {
        bits += ((deck - i).max(1) as f64).log2();
        if bits > ENTROPY_BITS {
            break;
        }
    }
    bits.ceil()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(plural: &str, name: &str, spec: &Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": name}, "spec": spec});
        defaults(plural, &mut object);
        validate(plural, &object).into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn schemas() {
        let rule = |resources: Value| {
            json!({"priorityLevelConfiguration": {"name": "p"}, "rules": [
                {"subjects": [{"kind": "User", "user": {"name": "u"}}], "resourceRules": [resources]}]})
        };
        let good = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]});
        for (spec, want) in [
            (rule(good.clone()), vec![]),
            (json!({}), vec!["spec.priorityLevelConfiguration.name"]),
            (
                json!({"priorityLevelConfiguration": {"name": "p"}, "matchingPrecedence": 10001}),
                vec!["spec.matchingPrecedence"],
            ),
            (
                rule(
                    json!({"verbs": ["*", "get"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true}),
                ),
                vec!["spec.rules[0].resourceRules[0].verbs"],
            ),
            (
                rule(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*"]})),
                vec!["spec.rules[0].resourceRules[0].namespaces"],
            ),
        ] {
            assert_eq!(told("flowschemas", "x", &spec), want, "{spec}");
        }
    }

    #[test]
    fn levels() {
        let limited = |response: Value| json!({"type": "Limited", "limited": {"limitResponse": response}});
        for (name, spec, want) in [
            ("x", limited(json!({"type": "Reject"})), vec![]),
            ("x", limited(json!({"type": "Queue", "queuing": {}})), vec![]),
            ("exempt", json!({"type": "Exempt"}), vec![]),
            ("x", json!({"type": "Exempt"}), vec!["spec.type"]),
            (
                "x",
                limited(json!({"type": "Queue"})),
                vec!["spec.limited.limitResponse.queuing"],
            ),
            (
                "x",
                limited(json!({"type": "Queue", "queuing": {"queues": 1000, "handSize": 20}})),
                vec!["spec.limited.limitResponse.queuing.handSize"],
            ),
        ] {
            assert_eq!(told("prioritylevelconfigurations", name, &spec), want, "{spec}");
        }
    }

    #[test]
    fn urls() {
        for (url, good) in [
            ("*", true),
            ("/", true),
            ("/healthz", true),
            ("/a/*", true),
            ("/a*", false),
            ("/a/*/b", false),
            ("a", false),
            ("", false),
        ] {
            let url = json!(url);
            let mut errors = Vec::new();
            validate_url(&Spot::new(&url, "u"), &mut errors);
            assert_eq!(errors.is_empty(), good, "{url}");
        }
    }
}
