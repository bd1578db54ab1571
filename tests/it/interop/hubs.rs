//! The hubs: OCM's controllers and webhooks as processes, ours on a control plane, and ours with its own.

use super::agents::{alone, borrowed, explain, free_port};
use super::{Cluster, Ocm};
use crate::registration::{accept, approve, csr_of, name};
use crate::{MUSTER, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_apiserver::pki::{Ca, write_private};
use muster_apiserver::server::ServerOptions;
use muster_crds::constants::names;
use muster_tests::control_plane::{self, Role, is_embedded};
use muster_tests::objects::namespace;
use muster_tests::program::Process;
use muster_tests::wait::SOON;
use muster_tests::{ControlPlane, Fleet, FleetOptions, Kube, Program, deploy, eventually, tokens};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A hub, whoever's.
pub struct Hub {
    /// Its administrator.
    pub kube: Kube,
    /// A kubeconfig that may only bootstrap there.
    pub bootstrap: PathBuf,
    /// A person lets clusters in.
    by_hand: bool,
    processes: Vec<Process>,
    /// What goes with it.
    _parts: (Option<ControlPlane>, Option<Fleet>, Option<Program>),
}

impl Hub {
    /// OCM's.
    pub async fn ocms(ocm: &Ocm) -> anyhow::Result<Self> {
        Self::ocms_on(ocm, ServerOptions::default()).await
    }

    /// The same, whose embedded control plane has options.
    pub async fn ocms_on(ocm: &Ocm, options: ServerOptions) -> anyhow::Result<Self> {
        let plane = if is_embedded() {
            ControlPlane::embedded("OCM's hub", options).await?
        } else {
            ControlPlane::start("OCM's hub", Role::Foreign).await?
        };
        let kube = plane.kube();
        ocm.install(&plane, muster_crds::crds::hub()).await?;
        let home = namespace(names::HUB_NAMESPACE);
        kube.ensure("/api/v1/namespaces", &home).await?;
        deploy::apply(&kube, &bootstrap_role()).await?;
        let mut processes = webhooks(ocm, &plane).await?;
        for (program, command) in [(&ocm.registration, "controller"), (&ocm.work, "manager")] {
            let mut args = vec![
                command.to_owned(),
                format!("--kubeconfig={}", plane.kubeconfig().display()),
                format!("--namespace={}", names::HUB_NAMESPACE),
            ];
            args.extend(alone()?);
            processes.push(program.spawn(&borrowed(&args))?);
        }
        let sets = "/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets/default";
        let there = kube.until_there(sets, SOON).await.map(drop);
        explain(&processes, there)?;
        Ok(Self {
            bootstrap: plane.bootstrap_kubeconfig(plane.address()).await?,
            kube,
            by_hand: true,
            processes,
            _parts: (Some(plane), None, None),
        })
    }

    /// Ours on a control plane, which approves and accepts by its options.
    pub async fn ours() -> anyhow::Result<Self> {
        Self::ours_on(ServerOptions::default()).await
    }

    /// The same, whose embedded control plane has options.
    pub async fn ours_on(server: ServerOptions) -> anyhow::Result<Self> {
        let fleet = Fleet::prepare(FleetOptions {
            clusters: 0,
            server,
            ..FleetOptions::default()
        })
        .await?;
        let plane = &fleet.hub.plane;
        Ok(Self {
            kube: plane.kube(),
            bootstrap: plane.bootstrap_kubeconfig(plane.address()).await?,
            by_hand: false,
            processes: Vec::new(),
            _parts: (None, Some(fleet), None),
        })
    }

    /// Ours with its own API server, as a program. Clusters come with a join token.
    pub async fn standalone() -> anyhow::Result<Self> {
        control_plane::init();
        let program = Program::new(MUSTER)?;
        let args = [
            "hub",
            "--standalone",
            "--data-dir",
            "hub",
            "--bind",
            "127.0.0.1:0",
        ];
        let mut process = program.spawn(&args)?;
        let admin = program.home().join("hub/admin.kubeconfig");
        process.until_file(&admin).await?;
        let kube = Kube::from_file("standalone hub", &admin).await?;
        let token = tokens::make(&kube, &["--accept", "--clusters", "interop-*"]).await?;
        let bootstrap = control_plane::token_kubeconfig(&admin, &token, program.home())?;
        Ok(Self {
            kube,
            bootstrap,
            by_hand: false,
            processes: vec![process],
            _parts: (None, None, Some(program)),
        })
    }

    /// Lets a cluster in where a person has to.
    pub async fn admit(&self, cluster: &Cluster) -> Result {
        if self.by_hand {
            let csr = csr_of(&self.kube, &cluster.name).await?;
            approve(&self.kube, name(&csr)).await?;
            accept(&self.kube, &cluster.name, true).await?;
        }
        Ok(())
    }

    /// Whether clusters wait until a person lets them in.
    pub fn is_by_hand(&self) -> bool {
        self.by_hand
    }

    /// Adds to an error what its programs said last.
    pub fn explain(&self, result: Result) -> Result {
        explain(&self.processes, result)
    }
}

/// What OCM's chart gives bootstrap tokens.
fn bootstrap_role() -> [Value; 2] {
    let role = names::BOOTSTRAP_CLUSTER_ROLE;
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role}, "rules": [
            rule("", "configmaps", &["get"]),
            rule("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"]),
            rule("cluster.open-cluster-management.io", "managedclusters", &["get", "create", "list", "watch"]),
            rule("cluster.open-cluster-management.io", "managedclustersets/join", &["create"])]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": names::BOOTSTRAP_GROUP}]}),
    ]
}

