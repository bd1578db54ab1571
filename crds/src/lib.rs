//! The API of Muster: the kinds of Open Cluster Management (OCM) as Rust types, every name both sides must agree
//! on, condition helpers, and the CustomResourceDefinitions made from the types.
//!
//! No client, no clock, no runtime: hub, klusterlet and tests share it without pulling in each other.

pub mod about;
pub mod addon;
pub mod cluster;
pub mod conditions;
pub mod constants;
pub mod crds;
mod manifest;
pub mod multicluster;
pub mod names;
mod optional_spec;
pub mod schema;
pub mod storage;
pub mod validity;
pub mod work;

pub use manifest::Manifest;
