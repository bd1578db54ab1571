//! What the API server's store promises when everything goes wrong: killed in the middle of writes, or its disk full.
//!
//! `MUSTER_CRASHES=200 cargo test -p muster-tests --test it crash_store` is the long form.

use crate::Result;
use anyhow::Context as _;
use http::Method;
use muster_tests::program::Process;
use muster_tests::{Kube, Program, Seed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Writers at once. Each has objects of its own, so that it knows what they must be.
const WRITERS: usize = 8;
/// Objects of one writer.
const OBJECTS: usize = 5;

/// What a writer knows of one of its objects: numbers written to it, 0 when it is deleted.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The last number that was acknowledged.
    acknowledged: u64,
    /// A number whose write was sent and not answered.
    unanswered: Option<u64>,
}

#[derive(Debug, Default)]
struct Ledger {
    objects: BTreeMap<String, Known>,
    /// Highest revision that any answer had.
    revision: u64,
}

impl Ledger {
    fn sent(ledger: &Mutex<Self>, name: &str, number: u64) {
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.objects.entry(name.to_owned()).or_default().unanswered = Some(number);
    }

    fn answered(ledger: &Mutex<Self>, name: &str, number: u64, revision: u64) {
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.revision = ledger.revision.max(revision);
        let known = ledger.objects.entry(name.to_owned()).or_default();
        *known = Known {
            acknowledged: number,
            unanswered: None,
        };
    }
}

struct Server {
    process: Process,
    kube: Kube,
}

async fn start(program: &Program, data: &Path) -> anyhow::Result<Server> {
    let kubeconfig = program
        .home()
        .join(format!("{:08x}.kubeconfig", rand::random::<u32>()));
    let (data, file) = (data.display().to_string(), kubeconfig.display().to_string());
    let args = [
        "apiserver",
        "--bind=127.0.0.1:0",
        "--data-dir",
        &data,
        "--write-kubeconfig",
        &file,
    ];
    let mut process = program.spawn(&args)?;
    process.until_file(&kubeconfig).await?;
    let kube = Kube::from_file("the server", &kubeconfig).await?;
    Ok(Server { process, kube })
}

fn map(name: &str, number: u64) -> Value {
    // Twice, so that half a write would show.
    let text = number.to_string();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"first": text, "filler": "x".repeat(700), "second": text}})
}

fn revision(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.and_then(|t| t.parse().ok()).unwrap_or_default()
}

/// Writes to its objects until the server does not answer any more. Any other error is one.
async fn write(kube: Kube, writer: usize, numbers: Arc<Mutex<u64>>, ledger: Arc<Mutex<Ledger>>) -> Result {
    for turn in 0.. {
        let name = format!("w{writer}-{}", turn % OBJECTS);
        let path = format!("{MAPS}/{name}");
        let number = {
            let mut numbers = numbers.lock().unwrap_or_else(PoisonError::into_inner);
            *numbers += 1;
            *numbers
        };
        let there = {
            let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.objects.get(&name).is_some_and(|k| k.acknowledged > 0)
        };
        let delete = there && number.is_multiple_of(7);
        let number = if delete { 0 } else { number };
        Ledger::sent(&ledger, &name, number);
        let answer = if delete {
            kube.delete(&path).await
        } else if there {
            kube.replace(&path, &map(&name, number)).await
        } else {
            kube.create(MAPS, &map(&name, number)).await
        };
        match answer {
            // What a deletion answers is a Status without a revision.
            Ok(object) => Ledger::answered(&ledger, &name, number, revision(&object)),
            Err(refused) if refused.code == 0 => return Ok(()),
            Err(refused) => anyhow::bail!("writing {number} to {name}: {refused}"),
        }
    }
    Ok(())
}

/// Compares what is stored with what was acknowledged, and takes what is stored as known from now on.
async fn check(kube: &Kube, ledger: &Mutex<Ledger>) -> Result {
    let list = kube.get(MAPS).await?;
    let mut stored = BTreeMap::new();
    for item in list["items"].as_array().context("a list has items")? {
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        let number = item["data"]["first"].as_str();
        anyhow::ensure!(number == item["data"]["second"].as_str(), "half a write: {item}");
        if let Some(number) = number {
            stored.insert(name.to_owned(), number.parse::<u64>()?);
        }
    }
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let now = revision(&list);
    anyhow::ensure!(
        now >= ledger.revision,
        "the revision went back from {} to {now}",
        ledger.revision
    );
    ledger.revision = now;
    for (name, number) in &stored {
        anyhow::ensure!(
            ledger.objects.contains_key(name),
            "{name} = {number} was never written"
        );
    }
    for (name, known) in &mut ledger.objects {
        let number = stored.get(name).copied().unwrap_or(0);
        anyhow::ensure!(
            number == known.acknowledged || Some(number) == known.unanswered,
            "{name} is {number}, known is {known:?}"
        );
        *known = Known {
            acknowledged: number,
            unanswered: None,
        };
    }
    Ok(())
}

