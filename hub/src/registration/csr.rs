//! Whether a certificate request is one of a cluster's agent (ocm-wire §2.4), and exactly that.
//!
//! Stricter than OCM where no honest agent notices: no alternative names, no claim to be an authority, no other
//! part of the subject than CN and O, no usages beyond a client's. Names are compared whole, never by prefix.

#[cfg(test)]
mod forge;
mod subject;
#[cfg(test)]
mod tests;

use muster_crds::{constants::names, names as naming};

use super::view::CsrView;

/// Why a request is none of ours to approve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It says for no cluster.
    #[error("it has no label with its cluster's name")]
    NoCluster,
    /// What it says is no cluster's name.
    #[error("its label names no cluster: {0:?} is not a DNS label")]
    BadCluster(String),
    /// Somebody else signs it.
    #[error("its signer is {0:?}")]
    Signer(String),
    /// It asks for more, or other, than a client needs.
    #[error("its usages are {0:?}")]
    Usages(Vec<String>),
    /// It cannot be read.
    #[error("its request is not exactly one PEM block CERTIFICATE REQUEST with a readable request")]
    Unreadable,
    /// Its subject has something other than CN and O, or not exactly one CN.
    #[error("its subject is {0:?}")]
    Subject(String),
    /// It asks for alternative names.
    #[error("it asks for alternative names")]
    AlternativeNames,
    /// It asks to be an authority.
    #[error("it asks to be an authority")]
    Authority,
    /// It asks for other groups than its cluster's.
    #[error("its groups are {0:?}")]
    Groups(Vec<String>),
    /// Its user is no agent.
    #[error("its user is {0:?}, which is no agent's")]
    User(String),
    /// Its label and its subject name different clusters.
    #[error("its label names cluster {label:?}, its subject cluster {subject:?}")]
    OtherCluster {
        /// Cluster by label.
        label: String,
        /// Cluster by subject.
        subject: String,
    },
}

/// Who a valid request makes its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The cluster.
    pub cluster: String,
    /// The agent's id.
    pub agent: String,
}

impl Agent {
    /// The user name of the certificate.
    pub fn user(&self) -> String {
        naming::user(&self.cluster, &self.agent)
    }
}

const USAGES: [&str; 3] = ["digital signature", "key encipherment", "client auth"];

/// Which agent the request is for, or why it is none's.
pub fn validate(csr: &CsrView) -> Result<Agent, Reason> {
    let cluster = csr
        .cluster
        .as_deref()
        .filter(|name| !name.is_empty())
        .ok_or(Reason::NoCluster)?;
    if !naming::is_cluster_name(cluster) {
        return Err(Reason::BadCluster(cluster.to_owned()));
    }
    if csr.signer != names::KUBE_API_SERVER_CLIENT_SIGNER {
        return Err(Reason::Signer(csr.signer.clone()));
    }
    let known = csr.usages.iter().all(|usage| USAGES.contains(&usage.as_str()));
    if !known || !csr.usages.iter().any(|usage| usage == "client auth") {
        return Err(Reason::Usages(csr.usages.clone()));
    }
    let (user, mut groups) = subject::read(&csr.request)?;
    groups.remove(names::MANAGED_CLUSTERS_GROUP);
    if groups.len() != 1 || !groups.contains(&naming::cluster_group(cluster)) {
        return Err(Reason::Groups(groups.into_iter().collect()));
    }
    let Some((subject, agent)) = naming::parse_user(&user) else {
        return Err(Reason::User(user));
    };
    if subject != cluster {
        return Err(Reason::OtherCluster {
            label: cluster.to_owned(),
            subject: subject.to_owned(),
        });
    }
    Ok(Agent {
        cluster: cluster.to_owned(),
        agent: agent.to_owned(),
    })
}
