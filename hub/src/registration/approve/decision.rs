//! What becomes of a certificate request, decided from what is known of it, its cluster and its join token.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use muster_crds::{
    conditions::{find, is_true},
    constants::{annotations, conditions, labels, names, reasons},
    validity::Validity,
};
use serde_json::{Value, json};

use super::super::{
    accept,
    csr::{self, Agent},
    rbac::with_former,
    token::{self, Grant, TokenView},
    view::{ClusterView, CsrView},
};

/// What a decision about a request starts from.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The request.
    pub csr: &'a CsrView,
    /// The join token its requester came with.
    pub token: Option<&'a TokenView>,
    /// The cluster it says it is for.
    pub cluster: Option<&'a ClusterView>,
    /// A later request of the same cluster is approved.
    pub superseded: bool,
    /// The namespace that the hub itself is in.
    pub hub: Option<&'a str>,
}

/// What a join token's holder gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Who comes.
    pub agent: Agent,
    /// The token's id.
    pub token: String,
    /// All who came with it, when that is counted and this one is new.
    pub used_by: Option<BTreeSet<String>>,
    /// What to change at the ManagedCluster first.
    pub patch: Option<Value>,
    /// Whether that lets the cluster in.
    pub lets_in: bool,
}

/// What to do about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is decided, and what follows from that is done.
    Nothing,
    /// Nothing; a person may.
    Leave(String),
    /// Nothing until something about its cluster changes.
    Wait(String),
    /// Approve when the hub lets its requester renew.
    AskRenewal(Agent),
    /// Approve.
    Approve(Agent),
    /// Approve when the bootstrap token it was made with is there, and none that `muster token create` made.
    AskToken(Agent, String),
    /// Approve, after what its join token brings.
    Admit(Admission),
    /// Deny.
    Deny {
        /// Why, in CamelCase.
        reason: &'static str,
        /// Why, for people.
        message: String,
    },
    /// Write down who got a certificate, and when it is good.
    Record(Agent, Validity),
    /// The same, but not before that time.
    RecordAt(Timestamp),
}

/// Whose first requests are approved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Users.
    pub users: Vec<String>,
    /// Groups. Whoever holds a join token is held to it, whatever groups it brings.
    pub groups: Vec<String>,
}

impl Trusted {
    fn has_user(&self, csr: &CsrView) -> bool {
        self.users.contains(&csr.user)
    }

    fn has_group(&self, csr: &CsrView) -> bool {
        csr.groups.iter().any(|group| self.groups.contains(group))
    }
}

/// Decides about a request.
pub fn decide(observed: Observed<'_>, trusted: &Trusted, now: Timestamp) -> Decision {
    let Observed { csr, cluster, .. } = observed;
    if csr.decided {
        return match (&csr.approved, cluster) {
            (Some(_), None) => Decision::Wait("its cluster is not there yet".to_owned()),
            (Some(agent), Some(cluster)) => match csr.issued {
                Some(issued) if news(csr, agent, issued, cluster) && !observed.superseded => {
                    match settled(csr, agent, cluster, now) {
                        Some(settled) => Decision::RecordAt(settled),
                        None => Decision::Record(agent.clone(), issued),
                    }
                }
                _ => Decision::Nothing,
            },
            (None, _) => Decision::Nothing,
        };
    }
    let agent = match csr::validate(csr) {
        Ok(agent) => agent,
        Err(reason) => return Decision::Leave(reason.to_string()),
    };
    // Whoever asks, and before the certificate is signed: nobody is to hold one for a name that no cluster can have.
    if let Some(message) = accept::refuse(&agent.cluster, observed.hub) {
        return Decision::Deny {
            reason: reasons::CSR_CLUSTER_NAME_RESERVED,
            message,
        };
    }
    if csr.user == agent.user() {
        // Rights go by the cluster's group: a former agent of the name still has a certificate in it, but gets no other.
        return match cluster.and_then(|cluster| cluster.agent.as_ref()) {
            Some(known) if *known != agent.agent => Decision::Leave(format!(
                "a person has to approve it: agent {known:?} has the name {} now",
                agent.cluster
            )),
            // Its rights may not be withdrawn yet.
            _ if cluster.is_some_and(|cluster| !cluster.accepts) => {
                Decision::Wait("the hub does not let its cluster in".to_owned())
            }
            _ if cluster.is_none() => Decision::Wait("its cluster is not there".to_owned()),
            _ => Decision::AskRenewal(agent),
        };
    }
    // Whoever holds a join token is held to it, whatever groups it brings.
    if trusted.has_user(csr) || (observed.token.is_none() && trusted.has_group(csr)) {
        if let Some(why) = cluster.and_then(|cluster| taken(cluster, &agent, now)) {
            return Decision::Wait(format!("it is not approved by itself: {why}"));
        }
        return match csr.user.strip_prefix(names::BOOTSTRAP_USER_PREFIX) {
            Some(id) if !trusted.has_user(csr) => Decision::AskToken(agent, id.to_owned()),
            _ => Decision::Approve(agent),
        };
    }
    match (token::token_id(&csr.user, &csr.groups), observed.token) {
        (Some(id), Some(token)) => admit(agent, id, token, cluster, now),
        _ => Decision::Leave(format!(
            "a person has to approve it: its requester {:?} is not trusted to",
            csr.user
        )),
    }
}

