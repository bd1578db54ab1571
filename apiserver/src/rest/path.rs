//! What a URL asks for: the rules of kube-apiserver's request info, before anything is known about resources.

use super::params::Query;
use http::Method;

/// A request, taken apart. Empty text where a part is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Below `/api/<version>` or `/apis/<group>/<version>` and naming a resource.
    pub is_resource: bool,
    /// The path, decoded.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the method in lower case
    /// for non-resource paths.
    pub verb: String,
    /// API group, `""` for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace of the path.
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    /// Object name of the path.
    pub name: String,
    /// Subresource, the rest of the path behind it dropped.
    pub subresource: String,
    /// What follows the subresource.
    pub rest: Vec<String>,
}

/// Subresources of a namespace: what follows a namespace's name and is none of these is a resource inside it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Whether requests with that verb change something.
pub fn is_mutating(verb: &str) -> bool {
    matches!(
        verb,
        "create" | "update" | "patch" | "delete" | "deletecollection"
    )
}

impl RequestInfo {
    /// Takes a request apart.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let decoded = percent_decode(path, false);
        let mut info = RequestInfo {
            path: decoded.clone(),
            verb: method.as_str().to_ascii_lowercase(),
            ..RequestInfo::default()
        };
        let mut parts: Vec<&str> = decoded
            .trim_matches('/')
            .split('/')
            .filter(|p| !p.is_empty())
            .collect();
        match parts.first() {
            Some(&"api") if parts.len() > 2 => {
                parts[1].clone_into(&mut info.version);
                parts.drain(..2);
            }
            Some(&"apis") if parts.len() > 3 => {
                parts[1].clone_into(&mut info.group);
                parts[2].clone_into(&mut info.version);
                parts.drain(..3);
            }
            _ => return info,
        }
        info.is_resource = true;
        method_verb(method).clone_into(&mut info.verb);
        let watch_prefix = parts.len() > 1 && parts[0] == "watch";
        if watch_prefix {
            parts.remove(0);
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            parts[1].clone_into(&mut info.namespace);
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts.drain(..2);
            }
        }
        let mut parts = parts.into_iter().map(str::to_owned);
        info.resource = parts.next().unwrap_or_default();
        info.name = parts.next().unwrap_or_default();
        info.subresource = parts.next().unwrap_or_default();
        info.rest = parts.collect();
        if info.name.is_empty() {
            info.verb = match info.verb.as_str() {
                "get" if query.flag("watch") => "watch".into(),
                "get" => "list".into(),
                "delete" => "deletecollection".into(),
                other => other.into(),
            };
        }
        if watch_prefix && matches!(info.verb.as_str(), "get" | "list") {
            info.verb = "watch".into();
        }
        info
    }

    /// The name authorization sees: that of the path, or of a `metadata.name=` field selector on list, watch and
    /// deletecollection.
    pub fn authorized_name(&self, query: &Query) -> String {
        if self.name.is_empty()
            && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection")
            && let Some(selector) = query.get("fieldSelector")
        {
            let single = selector.split(',').find_map(|t| {
                let value = t.strip_prefix("metadata.name=")?;
                Some(value.strip_prefix('=').unwrap_or(value).to_owned())
            });
            return single.unwrap_or_default();
        }
        self.name.clone()
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// Decodes `%XX` (and `+` as a space in queries). Bytes that are no UTF-8 become the replacement character.
pub fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match bytes[i] {
            b'%' => {
                if let (Some(high), Some(low)) = (hex(i + 1), hex(i + 2)) {
                    out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                    i += 2;
                } else {
                    out.push(b'%');
                }
            }
            b'+' if plus_is_space => out.push(b' '),
            other => out.push(other),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &Method, path: &str, query: &str) -> RequestInfo {
        RequestInfo::parse(method, path, &Query::parse(query))
    }

    #[test]
    fn paths_are_taken_apart() {
        // method, path, query, verb, group, version, namespace, resource, name, subresource
        let get = Method::GET;
        let table = [
            (
                &get,
                "/api/v1/namespaces",
                "",
                "list",
                "",
                "v1",
                "",
                "namespaces",
                "",
                "",
            ),
            (
                &get,
                "/api/v1/namespaces/a",
                "",
                "get",
                "",
                "v1",
                "a",
                "namespaces",
                "a",
                "",
            ),
            (
                &Method::PUT,
                "/api/v1/namespaces/a/finalize",
                "",
                "update",
                "",
                "v1",
                "a",
                "namespaces",
                "a",
                "finalize",
            ),
            (
                &get,
                "/api/v1/namespaces/a/pods",
                "watch=1",
                "watch",
                "",
                "v1",
                "a",
                "pods",
                "",
                "",
            ),
            (
                &get,
                "/api/v1/namespaces/a/pods/p/log",
                "",
                "get",
                "",
                "v1",
                "a",
                "pods",
                "p",
                "log",
            ),
            (
                &Method::DELETE,
                "/apis/apps/v1/namespaces/a/deployments",
                "",
                "deletecollection",
                "apps",
                "v1",
                "a",
                "deployments",
                "",
                "",
            ),
            (
                &Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/d/status",
                "",
                "patch",
                "apps",
                "v1",
                "a",
                "deployments",
                "d",
                "status",
            ),
            (
                &get,
                "/apis/x.io/v1/things/a%2Fb",
                "",
                "get",
                "x.io",
                "v1",
                "",
                "things",
                "a",
                "b",
            ),
            (
                &get,
                "/api/v1/watch/namespaces/a/pods",
                "",
                "watch",
                "",
                "v1",
                "a",
                "pods",
                "",
                "",
            ),
        ];
        for (method, path, query, verb, group, version, namespace, resource, name, sub) in table {
            let i = parse(method, path, query);
            assert!(i.is_resource, "{path}");
            assert_eq!(
                (verb, group, version, namespace, resource, name, sub),
                (
                    i.verb.as_str(),
                    i.group.as_str(),
                    i.version.as_str(),
                    i.namespace.as_str(),
                    i.resource.as_str(),
                    i.name.as_str(),
                    i.subresource.as_str()
                ),
                "{path}"
            );
        }
    }

    #[test]
    fn other_paths_are_not_resources() {
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/healthz",
            "/openapi/v3/apis/apps/v1",
        ] {
            let i = parse(&Method::GET, path, "");
            assert!(!i.is_resource, "{path}");
            assert_eq!(i.verb, "get");
        }
    }

    #[test]
    fn a_selector_by_name_names_the_object() {
        let query = Query::parse("fieldSelector=metadata.name%3Dap");
        let i = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/t/configmaps", &query);
        assert_eq!(i.authorized_name(&query), "ap");
    }
}
