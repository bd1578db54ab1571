//! What the API server itself refuses, hub up or down (ocm-wire §8): ValidatingAdmissionPolicies, on servers that have
//! them (Kubernetes 1.30). They say what OCM's webhooks say, as far as one object and its author tell. What they cannot
//! say is in [`crate::admission`], and the same in OCM's own words: a policy cannot answer with its codes.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use muster_crds::{
    cluster,
    constants::{admission, annotations, labels, names},
    work,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    admission::SPEC_CHANGES,
    error::Error,
    registration::accept,
    writer::{FIELD_MANAGER, Writer, what},
};

const GROUP_VERSION: &str = "admissionregistration.k8s.io/v1";
const PLURAL: &str = "validatingadmissionpolicies";
/// Longest lease that a cluster may come with, in seconds: one that is lost is to be noticed on the day.
const LONGEST_LEASE: u32 = 3600;

/// A policy for one kind: where it applies, and to which writes; what is computed, and what must hold.
struct Policy {
    name: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    conditions: Value,
    variables: Value,
    validations: Value,
    /// How many of the validations, the last ones, are none of OCM's.
    own: usize,
}

fn policies(nil_executor: bool, hub: &str) -> [Policy; 5] {
    [
        clusters(hub),
        bindings(),
        works(&WORKS, nil_executor),
        works(&REPLICA_SETS, nil_executor),
        requests(),
    ]
}

/// A kind that has manifests.
struct Works {
    name: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    /// Where what a work says is, from the object on.
    spec: &'static [&'static str],
    /// In CEL, the namespace of the works; a replica set's are everywhere.
    namespace: &'static str,
    /// The same in words.
    place: &'static str,
}

const WORKS: Works = Works {
    name: admission::WORK_VALIDATORS,
    version: "v1",
    kind: "Manifestwork",
    plural: "manifestworks",
    spec: &["spec"],
    namespace: ".namespace(object.metadata.namespace)",
    place: "'namespace ' + object.metadata.namespace",
};

const REPLICA_SETS: Works = Works {
    name: admission::REPLICA_SET_VALIDATORS,
    version: "v1alpha1",
    kind: "ManifestWorkReplicaSet",
    plural: "manifestworkreplicasets",
    spec: &["spec", "manifestWorkTemplate"],
    namespace: "",
    place: "'all namespaces'",
};

/// Agents count the requests that are there for their cluster, and ask for no certificate when there are too many
/// (ocm-wire §2.3): nobody else's agent is to make some.
fn requests() -> Policy {
    let label = format!("object.metadata.labels['{}']", labels::CLUSTER_NAME);
    Policy {
        name: admission::REQUEST_VALIDATORS,
        group: "certificates.k8s.io",
        version: "v1",
        plural: "certificatesigningrequests",
        conditions: json!([{"name": "of-an-agent", "expression": format!(
            "has(request.userInfo.groups) && '{}' in request.userInfo.groups", names::MANAGED_CLUSTERS_GROUP
        )}]),
        variables: json!([
            {"name": "named", "expression": format!(
                "has(object.metadata.labels) && '{}' in object.metadata.labels", labels::CLUSTER_NAME
            )},
        ]),
        validations: json!([
            {
                "expression": format!(
                    "!variables.named || ('{}' + {label}) in request.userInfo.groups", names::USER_PREFIX
                ),
                "messageExpression": format!(
                    "'user \"' + request.userInfo.username + '\" cannot request a certificate for cluster \"' + {label} + '\"'"
                ),
                "reason": "Forbidden",
            },
        ]),
        own: 1,
    }
}

