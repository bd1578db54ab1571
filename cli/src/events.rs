//! `muster events`: what happens on the clusters to what works applied, and to what that owns, as the klusterlets tell it at
//! the hub.

use crate::error::one_line;
use crate::get;
use crate::kubeconfig::{Connection, Hub};
use crate::output::{self, Format};
use crate::table::{Lines, Table, age};
use crate::{Error, complete, names, work};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use muster_crds::constants::labels;
use muster_crds::work::v1::ManifestWork;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

const KIND: &str = "events";
/// Events are asked for in pages of so many.
const PAGE: u32 = 500;

/// `muster events`.
#[derive(Debug, Clone, clap::Args)]
pub struct Events {
    /// Only events of this work, or of the works of this bundle
    #[arg(long, value_name = "NAME", value_parser = names::work, add = complete::works())]
    work: Option<String>,
    /// Only events from this cluster
    #[arg(long, short, value_name = "CLUSTER", value_parser = names::cluster, add = complete::clusters())]
    cluster: Option<String>,
    /// Events from all clusters, as without --cluster
    #[arg(long, short = 'A', conflicts_with = "cluster")]
    all_clusters: bool,
    /// Only events of these types
    #[arg(
        long,
        value_name = "TYPE",
        value_delimiter = ',',
        value_enum,
        ignore_case = true
    )]
    types: Vec<Type>,
    /// Go on with events as they come, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

/// Types of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Type {
    /// What goes well
    Normal,
    /// What does not
    Warning,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// An event as it is shown.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    cluster: String,
    work: String,
    type_: String,
    reason: String,
    object: String,
    message: String,
    source: String,
    count: i64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Shown {
    fn of(event: &Event) -> Self {
        let micro =
            |t: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime>| t.as_ref().map(|t| t.0);
        let time = |t: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| t.as_ref().map(|t| t.0);
        let series = event.series.as_ref();
        let first = time(&event.first_timestamp)
            .or_else(|| micro(&event.event_time))
            .or_else(|| event.creation_timestamp().map(|t| t.0));
        let last = series
            .and_then(|s| micro(&s.last_observed_time))
            .or_else(|| time(&event.last_timestamp))
            .or(first);
        let count = series.and_then(|s| s.count).or(event.count).unwrap_or(1).max(1);
        let related = event.related.clone().unwrap_or_default();
        let (kind, name) = (related.kind.unwrap_or_default(), related.name.unwrap_or_default());
        let object = match related.namespace.unwrap_or_default() {
            _ if name.is_empty() => String::new(),
            namespace if namespace.is_empty() => format!("{kind}/{name}"),
            namespace => format!("{kind}/{namespace}/{name}"),
        };
        let message = event.message.clone().unwrap_or_default();
        // In front of the message for those who read it with kubectl.
        let told = match object.split_once('/') {
            Some((kind, name)) => message.strip_prefix(&format!("{kind} {name}: ")),
            None => None,
        };
        let source = event.source.clone().unwrap_or_default();
        let component = source
            .component
            .filter(|c| !c.is_empty())
            .or_else(|| event.reporting_component.clone())
            .unwrap_or_default();
        Self {
            cluster: event.namespace().unwrap_or_default(),
            work: event.involved_object.name.clone().unwrap_or_default(),
            type_: event.type_.clone().unwrap_or_default(),
            reason: event.reason.clone().unwrap_or_default(),
            object: if object.is_empty() {
                format!(
                    "ManifestWork/{}",
                    event.involved_object.name.as_deref().unwrap_or_default()
                )
            } else {
                object.clone()
            },
            message: one_line(told.unwrap_or(&message)),
            source: match source.host.filter(|h| !h.is_empty()) {
                Some(host) => format!("{component}, {host}"),
                None => component,
            },
            count: i64::from(count),
            first,
            last,
        }
    }

    /// `3s (x5 over 2m)`, as `kubectl events` has it.
    fn last_seen(&self, now: Timestamp) -> String {
        if self.count > 1 {
            return format!(
                "{} (x{} over {})",
                age(self.last, now),
                self.count,
                age(self.first, now)
            );
        }
        age(self.last, now)
    }
}

