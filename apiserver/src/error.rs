//! Every way a request can fail, and the `metav1.Status` that says so.
//!
//! One enum for the whole server: handlers return it, [`ApiError::status`] is the only place that knows HTTP codes and
//! Kubernetes reasons (apimachinery `pkg/api/errors`).

use serde_json::{Value, json};
use std::time::Duration;

/// Why one field of an object is not acceptable (field.Error of apimachinery `util/validation/field`).
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Which rule was broken.
    pub kind: FieldErrorKind,
    /// Path of the field, like `spec.ports[0].name`.
    pub field: String,
    /// The message without the field, like `Required value: name is needed`.
    pub message: String,
}

/// The reasons of `metav1.StatusCause` that validation uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A field that must be there is not.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of those allowed.
    NotSupported,
    /// The value may not appear twice.
    Duplicate,
    /// The field may not be set.
    Forbidden,
    /// The string is too long.
    TooLong,
    /// The list has too many items.
    TooMany,
    /// The value has another type than the schema's.
    TypeInvalid,
    /// What the value names is not there.
    NotFound,
    /// Something inside the server went wrong while validating.
    Internal,
}

impl FieldErrorKind {
    /// `StatusCause.reason` of this kind.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotFound => "FieldValueNotFound",
            Self::Internal => "InternalError",
        }
    }
}

/// Writes a value the way field errors show it: strings quoted as Go does, everything else as JSON.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => format!("{s:?}"),
        other => other.to_string(),
    }
}

impl FieldError {
    /// A field error with a ready message.
    pub fn new(kind: FieldErrorKind, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            field: field.into(),
            message: message.into(),
        }
    }

    /// `Required value` or `Required value: detail`.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() {
            "Required value".into()
        } else {
            format!("Required value: {detail}")
        };
        Self::new(FieldErrorKind::Required, field, message)
    }

    /// `Invalid value: <value>: detail`.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(
            FieldErrorKind::Invalid,
            field,
            format!("Invalid value: {}: {detail}", shown(value)),
        )
    }

    /// `Unsupported value: <value>: supported values: "A", "B"`.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list = supported
            .iter()
            .map(|s| format!("{s:?}"))
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", shown(value));
        Self::new(FieldErrorKind::NotSupported, field, message)
    }

    /// `Duplicate value: <value>`.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(
            FieldErrorKind::Duplicate,
            field,
            format!("Duplicate value: {}", shown(value)),
        )
    }

    /// `Forbidden: detail`.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(FieldErrorKind::Forbidden, field, format!("Forbidden: {detail}"))
    }
}

/// What a request is about, as far as it is known when it fails. All parts may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// API group, `""` for core.
    pub group: String,
    /// Plural resource, or the kind where Kubernetes' message shows the kind.
    pub resource: String,
    /// Object name.
    pub name: String,
}

impl Subject {
    /// A subject from its three parts.
    pub fn new(group: impl Into<String>, resource: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            resource: resource.into(),
            name: name.into(),
        }
    }

    /// `resource.group`, or only `resource` for core.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }
}

/// Every way a request can fail.
#[derive(Debug, Clone, thiserror::Error, PartialEq)]
pub enum ApiError {
    /// 400: the request itself makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// 401: no or wrong credentials.
    #[error("Unauthorized")]
    Unauthorized,
    /// 403: authenticated, not allowed. `message` is the whole sentence.
    #[error("{message}")]
    Forbidden {
        /// What was asked for.
        subject: Subject,
        /// Whole message.
        message: String,
    },
    /// 404 of an object.
    #[error("{} {:?} not found", .0.qualified(), .0.name)]
    NotFound(Subject),
    /// 404 of a path: `the server could not find the requested resource`.
    #[error("the server could not find the requested resource")]
    NoSuchResource,
    /// 405.
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    /// 406.
    #[error("only the following media types are accepted: {0}")]
    NotAcceptable(String),
    /// 409: the name is taken.
    #[error("{} {:?} already exists", .0.qualified(), .0.name)]
    AlreadyExists(Subject),
    /// 409: the name is taken by an object that is on its way out.
    #[error("object is being deleted: {} {:?} already exists", .0.qualified(), .0.name)]
    StillDeleting(Subject),
    /// 409: optimistic concurrency or a precondition failed. The detail follows Kubernetes' fixed beginning.
    #[error("Operation cannot be fulfilled on {} {:?}: {detail}", .subject.qualified(), .subject.name)]
    Conflict {
        /// The object.
        subject: Subject,
        /// Why.
        detail: String,
    },
    /// 409 of server-side apply: fields owned by others. `causes` are (message, field).
    #[error("{message}")]
    ApplyConflict {
        /// Whole message.
        message: String,
        /// One `FieldManagerConflict` cause each.
        causes: Vec<(String, String)>,
    },
    /// 410: the revision asked for is compacted or the continue token too old.
    #[error("{0}")]
    Expired(String),
    /// 413.
    #[error("{0}")]
    RequestEntityTooLarge(String),
    /// 415.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// 422: the object breaks rules of its kind. `subject.resource` is the kind.
    #[error("{}", invalid_message(.subject, .errors))]
    Invalid {
        /// Kind, group and name.
        subject: Subject,
        /// What is wrong, one each.
        errors: Vec<FieldError>,
    },
    /// 429.
    #[error("{message}")]
    TooManyRequests {
        /// Whole message.
        message: String,
        /// For `Retry-After`.
        retry_after: Duration,
    },
    /// 500.
    #[error("Internal error occurred: {0}")]
    Internal(String),
    /// 500 with `code: 500` and no reason, as Go's plain errors come out of kube-apiserver.
    #[error("{0}")]
    Plain(String),
    /// 503.
    #[error("{0}")]
    ServiceUnavailable(String),
    /// 504.
    #[error("{0}")]
    Timeout(String),
    /// A Status made elsewhere (admission), passed on whole.
    #[error("{}", .0["message"].as_str().unwrap_or_default())]
    Status(Box<Value>),
}

