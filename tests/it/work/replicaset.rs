//! What OCM's work/manifestworkreplicaset shows (gate ManifestWorkReplicaSet), and what must go wrong well. Placements,
//! decisions and what klusterlets say are the tests' own.

use crate::Result;
use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use muster_hub::Feature;
use muster_tests::objects::{configmap, configmap_path, has_condition, namespace, work_path};
use muster_tests::wait::SOON;
use muster_tests::{Fleet, FleetOptions, Kube};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FINALIZER: &str = "work.open-cluster-management.io/manifest-work-cleanup";
const OWNER: &str = "work.open-cluster-management.io/manifestworkreplicaset";
const PLACEMENT: &str = "work.open-cluster-management.io/placementname";
const WORKS: &str = "/apis/work.open-cluster-management.io/v1/manifestworks";
const NAMESPACES: &str = "/api/v1/namespaces";
/// What a klusterlet keeps a work by until its objects are gone.
const HELD: &str = "cluster.open-cluster-management.io/manifest-work-cleanup";

/// Works by cluster.
type Works = BTreeMap<String, Value>;

/// A hub with the gate, and a namespace for replica sets.
struct Rig {
    fleet: Fleet,
    kube: Kube,
    mark: String,
    home: String,
}

impl Rig {
    async fn start() -> anyhow::Result<Self> {
        Self::with(0).await
    }

    async fn with(clusters: usize) -> anyhow::Result<Self> {
        let fleet = Fleet::start(FleetOptions {
            clusters,
            gates: vec![Feature::ManifestWorkReplicaSet],
            ..FleetOptions::default()
        })
        .await?;
        let kube = fleet.kube();
        for crd in [
            "manifestworkreplicasets.work.open-cluster-management.io",
            "placements.cluster.open-cluster-management.io",
            "placementdecisions.cluster.open-cluster-management.io",
        ] {
            fleet.hub.plane.until_served(crd).await?;
        }
        let mark = format!("{:06x}", rand::random::<u32>() & 0x00ff_ffff);
        let home = format!("sets-{mark}");
        kube.create(NAMESPACES, &namespace(&home)).await?;
        Ok(Self {
            fleet,
            kube,
            mark,
            home,
        })
    }

    /// The name of a cluster; nobody else's, also on a shared server.
    fn cluster(&self, name: &str) -> String {
        format!("{name}-{}", self.mark)
    }

    /// Namespaces of clusters.
    async fn clusters(&self, names: &[&str]) -> Result {
        for name in names {
            self.kube
                .create(NAMESPACES, &namespace(&self.cluster(name)))
                .await?;
        }
        Ok(())
    }

    /// A placement, and a decision for each of its groups.
    async fn place(&self, name: &str, groups: &[&[&str]]) -> Result {
        let root = format!(
            "/apis/cluster.open-cluster-management.io/v1beta1/namespaces/{}",
            self.home
        );
        let placement = json!({"apiVersion": "cluster.open-cluster-management.io/v1beta1", "kind": "Placement",
            "metadata": {"name": name}, "spec": {}});
        self.kube
            .ensure(&format!("{root}/placements"), &placement)
            .await?;
        for (index, clusters) in groups.iter().enumerate() {
            let decision = json!({"apiVersion": "cluster.open-cluster-management.io/v1beta1",
                "kind": "PlacementDecision",
                "metadata": {"name": format!("{name}-decision-{}", index + 1), "labels": {
                    "cluster.open-cluster-management.io/placement": name,
                    "cluster.open-cluster-management.io/decision-group-index": index.to_string(),
                    "cluster.open-cluster-management.io/decision-group-name": ""}}});
            let path = format!("{root}/placementdecisions");
            self.kube.ensure(&path, &decision).await?;
            let decisions: Vec<Value> = clusters
                .iter()
                .map(|cluster| json!({"clusterName": self.cluster(cluster), "reason": ""}))
                .collect();
            let path = format!("{path}/{name}-decision-{}/status", index + 1);
            self.kube
                .merge(&path, &json!({"status": {"decisions": decisions}}))
                .await?;
        }
        Ok(())
    }

    fn sets(&self) -> String {
        format!(
            "/apis/work.open-cluster-management.io/v1alpha1/namespaces/{}/manifestworkreplicasets",
            self.home
        )
    }

    fn set(&self, name: &str) -> String {
        format!("{}/{name}", self.sets())
    }

    /// A replica set with one ConfigMap, for placements with these strategies.
    async fn create(&self, name: &str, placements: &[(&str, Value)], value: &str) -> anyhow::Result<Value> {
        let refs: Vec<Value> = placements
            .iter()
            .map(|(placement, strategy)| match strategy {
                Value::Null => json!({"name": placement}),
                strategy => json!({"name": placement, "rolloutStrategy": strategy}),
            })
            .collect();
        let set = json!({"apiVersion": "work.open-cluster-management.io/v1alpha1", "kind": "ManifestWorkReplicaSet",
            "metadata": {"name": name, "labels": {"team": "shop"}, "annotations": {"note": "mine"}},
            "spec": {"placementRefs": refs, "manifestWorkTemplate": template(value)}});
        Ok(self.kube.create(&self.sets(), &set).await?)
    }

