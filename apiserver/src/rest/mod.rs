//! Everything between an authenticated request and the store.

pub mod discovery;
pub mod openapi;
pub mod table;
