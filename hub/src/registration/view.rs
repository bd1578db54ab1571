//! What the hub keeps of objects: names, conditions, hashes; never payloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{certificates::v1::CertificateSigningRequest, coordination::v1::Lease},
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use muster_crds::{
    cluster::{
        v1::{ClusterSetManagedNamespaceConfig, ManagedCluster, Taint},
        v1beta2::ManagedClusterSetBinding,
    },
    conditions::find,
    constants::{annotations, conditions, finalizers, labels},
    validity::Validity,
};
use serde_json::Value;

use super::csr::{self, Agent};
use crate::{cache::Sighting, certificate};

/// A ManagedCluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterView {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resource version, for writes that must not meet another's.
    pub resource_version: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// The set it is in, by label.
    pub set: Option<String>,
    /// Whether the hub once accepted it by itself.
    pub accepted_once: bool,
    /// Whether its clock is not to be looked at.
    pub skip_clock: bool,
    /// Whether the hub lets it in.
    pub accepts: bool,
    /// How often its agent renews the lease, in seconds.
    pub lease_seconds: Option<i32>,
    /// When the hub, by its own clock, saw that become another.
    pub lease_changed: Option<Timestamp>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// The agent that got a certificate for it, as far as the hub knows.
    pub agent: Option<String>,
    /// When the certificate last issued to its agent is good, as the hub noted it.
    pub certificate: Option<Validity>,
    /// Agents that had its name before.
    pub former: Vec<String>,
    /// The id of the join token it came with.
    pub token: Option<String>,
    /// Its labels, which sets select by.
    pub labels: BTreeMap<String, String>,
    /// The namespaces it is told to keep.
    pub managed_namespaces: Vec<ClusterSetManagedNamespaceConfig>,
}

impl ClusterView {
    /// What is kept of a cluster.
    pub fn of(cluster: &ManagedCluster) -> Self {
        let metadata = &cluster.metadata;
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            set: entry(metadata.labels.as_ref(), labels::CLUSTER_SET).map(str::to_owned),
            accepted_once: entry(
                metadata.annotations.as_ref(),
                annotations::AUTOMATICALLY_ACCEPTED_ON,
            )
            .is_some(),
            skip_clock: entry(metadata.annotations.as_ref(), annotations::SKIP_CLOCK_SYNC_CHECK)
                == Some("true"),
            accepts: cluster.spec.hub_accepts_client,
            lease_seconds: cluster.spec.lease_duration_seconds,
            lease_changed: None,
            taints: cluster.spec.taints.clone(),
            conditions: cluster
                .status
                .as_ref()
                .map(|status| status.conditions.clone())
                .unwrap_or_default(),
            agent: entry(metadata.annotations.as_ref(), annotations::AGENT).map(str::to_owned),
            certificate: entry(metadata.annotations.as_ref(), annotations::CLIENT_CERTIFICATE)
                .and_then(|text| text.parse().ok()),
            former: former(metadata),
            token: entry(metadata.annotations.as_ref(), annotations::JOINED_WITH).map(str::to_owned),
            labels: metadata.labels.clone().unwrap_or_default(),
            managed_namespaces: cluster
                .status
                .as_ref()
                .map(|status| status.managed_namespaces.clone())
                .unwrap_or_default(),
        }
    }

    /// The same, with what only shows beside what was known of it before.
    #[must_use]
    pub fn after(self, before: Option<&Self>, now: Timestamp) -> Self {
        let lease_changed = before.filter(|before| before.uid == self.uid).and_then(|before| {
            if before.lease_seconds == self.lease_seconds {
                before.lease_changed
            } else {
                Some(now)
            }
        });
        Self {
            lease_changed,
            ..self
        }
    }

    /// Whether the hub let it in once, now or before: it may have rights. Its agent may take the condition away, but not the
    /// finalizer, which comes before any right.
    pub fn was_let_in(&self) -> bool {
        find(&self.conditions, conditions::HUB_ACCEPTED).is_some()
            || self.has_finalizer(finalizers::MANAGED_CLUSTER)
    }

    /// Whether it has the finalizer.
    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|known| known == finalizer)
    }
}

/// A ManagedClusterSetBinding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BindingView {
    /// Its uid.
    pub uid: String,
    /// Its resource version.
    pub resource_version: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The set it binds.
    pub set: String,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

impl BindingView {
    /// What is kept of a binding.
    pub fn of(binding: &ManagedClusterSetBinding) -> Self {
        let metadata = &binding.metadata;
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            set: binding.spec.cluster_set.clone(),
            conditions: binding
                .status
                .as_ref()
                .map(|status| status.conditions.clone())
                .unwrap_or_default(),
        }
    }
}

/// A thousand years: a clock is not off by more, whatever its agent says.
const LONGEST_OFFSET: u64 = 1000 * 366 * 86_400;

