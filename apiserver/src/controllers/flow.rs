//! FlowSchemas say whether the priority level they name is there.

use super::plan::{Action, Plan, set_condition};
use crate::object;
use crate::rest::rfc3339;
use jiff::Timestamp;
use serde_json::Value;

/// FlowSchemas, as a store key.
pub const SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
/// PriorityLevelConfigurations, as a store key.
pub const LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";

/// The level a FlowSchema names.
pub fn level(schema: &Value) -> &str {
    schema["spec"]["priorityLevelConfiguration"]["name"]
        .as_str()
        .unwrap_or_default()
}

/// What a FlowSchema says of its level.
pub fn decide(schema: &Value, is_there: bool, now: Timestamp) -> Plan {
    let named = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {:?}",
        level(schema)
    );
    let (status, reason, message) = if is_there {
        ("False", "Found", format!("{named} and it exists"))
    } else {
        ("True", "NotFound", format!("{named} but there is no such object"))
    };
    let mut new = schema.clone();
    if object::is_deleting(schema)
        || !set_condition(&mut new, "Dangling", status, reason, &message, &rfc3339(now))
    {
        return Plan::default();
    }
    Plan::of([Action::status(SCHEMAS, new)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_without_its_level_dangles() {
        let schema = json!({"spec": {"priorityLevelConfiguration": {"name": "l"}}});
        for (is_there, want) in [(true, "False"), (false, "True")] {
            let plan = decide(&schema, is_there, Timestamp::UNIX_EPOCH);
            let [Action::Update { object, .. }] = plan.actions.as_slice() else {
                panic!("{plan:?}");
            };
            assert_eq!(object["status"]["conditions"][0]["status"], want);
            assert!(decide(object, is_there, Timestamp::UNIX_EPOCH).actions.is_empty());
        }
    }
}
