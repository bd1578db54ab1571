//! Policy rules: what one allows, and whether some cover others.

use super::types::Attributes;
use serde_json::{Map, Value};

const ALL: &str = "*";

/// `rbac.authorization.k8s.io/v1 PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// API groups, `""` core, `*` all.
    pub api_groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    pub resources: Vec<String>,
    /// Only these objects; empty for all.
    pub resource_names: Vec<String>,
    /// Paths, `*` at the end matches any rest.
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// A rule about resources.
    pub fn resources(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Self {
        Self {
            verbs: own(verbs),
            api_groups: own(groups),
            resources: own(resources),
            ..Self::default()
        }
    }

    /// A rule about paths.
    pub fn urls(verbs: &[&str], urls: &[&str]) -> Self {
        Self {
            verbs: own(verbs),
            non_resource_urls: own(urls),
            ..Self::default()
        }
    }

    /// From JSON; fields of other types count as empty.
    pub fn from_value(rule: &Value) -> Self {
        let list = |field: &str| {
            let items = rule[field].as_array().into_iter().flatten();
            items.filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        Self {
            verbs: list("verbs"),
            api_groups: list("apiGroups"),
            resources: list("resources"),
            resource_names: list("resourceNames"),
            non_resource_urls: list("nonResourceURLs"),
        }
    }

    /// From a JSON list.
    pub fn list(rules: &Value) -> Vec<Self> {
        rules
            .as_array()
            .into_iter()
            .flatten()
            .map(Self::from_value)
            .collect()
    }

    /// As JSON, without what is empty.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (field, list) in self.fields() {
            if !list.is_empty() {
                map.insert(field.into(), list.clone().into());
            }
        }
        Value::Object(map)
    }

    fn fields(&self) -> [(&'static str, &Vec<String>); 5] {
        [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("nonResourceURLs", &self.non_resource_urls),
            ("resourceNames", &self.resource_names),
            ("verbs", &self.verbs),
        ]
    }

    /// Whether it allows a request; `combined` is the request's `resource/subresource`.
    pub fn allows(&self, request: &Attributes, combined: &str) -> bool {
        if !has(&self.verbs, &request.verb) {
            return false;
        }
        if !request.is_resource {
            return self
                .non_resource_urls
                .iter()
                .any(|pattern| url_matches(pattern, &request.path));
        }
        has(&self.api_groups, &request.group)
            && self
                .resources
                .iter()
                .any(|r| resource_matches(r, combined, &request.subresource))
            && (self.resource_names.is_empty() || self.resource_names.contains(&request.name))
    }

    /// Whether it allows everything that `part`, a rule of one verb, one group and one resource (or one path), does.
    fn covers(&self, part: &Self) -> bool {
        if !part.verbs.iter().all(|v| has(&self.verbs, v)) {
            return false;
        }
        if !part.non_resource_urls.is_empty() {
            return part.non_resource_urls.iter().all(|u| self.covers_url(u));
        }
        part.api_groups.iter().all(|g| has(&self.api_groups, g))
            && part.resources.iter().all(|r| {
                let subresource = r.split_once('/').map_or("", |(_, s)| s);
                self.resources
                    .iter()
                    .any(|own| resource_matches(own, r, subresource))
            })
            && (self.resource_names.is_empty()
                || (!part.resource_names.is_empty()
                    && part
                        .resource_names
                        .iter()
                        .all(|n| self.resource_names.contains(n))))
    }

    fn covers_url(&self, url: &str) -> bool {
        self.non_resource_urls.iter().any(|own| {
            // A pattern is covered by a shorter one, never by what only looks like it as a path.
            own == url
                || own
                    .strip_suffix(ALL)
                    .is_some_and(|prefix| url.starts_with(prefix))
        })
    }

    /// The rule taken apart: one verb and one group, resource, name, or path each.
    fn parts(&self) -> Vec<Self> {
        let mut parts = Vec::new();
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    let part = Self {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Self::default()
                    };
                    if self.resource_names.is_empty() {
                        parts.push(part.clone());
                    }
                    for name in &self.resource_names {
                        parts.push(Self {
                            resource_names: vec![name.clone()],
                            ..part.clone()
                        });
                    }
                }
            }
            for url in &self.non_resource_urls {
                parts.push(Self {
                    verbs: vec![verb.clone()],
                    non_resource_urls: vec![url.clone()],
                    ..Self::default()
                });
            }
        }
        parts
    }

    /// `{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`, as kube-apiserver shows rules.
    pub fn compact(&self) -> String {
        let shown = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<String> = shown
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name}:{}", quoted(list)))
            .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

/// A list as Go's `%q` writes it: `["a" "b"]`.
pub fn quoted(list: &[String]) -> String {
    format!(
        "[{}]",
        list.iter()
            .map(|s| format!("{s:?}"))
            .collect::<Vec<_>>()
            .join(" ")
    )
}

/// What of `wanted` is not covered by `held`: parts, put together again by resource, sorted as shown. Empty when all is covered.
pub fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let mut missing: Vec<Rule> = Vec::new();
    for part in wanted.iter().flat_map(Rule::parts) {
        if held.iter().any(|own| own.covers(&part)) {
            continue;
        }
        // Parts that differ only in the verb are one rule again; paths stay apart, as kube-apiserver shows them.
        let same = missing.iter_mut().find(|m| {
            (m.verbs == part.verbs || part.non_resource_urls.is_empty())
                && m.non_resource_urls == part.non_resource_urls
                && m.api_groups == part.api_groups
                && m.resources == part.resources
                && m.resource_names == part.resource_names
        });
        match same {
            Some(rule) if rule.verbs.contains(&part.verbs[0]) => {}
            Some(rule) => rule.verbs.extend(part.verbs),
            None => missing.push(part),
        }
    }
    missing.sort_by_key(Rule::compact);
    missing
}

fn own(list: &[&str]) -> Vec<String> {
    list.iter().map(|&s| s.to_owned()).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == ALL || item == wanted)
}

fn resource_matches(pattern: &str, combined: &str, subresource: &str) -> bool {
    pattern == ALL
        || pattern == combined
        || (!subresource.is_empty() && pattern.strip_prefix("*/") == Some(subresource))
}

fn url_matches(pattern: &str, path: &str) -> bool {
    pattern == path
        || pattern
            .strip_suffix(ALL)
            .is_some_and(|prefix| path.starts_with(prefix))
}
