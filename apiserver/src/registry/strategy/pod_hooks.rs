//! Probes of a container and what is run when it starts and stops.

use super::check::{Errors, Spot};
use crate::error::FieldError;
use crate::registry::names;
use serde_json::Value;

const COUNTS: [&str; 5] = [
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";

fn port(port: &Spot<'_>, errors: &mut Errors) {
    match port.value {
        Value::String(_) => port.named(errors, names::port_name),
        _ => super::pod_rules::port_number(errors, &port.path, port.value),
    }
}

/// A probe or hook: exactly one handler, and that one sound. A pod that stops sleeps no longer than `grace`.
fn handler(holder: &Spot<'_>, kinds: &[&str], grace: i64, errors: &mut Errors) {
    let given: Vec<(&str, Spot<'_>)> = kinds
        .iter()
        .filter_map(|kind| Some((*kind, holder.given(kind)?)))
        .collect();
    let Some((kind, first)) = given.first() else {
        holder.missing(errors, "must specify a handler type");
        return;
    };
    match *kind {
        "exec" => {
            first.at("command").required(errors, "");
        }
        "httpGet" => {
            first.at("path").required(errors, "");
            port(&first.at("port"), errors);
            if first.at("scheme").required(errors, "") {
                first.at("scheme").among(errors, &["HTTP", "HTTPS"]);
            }
            for header in first.list("httpHeaders") {
                let name = header.at("name");
                let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
                if name.is_empty() || !name.text().bytes().all(fine) {
                    let at = Spot::new(name.value, format!("{}.httpHeaders", first.path));
                    at.invalid_text(errors, HEADER);
                }
            }
        }
        "tcpSocket" | "grpc" => port(&first.at("port"), errors),
        "sleep" => {
            let seconds = first.at("seconds").number();
            if seconds < 0 || seconds > grace {
                let why =
                    format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                first.invalid_shown(errors, &seconds.to_string(), &why);
            }
        }
        _ => {}
    }
    for (_, more) in given.iter().skip(1) {
        more.forbidden(errors, "may not specify more than 1 handler type");
    }
}

/// Hooks and probes of a container, in a pod that gets `grace` seconds to stop.
pub(super) fn validate(container: &Spot<'_>, grace: i64, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.at("lifecycle").given(hook) {
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            handler(&hook, &kinds, grace, errors);
        }
    }
    for name in PROBES {
        let Some(probe) = container.given(name) else {
            continue;
        };
        let kinds = ["exec", "httpGet", "tcpSocket", "grpc"];
        handler(&probe, &kinds, grace, errors);
        for count in COUNTS {
            probe.at(count).not_negative(errors);
        }
        let grace = probe.at("terminationGracePeriodSeconds");
        if name != "readinessProbe" {
            grace.at_least(errors, 1, "must be greater than 0");
            let successes = probe.at("successThreshold");
            if successes.is_set() && successes.number() != 1 {
                successes.invalid(errors, "must be 1");
            }
        } else if grace.is_set() {
            grace.invalid(errors, "must not be set for readinessProbes");
        }
    }
}

/// What a container that runs before the others, and ends, may not have.
pub(super) fn refuse_for_init(container: &Spot<'_>, errors: &mut Errors) {
    let why = "may not be set for init containers without restartPolicy=Always";
    for part in ["lifecycle"].into_iter().chain(PROBES) {
        if let Some(part) = container.given(part) {
            errors.push(FieldError::forbidden(part.path, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_probe_has_one_handler() {
        for (probe, want) in [
            (json!({"tcpSocket": {"port": 80}}), ""),
            (json!({}), "c.livenessProbe"),
            (
                json!({"tcpSocket": {"port": 80}, "grpc": {"port": 80}}),
                "c.livenessProbe.grpc",
            ),
            (
                json!({"httpGet": {"path": "/", "scheme": "HTTP", "port": "a-name"}}),
                "",
            ),
            (
                json!({"httpGet": {"path": "/", "scheme": "HTTP", "port": 0}}),
                "c.livenessProbe.httpGet.port",
            ),
            (
                json!({"httpGet": {"path": "/", "scheme": "HTTP", "port": 1, "httpHeaders": [{"name": "a b"}]}}),
                "c.livenessProbe.httpGet.httpHeaders",
            ),
            (
                json!({"exec": {"command": ["a"]}, "terminationGracePeriodSeconds": 0}),
                "c.livenessProbe.terminationGracePeriodSeconds",
            ),
        ] {
            let container = json!({ "livenessProbe": probe });
            let mut errors = Vec::new();
            validate(&Spot::new(&container, "c"), 30, &mut errors);
            let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
            assert_eq!(fields.join(" "), want, "{container}");
        }
    }

    #[test]
    fn sleep_ends_before_the_pod() {
        for (seconds, good) in [(0, true), (30, true), (31, false), (-1, false)] {
            let container = json!({"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}});
            let mut errors = Vec::new();
            validate(&Spot::new(&container, "c"), 30, &mut errors);
            assert_eq!(errors.is_empty(), good, "{seconds}: {errors:?}");
        }
    }
}
