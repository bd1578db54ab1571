mod authn;
mod rbac;
mod review;
mod write;

use crate::object;
use crate::store::{Expect, Key, Store, StoreOptions};
use serde_json::{Value, json};

pub(super) fn memory() -> Store {
    Store::open(StoreOptions {
        path: None,
        keep_revisions: 1000,
    })
    .unwrap()
}

/// Writes an object, whatever is there.
pub(super) async fn put(store: &Store, resource: &str, value: Value) {
    let key = Key::new(resource, object::namespace(&value), object::name(&value));
    let expect = store
        .get(&key)
        .map_or(Expect::Absent, |e| Expect::Revision(e.revision));
    store.put(key, value, expect).await.unwrap();
}

pub(super) async fn remove(store: &Store, resource: &str, namespace: &str, name: &str) {
    let key = Key::new(resource, namespace, name);
    let entry = store.get(&key).unwrap();
    store.delete(key, entry.value(), entry.revision).await.unwrap();
}

pub(super) fn role(namespace: &str, name: &str, rules: &Value) -> Value {
    json!({ "metadata": { "namespace": namespace, "name": name }, "rules": rules })
}

/// A binding of `subject` (`User:a`, `Group:b`, `ServiceAccount:ns/name`) to `role` (`Role/r` or `ClusterRole/r`).
pub(super) fn binding(namespace: &str, name: &str, role: &str, subjects: &[&str]) -> Value {
    let (kind, referred) = role.split_once('/').unwrap();
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|s| {
            let (kind, name) = s.split_once(':').unwrap();
            match (kind, name.split_once('/')) {
                ("ServiceAccount", Some((ns, name))) => {
                    json!({ "kind": kind, "namespace": ns, "name": name })
                }
                _ => json!({ "kind": kind, "name": name }),
            }
        })
        .collect();
    json!({
        "metadata": { "namespace": namespace, "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": referred },
        "subjects": subjects,
    })
}
