//! The API server alone.

use anyhow::Context;
use clap::Parser;
use muster_apiserver::options::ApiServerArgs;
use muster_apiserver::run;
use std::process::ExitCode;

/// An embedded Kubernetes API server.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    args: ApiServerArgs,
}

#[allow(clippy::print_stderr)] // the one line that says why it ended
fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(muster_apiserver::STACK)
        .enable_all()
        .build();
    let ended = runtime
        .context("cannot start")
        .and_then(|r| r.block_on(run::until_signal(&cli.args)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