/// When the agent of a certificate that was renewed has had time to say so itself. OCM's says it once, in the status and at the
/// revision it knows: a write of the hub's at the same moment would make it lose that. A first certificate is written down at
/// once, for it says whose the name is; and so is one whose approver's clock is ahead.
fn settled(csr: &CsrView, agent: &Agent, cluster: &ClusterView, now: Timestamp) -> Option<Timestamp> {
    let renewed = cluster.agent.as_ref() == Some(&agent.agent) && cluster.certificate.is_some();
    let approved = csr.approved_at.filter(|at| renewed && *at <= now)?;
    let settled = approved.checked_add(TO_SAY_SO).ok()?;
    (now < settled).then_some(settled)
}

/// Approvals are dated in whole seconds.
const TO_SAY_SO: SignedDuration = SignedDuration::from_secs(4);

/// Whether a certificate that was issued is not written down yet: this agent's, later than the one that is known, or another
/// agent's, who has the name now. A request older than the cluster is of a former one of that name, unless it was approved
/// for this one: its agent has the name, or the approval is not older than the cluster.
fn news(csr: &CsrView, agent: &Agent, issued: Validity, cluster: &ClusterView) -> bool {
    let known = cluster.certificate.map(|known| known.not_before);
    let same = cluster.agent.as_ref() == Some(&agent.agent);
    let later = !same || known.is_none_or(|known| known < issued.not_before);
    let former = csr.created.max(csr.approved_at) < cluster.created && !same;
    !cluster.deleting && !former && later
}

/// What the holder of a join token gets.
fn admit(
    agent: Agent,
    id: &str,
    token: &TokenView,
    cluster: Option<&ClusterView>,
    now: Timestamp,
) -> Decision {
    let name = agent.cluster.as_str();
    let grant = match token.check(name, now) {
        Ok(grant) => grant,
        Err(why) => {
            return Decision::Deny {
                reason: reasons::CSR_TOKEN_REFUSED,
                message: format!("the join token {id} {why}"),
            };
        }
    };
    let Some(cluster) = cluster.filter(|cluster| !cluster.deleting) else {
        return Decision::Wait(format!(
            "ManagedCluster {name} is not there yet, or is being deleted"
        ));
    };
    if let Some(message) = taken(cluster, &agent, now) {
        // Who has it may never come: a klusterlet that was started again under another agent's name, for one.
        if !is_true(&cluster.conditions, conditions::JOINED) {
            return Decision::Wait(message);
        }
        return Decision::Deny {
            reason: reasons::CSR_CLUSTER_NAME_TAKEN,
            message,
        };
    }
    if !cluster.accepts && cluster.was_let_in() {
        return Decision::Deny {
            reason: reasons::CSR_CLUSTER_DENIED,
            message: format!("the hub's administrator keeps cluster {name} out"),
        };
    }
    // It is let in already, by somebody who did not mean this agent: only a token that lets clusters in brings another.
    if cluster.accepts && !grant.accept && !is_known(cluster, &agent, id) {
        return Decision::Leave(format!(
            "a person has to approve it: cluster {name} is accepted already, and the join token {id} accepts none"
        ));
    }
    let used_by = (grant.uses.is_some() && !token.used_by.contains(name)).then(|| {
        let mut all = token.used_by.clone();
        all.insert(name.to_owned());
        all
    });
    Decision::Admit(Admission {
        patch: bring(grant, id, cluster, &agent),
        token: id.to_owned(),
        used_by,
        lets_in: grant.accept && !cluster.accepts,
        agent,
    })
}

