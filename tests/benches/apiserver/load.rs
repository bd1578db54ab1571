//! What clients do to the server.

use crate::common::Times;
use crate::common::client::{Lines, Target};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// A ConfigMap with 1 KB of data.
pub fn configmap(name: &str) -> Bytes {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": "x".repeat(1024)}})
        .to_string()
        .into()
}

async fn namespace(target: &Target, name: &str) -> Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    target
        .connect()
        .await?
        .post("/api/v1/namespaces", body.to_string())
        .await?;
    Ok(())
}

fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// Creates one after another; how long each took.
pub async fn create_one_by_one(target: &Target, space: &str, count: usize) -> Result<Vec<Duration>> {
    namespace(target, space).await?;
    let mut connection = target.connect().await?;
    let mut times = Vec::new();
    for n in 0..count {
        let start = Instant::now();
        connection
            .post(&collection(space), configmap(&format!("c{n}")))
            .await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// Runs `clients` workers, each with a connection of its own and the numbers that are its; requests a second.
async fn spread<F, W>(target: &Target, clients: usize, count: usize, work: F) -> Result<f64>
where
    F: Fn(crate::common::client::Connection, std::ops::Range<usize>) -> W,
    W: Future<Output = Result<()>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(target.connect().await?);
    }
    let start = Instant::now();
    for (n, connection) in connections.into_iter().enumerate() {
        let part = count * n / clients..count * (n + 1) / clients;
        tasks.spawn(work(connection, part));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    #[allow(clippy::cast_precision_loss)] // a rate
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Creates in parallel; creates a second.
pub async fn create_many(target: &Target, space: &str, count: usize, clients: usize) -> Result<f64> {
    namespace(target, space).await?;
    let path = collection(space);
    spread(target, clients, count, |mut connection, part| {
        let path = path.clone();
        async move {
            for n in part {
                connection.post(&path, configmap(&format!("c{n}"))).await?;
            }
            Ok(())
        }
    })
    .await
}

/// Updates objects made by [`create_many`], in turn; updates a second.
pub async fn update_many(
    target: &Target,
    space: &str,
    objects: usize,
    count: usize,
    clients: usize,
) -> Result<f64> {
    let path = collection(space);
    let round = rand::random::<u32>();
    spread(target, clients, count, |mut connection, part| {
        let path = path.clone();
        async move {
            for n in part {
                let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{}", n % objects)},
                    "data": {"text": "x".repeat(1024), "n": format!("{round}-{n}")}});
                let path = format!("{path}/c{}", n % objects);
                connection
                    .request(Method::PUT, &path, body.to_string().into())
                    .await?;
            }
            Ok(())
        }
    })
    .await
}

