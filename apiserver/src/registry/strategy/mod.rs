//! What kube-apiserver's registry strategies do: defaults, what a write may touch, generations, and the rules of each
//! kind. One generic path; kinds differ by small functions picked here.
//!
//! Order of a write: decode and prune, [`default`] (what a client's field manager owns), `prepare_*` (what the server
//! alone writes), then `validate_*`. All but address allocation are pure.

mod addresses;
mod admission;
mod api_services;
mod bounds;
mod certificates;
mod check;
mod claim_status;
mod claims;
mod cluster;
mod config;
mod cron;
mod csi;
mod custom;
mod device_slices;
mod devices;
mod endpoints;
mod events;
mod flow;
mod generation;
mod go;
mod job_policies;
mod job_status;
mod jobs;
mod json;
mod metadata;
mod network;
mod nodes;
mod normal;
mod pod;
mod pod_containers;
mod pod_hooks;
mod pod_parts;
mod pod_refs;
mod pod_resources;
mod pod_rules;
mod pod_scheduling;
mod pod_sub;
mod pod_volumes;
mod pod_warnings;
mod policy;
pub mod quantity;
mod rbac;
mod scaling;
mod scopes;
pub mod selector;
mod service;
mod service_rules;
mod statefulsets;
mod status;
mod storage;
mod volume_defaults;
mod volume_sources;
mod warnings;
mod workload_changes;
mod workloads;

pub use admission::webhooks;
pub use custom::scale_value;
pub use metadata::validate_labels;
pub use service::{kubernetes_address, service_range};

use super::{Resource, crd};
use crate::auth::UserInfo;
use crate::error::FieldError;
use crate::object;
use crate::schema::zeroes;
use crate::store::Store;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What a strategy may look at besides the object.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// For what is unique over objects: cluster addresses and node ports.
    pub store: &'a Store,
    /// Who asks.
    pub user: &'a UserInfo,
    /// Time of the request.
    pub now: Timestamp,
}

/// Which module knows a built-in kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Workload,
    Pod,
    Service,
    Config,
    Rbac,
    Certificates,
    Cluster,
    Policy,
    Admission,
    Crd,
    Plain,
}

fn family(resource: &Resource) -> Family {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => Family::Pod,
        ("", "services") => Family::Service,
        ("", "configmaps" | "secrets" | "serviceaccounts") => Family::Config,
        ("", "replicationcontrollers" | "podtemplates") | ("batch", _) => Family::Workload,
        ("apps", "controllerrevisions") | ("events.k8s.io" | "coordination.k8s.io" | "", _) => {
            Family::Cluster
        }
        ("apps", _) => Family::Workload,
        ("discovery.k8s.io", _) => Family::Cluster,
        ("rbac.authorization.k8s.io", _) => Family::Rbac,
        ("certificates.k8s.io", _) => Family::Certificates,
        ("admissionregistration.k8s.io", _) => Family::Admission,
        ("apiextensions.k8s.io", _) => Family::Crd,
        (
            "networking.k8s.io"
            | "policy"
            | "autoscaling"
            | "scheduling.k8s.io"
            | "storage.k8s.io"
            | "node.k8s.io"
            | "flowcontrol.apiserver.k8s.io"
            | "resource.k8s.io"
            | "apiregistration.k8s.io",
            _,
        ) => Family::Policy,
        _ => Family::Plain,
    }
}

