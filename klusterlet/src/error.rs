//! Why the klusterlet can not start or go on. Each says what, where, and what to do.

use std::path::PathBuf;

/// The klusterlet's errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A kubeconfig can not be used.
    #[error("the {role} kubeconfig {} can not be used: {problem}", path.display())]
    Kubeconfig {
        /// `bootstrap`, `spoke` or `hub`.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A name that Kubernetes would not take.
    #[error("the {what} {name:?} is not valid: {problem}")]
    Name {
        /// Which name.
        what: &'static str,
        /// As given.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An API server can not be reached.
    #[error(
        "the {role} at {server} can not be reached: {problem}; check that it runs and that the kubeconfig names it rightly"
    )]
    Unreachable {
        /// `hub` or `managed cluster`.
        role: &'static str,
        /// Its URL.
        server: String,
        /// Why.
        problem: String,
    },
    /// The hub refuses the bootstrap credential.
    #[error("the hub at {server} refuses the credential of {}: {problem}; it may be expired or wrong: ask the hub's operator for a new bootstrap kubeconfig", path.display())]
    BootstrapRefused {
        /// The hub's URL.
        server: String,
        /// The bootstrap kubeconfig.
        path: PathBuf,
        /// The hub's words.
        problem: String,
    },
    /// The managed cluster refuses what the klusterlet can not do without.
    #[error("the managed cluster refuses to let the klusterlet {what}: {problem}")]
    SpokeRefused {
        /// What was tried.
        what: &'static str,
        /// The server's words.
        problem: String,
    },
    /// A file can not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key or certificate request can not be made.
    #[error("a certificate request can not be made: {0}")]
    Crypto(String),
    /// An option that makes no sense.
    #[error("{0}")]
    Option(String),
}
