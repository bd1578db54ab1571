//! What a process needs before it does anything: log, TLS, runtime, signals.

use crate::Error;
use muster_observe::Verbosity;
use std::io::IsTerminal as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Log to standard error: at `level`, at more with each `-v`, or as `RUST_LOG` says.
pub fn log(level: &'static str, verbosity: &Verbosity) {
    let filter = match verbosity.filter() {
        Some(filter) => EnvFilter::new(filter),
        // The client logs every connection and watch that fails, and its caller gets the error: once is enough.
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| {
            EnvFilter::new(format!(
                "{level},kube_client::client::builder=off,kube_runtime=error"
            ))
        }),
    };
    // Fails only when one is set already, as in tests.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}

/// How many threads a process computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One: what waits most of the time computes a fifth less so, and needs less memory.
    One,
    /// One for each processor.
    Many,
}

/// The runtime, and the one TLS provider of the process.
pub fn runtime(threads: Threads) -> Result<Runtime, Error> {
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Many => tokio::runtime::Builder::new_multi_thread(),
    };
    // Only what is used of it is memory.
    builder.thread_stack_size(muster_apiserver::STACK);
    builder
        .enable_all()
        .build()
        .map_err(|e| Error::Input(format!("can not start threads: {e}")))
}

/// A token that SIGINT (Ctrl-C) or SIGTERM cancels.
pub fn stop_on_signal() -> Result<CancellationToken, Error> {
    let listen = |kind| signal(kind).map_err(|e| Error::Input(format!("can not listen for signals: {e}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        token.cancel();
    });
    Ok(stop)
}
