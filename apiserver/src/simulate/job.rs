//! Jobs: as many pods as are to complete, and they do.

use super::pod;
pub use crate::controllers::kinds::JOBS;
use crate::controllers::plan::{Action, Plan, is_true, set_condition};
use crate::object;
use crate::rest::rfc3339;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The next step of a Job.
pub fn decide(job: &Value, pods: &[Value], nodes: usize, now: Timestamp) -> Plan {
    if is_true(job, "Complete") || is_true(job, "Failed") {
        return Plan::default();
    }
    let now = rfc3339(now);
    let mut new = job.clone();
    if job["spec"]["suspend"] == true {
        set_condition(
            &mut new,
            "Suspended",
            "True",
            "JobSuspended",
            "Job suspended",
            &now,
        );
        let doomed = pods
            .iter()
            .filter(|p| pod::is_active(p))
            .map(|p| Action::delete("/pods", p, None));
        let changed = (new != *job).then(|| Action::status(JOBS, new.clone()));
        return Plan::of(doomed.chain(changed));
    }
    let parallel = job["spec"]["parallelism"].as_i64().unwrap_or(1);
    let completions = job["spec"]["completions"].as_i64().unwrap_or(parallel);
    let template = &job["spec"]["template"];
    let (name, uid) = (object::name(job), object::uid(job));
    let indexed = job["spec"]["completionMode"] == "Indexed";
    let running = pods.iter().filter(|p| pod::is_active(p)).count();
    let free = usize::try_from(parallel).unwrap_or(0).saturating_sub(running);
    // Done pods count even if they are being removed; those still to come, as many as may run at once.
    let missing = (0..completions)
        .map(|i| {
            (
                i,
                format!("{name}-{}", pod::letters(pod::hash(&format!("{uid}/{i}")), 5)),
            )
        })
        .filter(|(_, name)| !pods.iter().any(|p| object::name(p) == name));
    let actions: Vec<Action> = missing
        .take(free)
        .map(|(index, name)| {
            let index = index.to_string();
            let labels = [("batch.kubernetes.io/job-completion-index", index.as_str())];
            let labels = if indexed { &labels[..] } else { &[] };
            let mut pod = pod::from_template(job, template, &name, &pod::node_for(&name, nodes), labels);
            if indexed {
                object::child_mut(&mut pod["metadata"], "annotations").insert(
                    "batch.kubernetes.io/job-completion-index".to_owned(),
                    index.as_str().into(),
                );
            }
            Action::create("/pods", pod)
        })
        .collect();
    let succeeded = pods
        .iter()
        .filter(|p| p["status"]["phase"] == "Succeeded")
        .count();
    if !actions.is_empty() || (running > 0 && succeeded < usize::try_from(completions).unwrap_or(0)) {
        return Plan::of(actions);
    }
    if !new["status"]["startTime"].is_string() {
        object::child_mut(&mut new, "status").insert("startTime".into(), now.as_str().into());
    }
    if is_true(&new, "Suspended") {
        set_condition(&mut new, "Suspended", "False", "JobResumed", "Job resumed", &now);
    }
    let fields = [
        ("succeeded", json!(succeeded)),
        ("ready", 0.into()),
        ("terminating", 0.into()),
        ("uncountedTerminatedPods", json!({})),
    ];
    pod::set_status(&mut new, &fields, &["ready", "terminating"]);
    if succeeded >= usize::try_from(completions).unwrap_or(0) {
        let message = "Reached expected number of succeeded pods";
        if indexed && completions > 0 {
            let all = if completions == 1 {
                "0".to_owned()
            } else {
                format!("0-{}", completions - 1)
            };
            object::child_mut(&mut new, "status").insert("completedIndexes".into(), all.into());
        }
        for kind in ["SuccessCriteriaMet", "Complete"] {
            set_condition(&mut new, kind, "True", "CompletionsReached", message, &now);
        }
        let status = object::child_mut(&mut new, "status");
        status.insert("completionTime".into(), now.as_str().into());
    }
    if new == *job {
        Plan::default()
    } else {
        Plan::of([Action::status(JOBS, new)])
    }
}
