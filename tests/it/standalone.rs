//! A standalone hub that was killed: whoever is answered after it is started again is answered by its rules.

use crate::{MUSTER, Result};
use anyhow::Context as _;
use muster_crds::constants::admission;
use muster_tests::kube::Refused;
use muster_tests::objects::{configmap, namespace, work, works_path};
use muster_tests::{Kube, Program};
use serde_json::Value;
use std::time::Duration;

const LIMIT: usize = 20_000;

/// The first answer to making this work there is; nobody who answers is no answer.
async fn answered(kube: &Kube, work: &Value) -> std::result::Result<Value, Refused> {
    loop {
        match kube.create(&works_path("app"), work).await {
            Err(refused) if refused.code == 0 => tokio::time::sleep(Duration::from_millis(2)).await,
            answer => return answer,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_hub_answers_nobody_until_its_rules_hold_again() -> Result {
    let program = Program::new(MUSTER)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let limit = LIMIT.to_string();
    let start = || {
        let hub = ["hub", "--standalone", "--data-dir", "hub", "--bind", &address];
        program.spawn(&[&hub[..], &["--manifest-limit", &limit]].concat())
    };
    let admin = program.home().join("hub/admin.kubeconfig");
    let mut hub = start()?;
    hub.until_file(&admin).await?;
    let kube = Kube::from_file("standalone hub", &admin).await?;
    kube.create("/api/v1/namespaces", &namespace("app")).await?;
    let denied = format!(
        "admission webhook \"{}\" denied the request: ",
        admission::WORK_VALIDATORS
    );
    for round in 0..4 {
        hub.kill()?;
        // At times they wait already when it starts, at times it starts while they ask.
        let asked = tokio::spawn({
            let kube = kube.clone();
            async move {
                let map = |name: &str| configmap("default", name, "1");
                let large = configmap("default", "large", &"x".repeat(LIMIT));
                let right = work("app", &format!("right{round}"), &[map("a")]);
                let twice = work("app", "twice", &[map("a"), map("a")]);
                let large = work("app", "large", &[large]);
                let none = work("app", "none", &[]);
                futures::join!(
                    answered(&kube, &right),
                    answered(&kube, &twice),
                    answered(&kube, &large),
                    answered(&kube, &none)
                )
            }
        });
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        hub = start()?;
        let (right, twice, large, none) = asked.await?;
        right.with_context(|| format!("round {round}: {}", hub.stderr()))?;
        for (answer, words) in [
            (twice, "duplicate manifest for resource default/a"),
            (large, "which exceeds the 20000 limit"),
            (none, "manifests should not be empty"),
        ] {
            let refused = answer.err().with_context(|| format!("{words}: it was taken"))?;
            assert_eq!(refused.code, 400, "round {round}: {refused}");
            assert!(
                refused.message.contains(&denied) && refused.message.contains(words),
                "round {round}: {refused}"
            );
        }
    }
    Ok(())
}
