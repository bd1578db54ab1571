//! What the hub can be told on its command line, by OCM's names (ocm-wire §9.1).

mod absent;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use muster_crds::{constants::names, validity::Validity};
use tokio_util::sync::CancellationToken;

use absent::{Absent, only_csr};

use crate::{
    admission::WebhookOptions,
    error::Error,
    gates::{FeatureGate, FeatureGates},
    leader::{Candidate, machine::Timing},
    pace::PaceOptions,
    registration::approve::Trusted,
};

/// Two renewals late by the quarter that agents may be late, and no more: one that is lost never suffices.
const DEFAULT_GRACE_FACTOR: f64 = 2.5;

/// Options of a hub on somebody's API server: where that is, and how to behave there.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Kubeconfig of the hub's API server; without it, the service account of the pod
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// How to behave there.
    #[command(flatten)]
    pub hub: HubOptions,
}

/// Options of a hub wherever its API server is.
#[derive(Args, Clone, Debug)]
pub struct HubOptions {
    /// Features to switch, like ManagedClusterAutoApproval=true
    #[arg(long = "feature-gates", value_name = "NAME=BOOL,...", value_delimiter = ',')]
    pub feature_gates: Vec<FeatureGate>,
    /// Users whose bootstrap requests are approved by themselves (with ManagedClusterAutoApproval)
    #[arg(long, value_name = "USER,...", value_delimiter = ',')]
    pub auto_approved_csr_users: Vec<String>,
    /// Groups whose members' bootstrap requests are approved so too; a join token's holder has what the token allows
    #[arg(long, value_name = "GROUP,...", value_delimiter = ',')]
    pub auto_approved_csr_groups: Vec<String>,
    /// Deprecated name of --auto-approved-csr-users
    #[arg(long, value_name = "USER,...", value_delimiter = ',', hide = true)]
    pub cluster_auto_approval_users: Vec<String>,
    /// Install and update the CustomResourceDefinitions and the bootstrap role
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub install_crds: bool,
    /// Labels for what the hub makes for clusters (namespaces and RBAC)
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',')]
    pub labels: Vec<Label>,
    /// After how many lease durations without a renewal a cluster is Unknown (1.5 to 5, which is OCM's)
    #[arg(long, value_name = "FACTOR", default_value_t = DEFAULT_GRACE_FACTOR, value_parser = grace_factor)]
    pub lease_grace_factor: f64,
    /// What is deleted from a deleted cluster's namespace, in this order
    #[arg(long, value_name = "GROUP/VERSION/RESOURCE,...", value_delimiter = ',',
          default_values_t = default_gc_resources())]
    pub gc_resource_list: Vec<GcResource>,
    /// Address for metrics and health checks over plain HTTP, like 127.0.0.1:8080. Default: they are not served
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Namespace of the hub itself: its Lease is there
    #[arg(long, value_name = "NS", env = "POD_NAMESPACE", default_value = names::HUB_NAMESPACE)]
    pub namespace: String,
    /// Run the controllers at once, whoever else does: for a hub that is alone at its API server
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub disable_leader_election: bool,
    /// How long a hub waits for a leader that is not heard of before it takes over
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub leader_election_lease_duration: Duration,
    /// How long a leader that cannot renew its Lease goes on
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub leader_election_renew_deadline: Duration,
    /// How often a leader renews its Lease
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub leader_election_retry_period: Duration,
    /// The hub's own certificates, by what they are for: their end is told as a metric, and in the log when it is near.
    #[arg(skip)]
    pub certificates: BTreeMap<&'static str, Validity>,
    /// Cancelled once all is installed and the controllers run, for whoever waits for it in the same process
    #[arg(skip)]
    pub begun: CancellationToken,
    /// How many clusters, and how many certificate requests, are worked on at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// How much the hub may ask.
    #[command(flatten)]
    pub pace: PaceOptions,
    /// How clusters register: only csr is there
    #[arg(long, value_name = "DRIVER,...", value_delimiter = ',', value_parser = only_csr)]
    pub enabled_registration_drivers: Vec<String>,
    /// What Open Cluster Management's hub has and this one has not.
    #[command(flatten)]
    pub absent: Absent,
    /// What the API server asks the hub before it stores anything.
    #[command(flatten)]
    pub webhook: WebhookOptions,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            feature_gates: Vec::new(),
            auto_approved_csr_users: Vec::new(),
            auto_approved_csr_groups: Vec::new(),
            cluster_auto_approval_users: Vec::new(),
            install_crds: true,
            labels: Vec::new(),
            lease_grace_factor: DEFAULT_GRACE_FACTOR,
            gc_resource_list: default_gc_resources(),
            listen: None,
            namespace: names::HUB_NAMESPACE.to_owned(),
            disable_leader_election: false,
            leader_election_lease_duration: Duration::from_secs(15),
            leader_election_renew_deadline: Duration::from_secs(10),
            leader_election_retry_period: Duration::from_secs(2),
            certificates: BTreeMap::new(),
            begun: CancellationToken::new(),
            workers: 16,
            pace: PaceOptions::default(),
            enabled_registration_drivers: Vec::new(),
            absent: Absent::default(),
            webhook: WebhookOptions::default(),
        }
    }
}

