//! Query parameters and the option objects they stand for, refused with kube-apiserver's messages.

use super::path::percent_decode;
use crate::error::{ApiError, FieldError, FieldErrorKind};
use serde_json::{Value, json};
use std::time::Duration;

/// The decoded pairs of a query string, in order.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes what follows the `?`. Empty pairs (`?&a=b`, as some clients send) are skipped, and so are those that Go does not
    /// read: with a semicolon, or with a `%` that begins no escape.
    pub fn parse(query: &str) -> Self {
        Self(
            query
                .split('&')
                .filter(|p| !p.is_empty() && !p.contains(';') && is_escaped(p))
                .map(|pair| {
                    let (k, v) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(k, true), percent_decode(v, true))
                })
                .collect(),
        )
    }

    /// First value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// First value of `key`, `""` when absent.
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    /// All values of `key`.
    pub fn all(&self, key: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(k, _)| k == key)
            .map(|(_, v)| v.clone())
            .collect()
    }

    /// A boolean as Kubernetes reads it: there, and neither `false` nor `0`.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key)
            .is_some_and(|v| !v.eq_ignore_ascii_case("false") && v != "0")
    }

    /// The `timeout` asked for, where there is one that is above 0.
    pub fn timeout(&self) -> Option<Duration> {
        let seconds = seconds(self.get("timeout")?)?;
        Duration::try_from_secs_f64(seconds).ok().filter(|d| !d.is_zero())
    }

    /// Refuses a `timeout` that is no duration.
    pub fn check_timeout(&self) -> Result<(), ApiError> {
        match self.get("timeout") {
            Some(text) if !text.is_empty() && seconds(text).is_none() => Err(ApiError::BadRequest(format!(
                "invalid timeout specified in the request URL - time: invalid duration {text:?}"
            ))),
            _ => Ok(()),
        }
    }

    fn number(&self, key: &str) -> Result<Option<i64>, ApiError> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(v) => v.parse().map(Some).map_err(|_| {
                let digits = v.strip_prefix(['+', '-']).unwrap_or(v);
                let why = if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                    "value out of range"
                } else {
                    "invalid syntax"
                };
                ApiError::BadRequest(format!("strconv.ParseInt: parsing {v:?}: {why}"))
            }),
        }
    }
}

/// Whether every `%` begins an escape.
fn is_escaped(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        let hex = rest.as_bytes().get(..2);
        hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The seconds of a duration as Go reads it: `1.5h`, `10s`, `2m30s`.
fn seconds(text: &str) -> Option<f64> {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let unit = rest[number..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |i| number + i);
        let one = match &rest[number..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += rest[..number].parse::<f64>().ok()? * one;
        rest = &rest[unit..];
    }
    Some(sign * sum)
}

/// How unknown and duplicate fields of a body are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped, with a Warning header each.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// Options common to all writes.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Nothing is stored.
    pub dry_run: bool,
    /// Who owns the fields written: `fieldManager`, or the user agent up to its first `/`.
    pub manager: String,
    /// Treatment of unknown fields.
    pub validation: FieldValidation,
    /// Server-side apply takes fields from others.
    pub force: bool,
    /// What a strict reader says of the patch itself.
    pub noticed: Vec<String>,
    /// It is part of a request that policies and webhooks have seen: of this write they are not asked.
    pub reviewed: bool,
}

/// Which option object a query is decoded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionsKind {
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH with another type than apply.
    Patch,
    /// Server-side apply.
    Apply,
}

impl OptionsKind {
    fn kind(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Patch | Self::Apply => "PatchOptions",
        }
    }
}

const META: &str = "meta.k8s.io";

/// Longest `fieldManager` (meta/v1 validation).
const MANAGER_LENGTH: usize = 128;

