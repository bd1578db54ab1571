//! Objects whose `spec` may be absent, as most of OCM's kinds allow.
//!
//! kube's derive makes `spec` mandatory, so one object without it would fail the list it is in. Here an absent (or
//! null) spec reads as the default. The spec's own derives are moved aside with `#[serde(remote = "Self")]`.

use std::{fmt, marker::PhantomData};

use serde::de::{Deserializer, Visitor};

/// Implements serde for a spec that derives it with `#[serde(remote = "Self")]`.
macro_rules! optional_spec {
    ($($spec:ty),+ $(,)?) => {$(
        impl<'de> ::serde::Deserialize<'de> for $spec {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::optional_spec::deserialize(deserializer)
            }
        }

        impl $crate::optional_spec::Present for $spec {
            fn present<'de, D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(deserializer)
            }
        }

        impl ::serde::Serialize for $spec {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, serializer)
            }
        }
    )+};
}
pub(crate) use optional_spec;

/// How a spec that is there reads.
pub(crate) trait Present: Default {
    fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

pub(crate) fn deserialize<'de, T: Present, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_option(OptionalVisitor(PhantomData))
}

struct OptionalVisitor<T>(PhantomData<T>);

impl<'de, T: Present> Visitor<'de> for OptionalVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a spec")
    }

    fn visit_none<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::present(deserializer)
    }
}
