//! How stored objects are shown to one client: in the version and the shape it asks for.

use super::negotiate::{self, Accept, Shape};
use super::respond;
use super::table::{self, IncludeObject};
use super::{Call, raw};
use crate::ApiError;
use crate::registry::{Resource, convert};
use crate::store::Entry;
use bytes::Bytes;
use http::header;
use serde_json::{Value, json};
use std::sync::Arc;

/// How stored objects are shown to one client.
#[derive(Debug, Clone)]
pub struct View {
    /// Version and kind asked for.
    pub resource: Arc<Resource>,
    /// Representation asked for.
    pub accept: Accept,
    /// What a Table carries of each object.
    pub include: IncludeObject,
}

impl View {
    /// The view a request asks for.
    pub fn of(call: &Call<'_>) -> Result<Self, ApiError> {
        let sent = call.header(header::ACCEPT);
        let accept = match call.info.verb.as_str() {
            "list" | "watch" => negotiate::accept_of_list(sent)?,
            _ => negotiate::accept(sent)?,
        };
        let wanted = call.query.text("includeObject");
        let include = IncludeObject::parse(wanted).ok_or_else(|| {
            ApiError::BadRequest(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {wanted:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))
        })?;
        Ok(Self {
            resource: Arc::clone(&call.resource),
            accept,
            include,
        })
    }

    /// Whether stored objects are what the client wants, byte for byte.
    pub fn is_plain(&self) -> bool {
        self.accept.shape == Shape::Object && self.is_storage_version()
    }

    fn is_storage_version(&self) -> bool {
        self.resource.api_version() == self.resource.storage_api_version
    }

    /// Whether an object stored at this revision is what the client wants, byte for byte.
    pub fn is_as_stored(&self, revision: u64) -> bool {
        self.is_storage_version() && convert::is_current(&self.resource, revision)
    }

    /// A stored object in the version asked for, parsed.
    pub fn value(&self, stored: &[u8]) -> Value {
        convert::from_storage(&self.resource, serde_json::from_slice(stored).unwrap_or_default())
    }

    /// An object stored at this revision in the version asked for, as bytes. What is not stored has revision 0.
    pub fn converted(&self, stored: &Bytes, revision: u64) -> Bytes {
        if self.is_as_stored(revision) {
            stored.clone()
        } else {
            respond::to_bytes(&self.value(stored))
        }
    }

    /// An object stored at this revision in the shape asked for, as bytes.
    pub fn object(&self, stored: &Bytes, revision: u64) -> Bytes {
        match self.accept.shape {
            Shape::Object => self.converted(stored, revision),
            Shape::Partial | Shape::PartialList => self.partial(stored),
            Shape::Table => {
                let value = self.value(stored);
                let mut metadata = json!({});
                // What is not stored has none.
                if let Some(version) = value["metadata"]["resourceVersion"].as_str() {
                    metadata["resourceVersion"] = version.into();
                }
                let mut table = table::table(&self.resource, &[value], self.include);
                table["metadata"] = metadata;
                respond::to_bytes(&self.of_meta_version(table))
            }
        }
    }

    /// A Table, in the version of meta.k8s.io that was asked for.
    pub fn of_meta_version(&self, mut table: Value) -> Value {
        let version = self.accept.meta_version();
        table["apiVersion"] = version.into();
        for row in table["rows"].as_array_mut().into_iter().flatten() {
            if row["object"]["kind"] == "PartialObjectMetadata" {
                row["object"]["apiVersion"] = version.into();
            }
        }
        table
    }

    fn partial(&self, stored: &Bytes) -> Bytes {
        if table::hides_metadata(&self.resource) {
            let version = self.accept.meta_version();
            return respond::to_bytes(&table::partial(&self.resource, &self.value(stored), version));
        }
        raw::partial(stored, self.accept.meta_version())
    }

    /// A stored object as an item of a list. Built-in kinds leave the type out there, custom ones do not.
    pub(super) fn item(&self, entry: &Entry) -> Bytes {
        match self.accept.shape {
            Shape::Partial | Shape::PartialList => self.partial(&entry.json),
            _ if self.resource.custom.is_some() => self.converted(&entry.json, entry.revision),
            _ => raw::without_type(&self.converted(&entry.json, entry.revision)),
        }
    }

    /// Refuses the metadata of a list where one object is answered with, and the other way round.
    pub fn check_shape(&self, list: bool) -> Result<(), ApiError> {
        let r = &self.resource;
        let package = match r.group.split('.').next().unwrap_or_default() {
            "" | "events" => "core",
            group => group,
        };
        let (package, kind) = match r.custom {
            None => (package, r.kind.as_str()),
            Some(_) => ("unstructured", "Unstructured"),
        };
        match (self.accept.shape, list) {
            (Shape::Partial, true) => Err(not_acceptable(&format!(
                "you requested PartialObjectMetadata, but the requested object is a list (*{package}.{kind}List)"
            ))),
            (Shape::PartialList, false) => Err(not_a_list(&format!("{package}.{kind}"))),
            _ => Ok(()),
        }
    }
}

/// The 406 of who asks for the metadata of a list and gets one object of this Go type.
pub fn not_a_list(kind: &str) -> ApiError {
    not_acceptable(&format!(
        "you requested PartialObjectMetadataList, but the requested object is not a list (*{kind})"
    ))
}

fn not_acceptable(why: &str) -> ApiError {
    ApiError::Status(Box::new(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": why,
        "reason": "NotAcceptable", "code": 406,
    })))
}
