//! `muster`, the one program people use: it starts the parts (API server, hub, klusterlet, all of them in `demo`) and talks
//! to a hub for a person (`get`, `work`, `events`).
//!
//! Commands read and check everything they were given before they write anything; what is wrong is one line on standard
//! error. Exit code 0 is success, 1 an error, 2 wrong usage; of `work diff` 1 is a difference and 2 an error.

pub mod apiserver;
pub mod args;
pub mod complete;
pub mod demo;
pub mod detach;
pub mod error;
pub mod events;
pub mod follow;
pub mod get;
pub mod hub;
pub mod join;
pub mod kubeconfig;
pub mod link;
pub mod manifests;
pub mod names;
pub mod output;
pub mod process;
pub mod table;
pub mod token;
pub mod work;

pub use error::Error;

use args::{Arguments, Command};
use clap::Parser as _;
use std::process::ExitCode;

/// The program: reads the command line, does what it says, and tells how it went.
pub fn main() -> ExitCode {
    complete::answer();
    let arguments = Arguments::parse();
    process::log(arguments.command.log_level(), &arguments.verbosity);
    let failure = match &arguments.command {
        Command::Work(work) if work.what.is_diff() => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    };
    match process::runtime(arguments.command.threads()).and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Differs) => ExitCode::FAILURE,
        Err(error) => {
            output::note(&format!("error: {error}"));
            failure
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Error> {
    match arguments.command {
        Command::Demo(options) => demo::run(&options, process::stop_on_signal()?).await,
        Command::Apiserver(options) => apiserver::run(&options, process::stop_on_signal()?).await,
        Command::Hub(options) => hub::run(*options, process::stop_on_signal()?).await,
        Command::Klusterlet(options) => {
            Ok(muster_klusterlet::run(*options, process::stop_on_signal()?).await?)
        }
        Command::Token(token) => token::run(&token.what, &token.connection, token.output).await,
        Command::Join(join) => join::run(*join, process::stop_on_signal()?).await,
        Command::Detach(detach) => detach::run(&detach.what, &detach.connection).await,
        Command::Get(get) => get::run(&get.what, &get.connection, get.output).await,
        Command::Events(events) => events.what.run(&events.connection, events.output).await,
        Command::Work(work) => work::run(&work.what, &work.connection, work.output).await,
        Command::Completion { shell } => output::print(&complete::script(shell)?),
        Command::Version => output::print(&format!("muster {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

#[cfg(test)]
mod tests;
