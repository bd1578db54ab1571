//! What is refused of ManifestWorks, and of ManifestWorkReplicaSets, whose template is one (ocm-wire §8).

use std::{borrow::Cow, collections::HashSet};

use muster_crds::{constants::admission, work::manifest_size};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::review::{Check, Decision, Question, Refusal, User, works};

/// What the rules look at: manifests stay text.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Work<'a> {
    #[serde(borrow)]
    spec: Spec<'a>,
}

/// What the rules look at of a replica set.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReplicaSet<'a> {
    #[serde(borrow)]
    spec: ReplicaSetSpec<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ReplicaSetSpec<'a> {
    #[serde(borrow)]
    manifest_work_template: Spec<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec<'a> {
    #[serde(borrow)]
    workload: Workload<'a>,
    executor: Option<Executor>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Workload<'a> {
    #[serde(borrow)]
    manifests: Vec<&'a RawValue>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Executor {
    subject: Subject,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Subject {
    #[serde(rename = "type")]
    type_: String,
    service_account: Option<ServiceAccount>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct ServiceAccount {
    namespace: String,
    name: String,
}

/// What tells one manifest from another. The rest is passed over, not kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Manifest<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    generate_name: Cow<'a, str>,
}

/// What the hub was told about works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that the manifests of a work may have.
    pub manifests: usize,
    /// Works without an executor are checked as those of the agent's own service account.
    pub nil_executor: bool,
}

/// A work has manifests, not too many bytes of them, each named and none twice; and who writes it may have it applied
/// on behalf of its executor.
pub fn validate(
    user: &User,
    namespace: &str,
    new: &Work<'_>,
    old: Option<&Work<'_>>,
    limits: Limits,
) -> Decision {
    check(
        &new.spec,
        old.map(|old| &old.spec),
        limits,
        namespace,
        |executor| {
            format!(
                "user {} cannot manipulate the Manifestwork with executor {executor} in namespace {namespace}",
                user.username
            )
        },
    )
}

/// The same of a replica set. Its works are made by the hub, on clusters that nobody knows yet: who names an executor must
/// have the right to in all namespaces.
pub fn validate_replica_set(
    user: &User,
    new: &ReplicaSet<'_>,
    old: Option<&ReplicaSet<'_>>,
    limits: Limits,
) -> Decision {
    let old = old.map(|old| &old.spec.manifest_work_template);
    check(&new.spec.manifest_work_template, old, limits, "", |executor| {
        format!(
            "user {} cannot manipulate the ManifestWorkReplicaSet with executor {executor} in all namespaces",
            user.username
        )
    })
}

fn check(
    new: &Spec<'_>,
    old: Option<&Spec<'_>>,
    limits: Limits,
    namespace: &str,
    why: impl FnOnce(String) -> String,
) -> Decision {
    manifests(&new.workload.manifests, limits.manifests).map_err(Refusal::bad_request)?;
    if old.is_some_and(|old| old.executor == new.executor) {
        return Ok(Vec::new());
    }
    let (of, name) = match &new.executor {
        None if !limits.nil_executor => return Ok(Vec::new()),
        None => ("", admission::DEFAULT_EXECUTOR),
        Some(executor) => match &executor.subject.service_account {
            None => return Err(Refusal::bad_request("executor service account can not be nil")),
            Some(account) => (account.namespace.as_str(), account.name.as_str()),
        },
    };
    let right = works(
        admission::EXECUTE_AS,
        namespace,
        format!("system:serviceaccount:{of}:{name}"),
    );
    Ok(vec![Check {
        question: Question::May(right),
        refusal: Refusal::bad_request(why(format!("{of}/{name}"))),
    }])
}

