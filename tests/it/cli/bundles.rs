//! What is too large for one work, by the program: made, changed, shown and deleted as one.

use crate::{MUSTER, Result};
use muster_tests::objects::{self, configmap_path, namespace, work_path, works_path};
use muster_tests::program::Run;
use muster_tests::wait::SOON;
use muster_tests::{Fleet, Program};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Names and generations of a cluster's works.
async fn works(fleet: &Fleet, cluster: &str) -> anyhow::Result<BTreeMap<String, i64>> {
    let list = fleet.kube().list(&works_path(cluster)).await?;
    let one = |w: &Value| {
        (
            w["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            w["metadata"]["generation"].as_i64().unwrap_or_default(),
        )
    };
    Ok(list.iter().map(one).collect())
}

/// A ConfigMap of so many bytes.
fn large(ns: &str, name: &str, bytes: usize) -> Value {
    objects::configmap(ns, name, &"<y".repeat(bytes / 2))
}

/// A kind of its own, and an object of it, which comes first in the files and must wait for its definition.
fn gadgets(ns: &str) -> [Value; 2] {
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("gadgets.{ns}.example.com")},
        "spec": {"group": format!("{ns}.example.com"), "scope": "Namespaced",
            "names": {"kind": "Gadget", "plural": "gadgets", "singular": "gadget", "listKind": "GadgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let gadget = json!({"apiVersion": format!("{ns}.example.com/v1"), "kind": "Gadget",
        "metadata": {"name": "g", "namespace": ns}});
    [gadget, definition]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_one_work_is_several_and_handled_as_one() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, spoke) = (cluster.name.as_str(), cluster.kube());
    let ns = format!("large-{name}");
    let program = Program::new(MUSTER)?;
    let hub = fleet.hub.plane.kubeconfig().display().to_string();
    let run = async |args: &[&str]| -> anyhow::Result<Run> {
        program
            .run(&[&["work"], args, &["--cluster", name, "--kubeconfig", &hub]].concat())
            .await
    };
    let ok = async |args: &[&str]| -> anyhow::Result<String> {
        let run = run(args).await?;
        anyhow::ensure!(run.code == 0, "{args:?}: {run:?}");
        Ok(run.stdout)
    };
    let write = |objects: &[Value]| {
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        std::fs::write(program.home().join("app.yaml"), text.join("\n---\n"))
    };
    // Each is 210,000 bytes as the hub counts: `<` is six to it. Two fit into a work.
    let maps = |bytes: [usize; 5]| -> Vec<Value> {
        let maps = bytes.iter().enumerate().filter(|(_, bytes)| **bytes > 0);
        maps.map(|(index, bytes)| large(&ns, &format!("m{index}"), *bytes))
            .collect()
    };
    let first = [&gadgets(&ns)[..], &maps([60_000; 5])[..], &[namespace(&ns)][..]].concat();
    write(&first)?;
    let made = ok(&["create", "app", "-f", "app.yaml", "--wait"]).await?;
    assert_eq!(made.matches(" created").count(), 3, "{made}");
    let before = works(&fleet, name).await?;
    assert_eq!(before.keys().collect::<Vec<_>>(), ["app", "app-2", "app-3"]);
    spoke.get(&configmap_path(&ns, "m3")).await?;
    spoke
        .get(&format!("/apis/{ns}.example.com/v1/namespaces/{ns}/gadgets/g"))
        .await?;
    let of_first = fleet.kube().get(&work_path(name, "app")).await?;
    let kinds: Vec<_> = of_first["spec"]["workload"]["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|m| m["kind"].as_str())
        .collect();
    assert_eq!(kinds[..2], ["CustomResourceDefinition", "Namespace"]);

    // It is shown as one.
    let row = ok(&["get", "-o", "table"]).await?;
    assert!(
        row.lines().count() == 2 && row.contains("app    True      True        8"),
        "{row}"
    );
    let status = ok(&["status", "app"]).await?;
    for part in ["app-3", "m3", "Gadget"] {
        assert!(status.contains(part), "{part} is not in {status}");
    }
    let json: Value = serde_json::from_str(&ok(&["status", "app", "-o", "json"]).await?)?;
    assert_eq!(json["items"].as_array().map(Vec::len), Some(3));
    let diff = run(&["diff", "app"]).await?;
    assert!(diff.code == 0 && diff.stdout.contains("8 unchanged"), "{diff:?}");
    let part = run(&["delete", "app-2"]).await?;
    assert!(
        part.code == 1 && part.stderr.contains("part 2 of the bundle"),
        "{part:?}"
    );

    // A change touches only what it is about.
    let uid = spoke.get(&configmap_path(&ns, "m0")).await?["metadata"]["uid"].clone();
    assert!(
        ok(&["apply", "app", "-f", "app.yaml"])
            .await?
            .matches("unchanged")
            .count()
            == 3
    );
    write(
        &[
            &gadgets(&ns)[..],
            &maps([60_000, 60_000, 60_000, 59_000, 60_000]),
            &[namespace(&ns)],
        ]
        .concat(),
    )?;
    let changed = ok(&["apply", "app", "-f", "app.yaml", "--wait"]).await?;
    assert_eq!(changed.matches("configured").count(), 1, "{changed}");
    let now = works(&fleet, name).await?;
    assert_eq!(
        now.iter().filter(|(work, g)| before[*work] != **g).count(),
        1,
        "{now:?}"
    );

    // What grows out of its work comes into another without being deleted on the way.
    write(
        &[
            &gadgets(&ns)[..],
            &maps([90_000, 60_000, 60_000, 59_000, 60_000]),
            &[namespace(&ns)],
        ]
        .concat(),
    )?;
    let uids = async || -> anyhow::Result<Vec<Value>> {
        let maps = spoke.list(&format!("/api/v1/namespaces/{ns}/configmaps")).await?;
        let ours = maps
            .iter()
            .filter(|m| m["metadata"]["name"] != "kube-root-ca.crt");
        Ok(ours.map(|m| m["metadata"]["uid"].clone()).collect())
    };
    let all = uids().await?;
    ok(&["apply", "app", "-f", "app.yaml", "--wait"]).await?;
    let moved = works(&fleet, name).await?;
    let differ = moved.iter().filter(|(work, g)| now[*work] != **g).count();
    assert_eq!(differ, 2, "one gives and one takes: {moved:?}");
    assert_eq!(uids().await?, all, "an object was made anew");
    assert!(all.contains(&uid));

    // Works that are no longer needed go, with what is no longer wanted.
    write(&[&maps([0, 60_000, 0, 0, 0])[..], &[namespace(&ns)]].concat())?;
    let shrunk = ok(&["apply", "app", "-f", "app.yaml", "--wait"]).await?;
    assert!(shrunk.contains(" deleted"), "{shrunk}");
    spoke.until_gone(&configmap_path(&ns, "m3"), SOON).await?;
    spoke.get(&configmap_path(&ns, "m1")).await?;

    let gone = ok(&["delete", "app", "--wait"]).await?;
    assert!(gone.contains("app deleted"), "{gone}");
    assert!(works(&fleet, name).await?.is_empty());
    spoke.until_gone(&format!("/api/v1/namespaces/{ns}"), SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn works_are_applied_and_watched() -> Result {
    let fleet = Fleet::joined(1).await?;
    let cluster = &fleet.clusters[0];
    let (name, ns) = (cluster.name.as_str(), cluster.namespace());
    let program = Program::new(MUSTER)?;
    let hub = fleet.hub.plane.kubeconfig().display().to_string();
    let ok = async |args: &[&str]| -> anyhow::Result<String> {
        let run = program.run(&[args, &["--kubeconfig", &hub]].concat()).await?;
        anyhow::ensure!(run.code == 0, "{args:?}: {run:?}");
        Ok(run.stdout)
    };
    let mut watch = program.spawn(&["get", "works", "-w", "--cluster", name, "--kubeconfig", &hub])?;
    let folder = program.home().join("app/more");
    std::fs::create_dir_all(&folder)?;
    let write = |value: &str| {
        std::fs::write(
            folder.join("a.json"),
            objects::configmap(&ns, "a", value).to_string(),
        )
    };
    let apply = ["work", "apply", "app", "--cluster", name, "-R", "-f", "app"];
    write("1")?;
    let dry = ok(&[&apply[..], &["--dry-run=server", "-o", "name"]].concat()).await?;
    assert_eq!(dry, "manifestwork.work.open-cluster-management.io/app\n");
    assert!(works(&fleet, name).await?.is_empty(), "a dry run made a work");
    for (value, word) in [("1", "created"), ("1", "unchanged"), ("2", "configured")] {
        write(value)?;
        let said = ok(&[&apply[..], &["--wait"]].concat()).await?;
        assert_eq!(
            said,
            format!("manifestwork.work.open-cluster-management.io/app {word}\n")
        );
    }
    let map = cluster.kube().get(&configmap_path(&ns, "a")).await?;
    assert_eq!(map["data"]["value"], "2");
    muster_tests::eventually(SOON, "the watch shows that the work is applied", || {
        let shown = watch.stdout();
        let there = shown
            .lines()
            .any(|l| l.starts_with("app ") && l.contains("True      True"));
        std::future::ready(if there { Ok(()) } else { Err(shown) })
    })
    .await?;
    watch.signal("TERM")?;
    watch.until_ended(SOON).await?;

    // The shell asks for names, and gets the hub's.
    let completed = async |words: &[&str]| -> anyhow::Result<String> {
        let shell = ["COMPLETE=fish", MUSTER, "--", "muster", "--kubeconfig", &hub];
        let run = Program::other("/usr/bin/env".as_ref(), &[&shell[..], words].concat()).await?;
        anyhow::ensure!(run.code == 0 && run.stderr.is_empty(), "{words:?}: {run:?}");
        Ok(run.stdout)
    };
    assert_eq!(
        completed(&["work", "status", "--cluster", &name[..name.len() - 1]])
            .await?
            .trim(),
        name
    );
    assert_eq!(
        completed(&["work", "status", "-c", name, "a"]).await?.trim(),
        "app"
    );
    assert_eq!(
        completed(&["work", "status", "-c", "nowhere", "a"]).await?.trim(),
        ""
    );

    // A work that is there keeps how it is applied.
    let spec = json!({"spec": {"deleteOption": {"propagationPolicy": "Orphan"}}});
    fleet.kube().merge(&work_path(name, "app"), &spec).await?;
    write("3")?;
    ok(&apply).await?;
    let kept = fleet.kube().get(&work_path(name, "app")).await?;
    assert_eq!(kept["spec"]["deleteOption"]["propagationPolicy"], "Orphan");
    ok(&["work", "delete", "app", "--cluster", name, "--wait"]).await?;
    cluster.kube().get(&configmap_path(&ns, "a")).await?;
    Ok(())
}
