//! Commands from their command line to a real API server and back.

use super::*;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use muster_apiserver::server::{Server, ServerOptions};
use muster_crds::cluster::v1::{ManagedCluster, ManagedClusterSpec};
use muster_crds::work::v1::ManifestWork;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// A server with the kinds of a hub, an accepted cluster `a` and a cluster `new` that is not accepted.
struct Hub {
    server: Server,
    dir: tempfile::TempDir,
}

fn ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn server() -> Hub {
    ring();
    let server = Server::start(ServerOptions::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    apiserver::write_kubeconfig(&dir.path().join("hub"), &server.admin_kubeconfig().unwrap()).unwrap();
    std::fs::write(
        dir.path().join("map.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
    )
    .unwrap();
    Hub { server, dir }
}

async fn hub() -> Hub {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::runtime::{conditions::is_crd_established, wait::await_condition};
    let hub = server().await;
    let client = hub.server.client();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in muster_crds::crds::hub() {
        crds.create(&PostParams::default(), &crd).await.unwrap();
        await_condition(crds.clone(), &crd.name_any(), is_crd_established())
            .await
            .unwrap();
    }
    for (name, accepted) in [("a", true), ("new", false)] {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        };
        let spec = ManagedClusterSpec {
            hub_accepts_client: accepted,
            ..ManagedClusterSpec::default()
        };
        let cluster = ManagedCluster {
            metadata: metadata.clone(),
            spec,
            status: None,
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &cluster)
            .await
            .unwrap();
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }
    hub
}

impl Hub {
    /// Runs a command line, with `@` for the folder of the test's files.
    async fn run(&self, line: &str) -> Result<(), String> {
        let line =
            format!("muster {line} --kubeconfig @/hub").replace('@', &self.dir.path().display().to_string());
        let arguments = Arguments::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())?;
        run(arguments).await.map_err(|e| e.to_string())
    }

    async fn error(&self, line: &str, want: &str) {
        let error = self.run(line).await.unwrap_err();
        assert!(error.contains(want), "{line}: {error}");
        assert!(!error.contains('\n'), "{line}: {error}");
    }

    fn works(&self) -> Api<ManifestWork> {
        Api::namespaced(self.server.client(), "a")
    }
}

#[tokio::test]
async fn works_are_made_shown_and_deleted() {
    let hub = hub().await;
    hub.run("work create w --cluster a -f @/map.yaml --dry-run -o yaml")
        .await
        .unwrap();
    assert!(hub.works().get_opt("w").await.unwrap().is_none());
    hub.run("work create w --cluster a -f @/map.yaml").await.unwrap();
    let work = hub.works().get("w").await.unwrap();
    assert_eq!(work.spec.workload.manifests[0].namespace(), "default");
    for line in [
        "get works",
        "get works w --cluster a -o json",
        "get clusters -o wide",
        "get clusters a -o yaml",
        "work status w --cluster a",
    ] {
        hub.run(line).await.unwrap();
    }
    hub.error(
        "work create w --cluster a -f @/map.yaml",
        "has a work \"w\" already",
    )
    .await;
    hub.run("work delete w --cluster a --wait").await.unwrap();
    assert!(hub.works().get_opt("w").await.unwrap().is_none());
}

