//! The requests that make, change and delete works. Templates go through as text: they are neither read nor kept.

use kube::{
    Api, Resource,
    api::{DeleteParams, GetParams, PostParams, Preconditions},
    core::Request,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    controller::{Context, Subject},
    deploy::Write,
    outline::{SetOutline, SetView, WorkOutline, WorkView},
};
use crate::{error::Error, writer::FIELD_MANAGER};

impl Context {
    /// The template, as text; `None` when it is not the one that was planned for.
    pub(super) async fn template(&self, subject: &Subject<'_>) -> Result<Option<Box<RawValue>>, Error> {
        #[derive(Deserialize)]
        struct Whole {
            spec: Template,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Template {
            #[serde(default)]
            manifest_work_template: Option<Box<RawValue>>,
        }
        let Subject {
            key,
            namespace,
            name,
            set,
            ..
        } = subject;
        let what = format!("get ManifestWorkReplicaSet {key}");
        let request = Request::new(SetOutline::url_path(&(), Some(namespace)))
            .get(name, &GetParams::default())
            .map_err(|error| Error::request(what.clone())(kube::Error::BuildRequest(error)))?;
        let client = self.writer.client();
        let text = self
            .writer
            .bounded(what.clone(), client.request_text(request))
            .await?;
        let read = |error| Error::request(what.clone())(kube::Error::SerdeError(error));
        let outline: SetOutline = serde_json::from_str(&text).map_err(read)?;
        if SetView::of(&outline).template != set.template {
            self.sets.wrote(&outline);
            return Ok(None);
        }
        let whole: Whole = serde_json::from_str(&text).map_err(read)?;
        let none = || RawValue::from_string("{}".to_owned()).unwrap_or_default();
        Ok(Some(whole.spec.manifest_work_template.unwrap_or_else(none)))
    }

    /// Does one thing.
    pub(super) async fn write(
        &self,
        subject: &Subject<'_>,
        write: &Write,
        template: &RawValue,
    ) -> Result<(), Error> {
        match write {
            Write::Create { cluster, placement } => self.create(subject, cluster, placement, template).await,
            Write::Delete { cluster, name, uid } => self.delete(cluster, name, uid).await,
            Write::Change {
                cluster,
                name,
                uid,
                spec,
                labels,
            } => {
                let test = json!({"op": "test", "path": "/metadata/uid", "value": uid});
                let mut patch = vec![test.to_string()];
                for (key, value) in labels {
                    let path = format!("/metadata/labels/{}", key.replace('~', "~0").replace('/', "~1"));
                    patch.push(json!({"op": "add", "path": path, "value": value}).to_string());
                }
                if *spec {
                    patch.push(format!(r#"{{"op":"add","path":"/spec","value":{template}}}"#));
                }
                let url = format!(
                    "{}/{name}?fieldManager={FIELD_MANAGER}",
                    WorkOutline::url_path(&(), Some(cluster))
                );
                let what = format!("patch ManifestWork {cluster}/{name}");
                let request = http::Request::patch(url)
                    .header(http::header::CONTENT_TYPE, "application/json-patch+json")
                    .body(format!("[{}]", patch.join(",")).into_bytes())
                    .map_err(|error| Error::request(what.clone())(kube::Error::HttpError(error)))?;
                let client = self.writer.client();
                let work = self
                    .writer
                    .bounded(what, client.request::<WorkOutline>(request))
                    .await?;
                self.wrote(subject, &work, *spec);
                Ok(())
            }
        }
    }

    async fn create(
        &self,
        subject: &Subject<'_>,
        cluster: &str,
        placement: &str,
        template: &RawValue,
    ) -> Result<(), Error> {
        let labels = subject.set.work_labels(subject.owner, placement);
        let name = work_name(subject.namespace, subject.name);
        let named = json!({"name": name, "namespace": cluster, "labels": labels});
        match self.post(subject, cluster, &named, template).await {
            Err(error) if error.is_conflict() => {}
            result => return result,
        }
        // A work of that name is there: one of ours that the watch has not told yet, or somebody else's.
        let api = Api::<WorkOutline>::namespaced(self.writer.client(), cluster);
        let what = format!("get ManifestWork {cluster}/{name}");
        if let Some(work) = self.writer.bounded(what, api.get_opt(&name)).await?
            && WorkView::of(&work).owner() == Some(subject.owner)
        {
            self.works.wrote(&work);
            return Ok(());
        }
        let prefix = format!("{}-", subject.name);
        let unnamed = json!({"generateName": prefix, "namespace": cluster, "labels": labels});
        self.post(subject, cluster, &unnamed, template).await
    }

    async fn post(
        &self,
        subject: &Subject<'_>,
        cluster: &str,
        metadata: &Value,
        template: &RawValue,
    ) -> Result<(), Error> {
        let body = format!(
            r#"{{"apiVersion":"{}","kind":"{}","metadata":{metadata},"spec":{template}}}"#,
            WorkOutline::api_version(&()),
            WorkOutline::kind(&()),
        );
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let what = format!("create ManifestWork in {cluster}");
        let request = Request::new(WorkOutline::url_path(&(), Some(cluster)))
            .create(&parameters, body.into_bytes())
            .map_err(|error| Error::request(what.clone())(kube::Error::BuildRequest(error)))?;
        let client = self.writer.client();
        let work = self
            .writer
            .bounded(what, client.request::<WorkOutline>(request))
            .await?;
        self.wrote(subject, &work, true);
        Ok(())
    }

    /// The answer to a write of a work, with the template or without.
    fn wrote(&self, subject: &Subject<'_>, work: &WorkOutline, spec: bool) {
        self.works.wrote(work);
        let stored = work.spec();
        let metadata = work.meta();
        if let (true, Some(cluster), Some(name)) = (spec, &metadata.namespace, &metadata.name) {
            let place = (cluster.as_str().into(), name.as_str().into());
            let mut memory = self.memory();
            let memory = memory.entry(subject.key.into()).or_default();
            if stored == subject.set.template {
                memory.stored.remove(&place);
            } else {
                memory.stored.insert(place, (subject.set.template, stored));
            }
        }
    }

    async fn delete(&self, cluster: &str, name: &str, uid: &str) -> Result<(), Error> {
        let api = Api::<WorkOutline>::namespaced(self.writer.client(), cluster);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let what = format!("delete ManifestWork {cluster}/{name}");
        match self.writer.bounded(what, api.delete(name, &parameters)).await {
            // As long as its klusterlet holds it.
            Ok(answer) => match answer.left() {
                Some(work) => self.works.wrote(&work),
                None => self.works.removed(cluster, name),
            },
            Err(error) if error.status().is_some_and(|status| status.code == 404) => {
                self.works.removed(cluster, name);
            }
            // Another in its place: the watch tells.
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The name of a replica set's works: the same each time, so that none is made twice, and another for every namespace.
fn work_name(namespace: &str, name: &str) -> String {
    // FNV-1a
    let hash = namespace.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{name}-{:05x}", hash & 0xf_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_are_named_after_their_replica_set_and_its_namespace() {
        let name = work_name("shop", "web");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(name, work_name("shop", "web"));
        assert_ne!(name, work_name("other", "web"));
    }
}