/// Fills in what a client left out, as decoding does in kube-apiserver: these fields belong to whoever wrote the object.
/// Doing it twice changes nothing more.
pub fn default(resource: &Resource, object: &mut Value) {
    if let Some(custom) = &resource.custom {
        custom::defaults(custom, object);
        return;
    }
    let plural = resource.plural.as_str();
    zeroes::normalise(resource.schema(), object);
    normal::quantities(resource.schema(), object);
    volume_defaults::drop_off(plural, object);
    match family(resource) {
        Family::Workload => {
            if plural == "podtemplates" {
                if let Some(spec) = json::at(object, "template").and_then(|t| json::at(t, "spec")) {
                    pod::default_spec(spec);
                }
            } else {
                workloads::defaults(plural, object);
            }
        }
        Family::Pod => pod::default_pod(object),
        Family::Service => service::defaults(object),
        Family::Config => {
            if plural == "secrets" {
                config::default_secret(object);
            }
            config::drop_empty(object);
        }
        Family::Rbac => rbac::defaults(plural, object),
        Family::Cluster | Family::Policy => {
            policy::defaults(plural, object);
            cluster::defaults(plural, object);
            network::defaults(plural, object);
            storage::defaults(plural, object);
            flow::defaults(plural, object);
            devices::defaults(plural, object);
            if plural == "apiservices" {
                api_services::defaults(object);
            }
        }
        Family::Admission => admission::defaults(plural, object),
        Family::Crd => crd::defaults(object),
        Family::Certificates | Family::Plain => {}
    }
    if resource.has_status() && object.is_object() {
        let status = empty_status(resource);
        if let Value::Object(fields) = status {
            let own = object::child_mut(object, "status");
            for (key, value) in fields {
                own.entry(key).or_insert(value);
            }
        }
    }
}

fn empty_status(resource: &Resource) -> Value {
    match family(resource) {
        Family::Workload => workloads::empty_status(&resource.plural),
        Family::Policy | Family::Service => policy::empty_status(&resource.plural),
        Family::Crd => crd::empty_status(),
        _ => json!({}),
    }
}

/// Makes an object ready to be created: defaults, then what only the server writes. `metadata.uid` and the name must be
/// there already.
pub fn prepare_create(resource: &Resource, ctx: &Context<'_>, object: &mut Value) {
    default_again(resource, object);
    if let Some(custom) = &resource.custom {
        custom::prepare_create(custom, object);
        return;
    }
    let plural = resource.plural.as_str();
    // A Node's status is kept: the kubelet registers with it.
    if resource.has_status() && plural != "nodes" {
        object["status"] = empty_status(resource);
    }
    match family(resource) {
        Family::Workload => workloads::prepare_create(plural, object),
        Family::Pod => pod::prepare_create(object, &crate::rest::rfc3339(ctx.now)),
        Family::Service => service::allocate(ctx, object),
        Family::Certificates => certificates::prepare_create(ctx, object),
        Family::Cluster => {
            cluster::prepare_create(plural, object);
            if plural == "persistentvolumes" {
                storage::phase_time(object, None, &crate::rest::rfc3339(ctx.now));
            }
        }
        Family::Crd => crd::prepare_create(object),
        _ => {}
    }
    if generation::counts(resource) && !matches!(plural, "csidrivers" | "servicecidrs") {
        object::set_meta(object, "generation", Some(1.into()));
    }
}

fn default_again(resource: &Resource, object: &mut Value) {
    match &resource.custom {
        Some(custom) => custom::defaults_again(custom, object),
        None => default(resource, object),
    }
}

/// Kinds whose status endpoint changes nothing of metadata. With others it may.
pub fn keeps_metadata(resource: &Resource) -> bool {
    resource.custom.is_none()
        && matches!(
            (resource.group.as_str(), resource.plural.as_str()),
            ("admissionregistration.k8s.io", "validatingadmissionpolicies")
                | ("apiregistration.k8s.io", "apiservices")
                | ("flowcontrol.apiserver.k8s.io", "flowschemas")
                | ("networking.k8s.io", "servicecidrs")
                | ("resource.k8s.io", "resourceclaims")
                | ("storage.k8s.io", "volumeattachments")
        )
}

