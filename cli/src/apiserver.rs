//! `muster apiserver`: the API server alone.

use crate::Error;
use muster_apiserver::kubeconfig;
use muster_apiserver::options::ApiServerArgs;
use muster_apiserver::server::{Server, ServerOptions};
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// Runs until `stop`. The kubeconfig asked for appears, whole, once the server is ready.
pub async fn run(options: &ApiServerArgs, stop: CancellationToken) -> Result<(), Error> {
    let server = Server::start(ServerOptions::from(options)).await?;
    if let Some(path) = &options.write_kubeconfig {
        write_kubeconfig(path, &server.admin_kubeconfig()?)?;
    }
    stop.cancelled().await;
    tracing::info!("stopping");
    server.shutdown().await;
    Ok(())
}

/// Writes a kubeconfig, whole or not at all, readable by its owner alone.
pub fn write_kubeconfig(path: &Path, text: &str) -> Result<(), Error> {
    kubeconfig::write(path, text).map_err(|e| Error::File {
        path: path.to_owned(),
        problem: e.to_string(),
    })
}