impl WriteOptions {
    /// Decodes and validates. `user_agent` stands in for an absent `fieldManager`.
    pub fn parse(query: &Query, kind: OptionsKind, user_agent: &str) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        let manager = query.text("fieldManager");
        if kind == OptionsKind::Apply {
            if manager.is_empty() {
                errors.push(FieldError::required(
                    "fieldManager",
                    "is required for apply patch",
                ));
            }
        } else if query.get("force").is_some() && kind == OptionsKind::Patch {
            errors.push(FieldError::forbidden(
                "force",
                "may not be specified for non-apply patch",
            ));
        }
        errors.extend(manager_errors(manager));
        errors.extend(dry_run_errors(&query.all("dryRun")));
        let validation = query.text("fieldValidation");
        let supported = ["", "Ignore", "Strict", "Warn"];
        if !supported.contains(&validation) {
            errors.push(FieldError::not_supported(
                "fieldValidation",
                &json!(validation),
                &supported,
            ));
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(META, kind.kind(), "", errors));
        }
        Ok(Self {
            dry_run: query.get("dryRun").is_some(),
            manager: if manager.is_empty() {
                manager_of(user_agent)
            } else {
                manager.to_owned()
            },
            validation: match validation {
                "Ignore" => FieldValidation::Ignore,
                "Strict" => FieldValidation::Strict,
                _ => FieldValidation::Warn,
            },
            force: query.flag("force"),
            reviewed: false,
            noticed: Vec::new(),
        })
    }

    /// Options of a write by a part of this server.
    pub fn internal(manager: &str) -> Self {
        Self {
            manager: manager.to_owned(),
            validation: FieldValidation::Ignore,
            ..Self::default()
        }
    }
}

/// The field manager of a user agent: what is before its first `/`, printable, at most 128 bytes.
pub fn manager_of(user_agent: &str) -> String {
    let prefix = user_agent.split('/').next().unwrap_or_default();
    let mut out = String::new();
    for c in prefix.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > MANAGER_LENGTH {
            break;
        }
        out.push(c);
    }
    if out.is_empty() { "unknown".into() } else { out }
}

fn manager_errors(manager: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if manager.len() > MANAGER_LENGTH {
        let message = format!("Too long: may not be more than {MANAGER_LENGTH} bytes");
        errors.push(FieldError::new(FieldErrorKind::TooLong, "fieldManager", message));
    }
    if let Some((at, c)) = manager.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(FieldError::invalid("fieldManager", &json!(manager), &why));
    }
    errors
}

fn dry_run_errors(values: &[String]) -> Vec<FieldError> {
    if values.iter().all(|v| v == "All") {
        return Vec::new();
    }
    vec![FieldError::not_supported("dryRun", &json!(values), &["All"])]
}

/// What happens to the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Removed after it.
    Background,
    /// Removed before it.
    Foreground,
    /// Kept.
    Orphan,
}

/// `metav1.DeleteOptions`.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Nothing is stored.
    pub dry_run: bool,
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only at this resourceVersion.
    pub resource_version: Option<String>,
    /// `None`: as the object's finalizers say, Background otherwise.
    pub propagation: Option<Propagation>,
    /// `orphanDependents: false`, the old way to say that an answer may come before the deletion is done.
    pub cascades: bool,
    /// Seconds a pod has to end; `None` as its spec says.
    pub grace: Option<i64>,
    /// As of [`WriteOptions`].
    pub reviewed: bool,
}

