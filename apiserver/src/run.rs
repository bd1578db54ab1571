//! Running a server as a process: until it is told to stop.

use crate::kubeconfig;
use crate::options::ApiServerArgs;
use crate::server::{Server, ServerError, ServerOptions};
use std::path::PathBuf;

/// Why a process ends before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The server does not start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The administrator's certificate cannot be made.
    #[error("cannot make the administrator's kubeconfig: {0}")]
    Pki(crate::pki::PkiError),
    /// The kubeconfig cannot be written.
    #[error("cannot write the kubeconfig {}: {reason}", .path.display())]
    Kubeconfig {
        /// File.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// Signals cannot be listened to.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

/// Runs a server until SIGTERM or SIGINT. The kubeconfig asked for appears, whole, once the server is ready.
pub async fn until_signal(args: &ApiServerArgs) -> anyhow::Result<()> {
    Ok(serve(args).await?)
}

async fn serve(args: &ApiServerArgs) -> Result<(), RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let server = Server::start(ServerOptions::from(args)).await?;
    if let Some(path) = &args.write_kubeconfig {
        kubeconfig::write(path, &server.admin_kubeconfig().map_err(RunError::Pki)?).map_err(|reason| {
            RunError::Kubeconfig {
                path: path.clone(),
                reason,
            }
        })?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    server.shutdown().await;
    Ok(())
}