fn clusters(hub: &str) -> Policy {
    let reserved: Vec<String> = accept::reserved(Some(hub))
        .iter()
        .map(|name| format!("'{name}'"))
        .collect();
    let reserved = reserved.join(", ");
    let set = labels::CLUSTER_SET;
    let label = |object: &str| {
        format!(
            "{object} != null && has({object}.metadata.labels) && '{set}' in {object}.metadata.labels \
             ? {object}.metadata.labels['{set}'] : ''"
        )
    };
    let accepts = |object: &str| {
        format!(
            "{object} != null && has({object}.spec) && has({object}.spec.hubAcceptsClient) && \
             {object}.spec.hubAcceptsClient"
        )
    };
    let may_join = |name: &str| {
        format!(
            "authorizer.group('{}').resource('managedclustersets').subresource('join').name({name})\
             .check('create').allowed()",
            cluster::GROUP
        )
    };
    let agent = annotations::AGENT_PREFIX;
    let spec = |name: &str, none: &str| {
        format!("has(object.spec) && has(object.spec.{name}) ? object.spec.{name} : {none}")
    };
    let field = |of: &str, name: &str, none: &str| format!("has({of}.{name}) ? {of}.{name} : {none}");
    let old = |part: &str, name: &str, none: &str| {
        format!("oldObject != null && has(oldObject.{part}.{name}) ? oldObject.{part}.{name} : {none}")
    };
    let old_spec = |name: &str, none: &str| {
        format!(
            "oldObject != null && has(oldObject.spec) && has(oldObject.spec.{name}) ? oldObject.spec.{name} : {none}"
        )
    };
    Policy {
        name: admission::CLUSTER_VALIDATORS,
        group: cluster::GROUP,
        version: "v1",
        plural: "managedclusters",
        conditions: json!([]),
        variables: json!([
            {"name": "unchanged", "expression": "oldObject != null && has(object.spec) == has(oldObject.spec) && (!has(object.spec) || object.spec == oldObject.spec)"},
            {"name": "badUrls", "expression": "has(object.spec) && has(object.spec.managedClusterClientConfigs) ? object.spec.managedClusterClientConfigs.filter(c, !c.url.startsWith('https://')).map(c, c.url) : []"},
            {"name": "accepts", "expression": accepts("object")},
            {"name": "accepted", "expression": accepts("oldObject")},
            {"name": "set", "expression": label("object")},
            {"name": "oldSet", "expression": label("oldObject")},
            {"name": "newcomer", "expression": format!(
                "oldObject == null && ((has(request.userInfo.groups) && '{}' in request.userInfo.groups) \
                 || request.userInfo.username == 'system:serviceaccount:{}:{}')",
                names::BOOTSTRAP_GROUP, names::OPERATOR_NAMESPACE, names::BOOTSTRAP_SERVICE_ACCOUNT
            )},
            {"name": "agent", "expression": format!(
                "oldObject != null && request.userInfo.username.startsWith('{}' + object.metadata.name + ':')",
                names::USER_PREFIX
            )},
            {"name": "labels", "expression": field("object.metadata", "labels", "{}")},
            {"name": "oldLabels", "expression": old("metadata", "labels", "{}")},
            {"name": "notes", "expression": field("object.metadata", "annotations", "{}")},
            {"name": "oldNotes", "expression": old("metadata", "annotations", "{}")},
            {"name": "finalizers", "expression": field("object.metadata", "finalizers", "[]")},
            {"name": "oldFinalizers", "expression": old("metadata", "finalizers", "[]")},
            {"name": "taints", "expression": spec("taints", "[]")},
            {"name": "oldTaints", "expression": old_spec("taints", "[]")},
            {"name": "lease", "expression": spec("leaseDurationSeconds", "0")},
            {"name": "oldLease", "expression": old_spec("leaseDurationSeconds", "0")},
        ]),
        validations: json!([
            {
                "expression": "oldObject != null || (size(object.metadata.name) <= 63 && object.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))",
                "messageExpression": "'metadata.name format is not correct: ' + object.metadata.name",
                "reason": "Invalid",
            },
            {
                "expression": "variables.unchanged || size(variables.badUrls) == 0",
                "messageExpression": "'url \"' + variables.badUrls[0] + '\" is invalid in client configs'",
                "reason": "Invalid",
            },
            {
                "expression": format!(
                    "!variables.accepts || variables.accepted || authorizer.group('{}').resource('managedclusters')\
                     .subresource('accept').name(object.metadata.name).check('update').allowed()",
                    names::REGISTER_GROUP
                ),
                "messageExpression": "'user \"' + request.userInfo.username + '\" cannot update the HubAcceptsClient field'",
                "reason": "Forbidden",
            },
            {
                "expression": format!(
                    "variables.set == variables.oldSet || variables.set == '' || {}",
                    may_join("variables.set")
                ),
                "messageExpression": "'user \"' + request.userInfo.username + '\" cannot add/remove a ManagedCluster to/from ManagedClusterSet \"' + variables.set + '\"'",
                "reason": "Forbidden",
            },
            {
                "expression": format!(
                    "variables.set == variables.oldSet || variables.oldSet == '' || {}",
                    may_join("variables.oldSet")
                ),
                "messageExpression": "'user \"' + request.userInfo.username + '\" cannot add/remove a ManagedCluster to/from ManagedClusterSet \"' + variables.oldSet + '\"'",
                "reason": "Forbidden",
            },
            // A name stays as it is: what was once let through may still be changed.
            {
                "expression": format!(
                    "oldObject != null || !(object.metadata.name in [{reserved}] || object.metadata.name.startsWith('kube-'))"
                ),
                "messageExpression": "'the name \"' + object.metadata.name + '\" is reserved: no cluster can have it'",
                "reason": "Forbidden",
            },
            // What works and sets go by is not for the cluster itself to choose: neither as it comes nor later.
            {
                "expression": format!(
                    "!variables.newcomer || (variables.labels.all(k, k == '{set}' && variables.labels[k] == '{}') \
                     && variables.notes.all(k, k.startsWith('{agent}')) && size(variables.taints) == 0 \
                     && size(variables.finalizers) == 0 && variables.lease <= {LONGEST_LEASE})",
                    names::DEFAULT_CLUSTER_SET
                ),
                "messageExpression": format!(
                    "'user \"' + request.userInfo.username + '\" cannot choose labels, taints, finalizers, annotations \
                     other than {agent}*, or a lease of more than {LONGEST_LEASE} s of the ManagedCluster it makes: the \
                     join token brings them, or an administrator'"
                ),
                "reason": "Forbidden",
            },
            {
                "expression": format!(
                    "!variables.agent || (variables.labels == variables.oldLabels && variables.taints == variables.oldTaints \
                     && variables.finalizers == variables.oldFinalizers && variables.accepts == variables.accepted \
                     && variables.lease == variables.oldLease \
                     && variables.notes.all(k, k.startsWith('{agent}') || (k in variables.oldNotes && variables.oldNotes[k] == variables.notes[k])) \
                     && variables.oldNotes.all(k, k.startsWith('{agent}') || k in variables.notes))"
                ),
                "messageExpression": format!(
                    "'user \"' + request.userInfo.username + '\" cannot change its own ManagedCluster but for client \
                     configs and annotations {agent}*'"
                ),
                "reason": "Forbidden",
            },
        ]),
        own: 3,
    }
}

