//! What can go wrong in the hub, said so that a person knows what, where and what to do.

use std::path::PathBuf;

/// Errors of the hub.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be read or makes no sense.
    #[error(
        "cannot use kubeconfig {path}: {}; give --kubeconfig FILE a readable kubeconfig of the hub",
        innermost(.source)
    )]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<kube::config::KubeconfigError>,
    },
    /// The kubeconfig reads well, but no client can be made of it.
    #[error(
        "cannot make a client from kubeconfig {path}: {}; check its certificates and keys",
        innermost(.source)
    )]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// Neither a kubeconfig was given nor does the process run in a cluster.
    #[error("no hub to connect to: give --kubeconfig FILE, or run in a pod of the hub")]
    NoKubeconfig {
        /// Why the environment does not help.
        source: Box<kube::config::InferConfigError>,
    },
    /// Nobody answers at the hub's address.
    #[error(
        "the hub API at {url} does not answer: {reason}; check that it runs and that this machine can reach it"
    )]
    Unreachable {
        /// Address in the kubeconfig.
        url: String,
        /// The innermost cause.
        reason: String,
    },
    /// The hub's API answers, but not to these credentials.
    #[error(
        "the hub API at {url} refuses the credentials of the kubeconfig: {reason}; use those of a hub administrator"
    )]
    Refused {
        /// Address in the kubeconfig.
        url: String,
        /// What it said.
        reason: String,
    },
    /// One request failed.
    #[error("cannot {what}: {}", innermost(.source))]
    Request {
        /// What was to be done, like `create Namespace cluster1`.
        what: String,
        /// What the client says.
        source: Box<kube::Error>,
    },
    /// One request took too long.
    #[error("cannot {what}: no answer within {seconds} s")]
    Timeout {
        /// What was to be done.
        what: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The API server has no room, so that the write was not even tried.
    #[error("cannot {what}: the hub's API server has no room to store anything")]
    NoRoom {
        /// What was to be done.
        what: String,
    },
    /// Several writes failed; they are joined in one line.
    #[error("{0}")]
    Several(String),
    /// An option makes no sense.
    #[error("{0}")]
    Option(String),
    /// An address to listen on cannot be had.
    #[error("{0}")]
    Listen(String),
    /// A part of the hub ended although nobody asked it to.
    #[error("the hub's {0} ended unexpectedly; restart the hub")]
    Ended(&'static str),
}

impl Error {
    /// For `map_err`: the request that `what` describes failed.
    pub(crate) fn request(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        |source| Self::Request {
            what,
            source: Box::new(source),
        }
    }

    /// The API's answer, when there was one.
    pub(crate) fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the API server has no room to store anything.
    pub(crate) fn is_no_room(&self) -> bool {
        matches!(self, Self::NoRoom { .. })
            || self
                .status()
                .is_some_and(|status| muster_crds::storage::is_full(status.code, &status.message))
    }

    /// Whether somebody else wrote first: look again and decide anew.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409)
    }

    /// Whether the same request will never succeed, so that a person has to know.
    pub(crate) fn is_permanent(&self) -> bool {
        self.status()
            .is_some_and(|status| matches!(status.code, 400 | 401 | 403 | 405 | 413 | 415 | 422))
    }
}

/// The cause that says most: layers above it only repeat that something failed.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<kube::core::Status>() {
        Some(status) if !status.message.is_empty() => status.message.clone(),
        Some(status) => status.reason.clone(),
        // A parser draws the place in further lines.
        None => cause.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}
