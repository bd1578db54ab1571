//! Sends a script to a control plane and gathers the normalised answers.

use super::normal::{normal, text};
use super::script::{Script, Step, Vars, Way, at};
use anyhow::Context as _;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use muster_tests::ControlPlane;
use muster_tests::wait::{SOON, eventually};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Answers by the id of their request.
pub type Answers = BTreeMap<String, Value>;

/// Headers that clients act on.
const HEADERS: [&str; 6] = [
    "allow",
    "content-type",
    "location",
    "retry-after",
    "warning",
    "www-authenticate",
];

/// How long controllers may take until an answer is as it must become.
const BECOMES: Duration = Duration::from_secs(20);

/// How often it is asked again.
const LOOK: Duration = Duration::from_millis(20);

struct Clients {
    admin: Client,
    /// Nobody, until a token says who.
    bare: Client,
}

/// Sends every request of a script. Watches next to each other run at once.
pub async fn run(plane: &ControlPlane, script: &Script) -> anyhow::Result<Answers> {
    let config = Kubeconfig::read_from(plane.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    let admin = plane.kube().client();
    config.auth_info = AuthInfo::default();
    let clients = Clients {
        admin,
        bare: Client::try_from(config)?,
    };
    let mut vars = Vars::of(&script.namespace);
    clean(plane, script, &vars).await?;
    let kube = plane.kube();
    let namespace = format!("/api/v1/namespaces/{}", script.namespace);
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": script.namespace}});
    kube.create("/api/v1/namespaces", &object).await?;
    for given in ["serviceaccounts/default", "configmaps/kube-root-ca.crt"] {
        kube.until_there(&format!("{namespace}/{given}"), SOON).await?;
    }
    let mut answers = Answers::new();
    let mut steps = script.steps.as_slice();
    while let Some(first) = steps.first() {
        let is_watch = |step: &Step| step.request().is_ok_and(|(_, _, way)| way == Way::Watch);
        let many = steps.iter().take_while(|step| is_watch(step)).count();
        let (now, later) = steps.split_at(many.max(1));
        steps = later;
        let sent = now.iter().map(|step| ask(&clients, script, step, &vars));
        let got = futures::future::join_all(sent).await;
        for (step, got) in now.iter().zip(got) {
            let (answer, whole) = got.with_context(|| format!("{}: {}", script.namespace, first.id))?;
            for (name, path) in &step.save {
                let saved = at(&whole, path).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
                vars.set(name, saved.unwrap_or_else(|| "nothing-saved".into()));
            }
            answers.insert(step.id.clone(), answer);
        }
    }
    clean(plane, script, &vars).await?;
    Ok(answers)
}

/// Throws away what a script makes, and waits until it is gone.
async fn clean(plane: &ControlPlane, script: &Script, vars: &Vars) -> anyhow::Result<()> {
    let kube = plane.kube();
    let namespace = format!("/api/v1/namespaces/{}", script.namespace);
    let gone = |result: Result<Value, muster_tests::kube::Refused>| match result {
        Err(refused) if refused.code != 404 => Err(anyhow::Error::new(refused)),
        _ => Ok(()),
    };
    if kube.find(&namespace).await?.is_some() {
        // No kubelet ends them.
        gone(
            kube.delete(&format!("{namespace}/pods?gracePeriodSeconds=0"))
                .await,
        )?;
        gone(kube.delete(&namespace).await)?;
    }
    let paths: Vec<String> = script.cleanup.iter().map(|path| vars.fill(path)).collect();
    for path in &paths {
        gone(kube.delete(path).await)?;
    }
    for path in paths.iter().chain([&namespace]) {
        eventually(SOON, &format!("{path} goes"), async || {
            match kube.find(path).await {
                Ok(None) => Ok(()),
                Ok(Some(object)) => Err(format!("it is there: {object}")),
                Err(refused) => Err(refused.to_string()),
            }
        })
        .await?;
    }
    Ok(())
}

/// The answer to one request, as it must become; normalised and whole.
async fn ask(clients: &Clients, script: &Script, step: &Step, vars: &Vars) -> anyhow::Result<(Value, Value)> {
    let deadline = Instant::now() + BECOMES;
    loop {
        let (mut answer, whole) = once(clients, script, step, vars).await?;
        // What never becomes so is the answer too, and differs.
        if becomes(step, &answer, &whole) || Instant::now() >= deadline {
            for path in &step.skip {
                drop_at(&mut answer, path);
            }
            return Ok((answer, whole));
        }
        sleep(LOOK).await;
    }
}

fn becomes(step: &Step, answer: &Value, body: &Value) -> bool {
    let until = &step.until;
    let conditions = at(body, "status.conditions").and_then(Value::as_array);
    until.code.is_none_or(|code| answer["code"] == code)
        && until.has.as_ref().is_none_or(|path| at(body, path).is_some())
        && until.lacks.as_ref().is_none_or(|path| at(body, path).is_none())
        && until.conditions.iter().all(|(kind, status)| {
            conditions.is_some_and(|all| all.iter().any(|c| c["type"] == **kind && c["status"] == **status))
        })
}

async fn once(
    clients: &Clients,
    script: &Script,
    step: &Step,
    vars: &Vars,
) -> anyhow::Result<(Value, Value)> {
    let (request, way) = request(script, step, vars)?;
    let client = if step.token.is_some() {
        &clients.bare
    } else {
        &clients.admin
    };
    let response = client.send(request).await?;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let response = Response::from_parts(parts, String::from_utf8_lossy(&bytes).into_owned());
    Ok(answer(&response, way))
}

fn request(script: &Script, step: &Step, vars: &Vars) -> anyhow::Result<(Request<Body>, Way)> {
    let (method, path, way) = step.request()?;
    let mut request = Request::builder().method(method).uri(vars.fill(path));
    let body = step.body(&script.objects, vars);
    if let Some(headers) = request.headers_mut() {
        let value = |text: &str| HeaderValue::from_str(text);
        headers.insert(
            header::ACCEPT,
            value(step.accept.as_deref().unwrap_or("application/json"))?,
        );
        headers.insert(
            header::USER_AGENT,
            value(step.agent.as_deref().unwrap_or("conform/1"))?,
        );
        let usual = match way {
            Way::Patch(kind) => Some(kind),
            _ => body.is_some().then_some("application/json"),
        };
        if let Some(kind) = step.content.as_deref().or(usual) {
            headers.insert(header::CONTENT_TYPE, value(kind)?);
        }
        if let Some(user) = &step.user {
            headers.insert("impersonate-user", value(user)?);
        }
        for group in &step.groups {
            headers.append("impersonate-group", value(group)?);
        }
        if let Some(token) = step.token.as_deref().filter(|token| !token.is_empty()) {
            headers.insert(
                header::AUTHORIZATION,
                value(&format!("Bearer {}", vars.fill(token)))?,
            );
        }
        for (name, text) in &step.headers {
            headers.insert(http::HeaderName::from_bytes(name.as_bytes())?, value(text)?);
        }
    }
    Ok((
        request.body(Body::from(body.unwrap_or_default().into_bytes()))?,
        way,
    ))
}

fn answer(response: &Response<String>, way: Way) -> (Value, Value) {
    let mut out = Map::new();
    out.insert("code".into(), response.status().as_u16().into());
    let headers: Map<String, Value> = HEADERS
        .iter()
        .filter_map(|name| {
            let values: Vec<&str> = response
                .headers()
                .get_all(*name)
                .iter()
                .filter_map(|v| v.to_str().ok())
                .collect();
            (!values.is_empty()).then(|| ((*name).to_owned(), text(&values.join(", ")).into()))
        })
        .collect();
    out.insert("headers".into(), headers.into());
    let body = response.body();
    if way == Way::Watch && response.status() == 200 {
        let events: Vec<Value> = body
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| line.into()))
            .filter(|event| !is_plain_bookmark(event))
            .collect();
        out.insert("events".into(), normal(&events.into()));
        return (out.into(), Value::Null);
    }
    let whole: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let shown = if whole.is_null() {
        text(body).into()
    } else {
        normal(&whole)
    };
    out.insert("body".into(), shown);
    (out.into(), whole)
}

/// A bookmark that only tells the time of the stream: when it comes is the server's own affair.
fn is_plain_bookmark(event: &Value) -> bool {
    event["type"] == "BOOKMARK" && !event["object"].to_string().contains("k8s.io/initial-events-end")
}

fn drop_at(answer: &mut Value, path: &str) {
    let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
    let owner = if parent.is_empty() {
        Some(answer)
    } else {
        answer.pointer_mut(&format!("/{}", parent.replace('.', "/")))
    };
    if let Some(Value::Object(owner)) = owner {
        owner.remove(last);
    }
}
