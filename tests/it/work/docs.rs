//! docs/work.md and docs/replicaset.md: every example on a page, from top to bottom, against one fleet.
//!
//! The info string of a fenced block says what to do with it: `apply`, `edit`, `status`, `delete`, `expect`, `gone` or `refuse`, at the
//! `hub` or on the `cluster`. What is expected must come to be; it may have more than the block says. What is refused is
//! applied in vain, and the answer has the words of the block's first line, a comment. From a block with `hub=away` on the
//! klusterlet can not reach its hub, from one with `hub=back` on it can.

use crate::Result;
use anyhow::Context as _;
use muster_hub::Feature;
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube};
use serde_json::Value;

/// One block: what to do where, with which objects, and its line on the page.
struct Block {
    line: usize,
    action: String,
    side: String,
    /// Whether the hub goes away before it, or comes back.
    hub: Option<bool>,
    /// What the server says to it, where it refuses.
    words: String,
    objects: Vec<Value>,
}

fn blocks(page: &str) -> anyhow::Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((line, text)) = lines.next() {
        let Some(info) = text.strip_prefix("```") else {
            continue;
        };
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, text)| text)
            .take_while(|text| *text != "```")
            .collect();
        let Some((action, side)) = info
            .split_whitespace()
            .nth(1)
            .and_then(|word| word.split_once('='))
        else {
            continue;
        };
        let objects = body
            .join("\n")
            .split("\n---\n")
            .map(|text| {
                serde_saphyr::from_str(text).with_context(|| format!("the block at line {}", line + 1))
            })
            .collect::<anyhow::Result<_>>()?;
        let hub = match info.split_whitespace().nth(2) {
            None => None,
            Some("hub=away") => Some(false),
            Some("hub=back") => Some(true),
            Some(other) => anyhow::bail!("line {}: what is {other:?}?", line + 1),
        };
        let comment = body.first().and_then(|first| first.strip_prefix("# "));
        blocks.push(Block {
            line: line + 1,
            hub,
            words: comment.unwrap_or_default().to_owned(),
            action: action.to_owned(),
            side: side.to_owned(),
            objects,
        });
    }
    Ok(blocks)
}

/// Where an object is, from what the server says it serves.
async fn path_of(kube: &Kube, object: &Value) -> anyhow::Result<String> {
    let version = object["apiVersion"].as_str().context("an apiVersion")?;
    let root = if version.contains('/') {
        format!("/apis/{version}")
    } else {
        format!("/api/{version}")
    };
    let served = kube.get(&root).await?;
    let list = served["resources"].as_array().into_iter().flatten();
    let resource = list
        .clone()
        .find(|r| r["kind"] == object["kind"] && !r["name"].as_str().unwrap_or_default().contains('/'))
        .with_context(|| format!("{} is not served", object["kind"]))?;
    let plural = resource["name"].as_str().context("a name")?;
    let name = object["metadata"]["name"]
        .as_str()
        .context("an object has a name")?;
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("{root}/{plural}/{name}"),
    })
}

/// Says what of `wanted` is not in `found`. Each item of a list must be covered by one there.
fn missing(found: &Value, wanted: &Value) -> Option<String> {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().find_map(|(key, wanted)| {
            missing(found.get(key).unwrap_or(&Value::Null), wanted).map(|m| format!("{key}.{m}"))
        }),
        (Value::Array(found), Value::Array(wanted)) => {
            let lacks = |w: &&Value| !found.iter().any(|f| missing(f, w).is_none());
            wanted
                .iter()
                .find(lacks)
                .map(|w| format!("{w} is not among {found:?}"))
        }
        (found, wanted) => (found != wanted).then(|| format!(" is {found}, not {wanted}")),
    }
}

async fn play(block: &Block, kube: &Kube) -> Result {
    for object in &block.objects {
        let path = path_of(kube, object).await?;
        match block.action.as_str() {
            "apply" => drop(kube.apply(&path, "reader", true, object).await?),
            "edit" => {
                kube.until_there(&path, SOON).await?;
                kube.merge(&format!("{path}?fieldManager=somebody"), object)
                    .await?;
            }
            "status" => drop(kube.merge(&format!("{path}/status"), object).await?),
            "delete" => drop(kube.delete(&path).await?),
            "refuse" => match kube.apply(&path, "reader", true, object).await {
                Err(refused) if !block.words.is_empty() && refused.message.contains(&block.words) => {}
                other => anyhow::bail!("it is not refused with {:?}: {other:?}", block.words),
            },
            "gone" => kube.until_gone(&path, SOON).await?,
            "expect" => {
                // The path says which kind it is; items of a list do not.
                let mut wanted = object.clone();
                if let Some(wanted) = wanted.as_object_mut() {
                    wanted.retain(|field, _| field != "apiVersion" && field != "kind");
                }
                kube.until(&path, SOON, "it is as the page says", |found| {
                    missing(found.ok_or("it is not there")?, &wanted).map_or(Ok(()), Err)
                })
                .await?;
            }
            other => anyhow::bail!("{other:?} is nothing to do with a block"),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_does_what_the_page_says() -> Result {
    read("work.md", Fleet::joined(1).await?, 10).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_replica_sets_does_what_the_page_says() -> Result {
    let fleet = Fleet::start(FleetOptions {
        gates: vec![Feature::ManifestWorkReplicaSet],
        ..FleetOptions::default()
    })
    .await?;
    fleet.until_available().await?;
    for crd in ["manifestworkreplicasets.work", "placementdecisions.cluster"] {
        let crd = format!("{crd}.open-cluster-management.io");
        fleet.hub.plane.until_served(&crd).await?;
    }
    read("replicaset.md", fleet, 3).await
}

/// Does what a page says, which has at least so many blocks; then takes away what it made at the hub.
async fn read(page: &str, fleet: Fleet, at_least: usize) -> Result {
    let path = format!("{}/../docs/{page}", env!("CARGO_MANIFEST_DIR"));
    let cluster = &fleet.clusters[0];
    let text = std::fs::read_to_string(path)?.replace("cluster1", &cluster.name);
    let blocks = blocks(&text)?;
    anyhow::ensure!(
        blocks.len() >= at_least,
        "only {} blocks were found",
        blocks.len()
    );
    let (hub, spoke) = (fleet.kube(), cluster.kube());
    let mut made = Vec::new();
    for block in &blocks {
        let kube = match block.side.as_str() {
            "hub" => &hub,
            "cluster" => &spoke,
            other => anyhow::bail!("line {}: {other:?} is no side", block.line),
        };
        match block.hub {
            Some(true) => cluster.link.heal()?,
            Some(false) => cluster.link.cut().await?,
            None => {}
        }
        play(block, kube)
            .await
            .with_context(|| format!("docs/{page}, line {}", block.line))?;
        for object in block
            .objects
            .iter()
            .filter(|_| block.action == "apply" && block.side == "hub")
        {
            made.push(path_of(&hub, object).await?);
        }
    }
    for path in made.iter().rev() {
        if hub.find(path).await?.is_some() {
            hub.delete(path).await?;
            hub.until_gone(path, SOON).await?;
        }
    }
    Ok(())
}
