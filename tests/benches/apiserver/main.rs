//! The API server's speed and size: a process of its own, over TLS, on disk.
//!
//! `cargo bench -p muster-tests --bench apiserver [-- start fill create get list watch latency endure]`. Sizes are set by
//! environment: OBJECTS (100000), CONNECTIONS (1000), WATCHES a connection (10), RATE (1000), SECONDS (5),
//! MUSTER_BENCH_PROGRAM (another build of the program), MUSTER_BENCH_DIR (where the data go). `endurance`, which takes half an
//! hour and is run only when it is named, is `endure` with 5,000,000 writes; WRITES sets another number for both.
#![allow(clippy::print_stdout)] // tables are what benches are for

#[path = "../common/mod.rs"]
mod common;
mod load;

use anyhow::Result;
use common::process::{Server, mb, program};
use common::{Table, Times, asked, fsync, ms, size, timed, wanted};
use std::path::Path;
use std::time::Duration;

fn main() -> Result<()> {
    muster_tests::control_plane::init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    let base =
        std::env::var("MUSTER_BENCH_DIR").unwrap_or_else(|_| std::env::temp_dir().display().to_string());
    let dir = tempfile::TempDir::with_prefix_in("muster-bench-", base)?;
    let table = Table::new("muster apiserver (durable, over TLS, client on the same machine)");
    table.row("one synced write of 4 KB here", &ms(fsync(dir.path())?), "");
    if wanted("start") {
        start(&table, dir.path()).await?;
    }
    if wanted("fill") {
        fill(&table, dir.path()).await?;
    }
    let program = program()?;
    let data = dir.path().join("main");
    let mut server = Server::start(&program, Some(&data)).await?;
    let target = server.target()?;
    if wanted("create") {
        let times = Times::new(load::create_one_by_one(&target, "one", 1000).await?);
        table.row("create, one client, p50 / p99", &times.show(), "p50 2 ms");
        let rate = load::create_many(&target, "many", size("CREATES", 30_000), 32).await?;
        table.row("creates, 32 clients", &format!("{rate:.0}/s"), "5,000/s");
    }
    if wanted("get") {
        let rate = load::get_many(&target, 32, seconds()).await?;
        table.row("gets, 32 clients", &format!("{rate:.0}/s"), "20,000/s");
    }
    if wanted("list") {
        load::create_many(&target, "list", 10_000, 32).await?;
        let mut connection = target.connect().await?;
        let mut times = Vec::new();
        let mut bytes = 0;
        for _ in 0..7 {
            let (list, time) = timed(connection.get("/api/v1/namespaces/list/configmaps")).await;
            bytes = list?.len() as u64;
            times.push(time);
        }
        let times = Times::new(times);
        let what = format!("list of 10,000 objects ({}), p50 / max", mb(bytes));
        table.row(&what, &times.show(), "100 ms");
    }
    if wanted("latency") {
        let rate = size("RATE", 1000);
        let times = load::latency(&target, rate, seconds()).await?;
        let what = format!("write sent -> event, at {rate} writes/s, p50 / p99");
        table.row(&what, &times.sent.show(), "");
        let what = format!("write answered -> event, at {rate} writes/s, p50 / p99");
        table.row(&what, &times.answered.show(), "p99 10 ms");
    }
    if wanted("watch") {
        let (connections, each) = (size("CONNECTIONS", 1000), size("WATCHES", 10));
        let fresh = Server::start(&program, Some(&dir.path().join("watch"))).await?;
        let before = fresh.memory()?;
        let watching = load::Watching::start(&fresh.target()?, connections, each).await?;
        let after = fresh.memory()?;
        let what = format!(
            "{} idle watches over {connections} connections",
            connections * each
        );
        table.row(&what, &after.show(), "150 MB");
        let per = after.resident.saturating_sub(before.resident) / (connections * each) as u64;
        table.row(
            "  of which a watch, its share of a connection in it",
            &format!("{per} B"),
            "",
        );
        let times = watching.events(&fresh.target()?, 5).await?;
        table.row("one event to all of them, p50 / max", &times.show(), "300 ms");
        table.row("  memory then", &fresh.memory()?.show(), "");
    }
    if wanted("endure") {
        endure(&table, &program, dir.path(), size("WRITES", 200_000)).await?;
    }
    if asked("endurance") {
        endure(&table, &program, dir.path(), size("WRITES", 5_000_000)).await?;
    }
    server.process.signal("TERM")?;
    let (ended, time) = timed(server.process.until_ended(Duration::from_secs(20))).await;
    ended?;
    table.row("SIGTERM -> ended", &ms(time), "");
    Ok(())
}