/// Makes a changed object ready: defaults, what the endpoint may not write is taken from `old`, generation is counted.
/// `subresource` is `""` for the main endpoint.
pub fn prepare_update(
    resource: &Resource,
    subresource: &str,
    ctx: &Context<'_>,
    new: &mut Value,
    old: &Value,
) {
    if family(resource) == Family::Config && resource.plural == "secrets" {
        config::prepare_secret_update(new, old);
    }
    default_again(resource, new);
    metadata::prepare_update(new, old);
    if let Some(custom) = &resource.custom {
        custom::prepare_update(custom, subresource, new, old);
        return;
    }
    let plural = resource.plural.as_str();
    match family(resource) {
        Family::Certificates => return certificates::prepare_update(subresource, ctx, new, old),
        Family::Cluster if plural == "namespaces" => {
            cluster::prepare_namespace_update(subresource, new, old);
            if subresource.is_empty() {
                json::copy(old, new, "status");
            }
            return;
        }
        _ => {}
    }
    if subresource == "eviction" {
        // Why it goes: whoever is asked about it changes nothing else.
        json::copy(old, new, "spec");
        return;
    }
    if subresource == "binding" {
        // Not what somebody wants of a pod, but where it is.
        return;
    }
    if subresource == "status" {
        json::copy(old, new, "spec");
        if keeps_metadata(resource) {
            for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                object::set_meta(new, field, old["metadata"].get(field).cloned());
            }
        }
        if plural == "deployments" {
            let labels = old["metadata"].get("labels").cloned();
            object::set_meta(new, "labels", labels);
        }
        if plural == "persistentvolumes" {
            storage::phase_time(new, Some(old), &crate::rest::rfc3339(ctx.now));
        }
        if plural == "pods" {
            let owners = old["metadata"].get("ownerReferences").cloned();
            object::set_meta(new, "ownerReferences", owners);
            pod_sub::prepare_status(new);
            let class = &old["status"]["qosClass"];
            if json::text(&new["status"], "qosClass").is_empty() && !class.is_null() {
                new["status"]["qosClass"] = class.clone();
            }
        }
        if plural == "customresourcedefinitions" {
            crd::prepare_status(new);
        }
        return;
    }
    if resource.has_status() {
        json::copy(old, new, "status");
    }
    match family(resource) {
        Family::Workload => workloads::prepare_update(plural, new, old),
        Family::Service => service::prepare_update(ctx, new, old),
        Family::Pod if matches!(subresource, "ephemeralcontainers" | "resize") => {
            pod_sub::prepare(subresource, new, old);
        }
        Family::Pod => pod::prepare_update(new, old),
        Family::Cluster if plural == "persistentvolumeclaims" => storage::data_sources(new, old),
        Family::Crd => crd::prepare_update(new),
        _ => {}
    }
    if generation::counts(resource) && generation::changed(resource, new, old) {
        let next = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        object::set_meta(new, "generation", Some(next.into()));
    }
}

fn validate(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if let Some(custom) = &resource.custom {
        return custom::validate(custom, "", object, old);
    }
    let plural = resource.plural.as_str();
    match family(resource) {
        Family::Workload => workloads::validate(plural, object),
        Family::Pod => pod_rules::validate_pod(&object["spec"], old.is_none()),
        Family::Service => service_rules::validate(object),
        Family::Config => match plural {
            "configmaps" => config::validate_config_map(object),
            "secrets" => config::validate_secret(object),
            _ => config::validate_service_account(object),
        },
        Family::Rbac => rbac::validate(plural, object),
        Family::Certificates => certificates::validate(object, old, ""),
        Family::Cluster if plural == "controllerrevisions" => workloads::validate(plural, object),
        Family::Cluster | Family::Policy => [
            cluster::validate(plural, resource.group == "events.k8s.io", object),
            policy::validate(plural, object),
            network::validate(plural, object),
            storage::validate(plural, object),
            bounds::validate(plural, object, old),
            endpoints::validate(plural, object, old),
            addresses::validate(plural, object),
            flow::validate(plural, object),
            devices::validate(plural, object),
            match plural {
                "apiservices" => api_services::validate(object),
                "servicecidrs" if old.is_none() => addresses::validate_ranges(object),
                "nodes" if old.is_none() => nodes::validate_amounts(&object["status"]),
                _ => Vec::new(),
            },
            if plural == "horizontalpodautoscalers" {
                scaling::validate(object)
            } else {
                Vec::new()
            },
        ]
        .concat(),
        Family::Admission => admission::validate(plural, object, old),
        Family::Crd => crd::validate(object, old),
        Family::Plain => Vec::new(),
    }
}

