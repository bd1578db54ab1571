//! Integration tests, one binary: a module an area. They run on the embedded API server by default, on real control planes
//! with `KUBEBUILDER_ASSETS`, on a cluster that is there with `MUSTER_TEST_KUBECONFIG`.

mod crash_store;
mod laws;
mod registration;
mod work;

/// What tests return; an error says what was missing.
type Result = anyhow::Result<()>;
