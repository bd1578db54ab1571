//! Events about clusters, in their namespaces.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use serde_json::json;

use super::view::ClusterView;
use crate::{
    error::Error,
    writer::{FIELD_MANAGER, Writer},
};

/// Tells of a cluster what a person should know. `mark` tells this Event from others of the cluster: one that is there already
/// is not told again. What it tells is in a status or the log already, so it is not worth a second attempt.
pub async fn tell(
    writer: &Writer,
    cluster: &ClusterView,
    mark: &str,
    reason: &str,
    note: &str,
) -> Result<(), Error> {
    let now = Timestamp::now();
    let event: Event = serde_json::from_value(json!({
        "metadata": {
            "name": format!("{}.{mark}", cluster.name),
            "namespace": cluster.name,
        },
        "action": reason,
        "reason": reason,
        "note": note,
        "type": "Warning",
        "eventTime": format!("{now:.6}"),
        "reportingController": "registration-controller",
        "reportingInstance": FIELD_MANAGER,
        "regarding": {
            "apiVersion": "cluster.open-cluster-management.io/v1",
            "kind": "ManagedCluster",
            "name": cluster.name,
            // Kubernetes takes an event only in the namespace of what it is about.
            "namespace": cluster.name,
            "uid": cluster.uid,
        },
    }))
    .map_err(|error| Error::request("write an event")(kube::Error::SerdeError(error)))?;
    let api = Api::<Event>::namespaced(writer.client(), &cluster.name);
    match writer.create(&api, &event, "Event").await {
        Err(error) if error.status().is_some_and(kube::core::Status::is_already_exists) => {}
        Err(error) => tracing::warn!(cluster = cluster.name, %error, "event lost"),
        Ok(_) => {}
    }
    Ok(())
}
