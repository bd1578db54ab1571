//! `muster hub`: the hub on somebody's API server, or standalone with its own.

use crate::apiserver::write_kubeconfig;
use crate::{Error, output};
use muster_apiserver::server::{Server, ServerOptions};
use muster_hub::HubOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// File of the administrator's kubeconfig in the data folder.
const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";
/// A hub that installs its definitions for longer is broken.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Options of `muster hub`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Kubeconfig of the hub's API server. Default: $KUBECONFIG, else ~/.kube/config, else the Pod's service account
    #[arg(long, value_name = "FILE", conflicts_with = "standalone")]
    kubeconfig: Option<PathBuf>,
    /// Bring the hub's own API server
    #[arg(long, requires = "data_dir")]
    standalone: bool,
    /// Folder for all that the standalone hub keeps; admin.kubeconfig is written there. Made when it is not there
    #[arg(long, value_name = "DIR", requires = "standalone")]
    data_dir: Option<PathBuf>,
    /// Address of the standalone hub; port 0 takes any free one
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:6443",
        requires = "standalone"
    )]
    bind: SocketAddr,
    /// More names and addresses under which clusters reach the standalone hub, for its certificate
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "standalone")]
    server_names: Vec<String>,
    /// URL of the standalone hub in its kubeconfig, where clients reach it under another address than it binds
    #[arg(long, value_name = "URL", requires = "standalone")]
    kubeconfig_server: Option<String>,
    /// How to behave there.
    #[command(flatten)]
    hub: HubOptions,
}

/// Runs until `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    if let Some(dir) = options.data_dir.clone().filter(|_| options.standalone) {
        return standalone(options, &dir, stop).await;
    }
    match stop
        .run_until_cancelled(muster_hub::connect(options.kubeconfig.as_deref()))
        .await
    {
        Some(connected) => {
            let (connected, mut hub) = (connected?, options.hub);
            hub.certificates
                .extend(connected.certificate.map(|validity| ("kubeconfig", validity)));
            Ok(muster_hub::run(connected.client, hub, stop).await?)
        }
        None => Ok(()),
    }
}

async fn standalone(options: Options, dir: &Path, stop: CancellationToken) -> Result<(), Error> {
    // Nobody is answered before the hub's rules hold: what a killed hub left asks an admission webhook that is no more.
    let mut server = Server::start_closed(ServerOptions {
        bind: options.bind,
        data_dir: Some(dir.to_owned()),
        server_names: options.server_names,
        external_url: options.kubeconfig_server,
        ..ServerOptions::default()
    })
    .await?;
    let ending = stop.child_token();
    let mut hub = beside(options.hub)?;
    // The data folder is this process's alone: there is nobody to elect.
    hub.disable_leader_election = true;
    let ca = muster_hub::certificate::validity(server.ca_pem().as_bytes());
    hub.certificates.extend(ca.map(|validity| ("ca", validity)));
    let begun = hub.begun.clone();
    let mut hub = tokio::spawn(muster_hub::run(server.client(), hub, ending.clone()));
    let admin = dir.join(ADMIN_KUBECONFIG);
    let serve = async {
        ready(&begun).await?;
        server.open();
        write_kubeconfig(&admin, &server.admin_kubeconfig()?)?;
        output::print(&format!(
            "The hub is ready at {}. Its administrator's kubeconfig: {}\n",
            server.url(),
            admin.display()
        ))?;
        stop.cancelled().await;
        Ok(())
    };
    let ended = tokio::select! {
        ended = serve => ended,
        // It ends when it is asked to as well, and may be noticed first.
        ended = &mut hub => if stop.is_cancelled() { Ok(()) } else { Err(failure(ended)) },
        () = stop.cancelled() => Ok(()),
    };
    ending.cancel();
    if !hub.is_finished() {
        // It ends what is under way; how it ended matters no more.
        let _ = hub.await;
    }
    server.shutdown().await;
    ended
}

/// Options of a hub whose API server is in the same process, and asks its admission webhook there.
pub fn beside(mut options: HubOptions) -> Result<HubOptions, Error> {
    if options.webhook.is_on() {
        return Err(Error::Input(
            "--webhook-service and --webhook-url are for a hub on somebody's API server: a standalone hub's own API \
             server asks its webhook by itself"
                .into(),
        ));
    }
    options.webhook.webhook_beside = true;
    Ok(options)
}

/// Waits until the hub has installed everything and controls.
pub async fn ready(begun: &CancellationToken) -> Result<(), Error> {
    tokio::time::timeout(READY_WITHIN, begun.cancelled())
        .await
        .map_err(|_| Error::Ended {
            what: "the hub".into(),
            problem: format!("it was not ready within {} s", READY_WITHIN.as_secs()),
        })
}

/// Why a hub's task ended that nobody had asked to end.
pub fn failure(ended: Result<Result<(), muster_hub::Error>, tokio::task::JoinError>) -> Error {
    let ended_without_reason = |problem: String| Error::Ended {
        what: "the hub".into(),
        problem,
    };
    match ended {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) => ended_without_reason("nobody asked it to".into()),
        Err(error) => ended_without_reason(error.to_string()),
    }
}
