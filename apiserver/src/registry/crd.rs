//! CustomResourceDefinitions as objects: their defaults and kube-apiserver's rules for them
//! (apiextensions-apiserver `pkg/apis/apiextensions/validation`).

pub use super::crd_versions::resources;
use super::crd_versions::{schema, schema_path, uniform};
use super::names;
use super::strategy::webhooks;
use crate::error::{FieldError, FieldErrorKind};
use crate::object;
use crate::schema::cel::Cost;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Groups of Kubernetes itself, which need an approval written into the CRD (KEP-1111).
const PROTECTED: [&str; 2] = ["k8s.io", "kubernetes.io"];
const APPROVED: &str = "api-approved.kubernetes.io";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn versions(crd: &Value) -> impl Iterator<Item = &Value> {
    crd["spec"]["versions"].as_array().into_iter().flatten()
}

fn fill(map: &mut Map<String, Value>, key: &str, value: &str) {
    if map.get(key).and_then(Value::as_str).is_none_or(str::is_empty) && !value.is_empty() {
        map.insert(key.to_owned(), value.into());
    }
}

/// Names that follow from the kind, conversion, and the webhook's port.
pub(super) fn defaults(crd: &mut Value) {
    if !crd["spec"].is_object() {
        return;
    }
    let kind = text(&crd["spec"]["names"], "kind").to_owned();
    if let Some(list) = crd.pointer_mut("/spec/names").and_then(Value::as_object_mut) {
        fill(list, "singular", &kind.to_lowercase());
        if !kind.is_empty() {
            fill(list, "listKind", &format!("{kind}List"));
        }
    }
    let stored = crd["status"]["storedVersions"].as_array();
    if stored.is_none_or(Vec::is_empty) {
        remember_storage(crd);
    }
    let conversion = object::child_mut(&mut crd["spec"], "conversion");
    fill(conversion, "strategy", "None");
    if let Some(service) = crd
        .pointer_mut("/spec/conversion/webhook/clientConfig/service")
        .and_then(Value::as_object_mut)
    {
        service.entry("port").or_insert_with(|| 443.into());
    }
}

/// A status before any controller looked.
pub(super) fn empty_status() -> Value {
    json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": null})
}

fn remember_storage(crd: &mut Value) {
    let Some(storage) = versions(crd)
        .find(|v| v["storage"] == json!(true))
        .map(|v| text(v, "name").to_owned())
    else {
        return;
    };
    let stored = object::child_mut(crd, "status")
        .entry("storedVersions")
        .or_insert(Value::Null);
    if !stored.is_array() {
        *stored = json!([]);
    }
    if let Value::Array(list) = stored
        && !list.iter().any(|v| *v == json!(storage))
    {
        list.push(storage.into());
    }
}

/// Objects will be stored in the storage version from now on.
pub(super) fn prepare_create(crd: &mut Value) {
    remember_storage(crd);
}

/// As on creation: a new storage version joins those stored before.
pub(super) fn prepare_update(crd: &mut Value) {
    remember_storage(crd);
}

/// Objects are stored in some version, whatever a status says.
pub(super) fn prepare_status(crd: &mut Value) {
    let stored = crd["status"]["storedVersions"].as_array();
    if stored.is_none_or(Vec::is_empty) {
        remember_storage(crd);
    }
}

fn check(errors: &mut Vec<FieldError>, field: &str, value: &str, messages: &[String]) {
    errors.extend(
        messages
            .iter()
            .map(|m| FieldError::invalid(field, &json!(value), m)),
    );
}

fn validate_names(spec: &Value, errors: &mut Vec<FieldError>) {
    let list = &spec["names"];
    for key in ["plural", "singular"] {
        let value = text(list, key);
        let field = format!("spec.names.{key}");
        if value.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if !value.is_empty() {
            check(errors, &field, value, &names::dns_1035_label(value));
        }
    }
    for key in ["kind", "listKind"] {
        let value = text(list, key);
        let field = format!("spec.names.{key}");
        if value.is_empty() {
            errors.push(FieldError::required(field, ""));
            continue;
        }
        let messages: Vec<String> = names::dns_1035_label(&value.to_lowercase())
            .into_iter()
            .map(|m| format!("may have mixed case, but should otherwise match: {m}"))
            .collect();
        check(errors, &field, value, &messages);
    }
    for (key, plural) in [("shortNames", "shortNames"), ("categories", "categories")] {
        for (i, name) in list[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .enumerate()
        {
            check(
                errors,
                &format!("spec.names.{plural}[{i}]"),
                name,
                &names::dns_1035_label(name),
            );
        }
    }
    if !text(list, "kind").is_empty() && list["kind"] == list["listKind"] {
        let message = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(
            "spec.names.listKind",
            &list["listKind"],
            message,
        ));
    }
}

