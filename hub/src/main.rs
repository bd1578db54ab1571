//! `hub`: the hub alone, on any Kubernetes API server.

use std::io::Write;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Accepts clusters and says what each should run.
#[derive(Parser)]
#[command(name = "hub", version)]
struct Cli {
    #[command(flatten)]
    options: muster_hub::Options,
    #[command(flatten)]
    verbosity: muster_observe::Verbosity,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    // kube's own lines about a failed request or watch repeat what the hub says of it.
    let filter = match cli.verbosity.filter() {
        Some(filter) => EnvFilter::new(filter),
        None => EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| EnvFilter::new("info,kube_client=off,kube_runtime=error")),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match serve(cli.options).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // The line a person reads; nothing can be done when even that cannot be written.
            let _ = writeln!(std::io::stderr(), "hub: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn serve(options: muster_hub::Options) -> anyhow::Result<()> {
    // Already installed is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("ending");
        stop.cancel();
    });
    let connect = muster_hub::connect(options.kubeconfig.as_deref());
    let Some(connected) = shutdown.run_until_cancelled(connect).await else {
        return Ok(());
    };
    let (connected, mut hub) = (connected?, options.hub);
    hub.certificates
        .extend(connected.certificate.map(|validity| ("kubeconfig", validity)));
    Ok(muster_hub::run(connected.client, hub, shutdown).await?)
}