fn bindings() -> Policy {
    Policy {
        name: admission::BINDING_VALIDATORS,
        group: cluster::GROUP,
        version: "v1beta2",
        plural: "managedclustersetbindings",
        conditions: json!([]),
        variables: json!([
            {"name": "set", "expression": "has(object.spec) && has(object.spec.clusterSet) ? object.spec.clusterSet : ''"},
            {"name": "oldSet", "expression": "oldObject != null && has(oldObject.spec) && has(oldObject.spec.clusterSet) ? oldObject.spec.clusterSet : ''"},
        ]),
        validations: json!([
            {
                "expression": "object.metadata.name == variables.set || (oldObject != null && variables.set == variables.oldSet)",
                "message": "The ManagedClusterSetBinding must have the same name as the target ManagedClusterSet",
                "reason": "Invalid",
            },
            {
                "expression": format!(
                    "oldObject != null || authorizer.group('{}').resource('managedclustersets').subresource('bind')\
                     .name(variables.set).check('create').allowed()",
                    cluster::GROUP
                ),
                "messageExpression": "'user \"' + request.userInfo.username + '\" is not allowed to bind cluster set \"' + variables.set + '\"'",
                "reason": "Forbidden",
            },
        ]),
        own: 0,
    }
}

fn works(of: &Works, nil_executor: bool) -> Policy {
    // A field of what a work says, if everything on the way there is.
    let field = |object: &str, path: &[&str], none: &str| {
        let (mut there, mut at) = (Vec::new(), object.to_owned());
        for step in of.spec.iter().chain(path) {
            at = format!("{at}.{step}");
            there.push(format!("has({at})"));
        }
        format!("{} ? {at} : {none}", there.join(" && "))
    };
    let executor = |object: &str| format!("{object} != null && {}", field(object, &["executor"], "null"));
    let account = "variables.executor.subject.serviceAccount";
    let of_nobody = if nil_executor {
        format!("'/{}'", admission::DEFAULT_EXECUTOR)
    } else {
        "''".to_owned()
    };
    Policy {
        name: of.name,
        group: work::GROUP,
        version: of.version,
        plural: of.plural,
        conditions: json!([{"name": "spec-changes", "expression": SPEC_CHANGES}]),
        variables: json!([
            {"name": "manifests", "expression": field("object", &["workload", "manifests"], "[]")},
            {"name": "executor", "expression": executor("object")},
            {"name": "oldExecutor", "expression": executor("oldObject")},
            {"name": "kept", "expression": "oldObject != null && variables.executor == variables.oldExecutor"},
            {"name": "named", "expression": "variables.executor != null && has(variables.executor.subject) && has(variables.executor.subject.serviceAccount)"},
            {"name": "who", "expression": format!(
                "variables.named ? {account}.namespace + '/' + {account}.name : variables.executor == null ? {of_nobody} : ''"
            )},
        ]),
        validations: json!([
            {
                "expression": "size(variables.manifests) > 0",
                "message": "manifests should not be empty",
                "reason": "Invalid",
            },
            {
                "expression": "variables.manifests.all(m, has(m.metadata) && has(m.metadata.name) && m.metadata.name != '')",
                "message": "name must be set in manifest",
                "reason": "Invalid",
            },
            {
                "expression": "variables.manifests.all(m, !has(m.metadata) || !has(m.metadata.generateName) || m.metadata.generateName == '')",
                "message": "generateName must not be set in manifest",
                "reason": "Invalid",
            },
            {
                "expression": "variables.kept || variables.executor == null || variables.named",
                "message": "executor service account can not be nil",
                "reason": "Invalid",
            },
            {
                "expression": format!(
                    "variables.kept || variables.who == '' || authorizer.group('{}').resource('manifestworks')\
                     {}.name('system:serviceaccount:' + variables.who.replace('/', ':')).check('{}').allowed()",
                    work::GROUP, of.namespace, admission::EXECUTE_AS
                ),
                "messageExpression": format!(
                    "'user ' + request.userInfo.username + ' cannot manipulate the {} with executor ' + variables.who + ' in ' + {}",
                    of.kind, of.place
                ),
                "reason": "Forbidden",
            },
        ]),
        own: 0,
    }
}

