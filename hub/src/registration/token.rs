//! Join tokens: bootstrap tokens whose Secret says what may be done with them. The API server checks who holds one;
//! the hub holds whoever does to what it allows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::core::ObjectMeta;
use muster_crds::{
    constants::{annotations, labels, names},
    names as naming,
};

/// Most uses that can be counted: who used it is written down at the Secret, which has a limit.
pub const MAX_USES: u32 = 2000;

/// What may be done with a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Patterns of the names of clusters it is good for, `*` for any characters; empty: any name.
    pub clusters: Vec<String>,
    /// Clusters that come with it are accepted.
    pub accept: bool,
    /// The set they come into.
    pub set: Option<String>,
    /// Labels they get.
    pub labels: BTreeMap<String, String>,
    /// How many clusters may come with it; none: any number.
    pub uses: Option<u32>,
}

impl Grant {
    /// The grant as a Secret's annotations say it. One that cannot be read grants nothing.
    pub fn read(all: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |key: &str| all.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let accept = match text(annotations::TOKEN_ACCEPT) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(format!(
                    "its annotation {} is {other:?}",
                    annotations::TOKEN_ACCEPT
                ));
            }
        };
        let uses = text(annotations::TOKEN_USES)
            .map(|uses| {
                uses.parse()
                    .map_err(|_| format!("its annotation {} is {uses:?}", annotations::TOKEN_USES))
            })
            .transpose()?;
        let labels = text(annotations::TOKEN_LABELS)
            .map(|labels| {
                serde_json::from_str(labels).map_err(|_| {
                    format!(
                        "its annotation {} is no JSON object of labels",
                        annotations::TOKEN_LABELS
                    )
                })
            })
            .transpose()?
            .unwrap_or_default();
        Ok(Self {
            clusters: split(text(annotations::TOKEN_CLUSTERS))
                .map(str::to_owned)
                .collect(),
            accept,
            set: text(annotations::TOKEN_SET).map(str::to_owned),
            labels,
            uses,
        })
    }

    /// The annotations that say it.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let labels = serde_json::to_string(&self.labels).unwrap_or_default();
        [
            (
                annotations::TOKEN_CLUSTERS,
                Some(self.clusters.join(",")).filter(|all| !all.is_empty()),
            ),
            (annotations::TOKEN_ACCEPT, Some(self.accept.to_string())),
            (annotations::TOKEN_SET, self.set.clone()),
            (
                annotations::TOKEN_LABELS,
                Some(labels).filter(|_| !self.labels.is_empty()),
            ),
            (annotations::TOKEN_USES, self.uses.map(|uses| uses.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
    }

    /// Whether a cluster of that name may come with it.
    pub fn allows(&self, cluster: &str) -> bool {
        self.clusters.is_empty() || self.clusters.iter().any(|pattern| matches(pattern, cluster))
    }
}

fn split(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// Whether the whole `name` is as `pattern` says; `*` stands for any characters, or none.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        // No star.
        return rest.is_empty();
    };
    let mut rest = rest;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// Why `pattern` can match no cluster's name, in words that can follow it.
pub fn validate_pattern(pattern: &str) -> Result<(), &'static str> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '*';
    if !pattern.chars().all(known) {
        return Err("must hold only lower case letters, digits, '-' and '*'");
    }
    naming::validate_cluster_name(&pattern.replace('*', "0"))
}

/// What the hub keeps of a token: never its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenView {
    /// The Secret's uid.
    pub uid: String,
    /// The Secret's resource version.
    pub resource_version: String,
    /// Whether it is being revoked.
    pub deleting: bool,
    /// When it ends.
    pub expiration: Option<Timestamp>,
    /// What it allows, or why nobody knows.
    pub grant: Result<Grant, String>,
    /// Clusters that came with it, where that is counted.
    pub used_by: BTreeSet<String>,
}

impl Default for TokenView {
    fn default() -> Self {
        Self::of(&ObjectMeta::default())
    }
}

impl TokenView {
    /// What is kept of a token's Secret.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let none = BTreeMap::new();
        let all = metadata.annotations.as_ref().unwrap_or(&none);
        let expiration = all.get(annotations::TOKEN_EXPIRATION);
        let expires = expiration.map(|text| text.parse::<Timestamp>()).transpose();
        let used_by = split(all.get(annotations::TOKEN_USED_BY).map(String::as_str));
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            grant: Grant::read(all).and_then(|grant| match &expires {
                Ok(_) => Ok(grant),
                Err(_) => Err(format!(
                    "its annotation {} is no time",
                    annotations::TOKEN_EXPIRATION
                )),
            }),
            expiration: expires.ok().flatten(),
            used_by: used_by.map(str::to_owned).collect(),
        }
    }

    /// In a word, what it is good for at `now`.
    pub fn state(&self, now: Timestamp) -> &'static str {
        let used = u32::try_from(self.used_by.len()).unwrap_or(u32::MAX);
        match &self.grant {
            _ if self.deleting => "revoked",
            Err(_) => "invalid",
            _ if self.expiration.is_some_and(|expiration| expiration <= now) => "expired",
            Ok(grant) if grant.uses.is_some_and(|uses| used >= uses) => "used up",
            Ok(_) => "valid",
        }
    }

    /// What it allows the cluster of that name at `now`, or why nothing: words that follow "the join token".
    pub fn check(&self, cluster: &str, now: Timestamp) -> Result<&Grant, String> {
        let grant = self
            .grant
            .as_ref()
            .map_err(|problem| format!("cannot be read: {problem}"))?;
        if self.deleting {
            return Err("is revoked".to_owned());
        }
        if let Some(expiration) = self.expiration.filter(|expiration| *expiration <= now) {
            return Err(format!("expired at {expiration}"));
        }
        if !grant.allows(cluster) {
            return Err(format!(
                "is not for a cluster named {cluster:?}, only for {}",
                grant.clusters.join(", ")
            ));
        }
        let used = u32::try_from(self.used_by.len()).unwrap_or(u32::MAX);
        match grant.uses {
            Some(uses) if used >= uses && !self.used_by.contains(cluster) => {
                Err(format!("is used up: {used} of {uses} clusters came with it"))
            }
            _ => Ok(grant),
        }
    }
}