/// A cluster's lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// When the agent, by its clock, last renewed it.
    pub renewed: Option<Timestamp>,
    /// When the hub, by its own clock, saw that renewal happen; none when it was only found so.
    pub seen: Option<Timestamp>,
    /// When that renewal came into the hub's view without being seen to happen, by the hub's clock; before any did, when the
    /// lease did.
    pub found: Option<Timestamp>,
    /// How much later than the agent's clock said the hub's did when a renewal was last seen to happen; zero where it was not.
    pub lag: SignedDuration,
    /// The hub's time minus the cluster's, in seconds, where the agent says so; then it renews by the hub's time.
    pub offset: Option<i64>,
}

impl LeaseView {
    /// What is kept of a lease that came into view at `now`.
    pub fn of(lease: &Lease, before: Option<&Self>, sighting: Sighting, now: Timestamp) -> Self {
        let renewed = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.renew_time.as_ref())
            .map(|time| time.0);
        let lag = before.map_or(SignedDuration::ZERO, |before| before.lag);
        let (seen, found, lag) = match (before, sighting) {
            (Some(before), _) if before.renewed == renewed => (before.seen, before.found, lag),
            // One that was just made says as little as a listed one: its maker's clock is the hub's.
            (Some(before), Sighting::Watched) => {
                let lag = renewed.map_or(lag, |renewed| now.duration_since(renewed));
                (Some(now), before.found, lag.max(SignedDuration::ZERO))
            }
            // Nobody looked for a while. It was renewed meanwhile, and no later than now.
            _ => (None, Some(now), lag),
        };
        let offset = entry(lease.metadata.annotations.as_ref(), annotations::CLOCK_OFFSET);
        Self {
            renewed,
            seen,
            found,
            lag,
            offset: offset
                .and_then(|seconds| seconds.parse().ok())
                .filter(|seconds: &i64| seconds.unsigned_abs() <= LONGEST_OFFSET),
        }
    }
}

/// An object the hub makes and keeps: compared by hash, so that none is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectView {
    /// Its uid.
    pub uid: String,
    /// The cluster it says it is for; empty for what all clusters share.
    pub cluster: Option<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Hash of what the hub wants of it and may change.
    pub content: u64,
    /// Hash of its `roleRef`, which nobody may change.
    pub role_ref: u64,
    /// Of a namespace: agents that had its cluster's name before.
    pub former: Vec<String>,
}

impl ObjectView {
    /// What is kept of an object; of its labels, those that the hub sets.
    pub fn of(metadata: &ObjectMeta, data: &Value, label_keys: &BTreeSet<String>) -> Self {
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            cluster: entry(metadata.labels.as_ref(), labels::CLUSTER_NAME).map(str::to_owned),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            content: content(metadata.labels.as_ref(), data, label_keys),
            role_ref: role_ref(data),
            former: former(metadata),
        }
    }

    /// Whether it says that it is this cluster's.
    pub fn is_of(&self, cluster: &str) -> bool {
        self.cluster.as_deref() == Some(cluster)
    }
}

/// Agents that had a cluster's name before.
fn former(metadata: &ObjectMeta) -> Vec<String> {
    let list = entry(metadata.annotations.as_ref(), annotations::FORMER_AGENTS);
    let agents = list.unwrap_or_default().split(',');
    agents
        .filter(|agent| !agent.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Hash of the labels in `label_keys`, the rules and the subjects of an object.
pub fn content(
    labels: Option<&BTreeMap<String, String>>,
    data: &Value,
    label_keys: &BTreeSet<String>,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    for key in label_keys {
        labels.and_then(|labels| labels.get(key)).hash(&mut hasher);
    }
    for field in ["rules", "subjects"] {
        hash(data.get(field).unwrap_or(&Value::Null), &mut hasher);
    }
    hasher.finish()
}

/// Hash of an object's `roleRef`.
pub fn role_ref(data: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash(data.get("roleRef").unwrap_or(&Value::Null), &mut hasher);
    hasher.finish()
}

/// Hashes a value whatever the order of its fields.
pub(crate) fn hash(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Array(items) => {
            ("[", items.len()).hash(hasher);
            for item in items {
                hash(item, hasher);
            }
        }
        Value::Object(fields) => {
            ("{", fields.len()).hash(hasher);
            for (key, item) in fields.iter().collect::<BTreeMap<_, _>>() {
                key.hash(hasher);
                hash(item, hasher);
            }
        }
        other => other.to_string().hash(hasher),
    }
}

/// Something in a cluster's namespace that goes with the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemView {
    /// Whether it is being deleted already.
    pub deleting: bool,
    /// When it goes, 0 to 100, lower first.
    pub priority: u8,
}

impl ItemView {
    /// What is kept of it. A priority that is none counts as 0, as no priority does.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let priority = entry(metadata.annotations.as_ref(), annotations::CLEANUP_PRIORITY)
            .and_then(|priority| priority.parse().ok())
            .filter(|priority| *priority <= 100)
            .unwrap_or(0);
        Self {
            deleting: metadata.deletion_timestamp.is_some(),
            priority,
        }
    }
}