/// A watch from a revision of before either goes on or says that it cannot: it never leaves anything out silently.
async fn check_watch(kube: &Kube, since: u64, changed: bool) -> Result {
    let path = format!("{MAPS}?watch=1&resourceVersion={since}&timeoutSeconds=1");
    let request = http::Request::get(&path).body(Vec::new())?;
    let lines = kube.client().request_text(request).await;
    let text = match lines {
        Ok(text) => text,
        Err(kube::Error::Api(status)) if status.code == 410 => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let expired = text.lines().any(|line| {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        event["type"] == "ERROR" && event["object"]["code"] == 410
    });
    anyhow::ensure!(
        expired || !changed || text.contains("\"type\":"),
        "a watch from {since} says nothing of what happened since: {text:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_has_what_it_acknowledged() -> Result {
    let rounds = std::env::var("MUSTER_CRASHES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(8_usize);
    let mut seed = Seed::of("killed_at_any_moment_it_has_what_it_acknowledged");
    let program = Program::new(env!("CARGO_BIN_EXE_muster-under-test"))?;
    let data = program.home().join("data");
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let numbers = Arc::new(Mutex::new(0));
    let mut seen = None;
    for round in 0..rounds {
        let mut server = start(&program, &data).await?;
        check(&server.kube, &ledger)
            .await
            .with_context(|| format!("after {round} crashes"))?;
        if let Some(since) = seen {
            check_watch(&server.kube, since, true).await?;
        }
        let begun = *numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(
                server.kube.clone(),
                writer,
                numbers.clone(),
                ledger.clone(),
            ));
        }
        // What is tested is a kill at any moment: the moment is the seed's.
        tokio::time::sleep(Duration::from_millis(20) + seed.moment(Duration::from_millis(280))).await;
        server.process.kill()?;
        while let Some(writer) = writers.join_next().await {
            writer??;
        }
        let written = *numbers.lock().unwrap_or_else(PoisonError::into_inner) - begun;
        anyhow::ensure!(written > 0, "nothing was written in round {round}");
        seen = Some(ledger.lock().unwrap_or_else(PoisonError::into_inner).revision);
    }
    let server = start(&program, &data).await?;
    check(&server.kube, &ledger).await?;
    let total = *numbers.lock().unwrap_or_else(PoisonError::into_inner);
    anyhow::ensure!(total > 10 * rounds as u64, "only {total} writes were sent");
    Ok(())
}

#[tokio::test]
async fn a_full_disk_stops_writes_and_not_reads() -> Result {
    let whole = Program::new(env!("CARGO_BIN_EXE_muster-under-test"))?;
    let data = whole.home().join("data");
    let full = whole.with_little_room()?;
    let mut written = Vec::new();
    {
        let server = start(&full, &data).await?;
        let filler = "x".repeat(100_000);
        let refused = loop {
            let name = format!("m{}", written.len());
            anyhow::ensure!(written.len() < 1000, "the disk does not fill");
            let object = json!({"metadata": {"name": name}, "data": {"filler": filler, "name": name}});
            match server.kube.create(MAPS, &object).await {
                Ok(_) => written.push(name),
                Err(refused) => break refused,
            }
        };
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (500, "InternalError"),
            "{refused}"
        );
        assert!(refused.message.contains("the store cannot write"), "{refused}");
        assert!(!written.is_empty(), "not even one object fits");
        stored(&server.kube, &written).await?;
        let ready = server
            .kube
            .client()
            .request_text(http::Request::get("/livez").body(Vec::new())?)
            .await?;
        assert_eq!(ready, "ok");
    }
    let server = start(&whole, &data).await?;
    stored(&server.kube, &written).await?;
    let more = json!({"metadata": {"name": "more"}, "data": {"name": "more"}});
    server.kube.create(MAPS, &more).await?;
    Ok(())
}

/// Exactly these maps are stored, and each can be read.
async fn stored(kube: &Kube, names: &[String]) -> Result {
    let list = kube.list(MAPS).await?;
    let found = list.iter().filter(|m| m["data"]["name"].is_string()).count();
    anyhow::ensure!(found == names.len(), "{found} of {} are stored", names.len());
    for name in names {
        let map = kube.get(&format!("{MAPS}/{name}")).await?;
        anyhow::ensure!(map["data"]["name"] == name.as_str(), "{name} is {map}");
    }
    Ok(())
}

#[tokio::test]
async fn told_to_end_it_ends_with_watches_open() -> Result {
    let program = Program::new(env!("CARGO_BIN_EXE_muster-under-test"))?;
    let mut server = start(&program, &program.home().join("data")).await?;
    let kube = server.kube.clone();
    let list = kube.get(MAPS).await?;
    let path = format!("{MAPS}?watch=1&resourceVersion={}", revision(&list));
    let mut watches = JoinSet::new();
    let (open, mut opened) = tokio::sync::mpsc::channel(50);
    for _ in 0..50 {
        let (kube, path, open) = (kube.clone(), path.clone(), open.clone());
        watches.spawn(async move {
            let request = http::Request::get(&path).body(Vec::new())?;
            let stream = kube.client().request_stream(request).await?;
            open.send(()).await?;
            let mut stream = std::pin::pin!(stream);
            let mut text = Vec::new();
            futures::AsyncReadExt::read_to_end(&mut stream, &mut text).await?;
            anyhow::Ok(text)
        });
    }
    for _ in 0..50 {
        opened.recv().await.context("a watch did not open")?;
    }
    server.process.signal("TERM")?;
    let code = server.process.until_ended(Duration::from_secs(5)).await?;
    assert_eq!(code, Some(0), "{}", server.process.stderr());
    while let Some(watch) = watches.join_next().await {
        // Ended in order, not cut: the client reads the end of the stream.
        let text = watch?.context("a watch was cut")?;
        // What came before, like the CA's ConfigMap of a new namespace, came whole.
        for line in text.split_inclusive(|b| *b == b'\n') {
            let event: Value = serde_json::from_slice(line).context("an event was cut")?;
            anyhow::ensure!(event["type"] != "ERROR", "the watch ended with an error: {event}");
        }
    }
    let refused = kube.request(Method::GET, MAPS, "", None).await;
    assert!(refused.is_err(), "it still answers");
    Ok(())
}