/// Columns beside those that every form has.
#[derive(Debug, Clone, Copy)]
struct Columns {
    cluster: bool,
    work: bool,
    wide: bool,
}

impl Columns {
    fn headers(self) -> Vec<&'static str> {
        let mut headers = vec!["LAST SEEN", "TYPE", "REASON"];
        headers.extend(self.cluster.then_some("CLUSTER"));
        headers.extend(self.work.then_some("WORK"));
        headers.push("OBJECT");
        headers.extend(self.wide.then_some("SOURCE"));
        headers.push("MESSAGE");
        headers.extend(self.wide.then_some("COUNT"));
        headers
    }

    fn cells(self, event: &Shown, now: Timestamp) -> Vec<String> {
        let mut cells = vec![event.last_seen(now), event.type_.clone(), event.reason.clone()];
        cells.extend(self.cluster.then(|| event.cluster.clone()));
        cells.extend(self.work.then(|| event.work.clone()));
        cells.push(event.object.clone());
        cells.extend(self.wide.then(|| event.source.clone()));
        cells.push(event.message.clone());
        cells.extend(self.wide.then(|| event.count.to_string()));
        cells
    }
}

impl Events {
    /// Runs `muster events`.
    pub async fn run(&self, connection: &Connection, format: Format) -> Result<(), Error> {
        let hub = connection.hub().await?;
        if let Some(cluster) = &self.cluster {
            // That a cluster has no events would mislead where there is no such cluster.
            get::cluster_of(&hub, cluster).await?;
        }
        if self.watch {
            return self.follow(&hub, format).await;
        }
        let mut events = list(&hub, &self.api(&hub), &self.fields()).await?;
        let parts = self.parts(&hub).await?;
        events.retain(|event| self.is_wanted(event, &parts));
        sort(&mut events);
        let text = match format {
            Format::Table | Format::Wide if events.is_empty() => {
                output::note(&self.none());
                return Ok(());
            }
            Format::Table | Format::Wide => {
                let (columns, now) = (self.columns(format), Timestamp::now());
                let mut table = Table::new(&columns.headers());
                for event in &events {
                    table.row(columns.cells(&Shown::of(event), now));
                }
                table.render()
            }
            Format::Name => events.iter().map(name_line).collect(),
            Format::Json | Format::Yaml => {
                let values = events.iter().map(value).collect::<Result<Vec<_>, _>>()?;
                output::document(&output::list(&values), format)?
            }
        };
        output::print(&text)
    }

    fn api(&self, hub: &Hub) -> Api<Event> {
        match &self.cluster {
            Some(cluster) => Api::namespaced(hub.client.clone(), cluster),
            None => Api::all(hub.client.clone()),
        }
    }

    fn columns(&self, format: Format) -> Columns {
        Columns {
            cluster: self.cluster.is_none(),
            work: self.work.is_none(),
            wide: format == Format::Wide,
        }
    }

    fn fields(&self) -> String {
        let mut fields = "involvedObject.kind=ManifestWork".to_owned();
        if let [only] = self.types.as_slice() {
            fields.extend([",type=", only.as_str()]);
        }
        fields
    }

    /// The works of the bundle, where one was asked for: clusters and names.
    async fn parts(&self, hub: &Hub) -> Result<HashSet<(String, String)>, Error> {
        let Some(work) = self
            .work
            .as_ref()
            .filter(|name| name.len() <= work::MAX_BUNDLE_NAME)
        else {
            return Ok(HashSet::new());
        };
        let works: Api<ManifestWork> = match &self.cluster {
            Some(cluster) => Api::namespaced(hub.client.clone(), cluster),
            None => Api::all(hub.client.clone()),
        };
        let of_bundle = ListParams::default().labels(&format!("{}={work}", labels::BUNDLE));
        let list = hub
            .ask("list the works", "manifestworks", works.list_metadata(&of_bundle))
            .await?;
        let parts = list.items.iter();
        Ok(parts
            .map(|work| (work.namespace().unwrap_or_default(), work.name_any()))
            .collect())
    }

