//! The hub: accepts clusters and says what each should run.
//!
//! It knows its API server only as a [`kube::Client`], and keeps no state of its own: what it decides follows from
//! what is stored there. [`run`] is the whole hub; [`connect`] makes its client from a kubeconfig.

pub mod admission;
mod cache;
pub mod certificate;
mod connect;
mod error;
mod gates;
pub mod install;
pub mod leader;
pub mod metrics;
mod options;
mod pace;
mod queue;
pub mod registration;
mod room;
mod run;
pub mod work;
mod writer;

pub use connect::{Connected, connect};
pub use error::Error;
pub use gates::{Feature, FeatureGate, FeatureGates};
pub use options::{GcResource, HubOptions, Label, Options};
pub use registration::token;
pub use run::run;
