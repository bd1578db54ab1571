//! Group `addon.open-cluster-management.io`: add-ons, served in two versions.

mod common;
pub mod conversion;
mod identical;
pub mod v1alpha1;
pub mod v1beta1;

/// The API group of this module's kinds.
pub const GROUP: &str = "addon.open-cluster-management.io";
