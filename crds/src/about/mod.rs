//! Group `about.k8s.io` (KEP-2149): what a cluster says about itself.

pub mod v1alpha1;

/// The API group of this module's kinds.
pub const GROUP: &str = "about.k8s.io";