/// An error about all versions, which kube-apiserver shows as it keeps them: Go's fields in their declared order.
fn versions_error(spec: &Value, message: &str) -> FieldError {
    let list = spec["versions"].as_array().into_iter().flatten().map(|v| {
        format!(
            "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}}",
            v["name"],
            v["served"],
            v["storage"],
            v["deprecated"].as_bool().unwrap_or(false),
            v["deprecationWarning"],
        )
    });
    let message = format!(
        "Invalid value: [{}]: {message}",
        list.collect::<Vec<_>>().join(",")
    );
    FieldError::new(FieldErrorKind::Invalid, "spec.versions", message)
}

fn validate_columns(version: &Value, at: &str, errors: &mut Vec<FieldError>) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = [
        "byte",
        "date",
        "date-time",
        "double",
        "float",
        "int32",
        "int64",
        "password",
    ];
    for (i, column) in version["additionalPrinterColumns"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let at = format!("{at}.additionalPrinterColumns[{i}]");
        if text(column, "name").is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        }
        let kind = text(column, "type");
        if kind.is_empty() {
            let message = "must be one of boolean,date,integer,number,string";
            errors.push(FieldError::required(format!("{at}.type"), message));
        } else if !TYPES.contains(&kind) {
            let message = "must be one of boolean,date,integer,number,string";
            errors.push(FieldError::invalid(
                format!("{at}.type"),
                &column["type"],
                message,
            ));
        }
        let format = text(column, "format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            let message = "must be one of byte,date,date-time,double,float,int32,int64,password";
            errors.push(FieldError::invalid(
                format!("{at}.format"),
                &column["format"],
                message,
            ));
        }
        let path = text(column, "jsonPath");
        let field = format!("{at}.JSONPath");
        if path.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if !path.starts_with('.') {
            // More is not asked: a column that cannot be read is shown empty.
            let message = "must be a simple json path starting with .";
            errors.push(FieldError::invalid(field, &column["jsonPath"], message));
        }
    }
}

/// Objects are selected by fields that their schema has, and that are scalars.
fn validate_selectable(version: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    let mut seen = Vec::new();
    for (i, field) in fields.enumerate() {
        let path = text(field, "jsonPath");
        let name = format!("{at}.selectableFields[{i}].jsonPath");
        if path.is_empty() {
            errors.push(FieldError::required(name, ""));
            continue;
        }
        if seen.contains(&path) {
            errors.push(FieldError::duplicate(name, &field["jsonPath"]));
            continue;
        }
        seen.push(path);
        let problem = match path.strip_prefix('.') {
            None => {
                let first = path.split(['.', '[']).next().unwrap_or_default();
                Some(format!("is an invalid path: expected [ or . but got: {first}"))
            }
            Some(rest) if rest.contains('[') => {
                Some("is an invalid path: array notation is not allowed".to_owned())
            }
            Some(rest) => {
                let root = &version["schema"]["openAPIV3Schema"];
                let found = rest
                    .split('.')
                    .fold(root, |schema, name| &schema["properties"][name]);
                match found["type"].as_str() {
                    Some("string" | "boolean" | "integer") => None,
                    _ if found.is_null() => Some("is an invalid path: does not refer to a valid field".to_owned()),
                    _ => Some(
                        "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."
                            .to_owned(),
                    ),
                }
            }
        };
        errors.extend(problem.map(|problem| FieldError::invalid(name, &field["jsonPath"], &problem)));
    }
}