fn manifests(manifests: &[&RawValue], limit: usize) -> Result<(), String> {
    if manifests.is_empty() {
        return Err("manifests should not be empty".to_owned());
    }
    let size: usize = manifests
        .iter()
        .map(|manifest| manifest_size(manifest.get()))
        .sum();
    if size > limit {
        return Err(format!(
            "the size of manifests is {size} bytes which exceeds the {limit} limit"
        ));
    }
    let mut seen = HashSet::with_capacity(manifests.len());
    for text in manifests {
        let manifest: Manifest<'_> = serde_json::from_str(text.get()).map_err(|error| error.to_string())?;
        let Manifest {
            api_version,
            kind,
            metadata,
        } = manifest;
        if kind.is_empty() {
            return Err(format!("Object 'Kind' is missing in '{}'", text.get()));
        }
        if metadata.name.is_empty() {
            return Err("name must be set in manifest".to_owned());
        }
        if !metadata.generate_name.is_empty() {
            return Err("generateName must not be set in manifest".to_owned());
        }
        let Metadata { name, namespace, .. } = metadata;
        let identity = (api_version, kind, namespace, name);
        if let Some((api_version, kind, namespace, name)) = seen.get(&identity) {
            return Err(format!(
                "duplicate manifest for resource {namespace}/{name} with resource type {api_version}.{kind}"
            ));
        }
        seen.insert(identity);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use muster_crds::work::MANIFEST_LIMIT;
    use serde_json::{Value, json};

    use super::*;

    const LIMITS: Limits = Limits {
        manifests: MANIFEST_LIMIT,
        nil_executor: false,
    };

    fn jane() -> User {
        User {
            username: "jane".to_owned(),
            ..User::default()
        }
    }

    fn map(namespace: &str, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}})
    }

    fn spec(manifests: &[Value], executor: Option<&Value>) -> String {
        let mut spec = json!({"workload": {"manifests": manifests}});
        if let Some(executor) = executor {
            spec["executor"] = executor.clone();
        }
        json!({"metadata": {"name": "w"}, "spec": spec, "status": {}}).to_string()
    }

    fn decide(new: &str, old: Option<&str>, limits: Limits) -> Decision {
        let old = old.map(|old| serde_json::from_str::<Work<'_>>(old).unwrap());
        validate(
            &jane(),
            "c1",
            &serde_json::from_str(new).unwrap(),
            old.as_ref(),
            limits,
        )
    }

    #[test]
    fn manifests_are_there_named_and_each_once() {
        let unnamed = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "a"}});
        let bare = json!({"apiVersion": "v1", "kind": "Secret"});
        let generated =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "generateName": "a-"}});
        let kindless = json!({"apiVersion": "v1", "metadata": {"name": "a"}});
        let other_version =
            json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}});
        let other_kind =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "n"}});
        for (manifests, message) in [
            (vec![], Some("manifests should not be empty")),
            (vec![unnamed.clone()], Some("name must be set in manifest")),
            (vec![bare], Some("name must be set in manifest")),
            (vec![map("n", "a"), unnamed], Some("name must be set in manifest")),
            (vec![generated], Some("generateName must not be set in manifest")),
            (
                vec![kindless],
                Some("Object 'Kind' is missing in '{\"apiVersion\":\"v1\""),
            ),
            (
                vec![map("default", "test1"), map("x", "y"), map("default", "test1")],
                Some("duplicate manifest for resource default/test1 with resource type v1.ConfigMap"),
            ),
            (vec![map("n", "a"), map("m", "a"), map("n", "b")], None),
            (vec![map("n", "a"), other_version, other_kind], None),
        ] {
            let decision = decide(&spec(&manifests, None), None, LIMITS);
            match message {
                None => assert_eq!(decision, Ok(Vec::new()), "{manifests:?}"),
                Some(message) => {
                    let refusal = decision.unwrap_err();
                    assert!(
                        refusal.message().starts_with(message),
                        "{manifests:?}: {refusal:?}"
                    );
                    assert_eq!(refusal.status()["code"], 400);
                }
            }
        }
        assert!(decide("{}", None, LIMITS).is_err(), "no spec, no manifests");
    }

    #[test]
    fn manifests_may_have_so_many_bytes_and_no_more() {
        let of = |sizes: &[usize]| {
            let manifests: Vec<Value> = sizes
                .iter()
                .enumerate()
                .map(|(n, size)| {
                    let mut map = map("n", &format!("m{n}"));
                    map["data"] = json!({"x": ""});
                    let fill = size - manifest_size(&map.to_string()) - 2;
                    map["data"]["x"] = "y".repeat(fill).into();
                    assert_eq!(manifest_size(&map.to_string()), *size);
                    map
                })
                .collect();
            spec(&manifests, None)
        };
        assert_eq!(decide(&of(&[512_000]), None, LIMITS), Ok(Vec::new()));
        assert_eq!(decide(&of(&[256_000, 256_000]), None, LIMITS), Ok(Vec::new()));
        let refusal = decide(&of(&[256_000, 256_192]), None, LIMITS).unwrap_err();
        assert_eq!(
            refusal.message(),
            "the size of manifests is 512192 bytes which exceeds the 512000 limit"
        );
        let less = Limits {
            manifests: 20_000,
            ..LIMITS
        };
        assert!(decide(&of(&[20_000]), None, less).is_ok());
        assert!(decide(&of(&[20_001]), None, less).is_err());
    }

    fn account(namespace: &str, name: &str) -> Value {
        json!({"subject": {"type": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}}})
    }

    #[test]
    fn whoever_names_an_executor_may_execute_as_it() {
        let nil = Limits {
            nil_executor: true,
            ..LIMITS
        };
        let (a, b) = (account("ns", "a"), account("ns", "b"));
        let asked = |of: &str| {
            let right = works(
                "execute-as",
                "c1",
                format!("system:serviceaccount:{}", of.replace('/', ":")),
            );
            let why =
                format!("user jane cannot manipulate the Manifestwork with executor {of} in namespace c1");
            Ok(vec![Check {
                question: Question::May(right),
                refusal: Refusal::bad_request(why),
            }])
        };
        let agents_own = "/klusterlet-work-sa";
        for (new, old, limits, wanted) in [
            (None, None, LIMITS, Ok(Vec::new())),
            (None, None, nil, asked(agents_own)),
            (Some(&a), None, LIMITS, asked("ns/a")),
            (Some(&a), None, nil, asked("ns/a")),
            (Some(&a), Some(Some(&a)), nil, Ok(Vec::new())),
            (Some(&b), Some(Some(&a)), LIMITS, asked("ns/b")),
            (Some(&a), Some(None), LIMITS, asked("ns/a")),
            (None, Some(Some(&a)), LIMITS, Ok(Vec::new())),
            (None, Some(Some(&a)), nil, asked(agents_own)),
            (None, Some(None), nil, Ok(Vec::new())),
        ] {
            let manifests = [map("n", "a")];
            let old = old.map(|old| spec(&manifests, old));
            let decision = decide(&spec(&manifests, new), old.as_deref(), limits);
            assert_eq!(decision, wanted, "{new:?} {old:?} {limits:?}");
        }
        let nobody = json!({"subject": {"type": "ServiceAccount"}});
        let refusal = decide(&spec(&[map("n", "a")], Some(&nobody)), None, LIMITS).unwrap_err();
        assert_eq!(refusal.message(), "executor service account can not be nil");
    }

    #[test]
    fn a_replica_set_is_judged_by_its_template_and_for_all_namespaces() {
        let set = |manifests: &[Value], executor: Option<&Value>| {
            let work: Value = serde_json::from_str(&spec(manifests, executor)).unwrap();
            json!({"spec": {"placementRefs": [{"name": "p"}], "manifestWorkTemplate": work["spec"]}})
                .to_string()
        };
        let decide = |new: &str, old: Option<&str>| {
            let old = old.map(|old| serde_json::from_str::<ReplicaSet<'_>>(old).unwrap());
            validate_replica_set(&jane(), &serde_json::from_str(new).unwrap(), old.as_ref(), LIMITS)
        };
        for (manifests, message) in [
            (vec![], "manifests should not be empty"),
            (
                vec![map("n", "a"), map("n", "a")],
                "duplicate manifest for resource n/a with resource type v1.ConfigMap",
            ),
        ] {
            assert_eq!(
                decide(&set(&manifests, None), None).unwrap_err().message(),
                message
            );
        }
        assert!(decide("{}", None).is_err(), "no template, no manifests");
        let plain = set(&[map("n", "a")], None);
        assert_eq!(decide(&plain, None), Ok(Vec::new()));
        let named = set(&[map("n", "a")], Some(&account("ns", "a")));
        assert_eq!(decide(&named, Some(&named)), Ok(Vec::new()));
        let asked = decide(&named, Some(&plain)).unwrap();
        assert_eq!(
            asked,
            [Check {
                question: Question::May(works("execute-as", "", "system:serviceaccount:ns:a".to_owned())),
                refusal: Refusal::bad_request(
                    "user jane cannot manipulate the ManifestWorkReplicaSet with executor ns/a in all namespaces"
                ),
            }]
        );
    }
}