/// Gives a pod the tolerations that every pod has.
pub fn tolerate(pod: &mut Value) {
    if let Some(spec) = json::at(pod, "spec") {
        pod::tolerate(spec);
    }
}

/// What is wrong with a prepared new object; empty when it may be created.
pub fn validate_create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = metadata::validate(resource, object);
    if resource.group == "batch" && resource.plural == "jobs" {
        errors.extend(workloads::validate_generated(object));
    }
    errors.extend(validate(resource, object, None));
    errors
}

/// What a client named that another object has already: cluster addresses and node ports. Asked after
/// [`validate_create`], because it looks at the store.
pub fn validate_allocation(resource: &Resource, ctx: &Context<'_>, object: &Value) -> Vec<FieldError> {
    if family(resource) == Family::Service {
        service::taken_errors(ctx, object)
    } else {
        Vec::new()
    }
}

/// What is wrong with a prepared change; empty when it may be written.
pub fn validate_update(resource: &Resource, subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = metadata::validate_update(resource, new, old);
    if let Some(custom) = &resource.custom {
        errors.extend(custom::validate(custom, subresource, new, Some(old)));
        return errors;
    }
    let plural = resource.plural.as_str();
    let family = family(resource);
    if family == Family::Certificates {
        errors.extend(certificates::validate(new, Some(old), subresource));
        return errors;
    }
    if family == Family::Crd && subresource == "status" {
        // Whoever migrates objects says which versions are left.
        return errors;
    }
    if subresource == "status" {
        errors.extend(status::validate(plural, new, old));
    }
    if plural == "namespaces" && subresource == "status" {
        errors.extend(cluster::validate_phase(new));
    }
    if !subresource.is_empty() && subresource != "scale" {
        if family == Family::Pod {
            errors.extend(pod_sub::validate(subresource, new, old));
        }
        return errors;
    }
    match family {
        Family::Workload => {
            let mut found = [
                validate(resource, new, Some(old)),
                workload_changes::validate_update(plural, new, old),
            ];
            if plural == "daemonsets" {
                found.reverse();
            }
            errors.extend(found.concat());
            return errors;
        }
        Family::Pod => {
            errors.extend(validate(resource, new, Some(old)));
            errors.extend(pod_rules::validate_change(new, old));
            return errors;
        }
        Family::Service => errors.extend(service_rules::validate_update(new, old)),
        Family::Config if plural != "serviceaccounts" => {
            errors.extend(config::validate_update(plural == "secrets", new, old));
        }
        Family::Rbac => errors.extend(rbac::validate_update(plural, new, old)),
        Family::Cluster | Family::Policy => {
            errors.extend(cluster::validate_update(plural, new, old));
            errors.extend(policy::validate_update(plural, new, old));
            errors.extend(storage::validate_update(plural, new, old));
            errors.extend(addresses::validate_update(plural, new, old));
            errors.extend(devices::validate_update(plural, new, old));
            if resource.group == "events.k8s.io" {
                errors.extend(events::validate_update(new, old));
            }
        }
        _ => {}
    }
    errors.extend(validate(resource, new, Some(old)));
    errors
}

/// Warnings for an object that was written and is fine; `old` is what it was before.
pub fn warnings(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
    warnings::of(resource, object, old)
}

#[cfg(test)]
mod tests;