/// OCM's webhooks, and what tells the API server of them once they listen.
async fn webhooks(ocm: &Ocm, plane: &ControlPlane) -> anyhow::Result<Vec<Process>> {
    let now = jiff::Timestamp::now();
    let ca = Ca::load_or_create(None, now)?;
    let pair = ca.issue_server(&["127.0.0.1".into()], now)?;
    let dir = plane.dir().join("webhooks");
    std::fs::create_dir_all(&dir)?;
    write_private(&dir.join("tls.crt"), pair.cert_pem.as_bytes())?;
    write_private(&dir.join("tls.key"), pair.key_pem.as_bytes())?;
    let mut processes = Vec::new();
    let mut ports = Vec::new();
    for program in [&ocm.registration, &ocm.work] {
        let (process, port) = webhook(program, plane, &dir)?;
        let listens = eventually(SOON, "OCM's webhook listens", async || {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            stream.map(drop).map_err(|error| error.to_string())
        })
        .await;
        explain(std::slice::from_ref(&process), listens)?;
        processes.push(process);
        ports.push(port);
    }
    let bundle = STANDARD.encode(ca.pem());
    for (kind, name, port, path, (group, version, resource)) in [
        (
            "MutatingWebhookConfiguration",
            "managedclustermutators.admission.cluster.open-cluster-management.io",
            ports[0],
            "mutate-cluster-open-cluster-management-io-v1-managedcluster",
            ("cluster.open-cluster-management.io", "*", "managedclusters"),
        ),
        (
            "ValidatingWebhookConfiguration",
            "managedclustervalidators.admission.cluster.open-cluster-management.io",
            ports[0],
            "validate-cluster-open-cluster-management-io-v1-managedcluster",
            ("cluster.open-cluster-management.io", "*", "managedclusters"),
        ),
        (
            "ValidatingWebhookConfiguration",
            "manifestworkvalidators.admission.work.open-cluster-management.io",
            ports[1],
            "validate-work-open-cluster-management-io-v1-manifestwork",
            ("work.open-cluster-management.io", "*", "manifestworks"),
        ),
    ] {
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
            "webhooks": [{"name": name, "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 10,
                "admissionReviewVersions": ["v1beta1", "v1"],
                "clientConfig": {"url": format!("https://127.0.0.1:{port}/{path}"), "caBundle": bundle},
                "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": [version],
                    "resources": [resource]}]}]});
        deploy::apply(&plane.kube(), &[configuration]).await?;
    }
    Ok(processes)
}

fn webhook(program: &Program, plane: &ControlPlane, certificates: &Path) -> anyhow::Result<(Process, u16)> {
    let port = free_port()?;
    let args = [
        "webhook-server".to_owned(),
        format!("--kubeconfig={}", plane.kubeconfig().display()),
        format!("--certdir={}", certificates.display()),
        format!("--port={port}"),
        format!("--metrics-port={}", free_port()?),
        format!("--health-probe-port={}", free_port()?),
    ];
    Ok((program.spawn(&borrowed(&args))?, port))
}
