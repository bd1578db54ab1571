//! The API server against kube-apiserver: a long script of requests, and what a kube-apiserver 1.36 answered to each.
//!
//! The answers are recorded in `golden/`, so that the embedded server is always compared with them. With
//! `KUBEBUILDER_ASSETS` the script also runs on the real control plane, which shows that the record is current;
//! `MUSTER_TEST_REWRITE_GOLDEN=1` then writes it anew. What is known to differ is in `known.yaml`, each with its reason.

mod compare;
mod gateway;
mod normal;
mod run;
mod script;

use crate::Result;
use anyhow::Context as _;
use muster_apiserver::server::ServerOptions;
use muster_tests::ControlPlane;
use muster_tests::control_plane::{Role, is_embedded};
use run::Answers;
use script::Script;
use std::path::{Path, PathBuf};

/// Set, the record is written anew from the control plane that `KUBEBUILDER_ASSETS` starts.
const REWRITE: &str = "MUSTER_TEST_REWRITE_GOLDEN";

/// The version whose answers are recorded.
const RECORDED: &str = "1.36";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("it/apiserver")
}

/// Runs the script of one area wherever the environment says, and compares.
async fn area(name: &str) -> Result {
    let script = Script::read(&folder().join("script"), name)?;
    let golden = folder().join("golden").join(format!("{name}.jsonl"));
    if !is_embedded() {
        let plane = ControlPlane::start("real", Role::Bare).await?;
        let version = plane.kube().get("/version").await?;
        let version = format!(
            "{}.{}",
            version["major"].as_str().unwrap_or_default(),
            version["minor"].as_str().unwrap_or_default()
        );
        if version != RECORDED {
            eprintln!("skipped: this cluster is {version}, the recorded answers are of {RECORDED}");
            return Ok(());
        }
        let real = run::run(&plane, &script).await?;
        if std::env::var_os(REWRITE).is_some() {
            std::fs::write(&golden, compare::write(&script, &real))
                .with_context(|| format!("writing {}", golden.display()))?;
        }
        let recorded = read(&golden)?;
        compare::same(name, &recorded, &real).context("the record is not what this control plane answers")?;
    }
    let recorded = read(&golden)?;
    let embedded = ControlPlane::embedded("embedded", ServerOptions::default()).await?;
    let answers = run::run(&embedded, &script).await?;
    let known = compare::Known::read(&folder().join("known.yaml"), name)?;
    compare::but_for_known(name, &recorded, &answers, &known)
}

fn read(golden: &Path) -> anyhow::Result<Answers> {
    let text = std::fs::read_to_string(golden).with_context(|| format!("reading {}", golden.display()))?;
    compare::read(&text)
}

macro_rules! areas {
    ($($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() -> Result {
                area(stringify!($name)).await
            }
        )*

        #[test]
        fn every_script_is_run() -> Result {
            let mut files: Vec<String> = std::fs::read_dir(folder().join("script"))?
                .map(|entry| Ok(entry?.path().file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()))
                .collect::<std::io::Result<_>>()?;
            files.sort();
            let mut run = vec![$(stringify!($name)),*];
            run.sort_unstable();
            assert_eq!(files, run);
            compare::Known::check(&folder().join("known.yaml"), &files)
        }
    };
}

areas! { access admission apply commands corners crds daily definitions edges fields forms kinds lifecycle lists seen statuses verbs workloads }