/// The expression, without variables, that a policy refuses a write by a rule that is OCM's too: what the webhook can say
/// in OCM's words.
pub fn refuses(name: &str, nil_executor: bool) -> Option<String> {
    let policy = policies(nil_executor, "")
        .into_iter()
        .find(|policy| policy.name == name)?;
    let list = |value: &Value, field: &str| -> Vec<(String, String)> {
        let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
        let all = value.as_array().into_iter().flatten();
        all.map(|one| (text(one, field), text(one, "expression")))
            .collect()
    };
    let variables = list(&policy.variables, "name").into_iter().collect();
    let rules = list(&policy.validations, "reason");
    let ocms = rules.len() - policy.own;
    let hold: Vec<String> = rules
        .iter()
        .take(ocms)
        .map(|(_, rule)| format!("({})", inlined(rule, &variables)))
        .collect();
    Some(format!("!({})", hold.join(" && ")))
}

/// An expression with every variable replaced by what it stands for.
fn inlined(expression: &str, variables: &BTreeMap<String, String>) -> String {
    let mut parts = expression.split("variables.");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_alphanumeric()).unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        let meant = match variables.get(name) {
            Some(meant) => format!("({}){rest}", inlined(meant, variables)),
            None => format!("variables.{part}"),
        };
        whole.push_str(&meant);
    }
    whole
}

fn objects(policy: &Policy) -> (Value, Value) {
    let object = |kind: &str, spec: Value| {
        json!({
            "apiVersion": GROUP_VERSION,
            "kind": kind,
            "metadata": {"name": policy.name},
            "spec": spec,
        })
    };
    let rules = json!([{
        "apiGroups": [policy.group],
        "apiVersions": [policy.version],
        "operations": ["CREATE", "UPDATE"],
        "resources": [policy.plural],
    }]);
    let spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": rules},
        "matchConditions": policy.conditions,
        "variables": policy.variables,
        "validations": policy.validations,
    });
    (
        object("ValidatingAdmissionPolicy", spec),
        object(
            "ValidatingAdmissionPolicyBinding",
            json!({"policyName": policy.name, "validationActions": ["Deny"]}),
        ),
    )
}

