//! `muster get`: clusters and works as tables, or whole as JSON and YAML.

use crate::kubeconfig::{self, Connection, Hub};
use crate::output::{self, Format};
use crate::table::{Lines, Table, age, duration};
use crate::{Error, complete, names};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource, ResourceExt as _};
use muster_crds::cluster::v1::ManagedCluster;
use muster_crds::conditions::find;
use muster_crds::constants::{conditions as types, labels};
use muster_crds::validity::Validity;
use muster_crds::work::v1::ManifestWork;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// Objects are asked for in pages of so many.
const PAGE: u32 = 500;

/// What to get.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Get {
    /// Clusters that registered at the hub
    #[command(
        visible_alias = "cluster",
        aliases = ["managedclusters", "managedcluster", "mcl", "mcls"],
        after_long_help = "Examples:\n  muster get clusters\n  muster get clusters -w\n  muster get clusters -o wide\n  muster get clusters cluster1 -o yaml"
    )]
    Clusters(Clusters),
    /// Works, of one cluster or of all
    #[command(
        visible_alias = "work",
        aliases = ["manifestworks", "manifestwork"],
        after_long_help = "Examples:\n  muster get works\n  muster get works --cluster cluster1 -w\n  muster get works guestbook --cluster cluster1 -o yaml"
    )]
    Works(Works),
}