fn seconds() -> Duration {
    Duration::from_secs(size("SECONDS", 5) as u64)
}

/// Start on an empty folder.
async fn start(table: &Table, dir: &Path) -> Result<()> {
    let program = program()?;
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for n in 0..5 {
        let server = Server::start(&program, Some(&dir.join(format!("start{n}")))).await?;
        times.push(server.started_in);
        // What starting left to do is done.
        tokio::time::sleep(Duration::from_millis(500)).await;
        memory.push(server.memory()?);
    }
    table.row(
        "start to /readyz, empty, p50 / max",
        &Times::new(times).show(),
        "200 ms",
    );
    memory.sort_by_key(|m| m.resident);
    table.row("memory at start", &memory[memory.len() / 2].show(), "20 MB");
    let again = Server::start(&program, Some(&dir.join("start0"))).await?;
    table.row("start again on what is there", &ms(again.started_in), "200 ms");
    Ok(())
}

/// Many objects: what they cost, and a start with them.
async fn fill(table: &Table, dir: &Path) -> Result<()> {
    let program = program()?;
    let data = dir.join("fill");
    let count = size("OBJECTS", 100_000);
    let mut server = Server::start(&program, Some(&data)).await?;
    let before = server.memory()?;
    let rate = load::create_many(&server.target()?, "fill", count, 32).await?;
    let after = server.memory()?;
    table.row(
        &format!("{count} creates of 1 KB, 32 clients"),
        &format!("{rate:.0}/s"),
        "5,000/s",
    );
    let each = |now: u64| (now.saturating_sub(before.resident) / count as u64).saturating_sub(1024);
    let beyond = |now: u64| format!("{} B", each(now));
    table.row("memory with them", &after.show(), "");
    table.row(
        "  a stored 1 KB ConfigMap beyond its bytes",
        &beyond(after.resident),
        "2,048 B",
    );
    server.process.kill()?;
    let file = std::fs::metadata(data.join("store.redb"))?.len();
    table.row("  file", &mb(file), "");
    let mut again = Server::start(&program, Some(&data)).await?;
    let what = format!("kill -9, start to /readyz with {count} objects");
    table.row(&what, &ms(again.started_in), "3 s");
    let memory = again.memory()?;
    table.row("memory then", &memory.show(), "");
    table.row(
        "  a stored 1 KB ConfigMap beyond its bytes",
        &beyond(memory.resident),
        "2,048 B",
    );
    again.process.kill()?;
    Ok(())
}

/// Writes without end to a bounded set of objects: memory must not know how many there were.
async fn endure(table: &Table, program: &muster_tests::Program, dir: &Path, writes: usize) -> Result<()> {
    const PARTS: usize = 10;
    let data = dir.join(format!("endure{writes}"));
    let server = Server::start(program, Some(&data)).await?;
    let target = server.target()?;
    load::create_many(&target, "endure", 1000, 32).await?;
    for part in 1..=PARTS {
        let rate = load::update_many(&target, "endure", 1000, writes / PARTS, 32).await?;
        let memory = server.memory()?;
        let what = format!(
            "{} writes to 1,000 objects: memory (writes/s)",
            writes / PARTS * part
        );
        let told = format!("{} ({rate:.0}/s)", mb(memory.resident));
        table.row(&what, &told, if part == 1 { "" } else { "flat" });
    }
    let file = std::fs::metadata(data.join("store.redb"))?.len();
    table.row("  file", &mb(file), "bounded");
    Ok(())
}
