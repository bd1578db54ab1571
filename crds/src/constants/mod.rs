//! Every string both sides must agree on: labels, annotations, finalizers, taints, condition types, reasons, names.
//! They are OCM's; what is Muster's own says so.

pub mod admission;
pub mod annotations;
pub mod conditions;
pub mod finalizers;
pub mod labels;
pub mod names;
pub mod reasons;
pub mod taints;
