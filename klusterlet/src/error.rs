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
    /// The bootstrap credential is known, but may not do what is needed.
    #[error("the hub at {server} does not let the credential of {} {what}: {problem}", path.display())]
    Forbidden {
        /// The hub's URL.
        server: String,
        /// The bootstrap kubeconfig.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The hub's words.
        problem: String,
    },
    /// The bootstrap credential may not register a cluster of this name.
    #[error(
        "the hub at {server} does not let this credential register a cluster named {cluster:?}: {problem}; give another --cluster-name, or ask the hub's operator to make the ManagedCluster"
    )]
    NameForbidden {
        /// The name.
        cluster: String,
        /// The hub's URL.
        server: String,
        /// The hub's words.
        problem: String,
    },
    /// Another cluster works under the name.
    #[error(
        "the name {cluster:?} is taken at the hub at {server}: {problem}; give another --cluster-name, or delete the ManagedCluster there first"
    )]
    NameTaken {
        /// The name.
        cluster: String,
        /// The hub's URL.
        server: String,
        /// Who has it.
        problem: String,
    },
    /// The server's certificate is not to be trusted.
    #[error("the hub at {server} can not be trusted with the CA of {}: {problem}", path.display())]
    Untrusted {
        /// The hub's URL.
        server: String,
        /// The kubeconfig.
        path: PathBuf,
        /// What is wrong with the certificate.
        problem: String,
    },
    /// The server answers, but is no hub.
    #[error(
        "the server at {server} is no hub, it does not serve ManagedClusters: {problem}; check the server in the bootstrap kubeconfig"
    )]
    NotAHub {
        /// Its URL.
        server: String,
        /// Its words.
        problem: String,
    },
    /// The hub could not do what was asked.
    #[error("the hub at {server}: {problem}")]
    Hub {
        /// The hub's URL.
        server: String,
        /// The hub's words.
        problem: String,
    },
    /// There is no certificate.
    #[error(transparent)]
    Csr(Box<crate::registration::csr::CsrError>),
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