impl HubOptions {
    /// Every gate's state.
    pub fn gates(&self) -> FeatureGates {
        FeatureGates::new(&self.feature_gates)
    }

    /// Labels for what the hub makes for clusters.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.labels
            .iter()
            .map(|label| (label.key.clone(), label.value.clone()))
            .collect()
    }

    /// Who runs for the lead; nobody where there is no election.
    pub fn candidate(&self) -> Result<Option<Candidate>, Error> {
        if self.disable_leader_election {
            return Ok(None);
        }
        let timing = Timing {
            lease: self.leader_election_lease_duration,
            renew: self.leader_election_renew_deadline,
            retry: self.leader_election_retry_period,
        };
        let wrong = |what: &str| Err(Error::Option(what.to_owned()));
        if timing.lease <= timing.renew || timing.lease < Duration::from_secs(1) {
            return wrong(
                "--leader-election-lease-duration must be at least 1s, and longer than --leader-election-renew-deadline",
            );
        }
        if timing.renew <= timing.retry || timing.retry.is_zero() {
            return wrong(
                "--leader-election-renew-deadline must be longer than --leader-election-retry-period, and that more than 0s",
            );
        }
        let host = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
        let host = host.unwrap_or_else(|_| "hub".to_owned());
        Ok(Some(Candidate {
            identity: format!("{host}_{}", uuid::Uuid::new_v4()),
            namespace: self.namespace.clone(),
            timing,
        }))
    }

    /// Whose bootstrap requests are approved by themselves, under either name of the option.
    pub(crate) fn trusted(&self) -> Trusted {
        let users = self.auto_approved_csr_users.iter();
        let users = users.chain(&self.cluster_auto_approval_users);
        let given = |name: &&String| !name.is_empty();
        Trusted {
            users: users.filter(given).cloned().collect(),
            groups: self
                .auto_approved_csr_groups
                .iter()
                .filter(given)
                .cloned()
                .collect(),
        }
    }
}

/// A label, `key=value` as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(format!("{text:?} is no label: write key=value")),
        }
    }
}

/// A kind of object that is deleted with its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GcResource {
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name.
    pub resource: String,
}

impl FromStr for GcResource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(group), Some(version), Some(resource), None)
                if !group.is_empty() && !version.is_empty() && !resource.is_empty() =>
            {
                Ok(Self {
                    group: group.to_owned(),
                    version: version.to_owned(),
                    resource: resource.to_owned(),
                })
            }
            _ => Err(format!("{text:?} is no resource: write group/version/resource")),
        }
    }
}

impl std::fmt::Display for GcResource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}/{}", self.group, self.version, self.resource)
    }
}

/// Add-ons first: their hooks need works.
fn default_gc_resources() -> Vec<GcResource> {
    let resource = |group: &str, version: &str, resource: &str| GcResource {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: resource.to_owned(),
    };
    vec![
        resource(muster_crds::addon::GROUP, "v1beta1", "managedclusteraddons"),
        resource(muster_crds::work::GROUP, "v1", "manifestworks"),
    ]
}

/// A Go duration like `15s` or `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration = text.parse().map_err(|error| format!("{error}"))?;
    if parsed.is_negative() {
        return Err("must not be negative".to_owned());
    }
    Ok(parsed.into())
}

