//! What a decision wants done.

use crate::object;
use crate::rest::params::Propagation;
use serde_json::Value;
use std::borrow::Cow;
use std::time::Duration;

/// One write. Kinds are named by their store key, `group/plural`.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Makes an object.
    Create {
        /// Kind.
        resource: Cow<'static, str>,
        /// The object.
        object: Value,
    },
    /// Replaces an object, or what a subresource of it is, if it is still at the resourceVersion in it.
    Update {
        /// Kind.
        resource: Cow<'static, str>,
        /// `""` for the object itself.
        subresource: &'static str,
        /// The whole object.
        object: Value,
    },
    /// Applies a configuration as this field manager, whoever had its fields before.
    Apply {
        /// Kind.
        resource: Cow<'static, str>,
        /// Field manager.
        manager: &'static str,
        /// What the manager wants of the object, and nothing else.
        config: Value,
    },
    /// Deletes the object of this uid.
    Delete {
        /// Kind.
        resource: Cow<'static, str>,
        /// Namespace or `""`.
        namespace: String,
        /// Name.
        name: String,
        /// Nothing is deleted that came in its place.
        uid: String,
        /// Nothing is deleted that changed since; `""` when changes do not matter.
        version: String,
        /// What becomes of its dependents; `None` as its finalizers say.
        propagation: Option<Propagation>,
        /// Seconds a pod has to end; `None` as its spec says.
        grace: Option<i64>,
    },
}

impl Action {
    /// Makes an object.
    pub fn create(resource: impl Into<Cow<'static, str>>, object: Value) -> Self {
        Self::Create {
            resource: resource.into(),
            object,
        }
    }

    /// Replaces an object.
    pub fn update(resource: impl Into<Cow<'static, str>>, object: Value) -> Self {
        Self::Update {
            resource: resource.into(),
            subresource: "",
            object,
        }
    }

    /// Replaces the status of an object.
    pub fn status(resource: impl Into<Cow<'static, str>>, object: Value) -> Self {
        Self::Update {
            resource: resource.into(),
            subresource: "status",
            object,
        }
    }

    /// Deletes an object as it was observed.
    pub fn delete(
        resource: impl Into<Cow<'static, str>>,
        observed: &Value,
        propagation: Option<Propagation>,
    ) -> Self {
        Self::Delete {
            resource: resource.into(),
            namespace: object::namespace(observed).to_owned(),
            name: object::name(observed).to_owned(),
            uid: object::uid(observed).to_owned(),
            version: String::new(),
            propagation,
            grace: None,
        }
    }

    /// Deletes a pod that has ended, whatever time it had for that.
    pub fn delete_ended(pod: &Value) -> Self {
        let mut action = Self::delete(super::kinds::PODS, pod, None);
        if let Self::Delete { grace, .. } = &mut action {
            *grace = Some(0);
        }
        action
    }

    /// Deletes an object only if nothing about it has changed since it was observed.
    pub fn delete_unchanged(
        resource: impl Into<Cow<'static, str>>,
        observed: &Value,
        propagation: Propagation,
    ) -> Self {
        let mut action = Self::delete(resource, observed, Some(propagation));
        if let Self::Delete { version, .. } = &mut action {
            object::resource_version(observed).clone_into(version);
        }
        action
    }
}

/// What to do now, in order, and when to look again if nothing happens before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Writes, in order.
    pub actions: Vec<Action>,
    /// Time until another look is due on its own.
    pub after: Option<Duration>,
}

impl Plan {
    /// These writes.
    pub fn of(actions: impl IntoIterator<Item = Action>) -> Self {
        Self {
            actions: actions.into_iter().collect(),
            after: None,
        }
    }

    /// Nothing before so long.
    pub fn later(after: Duration) -> Self {
        Self {
            actions: Vec::new(),
            after: Some(after),
        }
    }
}

/// Sets a condition in `status.conditions`, keeping its `lastTransitionTime` while its status stays. Returns whether
/// anything changed. `now` is in the form of `metav1.Time`.
pub fn set_condition(
    object: &mut Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: &str,
) -> bool {
    let holder = object::child_mut(object, "status");
    let list = holder
        .entry("conditions")
        .or_insert_with(|| Value::Array(Vec::new()));
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Some(conditions) = list.as_array_mut() else {
        return false;
    };
    let fresh = serde_json::json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    let Some(old) = conditions.iter_mut().find(|c| c["type"] == kind) else {
        conditions.push(fresh);
        return true;
    };
    let same_status = old["status"] == status;
    if same_status && old["reason"] == reason && old["message"] == message {
        return false;
    }
    for field in ["status", "reason", "message"] {
        old[field] = fresh[field].clone();
    }
    if !same_status {
        old["lastTransitionTime"] = now.into();
    }
    true
}

/// Whether a condition is True.
pub fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| c["status"] == "True")
}

/// The condition of a type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"] == kind)
}

/// Removes a finalizer; returns whether it was there.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) -> bool {
    let metadata = object::metadata_mut(object);
    let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) else {
        return false;
    };
    let before = list.len();
    list.retain(|f| f != finalizer);
    let removed = list.len() < before;
    if list.is_empty() {
        metadata.remove("finalizers");
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut object = json!({});
        assert!(set_condition(&mut object, "Ready", "False", "A", "a", "t1"));
        assert!(!set_condition(&mut object, "Ready", "False", "A", "a", "t2"));
        assert!(set_condition(&mut object, "Ready", "False", "B", "a", "t3"));
        assert_eq!(condition(&object, "Ready").unwrap()["lastTransitionTime"], "t1");
        assert!(set_condition(&mut object, "Ready", "True", "B", "a", "t4"));
        assert_eq!(condition(&object, "Ready").unwrap()["lastTransitionTime"], "t4");
        assert!(set_condition(&mut object, "Other", "True", "", "", "t5"));
        assert_eq!(object["status"]["conditions"].as_array().unwrap().len(), 2);
        assert!(is_true(&object, "Ready") && !is_true(&object, "Missing"));
    }

    #[test]
    fn the_last_finalizer_takes_the_list_with_it() {
        let mut object = json!({"metadata": {"finalizers": ["a", "b"]}});
        assert!(!remove_finalizer(&mut object, "c"));
        assert!(remove_finalizer(&mut object, "a"));
        assert_eq!(object["metadata"]["finalizers"], json!(["b"]));
        assert!(remove_finalizer(&mut object, "b"));
        assert_eq!(object, json!({"metadata": {}}));
    }
}
