//! Cells of pods and what makes them.

use super::{NONE, Row, UNKNOWN, containers, joined, label_pairs, selector_text, text};
use crate::registry::Resource;
use serde_json::{Value, json};

/// Cells of an object of these kinds; `None` for others.
pub(super) fn cells(resource: &Resource, row: &Row<'_>) -> Option<Vec<Value>> {
    Some(match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => pod(row),
        ("", "podtemplates") => {
            let (names, images) = containers(row.at("/template/spec"));
            vec![
                row.name(),
                names,
                images,
                joined(label_pairs(row.at("/template/metadata/labels"))).into(),
            ]
        }
        ("", "replicationcontrollers") => {
            let mut cells = replicas(row);
            cells.push(joined(label_pairs(row.at("/spec/selector"))).into());
            cells
        }
        ("apps", "replicasets") => {
            let mut cells = replicas(row);
            cells.push(selector_text(row.at("/spec/selector")).into());
            cells
        }
        ("apps", "deployments") => {
            let (names, images) = containers(row.at("/spec/template/spec"));
            // A bookmark's selects nothing.
            let selector = match row.at("/spec/selector") {
                Value::Null => String::new(),
                selector => selector_text(selector),
            };
            vec![
                row.name(),
                format!(
                    "{}/{}",
                    row.number("/status/readyReplicas"),
                    row.number("/spec/replicas")
                )
                .into(),
                row.number("/status/updatedReplicas").into(),
                row.number("/status/availableReplicas").into(),
                row.age(),
                names,
                images,
                selector.into(),
            ]
        }
        ("apps", "statefulsets") => {
            let (names, images) = containers(row.at("/spec/template/spec"));
            let ready = format!(
                "{}/{}",
                row.number("/status/readyReplicas"),
                row.number("/spec/replicas")
            );
            vec![row.name(), ready.into(), row.age(), names, images]
        }
        ("apps", "daemonsets") => {
            let (names, images) = containers(row.at("/spec/template/spec"));
            let mut cells = vec![row.name()];
            for key in [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ] {
                cells.push(row.number(&format!("/status/{key}")).into());
            }
            cells.push(joined(label_pairs(row.at("/spec/template/spec/nodeSelector"))).into());
            cells.extend([
                row.age(),
                names,
                images,
                selector_text(row.at("/spec/selector")).into(),
            ]);
            cells
        }
        ("apps", "controllerrevisions") => {
            let controller = row
                .items("/metadata/ownerReferences")
                .find(|o| o["controller"] == json!(true))
                .map_or(NONE.to_owned(), |o| {
                    let (group, _) = crate::registry::split_api_version(text(o, "apiVersion"));
                    let kind = text(o, "kind").to_lowercase();
                    let kind = if group.is_empty() {
                        kind
                    } else {
                        format!("{kind}.{group}")
                    };
                    format!("{kind}/{}", text(o, "name"))
                });
            vec![
                row.name(),
                controller.into(),
                row.number("/revision").into(),
                row.age(),
            ]
        }
        ("batch", "jobs") => job(row),
        ("batch", "cronjobs") => {
            let (names, images) = containers(row.at("/spec/jobTemplate/spec/template/spec"));
            vec![
                row.name(),
                row.text("/spec/schedule").into(),
                row.text_or("/spec/timeZone", NONE),
                // A word, although the column says boolean.
                if row.at("/spec/suspend") == &Value::Bool(true) {
                    "True".into()
                } else {
                    "False".into()
                },
                row.items("/status/active").count().into(),
                row.since(row.at("/status/lastScheduleTime"), NONE),
                row.age(),
                names,
                images,
                selector_text(row.at("/spec/jobTemplate/spec/selector")).into(),
            ]
        }
        _ => return None,
    })
}

fn replicas(row: &Row<'_>) -> Vec<Value> {
    let (names, images) = containers(row.at("/spec/template/spec"));
    vec![
        row.name(),
        row.number("/spec/replicas").into(),
        row.number("/status/replicas").into(),
        row.number("/status/readyReplicas").into(),
        row.age(),
        names,
        images,
    ]
}

fn condition_true<'a>(row: &Row<'a>, kind: &str) -> Option<&'a Value> {
    row.items("/status/conditions")
        .find(|c| text(c, "type") == kind && text(c, "status") == "True")
}

