//! Who is asking, and may they: authentication by certificate or token, authorization by RBAC objects in the store.

pub mod types;

pub use types::{
    ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, Attributes, Decision, SYSTEM_MASTERS, UserInfo,
};