    /// Whether an event is one that was asked for, of those that the hub selected.
    fn is_wanted(&self, event: &Event, parts: &HashSet<(String, String)>) -> bool {
        let of_work = self.work.as_ref().is_none_or(|wanted| {
            let name = event.involved_object.name.clone().unwrap_or_default();
            name == *wanted || parts.contains(&(event.namespace().unwrap_or_default(), name))
        });
        let type_ = event.type_.as_deref().unwrap_or_default();
        of_work && (self.types.is_empty() || self.types.iter().any(|t| t.as_str() == type_))
    }

    fn none(&self) -> String {
        let mut text = match self.types.as_slice() {
            [only] => format!("No {} events found", only.as_str()),
            _ => "No events found".to_owned(),
        };
        if let Some(work) = &self.work {
            text.extend([format!(" of work {work:?}")]);
        }
        if let Some(cluster) = &self.cluster {
            text.extend([format!(" from cluster {cluster:?}")]);
        }
        text
    }

    /// Shows what there is, then each event as it comes.
    async fn follow(&self, hub: &Hub, format: Format) -> Result<(), Error> {
        // An error of the first request is an error; later ones are waited out.
        list(hub, &self.api(hub), &self.fields()).await?;
        let parts = self.parts(hub).await?;
        let config = watcher::Config::default().fields(&self.fields());
        let mut stream = std::pin::pin!(watcher(self.api(hub), config).default_backoff());
        let columns = self.columns(format);
        let mut lines = Lines::new(&columns.headers());
        let mut first = Vec::new();
        let mut told: HashMap<String, (i64, Option<Timestamp>)> = HashMap::new();
        loop {
            let event = match stream.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(error) => {
                    output::note(&format!(
                        "the events can not be watched, it goes on: {}",
                        crate::error::innermost(&error)
                    ));
                    continue;
                }
            };
            let mut ready = match event {
                watcher::Event::InitApply(event) => {
                    first.push(event);
                    continue;
                }
                watcher::Event::InitDone => {
                    sort(&mut first);
                    std::mem::take(&mut first)
                }
                watcher::Event::Apply(event) => vec![event],
                watcher::Event::Delete(event) => {
                    told.remove(&event.uid().unwrap_or_default());
                    continue;
                }
                watcher::Event::Init => continue,
            };
            // After an interruption the hub lists all of them again.
            ready.retain(|event| {
                let shown = Shown::of(event);
                let state = (shown.count, shown.last);
                self.is_wanted(event, &parts)
                    && told.insert(event.uid().unwrap_or_default(), state) != Some(state)
            });
            let now = Timestamp::now();
            let text = match format {
                Format::Table | Format::Wide => {
                    let row = |event: &Event| columns.cells(&Shown::of(event), now);
                    lines.rows(ready.iter().map(row).collect())
                }
                Format::Name => ready.iter().map(name_line).collect(),
                Format::Json | Format::Yaml => {
                    output::stream(&ready.iter().map(value).collect::<Result<Vec<_>, _>>()?, format)?
                }
            };
            output::print(&text)?;
        }
    }
}

async fn list(hub: &Hub, api: &Api<Event>, fields: &str) -> Result<Vec<Event>, Error> {
    let mut events = Vec::new();
    let mut token = None;
    loop {
        let page = ListParams {
            limit: Some(PAGE),
            continue_token: token.take(),
            field_selector: Some(fields.to_owned()),
            ..ListParams::default()
        };
        let page = hub.ask("get events", KIND, api.list(&page)).await?;
        events.extend(page.items);
        token = page.metadata.continue_.filter(|t| !t.is_empty());
        if token.is_none() {
            return Ok(events);
        }
    }
}

/// The latest warnings of some works of a cluster, for who looks at their status; none where one may not look.
pub async fn warnings(hub: &Hub, cluster: &str, works: &[&str], most: usize) -> Vec<String> {
    let api: Api<Event> = Api::namespaced(hub.client.clone(), cluster);
    let mut fields = "involvedObject.kind=ManifestWork,type=Warning".to_owned();
    if let [only] = works {
        fields.extend([",involvedObject.name=", *only]);
    }
    let Ok(mut events) = list(hub, &api, &fields).await else {
        return Vec::new();
    };
    events.retain(|event| {
        let name = event.involved_object.name.as_deref().unwrap_or_default();
        works.contains(&name)
    });
    sort(&mut events);
    let now = Timestamp::now();
    let latest = events.iter().rev().take(most).map(Shown::of);
    latest
        .map(|event| {
            format!(
                "{} ago {} {}: {}",
                event.last_seen(now),
                event.reason,
                event.object,
                event.message
            )
        })
        .collect()
}

