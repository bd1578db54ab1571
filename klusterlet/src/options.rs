//! The klusterlet's options, by the names that OCM's agents have (wire §9.1).

mod absent;

use crate::gates::{Gate, Gates};
use absent::{Absent, only_csr, only_kube};
use std::path::PathBuf;
use std::time::Duration;

/// Options of the klusterlet.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Name of this cluster at the hub; a DNS label. Default: what an earlier run used, else a random one
    #[arg(long = "cluster-name", alias = "spoke-cluster-name", value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// Kubeconfig that may only ask to join the hub
    #[arg(long, value_name = "FILE")]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Secret in the agent's namespace with the same under the key `kubeconfig`; watched, so that a change takes hold
    #[arg(long, value_name = "NAME", default_value = muster_crds::constants::names::BOOTSTRAP_SECRET)]
    pub bootstrap_kubeconfig_secret: String,
    /// Kubeconfigs of several hubs in order of preference; needs the gate MultipleHubs
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub bootstrap_kubeconfigs: Vec<PathBuf>,
    /// With several hubs: after how many seconds without its hub the agent looks for another
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub hub_connection_timeout_seconds: u64,
    /// Features to switch on and off, such as ClusterProperty=true
    #[arg(long, value_name = "NAME=BOOL", value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    /// Kubeconfig of this cluster. Default: the Pod's own service account
    #[arg(long, value_name = "FILE")]
    pub spoke_kubeconfig: Option<PathBuf>,
    /// The same, by the name that Open Cluster Management's agents have too; --spoke-kubeconfig precedes it
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Folder for the credentials that the hub gives
    #[arg(long, value_name = "DIR", default_value = "/spoke/hub-kubeconfig")]
    pub hub_kubeconfig_dir: PathBuf,
    /// Secret in the agent's namespace that holds the same credentials
    #[arg(long, value_name = "NAME", default_value = muster_crds::constants::names::HUB_KUBECONFIG_SECRET)]
    pub hub_kubeconfig_secret: String,
    /// Name of this agent, part of its user name at the hub. Default: what an earlier run used, else a random one
    #[arg(long, value_name = "ID")]
    pub agent_id: Option<String>,
    /// Namespace of the agent on this cluster
    #[arg(long, value_name = "NS", default_value = muster_crds::constants::names::AGENT_NAMESPACE)]
    pub namespace: String,
    /// URLs under which this cluster's API can be reached, reported to the hub
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub spoke_external_server_urls: Vec<String>,
    /// Annotations for the ManagedCluster, each beginning with agent.open-cluster-management.io/
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub cluster_annotations: Vec<String>,
    /// How often this cluster's health is looked at when nothing changes
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub cluster_healthcheck_period: Duration,
    /// ClusterClaims reported at most, besides the reserved ones; 0 is no limit
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub max_custom_cluster_claims: usize,
    /// Suffixes of names that count as reserved ClusterClaims
    #[arg(long, value_name = "SUFFIX", value_delimiter = ',')]
    pub reserved_cluster_claim_suffixes: Vec<String>,
    /// Lifetime asked for in certificate requests, at least 3600; 0 leaves it to the signer
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub client_cert_expiration_seconds: i32,
    /// How long what a vanished work applied is kept
    #[arg(long, value_name = "DURATION", default_value = "60m", value_parser = duration)]
    pub appliedmanifestwork_eviction_grace_period: Duration,
    /// Works reconciled at the same time
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub workload_agent_workers: usize,
    /// Address for metrics and health checks over plain HTTP, like 127.0.0.1:8080. Default: they are not served
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<std::net::SocketAddr>,
    /// Longest raw JSON value in feedback, in bytes; needs the feature gate RawFeedbackJsonString
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    pub max_json_raw_length: usize,
    /// Which Events about applied objects, and what those own, are told at the hub as Events of their work
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    pub work_events: crate::work::WorkEvents,
    /// What the manifests of Open Cluster Management's agents say and this agent does in another way.
    #[command(flatten)]
    pub compatible: Compatible,
    /// What they say and this agent does not have.
    #[command(flatten)]
    pub absent: Absent,
}

