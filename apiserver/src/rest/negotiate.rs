//! Which representation a client wants, and what it sent.

use crate::ApiError;
use serde_json::json;

/// What an answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// The object itself.
    #[default]
    Object,
    /// `meta.k8s.io` Table.
    Table,
    /// PartialObjectMetadata.
    Partial,
    /// PartialObjectMetadataList.
    PartialList,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`; requests only.
    Protobuf,
}

/// Result of reading an Accept header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accept {
    /// Shape.
    pub shape: Shape,
    /// Serialisation.
    pub format: Format,
    /// The shape is wanted in meta.k8s.io/v1beta1.
    pub beta: bool,
}

impl Accept {
    /// The version of Tables and PartialObjectMetadata.
    pub fn meta_version(self) -> &'static str {
        if self.beta {
            "meta.k8s.io/v1beta1"
        } else {
            "meta.k8s.io/v1"
        }
    }
}

/// What is served.
pub const SERVED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// What a watch may be written as.
pub const STREAMS: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

/// The 406 that lists what is served, as kube-apiserver words it.
fn not_acceptable(served: &str) -> ApiError {
    ApiError::Status(Box::new(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("406: Not Acceptable\n\nAvailable representations: {served}"),
        "reason": "NotAcceptable", "details": {}, "code": 406,
    })))
}

/// The 415 of a PATCH whose type is none of the patch types.
pub fn not_a_patch() -> ApiError {
    ApiError::Status(Box::new(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "415: Unsupported Media Type", "reason": "UnsupportedMediaType", "details": {}, "code": 415,
    })))
}

/// Chooses the first clause that can be served, in order of quality. Protobuf is passed over, so clients that list JSON
/// behind it get JSON.
pub fn accept(header: Option<&str>) -> Result<Accept, ApiError> {
    accept_of(header, SERVED)
}

/// The same where a list or a watch is answered with, which may be streams too.
pub fn accept_of_list(header: Option<&str>) -> Result<Accept, ApiError> {
    accept_of(header, &format!("{SERVED}, {STREAMS}"))
}

fn accept_of(header: Option<&str>, served: &str) -> Result<Accept, ApiError> {
    let Some(header) = header.filter(|h| !h.trim().is_empty()) else {
        return Ok(Accept::default());
    };
    // As in kube-apiserver, one part looks at media types alone, letter for letter, before another looks at the rest.
    let media = |clause: &str| clause.split(';').next().unwrap_or_default().trim().to_owned();
    let is_served = |media: String| media == "*/*" || SERVED.split(", ").any(|s| s == media);
    if !header.split(',').map(media).any(is_served) {
        return Err(not_acceptable(served));
    }
    let mut clauses: Vec<(f32, Option<Accept>)> = header.split(',').map(clause).collect();
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    let found = clauses.into_iter().find_map(|(_, a)| a);
    found.ok_or_else(|| ApiError::NotAcceptable(SERVED.into()))
}

/// Refuses a Table of what has none: answers to questions, tokens.
pub fn no_table(accept: Accept) -> Result<Accept, ApiError> {
    match accept.shape {
        Shape::Table => Err(ApiError::NotAcceptable(SERVED.into())),
        _ => Ok(accept),
    }
}

fn clause(text: &str) -> (f32, Option<Accept>) {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let (mut kind, mut group, mut version, mut quality) = ("", "", "", 1.0);
    for part in parts {
        match part.split_once('=').map(|(k, v)| (k.trim(), v.trim())) {
            Some(("as", v)) => kind = v,
            Some(("g", v)) => group = v,
            Some(("v", v)) => version = v,
            Some(("q", v)) => quality = v.parse().unwrap_or(1.0),
            _ => {}
        }
    }
    let format = match media.as_str() {
        "application/json" | "application/*" | "*/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        _ => return (quality, None),
    };
    let shape = match kind {
        "" if group.is_empty() && version.is_empty() => Shape::Object,
        _ if group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1") => return (quality, None),
        "Table" => Shape::Table,
        "PartialObjectMetadata" => Shape::Partial,
        "PartialObjectMetadataList" => Shape::PartialList,
        _ => return (quality, None),
    };
    let beta = shape != Shape::Object && version == "v1beta1";
    (quality, Some(Accept { shape, format, beta }))
}

/// Type of a body, without parameters. What is no type with parameters is none that is known.
pub fn media_type(content_type: Option<&str>) -> String {
    let whole = content_type.unwrap_or_default().trim();
    let mut parts = whole.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let well_formed = parts.all(|parameter| parameter.is_empty() || parameter.contains('='));
    if well_formed { media } else { "?" }.to_ascii_lowercase()
}

/// How a create or update body is written. Custom resources have no protobuf.
pub fn body_format(content_type: Option<&str>, custom: bool) -> Result<Format, ApiError> {
    match media_type(content_type).as_str() {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        "application/vnd.kubernetes.protobuf" if !custom => Ok(Format::Protobuf),
        _ => Err(ApiError::UnsupportedMediaType(format!(
            "the body of the request was in an unknown format - accepted media types include: {SERVED}"
        ))),
    }
}

/// The patch types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, built-in kinds only.
    Strategic,
    /// Server-side apply.
    Apply,
}

/// The patch type of a body; custom resources have no strategic merge.
pub fn patch_kind(content_type: Option<&str>, custom: bool) -> Result<PatchKind, ApiError> {
    match media_type(content_type).as_str() {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" if custom => Err(ApiError::UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
                .into(),
        )),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        _ => Err(not_a_patch()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_are_read() {
        let of = |h: &str| accept(Some(h)).map(|a| (a.shape, a.format)).map_err(|e| e.code());
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (header, want) in [
            ("application/json", Ok((Shape::Object, Format::Json))),
            ("*/*", Ok((Shape::Object, Format::Json))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Ok((Shape::Object, Format::Json)),
            ),
            (table, Ok((Shape::Table, Format::Json))),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Ok((Shape::PartialList, Format::Json)),
            ),
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1",
                Ok((Shape::Partial, Format::Json)),
            ),
            ("application/json;as=Table;g=meta.k8s.io;v=v1alpha1", Err(406)),
            ("application/yaml", Ok((Shape::Object, Format::Yaml))),
            (
                "application/json;q=0.5,application/yaml;q=0.9",
                Ok((Shape::Object, Format::Yaml)),
            ),
            ("application/json;q=0", Ok((Shape::Object, Format::Json))),
            ("application/json;v=v1", Err(406)),
            ("application/*", Err(406)),
            ("Application/JSON", Err(406)),
            ("text/html", Err(406)),
            ("application/vnd.kubernetes.protobuf", Err(406)),
        ] {
            assert_eq!(of(header), want, "{header}");
        }
        assert_eq!(accept(None), Ok(Accept::default()));
    }

    #[test]
    fn body_types_are_read() {
        assert_eq!(
            body_format(Some("application/json; charset=utf-8"), true),
            Ok(Format::Json)
        );
        for bad in ["text/plain", "application/json; charset"] {
            assert_eq!(body_format(Some(bad), false).map_err(|e| e.code()), Err(415));
        }
        assert_eq!(
            patch_kind(Some("application/strategic-merge-patch+json"), true).map_err(|e| e.code()),
            Err(415)
        );
        assert_eq!(
            patch_kind(Some("application/json"), false).map_err(|e| e.code()),
            Err(415)
        );
    }
}