/// A CertificateSigningRequest; once decided, without its payload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CsrView {
    /// Its uid.
    pub uid: String,
    /// Its resource version.
    pub resource_version: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// The cluster it says it is for.
    pub cluster: Option<String>,
    /// Who is to sign.
    pub signer: String,
    /// The PEM request; empty when decided.
    pub request: Vec<u8>,
    /// What the certificate is to be good for.
    pub usages: Vec<String>,
    /// Who asks: user name, as the API server authenticated it.
    pub user: String,
    /// Who asks: uid.
    pub user_uid: String,
    /// Who asks: groups.
    pub groups: Vec<String>,
    /// Who asks: anything else the authenticator said.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Whether somebody approved or denied it.
    pub decided: bool,
    /// The agent it was approved for.
    pub approved: Option<Agent>,
    /// When that was, as the approver says.
    pub approved_at: Option<Timestamp>,
    /// When the certificate it brought that agent is good.
    pub issued: Option<Validity>,
}

impl CsrView {
    /// What is kept of a request.
    pub fn of(csr: &CertificateSigningRequest) -> Self {
        let given = csr.status.as_ref().and_then(|status| status.conditions.as_ref());
        let has = |type_: &str| given.is_some_and(|all| all.iter().any(|one| one.type_ == type_));
        let (approved, denied) = (has(conditions::CSR_APPROVED), has(conditions::CSR_DENIED));
        let spec = &csr.spec;
        let whole = Self {
            uid: csr.metadata.uid.clone().unwrap_or_default(),
            resource_version: csr.metadata.resource_version.clone().unwrap_or_default(),
            created: csr.metadata.creation_timestamp.as_ref().map(|time| time.0),
            cluster: entry(csr.metadata.labels.as_ref(), labels::CLUSTER_NAME).map(str::to_owned),
            signer: spec.signer_name.clone(),
            request: spec.request.0.clone(),
            usages: spec.usages.clone().unwrap_or_default(),
            user: spec.username.clone().unwrap_or_default(),
            user_uid: spec.uid.clone().unwrap_or_default(),
            groups: spec.groups.clone().unwrap_or_default(),
            extra: spec.extra.clone().unwrap_or_default(),
            decided: approved || denied,
            approved: None,
            approved_at: None,
            issued: None,
        };
        if !whole.decided {
            return whole;
        }
        let agent = csr::validate(&whole).ok().filter(|_| approved && !denied);
        let approval = given.and_then(|all| all.iter().find(|one| one.type_ == conditions::CSR_APPROVED));
        let certificate = csr.status.as_ref().and_then(|status| status.certificate.as_ref());
        Self {
            issued: certificate
                .filter(|_| agent.is_some())
                .and_then(|pem| certificate::validity(&pem.0)),
            uid: whole.uid,
            resource_version: whole.resource_version,
            created: whole.created,
            decided: true,
            approved_at: approval
                .filter(|_| agent.is_some())
                .and_then(|one| one.last_update_time.as_ref())
                .map(|time| time.0),
            approved: agent,
            ..Self::default()
        }
    }
}

fn entry<'a>(map: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    map?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// How a lease is known after it came into view so: how, its renewal, when.
    fn known(sightings: &[(Sighting, i64, i64)]) -> LeaseView {
        let mut view = None;
        for (sighting, renewed, now) in sightings {
            let lease = Lease {
                spec: Some(LeaseSpec {
                    renew_time: Some(MicroTime(at(*renewed))),
                    ..LeaseSpec::default()
                }),
                ..Lease::default()
            };
            view = Some(LeaseView::of(&lease, view.as_ref(), *sighting, at(*now)));
        }
        view.unwrap()
    }

    #[test]
    fn a_renewal_counts_from_when_it_was_seen_or_found() {
        use Sighting::{Listed, Watched};
        let view = |renewed, seen: Option<i64>, found, lag| LeaseView {
            renewed: Some(at(renewed)),
            seen: seen.map(at),
            found: Some(at(found)),
            lag: SignedDuration::from_secs(lag),
            offset: None,
        };
        let seen = [(Listed, 100, 110), (Watched, 160, 163)];
        let with = |more: &[(Sighting, i64, i64)]| known(&[&seen[..], more].concat());
        for (what, view, wanted) in [
            ("found", known(&seen[..1]), view(100, None, 110, 0)),
            (
                "just made",
                known(&[(Watched, 100, 101)]),
                view(100, None, 101, 0),
            ),
            ("renewed", known(&seen), view(160, Some(163), 110, 3)),
            (
                "listed again as it was",
                with(&[(Listed, 160, 500)]),
                view(160, Some(163), 110, 3),
            ),
            (
                "listed again, renewed meanwhile",
                with(&[(Listed, 220, 230)]),
                view(220, None, 230, 3),
            ),
            (
                "and once more",
                with(&[(Listed, 220, 230), (Listed, 220, 250)]),
                view(220, None, 230, 3),
            ),
            (
                "and renewed",
                with(&[(Listed, 220, 230), (Watched, 280, 281)]),
                view(280, Some(281), 230, 1),
            ),
            // The answer to a write of the hub's own, which did not know of the last renewal.
            ("written", with(&[(Listed, 220, 221)]), view(220, None, 221, 3)),
            (
                "a clock ahead",
                known(&[(Listed, 100, 100), (Watched, 190, 160)]),
                view(190, Some(160), 100, 0),
            ),
        ] {
            assert_eq!(view, wanted, "{what}");
        }
    }
}
