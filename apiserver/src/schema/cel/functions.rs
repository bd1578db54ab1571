//! The functions rules may call.

mod pairs;

use super::infer::Ty;
use kube::core::cel::cel::{Context, ExecutionError, Value as Cel};
use std::sync::Arc;

/// Names of types, which a rule compares `type(x)` with.
pub(super) const TYPES: [&str; 11] = [
    "int",
    "uint",
    "double",
    "bool",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "timestamp",
    "duration",
];

/// The name of a value's type. There are no types as values here; `rewrite` makes names of them too.
#[allow(clippy::needless_pass_by_value)] // what a function is given
fn type_of(value: Cel) -> Arc<String> {
    let name = match value {
        Cel::Int(_) => "int",
        Cel::UInt(_) => "uint",
        Cel::Float(_) => "double",
        Cel::Bool(_) => "bool",
        Cel::String(_) => "string",
        Cel::Bytes(_) => "bytes",
        Cel::List(_) => "list",
        Cel::Map(_) => "map",
        Cel::Null => "null_type",
        Cel::Timestamp(_) => "timestamp",
        Cel::Duration(_) => "duration",
        Cel::Opaque(_) | Cel::Function(..) => "opaque",
    };
    Arc::new(name.to_owned())
}

/// Text of a value. That of the `cel` crate knows no booleans, and hides why there is no value.
#[allow(clippy::needless_pass_by_value)] // what a function is given
fn string(value: Cel) -> Result<Cel, ExecutionError> {
    Ok(Cel::String(Arc::new(match value {
        Cel::String(text) => return Ok(Cel::String(text)),
        Cel::Bool(b) => b.to_string(),
        Cel::Int(n) => n.to_string(),
        Cel::UInt(n) => n.to_string(),
        Cel::Float(n) => n.to_string(),
        Cel::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Cel::Timestamp(at) => at.to_rfc3339().replace("+00:00", "Z"),
        Cel::Duration(long) => seconds(long.num_seconds(), long.subsec_nanos()),
        _ => return Err(ExecutionError::function_error("string", "no such overload")),
    })))
}

/// A duration in seconds, as CEL writes it.
pub(super) fn seconds(whole: i64, nanos: i32) -> String {
    let sign = if whole < 0 || nanos < 0 { "-" } else { "" };
    let (whole, nanos) = (whole.unsigned_abs(), nanos.unsigned_abs());
    let fraction = format!("{nanos:09}");
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{whole}s"),
        fraction => format!("{sign}{whole}.{fraction}s"),
    }
}

/// Adds what neither the `cel` crate nor kube-cel has.
pub(super) fn register(context: &mut Context<'_>) {
    context.add_function("string", string);
    context.add_function("type", type_of);
    context.add_function("dyn", |value: Cel| Ok::<_, ExecutionError>(value));
    pairs::register(context);
}

/// Functions the evaluator has: those of the `cel` crate and of kube-cel.
const FUNCTIONS: &str = " @key @map @merge @pairs @value add asApproximateFloat asInteger bytes charAt cidr compareTo contains \
    containsCIDR containsIP distinct double duration dyn endsWith family find findAll first flatten format format.byte \
    format.date format.datetime format.dns1035Label format.dns1035LabelPrefix format.dns1123Label \
    format.dns1123LabelPrefix format.dns1123Subdomain format.dns1123SubdomainPrefix format.labelValue format.named \
    format.qualifiedName format.uri format.uuid getDate getDayOfMonth getDayOfWeek getDayOfYear getEscapedPath \
    getFullYear getHost getHostname getHours getMilliseconds getMinutes getMonth getPort getQuery getScheme getSeconds \
    hasValue indexOf int ip ip.isCanonical isCIDR isGlobalUnicast isGreaterThan isIP isInteger isLessThan \
    isLinkLocalMulticast isLinkLocalUnicast isLoopback isQuantity isSemver isSorted isURL isUnspecified join \
    last lastIndexOf lists.range lowerAscii major masked matches max min minor optional.none optional.of \
    optional.ofNonZeroValue or orValue patch prefixLength quantity replace reverse semver sets.contains sets.equivalent \
    sets.intersects sign size slice sort split startsWith string strings.quote sub substring sum timestamp trim type uint \
    upperAscii url validate value ";

/// Whether the evaluator has a function of this name.
pub(super) fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&format!(" {name} "))
}

/// What a function gives; `Dyn` where it depends on what it is given.
pub(super) fn returns(name: &str) -> Ty {
    match name {
        "contains"
        | "containsCIDR"
        | "containsIP"
        | "endsWith"
        | "startsWith"
        | "matches"
        | "hasValue"
        | "isCIDR"
        | "isIP"
        | "isInteger"
        | "isQuantity"
        | "isSemver"
        | "isSorted"
        | "isURL"
        | "isGreaterThan"
        | "isLessThan"
        | "isLoopback"
        | "isUnspecified"
        | "isGlobalUnicast"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "ip.isCanonical"
        | "sets.contains"
        | "sets.equivalent"
        | "sets.intersects" => Ty::Bool,
        "size" | "indexOf" | "lastIndexOf" | "int" | "compareTo" | "asInteger" | "major" | "minor"
        | "patch" | "prefixLength" | "getDate" | "getDayOfMonth" | "getDayOfWeek" | "getDayOfYear"
        | "getFullYear" | "getMilliseconds" | "getMonth" => Ty::Int,
        "uint" => Ty::Uint,
        "double" | "asApproximateFloat" => Ty::Double,
        "charAt"
        | "type"
        | "find"
        | "join"
        | "lowerAscii"
        | "replace"
        | "string"
        | "strings.quote"
        | "substring"
        | "trim"
        | "upperAscii"
        | "format"
        | "getEscapedPath"
        | "getHost"
        | "getHostname"
        | "getPort"
        | "getScheme"
        | super::messages::ESCAPE => Ty::String,
        "bytes" => Ty::Bytes,
        "timestamp" => Ty::Timestamp,
        "duration" => Ty::Duration,
        "split" | "findAll" => Ty::List(Box::new(Ty::String)),
        _ => Ty::Dyn,
    }
}
