//! Paths, queries, headers and kubeconfigs: what one side writes the other reads.

use super::{any_text, fuzz};
use crate::kubeconfig::{Credentials, kubeconfig};
use crate::rest::negotiate::{accept, body_format, media_type, patch_kind};
use crate::rest::params::{DeleteOptions, ListOptions, OptionsKind, Query, WriteOptions};
use crate::rest::path::RequestInfo;
use http::Method;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use std::fmt::Write as _;

/// Percent-encodes all but letters, and some of them.
fn encoded(text: &str, also: u8) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() && byte != also {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A part of a path: anything but a slash, and not nothing.
fn part() -> BoxedStrategy<String> {
    prop_oneof![4 => "[a-z][a-z0-9.-]{0,6}", 1 => "[^/]{1,6}"].boxed()
}

#[test]
fn paths() {
    let input = (
        (part(), part(), part(), part(), part()),
        prop::option::of("[a-z]{1,4}\\.[a-z]{2}"),
        (any::<bool>(), any::<bool>(), any::<bool>(), any::<u8>()),
        prop::sample::select(vec![
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ]),
    );
    fuzz(
        "paths",
        &input,
        |((version, namespace, resource, name, sub), group, (in_ns, named, with_sub, also), method)| {
            // These words mean something of their own there.
            let own = ["watch", "namespaces", "status", "finalize"];
            prop_assume!(!own.contains(&resource.as_str()) && !own.contains(&name.as_str()));
            let mut parts: Vec<&str> = Vec::new();
            match &group {
                Some(group) => parts.extend(["apis", group, &version]),
                None => parts.extend(["api", &version]),
            }
            if in_ns {
                parts.extend(["namespaces", &namespace]);
            }
            parts.push(&resource);
            if named {
                parts.push(&name);
                if with_sub {
                    parts.push(&sub);
                }
            }
            let path: String = parts
                .iter()
                .flat_map(|p| ["/".to_owned(), encoded(p, also)])
                .collect();
            let info = RequestInfo::parse(&method, &path, &Query::default());
            let text = |there: bool, text: &str| if there { text.to_owned() } else { String::new() };
            prop_assert!(info.is_resource, "{}", path);
            prop_assert_eq!(&info.group, group.as_deref().unwrap_or_default());
            prop_assert_eq!(&info.version, &version);
            prop_assert_eq!(&info.namespace, &text(in_ns, &namespace));
            prop_assert_eq!(&info.resource, &resource);
            prop_assert_eq!(&info.name, &text(named, &name));
            prop_assert_eq!(&info.subresource, &text(named && with_sub, &sub));
            let verb = match (method.as_str(), named) {
                ("GET", true) => "get",
                ("GET", false) => "list",
                ("POST", _) => "create",
                ("PUT", _) => "update",
                ("PATCH", _) => "patch",
                (_, true) => "delete",
                (_, false) => "deletecollection",
            };
            prop_assert_eq!(info.verb, verb);
            Ok(())
        },
    );
}

#[test]
fn queries() {
    fuzz(
        "queries",
        &(vec(("[a-z]{1,3}", any_text()), 0..5), any::<u8>()),
        |(pairs, also)| {
            let text: Vec<String> = pairs
                .iter()
                .map(|(k, v)| format!("{k}={}", encoded(v, also)))
                .collect();
            let query = Query::parse(&text.join("&"));
            for (key, _) in &pairs {
                let all: Vec<String> = pairs
                    .iter()
                    .filter(|(k, _)| k == key)
                    .map(|(_, v)| v.clone())
                    .collect();
                prop_assert_eq!(query.get(key), all.first().map(String::as_str));
                prop_assert_eq!(query.all(key), all);
            }
            Ok(())
        },
    );
}

#[test]
fn anything_as_a_request() {
    let name = prop::sample::select(vec![
        "watch",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "timeoutSeconds",
        "labelSelector",
        "fieldSelector",
        "sendInitialEvents",
        "allowWatchBookmarks",
        "dryRun",
        "fieldManager",
        "fieldValidation",
        "force",
        "propagationPolicy",
        "orphanDependents",
        "gracePeriodSeconds",
    ]);
    let word = prop_oneof![
        2 => prop::sample::select(vec!["true", "false", "1", "0", "-1", "All", "Exact", "NotOlderThan", "Strict", "Orphan",
            "99999999999999999999", "metadata.name=a", "metadata.name==", "%", "%zz", "%00", "+"]).prop_map(String::from),
        1 => any_text(),
    ];
    let query = vec((name, word), 0..5).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join("&")
    });
    let path = prop_oneof![
        "(/|api|apis|v1|watch|namespaces|a|status|%2F|%|\\.\\.){0,12}",
        any::<String>(),
    ];
    let header = prop_oneof![
        "(application/json|application/yaml|\\*/\\*|;|,|as=Table|g=meta\\.k8s\\.io|v=v1|q=0\\.[0-9]|q=NaN|q=-1| ){0,8}",
        any::<String>(),
    ];
    let method = prop::sample::select(vec![
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ]);
    fuzz(
        "anything as a request",
        &(method, path, query, header),
        |(method, path, query, header)| {
            let query = Query::parse(&query);
            let info = RequestInfo::parse(&method, &path, &query);
            prop_assert_eq!(&info, &RequestInfo::parse(&method, &path, &query));
            prop_assert!(!info.is_resource || !info.resource.is_empty(), "{:?}", info);
            prop_assert!(info.name.is_empty() || !info.resource.is_empty());
            let _ = info.authorized_name(&query);
            for kind in [
                OptionsKind::Create,
                OptionsKind::Update,
                OptionsKind::Patch,
                OptionsKind::Apply,
            ] {
                if let Ok(options) = WriteOptions::parse(&query, kind, &header) {
                    prop_assert!(!options.manager.is_empty() && options.manager.len() <= 128);
                }
            }
            let _ = DeleteOptions::parse(None, &query);
            for watch in [false, true] {
                if let Ok(options) = ListOptions::parse(&query, watch) {
                    // Nothing said is no end at once.
                    prop_assert!(query.get("timeoutSeconds").is_some() || options.timeout_seconds.is_none());
                }
            }
            if let Ok(accepted) = accept(Some(&header)) {
                // What is served can be asked for by itself.
                prop_assert!(accepted == accept(Some(&header)).unwrap());
            }
            for custom in [false, true] {
                let _ = (
                    body_format(Some(&header), custom),
                    patch_kind(Some(&header), custom),
                );
            }
            prop_assert!(!media_type(Some(&header)).contains(';'));
            Ok(())
        },
    );
}

