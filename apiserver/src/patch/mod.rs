//! Everything that turns an object and a patch into a new object, and who owns which field of it.
//!
//! `json`, `strategic` and `configuration` change objects; `fieldset` and `path` describe sets of fields; `typed`, `diff` and `merge` read
//! an object by its schema; `apply` and `managed` are server-side apply and its bookkeeping (KEP-555).

pub mod apply;
mod configuration;
mod diff;
pub mod fieldset;
mod fit;
mod json;
pub mod managed;
mod merge;
pub mod path;
mod strategic;
mod typed;

#[cfg(test)]
mod tests;

pub use apply::check as check_configuration;
pub use configuration::configured;
pub use fieldset::FieldSet;
pub use fit::go_plain;
pub use json::{json_patch, json_patch_unknown, merge_patch, steps};
pub use strategic::strategic_merge;