/// The id of the join token a user authenticated with, when it is one.
pub fn token_id<'a>(user: &'a str, groups: &[String]) -> Option<&'a str> {
    groups
        .iter()
        .any(|group| group == names::BOOTSTRAP_GROUP)
        .then(|| user.strip_prefix(names::BOOTSTRAP_USER_PREFIX))?
}

/// The name of the Secret of the token with that id.
pub fn secret_name(id: &str) -> String {
    format!("{}{id}", names::BOOTSTRAP_TOKEN_PREFIX)
}

/// The selector of join tokens' Secrets.
pub fn selector() -> String {
    format!("{}=true", labels::JOIN_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, wanted) in [
            ("c1", "c1", true),
            ("c1", "c10", false),
            ("c1", "xc1", false),
            ("burst-*", "burst-1", true),
            ("burst-*", "burst-", true),
            ("burst-*", "burst", false),
            ("burst-*", "a-burst-1", false),
            ("*", "anything", true),
            ("*-eu", "a-eu", true),
            ("*-eu", "a-eu-1", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*b*c", "abbc", true),
            ("**", "", true),
            ("", "c", false),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} on {name}");
        }
        for (pattern, good) in [
            ("burst-*", true),
            ("*", true),
            ("c1", true),
            ("-*", false),
            ("", false),
            ("C*", false),
            ("a?", false),
        ] {
            assert_eq!(validate_pattern(pattern).is_ok(), good, "{pattern}");
        }
    }

    #[test]
    fn a_grant_reads_back_as_it_was_written() {
        let full = Grant {
            clusters: vec!["burst-*".to_owned(), "c1".to_owned()],
            accept: true,
            set: Some("burst".to_owned()),
            labels: [
                ("env".to_owned(), "test".to_owned()),
                ("empty".to_owned(), String::new()),
            ]
            .into(),
            uses: Some(3),
        };
        for grant in [full, Grant::default()] {
            assert_eq!(Grant::read(&grant.annotations()), Ok(grant));
        }
    }

    #[test]
    fn a_grant_that_cannot_be_read_grants_nothing() {
        for (key, value) in [
            (annotations::TOKEN_ACCEPT, "yes"),
            (annotations::TOKEN_USES, "-1"),
            (annotations::TOKEN_USES, "many"),
            (annotations::TOKEN_LABELS, "a=b"),
            (annotations::TOKEN_EXPIRATION, "tomorrow"),
        ] {
            let view = TokenView::of(&ObjectMeta {
                annotations: Some([(key.to_owned(), value.to_owned())].into()),
                ..ObjectMeta::default()
            });
            let why = view.check("c1", at(0)).unwrap_err();
            assert!(why.contains(key), "{why}");
        }
    }

    #[test]
    fn what_a_token_allows() {
        let view = |uses, used: &[&str]| TokenView {
            expiration: Some(at(100)),
            grant: Ok(Grant {
                clusters: vec!["c*".to_owned()],
                uses,
                ..Grant::default()
            }),
            used_by: used.iter().map(ToString::to_string).collect(),
            ..TokenView::default()
        };
        let revoked = TokenView {
            deleting: true,
            ..view(None, &[])
        };
        for (token, cluster, now, wanted) in [
            (view(None, &[]), "c1", 99, None),
            (view(None, &[]), "c1", 100, Some("expired at")),
            (
                view(None, &[]),
                "d1",
                0,
                Some("not for a cluster named \"d1\", only for c*"),
            ),
            (view(Some(1), &[]), "c1", 0, None),
            (view(Some(1), &["c1"]), "c1", 0, None),
            (view(Some(1), &["c1"]), "c2", 0, Some("used up: 1 of 1")),
            (view(Some(2), &["c1"]), "c2", 0, None),
            (view(Some(0), &[]), "c1", 0, Some("used up: 0 of 0")),
            (revoked, "c1", 0, Some("revoked")),
        ] {
            let answer = token.check(cluster, at(now)).err();
            match wanted {
                None => assert_eq!(answer, None),
                Some(words) => assert!(
                    answer.as_ref().is_some_and(|why| why.contains(words)),
                    "{answer:?}"
                ),
            }
        }
    }

    #[test]
    fn only_a_bootstrap_tokens_user_is_one() {
        let group = [names::BOOTSTRAP_GROUP.to_owned()];
        assert_eq!(token_id("system:bootstrap:abcdef", &group), Some("abcdef"));
        assert_eq!(token_id("system:bootstrap:abcdef", &[]), None);
        assert_eq!(token_id("system:node:abcdef", &group), None);
    }
}
