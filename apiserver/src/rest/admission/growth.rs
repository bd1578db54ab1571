//! Claims grow only where the class that made their volume lets them (PersistentVolumeClaimResize).

use super::{Api, Operation, Review, subject};
use crate::ApiError;
use crate::registry::strategy::quantity;
use crate::store::Key;
use serde_json::Value;

/// The older way to name a class.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Refuses a claim that asks for more, and may not.
pub fn validate(
    api: &Api,
    review: &Review<'_>,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let is_claim = &*review.resource.storage == "/persistentvolumeclaims" && review.subresource.is_empty();
    let (Some(new), Some(old), true) = (new, old, is_claim && review.operation == Operation::Update) else {
        return Ok(());
    };
    if !grows(new, old) {
        return Ok(());
    }
    let lets = |name: &str| {
        let class = api
            .store
            .get(&Key::new("storage.k8s.io/storageclasses", "", name));
        class.is_some_and(|class| class.value()["allowVolumeExpansion"] == true)
    };
    match refusal(new, old, lets) {
        Some(why) => Err(ApiError::forbidden(subject(review.resource, review.name), why)),
        None => Ok(()),
    }
}

fn grows(new: &Value, old: &Value) -> bool {
    let asked = |claim: &Value| {
        let size = claim["spec"]["resources"]["requests"]["storage"].as_str();
        size.and_then(quantity::nanos)
    };
    asked(new) > asked(old)
}

/// Why a claim may not grow. `lets` knows whether a class of that name lets its claims.
fn refusal(new: &Value, old: &Value, lets: impl Fn(&str) -> bool) -> Option<&'static str> {
    if old["status"]["phase"] != "Bound" {
        return Some("Only bound persistent volume claims can be expanded");
    }
    let class = new["metadata"]["annotations"][OLD_CLASS].as_str();
    let class = class.or_else(|| new["spec"]["storageClassName"].as_str());
    if class.is_some_and(|class| !class.is_empty() && lets(class)) {
        return None;
    }
    Some(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_grow_where_their_class_lets_them() {
        let claim = |size: &str, class: Value, phase: &str| json!({"metadata": {}, "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}, "status": {"phase": phase}});
        for (size, class, phase, grown, good) in [
            ("2Gi", json!("grows"), "Bound", true, true),
            ("2Gi", json!("stays"), "Bound", true, false),
            ("2Gi", json!(""), "Bound", true, false),
            ("2Gi", json!(null), "Bound", true, false),
            ("2Gi", json!("grows"), "Pending", true, false),
            ("1024Mi", json!("stays"), "Bound", false, false),
            ("500Mi", json!("stays"), "Bound", false, false),
        ] {
            let (old, new) = (claim("1Gi", class.clone(), phase), claim(size, class, phase));
            assert_eq!(grows(&new, &old), grown, "{new}");
            assert_eq!(refusal(&new, &old, |c| c == "grows").is_none(), good, "{new}");
        }
        let mut old = claim("1Gi", json!(null), "Bound");
        old["metadata"]["annotations"] = json!({ OLD_CLASS: "grows" });
        assert_eq!(refusal(&old, &old, |c| c == "grows"), None);
    }
}
