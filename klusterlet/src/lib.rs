//! The klusterlet: joins a managed cluster to its hub, applies what the hub's works embed, keeps it so, and reports back.
//!
//! `registration` gets and renews the credentials and tells the hub about the cluster; `work` applies ManifestWorks. Both
//! speak Open Cluster Management's API and know nothing of which API servers are on either side.

pub mod error;
pub mod gates;
pub mod limits;
pub mod metrics;
pub mod options;
pub mod registration;
pub mod work;

pub use error::Error;
pub use gates::{Gate, Gates};
pub use options::Options;
pub use registration::{run, run_by};
