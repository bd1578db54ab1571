//! What a ManagedCluster says of a request for its first certificate that was denied: whoever looks at a cluster that does not
//! come sees why, without knowing of certificate requests.

use muster_crds::{
    conditions::{NewCondition, Status, is_true},
    constants::{conditions::JOIN_REFUSED, reasons},
};

use super::view::ClusterView;

/// The condition that says so. Not at a name somebody has: who asks for it in vain writes nothing about another's cluster. And
/// not at a cluster that is kept out, which says that already.
pub fn told(cluster: &ClusterView, reason: &'static str, message: &str) -> Option<NewCondition> {
    let nobodys = cluster.agent.is_none();
    let told = [reasons::CSR_TOKEN_REFUSED, reasons::CSR_CLUSTER_NAME_RESERVED];
    (nobodys && told.contains(&reason))
        .then(|| NewCondition::new(JOIN_REFUSED, Status::True, reason, message))
}

/// The condition once the cluster got a certificate after all; none where nothing was said.
pub fn over(cluster: &ClusterView) -> Option<NewCondition> {
    is_true(&cluster.conditions, JOIN_REFUSED).then(|| {
        NewCondition::new(
            JOIN_REFUSED,
            Status::False,
            reasons::CERTIFICATE_ISSUED,
            "A later request was approved",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use muster_crds::conditions::set_condition;

    #[test]
    fn only_a_name_that_nobody_has_says_that_somebody_was_refused() {
        let nobodys = ClusterView::default();
        let somebodys = ClusterView {
            agent: Some("a1".to_owned()),
            ..ClusterView::default()
        };
        for (cluster, reason, wanted) in [
            (&nobodys, reasons::CSR_TOKEN_REFUSED, true),
            (&nobodys, reasons::CSR_CLUSTER_NAME_RESERVED, true),
            (&nobodys, reasons::CSR_CLUSTER_DENIED, false),
            (&somebodys, reasons::CSR_TOKEN_REFUSED, false),
            (&somebodys, reasons::CSR_CLUSTER_NAME_TAKEN, false),
        ] {
            assert_eq!(told(cluster, reason, "why").is_some(), wanted, "{reason}");
        }
    }

    #[test]
    fn it_is_over_once() {
        let mut cluster = ClusterView::default();
        assert!(over(&cluster).is_none());
        let refused = told(&cluster, reasons::CSR_TOKEN_REFUSED, "why").unwrap();
        set_condition(&mut cluster.conditions, refused, Timestamp::UNIX_EPOCH);
        let ended = over(&cluster).unwrap();
        set_condition(&mut cluster.conditions, ended, Timestamp::UNIX_EPOCH);
        assert!(over(&cluster).is_none());
    }
}
