//! What the levels say of pods.

use crate::rest::admission::security::checks::verdict;
use crate::rest::admission::security::level::Level::{self, Baseline, Privileged, Restricted};
use crate::rest::admission::security::level::LevelVersion;
use serde_json::{Value, json};

fn good() -> Value {
    json!({"spec": {"containers": [{"name": "c", "securityContext": {
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }}]}})
}

/// Level, version, what of the good pod is changed, and what is said of that.
type Row = (Level, Option<u32>, &'static str, Value, &'static str);

#[test]
fn levels_forbid_what_the_standards_say() {
    const POD: &str = "/spec/securityContext";
    const CONTAINER: &str = "/spec/containers/0/securityContext";
    const CAPABILITIES: &str = "/spec/containers/0/securityContext/capabilities";
    const VOLUMES: &str = "/spec/volumes";
    let host_path = || json!([{"name": "v", "hostPath": {"path": "/"}}]);
    let buffers = || json!({"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]});
    let rows: Vec<Row> = vec![
        (Privileged, None, "/spec/hostPID", json!(true), ""),
        (Restricted, None, "/spec/hostUsers", json!(true), ""),
        (
            Baseline,
            None,
            "/spec/hostPID",
            json!(true),
            "host namespaces (hostPID=true)",
        ),
        (
            Restricted,
            None,
            VOLUMES,
            host_path(),
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")",
        ),
        (
            Baseline,
            None,
            VOLUMES,
            host_path(),
            "hostPath volumes (volume \"v\")",
        ),
        (
            Restricted,
            None,
            CONTAINER,
            json!({}),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
             seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ),
        (
            Restricted,
            Some(0),
            CONTAINER,
            json!({}),
            "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
        ),
        (
            Baseline,
            None,
            CAPABILITIES,
            json!({"add": ["SYS_ADMIN", "KILL"]}),
            "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            Restricted,
            None,
            CAPABILITIES,
            json!({"add": ["KILL"]}),
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; \
             container \"c\" must not include \"KILL\" in securityContext.capabilities.add)",
        ),
        (
            Baseline,
            Some(31),
            POD,
            buffers(),
            "forbidden sysctls (net.ipv4.tcp_rmem)",
        ),
        (Baseline, Some(32), POD, buffers(), ""),
        (
            Restricted,
            None,
            POD,
            json!({"runAsUser": 0, "runAsNonRoot": false}),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set runAsUser=0)",
        ),
        (
            Baseline,
            None,
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "hostPort": 80}]),
            "hostPort (container \"c\" uses hostPort 80)",
        ),
        (
            Baseline,
            None,
            "/spec/containers/0/livenessProbe",
            json!({"httpGet": {"host": "1.2.3.4", "port": 80}}),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"1.2.3.4\")",
        ),
        (
            Baseline,
            None,
            POD,
            json!({"seLinuxOptions": {"type": "t", "user": "u"}}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"t\"; user may not be set)",
        ),
    ];
    for (level, version, pointer, value, want) in rows {
        let mut pod = good();
        let (above, key) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(above).unwrap()[key] = value;
        let found = verdict(LevelVersion { level, version }, &pod).detail();
        assert_eq!(found, want, "{level:?} {pod}");
    }
}
