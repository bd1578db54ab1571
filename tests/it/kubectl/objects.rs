//! Objects of any kind: get, apply, diff, edit, patch, explain and what the API says of itself.

use super::{APP, Kubectl};
use crate::Result;
use muster_tests::program::Program;
use muster_tests::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_read_in_every_form() -> Result {
    let Some(kubectl) = Kubectl::start().await? else {
        return Ok(());
    };
    kubectl
        .all(&[
            ("create configmap one --from-literal=a=b", "created"),
            ("create configmap two --from-literal=a=c", "created"),
            ("create secret generic three --from-literal=a=b", "created"),
            ("label configmap one tier=front", "labeled"),
            ("annotate configmap one note=hi", "annotated"),
            ("get configmaps --chunk-size=1 -o name", "configmap/two"),
            ("get configmaps -l tier=front -o yaml", "note: hi"),
            (
                "get configmaps --field-selector metadata.name=two -o jsonpath={.items[*].data.a}",
                "c",
            ),
            ("get configmaps --sort-by=.metadata.name", "one"),
            ("get configmap,secret -A --show-labels", "tier=front"),
            ("get configmap one -o custom-columns=A:.data.a", "b"),
            ("get secret three -o go-template={{.data.a}}", "Yg=="),
            ("describe secret three", "1 bytes"),
            ("events", ""),
            ("api-versions", "apps/v1"),
            ("api-resources --namespaced=false -o name", "nodes"),
            ("api-resources --api-group=apps", "deploy"),
            ("version", "v1.36"),
            ("cluster-info", "is running at"),
            ("explain pods.spec.containers.ports", "containerPort"),
            ("explain deployment --recursive", "maxSurge"),
            (
                "explain deployment.spec.replicas --api-version=apps/v1",
                "<integer>",
            ),
            ("get --raw /readyz", "ok"),
        ])
        .await?;
    kubectl
        .refused(&["get", "configmap", "none"], "not found")
        .await?;
    kubectl
        .refused(&["get", "frobs"], "doesn't have a resource type")
        .await?;
    kubectl.refused(&["explain", "pods.frob"], "does not exist").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_what_comes() -> Result {
    let Some(kubectl) = Kubectl::start().await? else {
        return Ok(());
    };
    let admin = kubectl.program.home().join("admin").display().to_string();
    let path = kubectl.path.display().to_string();
    let watcher = Program::new(&path)?;
    let watch = watcher.spawn(&["--kubeconfig", &admin, "get", "configmaps", "-w", "-o", "name"])?;
    kubectl.ok(&["create", "configmap", "seen"]).await?;
    eventually(SOON, "the watch shows the ConfigMap", async || {
        let shown = watch.stdout();
        if shown.contains("configmap/seen") {
            Ok(())
        } else {
            Err(shown)
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_applied_and_changed() -> Result {
    let Some(kubectl) = Kubectl::start().await? else {
        return Ok(());
    };
    let app = kubectl.file("app.json", APP)?;
    let more = kubectl.file("more.json", &APP.replace("\"replicas\": 2", "\"replicas\": 3"))?;
    kubectl.ok(&["apply", "-f", &app]).await?;
    let difference = kubectl.run(&["diff", "-f", &more]).await?;
    assert!(
        difference.code == 1 && difference.stdout.contains("+  replicas: 3"),
        "{difference:?}"
    );
    assert!(kubectl.ok(&["apply", "-f", &more]).await?.contains("configured"));
    assert!(
        kubectl
            .ok(&["apply", "-f", &more, "--dry-run=server"])
            .await?
            .contains("server dry run")
    );
    // Another owner's field is not taken by accident.
    kubectl
        .ok(&["apply", "--server-side", "--force-conflicts", "-f", &app])
        .await?;
    let other = ["apply", "--server-side", "--field-manager=other", "-f", &more];
    kubectl
        .refused(&other, "conflict with \"kubectl\": .spec.replicas")
        .await?;
    kubectl.ok(&[&other[..], &["--force-conflicts"]].concat()).await?;
    assert_eq!(
        kubectl
            .ok(&["get", "-f", &app, "-o", "jsonpath={.spec.replicas}"])
            .await?,
        "3"
    );
    for (kind, patch, prints) in [
        ("strategic", r#"{"spec":{"paused":true}}"#, "patched"),
        ("merge", r#"{"spec":{"paused":false}}"#, "patched"),
        ("merge", r#"{"spec":{"paused":false}}"#, "no change"),
        (
            "json",
            r#"[{"op":"replace","path":"/spec/replicas","value":1}]"#,
            "patched",
        ),
    ] {
        let shown = kubectl
            .ok(&["patch", "deployment", "web", "--type", kind, "-p", patch])
            .await?;
        assert!(shown.contains(prints), "{kind} {patch}: {shown}");
    }
    kubectl
        .refused(
            &["patch", "deployment", "web", "-p", r#"{"spec":{"replicas":-1}}"#],
            "greater than or equal to 0",
        )
        .await?;
    kubectl
        .all(&[
            (
                "patch deployment web --subresource=scale --type=merge -p {\"spec\":{\"replicas\":4}}",
                "patched",
            ),
            ("get deployment web -o jsonpath={.spec.replicas}", "4"),
            ("label deployment web stage=test --overwrite", "labeled"),
            ("label deployment web stage-", "unlabeled"),
        ])
        .await?;
    // kubectl edit starts whatever $EDITOR names.
    let admin = kubectl.program.home().join("admin").display().to_string();
    let command = format!(
        "EDITOR='sed -i s/replicas:.4/replicas:\\ 5/' {} --kubeconfig {admin} edit deployment web",
        kubectl.path.display()
    );
    let edited = Program::other("/bin/sh".as_ref(), &["-c", &command]).await?;
    assert!(edited.code == 0 && edited.stdout.contains("edited"), "{edited:?}");
    assert!(kubectl.ok(&["replace", "-f", &app]).await?.contains("replaced"));
    kubectl.refused(&["create", "-f", &app], "AlreadyExists").await?;
    let typo = kubectl.file("typo.json", &APP.replace("\"replicas\"", "\"replica\""))?;
    kubectl
        .refused(&["replace", "-f", &typo], "unknown field \"spec.replica\"")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_wanted_is_pruned() -> Result {
    let Some(kubectl) = Kubectl::start().await? else {
        return Ok(());
    };
    let map = |name: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  labels:\n    set: x\n")
    };
    let both = format!("{}---\n{}", map("keep"), map("drop"));
    let both = kubectl.file("both.yaml", &both)?;
    let one = kubectl.file("one.yaml", &map("keep"))?;
    kubectl.ok(&["apply", "-f", &both]).await?;
    let pruned = kubectl
        .ok(&[
            "apply",
            "--prune",
            "-l",
            "set=x",
            "--prune-allowlist=core/v1/ConfigMap",
            "-f",
            &one,
        ])
        .await?;
    assert!(pruned.contains("configmap/drop pruned"), "{pruned}");
    assert_eq!(
        kubectl
            .ok(&["get", "configmaps", "-l", "set=x", "-o", "name"])
            .await?
            .trim(),
        "configmap/keep"
    );
    kubectl.ok(&["delete", "-f", &one, "--wait"]).await?;
    kubectl.refused(&["get", "configmap", "keep"], "NotFound").await
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_are_explained_and_validated() -> Result {
    let Some(kubectl) = Kubectl::start().await? else {
        return Ok(());
    };
    let crd = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
      "metadata": {"name": "cups.tea.io"},
      "spec": {"group": "tea.io", "scope": "Namespaced", "names": {"plural": "cups", "kind": "Cup", "shortNames": ["cu"]},
        "versions": [{"name": "v1", "served": true, "storage": true,
          "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
          "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"size": {"type": "integer", "minimum": 1, "description": "How much goes in"}}}}}}}]}}"#;
    let crd = kubectl.file("crd.json", crd)?;
    let cup = |size: &str| {
        format!(
            r#"{{"apiVersion": "tea.io/v1", "kind": "Cup", "metadata": {{"name": "c"}}, "spec": {{"size": {size}}}}}"#
        )
    };
    let good = kubectl.file("good.json", &cup("3"))?;
    let bad = kubectl.file("bad.json", &cup("0"))?;
    kubectl.ok(&["apply", "-f", &crd]).await?;
    kubectl
        .ok(&[
            "wait",
            "--for=condition=Established",
            "crd/cups.tea.io",
            "--timeout=60s",
        ])
        .await?;
    kubectl.ok(&["apply", "-f", &good]).await?;
    kubectl
        .all(&[
            ("get cu c", "SIZE"),
            ("explain cups.spec.size", "How much goes in"),
            ("explain cup --recursive", "size"),
            ("describe cup c", "Size:"),
            ("get crd cups.tea.io", "cups.tea.io"),
        ])
        .await?;
    kubectl
        .refused(&["apply", "-f", &bad], "should be greater than or equal to 1")
        .await?;
    kubectl
        .ok(&["delete", "crd", "cups.tea.io", "--timeout=60s"])
        .await?;
    kubectl.refused(&["get", "cups"], "NotFound").await
}

const LIST: &str = r#"
apiVersion: v1
kind: List
items:
- apiVersion: apiextensions.k8s.io/v1
  kind: CustomResourceDefinition
  metadata: {name: gadgets.x.io}
  spec:
    group: x.io
    scope: Namespaced
    names: {plural: gadgets, singular: gadget, kind: Gadget}
    versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              nullable: true
              properties:
                size: {type: integer, default: 1, minimum: 1}
                port: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}
                free: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {a: {type: string}}}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: listed}
  data: {a: b}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: listed}
  spec:
    replicas: 1
    selector: {matchLabels: {app: listed}}
    template:
      metadata: {labels: {app: listed}}
      spec:
        containers:
        - {name: c, image: "i:1", ports: [{containerPort: 80}], resources: {limits: {cpu: "1", memory: 1Gi}}}
---
apiVersion: v1
kind: ConfigMapList
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: listed-too}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_made_changed_and_deleted_as_its_items_are() -> Result {
    let Some(kubectl) = Kubectl::start().await? else {
        return Ok(());
    };
    let list = kubectl.file("list.yaml", LIST)?;
    let shown = kubectl.ok(&["create", "-f", &list]).await?;
    for created in [
        "gadgets.x.io",
        "configmap/listed",
        "deployment.apps/listed",
        "configmap/listed-too",
    ] {
        anyhow::ensure!(shown.contains(&format!("{created} created")), "{shown}");
    }
    let shown = kubectl.ok(&["apply", "-f", &list]).await?;
    anyhow::ensure!(shown.contains("deployment.apps/listed configured"), "{shown}");
    let changed = kubectl.file("changed.yaml", &LIST.replace("{a: b}", "{a: c}"))?;
    let shown = kubectl.ok(&["apply", "-f", &changed]).await?;
    anyhow::ensure!(
        shown.contains("configmap/listed configured") && shown.contains("deployment.apps/listed unchanged"),
        "{shown}"
    );
    // What is in a list is validated too, of custom kinds as of built-in ones.
    let item = |text: &str| format!("apiVersion: v1\nkind: List\nitems:\n- {text}\n");
    let wrong = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, dat: {}}";
    let wrong = kubectl.file("wrong.yaml", &item(wrong))?;
    kubectl
        .refused(&["apply", "-f", &wrong], r#"unknown field "dat""#)
        .await?;
    let custom =
        "{apiVersion: x.io/v1, kind: Gadget, metadata: {name: g}, spec: {size: 2, port: web, free: {b: 1}}}";
    let custom = kubectl.file("custom.yaml", &item(custom))?;
    kubectl
        .ok(&["wait", "crd/gadgets.x.io", "--for=condition=Established"])
        .await?;
    kubectl.ok(&["apply", "-f", &custom]).await?;
    kubectl
        .ok(&["apply", "--server-side", "--force-conflicts", "-f", &changed])
        .await?;
    kubectl.ok(&["delete", "-f", &changed]).await?;
    kubectl
        .refused(&["get", "configmap", "listed-too"], "not found")
        .await
}