/// Flags of Open Cluster Management's agents that the manifests of theirs may have, so that they start this one too. They are
/// accepted, and have no effect here: why not is in each one's help.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Accepted for Open Cluster Management's manifests, without effect")]
pub struct Compatible {
    /// Status is told at once, by watches: nothing is polled
    #[arg(long, value_name = "DURATION")]
    pub status_sync_interval: Option<String>,
    /// Every applied object is watched, with one watch a kind
    #[arg(long, value_name = "N")]
    pub max_feedback_watch: Option<String>,
    /// Requests adapt to the hub's answers
    #[arg(long, value_name = "N")]
    pub hub_kube_api_qps: Option<String>,
    /// Requests adapt to the hub's answers
    #[arg(long, value_name = "N")]
    pub hub_kube_api_burst: Option<String>,
    /// Requests adapt to the cluster's answers
    #[arg(long, value_name = "N")]
    pub kube_api_qps: Option<String>,
    /// Requests adapt to the cluster's answers
    #[arg(long, value_name = "N")]
    pub kube_api_burst: Option<String>,
    /// It is always kubeconfig in --hub-kubeconfig-dir
    #[arg(long, value_name = "FILE")]
    pub hub_kubeconfig: Option<String>,
    /// It follows --hub-kubeconfig-dir
    #[arg(long, value_name = "FILE")]
    pub workload_source_config: Option<String>,
    /// Changed credentials are taken up in place
    #[arg(long, value_name = "FILE")]
    pub terminate_on_files: Vec<String>,
    /// One agent runs: its Deployment sees to that
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub disable_leader_election: Option<String>,
    /// One agent runs: its Deployment sees to that
    #[arg(long, value_name = "DURATION")]
    pub leader_election_lease_duration: Option<String>,
    /// One agent runs: its Deployment sees to that
    #[arg(long, value_name = "DURATION")]
    pub leader_election_renew_deadline: Option<String>,
    /// One agent runs: its Deployment sees to that
    #[arg(long, value_name = "DURATION")]
    pub leader_election_retry_period: Option<String>,
    /// Where works come from: only kube is there
    #[arg(long, value_name = "DRIVER", value_parser = only_kube)]
    pub workload_source_driver: Option<String>,
    /// How the cluster registers: only csr is there
    #[arg(long, value_name = "DRIVER", value_parser = only_csr)]
    pub registration_auth: Option<String>,
    /// How add-ons' agents register at the hub's API: only csr is there
    #[arg(long, value_name = "DRIVER", value_parser = only_csr)]
    pub addon_kubeclient_registration_auth: Option<String>,
    /// Add-ons' agents register with certificates: there are no tokens that end
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(600..))]
    pub addon_token_expiration_seconds: Option<i64>,
    /// Metrics and health checks are served over plain HTTP, to this machine or Pod
    #[arg(long, value_name = "VERSION")]
    pub tls_min_version: Option<String>,
    /// Metrics and health checks are served over plain HTTP, to this machine or Pod
    #[arg(long, value_name = "SUITE", value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
}

