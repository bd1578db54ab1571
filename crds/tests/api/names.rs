//! Names are built and taken apart in one way only.

use muster_crds::names::{
    addon_csr_generate_name, applied_manifest_work_name, cluster_group, cluster_role, csr_generate_name,
    extra_cluster_group, is_cluster_name, parse_user, registration_role_binding, user, validate_cluster_name,
    work_role_binding,
};

#[test]
fn names_are_as_ocm_builds_them() {
    let table = [
        (user("c1", "a1"), "system:open-cluster-management:c1:a1"),
        (cluster_group("c1"), "system:open-cluster-management:c1"),
        (extra_cluster_group("c1"), "open-cluster-management:c1"),
        (cluster_role("c1"), "open-cluster-management:managedcluster:c1"),
        (
            registration_role_binding("c1"),
            "open-cluster-management:managedcluster:c1:registration",
        ),
        (
            work_role_binding("c1"),
            "open-cluster-management:managedcluster:c1:work",
        ),
        (csr_generate_name("c1"), "c1-"),
        (addon_csr_generate_name("c1", "x"), "addon-c1-x-"),
        (applied_manifest_work_name("abc", "w"), "abc-w"),
    ];
    for (built, expected) in table {
        assert_eq!(built, expected);
    }
}

#[test]
fn users_are_taken_apart_exactly() {
    let table = [
        ("system:open-cluster-management:c1:a1", Some(("c1", "a1"))),
        ("system:open-cluster-management:c1", None),
        ("system:open-cluster-management:c1:", None),
        ("system:open-cluster-management::a1", None),
        ("system:open-cluster-management::", None),
        ("system:open-cluster-management:c1:a1:b", None),
        ("system:open-cluster-management:c1:a1:", None),
        ("system:open-cluster-management", None),
        ("system:open-cluster-managementx:c1:a1", None),
        ("xsystem:open-cluster-management:c1:a1", None),
        ("system:serviceaccount:c1:a1", None),
        ("", None),
    ];
    for (name, expected) in table {
        assert_eq!(parse_user(name), expected, "{name}");
    }
    assert_eq!(parse_user(&user("c", "a")), Some(("c", "a")));
}

#[test]
fn cluster_names_are_dns_labels() {
    let longest = "a".repeat(63);
    let too_long = "a".repeat(64);
    for good in ["a", "0", "cluster1", "a-b", "1-2", longest.as_str()] {
        assert_eq!(validate_cluster_name(good), Ok(()), "{good}");
        assert!(is_cluster_name(good));
    }
    let bad = [
        ("", "empty"),
        (too_long.as_str(), "63"),
        ("-a", "start and end"),
        ("a-", "start and end"),
        ("-", "start and end"),
        ("A", "lower case"),
        ("a.b", "lower case"),
        ("a_b", "lower case"),
        ("a b", "lower case"),
        ("ä", "lower case"),
        ("a/../b", "lower case"),
        ("a:b", "lower case"),
    ];
    for (name, why) in bad {
        let error = validate_cluster_name(name).unwrap_err();
        assert!(error.contains(why), "{name}: {error}");
        assert!(!is_cluster_name(name));
    }
}