fn validate_subresources(version: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let scale = &version["subresources"]["scale"];
    if !scale.is_object() {
        return;
    }
    let at = format!("{at}.subresources.scale");
    for (key, roots, needed) in [
        ("specReplicasPath", &[".spec."][..], true),
        ("statusReplicasPath", &[".status."][..], true),
        ("labelSelectorPath", &[".spec.", ".status."][..], false),
    ] {
        let path = text(scale, key);
        let field = format!("{at}.{key}");
        if path.is_empty() {
            if needed {
                errors.push(FieldError::required(field, ""));
            }
        } else if !roots.iter().any(|r| path.starts_with(r)) {
            let names: Vec<&str> = roots.iter().map(|r| r.trim_end_matches('.')).collect();
            let message = match names.as_slice() {
                _ if !path.starts_with('.') => "must be a simple json path starting with .".to_owned(),
                [one] => format!("should be a json path under {one}"),
                many => format!("should be a json path under either {}", many.join(" or ")),
            };
            errors.push(FieldError::invalid(field, &scale[key], &message));
        }
    }
}

/// A schema that is stored stays, whatever is thought of it now: its definition can be changed elsewhere, and deleted.
fn is_stored(version: &Value, old: Option<&Value>) -> bool {
    let versions = old.and_then(|spec| spec["versions"].as_array());
    let mut before = versions.into_iter().flatten();
    before.any(|v| v["schema"] == version["schema"])
}

fn validate_versions(spec: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let list: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    let mut seen = BTreeSet::new();
    let (mut unique, mut storage) = (true, 0);
    for (i, version) in list.iter().enumerate() {
        let name = text(version, "name");
        unique &= seen.insert(name);
        storage += usize::from(version["storage"] == json!(true));
        let messages = names::dns_1035_label(name);
        check(errors, &format!("spec.versions[{i}].name"), name, &messages);
    }
    if let Some(first) = list.first() {
        // Kubernetes keeps its name twice.
        let name = text(first, "name");
        check(errors, "spec.version", name, &names::dns_1035_label(name));
    }
    if list.is_empty() {
        let message = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &json!([]), message));
        return;
    }
    if !unique {
        let message = "must contain unique version names";
        errors.push(versions_error(spec, message));
    }
    if storage != 1 {
        let message = "must have exactly one version marked as storage version";
        errors.push(versions_error(spec, message));
    }
    let one = uniform(spec);
    for (i, version) in list.iter().enumerate() {
        let at = if one {
            "spec".to_owned()
        } else {
            format!("spec.versions[{i}]")
        };
        if version["schema"]["openAPIV3Schema"].is_null() {
            errors.push(FieldError::required(
                format!("spec.versions[{i}].schema.openAPIV3Schema"),
                "",
            ));
        } else if (!one || i == 0)
            && !is_stored(version, old)
            && let Err(found) = schema(version, &schema_path(spec, i), Cost::Bounded)
        {
            errors.extend(found);
        }
        errors.extend(validate_warning(version, i));
        if !one || i == 0 {
            validate_selectable(version, &at, errors);
            validate_subresources(version, &at, errors);
            validate_columns(version, &at, errors);
        }
    }
}

/// What is wrong with the warning that a version is deprecated.
fn validate_warning(version: &Value, i: usize) -> Option<FieldError> {
    let warning = version["deprecationWarning"].as_str()?;
    let problem = if version["deprecated"] != json!(true) {
        "can only be set for deprecated versions".to_owned()
    } else if warning.is_empty() {
        "must not be an empty string".to_owned()
    } else if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        format!("must only contain printable UTF-8 characters; non-printable character found at index {at}")
    } else {
        return None;
    };
    let field = format!("spec.versions[{i}].deprecationWarning");
    Some(FieldError::invalid(
        field,
        &version["deprecationWarning"],
        &problem,
    ))
}

fn validate_conversion(spec: &Value, errors: &mut Vec<FieldError>) {
    let conversion = &spec["conversion"];
    let webhook = &conversion["webhook"];
    match text(conversion, "strategy") {
        "None" => {
            if !webhook.is_null() {
                let message = "should not be set when strategy is not set to Webhook";
                errors.push(FieldError::forbidden("spec.conversion.webhook", message));
            }
        }
        "Webhook" => {
            let config = &webhook["clientConfig"];
            if config.is_null() {
                let message = "required when strategy is set to Webhook";
                errors.push(FieldError::required(
                    "spec.conversion.webhookClientConfig",
                    message,
                ));
            } else if config["url"].is_null() == config["service"].is_null() {
                let message = "exactly one of url or service is required";
                errors.push(FieldError::required(
                    "spec.conversion.webhookClientConfig",
                    message,
                ));
            }
            if let Some(url) = config["url"].as_str() {
                webhooks::url(errors, "spec.conversion.webhookClientConfig.url", url);
            }
            let at = "spec.conversion.conversionReviewVersions";
            webhooks::review_versions(errors, at, &webhook["conversionReviewVersions"], "");
        }
        "" => errors.push(FieldError::required("spec.conversion.strategy", "")),
        _ => {
            let kinds = ["None", "Webhook"];
            errors.push(FieldError::not_supported(
                "spec.conversion.strategy",
                &conversion["strategy"],
                &kinds,
            ));
        }
    }
}