/// `muster get clusters`.
#[derive(Debug, Clone, clap::Args)]
pub struct Clusters {
    /// Only these clusters
    #[arg(value_name = "NAME", add = complete::clusters())]
    names: Vec<String>,
    /// Go on with what changes, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

/// `muster get works`.
#[derive(Debug, Clone, clap::Args)]
pub struct Works {
    /// Only these works
    #[arg(value_name = "NAME", requires = "cluster", add = complete::works())]
    names: Vec<String>,
    /// Only works of this cluster
    #[arg(long, short, value_name = "CLUSTER", value_parser = names::cluster, add = complete::clusters())]
    cluster: Option<String>,
    /// Works of all clusters, as without --cluster
    #[arg(long, short = 'A', conflicts_with = "cluster")]
    all_clusters: bool,
    /// Go on with what changes, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

/// Runs `muster get`.
pub async fn run(get: &Get, connection: &Connection, format: Format) -> Result<(), Error> {
    match get {
        Get::Clusters(asked) => {
            let hub = connection.hub().await?;
            let api = Api::all_with(hub.client.clone(), &ApiResource::erase::<ManagedCluster>(&()));
            let fetched = fetch(
                &hub,
                &api,
                &asked.names,
                "managedclusters",
                "the hub has no cluster",
            );
            let shape = Shape::<ManagedCluster> {
                headers: cluster_headers(format),
                row: Box::new(move |cluster, now| cluster_row(cluster, format, now)),
            };
            if asked.watch {
                fetched.await?;
                return follow(api, &asked.names, format, shape).await;
            }
            let mut warnings = Vec::new();
            show(
                fetched.await?,
                !asked.names.is_empty(),
                format,
                "No clusters found",
                |found| {
                    warnings = overdue(found, Timestamp::now());
                    shape.table(found)
                },
            )?;
            for warning in warnings {
                output::note(&format!("warning: {warning}"));
            }
            Ok(())
        }
        Get::Works(asked) => works_of(asked, connection, format).await,
    }
}

/// Runs `muster get works`.
pub async fn works_of(asked: &Works, connection: &Connection, format: Format) -> Result<(), Error> {
    let hub = connection.hub().await?;
    let kind = ApiResource::erase::<ManifestWork>(&());
    let api = match &asked.cluster {
        Some(cluster) => Api::namespaced_with(hub.client.clone(), cluster, &kind),
        None => Api::all_with(hub.client.clone(), &kind),
    };
    if let Some(cluster) = &asked.cluster {
        // That a cluster has no works would mislead where there is no such cluster.
        cluster_of(&hub, cluster).await?;
    }
    let missing = format!(
        "cluster {:?} has no work",
        asked.cluster.as_deref().unwrap_or_default()
    );
    let fetched = fetch(&hub, &api, &asked.names, "manifestworks", &missing);
    let with_cluster = asked.cluster.is_none();
    let shape = Shape::<ManifestWork> {
        headers: work_headers(with_cluster, format),
        row: Box::new(move |work, now| work_row(&[work], with_cluster, format, now)),
    };
    if asked.watch {
        fetched.await?;
        return follow(api, &asked.names, format, shape).await;
    }
    show(
        fetched.await?,
        !asked.names.is_empty(),
        format,
        "No works found",
        |found| {
            if asked.names.is_empty() && format == Format::Table {
                works(found, with_cluster, Timestamp::now())
            } else {
                shape.table(found)
            }
        },
    )
}

/// What makes the cells of an object at a time.
type Row<K> = Box<dyn Fn(&K, Timestamp) -> Vec<String>>;

/// How objects of a kind are shown in a table.
struct Shape<K> {
    headers: Vec<&'static str>,
    row: Row<K>,
}

impl<K> Shape<K> {
    fn table(&self, objects: &[K]) -> String {
        let now = Timestamp::now();
        let mut table = Table::new(&self.headers);
        for object in objects {
            table.row((self.row)(object, now));
        }
        table.render()
    }
}

/// Shows objects, then each that changes as far as is shown, for as long as somebody looks.
async fn follow<K: Resource<DynamicType = ()> + DeserializeOwned>(
    api: Api<DynamicObject>,
    names: &[String],
    format: Format,
    shape: Shape<K>,
) -> Result<(), Error> {
    let config = match names {
        [only] => watcher::Config::default().fields(&format!("metadata.name={only}")),
        _ => watcher::Config::default(),
    };
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut lines = Lines::new(&shape.headers);
    let mut shown: BTreeMap<(Option<String>, String), Vec<String>> = BTreeMap::new();
    let mut first = Vec::new();
    // Without a clock, so that only what changes counts.
    let still = |object: &K| (shape.row)(object, Timestamp::UNIX_EPOCH);
    loop {
        let ready = match events.try_next().await {
            Ok(Some(watcher::Event::InitApply(object))) => {
                first.push(object);
                continue;
            }
            Ok(Some(watcher::Event::InitDone)) => std::mem::take(&mut first),
            Ok(Some(watcher::Event::Apply(object))) => vec![object],
            Ok(Some(watcher::Event::Delete(object))) => {
                let name = object.name_any();
                if names.is_empty() || names.contains(&name) {
                    shown.remove(&(object.namespace(), name.clone()));
                    output::note(&format!("{} deleted", name_line::<K>(&name).trim_end()));
                }
                continue;
            }
            Ok(Some(watcher::Event::Init)) => continue,
            Ok(None) => return Ok(()),
            Err(error) => {
                let why = crate::error::innermost(&error);
                output::note(&format!("the hub can not be watched, it goes on: {why}"));
                continue;
            }
        };
        let (mut rows, mut values) = (Vec::new(), Vec::new());
        for object in ready {
            let key = (object.namespace(), object.name_any());
            if !names.is_empty() && !names.contains(&key.1) {
                continue;
            }
            let value = whole::<K>(object)?;
            let typed: K = serde_json::from_value(value.clone()).map_err(|e| shapeless(&e))?;
            let cells = still(&typed);
            let whole_objects = matches!(format, Format::Json | Format::Yaml);
            if shown.insert(key, cells.clone()).as_ref() != Some(&cells) || whole_objects {
                rows.push((shape.row)(&typed, Timestamp::now()));
                values.push(output::for_people(value));
            }
        }
        let text = match format {
            Format::Table | Format::Wide => lines.rows(rows),
            Format::Name => values
                .iter()
                .map(|v| name_line::<K>(v["metadata"]["name"].as_str().unwrap_or_default()))
                .collect(),
            Format::Json | Format::Yaml => output::stream(&values, format)?,
        };
        output::print(&text)?;
    }
}

fn shapeless(error: &serde_json::Error) -> Error {
    Error::Input(format!("the hub answered with objects of another shape: {error}"))
}

/// A cluster of the hub, or an error that says it has none of that name. `None`: one may not look.
pub async fn cluster_of(hub: &Hub, name: &str) -> Result<Option<ManagedCluster>, Error> {
    let api: Api<ManagedCluster> = Api::all(hub.client.clone());
    let looked = async {
        match kubeconfig::get(&api, name).await {
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(Err(())),
            answer => answer.map(Ok),
        }
    };
    match hub.ask("look for the cluster", "managedclusters", looked).await? {
        Ok(Some(cluster)) => Ok(Some(cluster)),
        Ok(None) => Err(Error::Input(format!(
            "the hub at {} has no cluster {name:?}; `muster get clusters` lists those it has",
            hub.server
        ))),
        Err(()) => Ok(None),
    }
}

async fn fetch(
    hub: &Hub,
    api: &Api<DynamicObject>,
    names: &[String],
    kind: &'static str,
    missing: &str,
) -> Result<Vec<DynamicObject>, Error> {
    let what = format!("get {kind}");
    let mut objects = Vec::new();
    for name in names {
        let found = hub.ask(&what, kind, kubeconfig::get(api, name)).await?;
        objects.push(found.ok_or_else(|| Error::Input(format!("{missing} {name:?}")))?);
    }
    let mut token = None;
    while names.is_empty() {
        let page = ListParams {
            limit: Some(PAGE),
            continue_token: token.take(),
            ..ListParams::default()
        };
        let page = hub.ask(&what, kind, api.list(&page)).await?;
        objects.extend(page.items);
        token = page.metadata.continue_.filter(|t| !t.is_empty());
        if token.is_none() {
            break;
        }
    }
    Ok(objects)
}

/// Prints objects in the form asked for.
fn show<K: Resource<DynamicType = ()> + DeserializeOwned>(
    objects: Vec<DynamicObject>,
    named: bool,
    format: Format,
    none: &str,
    table: impl FnOnce(&[K]) -> String,
) -> Result<(), Error> {
    let values = objects
        .into_iter()
        .map(whole::<K>)
        .collect::<Result<Vec<Value>, Error>>()?;
    let text = match format {
        Format::Name => values
            .iter()
            .map(|v| name_line::<K>(v["metadata"]["name"].as_str().unwrap_or_default()))
            .collect(),
        Format::Json | Format::Yaml => {
            let mut values: Vec<Value> = values.into_iter().map(output::for_people).collect();
            let one = if named && values.len() == 1 {
                values.pop()
            } else {
                None
            };
            output::document(&one.unwrap_or_else(|| output::list(&values)), format)?
        }
        Format::Table | Format::Wide if values.is_empty() => {
            output::note(none);
            return Ok(());
        }
        Format::Table | Format::Wide => {
            let typed = values
                .into_iter()
                .map(serde_json::from_value)
                .collect::<Result<Vec<K>, _>>();
            table(&typed.map_err(|e| shapeless(&e))?)
        }
    };
    output::print(&text)
}

/// `resource.group/name`, as kubectl writes it.
pub fn name_line<K: Resource<DynamicType = ()>>(name: &str) -> String {
    format!("{}.{}/{name}\n", K::kind(&()).to_lowercase(), K::group(&()))
}

/// Members of a list come without kind.
fn whole<K: Resource<DynamicType = ()>>(mut object: DynamicObject) -> Result<Value, Error> {
    object.types = Some(kube::core::TypeMeta {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
    });
    serde_json::to_value(object).map_err(|e| shapeless(&e))
}

fn created<K: kube::ResourceExt>(object: &K) -> Option<Timestamp> {
    object.creation_timestamp().map(|t| t.0)
}

fn status_of(conditions: Option<&Vec<Condition>>, type_: &str) -> String {
    conditions
        .and_then(|c| find(c, type_))
        .map(|c| c.status.clone())
        .unwrap_or_default()
}

fn cluster_headers(format: Format) -> Vec<&'static str> {
    let mut headers = vec![
        "NAME",
        "HUB ACCEPTED",
        "MANAGED CLUSTER URLS",
        "JOINED",
        "AVAILABLE",
        "AGE",
    ];
    if format == Format::Wide {
        headers.extend(["VERSION", "CPU", "MEMORY", "TAINTS", "EXPIRES"]);
    }
    headers
}

fn cluster_row(cluster: &ManagedCluster, format: Format, now: Timestamp) -> Vec<String> {
    let status = cluster.status.as_ref();
    let conditions = status.map(|s| &s.conditions);
    let urls: Vec<&str> = cluster
        .spec
        .managed_cluster_client_configs
        .iter()
        .map(|c| c.url.as_str())
        .collect();
    let mut cells = vec![
        cluster.name_any(),
        cluster.spec.hub_accepts_client.to_string(),
        urls.join(","),
        status_of(conditions, types::JOINED),
        status_of(conditions, types::CLUSTER_AVAILABLE),
        age(created(cluster), now),
    ];
    if format == Format::Wide {
        let capacity = |name: &str| {
            let quantity = status.and_then(|s| s.capacity.get(name));
            quantity.map_or_else(|| "<none>".to_owned(), |q| q.0.clone())
        };
        let version = status
            .map(|s| s.version.kubernetes.clone())
            .filter(|v| !v.is_empty());
        let taints: Vec<&str> = cluster.spec.taints.iter().map(|t| t.key.as_str()).collect();
        let taints = if taints.is_empty() {
            "<none>".to_owned()
        } else {
            taints.join(",")
        };
        cells.extend([
            version.unwrap_or_else(|| "<none>".into()),
            capacity("cpu"),
            capacity("memory"),
            taints,
            certificate(Validity::of(cluster), now),
        ]);
    }
    cells
}

fn certificate(validity: Option<Validity>, now: Timestamp) -> String {
    match validity.map(|validity| validity.not_after) {
        None => "<unknown>".to_owned(),
        Some(end) if end <= now => "expired".to_owned(),
        Some(end) => format!("in {}", duration(end.as_second() - now.as_second())),
    }
}

/// So many clusters are named in a warning.
const NAMED: usize = 5;

/// What a person should know of certificates that were not renewed when they should have been; those of clusters that
/// are let in.
fn overdue(clusters: &[ManagedCluster], now: Timestamp) -> Vec<String> {
    let late: Vec<(String, Validity)> = clusters
        .iter()
        .filter(|cluster| cluster.spec.hub_accepts_client)
        .filter_map(|cluster| Some((cluster.name_any(), Validity::of(cluster)?)))
        .filter(|(_, validity)| validity.is_overdue(now))
        .collect();
    let mut warnings: Vec<String> = late
        .iter()
        .take(NAMED)
        .map(|(name, validity)| match certificate(Some(*validity), now).as_str() {
            "expired" => format!(
                "the certificate of cluster {name} expired at {}: its agent must register anew; look at its log",
                validity.not_after
            ),
            left => format!(
                "the certificate of cluster {name} ends {left}, and its agent should have renewed it already; look at its log"
            ),
        })
        .collect();
    if late.len() > NAMED {
        warnings.push(format!("so it is with {} more clusters", late.len() - NAMED));
    }
    warnings
}

fn work_headers(with_cluster: bool, format: Format) -> Vec<&'static str> {
    let mut headers = vec!["NAME", "APPLIED", "AVAILABLE", "MANIFESTS", "AGE"];
    if with_cluster {
        headers.insert(0, "CLUSTER");
    }
    if format == Format::Wide {
        headers.extend(["GENERATION", "REPORTED", "MESSAGE"]);
    }
    headers
}

