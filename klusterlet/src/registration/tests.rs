//! Registration as a whole, in virtual time, against a scripted hub and cluster.

mod errors;
mod flow;
mod hubs;
mod patience;
mod rebootstrap;
mod several;
mod stub;
mod told;