fn invalid_message(subject: &Subject, errors: &[FieldError]) -> String {
    let head = format!("{} {:?} is invalid", subject.qualified(), subject.name);
    let mut lines: Vec<String> = Vec::new();
    for e in errors {
        let line = format!("{}: {}", e.field, e.message);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    match lines.len() {
        0 => head,
        1 => format!("{head}: {}", lines[0]),
        _ => format!("{head}: [{}]", lines.join(", ")),
    }
}

impl ApiError {
    /// A 403 with Kubernetes' beginning: `<resource> "<name>" is forbidden: detail`.
    pub fn forbidden(subject: Subject, detail: &str) -> Self {
        let message = if subject.name.is_empty() {
            format!("{} is forbidden: {detail}", subject.qualified())
        } else {
            format!(
                "{} {:?} is forbidden: {detail}",
                subject.qualified(),
                subject.name
            )
        };
        Self::Forbidden { subject, message }
    }

    /// A 422 about one object.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: Vec<FieldError>) -> Self {
        Self::Invalid {
            subject: Subject::new(group, kind, name),
            errors,
        }
    }

    /// HTTP status code.
    pub fn code(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Unauthorized => 401,
            Self::Forbidden { .. } => 403,
            Self::NotFound(_) | Self::NoSuchResource => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable(_) => 406,
            Self::AlreadyExists(_)
            | Self::StillDeleting(_)
            | Self::Conflict { .. }
            | Self::ApplyConflict { .. } => 409,
            Self::Expired(_) => 410,
            Self::RequestEntityTooLarge(_) => 413,
            Self::UnsupportedMediaType(_) => 415,
            Self::Invalid { .. } => 422,
            Self::TooManyRequests { .. } => 429,
            Self::Internal(_) | Self::Plain(_) => 500,
            Self::ServiceUnavailable(_) => 503,
            Self::Timeout(_) => 504,
            Self::Status(s) => s["code"]
                .as_u64()
                .and_then(|c| u16::try_from(c).ok())
                .unwrap_or(500),
        }
    }

    /// `metav1.StatusReason`.
    pub fn reason(&self) -> &str {
        match self {
            Self::BadRequest(_) => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden { .. } => "Forbidden",
            Self::NotFound(_) | Self::NoSuchResource => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable(_) => "NotAcceptable",
            Self::AlreadyExists(_) | Self::StillDeleting(_) => "AlreadyExists",
            Self::Conflict { .. } | Self::ApplyConflict { .. } => "Conflict",
            Self::Expired(_) => "Expired",
            Self::RequestEntityTooLarge(_) => "RequestEntityTooLarge",
            Self::UnsupportedMediaType(_) => "UnsupportedMediaType",
            Self::Invalid { .. } => "Invalid",
            Self::TooManyRequests { .. } => "TooManyRequests",
            Self::Internal(_) => "InternalError",
            Self::Plain(_) => "",
            Self::ServiceUnavailable(_) => "ServiceUnavailable",
            Self::Timeout(_) => "Timeout",
            Self::Status(s) => s["reason"].as_str().unwrap_or_default(),
        }
    }

    /// The whole `metav1.Status` object.
    pub fn status(&self) -> Value {
        if let Self::Status(s) = self {
            return (**s).clone();
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.to_string(), "code": self.code(),
        });
        if !self.reason().is_empty() {
            status["reason"] = self.reason().into();
        }
        let details = self.details();
        if details.as_object().is_some_and(|d| !d.is_empty()) {
            status["details"] = details;
        } else if matches!(
            self,
            Self::NoSuchResource | Self::MethodNotAllowed | Self::Forbidden { .. }
        ) {
            status["details"] = json!({});
        }
        status
    }

    fn details(&self) -> Value {
        let mut details = json!({});
        match self {
            Self::Forbidden { subject, .. }
            | Self::NotFound(subject)
            | Self::AlreadyExists(subject)
            | Self::StillDeleting(subject)
            | Self::Conflict { subject, .. }
            | Self::Invalid { subject, .. } => {
                for (k, v) in [
                    ("group", &subject.group),
                    ("kind", &subject.resource),
                    ("name", &subject.name),
                ] {
                    if !v.is_empty() {
                        details[k] = v.as_str().into();
                    }
                }
            }
            Self::ApplyConflict { causes, .. } => {
                details["causes"] = causes
                    .iter()
                    .map(|(m, f)| json!({"reason": "FieldManagerConflict", "message": m, "field": f}))
                    .collect();
            }
            Self::TooManyRequests { retry_after, .. } => {
                details["retryAfterSeconds"] = retry_after.as_secs().max(1).into();
            }
            Self::Internal(message) => details["causes"] = json!([{ "message": message }]),
            _ => {}
        }
        if let Self::Invalid { errors, .. } = self {
            details["causes"] = errors
                .iter()
                .map(|e| json!({"reason": e.kind.cause(), "message": e.message, "field": e.field}))
                .collect();
        }
        details
    }
}