/// Works as a table, those of a bundle in one row.
fn works(works: &[ManifestWork], with_cluster: bool, now: Timestamp) -> String {
    let mut rows: Vec<Vec<&ManifestWork>> = Vec::new();
    let mut bundles: BTreeMap<(Option<String>, &str), usize> = BTreeMap::new();
    for work in works {
        let row = work
            .labels()
            .get(labels::BUNDLE)
            .map(|bundle| *bundles.entry((work.namespace(), bundle)).or_insert(rows.len()));
        match row.and_then(|row| rows.get_mut(row)) {
            Some(row) => row.push(work),
            None => rows.push(vec![work]),
        }
    }
    let mut table = Table::new(&work_headers(with_cluster, Format::Table));
    for row in rows {
        table.row(work_row(&row, with_cluster, Format::Table, now));
    }
    table.render()
}

/// The row of a work, or of the works of a bundle together.
fn work_row(works: &[&ManifestWork], with_cluster: bool, format: Format, now: Timestamp) -> Vec<String> {
    let Some(work) = works.first() else {
        return Vec::new();
    };
    let conditions = work.status.as_ref().map(|s| &s.conditions);
    let applied = conditions.and_then(|c| find(c, types::APPLIED));
    let bundle = work.labels().get(labels::BUNDLE).filter(|_| works.len() > 1);
    let together = |type_: &str| {
        let of = |work: &&ManifestWork| status_of(work.status.as_ref().map(|s| &s.conditions), type_);
        let all: Vec<String> = works.iter().map(of).collect();
        // What is worst counts.
        let worst = ["False", "Unknown", ""]
            .into_iter()
            .find(|status| all.iter().any(|s| s == status));
        worst.unwrap_or("True").to_owned()
    };
    let manifests: usize = works.iter().map(|w| w.spec.workload.manifests.len()).sum();
    let mut cells = vec![
        bundle.cloned().unwrap_or_else(|| work.name_any()),
        together(types::APPLIED),
        together(types::AVAILABLE),
        manifests.to_string(),
        age(works.iter().filter_map(|w| created(*w)).min(), now),
    ];
    if with_cluster {
        cells.insert(0, work.namespace().unwrap_or_default());
    }
    if format == Format::Wide {
        let unmet = conditions
            .into_iter()
            .flatten()
            .find(|c| [types::APPLIED, types::AVAILABLE].contains(&c.type_.as_str()) && c.status != "True");
        let reported = applied.and_then(|c| c.observed_generation);
        cells.extend([
            work.metadata.generation.unwrap_or_default().to_string(),
            reported.map_or_else(|| "<none>".to_owned(), |g| g.to_string()),
            unmet
                .map(|c| crate::error::one_line(&c.message))
                .unwrap_or_default(),
        ]);
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-01T00:02:05Z".parse().unwrap()
    }

    fn clusters(list: &[ManagedCluster], format: Format) -> String {
        let mut table = Table::new(&cluster_headers(format));
        for cluster in list {
            table.row(cluster_row(cluster, format, now()));
        }
        table.render()
    }

    #[test]
    fn clusters_as_kubectl_prints_them() {
        let cluster = |value: Value| serde_json::from_value::<ManagedCluster>(value).unwrap();
        let list = [
            cluster(
                json!({"apiVersion": "v1", "kind": "ManagedCluster", "metadata": {"name": "cluster1", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"hubAcceptsClient": true, "managedClusterClientConfigs": [{"url": "https://a"}]},
                "status": {"version": {"kubernetes": "v1.36.0"}, "capacity": {"cpu": "8"}, "conditions": [
                    {"type": "ManagedClusterJoined", "status": "True", "reason": "r", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
            ),
            cluster(
                json!({"apiVersion": "v1", "kind": "ManagedCluster", "metadata": {"name": "c"}, "spec": {}}),
            ),
        ];
        let text = clusters(&list, Format::Table);
        let want = "NAME       HUB ACCEPTED   MANAGED CLUSTER URLS   JOINED   AVAILABLE   AGE\n\
                    cluster1   true           https://a              True                 2m5s\n\
                    c          false                                                      <unknown>\n";
        assert_eq!(text, want);
        let wide = clusters(&list, Format::Wide);
        assert!(wide.contains("v1.36.0   8        <none>   <none>"), "{wide}");
    }

    #[test]
    fn certificates_that_were_not_renewed_are_told_of() {
        let cluster = |name: &str, accepted: bool, validity: &str| {
            let notes =
                json!({"registration.muster.open-cluster-management.io/client-certificate": validity});
            let object = json!({"apiVersion": "v1", "kind": "ManagedCluster",
                "metadata": {"name": name, "annotations": notes}, "spec": {"hubAcceptsClient": accepted}});
            serde_json::from_value::<ManagedCluster>(object).unwrap()
        };
        let all = [
            cluster("fine", true, "2025-12-01T00:00:00Z/2026-02-01T00:00:00Z"),
            cluster("late", true, "2025-12-01T00:00:00Z/2026-01-01T01:02:05Z"),
            cluster("gone", true, "2025-12-01T00:00:00Z/2026-01-01T00:02:05Z"),
            cluster("denied", false, "2025-12-01T00:00:00Z/2025-12-02T00:00:00Z"),
            cluster("unread", true, "soon"),
        ];
        let warnings = overdue(&all, now());
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("cluster late ends in 60m"), "{warnings:?}");
        assert!(
            warnings[1].contains("cluster gone expired at 2026-01-01T00:02:05Z"),
            "{warnings:?}"
        );
        let many: Vec<_> = (0..NAMED + 2)
            .map(|n| {
                cluster(
                    &format!("c{n}"),
                    true,
                    "2025-12-01T00:00:00Z/2025-12-02T00:00:00Z",
                )
            })
            .collect();
        assert_eq!(
            overdue(&many, now()).last().unwrap(),
            "so it is with 2 more clusters"
        );
        let wide = clusters(&all, Format::Wide);
        let cell = |name: &str| {
            let line = wide.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit("   ").next().unwrap().to_owned()
        };
        assert_eq!(
            (cell("NAME"), cell("fine"), cell("late")),
            ("EXPIRES".into(), "in 30d".into(), "in 60m".into())
        );
        assert_eq!(
            (cell("gone"), cell("unread")),
            ("expired".into(), "<unknown>".into())
        );
    }

    #[test]
    fn works_say_what_is_wrong_when_wide() {
        let work: ManifestWork = serde_json::from_value(json!({"apiVersion": "v1", "kind": "ManifestWork",
            "metadata": {"name": "w", "namespace": "cluster1", "generation": 2, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"workload": {"manifests": [{}, {}]}},
            "status": {"conditions": [
                {"type": "Applied", "status": "False", "reason": "r", "message": "1 of 2\nfailed", "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        .unwrap();
        assert_eq!(
            works(std::slice::from_ref(&work), true, now()),
            "CLUSTER    NAME   APPLIED   AVAILABLE   MANIFESTS   AGE\ncluster1   w      False                 2           2m5s\n"
        );
        let mut wide = Table::new(&work_headers(false, Format::Wide));
        wide.row(work_row(&[&work], false, Format::Wide, now()));
        let wide = wide.render();
        assert!(wide.starts_with("NAME "), "{wide}");
        assert!(wide.contains("2            1          1 of 2; failed"), "{wide}");
    }

    #[test]
    fn a_bundle_is_one_row() {
        let work = |name: &str, bundle: Option<&str>, applied: &str| -> ManifestWork {
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "ManifestWork",
                "metadata": {"name": name, "namespace": "c", "creationTimestamp": "2026-01-01T00:00:00Z",
                    "labels": bundle.map(|b| json!({"work.muster.open-cluster-management.io/bundle": b}))},
                "spec": {"workload": {"manifests": [{}, {}]}},
                "status": {"conditions": [{"type": "Applied", "status": applied, "reason": "r", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
            .unwrap()
        };
        let list = [
            work("app", Some("app"), "True"),
            work("app-2", Some("app"), "False"),
            work("app-3", None, "True"),
        ];
        let want = "NAME    APPLIED   AVAILABLE   MANIFESTS   AGE\n\
                    app     False                 4           2m5s\n\
                    app-3   True                  2           2m5s\n";
        assert_eq!(works(&list, false, now()), want);
    }

    #[test]
    fn names_are_kubectls() {
        assert_eq!(
            name_line::<ManagedCluster>("c"),
            "managedcluster.cluster.open-cluster-management.io/c\n"
        );
    }
}
