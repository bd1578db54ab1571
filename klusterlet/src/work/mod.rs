//! ManifestWorks: every manifest where it should be, kept there, reported back.
//!
//! `agent` watches and reconciles; `apply` brings one object about with the pure decisions of `drift`, `settings`,
//! `feedback`; `status` and `applied` turn the outcomes into what the hub and the managed cluster record; `watches` tells
//! of every later change; `events` passes on what Kubernetes says about applied objects; `saved` carries the works across
//! a restart without the hub.

pub mod agent;
pub mod applied;
mod apply;
mod bounded;
pub mod contention;
pub mod difference;
pub mod drift;
pub mod dry_run;
mod events;
pub mod feedback;
pub mod health;
pub mod ignore;
pub mod jsonpath;
pub mod manifest;
pub mod objects;
pub mod order;
pub mod pace;
pub mod policy;
pub mod quantity;
pub mod queue;
mod recent;
mod refusals;
pub mod rules;
mod saved;
pub mod settings;
mod state;
pub mod status;
pub mod trust;
mod watches;

pub use agent::{Agent, Settings};
pub use events::WorkEvents;
pub use saved::hub_hash;
pub use watches::{Backoff, is_forbidden};
