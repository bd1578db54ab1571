//! What can go wrong at the command line. Each is one line: what, where, and what to do.

use std::path::PathBuf;

/// Errors of the commands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder can not be read or written.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A manifest can not be used.
    #[error("{place}: {problem}")]
    Manifest {
        /// File, document and line.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A kubeconfig can not be used.
    #[error("the kubeconfig {path} can not be used: {problem}")]
    Kubeconfig {
        /// The file, or where it was looked for.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value that makes no sense, whatever is at the hub.
    #[error("{0}")]
    Input(String),
    /// Something differs. Told by the exit code alone.
    #[error("it differs")]
    Differs,
    /// Nobody answers.
    #[error(
        "the hub at {server} can not be reached: {problem}; check that it runs and that the kubeconfig {kubeconfig} names it rightly"
    )]
    Unreachable {
        /// Its URL.
        server: String,
        /// The innermost cause.
        problem: String,
        /// Where the URL comes from.
        kubeconfig: String,
    },
    /// The hub answers, but not to these credentials.
    #[error("the hub at {server} refuses the credentials of the kubeconfig {kubeconfig}: {problem}")]
    Refused {
        /// Its URL.
        server: String,
        /// Its words.
        problem: String,
        /// Where the credentials come from.
        kubeconfig: String,
    },
    /// The server does not serve the kinds of a hub.
    #[error(
        "the server at {server} is no hub: it does not serve {kind}; check --kubeconfig and --context, or run `muster hub` on it"
    )]
    NoHub {
        /// Its URL.
        server: String,
        /// Plural name with group.
        kind: &'static str,
    },
    /// A cluster can not join.
    #[error("can not join the hub at {hub}: {problem}")]
    Join {
        /// Its URL.
        hub: String,
        /// Why not, and what to do.
        problem: String,
    },
    /// A request failed.
    #[error("can not {what}: {problem}")]
    Request {
        /// What was to be done.
        what: String,
        /// The server's words.
        problem: String,
    },
    /// Something that was waited for did not happen.
    #[error("{what} within {seconds} s: {missing}")]
    Late {
        /// What did not happen, as a sentence that goes on with the time.
        what: String,
        /// How long it was waited for.
        seconds: u64,
        /// What was missing last.
        missing: String,
    },
    /// Standard output can not be written.
    #[error("can not write to standard output: {0}")]
    Output(std::io::Error),
    /// A part of what runs here ended although nobody asked it to.
    #[error("{what} ended: {problem}")]
    Ended {
        /// Which part.
        what: String,
        /// Why.
        problem: String,
    },
    /// The klusterlet's own.
    #[error(transparent)]
    Klusterlet(#[from] muster_klusterlet::Error),
    /// The hub's own.
    #[error(transparent)]
    Hub(#[from] muster_hub::Error),
    /// The API server's own.
    #[error("{}{}", .0, advice(.0))]
    ApiServer(#[from] muster_apiserver::server::ServerError),
    /// Certificates can not be made.
    #[error("can not make the credentials of a kubeconfig: {0}")]
    Pki(#[from] muster_apiserver::pki::PkiError),
}

/// What to do about a server that does not start, where that is known.
fn advice(error: &muster_apiserver::server::ServerError) -> &'static str {
    use muster_apiserver::serve::ServeError;
    use muster_apiserver::server::ServerError;
    match error {
        ServerError::Serve(ServeError::InUse(_) | ServeError::Listen(..)) => {
            "; choose another address with --bind, port 0 for any free one"
        }
        _ => "",
    }
}

/// The cause that says most: layers above it only repeat that something failed. One line.
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let status = cause.downcast_ref::<kube::core::Status>();
    match status.or_else(|| cause.downcast_ref::<Box<kube::core::Status>>().map(AsRef::as_ref)) {
        Some(status) if !status.message.is_empty() => one_line(&status.message),
        Some(status) => one_line(&status.reason),
        None => one_line(&cause.to_string()),
    }
}

/// The same text without line breaks.
pub fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn the_servers_words_are_told_once() {
        let status = Status::failure("no, \nnever", "Forbidden").with_code(403);
        assert_eq!(innermost(&kube::Error::Api(Box::new(status))), "no,; never");
        let io = std::io::Error::other("refused");
        assert_eq!(innermost(&kube::Error::ReadEvents(io)), "refused");
    }
}
