//! Who is asking, and may they: authentication by certificate or token, authorization by RBAC objects in the store.

mod authenticator;
mod authorizer;
mod impersonate;
mod jwt;
mod policy;
pub mod rbac;
pub mod review;
pub mod revocation;
pub mod rules;
pub mod tokens;
pub mod types;

#[cfg(test)]
mod tests;

pub use authenticator::{Authenticator, StaticToken};
pub use authorizer::{Authorizer, Rules};
pub use jwt::{ServiceAccountKeys, openid_configuration};
pub use policy::bootstrap_policy;
pub use rules::Rule;
pub use types::{
    ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, Attributes, Decision, LOOPBACK, SYSTEM_MASTERS,
    UserInfo,
};