/// Installs the policies, or brings them up to date, where the server has such. Whether it holds all of them now: what it
/// does not hold, the webhook has to say. `hub` is the namespace that the hub itself is in.
pub async fn install(
    writer: &Writer,
    nil_executor: bool,
    replica_sets: bool,
    hub: &str,
) -> Result<bool, Error> {
    let client = writer.client();
    let served = writer.bounded(
        format!("discover {GROUP_VERSION}"),
        client.list_api_group_resources(GROUP_VERSION),
    );
    let served = match served.await {
        Err(error) if error.status().is_some_and(|status| status.code == 404) => false,
        Err(error) => return Err(error),
        Ok(list) => list.resources.iter().any(|resource| resource.name == PLURAL),
    };
    if !served {
        tracing::info!(
            "the server has no ValidatingAdmissionPolicies: all rules are the admission webhook's"
        );
        return Ok(false);
    }
    let mut all = true;
    let wanted = |policy: &Policy| replica_sets || policy.name != admission::REPLICA_SET_VALIDATORS;
    for policy in policies(nil_executor, hub).into_iter().filter(wanted) {
        let (object, binding) = objects(&policy);
        let applied = async {
            apply::<ValidatingAdmissionPolicy>(writer, policy.name, &object).await?;
            apply::<ValidatingAdmissionPolicyBinding>(writer, policy.name, &binding).await
        };
        match applied.await {
            Err(error) if error.is_permanent() => {
                tracing::warn!(%error, "admission policy not installed");
                all = false;
            }
            applied => applied?,
        }
    }
    Ok(all)
}

async fn apply<K>(writer: &Writer, name: &str, object: &Value) -> Result<(), Error>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api = Api::<K>::all(writer.client());
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(object);
    writer
        .bounded(
            format!("apply {}", what::<K>(name)),
            api.patch(name, &parameters, &patch),
        )
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_whole_and_say_why_they_refuse() {
        for policy in policies(false, "hub").into_iter().chain(policies(true, "hub")) {
            let (object, binding) = objects(&policy);
            let read: ValidatingAdmissionPolicy = serde_json::from_value(object).unwrap();
            let spec = read.spec.unwrap();
            assert_eq!(spec.failure_policy.as_deref(), Some("Fail"));
            let known: Vec<_> = spec.variables.unwrap().into_iter().map(|v| v.name).collect();
            for validation in spec.validations.unwrap() {
                assert!(validation.message.is_some() != validation.message_expression.is_some());
                let text = validation.expression + &validation.message_expression.unwrap_or_default();
                assert_eq!(text.matches('(').count(), text.matches(')').count(), "{text}");
                for used in text.split("variables.").skip(1) {
                    let name: String = used.chars().take_while(|c| c.is_alphanumeric()).collect();
                    assert!(known.contains(&name), "{name} in {text}");
                }
            }
            let read: ValidatingAdmissionPolicyBinding = serde_json::from_value(binding).unwrap();
            assert_eq!(read.spec.policy_name, policy.name);
        }
    }
    #[test]
    fn what_a_policy_refuses_is_said_without_its_variables() {
        for name in [
            admission::CLUSTER_VALIDATORS,
            admission::BINDING_VALIDATORS,
            admission::WORK_VALIDATORS,
            admission::REPLICA_SET_VALIDATORS,
        ] {
            let text = refuses(name, true).unwrap();
            assert!(text.starts_with("!((") && !text.contains("variables"), "{text}");
            assert_eq!(text.matches('(').count(), text.matches(')').count(), "{text}");
            // Rules of ours alone are the policy's to tell.
            assert!(!text.contains(names::BOOTSTRAP_GROUP), "{text}");
        }
        assert_eq!(refuses(admission::CLUSTER_MUTATORS, false), None);
        let variables = [("a", "b + variables.bc"), ("bc", "1")]
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into();
        assert_eq!(
            inlined("variables.a == x || variables.bc", &variables),
            "(b + (1)) == x || (1)"
        );
    }
}