impl DeleteOptions {
    /// From the body, or the query when there is none.
    pub fn parse(body: Option<&Value>, query: &Query) -> Result<Self, ApiError> {
        let from_query;
        let options = if let Some(body) = body {
            body
        } else {
            let mut map = json!({});
            if query.get("dryRun").is_some() {
                map["dryRun"] = json!(query.all("dryRun"));
            }
            if let Some(p) = query.get("propagationPolicy") {
                map["propagationPolicy"] = json!(p);
            }
            if query.get("orphanDependents").is_some() {
                map["orphanDependents"] = json!(query.flag("orphanDependents"));
            }
            if let Some(s) = query.number("gracePeriodSeconds")? {
                map["gracePeriodSeconds"] = json!(s);
            }
            from_query = map;
            &from_query
        };
        let mut errors = Vec::new();
        let policy = &options["propagationPolicy"];
        let orphan = options["orphanDependents"].as_bool();
        let mut propagation = match policy.as_str() {
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            _ => None,
        };
        if let Some(orphan) = orphan {
            if policy.is_null() {
                propagation = Some(if orphan {
                    Propagation::Orphan
                } else {
                    Propagation::Background
                });
            } else {
                errors.push(FieldError::invalid(
                    "propagationPolicy",
                    policy,
                    "orphanDependents and deletionPropagation cannot be both set",
                ));
            }
        } else if !policy.is_null() && propagation.is_none() {
            errors.push(FieldError::not_supported(
                "propagationPolicy",
                policy,
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
        let dry: Vec<String> = options["dryRun"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|v| v.as_str().unwrap_or_default().to_owned())
            .collect();
        errors.extend(dry_run_errors(&dry));
        if !errors.is_empty() {
            return Err(ApiError::invalid(META, "DeleteOptions", "", errors));
        }
        let precondition = |f: &str| options["preconditions"][f].as_str().map(str::to_owned);
        Ok(Self {
            dry_run: !dry.is_empty(),
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            propagation,
            cascades: orphan == Some(false),
            grace: options["gracePeriodSeconds"].as_i64(),
            reviewed: false,
        })
    }
}

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// That very revision.
    Exact,
    /// That or a newer one.
    NotOlderThan,
}

/// `metav1.ListOptions`, selectors still as text.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Most items of a page, 0 for all.
    pub limit: usize,
    /// Token of the page before.
    pub continue_token: String,
    /// As sent.
    pub resource_version: String,
    /// How `resource_version` is meant.
    pub version_match: Option<Match>,
    /// Watch or list ends after so many seconds.
    pub timeout_seconds: Option<u64>,
    /// Label selector, as sent.
    pub label_selector: String,
    /// Field selector, as sent.
    pub field_selector: String,
    /// WatchList: the state first.
    pub send_initial_events: Option<bool>,
    /// The client understands BOOKMARK.
    pub bookmarks: bool,
}

impl ListOptions {
    /// Decodes and validates for a list or, with `watch`, a watch.
    pub fn parse(query: &Query, watch: bool) -> Result<Self, ApiError> {
        let version = query.text("resourceVersion");
        let sent = query.text("resourceVersionMatch");
        let initial = query
            .get("sendInitialEvents")
            .map(|_| query.flag("sendInitialEvents"));
        let token = query.text("continue");
        let mut errors = Vec::new();
        let forbid =
            |e: &mut Vec<FieldError>, field: &str, why: &str| e.push(FieldError::forbidden(field, why));
        let of = "resourceVersionMatch";
        if watch {
            if initial.is_some() && sent != "NotOlderThan" {
                forbid(
                    &mut errors,
                    of,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
                if !sent.is_empty() {
                    let only = ["NotOlderThan"];
                    errors.push(FieldError::not_supported(of, &json!(sent), &only));
                }
            } else if initial.is_none() && !sent.is_empty() {
                forbid(
                    &mut errors,
                    of,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            if !token.is_empty() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                forbid(&mut errors, of, why);
            }
        } else {
            if !sent.is_empty() {
                if version.is_empty() {
                    forbid(
                        &mut errors,
                        of,
                        "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    );
                }
                if !token.is_empty() {
                    forbid(
                        &mut errors,
                        of,
                        "resourceVersionMatch is forbidden when continue is provided",
                    );
                }
                if !matches!(sent, "Exact" | "NotOlderThan") {
                    errors.push(FieldError::not_supported(
                        of,
                        &json!(sent),
                        &["Exact", "NotOlderThan", ""],
                    ));
                }
                if sent == "Exact" && version == "0" {
                    forbid(
                        &mut errors,
                        of,
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                    );
                }
            }
            if initial.is_some() {
                forbid(
                    &mut errors,
                    "sendInitialEvents",
                    "sendInitialEvents is forbidden for list",
                );
            }
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(META, "ListOptions", "", errors));
        }
        // What comes next is pinned already.
        if !token.is_empty() && !matches!(version, "" | "0") && !watch {
            return Err(ApiError::BadRequest(
                "specifying resource version is not allowed when using continue".into(),
            ));
        }
        Ok(Self {
            limit: query
                .number("limit")?
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(0),
            continue_token: token.to_owned(),
            resource_version: version.to_owned(),
            version_match: match sent {
                "Exact" => Some(Match::Exact),
                "NotOlderThan" => Some(Match::NotOlderThan),
                _ => None,
            },
            // Less than nothing is over at once.
            timeout_seconds: query
                .number("timeoutSeconds")?
                .filter(|n| *n != 0)
                .map(|n| u64::try_from(n).unwrap_or(0)),
            label_selector: query.text("labelSelector").to_owned(),
            field_selector: query.text("fieldSelector").to_owned(),
            send_initial_events: initial,
            bookmarks: query.flag("allowWatchBookmarks"),
        })
    }
}

/// A resourceVersion as a revision; the error text is Go's, without a beginning.
pub fn parse_revision(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_durations() {
        for (text, good) in [
            ("5s", true),
            ("1h2m3.5s", true),
            ("0", true),
            ("250ms", true),
            ("abc", false),
            ("5", false),
            ("5x", false),
            ("s", false),
        ] {
            let query = Query::parse(&format!("timeout={text}"));
            assert_eq!(query.check_timeout().is_ok(), good, "{text}");
        }
        for (text, want) in [
            ("timeout=1m2.5s", Some(62_500)),
            ("timeout=250ms", Some(250)),
            ("timeout=0s", None),
            ("timeout=-5s", None),
            ("timeout=x", None),
            ("", None),
        ] {
            assert_eq!(
                Query::parse(text).timeout(),
                want.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    fn write(query: &str, kind: OptionsKind) -> Result<WriteOptions, String> {
        WriteOptions::parse(&Query::parse(query), kind, "kubectl/v1.32 (linux)").map_err(|e| e.to_string())
    }

    #[test]
    fn write_options_are_validated() {
        let o = write("dryRun=All&fieldValidation=Strict", OptionsKind::Create).unwrap();
        assert!(o.dry_run && o.validation == FieldValidation::Strict && o.manager == "kubectl");
        for (query, kind, want) in [
            (
                "dryRun=Some",
                OptionsKind::Create,
                r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All""#,
            ),
            (
                "",
                OptionsKind::Apply,
                r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#,
            ),
            (
                "force=true",
                OptionsKind::Patch,
                r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#,
            ),
        ] {
            assert_eq!(write(query, kind).unwrap_err(), want);
        }
    }

    #[test]
    fn list_options_are_validated() {
        let list = |q: &str, watch| ListOptions::parse(&Query::parse(q), watch).map_err(|e| e.to_string());
        let o = list("?&limit=5&labelSelector=a%3Db", false).unwrap();
        assert_eq!((o.limit, o.label_selector.as_str()), (5, "a=b"));
        assert!(
            list("resourceVersionMatch=Exact", false)
                .unwrap_err()
                .contains("unless resourceVersion is provided")
        );
        assert!(
            list("sendInitialEvents=true", true)
                .unwrap_err()
                .contains("requires setting")
        );
        assert!(list("limit=x", false).is_err());
    }

    #[test]
    fn delete_options_come_from_body_or_query() {
        let q = Query::parse("dryRun=All&propagationPolicy=Orphan");
        let o = DeleteOptions::parse(None, &q).unwrap();
        assert!(o.dry_run && o.propagation == Some(Propagation::Orphan));
        let body = json!({"preconditions": {"uid": "u"}, "propagationPolicy": "Foreground"});
        let o = DeleteOptions::parse(Some(&body), &q).unwrap();
        assert!(
            !o.dry_run && o.uid.as_deref() == Some("u") && o.propagation == Some(Propagation::Foreground)
        );
        let both = json!({"propagationPolicy": "Background", "orphanDependents": true});
        assert!(DeleteOptions::parse(Some(&both), &q).is_err());
    }
}
