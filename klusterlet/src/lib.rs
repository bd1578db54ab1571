//! The klusterlet: joins a managed cluster to its hub, applies what the hub's works embed, keeps it so, and reports back.

pub mod work;
