//! What the klusterlet needs on its own cluster: its namespace, and the CustomResourceDefinitions of its own kinds. It brings
//! them when it may; where it may not but they are there already, it goes on.

use crate::Error;
use crate::gates::{Gate, Gates};
use crate::work::objects::{self, RequestError};
use futures::StreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use std::time::Duration;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// A served CustomResourceDefinition takes a moment, not minutes.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);

/// Makes what is missing.
pub async fn prepare(spoke: &Client, namespace: &str, gates: Gates) -> Result<(), Error> {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    ensure(
        spoke,
        "/api/v1/namespaces",
        namespace,
        &object,
        "create its namespace",
    )
    .await?;
    let mut crds = muster_crds::crds::spoke();
    if gates.on(Gate::ClusterProperty) {
        crds.push(muster_crds::crds::cluster_property());
    }
    for crd in crds {
        let name = crd.name_any();
        let refused = |problem: String| Error::SpokeRefused {
            what: "install its CustomResourceDefinitions",
            problem,
        };
        let object = serde_json::to_value(&crd).map_err(|e| refused(e.to_string()))?;
        let made = ensure(
            spoke,
            CRDS,
            &name,
            &object,
            "install its CustomResourceDefinitions",
        )
        .await?;
        if made {
            let established = tokio::time::timeout(ESTABLISHED_WITHIN, wait_established(spoke, &name)).await;
            established.map_err(|_| refused(format!("{name} was not served within 30 s")))?;
        }
    }
    Ok(())
}

/// True when it was made just now.
async fn ensure(
    spoke: &Client,
    collection: &str,
    name: &str,
    object: &serde_json::Value,
    what: &'static str,
) -> Result<bool, Error> {
    let refused = |e: &RequestError| Error::SpokeRefused {
        what,
        problem: e.to_string(),
    };
    match objects::get(spoke, &format!("{collection}/{name}")).await {
        Ok(_) => Ok(false),
        Err(error) if error.is_not_found() => match objects::create(spoke, collection, object).await {
            Ok(_) => Ok(true),
            Err(error) if error.already_exists() => Ok(true),
            Err(error) => Err(refused(&error)),
        },
        // Not even allowed to look: whoever restricted the klusterlet so has put it there.
        Err(error) if error.code() == 403 => {
            tracing::debug!(name, "may not be read, so it is taken to be there");
            Ok(false)
        }
        Err(error) => Err(refused(&error)),
    }
}

async fn wait_established(spoke: &Client, name: &str) {
    let api: Api<CustomResourceDefinition> = Api::all(spoke.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).boxed();
    let mut backoff = crate::work::Backoff::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::InitApply(crd) | watcher::Event::Apply(crd)) => {
                let conditions = crd.status.into_iter().filter_map(|s| s.conditions).flatten();
                if conditions
                    .into_iter()
                    .any(|c| c.type_ == "Established" && c.status == "True")
                {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => backoff.wait().await,
        }
    }
}

/// UID of a namespace, where it may be read.
pub async fn namespace_uid(spoke: &Client, name: &str) -> Option<String> {
    match objects::get(spoke, &format!("/api/v1/namespaces/{name}")).await {
        Ok(namespace) => namespace["metadata"]["uid"].as_str().map(str::to_owned),
        Err(error) => {
            tracing::debug!(name, %error, "the namespace can not be read");
            None
        }
    }
}
