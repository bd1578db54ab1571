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

/// Takes a user name apart into cluster and agent: exactly two parts, neither empty.
pub fn parse_user(user: &str) -> Option<(&str, &str)> {
    let (cluster, agent) = user.strip_prefix(USER_PREFIX)?.split_once(':')?;
    (!cluster.is_empty() && !agent.is_empty() && !agent.contains(':')).then_some((cluster, agent))
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
