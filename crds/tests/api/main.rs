//! The API as others see it: CRDs, what goes over the wire, conditions, names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, but not in the functions tests share"
)]

mod conditions;
mod conversion;
mod names;
mod schemas;
mod wire;
