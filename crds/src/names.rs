//! Names that hub and klusterlet build and take apart in the same way (ocm-wire §2.1, §2.5, §3.1).

use crate::constants::names::{GROUP_PREFIX_EXTRA, MANAGED_CLUSTER_ROLE_PREFIX, USER_PREFIX};

/// The user name (certificate CN) of a cluster's agent.
pub fn user(cluster: &str, agent: &str) -> String {
    format!("{USER_PREFIX}{cluster}:{agent}")
}

/// The group (certificate O) of a cluster's agents.
pub fn cluster_group(cluster: &str) -> String {
    format!("{USER_PREFIX}{cluster}")
}

/// The other group a cluster's agents may come with: some providers reserve the `system:` prefix. RBAC binds both.
pub fn extra_cluster_group(cluster: &str) -> String {
    format!("{GROUP_PREFIX_EXTRA}{cluster}")
}

/// Takes a user name apart into cluster and agent: exactly two parts, a cluster that is not empty and [an
/// agent](is_agent_name).
pub fn parse_user(user: &str) -> Option<(&str, &str)> {
    let (cluster, agent) = user.strip_prefix(USER_PREFIX)?.split_once(':')?;
    (!cluster.is_empty() && is_agent_name(agent)).then_some((cluster, agent))
}

/// Whether `name` can be an agent's: it is listed with others in annotations, and shown in logs. Letters, digits, `-`, `_` and
/// `.`, 1 to 253 of them.
pub fn is_agent_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// ClusterRole, and ClusterRoleBinding, of one cluster's agents.
pub fn cluster_role(cluster: &str) -> String {
    format!("{MANAGED_CLUSTER_ROLE_PREFIX}{cluster}")
}

/// RoleBinding in the cluster's namespace that lets its agent register.
pub fn registration_role_binding(cluster: &str) -> String {
    format!("{MANAGED_CLUSTER_ROLE_PREFIX}{cluster}:registration")
}

/// RoleBinding in the cluster's namespace that lets its agent work.
pub fn work_role_binding(cluster: &str) -> String {
    format!("{MANAGED_CLUSTER_ROLE_PREFIX}{cluster}:work")
}

/// The `generateName` of a cluster's CSRs.
pub fn csr_generate_name(cluster: &str) -> String {
    format!("{cluster}-")
}

/// The `generateName` of an add-on agent's CSRs.
pub fn addon_csr_generate_name(cluster: &str, addon: &str) -> String {
    format!("addon-{cluster}-{addon}-")
}

/// The AppliedManifestWork of a work from the hub of that hash (lower-case hex SHA-256 of the hub's address).
pub fn applied_manifest_work_name(hub_hash: &str, work: &str) -> String {
    format!("{hub_hash}-{work}")
}

/// Whether `name` can be a cluster's: it names a namespace too, so a DNS-1123 label (RFC 1123).
pub fn is_cluster_name(name: &str) -> bool {
    validate_cluster_name(name).is_ok()
}

/// Why `name` cannot be a cluster's, in words that can follow the name.
pub fn validate_cluster_name(name: &str) -> Result<(), &'static str> {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return Err("must not be empty");
    };
    if bytes.len() > 63 {
        return Err("must be no more than 63 characters");
    }
    if !bytes.iter().all(|&c| alphanumeric(c) || c == b'-') {
        return Err("must hold only lower case letters, digits and '-'");
    }
    if !alphanumeric(first) || !alphanumeric(last) {
        return Err("must start and end with a lower case letter or a digit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_one_cluster_and_one_agent() {
        for (user, wanted) in [
            ("system:open-cluster-management:c1:a1", Some(("c1", "a1"))),
            (
                "system:open-cluster-management:c1:8b2fbd0e-6c4b.x_y",
                Some(("c1", "8b2fbd0e-6c4b.x_y")),
            ),
            ("system:open-cluster-management:c1", None),
            ("system:open-cluster-management:c1:", None),
            ("system:open-cluster-management::a1", None),
            ("system:open-cluster-management:c1:a1:b", None),
            ("system:open-cluster-management:c1:a,b", None),
            ("system:open-cluster-management:c1:a b", None),
            ("system:open-cluster-management:c1:a\n", None),
            ("system:open-cluster-management:c1:\u{e4}", None),
            ("open-cluster-management:c1:a1", None),
        ] {
            assert_eq!(parse_user(user), wanted, "{user}");
        }
        assert!(is_agent_name(&"a".repeat(253)) && !is_agent_name(&"a".repeat(254)));
    }
}
