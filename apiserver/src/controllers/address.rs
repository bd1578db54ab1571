//! IPAddresses: one for every cluster address that a Service has.

use super::plan::{Action, Plan};
use crate::object;
use crate::store::Key;
use serde_json::{Value, json};
use std::time::Duration;

/// IPAddresses, as a store key.
pub const ADDRESSES: &str = "networking.k8s.io/ipaddresses";
/// Services, as a store key.
pub const SERVICES: &str = "/services";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// When an address that another Service still has is looked at again.
const SOON: Duration = Duration::from_secs(1);

/// The cluster addresses of a Service.
pub fn of_service(service: &Value) -> impl Iterator<Item = &str> {
    let all = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
    all.filter_map(Value::as_str)
        .filter(|ip| !matches!(*ip, "" | "None"))
}

/// The Service an IPAddress that is kept here is of.
pub fn service_of(address: &Value) -> Option<Key> {
    let parent = &address["spec"]["parentRef"];
    let text = |field: &str| parent[field].as_str().unwrap_or_default();
    let kept = address["metadata"]["labels"][MANAGED_BY] == ALLOCATOR;
    (kept && text("resource") == "services" && text("group").is_empty())
        .then(|| Key::new(SERVICES, text("namespace"), text("name")))
}

/// Makes the IPAddress that a Service has, and takes away one that it had.
pub fn decide(ip: &str, of: &Key, service: Option<&Value>, address: Option<&Value>) -> Plan {
    let has = service.is_some_and(|service| of_service(service).any(|own| own == ip));
    match address {
        None if has => {
            let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
            let object = json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
                "metadata": {"name": ip, "labels": {
                    "ipaddress.kubernetes.io/ip-family": family, MANAGED_BY: ALLOCATOR}},
                "spec": {"parentRef": {"group": "", "resource": "services", "namespace": &*of.namespace, "name": &*of.name}},
            });
            Plan::of([Action::create(ADDRESSES, object)])
        }
        Some(address)
            if !has && service_of(address).as_ref() == Some(of) && !object::is_deleting(address) =>
        {
            Plan::of([Action::delete(ADDRESSES, address, None)])
        }
        // The Service that had it before is about to let go of it.
        Some(address) if has && service_of(address).is_some_and(|service| service != *of) => {
            Plan::later(SOON)
        }
        _ => Plan::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_their_service() {
        let key = Key::new(SERVICES, "n", "s");
        let service = json!({"spec": {"clusterIPs": ["10.96.0.9"]}});
        let headless = json!({"spec": {"clusterIPs": ["None"]}});
        let made = match decide("10.96.0.9", &key, Some(&service), None).actions.as_slice() {
            [Action::Create { object, .. }] => object.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(service_of(&made), Some(key.clone()));
        let other = Key::new(SERVICES, "n", "other");
        for (of, service, address, deleted) in [
            (&key, Some(&service), Some(&made), false),
            (&key, Some(&headless), Some(&made), true),
            (&key, None, Some(&made), true),
            (&other, None, Some(&made), false),
            (&key, None, None, false),
        ] {
            let plan = decide("10.96.0.9", of, service, address);
            assert_eq!(
                matches!(plan.actions.as_slice(), [Action::Delete { .. }]),
                deleted
            );
            assert!(deleted || plan.actions.is_empty());
        }
    }
}