fn grace_factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (1.5..=f64::from(names::LEASE_GRACE_FACTOR)).contains(&factor) {
        Ok(factor)
    } else {
        Err(format!(
            "{factor} is not between 1.5 and {}: less than one missed renewal must not count",
            names::LEASE_GRACE_FACTOR
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::gates::Feature;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Line::try_parse_from(std::iter::once(&"hub").chain(arguments))
            .map(|line| line.options)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults() {
        let options = parse(&[]).unwrap().hub;
        assert!(options.install_crds);
        assert!((options.lease_grace_factor - 2.5).abs() < f64::EPSILON);
        assert_eq!(options.gc_resource_list, HubOptions::default().gc_resource_list);
        assert_eq!(
            options.gc_resource_list[0].to_string(),
            "addon.open-cluster-management.io/v1beta1/managedclusteraddons"
        );
    }

    #[test]
    fn options_read() {
        let options = parse(&[
            "--kubeconfig=/k",
            "--feature-gates=ManagedClusterAutoApproval=true,DefaultClusterSet=false",
            "--feature-gates=ResourceCleanup=false",
            "--auto-approved-csr-users=a,b",
            "--cluster-auto-approval-users=c",
            "--auto-approved-csr-groups=g,",
            "--install-crds=false",
            "--labels=team=x,empty=",
            "--kube-api-qps=50",
            "--kube-api-burst=100",
            "--tls-min-version=VersionTLS12",
            "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "--enabled-registration-drivers=csr",
        ])
        .unwrap();
        assert_eq!(options.kubeconfig, Some("/k".into()));
        let gates = options.hub.gates();
        assert!(gates.enabled(Feature::ManagedClusterAutoApproval));
        assert!(!gates.enabled(Feature::DefaultClusterSet) && !gates.enabled(Feature::ResourceCleanup));
        let trusted = options.hub.trusted();
        assert_eq!(trusted.users, ["a", "b", "c"]);
        assert_eq!(trusted.groups, ["g"]);
        assert!(!options.hub.install_crds);
        assert_eq!(options.hub.labels().get("empty").map(String::as_str), Some(""));
        assert!(parse(&["--install-crds"]).unwrap().hub.install_crds);
    }

    #[test]
    fn an_election_has_times_that_make_sense() {
        let candidate = |arguments: &[&str]| parse(arguments).unwrap().hub.candidate();
        let first = candidate(&["--namespace=ns"]).unwrap().unwrap();
        assert_eq!(first.namespace, "ns");
        assert_eq!(first.timing.lease, Duration::from_secs(15));
        assert_ne!(first.identity, candidate(&[]).unwrap().unwrap().identity);
        assert!(candidate(&["--disable-leader-election"]).unwrap().is_none());
        assert!(candidate(&["--disable-leader-election=false"]).unwrap().is_some());
        for arguments in [
            [
                "--leader-election-lease-duration=10s",
                "--leader-election-renew-deadline=10s",
            ],
            [
                "--leader-election-retry-period=10s",
                "--leader-election-renew-deadline=10s",
            ],
            [
                "--leader-election-retry-period=0s",
                "--leader-election-renew-deadline=10s",
            ],
        ] {
            let error = candidate(&arguments).unwrap_err().to_string();
            assert!(error.contains("must be"), "{error}");
        }
    }

    #[test]
    fn bad_options_are_refused_with_the_reason() {
        for (argument, reason) in [
            ("--feature-gates=Foo=true", "there is no feature gate"),
            ("--labels=novalue", "write key=value"),
            ("--gc-resource-list=pods", "write group/version/resource"),
            ("--lease-grace-factor=NaN", "not between 1.5 and 5"),
            ("--lease-grace-factor=1", "not between 1.5 and 5"),
            ("--leader-election-retry-period=-2s", "must not be negative"),
            ("--listen=nowhere", "invalid socket address"),
            ("--terminate-on-files=/a", "leave the flag"),
            ("--enabled-registration-drivers=csr,grpc", "only csr is"),
            ("--nonsense", "unexpected argument"),
        ] {
            let error = parse(&[argument]).unwrap_err();
            assert!(error.contains(reason), "{argument}: {error}");
        }
    }

    #[test]
    fn what_ocms_hub_has_and_this_one_has_not_is_told_in_one_line() {
        for (flag, missing) in [
            ("--enabled-registration-drivers=awsirsa", "only csr is"),
            ("--auto-approved-grpc-users=a", "gRPC"),
            ("--grpc-ca-file=/ca", "gRPC"),
            ("--grpc-key-file=/key", "gRPC"),
            ("--grpc-signing-duration=720h", "gRPC"),
            ("--auto-approved-arn-patterns=arn:aws:eks:.*", "AWS IAM (awsirsa)"),
            (
                "--hub-cluster-arn=arn:aws:eks:us-west-2:1:cluster/hub",
                "AWS IAM (awsirsa)",
            ),
            ("--aws-resource-tags=a=b", "AWS IAM (awsirsa)"),
            ("--hub-apiserver-url=https://hub", "ClusterImporter"),
            ("--agent-image=image", "ClusterImporter"),
            ("--bootstrap-serviceaccount=ns/name", "ClusterImporter"),
            ("--import-renderers=render-auto", "ClusterImporter"),
            ("--image-pull-secret-name=secret", "ClusterImporter"),
            ("--config=/config.yaml", "configuration file"),
        ] {
            let error = parse(&[flag]).unwrap_err();
            let (name, value) = flag.split_once('=').unwrap();
            let line = error.lines().next().unwrap_or_default();
            for part in [name, value, "not there", missing] {
                assert!(line.contains(part), "no {part:?} in {error}");
            }
            // Their default says nothing.
            if !name.ends_with("drivers") {
                parse(&[&format!("{name}=")]).unwrap();
            }
        }
    }
}
