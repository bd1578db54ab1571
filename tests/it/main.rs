//! Integration tests, one binary: a module an area. They run on the embedded API server by default, on real control planes
//! with `KUBEBUILDER_ASSETS`, on a cluster that is there with `MUSTER_TEST_KUBECONFIG`.

// What is skipped is said.
#![allow(clippy::print_stderr)]

mod admission;
mod apiserver;
mod cli;
mod crash;
mod crash_store;
mod demo;
mod deploy;
mod diff;
mod doubt;
mod events;
mod executor;
mod interop;
mod kubectl;
mod laws;
mod operator;
mod profiles;
mod rates;
mod registration;
mod standalone;
mod work;

/// The `muster` program.
const MUSTER: &str = env!("CARGO_BIN_EXE_muster-under-test");

/// What tests return; an error says what was missing.
type Result = anyhow::Result<()>;