/// The latest last.
fn sort(events: &mut [Event]) {
    events.sort_by_cached_key(|event| (Shown::of(event).last, event.name_any()));
}

fn name_line(event: &Event) -> String {
    format!("event/{}\n", event.name_any())
}

fn value(event: &Event) -> Result<Value, Error> {
    serde_json::to_value(event)
        .map(output::for_people)
        .map_err(|e| Error::Input(format!("the hub answered with objects of another shape: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(name: &str, work: &str, type_: &str, count: i32, second: u32) -> Event {
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": "cluster1", "uid": name},
            "involvedObject": {"kind": "ManifestWork", "name": work, "namespace": "cluster1"},
            "related": {"kind": "Pod", "namespace": "shop", "name": "web-1"},
            "type": type_, "reason": "BackOff", "message": "Pod shop/web-1: it\nfails", "count": count,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            "source": {"component": "kubelet", "host": "n1"}, "reportingComponent": "muster-klusterlet"}))
        .unwrap()
    }

    fn asked(work: Option<&str>, cluster: Option<&str>, types: &[Type]) -> Events {
        Events {
            work: work.map(str::to_owned),
            cluster: cluster.map(str::to_owned),
            all_clusters: false,
            types: types.to_vec(),
            watch: false,
        }
    }

    #[test]
    fn events_are_shown_as_kubectl_shows_them() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let shown = Shown::of(&event("e", "shop", "Warning", 3, 50));
        let columns = asked(None, None, &[]).columns(Format::Wide);
        let mut table = Table::new(&columns.headers());
        table.row(columns.cells(&shown, now));
        assert_eq!(
            table.render(),
            "LAST SEEN           TYPE      REASON    CLUSTER    WORK   OBJECT           SOURCE        MESSAGE     COUNT\n\
             10s (x3 over 60s)   Warning   BackOff   cluster1   shop   Pod/shop/web-1   kubelet, n1   it; fails   3\n"
        );
        let columns = asked(Some("shop"), Some("c"), &[]).columns(Format::Table);
        assert_eq!(
            columns.headers(),
            ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
        );
        let by_hand: Event = serde_json::from_value(json!({"metadata": {"name": "e"}, "message": "m",
            "involvedObject": {"kind": "ManifestWork", "name": "w"}}))
        .unwrap();
        let shown = Shown::of(&by_hand);
        assert_eq!(
            (shown.object.as_str(), shown.message.as_str()),
            ("ManifestWork/w", "m")
        );
        assert_eq!(shown.last_seen(now), "<unknown>");
    }

    #[test]
    fn only_what_was_asked_for_is_shown() {
        let cases = [
            (asked(None, None, &[]), "other", "Normal", true),
            (asked(Some("shop"), None, &[]), "shop", "Normal", true),
            (asked(Some("shop"), None, &[]), "shop-2", "Normal", true),
            (asked(Some("shop"), None, &[]), "shop-3", "Normal", false),
            (
                asked(Some("shop"), None, &[Type::Warning]),
                "shop",
                "Normal",
                false,
            ),
            (
                asked(None, None, &[Type::Warning, Type::Normal]),
                "shop",
                "Normal",
                true,
            ),
        ];
        let parts = HashSet::from([("cluster1".to_owned(), "shop-2".to_owned())]);
        for (asked, work, type_, expected) in cases {
            let event = event("e", work, type_, 1, 0);
            assert_eq!(
                asked.is_wanted(&event, &parts),
                expected,
                "{asked:?} {work} {type_}"
            );
        }
        let mut events = [event("b", "w", "Normal", 1, 9), event("a", "w", "Normal", 1, 3)];
        sort(&mut events);
        assert_eq!(events[0].name_any(), "a", "the latest last");
        assert_eq!(
            asked(None, None, &[Type::Warning]).fields(),
            "involvedObject.kind=ManifestWork,type=Warning"
        );
    }
}