/// Gets of one object in parallel for a time; gets a second.
pub async fn get_many(target: &Target, clients: usize, time: Duration) -> Result<f64> {
    create_many(target, "get", 100, 4).await?;
    let done = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for n in 0..clients {
        let mut connection = target.connect().await?;
        let (done, stop) = (done.clone(), stop.clone());
        let path = format!("{}/c{}", collection("get"), n % 100);
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                connection.get(&path).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    let start = Instant::now();
    let before = done.load(Ordering::Relaxed);
    tokio::time::sleep(time).await;
    let count = done.load(Ordering::Relaxed) - before;
    let elapsed = start.elapsed();
    stop.store(true, Ordering::Relaxed);
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    #[allow(clippy::cast_precision_loss)] // a rate
    Ok(count as f64 / elapsed.as_secs_f64())
}

/// How long events took.
pub struct Latency {
    /// Since the write was sent.
    pub sent: Times,
    /// Since the writer had its answer.
    pub answered: Times,
}

/// Writes at a steady rate and sees when their events come.
pub async fn latency(target: &Target, rate: usize, time: Duration) -> Result<Latency> {
    const CLIENTS: usize = 16;
    namespace(target, "latency").await?;
    let count = rate * usize::try_from(time.as_secs())?;
    let mut watch = Lines::new(
        target
            .connect2()
            .await?
            .open(&format!("{}?watch=1&resourceVersion=0", collection("latency")))
            .await?,
    );
    let seen = tokio::spawn(async move {
        let mut seen = HashMap::with_capacity(count);
        while seen.len() < count {
            let line = watch.next().await?.context("the watch ended")?;
            let now = Instant::now();
            let text = String::from_utf8_lossy(&line);
            // The name comes after the managed fields; parsing every event would be what is measured.
            // Every namespace has one more ConfigMap, with the CA.
            let Some(at) = text.find("\"name\":\"c") else {
                continue;
            };
            let name: String = text[at + 9..].chars().take_while(char::is_ascii_digit).collect();
            if let Ok(n) = name.parse::<usize>() {
                seen.entry(n).or_insert(now);
            }
        }
        anyhow::Ok(seen)
    });
    let (hand, mut numbers) = (Arc::new(Semaphore::new(0)), JoinSet::new());
    let next = Arc::new(AtomicUsize::new(0));
    let (report, mut reports) = mpsc::unbounded_channel();
    for _ in 0..CLIENTS {
        let mut connection = target.connect().await?;
        let (hand, next, report) = (hand.clone(), next.clone(), report.clone());
        numbers.spawn(async move {
            loop {
                let Ok(permit) = hand.acquire().await else {
                    return anyhow::Ok(());
                };
                permit.forget();
                let n = next.fetch_add(1, Ordering::Relaxed);
                let sent = Instant::now();
                connection
                    .post(&collection("latency"), configmap(&format!("c{n}")))
                    .await?;
                let _ = report.send((n, sent, Instant::now()));
            }
        });
    }
    drop(report);
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut given = 0;
    while given < count {
        tick.tick().await;
        let more = (rate / 200).max(1).min(count - given);
        hand.add_permits(more);
        given += more;
    }
    let mut writes = Vec::with_capacity(count);
    while writes.len() < count {
        writes.push(reports.recv().await.context("a writer ended")?);
    }
    hand.close();
    while let Some(task) = numbers.join_next().await {
        task??;
    }
    let seen = seen.await??;
    let since = |pick: fn(&(usize, Instant, Instant)) -> Instant| -> Result<Times> {
        let times = writes.iter().map(|write| {
            let seen = seen.get(&write.0).context("an event is missing")?;
            Ok(seen.saturating_duration_since(pick(write)))
        });
        Ok(Times::new(times.collect::<Result<_>>()?))
    };
    Ok(Latency {
        sent: since(|w| w.1)?,
        answered: since(|w| w.2)?,
    })
}

/// Many idle watches.
pub struct Watching {
    tasks: JoinSet<Result<()>>,
    events: mpsc::UnboundedReceiver<Instant>,
    count: usize,
}

impl Watching {
    /// Opens `each` watches on each of so many connections.
    pub async fn start(target: &Target, connections: usize, each: usize) -> Result<Self> {
        namespace(target, "watched").await?;
        let version = target
            .connect()
            .await?
            .value(&format!("{}?limit=1", collection("watched")))
            .await?;
        let version = version["metadata"]["resourceVersion"]
            .as_str()
            .context("a list has a resourceVersion")?
            .to_owned();
        let path = format!("{}?watch=1&resourceVersion={version}", collection("watched"));
        let (tell, events) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let mut connection = target.connect2().await?;
            for _ in 0..each {
                let body = connection.open(&path).await?;
                tasks.spawn(follow(body, tell.clone()));
            }
            // Held by its streams.
            drop(connection);
        }
        Ok(Self {
            tasks,
            events,
            count: connections * each,
        })
    }

    /// Makes so many events, one after another; from each write's beginning until all watches have it.
    pub async fn events(mut self, target: &Target, rounds: usize) -> Result<Times> {
        let mut connection = target.connect().await?;
        let mut times = Vec::new();
        for n in 0..rounds {
            let start = Instant::now();
            connection
                .post(&collection("watched"), configmap(&format!("c{n}")))
                .await?;
            let mut last = start;
            for _ in 0..self.count {
                let next = tokio::time::timeout(Duration::from_secs(30), self.events.recv()).await;
                last = last.max(next.context("an event does not come")?.context("watches ended")?);
            }
            times.push(last - start);
        }
        self.tasks.shutdown().await;
        Ok(Times::new(times))
    }
}

async fn follow(mut body: Incoming, tell: mpsc::UnboundedSender<Instant>) -> Result<()> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data()
            && data.ends_with(b"\n")
        {
            let _ = tell.send(Instant::now());
        }
    }
    Ok(())
}
