//! Whole agents: from the start of a klusterlet until the hub says that its cluster is available, for one cluster and for many
//! that come at once. The agents run in this process, and share one managed cluster, with a namespace each; the hub is a process
//! of its own.

use crate::common::process::{Server, mb};
use crate::common::requests::Requests;
use crate::common::{Table, Times, ms};
use crate::{Events, Hub};
use anyhow::{Context as _, Result};
use muster_klusterlet::Options;
use muster_tests::Program;
use muster_tests::objects::CLUSTERS;
use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn options(hub: &Hub, spoke: &Server, dir: &Path, name: &str) -> Result<Options> {
    let show = |path: &Path| path.display().to_string();
    let flags = [
        format!("--cluster-name={name}"),
        format!("--namespace=agent-{name}"),
        format!("--bootstrap-kubeconfig={}", show(&hub.bootstrap)),
        format!("--spoke-kubeconfig={}", show(&spoke.kubeconfig)),
        format!("--hub-kubeconfig-dir={}", show(&dir.join(name))),
    ];
    Ok(Options::from_flags(flags)?)
}

/// `count` agents at once.
pub async fn measure(table: &Table, program: &Program, hub: &Hub, count: usize) -> Result<()> {
    let spoke = Server::start(program, None).await?;
    let dir = tempfile::TempDir::with_prefix("muster-bench-agents-")?;
    let mut events = Events::of(&hub.admin, CLUSTERS).await?;
    let (before, computed) = (hub.memory()?, hub.computed()?);
    let refused = Requests::refused(&hub.admin).await?;
    let stop = CancellationToken::new();
    let mut agents = JoinSet::new();
    let mut started = HashMap::new();
    let begun = Instant::now();
    for n in 0..count {
        let name = format!("cluster{n}");
        let options = options(hub, &spoke, dir.path(), &name)?;
        started.insert(name, Instant::now());
        agents.spawn(muster_klusterlet::run(options, stop.clone()));
    }
    let mut times = Vec::new();
    let mut last = begun;
    while !started.is_empty() {
        let mut found = String::new();
        let available = events.until("all are available", |_, cluster| {
            let name = cluster["metadata"]["name"].as_str().unwrap_or_default();
            let news =
                started.contains_key(name) && crate::is_true(cluster, "ManagedClusterConditionAvailable");
            if news {
                name.clone_into(&mut found);
            }
            news
        });
        let at = tokio::select! {
            at = available => at?,
            Some(ended) = agents.join_next() => anyhow::bail!("a klusterlet ended: {:?}", ended?.err()),
        };
        let start = started.remove(&found).context("it was started")?;
        times.push(at - start);
        last = last.max(at);
    }
    let took = last - begun;
    let after = hub.memory()?;
    let computed = hub.computed()?.saturating_sub(computed);
    let target = if count == 1 { "300 ms" } else { "" };
    let times = Times::new(times);
    table.row(
        &format!("{count} at once: start -> Available, p50 / p99"),
        &times.show(),
        target,
    );
    let refused = Requests::refused(&hub.admin).await? - refused;
    table.row("  requests refused for want of rights", &refused.to_string(), "0");
    if count > 1 {
        #[allow(clippy::cast_precision_loss)] // one digit is shown
        let rate = count as f64 / took.as_secs_f64();
        table.row(
            "  all of them; clusters per second",
            &format!("{}; {rate:.1}", ms(took)),
            "",
        );
        let each_computed = crate::register::each(computed, count);
        table.row("  the hub computed; a cluster", &each_computed, "");
        let each = after.resident.saturating_sub(before.resident) / count as u64;
        table.row(
            "  hub's memory with them; per cluster",
            &format!("{}; {} kB", mb(after.resident), each / 1000),
            "",
        );
    }
    stop.cancel();
    while agents.join_next().await.is_some() {}
    Ok(())
}
