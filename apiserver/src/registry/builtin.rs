//! The built-in kinds: `data/resources.tsv`, taken from a running kube-apiserver's discovery.

use super::{Resource, Subresource, api_version};
use std::sync::{Arc, LazyLock, OnceLock};

const TABLE: &str = include_str!("../../data/resources.tsv");

/// Every built-in resource, in Kubernetes' order.
pub fn resources() -> &'static [Arc<Resource>] {
    static ALL: LazyLock<Vec<Arc<Resource>>> =
        LazyLock::new(|| TABLE.lines().skip(1).filter_map(parse).map(Arc::new).collect());
    &ALL
}

fn list(cell: &str) -> Vec<String> {
    cell.split(',')
        .filter(|s| !s.is_empty())
        .map(str::to_owned)
        .collect()
}

fn parse(line: &str) -> Option<Resource> {
    let cells: Vec<&str> = line.split('\t').collect();
    let [
        group,
        version,
        plural,
        kind,
        scope,
        singular,
        short,
        categories,
        verbs,
        subs,
    ] = cells.as_slice()
    else {
        return None;
    };
    let (storage, storage_version, storage_group) = match (*group, *plural) {
        ("events.k8s.io", "events") => ("/events".to_owned(), "v1", ""),
        ("autoscaling", _) => (format!("{group}/{plural}"), "v2", *group),
        _ => (format!("{group}/{plural}"), *version, *group),
    };
    Some(Resource {
        group: (*group).to_owned(),
        version: (*version).to_owned(),
        plural: (*plural).to_owned(),
        singular: (*singular).to_owned(),
        kind: (*kind).to_owned(),
        list_kind: format!("{kind}List"),
        namespaced: *scope == "Namespaced",
        short_names: list(short),
        categories: list(categories),
        verbs: list(verbs),
        subresources: subs
            .split(' ')
            .filter_map(|s| subresource(s, group, version, kind))
            .collect(),
        storage: storage.into(),
        storage_version: storage_version.to_owned(),
        storage_api_version: api_version(storage_group, storage_version),
        builtin: OnceLock::new(),
        custom: None,
    })
}

/// `name(verb,verb;Kind)`; the kind is the parent's when left out.
fn subresource(cell: &str, group: &str, version: &str, kind: &str) -> Option<Subresource> {
    let (name, rest) = cell.strip_suffix(')')?.split_once('(')?;
    let (verbs, own) = rest.split_once(';').map_or((rest, None), |(v, k)| (v, Some(k)));
    let (group, version) = match own {
        Some("Scale") => ("autoscaling", "v1"),
        Some("Eviction") => ("policy", "v1"),
        Some("TokenRequest") => ("authentication.k8s.io", "v1"),
        _ => (group, version),
    };
    Some(Subresource {
        name: name.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        kind: own.unwrap_or(kind).to_owned(),
        verbs: list(verbs),
    })
}
