//! `muster demo`: a hub and clusters in one process, joined over TLS on loopback, and a scenario that shows what they do.
//!
//! `fleet` starts and stops them, `scenario` is what is shown, `shop` the application it deploys, `stage` how it is told.

mod fleet;
mod scenario;
mod shop;
mod stage;

use crate::{Error, output};
use fleet::Fleet;
use stage::Stage;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Options of `muster demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many clusters
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    clusters: u8,
    /// End when all is shown
    #[arg(long)]
    exit: bool,
    /// Keep the data of hub and clusters and the kubeconfigs here. Default: a temporary folder, removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the demo, until `stop` unless it is to exit.
pub async fn run(options: &Options, stop: CancellationToken) -> Result<(), Error> {
    // Removed when it is dropped.
    let temporary;
    let dir = if let Some(dir) = &options.dir {
        let fail = |e: std::io::Error| Error::File {
            path: dir.clone(),
            problem: e.to_string(),
        };
        std::fs::create_dir_all(dir).map_err(fail)?;
        std::path::absolute(dir).map_err(fail)?
    } else {
        let made = tempfile::Builder::new().prefix("muster-demo-").tempdir();
        temporary = made.map_err(|e| Error::File {
            path: std::env::temp_dir(),
            problem: e.to_string(),
        })?;
        temporary.path().to_owned()
    };
    let mut stage = Stage::new();
    let n = options.clusters;
    output::print(&format!(
        "A hub and {n} cluster{} in this process, joined over TLS on 127.0.0.1.\n\n",
        if n == 1 { "" } else { "s" }
    ))?;
    let (mut fleet, mut failures) = Fleet::new(dir, usize::from(n), options.dir.is_some());
    let played = tokio::select! {
        played = play(options, &mut fleet, &mut stage) => played,
        // The fleet holds a sender as long as it is there.
        Some(failure) = failures.recv() => Err(failure),
        () = stop.cancelled() => {
            if stage.is_done() { Ok(()) } else { Err(Error::Input("interrupted before all was shown".into())) }
        }
    };
    if played.is_err() {
        stage.abandon();
    }
    fleet.stop().await;
    played
}

async fn play(options: &Options, fleet: &mut Fleet, stage: &mut Stage) -> Result<(), Error> {
    scenario::play(fleet, stage).await?;
    if !options.exit {
        output::print(&what_next(fleet))?;
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// Where everything is, and what a person may try with it.
fn what_next(fleet: &Fleet) -> String {
    let muster = std::env::args().next().unwrap_or_else(|| "muster".into());
    let hub = quoted(&fleet.hub_kubeconfig());
    let lines = fleet
        .kubeconfigs()
        .into_iter()
        .map(|(name, path)| format!("  {name:<10} {}\n", path.display()));
    let kubeconfigs: String = lines.collect();
    let first = fleet
        .kubeconfigs()
        .get(1)
        .map(|(name, path)| (name.clone(), quoted(path)));
    let (name, first) = first.unwrap_or_default();
    format!(
        "\nKubeconfigs:\n{kubeconfigs}\nTry, in another terminal:\n  export KUBECONFIG={hub}\n  {muster} get clusters -o wide\n  {muster} get works\n  \
         {muster} work status shop --cluster {name} -o wide\n  kubectl get managedclusters\n  \
         kubectl --kubeconfig {first} -n shop get deployments,services,pods\n\n  \
         # what the hub wants, a cluster keeps: this is put back at once\n  \
         kubectl --kubeconfig {first} -n shop delete deployment web\n\n  \
         # a work of your own\n  \
         kubectl create deployment hello --image=nginx --dry-run=client -o yaml | {muster} work create hello --cluster {name} -f - --wait\n  \
         {muster} work delete hello --cluster {name} --wait\n\nEverything runs until Ctrl-C.{}\n",
        if fleet.is_kept() {
            ""
        } else {
            " Then it is gone; --dir DIR keeps hub and clusters."
        }
    )
}

/// A path that a shell reads as one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_paths_as_one_word() {
        assert_eq!(quoted(Path::new("/tmp/a-b_c.d")), "/tmp/a-b_c.d");
        assert_eq!(quoted(Path::new("/tmp/a b'c")), r"'/tmp/a b'\''c'");
    }
}