/// Whether it is the agent that the cluster has, with the token that it came with.
fn is_known(cluster: &ClusterView, agent: &Agent, id: &str) -> bool {
    cluster.agent.as_ref() == Some(&agent.agent) && cluster.token.as_deref() == Some(id)
}

/// What is to change at the ManagedCluster; what the token brings, it brings once, and where there is nothing yet: an
/// administrator may choose otherwise.
fn bring(grant: &Grant, id: &str, cluster: &ClusterView, agent: &Agent) -> Option<Value> {
    let mut metadata = serde_json::Map::new();
    let mut patch = serde_json::Map::new();
    if cluster.token.as_deref() != Some(id) {
        let chosen = cluster.labels.keys().any(|key| key != labels::CLUSTER_SET);
        let mut wanted = grant.labels.clone();
        wanted.retain(|_, _| !chosen);
        let set = cluster.set.as_deref().unwrap_or_default();
        let nowhere = set.is_empty() || set == names::DEFAULT_CLUSTER_SET;
        if let Some(set) = grant.set.as_ref().filter(|_| nowhere) {
            wanted.insert(labels::CLUSTER_SET.to_owned(), set.clone());
        }
        if !wanted.is_empty() {
            metadata.insert("labels".to_owned(), json!(wanted));
        }
    }
    if cluster.token.as_deref() != Some(id) || cluster.agent.as_ref() != Some(&agent.agent) {
        let mut notes = noted(cluster, agent);
        notes[annotations::JOINED_WITH] = id.into();
        metadata.insert("annotations".to_owned(), notes);
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    if grant.accept && !cluster.accepts {
        patch.insert("spec".to_owned(), json!({"hubAcceptsClient": true}));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The annotations that say which agent has the name, and which had it before.
pub(super) fn noted(cluster: &ClusterView, agent: &Agent) -> Value {
    let mut notes = json!({annotations::AGENT: agent.agent});
    if let Some(other) = cluster.agent.as_ref().filter(|other| **other != agent.agent) {
        notes[annotations::FORMER_AGENTS] = with_former(&cluster.former, other).join(",").into();
    }
    notes
}

/// Why the cluster's name cannot be had: another agent has it and is alive, as far as anybody can tell.
fn taken(cluster: &ClusterView, agent: &Agent, now: Timestamp) -> Option<String> {
    // Not yet, or now: it is Unknown once it should have been.
    let heard_of =
        find(&cluster.conditions, conditions::CLUSTER_AVAILABLE).is_none_or(|one| one.status != "Unknown");
    let name = &cluster.name;
    match &cluster.agent {
        Some(other) if *other == agent.agent => None,
        // One that waits to be accepted has no lease to be heard of by. Who is accepted is who asked first.
        Some(other) if !cluster.accepts && !cluster.was_let_in() => {
            let good = cluster.certificate.is_none_or(|one| now < one.not_after);
            good.then(|| {
                format!(
                    "the name {name} is taken: agent {other:?} of a cluster with that name waits to be accepted; \
                     join under another name, or detach it"
                )
            })
        }
        Some(other) => (cluster.accepts && heard_of).then(|| {
            format!(
                "the name {name} is taken: agent {other:?} of a cluster with that name is alive; \
                 join under another name, or stop that agent and wait until the cluster is Unknown, or detach it"
            )
        }),
        // It joined before this hub wrote down who does.
        None => {
            let joined = is_true(&cluster.conditions, conditions::JOINED);
            (cluster.accepts && joined && heard_of).then(|| {
                format!(
                    "the name {name} is taken: a cluster with that name is alive; join under another name, or stop its \
                     agent and wait until the cluster is Unknown, or detach it"
                )
            })
        }
    }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
