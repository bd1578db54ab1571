//! The script of one area: requests in order, written as YAML.
//!
//! ```yaml
//! namespace: conform-verbs          # made before, thrown away after
//! objects: {cm: {...}}              # bodies that requests start from
//! steps:
//! - {id: create, POST: $core/configmaps, from: cm, with: {data: {a: b}}}
//! ```
//! The method is the key that holds the path: an HTTP verb, `WATCH`, or the kind of a patch (`merge`, `json`, `strategic`,
//! `apply`). `$core`, `$apps` … are the folders of the namespace; `save` names parts of an answer for later requests.

use anyhow::Context as _;
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// One area.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Its own namespace.
    pub namespace: String,
    /// Named bodies.
    #[serde(default)]
    pub objects: BTreeMap<String, Value>,
    /// What is left behind outside of the namespace.
    #[serde(default)]
    pub cleanup: Vec<String>,
    /// The requests.
    pub steps: Vec<Step>,
}

/// How a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Plainly.
    Plain,
    /// The answer is a stream, read to its end.
    Watch,
    /// A patch of this content type.
    Patch(&'static str),
}

/// What an answer is waited for to have.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Until {
    /// A status code.
    #[serde(rename = "until-code")]
    pub code: Option<u16>,
    /// Conditions with their status.
    #[serde(rename = "until")]
    pub conditions: BTreeMap<String, String>,
    /// Something at this path.
    #[serde(rename = "until-has")]
    pub has: Option<String>,
    /// Nothing at this path.
    #[serde(rename = "until-lacks")]
    pub lacks: Option<String>,
}

/// One request.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// Unique in the area.
    pub id: String,
    #[serde(rename = "from")]
    base: Option<String>,
    with: Option<Value>,
    body: Option<Value>,
    raw: Option<String>,
    /// Content type, where it is not the usual one.
    #[serde(rename = "type")]
    pub content: Option<String>,
    /// Accept header, where it is not JSON.
    pub accept: Option<String>,
    /// User agent.
    pub agent: Option<String>,
    /// Whom to impersonate.
    #[serde(rename = "as")]
    pub user: Option<String>,
    /// Groups to impersonate.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Further headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A bearer token instead of the administrator's certificate; empty is nobody.
    pub token: Option<String>,
    /// Names for parts of the answer.
    #[serde(default)]
    pub save: BTreeMap<String, String>,
    /// What of the answer is not compared.
    #[serde(default)]
    pub skip: Vec<String>,
    /// What the answer must come to have: it is asked for again until then.
    #[serde(flatten)]
    pub until: Until,
    /// The method with its path, and whatever is misspelt.
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Script {
    /// Reads the script of an area.
    pub fn read(folder: &Path, area: &str) -> anyhow::Result<Self> {
        let path = folder.join(format!("{area}.yaml"));
        let text = std::fs::read_to_string(&path)?;
        let script: Self =
            serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let mut seen = std::collections::BTreeSet::new();
        for step in &script.steps {
            anyhow::ensure!(
                seen.insert(&step.id),
                "{area}/{}: there are two of this name",
                step.id
            );
            step.request().with_context(|| format!("{area}/{}", step.id))?;
            if let Some(base) = &step.base {
                anyhow::ensure!(
                    script.objects.contains_key(base),
                    "{area}/{}: no object {base}",
                    step.id
                );
            }
        }
        Ok(script)
    }
}

impl Step {
    /// Method, path and way.
    pub fn request(&self) -> anyhow::Result<(Method, &str, Way)> {
        let mut entries = self.rest.iter().filter(|(key, _)| !key.starts_with("until"));
        let (Some((key, Value::String(path))), None) = (entries.next(), entries.next()) else {
            anyhow::bail!(
                "one method with its path, and nothing unknown, is needed: {:?}",
                self.rest
            );
        };
        let (method, way) = match key.as_str() {
            "WATCH" => (Method::GET, Way::Watch),
            "merge" => (Method::PATCH, Way::Patch("application/merge-patch+json")),
            "json" => (Method::PATCH, Way::Patch("application/json-patch+json")),
            "strategic" => (
                Method::PATCH,
                Way::Patch("application/strategic-merge-patch+json"),
            ),
            "apply" => (Method::PATCH, Way::Patch("application/apply-patch+yaml")),
            verb => {
                anyhow::ensure!(
                    verb.bytes().all(|b| b.is_ascii_uppercase()),
                    "{verb} is no method"
                );
                (Method::from_bytes(verb.as_bytes())?, Way::Plain)
            }
        };
        Ok((method, path, way))
    }

    /// The body, with variables filled in.
    pub fn body(&self, objects: &BTreeMap<String, Value>, vars: &Vars) -> Option<String> {
        if let Some(raw) = &self.raw {
            return Some(vars.fill(raw));
        }
        let mut value = match (&self.body, &self.base) {
            (Some(body), _) => body.clone(),
            (None, Some(base)) => objects.get(base).cloned().unwrap_or_default(),
            (None, None) => return None,
        };
        if let Some(with) = &self.with {
            merge(&mut value, with);
        }
        vars.fill_all(&mut value);
        Some(value.to_string())
    }
}

/// Names that stand for text.
#[derive(Debug, Clone)]
pub struct Vars(BTreeMap<String, String>);

impl Vars {
    /// The folders of a namespace.
    pub fn of(namespace: &str) -> Self {
        let inside = |group: &str| format!("{group}/namespaces/{namespace}");
        let known = [
            ("ns", namespace.to_owned()),
            ("core", inside("/api/v1")),
            ("apps", inside("/apis/apps/v1")),
            ("batch", inside("/apis/batch/v1")),
            ("net", inside("/apis/networking.k8s.io/v1")),
            ("leases", inside("/apis/coordination.k8s.io/v1") + "/leases"),
            ("conform", inside("/apis/conform.io/v1")),
            (
                "crds",
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".into(),
            ),
            ("rbac", "/apis/rbac.authorization.k8s.io/v1".into()),
            ("rbacns", inside("/apis/rbac.authorization.k8s.io/v1")),
            ("authz", "/apis/authorization.k8s.io/v1".into()),
            ("authn", "/apis/authentication.k8s.io/v1".into()),
            (
                "csrs",
                "/apis/certificates.k8s.io/v1/certificatesigningrequests".into(),
            ),
        ];
        Self(
            known
                .into_iter()
                .map(|(name, path)| (name.to_owned(), path))
                .collect(),
        )
    }

    /// Gives a name to a text.
    pub fn set(&mut self, name: &str, text: String) {
        self.0.insert(name.to_owned(), text);
    }

    /// Puts the texts in place of `$name`; what is no name stays (`$patch`).
    pub fn fill(&self, text: &str) -> String {
        let mut parts = text.split('$');
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part
                .find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(part.len());
            if let Some(value) = self.0.get(&part[..end]) {
                out.push_str(value);
                out.push_str(&part[end..]);
            } else {
                out.push('$');
                out.push_str(part);
            }
        }
        out
    }

    fn fill_all(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.fill(text),
            Value::Array(items) => {
                for item in items {
                    self.fill_all(item);
                }
            }
            Value::Object(map) => {
                for item in map.values_mut() {
                    self.fill_all(item);
                }
            }
            _ => {}
        }
    }
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Value::Object(into) = into else { return };
    for (key, value) in patch {
        if value.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// What is at a dotted path.
pub fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, part| match value {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}
