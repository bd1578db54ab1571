//! The test kit: control planes, fleets, the `muster` program as processes, and waiting for what must become true.
//!
//! A [`ControlPlane`] is the embedded API server over real TLS on loopback, a real kube-apiserver with its etcd
//! (`KUBEBUILDER_ASSETS`), or somebody's cluster (`MUSTER_TEST_KUBECONFIG`); a [`Fleet`] is a hub and klusterlets on control
//! planes. A test written against these two runs on all three.
#![allow(clippy::missing_panics_doc)] // a failed expectation is what a test kit panics for
#![allow(clippy::print_stderr)] // seeds and skips are told to whoever runs the tests

pub mod assets;
pub mod control_plane;
pub mod deploy;
pub mod faults;
pub mod fleet;
pub mod impostor;
pub mod kube;
pub mod objects;
pub mod program;
pub mod proxy;
pub mod seed;
pub mod tokens;
pub mod wait;
pub mod webhook;

pub use control_plane::ControlPlane;
pub use faults::Faults;
pub use fleet::{Cluster, Fleet, FleetOptions};
pub use impostor::{Answer, Impostor};
pub use kube::Kube;
pub use muster::link::Link;
pub use program::Program;
pub use proxy::Proxy;
pub use seed::Seed;
pub use wait::eventually;
pub use webhook::{Does, Webhook};