fn job(row: &Row<'_>) -> Vec<Value> {
    let status = if condition_true(row, "Complete").is_some() {
        "Complete"
    } else if condition_true(row, "Failed").is_some() {
        "Failed"
    } else if !row.at("/metadata/deletionTimestamp").is_null() {
        "Terminating"
    } else if condition_true(row, "Suspended").is_some() {
        "Suspended"
    } else if condition_true(row, "FailureTarget").is_some() {
        "FailureTarget"
    } else if condition_true(row, "SuccessCriteriaMet").is_some() {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let succeeded = row.number("/status/succeeded");
    let parallelism = row.number("/spec/parallelism");
    let completions = match row.at("/spec/completions").as_i64() {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let time = |pointer: &str| row.text(pointer).parse::<jiff::Timestamp>().ok();
    let duration = time("/status/startTime").map_or(String::new(), |start| {
        let end = time("/status/completionTime").unwrap_or(row.now);
        super::human_duration(end.as_second() - start.as_second())
    });
    let (names, images) = containers(row.at("/spec/template/spec"));
    vec![
        row.name(),
        status.into(),
        completions.into(),
        duration.into(),
        row.age(),
        names,
        images,
        selector_text(row.at("/spec/selector")).into(),
    ]
}

/// Why a container is not running, if it is not.
fn trouble(container: &Value) -> Option<String> {
    let state = &container["state"];
    let waiting = text(&state["waiting"], "reason");
    if !waiting.is_empty() {
        return Some(waiting.to_owned());
    }
    let ended = &state["terminated"];
    if ended.is_null() {
        return None;
    }
    let reason = text(ended, "reason");
    Some(if !reason.is_empty() {
        reason.to_owned()
    } else if ended["signal"].as_i64().unwrap_or(0) != 0 {
        format!("Signal:{}", ended["signal"])
    } else {
        format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0))
    })
}

/// What a row counts of a pod's containers, and says of them all.
#[derive(Default)]
struct Counted<'a> {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    /// When the last of those that were started again had ended.
    last: Option<&'a str>,
}

impl<'a> Counted<'a> {
    fn restarted(&mut self, container: &'a Value) {
        self.restarts += container["restartCount"].as_i64().unwrap_or(0);
        let ended = container["lastState"]["terminated"]["finishedAt"].as_str();
        self.last = self.last.max(ended);
    }
}

/// A pod's containers, with its status in one word: from the first init container that is not done to the containers' own
/// trouble. Init containers that go on beside the others count as such, and until they are all done, theirs are the restarts
/// that are told.
fn counted<'a>(row: &Row<'a>) -> Counted<'a> {
    let mut reason = row.text("/status/phase").to_owned();
    if !row.text("/status/reason").is_empty() {
        row.text("/status/reason").clone_into(&mut reason);
    }
    if row
        .items("/status/conditions")
        .any(|c| text(c, "reason") == "SchedulingGated")
    {
        "SchedulingGated".clone_into(&mut reason);
    }
    let init = || row.items("/spec/initContainers");
    let goes_on = |c: &Value| text(c, "restartPolicy") == "Always";
    let total = row.items("/spec/containers").count() + init().filter(|c| goes_on(c)).count();
    let mut all = Counted {
        total,
        ..Counted::default()
    };
    let mut sidecars = Counted::default();
    let mut initializing = false;
    for (i, container) in row.items("/status/initContainerStatuses").enumerate() {
        all.restarted(container);
        let sidecar = init().any(|c| c["name"] == container["name"] && goes_on(c));
        if sidecar {
            sidecars.restarted(container);
        }
        if container["state"]["terminated"]["exitCode"] == json!(0) {
            continue;
        }
        if sidecar && container["started"] == json!(true) {
            all.ready += usize::from(container["ready"] == json!(true));
            continue;
        }
        initializing = true;
        reason = match trouble(container) {
            Some(why) if why != "PodInitializing" => format!("Init:{why}"),
            _ => format!("Init:{i}/{}", init().count()),
        };
        break;
    }
    if !initializing || condition_true(row, "Initialized").is_some() {
        (all.restarts, all.last) = (sidecars.restarts, sidecars.last);
        let mut running = false;
        let statuses: Vec<&Value> = row.items("/status/containerStatuses").collect();
        for container in statuses.into_iter().rev() {
            all.restarted(container);
            if let Some(why) = trouble(container) {
                reason = why;
            } else if container["ready"] == json!(true) && !container["state"]["running"].is_null() {
                running = true;
                all.ready += 1;
            }
        }
        if reason == "Completed" && running {
            let ready = condition_true(row, "Ready").is_some();
            (if ready { "Running" } else { "NotReady" }).clone_into(&mut reason);
        }
    }
    if !row.at("/metadata/deletionTimestamp").is_null() {
        if row.text("/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(row.text("/status/phase"), "Failed" | "Succeeded") {
            "Terminating".clone_into(&mut reason);
        }
    }
    all.reason = reason;
    all
}

fn pod(row: &Row<'_>) -> Vec<Value> {
    let counted = counted(row);
    let last = counted.last.filter(|_| counted.restarts > 0);
    let restarts = match last.map(|t| super::since(t, row.now)) {
        Some(Value::String(ago)) => format!("{} ({ago} ago)", counted.restarts),
        _ => counted.restarts.to_string(),
    };
    let gates = row.items("/spec/readinessGates").count();
    let open = row
        .items("/spec/readinessGates")
        .filter(|g| condition_true(row, text(g, "conditionType")).is_some())
        .count();
    let gates = if gates == 0 {
        NONE.to_owned()
    } else {
        format!("{open}/{gates}")
    };
    vec![
        row.name(),
        format!("{}/{}", counted.ready, counted.total).into(),
        if counted.reason.is_empty() {
            UNKNOWN.into()
        } else {
            counted.reason.into()
        },
        restarts.into(),
        row.age(),
        row.text_or("/status/podIP", NONE),
        row.text_or("/spec/nodeName", NONE),
        row.text_or("/status/nominatedNodeName", NONE),
        gates.into(),
    ]
}
