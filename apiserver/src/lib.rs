//! An embedded Kubernetes API server: one generic REST stack over a table of resource kinds.
//!
//! A request runs through `serve` (TLS, who is it) → `auth` (may it) → `rest` (verbs, one handler for all kinds) →
//! `registry` (what a kind is, its defaults and rules) with `schema` and `patch` → `store` (MVCC, durable on redb).
//! `controllers` do what kube-controller-manager does for the kinds that matter here; `simulate` makes a cluster look alive.

pub mod auth;
pub mod controllers;
pub mod error;
pub mod kubeconfig;
pub mod object;
pub mod options;
pub mod patch;
pub mod pki;
pub mod registry;
pub mod rest;
pub mod run;
pub mod schema;
pub mod serve;
pub mod server;
pub mod simulate;
pub mod store;

#[cfg(test)]
mod fuzz;

pub use error::ApiError;

/// How large the stacks of threads that serve have to be: expressions and objects are as deep as clients make them, within
/// bounds that fit. Only what is used of a stack is memory.
pub const STACK: usize = 32 << 20;