impl Compatible {
    /// The flags that were given.
    pub fn given(&self) -> Vec<&'static str> {
        let one = |name, given: &Option<String>| given.is_some().then_some(name);
        [
            one("--status-sync-interval", &self.status_sync_interval),
            one("--max-feedback-watch", &self.max_feedback_watch),
            one("--hub-kube-api-qps", &self.hub_kube_api_qps),
            one("--hub-kube-api-burst", &self.hub_kube_api_burst),
            one("--kube-api-qps", &self.kube_api_qps),
            one("--kube-api-burst", &self.kube_api_burst),
            one("--hub-kubeconfig", &self.hub_kubeconfig),
            one("--workload-source-config", &self.workload_source_config),
            (!self.terminate_on_files.is_empty()).then_some("--terminate-on-files"),
            one("--disable-leader-election", &self.disable_leader_election),
            one(
                "--leader-election-lease-duration",
                &self.leader_election_lease_duration,
            ),
            one(
                "--leader-election-renew-deadline",
                &self.leader_election_renew_deadline,
            ),
            one(
                "--leader-election-retry-period",
                &self.leader_election_retry_period,
            ),
            self.addon_token_expiration_seconds
                .map(|_| "--addon-token-expiration-seconds"),
            one("--tls-min-version", &self.tls_min_version),
            (!self.tls_cipher_suites.is_empty()).then_some("--tls-cipher-suites"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// A Go duration like `90s` or `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration = text.parse().map_err(|e| format!("{e}"))?;
    if parsed.is_negative() {
        return Err("must not be negative".into());
    }
    Ok(parsed.into())
}

impl Options {
    /// Options from flags, as a command line has them behind the program's name: what runs a klusterlet inside another
    /// program starts it as a person does, defaults included.
    pub fn from_flags<T>(flags: impl IntoIterator<Item = T>) -> Result<Self, clap::Error>
    where
        T: Into<std::ffi::OsString>,
    {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let line = std::iter::once("klusterlet".into()).chain(flags.into_iter().map(Into::into));
        <Line as clap::Parser>::try_parse_from(line).map(|line| line.options)
    }

    /// The feature gates.
    pub fn gates(&self) -> Result<Gates, crate::Error> {
        Gates::parse(&self.feature_gates).map_err(crate::Error::Option)
    }

    /// Kubeconfig of this cluster, under either name.
    pub fn of_this_cluster(&self) -> Option<&PathBuf> {
        self.spoke_kubeconfig.as_ref().or(self.kubeconfig.as_ref())
    }

    /// What is wrong with the options before anything is asked, if anything.
    pub fn check(&self) -> Result<(), crate::Error> {
        use muster_crds::names::validate_cluster_name;
        let name = |what: &'static str, name: &str| {
            validate_cluster_name(name).map_err(|problem| crate::Error::Name {
                what,
                name: name.to_owned(),
                problem: problem.to_owned(),
            })
        };
        if let Some(cluster) = &self.cluster_name {
            name("cluster name", cluster)?;
        }
        name("namespace", &self.namespace)?;
        if let Some(agent) = &self.agent_id
            && !muster_crds::names::is_agent_name(agent)
        {
            return Err(crate::Error::Name {
                what: "agent ID",
                name: agent.clone(),
                problem: "must hold only letters, digits, '-', '.' and '_', 1 to 253 of them".into(),
            });
        }
        if self.client_cert_expiration_seconds != 0 && self.client_cert_expiration_seconds < 3600 {
            return Err(crate::Error::Option(format!(
                "--client-cert-expiration-seconds {} is too short: 0, or 3600 and more",
                self.client_cert_expiration_seconds
            )));
        }
        if let Some(url) = self
            .spoke_external_server_urls
            .iter()
            .find(|u| !u.starts_with("https://"))
        {
            return Err(crate::Error::Option(format!(
                "--spoke-external-server-urls {url:?} must begin with https://"
            )));
        }
        if self.cluster_healthcheck_period.is_zero() {
            return Err(crate::Error::Option(
                "--cluster-healthcheck-period must be longer than 0s: the cluster's health would be looked at without a pause"
                    .into(),
            ));
        }
        if self.workload_agent_workers == 0 {
            return Err(crate::Error::Option(
                "--workload-agent-workers must be 1 or more: with none, no work is applied".into(),
            ));
        }
        if self.max_json_raw_length > 1024 {
            return Err(crate::Error::Option(format!(
                "--max-json-raw-length {} is too long: the API takes 1024 bytes",
                self.max_json_raw_length
            )));
        }
        let prefix = muster_crds::constants::annotations::AGENT_PREFIX;
        if let Some(bad) = self
            .cluster_annotations
            .iter()
            .find(|a| !a.starts_with(prefix) || !a.contains('='))
        {
            return Err(crate::Error::Option(format!(
                "--cluster-annotations {bad:?} must be {prefix}KEY=VALUE"
            )));
        }
        let several = self.gates()?.on(Gate::MultipleHubs);
        match (several, self.bootstrap_kubeconfigs.len()) {
            (true, 0 | 1) => Err(crate::Error::Option(
                "the gate MultipleHubs needs --bootstrap-kubeconfigs with at least two files".into(),
            )),
            (false, 1..) => Err(crate::Error::Option(
                "--bootstrap-kubeconfigs needs --feature-gates=MultipleHubs=true".into(),
            )),
            (true, _) if self.hub_connection_timeout_seconds == 0 => Err(crate::Error::Option(
                "--hub-connection-timeout-seconds must be more than 0".into(),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Args {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn what_starts_ocms_agents_starts_this_one() {
        // As their operator writes them (wire §9.1), those of both agents together.
        let args = [
            "klusterlet",
            "--hub-kubeconfig=/spoke/hub-kubeconfig/kubeconfig",
            "--hub-kubeconfig-dir=/spoke/hub-kubeconfig",
            "--spoke-cluster-name=cluster1",
            "--bootstrap-kubeconfig=/spoke/bootstrap/kubeconfig",
            "--agent-id=8b2fbd0e-6c4b-4f5a-8d6c-3f5f3a1f5f11",
            "--workload-source-driver=kube",
            "--workload-source-config=/spoke/hub-kubeconfig/kubeconfig",
            "--terminate-on-files=/spoke/hub-kubeconfig/kubeconfig",
            "--terminate-on-files=/spoke/hub-kubeconfig/cluster-name",
            "--disable-leader-election",
            "--status-sync-interval=60s",
            "--max-feedback-watch=50",
            "--appliedmanifestwork-eviction-grace-period=60m",
            "--hub-kube-api-qps=50",
            "--hub-kube-api-burst=100",
            "--kube-api-qps=50",
            "--kube-api-burst=100",
            "--registration-auth=csr",
            "--addon-kubeclient-registration-auth=csr",
            "--addon-token-expiration-seconds=31536000",
            "--kubeconfig=/management",
            "--tls-min-version=VersionTLS12",
            "--tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384",
            "--feature-gates=AddonManagement=true",
            "--feature-gates=ExecutorValidatingCaches=true",
        ];
        let args = Args::try_parse_from(args).unwrap_or_else(|e| panic!("{e}"));
        args.options.check().unwrap();
        assert_eq!(args.options.cluster_name.as_deref(), Some("cluster1"));
        assert_eq!(args.options.compatible.given().len(), 13);
        let of = |args: &[&str]| {
            let args =
                Args::try_parse_from([&["klusterlet"], args].concat()).unwrap_or_else(|e| panic!("{e}"));
            args.options.of_this_cluster().cloned()
        };
        assert_eq!(of(&["--kubeconfig=a"]), Some("a".into()));
        assert_eq!(of(&["--kubeconfig=a", "--spoke-kubeconfig=b"]), Some("b".into()));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_ocms_agents_have_and_this_one_has_not_is_told_in_one_line() {
        for (flag, missing) in [
            ("--registration-auth=grpc", "only csr is"),
            ("--registration-auth=awsirsa", "only csr is"),
            ("--addon-kubeclient-registration-auth=token", "only csr is"),
            ("--workload-source-driver=mqtt", "only kube is"),
            (
                "--hub-cluster-arn=arn:aws:eks:us-west-2:1:cluster/hub",
                "AWS IAM (awsirsa)",
            ),
            (
                "--managed-cluster-arn=arn:aws:eks:us-west-2:1:cluster/c1",
                "AWS IAM (awsirsa)",
            ),
            ("--managed-cluster-role-suffix=abc", "AWS IAM (awsirsa)"),
            ("--grpc-bootstrap-config=/spoke/bootstrap/config.yaml", "gRPC"),
            ("--grpc-config=/spoke/hub-kubeconfig/config.yaml", "gRPC"),
            ("--cloudevents-client-id=a", "broker"),
            ("--cloudevents-client-codecs=manifestbundle", "broker"),
            ("--config=/config.yaml", "configuration file"),
        ] {
            let error = Args::try_parse_from(["klusterlet", flag])
                .unwrap_err()
                .to_string();
            let (name, value) = flag.split_once('=').unwrap();
            let line = error.lines().next().unwrap_or_default();
            for part in [name, value, "not there", missing] {
                assert!(line.contains(part), "no {part:?} in {error}");
            }
            // Their default says nothing.
            if !name.ends_with("driver") {
                Args::try_parse_from(["klusterlet", &format!("{name}=")]).unwrap();
            }
        }
    }

    fn problem(args: &[&str]) -> String {
        let args = Args::try_parse_from([&["klusterlet"], args].concat()).unwrap_or_else(|e| panic!("{e}"));
        args.options
            .check()
            .map_or_else(|e| e.to_string(), |()| String::new())
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cases: [(&[&str], &str); 11] = [
            (&[], ""),
            (
                &["--feature-gates=MultipleHubs=true", "--bootstrap-kubeconfigs=a,b"],
                "",
            ),
            (
                &["--feature-gates=MultipleHubs=true", "--bootstrap-kubeconfigs=a"],
                "at least two",
            ),
            (&["--bootstrap-kubeconfigs=a,b"], "MultipleHubs=true"),
            (&["--feature-gates=Nope=true"], "unrecognized feature gate: Nope"),
            (&["--client-cert-expiration-seconds=60"], "too short"),
            (&["--cluster-name=Big"], "lower case"),
            (&["--workload-agent-workers=0"], "must be 1 or more"),
            (&["--cluster-healthcheck-period=0s"], "must be longer than 0s"),
            (&["--spoke-external-server-urls=http://a"], "https://"),
            (
                &["--cluster-annotations=a=b"],
                "agent.open-cluster-management.io/",
            ),
        ];
        for (args, expected) in cases {
            let problem = problem(args);
            assert!(
                problem.contains(expected) && problem.is_empty() == expected.is_empty(),
                "{args:?}: {problem}"
            );
        }
    }
}