#[tokio::test]
async fn what_the_hub_does_not_have_is_said() {
    let hub = hub().await;
    hub.error("work create w --cluster b -f @/map.yaml", "has no cluster \"b\"")
        .await;
    hub.error(
        "work create w --cluster new -f @/map.yaml",
        "has not accepted cluster \"new\"",
    )
    .await;
    hub.error("work status w --cluster a", "cluster \"a\" has no work \"w\"")
        .await;
    hub.error("work delete w --cluster b", "has no cluster \"b\"")
        .await;
    hub.error("get works --cluster b", "has no cluster \"b\"").await;
    hub.error("get works w --cluster b", "has no cluster \"b\"").await;
    hub.error("get works w --cluster a", "cluster \"a\" has no work \"w\"")
        .await;
    hub.error("get clusters a b", "no cluster \"b\"").await;
    hub.error(
        "work create w --cluster a -f @/nothing.yaml",
        "nothing.yaml: No such file",
    )
    .await;
    let works: Api<ManifestWork> = Api::all(hub.server.client());
    assert!(
        works
            .list(&kube::api::ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn a_server_that_is_no_hub_is_said() {
    let hub = server().await;
    for line in [
        "get clusters",
        "get clusters a",
        "work create w --cluster a -f @/map.yaml",
        "work status w --cluster a",
    ] {
        hub.error(line, "is no hub").await;
    }
}

#[tokio::test]
async fn waiting_ends_with_the_event_or_says_what_was_missing() {
    let hub = hub().await;
    hub.error(
        "work create slow --cluster a -f @/map.yaml --wait --timeout 1s",
        "within 1 s: the cluster has not reported yet",
    )
    .await;
    let works = hub.works();
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    works
        .patch("slow", &PatchParams::default(), &Patch::Merge(&held))
        .await
        .unwrap();
    hub.error(
        "work delete slow --cluster a --wait --timeout 1s",
        "within 1 s: the cluster has not answered",
    )
    .await;
    let free = json!({"metadata": {"finalizers": null}});
    let release = async {
        // Released only once the command waits or will: either way it must see the end.
        works
            .patch("slow", &PatchParams::default(), &Patch::Merge(&free))
            .await
            .unwrap();
        Ok::<_, String>(())
    };
    tokio::try_join!(hub.run("work delete slow --cluster a --wait"), release)
        .map(drop)
        .or_else(|e| {
            // The release may win: then there is nothing left to delete.
            if e.contains("has no work") { Ok(()) } else { Err(e) }
        })
        .unwrap();
    assert!(works.get_opt("slow").await.unwrap().is_none());
}

#[tokio::test]
async fn a_standalone_hub_keeps_what_it_has() {
    ring();
    let dir = tempfile::tempdir().unwrap();
    let start = |stop: tokio_util::sync::CancellationToken| {
        let line = format!(
            "muster hub --standalone --data-dir {} --bind 127.0.0.1:0",
            dir.path().join("data").display()
        );
        let Command::Hub(options) = Arguments::try_parse_from(line.split_whitespace())
            .unwrap()
            .command
        else {
            panic!("another command")
        };
        tokio::spawn(hub::run(*options, stop))
    };
    let admin = dir.path().join("data/admin.kubeconfig");
    for round in 0..2 {
        let _ = std::fs::remove_file(&admin);
        let stop = tokio_util::sync::CancellationToken::new();
        let running = start(stop.clone());
        appears(&admin).await;
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&admin).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let connection = kubeconfig::Connection {
            kubeconfig: Some(admin.clone()),
            context: None,
        };
        let clusters: Api<ManagedCluster> = Api::all(connection.hub().await.unwrap().client);
        if round == 0 {
            let metadata = ObjectMeta {
                name: Some("kept".into()),
                ..ObjectMeta::default()
            };
            let cluster = ManagedCluster {
                metadata,
                ..ManagedCluster::default()
            };
            clusters.create(&PostParams::default(), &cluster).await.unwrap();
        } else {
            clusters.get("kept").await.unwrap();
        }
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}

/// Files can not be watched here.
async fn appears(path: &Path) {
    let there = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), there)
        .await
        .expect("the kubeconfig was not written within 30 s");
}

#[tokio::test]
async fn a_taken_port_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for line in [
        format!("apiserver --in-memory --bind {address}"),
        format!("hub --standalone --data-dir @ --bind {address}"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("muster {line}").replace('@', &dir.path().display().to_string());
        let error = run(Arguments::try_parse_from(line.split_whitespace()).unwrap())
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!(
                "{address} is already in use; choose another address with --bind"
            )),
            "{error}"
        );
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "something was written"
        );
    }
}

/// The whole demo, with one cluster, which is the one that is cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_plays_to_its_end() {
    ring();
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let line = format!(
            "muster demo --exit --clusters 1 --dir {}",
            dir.path().join("d").display()
        );
        let Command::Demo(options) = Arguments::try_parse_from(line.split_whitespace())
            .unwrap()
            .command
        else {
            panic!("another command")
        };
        demo::run(&options, tokio_util::sync::CancellationToken::new())
            .await
            .unwrap();
    }
}