    /// Gives a replica set another template.
    async fn change(&self, name: &str, value: &str) -> Result {
        let patch = json!({"spec": {"manifestWorkTemplate": template(value)}});
        self.kube.merge(&self.set(name), &patch).await?;
        Ok(())
    }

    /// Waits until `check` is content with the works of a replica set, by cluster (without what makes it unique).
    async fn until_works<T>(
        &self,
        name: &str,
        what: &str,
        check: impl Fn(&Works) -> std::result::Result<T, String>,
    ) -> anyhow::Result<T> {
        let path = format!("{WORKS}?labelSelector={OWNER}%3D{}.{name}", self.home);
        let mark = format!("-{}", self.mark);
        let what = format!("{name}: {what}");
        self.kube
            .until_all(&path, SOON, &what, |objects| {
                let mut works = Works::new();
                for ((cluster, _), work) in objects {
                    let cluster = cluster.strip_suffix(&mark).unwrap_or(cluster);
                    if works.insert(cluster.to_owned(), work.clone()).is_some() {
                        return Err(format!("{cluster} has two works"));
                    }
                }
                check(&works)
            })
            .await
    }

    /// Waits until a replica set has works on just these clusters, with this value; the works.
    async fn until_on(&self, name: &str, clusters: &[&str], value: &str) -> anyhow::Result<Works> {
        let what = format!("works on {clusters:?} say {value}");
        self.until_works(name, &what, |works| {
            let found: Vec<&str> = works.keys().map(String::as_str).collect();
            if found != clusters {
                return Err(format!("there are {found:?}"));
            }
            match works.iter().find(|(_, work)| said(work) != value) {
                Some((cluster, work)) => Err(format!("{cluster} says {}", said(work))),
                None => Ok(works.clone()),
            }
        })
        .await
    }

    /// Waits until a replica set has a condition with this status and reason, and this in its message; the replica set.
    async fn until_condition(
        &self,
        name: &str,
        kind: &str,
        status: &str,
        reason: &str,
        mention: &str,
    ) -> anyhow::Result<Value> {
        let what = format!("{kind}={status}, {reason}, {mention:?}");
        self.kube
            .until(&self.set(name), SOON, &what, |set| {
                let set = set.ok_or("it is not there")?;
                let conditions = set["status"]["conditions"].as_array();
                let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
                let found = found.ok_or_else(|| format!("there is none: {}", set["status"]))?;
                let message = found["message"].as_str().unwrap_or_default();
                let present = found["observedGeneration"] == set["metadata"]["generation"];
                if present
                    && found["status"] == status
                    && found["reason"] == reason
                    && message.contains(mention)
                {
                    Ok(set.clone())
                } else {
                    Err(found.to_string())
                }
            })
            .await
    }

