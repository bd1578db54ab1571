//! Functions of CEL that Kubernetes has, and that the engine lacks or answers otherwise.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use kube::core::cel::cel::common::ast::Expr;
use kube::core::cel::cel::extractors::This;
use kube::core::cel::cel::objects::{Opaque, OptionalValue};
use kube::core::cel::cel::parser::Parser;
use kube::core::cel::cel::{Context, ExecutionError, FunctionContext, Value as Cel, functions};
use std::sync::Arc;

type Answer = Result<Cel, ExecutionError>;

/// Adds them.
pub fn add(context: &mut Context<'_>) {
    super::equality::add(context);
    context.add_function("string", string);
    context.add_function("bool", bool);
    context.add_function("dyn", |value: Cel| -> Answer { Ok(value) });
    context.add_function("type", |value: Cel| -> Answer {
        Ok(type_value(type_name(&value)))
    });
    for name in [
        "int",
        "uint",
        "double",
        "bool",
        "string",
        "bytes",
        "list",
        "map",
        "null_type",
        "type",
    ] {
        context.add_variable_from_value(name, type_value(name));
    }
    context.add_function("optMap", opt_map);
    context.add_function("optFlatMap", opt_map);
    context.add_function("format.named", format_named);
    for name in [
        "getFullYear",
        "getMonth",
        "getDayOfYear",
        "getDayOfMonth",
        "getDate",
        "getDayOfWeek",
        "getHours",
        "getMinutes",
        "getSeconds",
        "getMilliseconds",
    ] {
        context.add_function(name, part_of_time);
    }
}

/// The engine's own does not know the truth as text, and writes durations and times in other ways.
fn string(call: &FunctionContext<'_, '_>, This(value): This<Cel>) -> Answer {
    let text = match &value {
        Cel::Bool(truth) => truth.to_string(),
        Cel::Duration(time) => {
            let (seconds, nanos) = (time.num_seconds(), time.subsec_nanos());
            let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
            let text = format!("{sign}{}.{:09}", seconds.unsigned_abs(), nanos.unsigned_abs());
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        Cel::Timestamp(at) if at.offset().local_minus_utc() == 0 => {
            moment(call, at.timestamp(), at.timestamp_subsec_nanos())?.to_string()
        }
        _ => return functions::string(call, This(value)),
    };
    Ok(Cel::String(Arc::new(text)))
}

fn bool(call: &FunctionContext<'_, '_>, This(value): This<Cel>) -> Answer {
    let text = match &value {
        Cel::Bool(_) => return Ok(value),
        Cel::String(text) => text.as_str(),
        _ => return Err(call.error("it takes a string or a bool")),
    };
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(Cel::Bool(true)),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(Cel::Bool(false)),
        _ => Err(call.error(format!("{text:?} is no bool"))),
    }
}

/// What `type()` gives, and what the names of types mean.
#[derive(Debug, PartialEq, Eq)]
struct TypeValue(String);

impl Opaque for TypeValue {
    fn runtime_type_name(&self) -> &'static str {
        "type"
    }
}

fn type_value(name: &str) -> Cel {
    Cel::Opaque(Arc::new(TypeValue(name.to_owned())))
}

fn type_name(value: &Cel) -> &str {
    match value {
        Cel::List(_) => "list",
        Cel::Map(_) => "map",
        Cel::Function(..) => "function",
        Cel::Int(_) => "int",
        Cel::UInt(_) => "uint",
        Cel::Float(_) => "double",
        Cel::String(_) => "string",
        Cel::Bytes(_) => "bytes",
        Cel::Bool(_) => "bool",
        Cel::Duration(_) => "google.protobuf.Duration",
        Cel::Timestamp(_) => "google.protobuf.Timestamp",
        Cel::Opaque(value) => value.runtime_type_name(),
        Cel::Null => "null_type",
    }
}

/// `optMap` and `optFlatMap`: what is made of a value, if there is one.
fn opt_map(call: &FunctionContext<'_, '_>, This(value): This<Cel>) -> Answer {
    let [variable, made] = call.args else {
        return Err(call.error("it takes a variable and an expression"));
    };
    let Expr::Ident(variable) = &variable.expr else {
        return Err(call.error("the first argument must be a variable"));
    };
    let optional: &OptionalValue = (&value).try_into()?;
    let Some(inner) = optional.value() else {
        return Ok(value);
    };
    let mut scope = call.ptx.new_inner_scope();
    scope.add_variable_from_value(variable.clone(), inner.clone());
    let made = Cel::resolve(made, &scope)?;
    if call.name == "optMap" {
        return Ok(Cel::Opaque(Arc::new(OptionalValue::of(made))));
    }
    let _: &OptionalValue = (&made).try_into()?;
    Ok(made)
}

const FORMATS: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "qualifiedName",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

/// An optional format; the engine's own gives the format itself.
#[allow(clippy::needless_pass_by_value)] // the engine's calling convention
fn format_named(call: &FunctionContext<'_, '_>, name: Arc<String>) -> Answer {
    let format = if FORMATS.contains(&name.as_str()) {
        let format = Parser::default()
            .parse(&format!("format.{name}()"))
            .map_err(|e| call.error(e))?;
        OptionalValue::of(Cel::resolve(&format, call.ptx)?)
    } else {
        OptionalValue::none()
    };
    Ok(Cel::Opaque(Arc::new(format)))
}

fn moment(call: &FunctionContext<'_, '_>, seconds: i64, nanos: u32) -> Result<Timestamp, ExecutionError> {
    let nanos = i32::try_from(nanos).unwrap_or(0);
    Timestamp::new(seconds, nanos).map_err(|e| call.error(e))
}

/// `getHours` and the others, in a time zone where one is given, else in UTC.
fn part_of_time(call: &FunctionContext<'_, '_>, This(value): This<Cel>) -> Answer {
    let Cel::Timestamp(at) = value else {
        return match call.name {
            "getHours" => functions::time::get_hours(This(value)),
            "getMinutes" => functions::time::get_minutes(This(value)),
            "getSeconds" => functions::time::get_seconds(This(value)),
            "getMilliseconds" => functions::time::get_milliseconds(This(value)),
            _ => Err(call.error("it takes a timestamp")),
        };
    };
    let zone = match call.args {
        [] => TimeZone::UTC,
        [zone] => match Cel::resolve(zone, call.ptx)? {
            Cel::String(name) => time_zone(&name).map_err(|e| call.error(e))?,
            _ => return Err(call.error("a time zone is a string")),
        },
        _ => return Err(call.error("it takes one time zone")),
    };
    let at = moment(call, at.timestamp(), at.timestamp_subsec_nanos())?.to_zoned(zone);
    let part = match call.name {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        _ => i64::from(at.millisecond()),
    };
    Ok(Cel::Int(part))
}

/// `+01:00`, `-02:30`, or a name.
fn time_zone(text: &str) -> Result<TimeZone, String> {
    let Some((hours, minutes)) = text.split_once(':') else {
        return TimeZone::get(text).map_err(|e| e.to_string());
    };
    let wrong = || format!("{text:?} is no time zone");
    let negative = hours.starts_with('-');
    let hours: i8 = hours.parse().map_err(|_| wrong())?;
    let minutes: u8 = minutes.parse().map_err(|_| wrong())?;
    let (hours, minutes) = (i32::from(hours), i32::from(minutes));
    let minutes = hours * 60 + if negative { -minutes } else { minutes };
    let offset = Offset::from_seconds(minutes * 60).map_err(|_| wrong())?;
    Ok(TimeZone::fixed(offset))
}