/// The versions objects may be stored in are a part of those there are.
fn validate_stored(crd: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let stored: Vec<&str> = crd["status"]["storedVersions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if stored.is_empty() {
        if crd["status"]["storedVersions"].is_array() {
            let message = "must have at least one stored version";
            errors.push(FieldError::invalid("status.storedVersions", &json!([]), message));
        }
        return errors;
    }
    for (i, version) in stored.iter().enumerate() {
        if !versions(crd).any(|v| text(v, "name") == *version) {
            let message = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"
            );
            errors.push(FieldError::invalid(
                format!("status.storedVersions[{i}]"),
                &json!(version),
                &message,
            ));
        }
    }
    let storage = versions(crd)
        .filter(|v| v["storage"] == json!(true))
        .last()
        .map_or("", |v| text(v, "name"));
    if !storage.is_empty() && !stored.contains(&storage) {
        let message = format!("must have the storage version {storage}");
        errors.push(FieldError::invalid(
            "status.storedVersions",
            &json!(stored),
            &message,
        ));
    }
    errors
}

fn is_protected(group: &str) -> bool {
    PROTECTED
        .iter()
        .any(|p| group == *p || group.strip_suffix(p).is_some_and(|r| r.ends_with('.')))
}

fn is_established(crd: &Value) -> bool {
    let conditions = crd["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|c| text(c, "type") == "Established" && text(c, "status") == "True")
}

/// What is wrong with a CustomResourceDefinition, `old` being its last state on a change.
pub fn validate(crd: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &crd["spec"];
    let (group, name) = (text(spec, "group"), object::name(crd));
    let mut errors = Vec::new();
    if old.is_none() && !name.is_empty() && name != format!("{}.{group}", text(&spec["names"], "plural")) {
        let message = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &json!(name), message));
    }
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else {
        let messages = names::dns_subdomain(group);
        check(&mut errors, "spec.group", group, &messages);
        if messages.is_empty() && !group.contains('.') {
            let message = "should be a domain with at least one dot";
            errors.push(FieldError::invalid("spec.group", &json!(group), message));
        }
    }
    match text(spec, "scope") {
        "Cluster" | "Namespaced" => {}
        "" => errors.push(FieldError::required("spec.scope", "")),
        _ => {
            let scopes = ["Cluster", "Namespaced"];
            errors.push(FieldError::not_supported("spec.scope", &spec["scope"], &scopes));
        }
    }
    if spec["preserveUnknownFields"] == json!(true) {
        let message = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(
            "spec.preserveUnknownFields",
            &json!(true),
            message,
        ));
    }
    validate_versions(spec, old.map(|o| &o["spec"]), &mut errors);
    validate_names(spec, &mut errors);
    validate_conversion(spec, &mut errors);
    errors.extend(validate_stored(crd));
    if old.is_none() && crd["status"]["storedVersions"].is_null() {
        let message = "must have at least one stored version";
        errors.push(FieldError::invalid(
            "status.storedVersions",
            &Value::Null,
            message,
        ));
    }
    if is_protected(group) && crd["metadata"]["annotations"][APPROVED].is_null() {
        let field = format!("metadata.annotations[{APPROVED}]");
        let message = format!(
            "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        errors.push(FieldError::required(field, &message));
    }
    if let Some(old) = old {
        let was = &old["spec"];
        let mut fixed = vec!["/group", "/names/plural"];
        if is_established(old) {
            fixed.extend(["/scope", "/names/kind"]);
        }
        for path in fixed {
            let value = spec.pointer(path).unwrap_or(&Value::Null);
            if value != was.pointer(path).unwrap_or(&Value::Null) {
                let field = format!("spec{}", path.replace('/', "."));
                errors.push(FieldError::invalid(field, value, "field is immutable"));
            }
        }
    }
    errors
}
