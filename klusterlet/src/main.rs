//! The klusterlet as a program of its own.

use clap::Parser as _;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The agent on a managed cluster: joins it to a hub and applies what the hub says.
#[derive(Debug, clap::Parser)]
#[command(name = "klusterlet", version)]
struct Args {
    #[command(flatten)]
    options: muster_klusterlet::Options,
    #[command(flatten)]
    verbosity: muster_observe::Verbosity,
}

// It waits most of the time: on one thread it computes less and needs less memory. Expressions of works have their own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let filter = match args.verbosity.filter() {
        Some(filter) => EnvFilter::new(filter),
        None => EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| EnvFilter::new("info,kube_client=off,kube_runtime=off")),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        stopped().await;
        token.cancel();
    });
    match muster_klusterlet::run(args.options, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! { () = terminated => {}, _ = tokio::signal::ctrl_c() => {} }
}
