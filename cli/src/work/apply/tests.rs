use super::*;
use kube::client::Body;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

const WORKS: &str = "/apis/work.open-cluster-management.io/v1/namespaces/c/manifestworks";

/// A hub of one cluster, which refuses some of what it is to make.
#[derive(Default)]
struct Mock {
    works: BTreeMap<String, Value>,
    refuses: Option<&'static str>,
    writes: Vec<String>,
}

impl Mock {
    fn answer(&mut self, method: &str, path: &str, query: &str, body: &Value) -> (u16, Value) {
        let status = |code: u16, reason: &str| {
            (
                code,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                    "message": format!("the mock says {reason}"), "details": {"name": "x"}}),
            )
        };
        if path.ends_with("/managedclusters/c") {
            return (
                200,
                json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
                    "metadata": {"name": "c"}, "spec": {"hubAcceptsClient": true}}),
            );
        }
        let dry_run = query.contains("dryRun=All");
        let name = match path.strip_prefix(WORKS) {
            Some("") => String::new(),
            Some(name) => name.trim_start_matches('/').to_owned(),
            None => return status(404, "NotFound"),
        };
        match (method, name.as_str()) {
            ("GET", "") => {
                let of_bundle = |work: &&Value| !work["metadata"]["labels"].is_null();
                let items: Vec<&Value> = self.works.values().filter(of_bundle).collect();
                (
                    200,
                    json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}),
                )
            }
            ("POST", "") => {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                if self.works.contains_key(&name) {
                    return status(409, "AlreadyExists");
                }
                if !dry_run {
                    if self.refuses == Some(name.as_str()) {
                        return status(500, "InternalError");
                    }
                    self.writes.push(format!("+{name}"));
                    let mut work = body.clone();
                    work["metadata"]["uid"] = name.clone().into();
                    self.works.insert(name, work);
                }
                (201, body.clone())
            }
            ("PATCH", name) => {
                let Some(work) = self.works.get_mut(name) else {
                    return status(404, "NotFound");
                };
                let mut changed = work.clone();
                changed["metadata"]["labels"] = body["metadata"]["labels"].clone();
                changed["metadata"]["annotations"] = body["metadata"]["annotations"].clone();
                changed["spec"]["workload"] = body["spec"]["workload"].clone();
                if !dry_run {
                    self.writes.push(format!("~{name}"));
                    *work = changed.clone();
                }
                (200, changed)
            }
            ("GET", name) => match self.works.get(name) {
                Some(work) => (200, work.clone()),
                None => status(404, "NotFound"),
            },
            _ => status(405, "MethodNotAllowed"),
        }
    }
}

fn hub(mock: &Arc<Mutex<Mock>>) -> Hub {
    let mock = mock.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let mock = mock.clone();
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await?;
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
            let mut mock = mock.lock().unwrap_or_else(PoisonError::into_inner);
            let (code, answer) = mock.answer(parts.method.as_str(), path, query, &body);
            let answer = Body::from(answer.to_string().into_bytes());
            Ok::<_, kube::Error>(http::Response::builder().status(code).body(answer).unwrap())
        }
    });
    Hub {
        client: kube::Client::new(service, "default"),
        server: "https://hub".into(),
        kubeconfig: "k".into(),
        ca: Vec::new(),
    }
}

/// Three works' worth of ConfigMaps.
fn files(dir: &tempfile::TempDir, sizes: &[usize]) -> PathBuf {
    let maps = sizes.iter().enumerate().map(|(index, bytes)| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{index}")},
            "data": {"x": "y".repeat(*bytes)}})
        .to_string()
    });
    let path = dir.path().join("maps.json");
    std::fs::write(&path, maps.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

fn asked(name: &str, path: &std::path::Path) -> Apply {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        apply: Apply,
    }
    let path = path.display().to_string();
    let line = [
        "x",
        name,
        "--cluster",
        "c",
        "--manifest-limit",
        "2000",
        "-f",
        &path,
    ];
    <Line as clap::Parser>::try_parse_from(line).unwrap().apply
}

fn writes(mock: &Mutex<Mock>) -> Vec<String> {
    std::mem::take(&mut mock.lock().unwrap().writes)
}

#[tokio::test]
async fn what_is_half_made_is_told_and_completed_by_a_second_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = files(&dir, &[1500, 1500, 1500]);
    let mock = Arc::new(Mutex::new(Mock {
        refuses: Some("app-3"),
        ..Mock::default()
    }));
    let hub = hub(&mock);
    let create = asked("app", &path);
    let error = create
        .run_at(&hub, Mode::Create, create.manifests().unwrap(), Format::Table)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(writes(&mock), ["+app", "+app-2"]);
    for part in [
        "create work \"app-3\"",
        "the mock says InternalError",
        "of the 3 works of bundle \"app\": app created, app-2 created",
        "run the same command again",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }

    mock.lock().unwrap().refuses = None;
    let again = create.run_at(&hub, Mode::Create, create.manifests().unwrap(), Format::Table);
    again.await.unwrap();
    assert_eq!(writes(&mock), ["+app-3"]);
    let third = create.run_at(&hub, Mode::Create, create.manifests().unwrap(), Format::Table);
    let error = third.await.unwrap_err().to_string();
    assert!(
        error.contains("has a work \"app\" already") && error.contains("work apply"),
        "{error}"
    );

    // What did not change is not written.
    let apply = create.run_at(&hub, Mode::Apply, create.manifests().unwrap(), Format::Table);
    apply.await.unwrap();
    assert_eq!(writes(&mock), [""; 0]);
    let create = asked("app", &files(&dir, &[1500, 1400, 1500]));
    let apply = create.run_at(&hub, Mode::Apply, create.manifests().unwrap(), Format::Table);
    apply.await.unwrap();
    assert_eq!(writes(&mock), ["~app-2"]);
}

#[tokio::test]
async fn nothing_is_made_where_a_name_is_taken_or_too_long_or_a_manifest_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let path = files(&dir, &[1500, 1500]);
    let mock = Arc::new(Mutex::new(Mock::default()));
    let other = json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
        "metadata": {"name": "app-2", "namespace": "c"}, "spec": {}});
    mock.lock().unwrap().works.insert("app-2".into(), other);
    let hub = hub(&mock);
    let create = asked("app", &path);
    let error = create
        .run_at(&hub, Mode::Apply, create.manifests().unwrap(), Format::Table)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"app-2\" already that is not part of \"app\""),
        "{error}"
    );
    let long = asked(&"a".repeat(64), &path);
    let error = long
        .run_at(&hub, Mode::Apply, long.manifests().unwrap(), Format::Table)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("at most 63 characters"), "{error}");
    assert_eq!(writes(&mock), [""; 0]);

    let create = asked("app", &files(&dir, &[1500, 3000]));
    let error = create.manifests().unwrap_err().to_string();
    for part in [
        "maps.json, document 2",
        "ConfigMap \"m1\" alone is",
        "at most 2000",
        "--manifestLimit",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}
