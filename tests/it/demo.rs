//! `muster demo`: what a person runs first.

use crate::{MUSTER, Result};
use muster_tests::Program;
use muster_tests::objects::CLUSTERS;
use muster_tests::{Kube, eventually};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_everything_and_ends() -> Result {
    let program = Program::new(MUSTER)?;
    let run = program.run(&["demo", "--exit", "--clusters", "2"]).await?;
    assert_eq!(run.code, 0, "{run:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_stays_up_to_be_tried_until_it_is_interrupted() -> Result {
    let program = Program::new(MUSTER)?;
    let mut demo = program.spawn(&["demo", "--dir", "demo"])?;
    let hub = eventually(
        Duration::from_secs(120),
        "the demo prints the kubeconfigs",
        async || {
            let text = demo.stdout();
            let line = text
                .lines()
                .find(|line| line.trim_start().starts_with("export KUBECONFIG="));
            line.and_then(|line| line.split_once('='))
                .map(|(_, path)| path.to_owned())
                .ok_or(text)
        },
    )
    .await?;
    let kube = Kube::from_file("the demo's hub", std::path::Path::new(&hub)).await?;
    assert_eq!(kube.list(CLUSTERS).await?.len(), 3);
    if let Some(kubectl) = crate::kubectl::found() {
        let run = Program::other(&kubectl, &["--kubeconfig", &hub, "get", "managedclusters"]).await?;
        let ready = run
            .stdout
            .lines()
            .filter(|line| line.matches("True").count() == 2 && line.contains("true"));
        assert_eq!(ready.count(), 3, "{run:?}");
    }
    demo.signal("INT")?;
    assert_eq!(demo.until_ended(Duration::from_secs(60)).await?, Some(0));
    Ok(())
}
