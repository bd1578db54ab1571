//! In which order the manifests of one work are applied: what others need comes first (wire §3.2).

/// Rank of a kind; lower is applied earlier. Kinds not named here come last, before what could not be parsed.
pub fn rank(kind: &str) -> u32 {
    match kind {
        "PriorityClass"
        | "Namespace"
        | "CustomResourceDefinition"
        | "StorageClass"
        | "PersistentVolume"
        | "PodSecurityPolicy" => 0,
        "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding" => 1,
        "NetworkPolicy" | "ResourceQuota" | "LimitRange" | "PodDisruptionBudget" | "ServiceAccount" => 2,
        "Secret" | "ConfigMap" | "PersistentVolumeClaim" => 3,
        "Service" => 4,
        "DaemonSet"
        | "Pod"
        | "ReplicationController"
        | "ReplicaSet"
        | "Deployment"
        | "HorizontalPodAutoscaler"
        | "StatefulSet"
        | "Job"
        | "CronJob" => 5,
        "APIService"
        | "MutatingWebhookConfiguration"
        | "ValidatingWebhookConfiguration"
        | "ValidatingAdmissionPolicy"
        | "ValidatingAdmissionPolicyBinding" => 6,
        "" => UNPARSEABLE,
        _ => 1000,
    }
}

const UNPARSEABLE: u32 = 1001;

/// Groups of ordinals: each group is applied after the one before it, the members of a group in any order.
pub fn waves<'a>(kinds: impl IntoIterator<Item = &'a str>) -> Vec<Vec<usize>> {
    let mut ranked: Vec<(u32, usize)> = kinds.into_iter().enumerate().map(|(i, k)| (rank(k), i)).collect();
    ranked.sort_unstable();
    let mut waves: Vec<Vec<usize>> = Vec::new();
    let mut last = None;
    for (rank, ordinal) in ranked {
        if last != Some(rank) {
            waves.push(Vec::new());
            last = Some(rank);
        }
        if let Some(wave) = waves.last_mut() {
            wave.push(ordinal);
        }
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_need_comes_first() {
        let kinds = [
            "Deployment",
            "Widget",
            "Namespace",
            "",
            "ConfigMap",
            "CustomResourceDefinition",
            "Service",
        ];
        assert_eq!(
            waves(kinds),
            vec![vec![2, 5], vec![4], vec![6], vec![0], vec![1], vec![3]]
        );
    }

    #[test]
    fn no_manifests_no_waves() {
        assert!(waves([]).is_empty());
    }
}