    /// Says of a cluster's work, as its klusterlet would, what is True and what is False of it now.
    async fn say(&self, works: &Works, cluster: &str, yes: &[&str], no: &[&str]) -> Result {
        let work = works
            .get(cluster)
            .with_context(|| format!("no work on {cluster}"))?;
        let name = work["metadata"]["name"].as_str().context("a name")?;
        let of = |kind: &&str, status: &str| {
            json!({"type": kind, "status": status, "reason": "Said", "message": "",
                "observedGeneration": work["metadata"]["generation"],
                "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()})
        };
        let yes = yes.iter().map(|kind| of(kind, "True"));
        let all: Vec<Value> = yes.chain(no.iter().map(|kind| of(kind, "False"))).collect();
        let path = format!("{}/status", work_path(&self.cluster(cluster), name));
        self.kube
            .merge(&path, &json!({"status": {"conditions": all}}))
            .await?;
        Ok(())
    }

    async fn done(&self, works: &Works, cluster: &str) -> Result {
        self.say(
            works,
            cluster,
            &["Applied", "Available"],
            &["Progressing", "Degraded"],
        )
        .await
    }

    async fn under_way(&self, works: &Works, cluster: &str) -> Result {
        self.say(
            works,
            cluster,
            &["Applied", "Progressing"],
            &["Degraded", "Available"],
        )
        .await
    }

    async fn failed(&self, works: &Works, cluster: &str) -> Result {
        self.say(
            works,
            cluster,
            &["Applied", "Progressing", "Degraded"],
            &["Available"],
        )
        .await
    }

    /// Deletes all that the test made: shared servers keep it otherwise.
    async fn end(self, sets: &[&str], clusters: &[&str]) -> Result {
        for set in sets {
            if self.kube.find(&self.set(set)).await?.is_some() {
                self.kube.delete(&self.set(set)).await?;
                self.kube.until_gone(&self.set(set), SOON).await?;
            }
        }
        for name in clusters
            .iter()
            .map(|name| self.cluster(name))
            .chain([self.home.clone()])
        {
            self.kube.delete(&format!("{NAMESPACES}/{name}")).await?;
        }
        Ok(())
    }
}

fn template(value: &str) -> Value {
    json!({"workload": {"manifests": [configmap("default", "settings", value)]}})
}

/// The value in a work's ConfigMap.
fn said(work: &Value) -> &str {
    let value = work.pointer("/spec/workload/manifests/0/data/value");
    value.and_then(Value::as_str).unwrap_or_default()
}

fn uids(works: &Works) -> BTreeMap<&str, &Value> {
    let all = works.iter();
    all.map(|(cluster, work)| (cluster.as_str(), &work["metadata"]["uid"]))
        .collect()
}

fn time(text: &Value) -> anyhow::Result<Timestamp> {
    Ok(text.as_str().context("a time")?.parse()?)
}

fn progressive(settings: &Value) -> Value {
    json!({"type": "Progressive", "progressive": settings})
}

#[tokio::test(flavor = "multi_thread")]
async fn works_are_where_placements_decide() -> Result {
    let rig = Rig::start().await?;
    rig.clusters(&["c1", "c2", "c3", "c4"]).await?;
    rig.place("p", &[&["c1", "c2"], &["c3"]]).await?;
    rig.place("q", &[&["c3", "c4"]]).await?;
    rig.create("web.v1", &[("p", Value::Null)], "1").await?;
    let works = rig.until_on("web.v1", &["c1", "c2", "c3"], "1").await?;
    for work in works.values() {
        let metadata = &work["metadata"];
        let labels = json!({OWNER: format!("{}.web.v1", rig.home), PLACEMENT: "p", "team": "shop"});
        assert_eq!(metadata["labels"], labels);
        assert!(
            metadata["annotations"].is_null() && metadata["ownerReferences"].is_null(),
            "{metadata}"
        );
        assert!(
            metadata["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("web.v1"))
        );
    }
    let set = rig
        .until_condition("web.v1", "PlacementVerified", "True", "AsExpected", "")
        .await?;
    assert_eq!(set["metadata"]["finalizers"], json!([FINALIZER]));

    // Another template, in place.
    rig.change("web.v1", "2").await?;
    let changed = rig.until_on("web.v1", &["c1", "c2", "c3"], "2").await?;
    assert_eq!(uids(&works), uids(&changed));
    // What is no more in the template is no more in the works.
    let option = |option: Value| json!({"spec": {"manifestWorkTemplate": {"deleteOption": option}}});
    let has_option = |wanted: bool| {
        move |works: &Works| {
            let all = works.values();
            let found = all.map(|work| !work["spec"]["deleteOption"].is_null());
            (found.clone().count() == 3 && found.clone().all(|found| found == wanted))
                .then_some(())
                .ok_or_else(|| format!("{:?}", found.collect::<Vec<_>>()))
        }
    };
    let orphan = option(json!({"propagationPolicy": "Orphan"}));
    rig.kube.merge(&rig.set("web.v1"), &orphan).await?;
    rig.until_works("web.v1", "they orphan", has_option(true)).await?;
    rig.kube.merge(&rig.set("web.v1"), &option(Value::Null)).await?;
    rig.until_works("web.v1", "they do not", has_option(false))
        .await?;

    // What somebody changes is put right, what somebody deletes is made again.
    let name = works["c1"]["metadata"]["name"].as_str().context("a name")?;
    let theirs = work_path(&rig.cluster("c1"), name);
    rig.kube
        .merge(&theirs, &json!({"spec": template("theirs")}))
        .await?;
    rig.until_on("web.v1", &["c1", "c2", "c3"], "2").await?;
    rig.kube.delete(&theirs).await?;
    rig.until_works("web.v1", "it is made again", |works| match works.get("c1") {
        Some(work) if work["metadata"]["uid"] != changed["c1"]["metadata"]["uid"] => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;

    // Decided for no more.
    rig.place("p", &[&["c1"], &["c3"]]).await?;
    let works = rig.until_on("web.v1", &["c1", "c3"], "2").await?;

    // Another placement: what is on its clusters stays.
    let other = json!({"spec": {"placementRefs": [{"name": "q"}]}});
    rig.kube.merge(&rig.set("web.v1"), &other).await?;
    let moved = rig
        .until_works("web.v1", "they are where q decides", |works| {
            let found: Vec<(&str, &Value)> = works
                .iter()
                .map(|(cluster, work)| (cluster.as_str(), &work["metadata"]["labels"][PLACEMENT]))
                .collect();
            (found == [("c3", &json!("q")), ("c4", &json!("q"))])
                .then(|| works.clone())
                .ok_or_else(|| format!("{found:?}"))
        })
        .await?;
    assert_eq!(moved["c3"]["metadata"]["uid"], works["c3"]["metadata"]["uid"]);

    // Of two placements for one cluster, the first has it.
    let both = json!({"spec": {"placementRefs": [{"name": "p"}, {"name": "q"}]}});
    rig.kube.merge(&rig.set("web.v1"), &both).await?;
    let wanted = [("c1", "p"), ("c3", "p"), ("c4", "q")];
    rig.until_works("web.v1", "each cluster has one", |works| {
        let found: Vec<(&str, &str)> = works
            .iter()
            .map(|(cluster, work)| {
                let placement = work["metadata"]["labels"][PLACEMENT].as_str();
                (cluster.as_str(), placement.unwrap_or_default())
            })
            .collect();
        (found == wanted)
            .then_some(())
            .ok_or_else(|| format!("{found:?}"))
    })
    .await?;
    // A label of the replica set comes to its works.
    let label = json!({"metadata": {"labels": {"team": "store"}}});
    rig.kube.merge(&rig.set("web.v1"), &label).await?;
    rig.until_works("web.v1", "they have its label", |works| {
        let all = works
            .values()
            .all(|work| work["metadata"]["labels"]["team"] == "store");
        all.then_some(()).ok_or_else(|| "not all".to_owned())
    })
    .await?;
    rig.end(&["web.v1"], &["c1", "c2", "c3", "c4"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_what_klusterlets_say() -> Result {
    let rig = Rig::start().await?;
    rig.clusters(&["c1", "c2", "c3"]).await?;
    rig.place("p", &[&["c1"], &["c2"]]).await?;
    rig.place("q", &[&["c3"]]).await?;
    rig.create("web", &[("p", Value::Null), ("q", Value::Null)], "1")
        .await?;
    let works = rig.until_on("web", &["c1", "c2", "c3"], "1").await?;
    let summary = |wanted: Value| {
        let (rig, wanted) = (&rig, wanted.clone());
        async move {
            let what = format!("the summary is {wanted}");
            rig.kube
                .until(&rig.set("web"), SOON, &what, |set| {
                    let found = set
                        .map(|set| set["status"]["summary"].clone())
                        .unwrap_or_default();
                    (found == wanted).then_some(()).ok_or_else(|| found.to_string())
                })
                .await
        }
    };
    let counts = |applied: i64, available: i64, progressing: i64, degraded: i64| {
        json!({"total": 3, "desiredTotal": 3, "updated": 3, "applied": applied, "available": available,
            "progressing": progressing, "degraded": degraded})
    };
    summary(counts(0, 0, 0, 0)).await?;
    rig.until_condition(
        "web",
        "ManifestworkApplied",
        "False",
        "Processing",
        "3 of 3 clusters have the template",
    )
    .await?;
    rig.until_condition("web", "PlacementRolledOut", "False", "Progressing", "0 of 3")
        .await?;
    rig.under_way(&works, "c1").await?;
    rig.failed(&works, "c2").await?;
    rig.done(&works, "c3").await?;
    summary(counts(3, 1, 2, 1)).await?;
    rig.until_condition(
        "web",
        "ManifestworkApplied",
        "False",
        "NotAsExpected",
        "1 degraded",
    )
    .await?;
    for cluster in ["c1", "c2"] {
        rig.done(&works, cluster).await?;
    }
    summary(counts(3, 3, 0, 0)).await?;
    rig.until_condition("web", "ManifestworkApplied", "True", "AsExpected", "")
        .await?;
    let set = rig
        .until_condition("web", "PlacementRolledOut", "True", "Complete", "3 of 3")
        .await?;
    let placements = &set["status"]["placementSummary"];
    let told: Vec<(&Value, &Value, &Value)> = placements
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            (
                &one["name"],
                &one["availableDecisionGroups"],
                &one["summary"]["available"],
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (&json!("p"), &json!("2 (2 / 2 clusters applied)"), &json!(2)),
            (&json!("q"), &json!("1 (1 / 1 clusters applied)"), &json!(1)),
        ]
    );

    // What was said of an earlier template counts no more.
    rig.change("web", "2").await?;
    rig.until_on("web", &["c1", "c2", "c3"], "2").await?;
    summary(counts(0, 0, 0, 0)).await?;
    rig.until_condition("web", "PlacementRolledOut", "False", "Progressing", "0 of 3")
        .await?;
    rig.end(&["web"], &["c1", "c2", "c3"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_clusters_at_a_time() -> Result {
    let rig = Rig::start().await?;
    let all = ["c1", "c2", "c3", "c4"];
    rig.clusters(&all).await?;
    rig.place("p", &[&all]).await?;
    let half = progressive(&json!({"maxConcurrency": "50%"}));
    rig.create("web", &[("p", half)], "1").await?;
    let mut works = rig.until_on("web", &all[..2], "1").await?;
    rig.until_condition(
        "web",
        "ManifestworkApplied",
        "False",
        "Processing",
        "2 of 4 clusters",
    )
    .await?;
    rig.under_way(&works, "c1").await?;
    rig.done(&works, "c2").await?;
    works = rig.until_on("web", &all[..3], "1").await?;
    rig.done(&works, "c1").await?;
    works = rig.until_on("web", &all, "1").await?;
    rig.done(&works, "c3").await?;
    rig.done(&works, "c4").await?;
    rig.until_condition("web", "PlacementRolledOut", "True", "Complete", "4 of 4")
        .await?;

    // A change goes the same way, and says nothing of what has not got it.
    rig.change("web", "2").await?;
    let changed = |wanted: &'static [&'static str]| {
        let rig = &rig;
        async move {
            let what = format!("{wanted:?} are changed");
            rig.until_works("web", &what, |works| {
                let found: Vec<&str> = works
                    .iter()
                    .filter(|(_, work)| said(work) == "2")
                    .map(|(cluster, _)| cluster.as_str())
                    .collect();
                (found == wanted)
                    .then(|| works.clone())
                    .ok_or_else(|| format!("{found:?}"))
            })
            .await
        }
    };
    let works = changed(&["c1", "c2"]).await?;
    let set = rig
        .until_condition(
            "web",
            "ManifestworkApplied",
            "False",
            "Processing",
            "2 of 4 clusters",
        )
        .await?;
    assert_eq!(set["status"]["summary"]["total"], 2);
    rig.done(&works, "c2").await?;
    changed(&["c1", "c2", "c3"]).await?;
    rig.end(&["web"], &all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_come_one_after_the_other() -> Result {
    let rig = Rig::start().await?;
    let all = ["c1", "c2", "c3", "c4"];
    rig.clusters(&all).await?;
    rig.place("p", &[&["c3", "c4"], &["c2"], &["c1"]]).await?;
    let strategy = json!({"type": "ProgressivePerGroup",
        "progressivePerGroup": {"mandatoryDecisionGroups": [{"groupIndex": 2}]}});
    rig.create("web", &[("p", strategy)], "1").await?;
    let works = rig.until_on("web", &["c1"], "1").await?;
    rig.done(&works, "c1").await?;
    let works = rig.until_on("web", &["c1", "c3", "c4"], "1").await?;
    rig.done(&works, "c4").await?;
    rig.done(&works, "c3").await?;
    let works = rig.until_on("web", &all, "1").await?;
    rig.done(&works, "c2").await?;
    rig.until_condition("web", "PlacementRolledOut", "True", "Complete", "4 of 4")
        .await?;
    rig.end(&["web"], &all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_stops_when_too_many_fail() -> Result {
    let rig = Rig::start().await?;
    let all = ["c1", "c2", "c3"];
    rig.clusters(&all).await?;
    rig.place("p", &[&all]).await?;
    let one = progressive(&json!({"maxConcurrency": 1}));
    rig.create("web", &[("p", one)], "1").await?;
    let works = rig.until_on("web", &["c1"], "1").await?;
    rig.failed(&works, "c1").await?;
    rig.until_condition(
        "web",
        "PlacementRolledOut",
        "False",
        "Progressing",
        "placement p stopped",
    )
    .await?;
    rig.until_condition("web", "ManifestworkApplied", "False", "NotAsExpected", "1 of 3")
        .await?;
    rig.until_on("web", &["c1"], "1").await?;
    // A better template starts anew.
    rig.change("web", "2").await?;
    let works = rig.until_on("web", &["c1"], "2").await?;
    rig.done(&works, "c1").await?;
    let works = rig.until_on("web", &["c1", "c2"], "2").await?;
    // One failure is put up with; the place of the one that failed is taken.
    rig.failed(&works, "c2").await?;
    rig.until_condition(
        "web",
        "PlacementRolledOut",
        "False",
        "Progressing",
        "placement p stopped",
    )
    .await?;
    let lenient = progressive(&json!({"maxConcurrency": 2, "maxFailures": "33%"}));
    let patch = json!({"spec": {"placementRefs": [{"name": "p", "rolloutStrategy": lenient}]}});
    rig.kube.merge(&rig.set("web"), &patch).await?;
    rig.until_on("web", &all, "2").await?;
    rig.end(&["web"], &all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_done_when_it_has_been_well_for_long_enough() -> Result {
    let rig = Rig::start().await?;
    rig.clusters(&["c1", "c2"]).await?;
    rig.place("p", &[&["c1", "c2"]]).await?;
    let slow = progressive(&json!({"maxConcurrency": 1, "minSuccessTime": "3s"}));
    rig.create("web", &[("p", slow)], "1").await?;
    let works = rig.until_on("web", &["c1"], "1").await?;
    rig.done(&works, "c1").await?;
    let works = rig.until_on("web", &["c1", "c2"], "1").await?;
    let conditions = works["c1"]["status"]["conditions"]
        .as_array()
        .context("conditions")?;
    let progressing = conditions
        .iter()
        .find(|c| c["type"] == "Progressing")
        .context("one")?;
    let well = time(&progressing["lastTransitionTime"])?;
    let made = time(&works["c2"]["metadata"]["creationTimestamp"])?;
    // Times on the wire are whole seconds.
    assert!(
        made.duration_since(well) >= SignedDuration::from_secs(2),
        "{well} {made}"
    );
    rig.done(&works, "c2").await?;
    rig.until_condition("web", "PlacementRolledOut", "True", "Complete", "2 of 2")
        .await?;
    rig.end(&["web"], &["c1", "c2"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_takes_too_long_has_failed() -> Result {
    let rig = Rig::start().await?;
    let all = ["c1", "c2", "c3", "c4"];
    rig.clusters(&all).await?;
    rig.place("p", &[&all]).await?;
    let bounded = progressive(&json!({"maxConcurrency": 1, "maxFailures": 1, "progressDeadline": "2s"}));
    rig.create("web", &[("p", bounded)], "1").await?;
    let works = rig.until_on("web", &["c1"], "1").await?;
    rig.under_way(&works, "c1").await?;
    let works = rig.until_on("web", &["c1", "c2"], "1").await?;
    let first = time(&works["c1"]["metadata"]["creationTimestamp"])?;
    let second = time(&works["c2"]["metadata"]["creationTimestamp"])?;
    assert!(
        second.duration_since(first) >= SignedDuration::from_secs(1),
        "{first} {second}"
    );
    rig.done(&works, "c2").await?;
    rig.until_on("web", &["c1", "c2", "c3"], "1").await?;
    // The third says nothing at all: that is one too many.
    let mention = "placement p stopped: more clusters failed than may; took too long: c1";
    let set = rig
        .until_condition("web", "PlacementRolledOut", "False", "Progressing", mention)
        .await?;
    assert!(set.to_string().contains(&rig.cluster("c3")), "{set}");
    // It comes good after all.
    let works = rig.until_on("web", &["c1", "c2", "c3"], "1").await?;
    rig.done(&works, "c3").await?;
    rig.until_on("web", &all, "1").await?;
    rig.end(&["web"], &all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn works_go_with_their_replica_set_before_it_or_after() -> Result {
    let rig = Rig::start().await?;
    rig.clusters(&["c1", "c2"]).await?;
    rig.place("p", &[&["c1", "c2"]]).await?;
    for (set, policy) in [("back", "Background"), ("fore", "Foreground")] {
        rig.create(set, &[("p", Value::Null)], "1").await?;
        let patch = json!({"spec": {"cascadeDeletionPolicy": policy}});
        rig.kube.merge(&rig.set(set), &patch).await?;
        let works = rig.until_on(set, &["c1", "c2"], "1").await?;
        let mut held = Vec::new();
        for (cluster, work) in &works {
            let name = work["metadata"]["name"].as_str().context("a name")?;
            let path = work_path(&rig.cluster(cluster), name);
            let hold = json!({"metadata": {"finalizers": [HELD]}});
            rig.kube.merge(&path, &hold).await?;
            held.push(path);
        }
        rig.kube.delete(&rig.set(set)).await?;
        rig.until_works(set, "they are deleted", |works| {
            let going = works
                .values()
                .filter(|work| work["metadata"]["deletionTimestamp"].is_string());
            let going = going.count();
            (going == 2).then_some(()).ok_or_else(|| format!("{going} are"))
        })
        .await?;
        if policy == "Background" {
            rig.kube.until_gone(&rig.set(set), SOON).await?;
        }
        let free = json!({"metadata": {"finalizers": null}});
        for path in &held {
            if policy == "Foreground" {
                rig.kube.get(&rig.set(set)).await?;
            }
            rig.kube.get(path).await?;
            rig.kube.merge(path, &free).await?;
        }
        rig.kube.until_gone(&rig.set(set), SOON).await?;
        rig.until_works(set, "they are gone", |works| {
            works
                .is_empty()
                .then_some(())
                .ok_or_else(|| format!("{}", works.len()))
        })
        .await?;
    }
    rig.end(&[], &["c1", "c2"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_told() -> Result {
    let rig = Rig::start().await?;
    rig.clusters(&["c1"]).await?;
    // A name that no label can hold.
    let long = "a".repeat(63 - rig.home.len());
    rig.create(&long, &[("p", Value::Null)], "1").await?;
    rig.until_condition(
        &long,
        "ManifestworkApplied",
        "False",
        "InvalidManifestWorkName",
        "64 characters",
    )
    .await?;
    // No placement; then one of which nothing is decided; then nobody; then somebody.
    rig.create("web", &[("p", Value::Null)], "1").await?;
    rig.until_condition(
        "web",
        "PlacementVerified",
        "False",
        "PlacementDecisionNotFound",
        "p",
    )
    .await?;
    rig.place("p", &[]).await?;
    rig.until_condition(
        "web",
        "PlacementVerified",
        "False",
        "PlacementDecisionNotFound",
        "p",
    )
    .await?;
    rig.place("p", &[&[]]).await?;
    rig.until_condition("web", "PlacementVerified", "False", "PlacementDecisionEmpty", "")
        .await?;
    rig.until_condition(
        "web",
        "ManifestworkApplied",
        "False",
        "PlacementDecisionEmpty",
        "",
    )
    .await?;
    rig.place("p", &[&["c1"]]).await?;
    let works = rig.until_on("web", &["c1"], "1").await?;
    rig.until_condition("web", "PlacementVerified", "True", "AsExpected", "")
        .await?;
    // Decisions that are lost take nothing away.
    let decisions = format!(
        "/apis/cluster.open-cluster-management.io/v1beta1/namespaces/{}/placementdecisions/p-decision-1",
        rig.home
    );
    rig.kube.delete(&decisions).await?;
    rig.until_condition(
        "web",
        "PlacementVerified",
        "False",
        "PlacementDecisionNotFound",
        "p",
    )
    .await?;
    let after = rig.until_on("web", &["c1"], "1").await?;
    assert_eq!(uids(&works), uids(&after));
    // Nobody is decided for: that does.
    rig.place("p", &[&[]]).await?;
    rig.until_on("web", &[], "").await?;
    // A strategy that makes no sense.
    let soon = json!({"type": "All", "all": {"minSuccessTime": "soon"}});
    rig.create("odd", &[("p", soon)], "1").await?;
    rig.place("p", &[&["c1"]]).await?;
    rig.until_condition(
        "odd",
        "PlacementVerified",
        "False",
        "NotAsExpected",
        "minSuccessTime \"soon\"",
    )
    .await?;
    rig.until_on("web", &["c1"], "1").await?;
    assert!(rig.until_on("odd", &[], "").await?.is_empty());
    rig.end(&["web", "odd", &long], &["c1"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_a_namespace_holds_up_nobody() -> Result {
    let rig = Rig::start().await?;
    rig.clusters(&["c1", "c3"]).await?;
    rig.place("p", &[&["c1", "c2", "c3"]]).await?;
    let one = progressive(&json!({"maxConcurrency": 1}));
    rig.create("web", &[("p", one)], "1").await?;
    let works = rig.until_on("web", &["c1"], "1").await?;
    rig.done(&works, "c1").await?;
    let works = rig.until_on("web", &["c1", "c3"], "1").await?;
    rig.done(&works, "c3").await?;
    let missing = format!("{}: it has no namespace at the hub", rig.cluster("c2"));
    rig.until_condition("web", "ManifestworkApplied", "False", "Processing", &missing)
        .await?;
    rig.until_condition("web", "PlacementRolledOut", "False", "Progressing", "2 of 3")
        .await?;
    rig.clusters(&["c2"]).await?;
    let works = rig.until_on("web", &["c1", "c2", "c3"], "1").await?;
    rig.done(&works, "c2").await?;
    rig.until_condition("web", "PlacementRolledOut", "True", "Complete", "3 of 3")
        .await?;
    // A namespace that goes takes its work along; nothing is made in it any more.
    let path = format!("{NAMESPACES}/{}", rig.cluster("c2"));
    let name = works["c2"]["metadata"]["name"].as_str().context("a name")?;
    let held = work_path(&rig.cluster("c2"), name);
    let hold = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    rig.kube.merge(&held, &hold(json!([HELD]))).await?;
    rig.kube.delete(&path).await?;
    let going = format!("{}: its namespace is being deleted", rig.cluster("c2"));
    rig.until_condition("web", "ManifestworkApplied", "False", "Processing", &going)
        .await?;
    rig.kube.merge(&held, &hold(Value::Null)).await?;
    rig.kube.until_gone(&path, SOON).await?;
    rig.until_condition("web", "ManifestworkApplied", "False", "Processing", &missing)
        .await?;
    rig.end(&["web"], &["c1", "c3"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn works_that_another_controller_made_are_kept() -> Result {
    let rig = Rig::start().await?;
    rig.clusters(&["c1", "c2"]).await?;
    let made = |cluster: &str, name: &str, placement: &str| {
        let cluster = rig.cluster(cluster);
        let labels = json!({OWNER: format!("{}.web", rig.home), PLACEMENT: placement, "team": "shop"});
        json!({"apiVersion": "work.open-cluster-management.io/v1", "kind": "ManifestWork",
            "metadata": {"name": name, "namespace": cluster, "labels": labels}, "spec": template("1")})
    };
    let mut kept = BTreeMap::new();
    // One for each of two placements on the second cluster, as OCM's controller makes them.
    for (cluster, name, placement, stays) in [
        ("c1", "web7x2kp", "p", true),
        ("c2", "webq9d4m", "q", false),
        ("c2", "webz5t8w", "p", true),
    ] {
        let path = work_path(&rig.cluster(cluster), "");
        let work = rig
            .kube
            .create(path.trim_end_matches('/'), &made(cluster, name, placement))
            .await?;
        if stays {
            kept.insert(
                cluster,
                (
                    work["metadata"]["uid"].clone(),
                    work["metadata"]["generation"].clone(),
                ),
            );
        }
    }
    rig.place("p", &[&["c1", "c2"]]).await?;
    rig.create("web", &[("p", Value::Null)], "1").await?;
    let works = rig.until_on("web", &["c1", "c2"], "1").await?;
    let found: BTreeMap<&str, (Value, Value)> = works
        .iter()
        .map(|(cluster, work)| {
            let metadata = &work["metadata"];
            (
                cluster.as_str(),
                (metadata["uid"].clone(), metadata["generation"].clone()),
            )
        })
        .collect();
    assert_eq!(found, kept);
    // A work that loses the label is no more the replica set's: another is made, beside it.
    let lost = work_path(&rig.cluster("c1"), "web7x2kp");
    rig.kube
        .merge(&lost, &json!({"metadata": {"labels": {OWNER: null}}}))
        .await?;
    let works = rig.until_on("web", &["c1", "c2"], "1").await?;
    let own = works["c1"]["metadata"]["name"].as_str().context("a name")?;
    let path = work_path(&rig.cluster("c1"), own);
    rig.kube
        .merge(&path, &json!({"metadata": {"labels": {OWNER: null}}}))
        .await?;
    // Its name is taken then.
    let third = rig
        .until_works("web", "a third is made", |works| match works.get("c1") {
            Some(work) if work["metadata"]["name"] != own => Ok(work["metadata"]["name"].clone()),
            other => Err(format!("{other:?}")),
        })
        .await?;
    assert!(
        third.as_str().is_some_and(|name| name.starts_with("web-")),
        "{third}"
    );
    rig.kube.get(&lost).await?;
    rig.kube.get(&path).await?;
    rig.end(&["web"], &["c1", "c2"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_takes_no_work_holds_up_nobody() -> Result {
    let rig = Rig::start().await?;
    rig.clusters(&["c1", "c2"]).await?;
    // The first cluster's namespace has no room for works.
    let quotas = format!("/api/v1/namespaces/{}/resourcequotas", rig.cluster("c1"));
    let counted = "count/manifestworks.work.open-cluster-management.io";
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {counted: "0"}}});
    rig.kube.create(&quotas, &quota).await?;
    rig.kube
        .until(&format!("{quotas}/none"), SOON, "it holds", |quota| {
            let used = quota.map(|quota| quota["status"]["used"][counted].clone());
            (used == Some(json!("0")))
                .then_some(())
                .ok_or_else(|| format!("{used:?}"))
        })
        .await?;
    rig.place("p", &[&["c1", "c2"]]).await?;
    let one = progressive(&json!({"maxConcurrency": 1}));
    rig.create("web", &[("p", one)], "1").await?;
    let works = rig.until_on("web", &["c2"], "1").await?;
    rig.done(&works, "c2").await?;
    let refused = format!("{}: cannot create ManifestWork", rig.cluster("c1"));
    rig.until_condition("web", "ManifestworkApplied", "False", "NotAsExpected", &refused)
        .await?;
    rig.kube.delete(&format!("{quotas}/none")).await?;
    rig.until_on("web", &["c1", "c2"], "1").await?;
    rig.end(&["web"], &["c1", "c2"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_starts_again_writes_nothing() -> Result {
    let mut rig = Rig::start().await?;
    rig.clusters(&["c1", "c2"]).await?;
    rig.place("p", &[&["c1", "c2"]]).await?;
    let sets = ["one", "two", "three"];
    for set in sets {
        rig.create(set, &[("p", Value::Null)], "1").await?;
        let works = rig.until_on(set, &["c1", "c2"], "1").await?;
        for cluster in ["c1", "c2"] {
            rig.done(&works, cluster).await?;
        }
        rig.until_condition(set, "PlacementRolledOut", "True", "Complete", "")
            .await?;
        rig.until_condition(set, "ManifestworkApplied", "True", "AsExpected", "")
            .await?;
    }
    rig.fleet.hub.stop().await?;
    let ours = |versions: BTreeMap<String, String>| {
        let mark = &rig.mark;
        let all = versions
            .into_iter()
            .filter(|(path, _)| path.contains(mark.as_str()));
        all.collect::<BTreeMap<_, _>>()
    };
    let before = ours(rig.kube.versions().await?);
    rig.fleet.hub.start();
    rig.fleet.hub.until_begun().await?;
    // It has looked at the others when it has seen to this one.
    rig.create("zz", &[("p", Value::Null)], "1").await?;
    let works = rig.until_on("zz", &["c1", "c2"], "1").await?;
    for cluster in ["c1", "c2"] {
        rig.done(&works, cluster).await?;
    }
    rig.until_condition("zz", "PlacementRolledOut", "True", "Complete", "")
        .await?;
    let mut after = ours(rig.kube.versions().await?);
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(after, before);
    rig.end(&["one", "two", "three", "zz"], &["c1", "c2"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clusters() -> Result {
    let rig = Rig::start().await?;
    let names: Vec<String> = (0..100).map(|n| format!("c{n:03}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    stream::iter(&all)
        .map(|name| rig.clusters(std::slice::from_ref(name)))
        .buffer_unordered(8)
        .try_collect::<()>()
        .await?;
    rig.place("p", &[&all]).await?;
    let began = std::time::Instant::now();
    rig.create("web", &[("p", Value::Null)], "1").await?;
    let works = rig.until_on("web", &all, "1").await?;
    let made = began.elapsed();
    stream::iter(&all)
        .map(|name| rig.done(&works, name))
        .buffer_unordered(8)
        .try_collect::<()>()
        .await?;
    let set = rig
        .until_condition("web", "PlacementRolledOut", "True", "Complete", "100 of 100")
        .await?;
    assert_eq!(set["status"]["summary"]["available"], 100);
    let began = std::time::Instant::now();
    rig.change("web", "2").await?;
    rig.until_on("web", &all, "2").await?;
    eprintln!("100 works: made in {made:?}, changed in {:?}", began.elapsed());
    rig.end(&["web"], &all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn klusterlets_bring_a_replica_set_to_its_end() -> Result {
    let rig = Rig::with(1).await?;
    rig.fleet.until_available().await?;
    let cluster = &rig.fleet.clusters[0];
    let (name, spoke, ns) = (&cluster.name, cluster.kube(), cluster.namespace());
    rig.place("p", &[&[]]).await?;
    let decisions = format!(
        "/apis/cluster.open-cluster-management.io/v1beta1/namespaces/{}/placementdecisions/p-decision-1/status",
        rig.home
    );
    let decided = json!({"status": {"decisions": [{"clusterName": name, "reason": ""}]}});
    rig.kube.merge(&decisions, &decided).await?;
    let set = json!({"apiVersion": "work.open-cluster-management.io/v1alpha1", "kind": "ManifestWorkReplicaSet",
        "metadata": {"name": "web"},
        "spec": {"placementRefs": [{"name": "p"}], "cascadeDeletionPolicy": "Foreground",
            "manifestWorkTemplate": {"workload": {"manifests": [configmap(&ns, "settings", "1")]}}}});
    rig.kube.create(&rig.sets(), &set).await?;
    rig.until_condition("web", "PlacementRolledOut", "True", "Complete", "1 of 1")
        .await?;
    let path = configmap_path(&ns, "settings");
    assert_eq!(spoke.get(&path).await?["data"]["value"], "1");
    let set = rig
        .until_condition("web", "ManifestworkApplied", "True", "AsExpected", "")
        .await?;
    has_condition(Some(&set), "PlacementVerified", "True").map_err(anyhow::Error::msg)?;
    rig.kube.delete(&rig.set("web")).await?;
    rig.kube.until_gone(&rig.set("web"), SOON).await?;
    assert!(
        spoke.find(&path).await?.is_none(),
        "the replica set went before its objects"
    );
    rig.end(&[], &[]).await
}