#[test]
fn kubeconfigs() {
    let name = prop_oneof!["[a-z0-9.-]{1,12}", "[ -~]{1,12}", any_text()];
    let secret = prop_oneof!["[a-z0-9.]{1,24}", "[ -~]{1,24}"];
    fuzz(
        "kubeconfigs",
        &(name, secret, any::<u16>()),
        |(name, token, port)| {
            let url = format!("https://127.0.0.1:{port}");
            let text = kubeconfig(
                &url,
                "-----BEGIN CERTIFICATE-----\n",
                &Credentials::Token(token.clone()),
                &name,
            );
            let read: kube::config::Kubeconfig =
                serde_saphyr::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
            prop_assert_eq!(
                read.current_context.as_deref(),
                read.contexts.first().map(|c| c.name.as_str())
            );
            let user = read
                .auth_infos
                .first()
                .and_then(|a| a.auth_info.clone())
                .unwrap_or_default();
            prop_assert!(user.token.is_some());
            let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
            prop_assert_eq!(value["users"][0]["user"]["token"].as_str(), Some(token.as_str()));
            let cluster = read
                .clusters
                .first()
                .and_then(|c| c.cluster.clone())
                .unwrap_or_default();
            prop_assert_eq!(cluster.server, Some(url));
            Ok(())
        },
    );
}
