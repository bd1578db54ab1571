//! The names in expressions about requests whose types are known: `request` and `namespaceObject`
//! (apiserver `admission/plugin/cel`, `BuildRequestType` and `BuildNamespaceType`).

use super::infer::Ty;
use super::nodes::Nodes;
use crate::schema::Type;
use std::sync::LazyLock;

/// Names that may have any value.
pub(super) const DYNAMIC: [&str; 3] = ["object", "oldObject", "params"];

struct Known {
    nodes: Nodes,
    request: u32,
    namespace: u32,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let mut nodes = Nodes::default();
    let request = request(&mut nodes);
    let namespace = namespace(&mut nodes);
    Known {
        nodes,
        request,
        namespace,
    }
});

/// The nodes of all these types.
pub(super) fn nodes() -> &'static Nodes {
    &KNOWN.nodes
}

/// The type of a name.
pub(super) fn of(name: &str) -> Ty {
    match name {
        "request" => Ty::Node(KNOWN.request),
        "namespaceObject" => Ty::Node(KNOWN.namespace),
        _ => Ty::Dyn,
    }
}

fn request(nodes: &mut Nodes) -> u32 {
    let text = nodes.of_kind(Type::String);
    let flag = nodes.of_kind(Type::Boolean);
    let any = nodes.of_kind(Type::Any);
    let texts = nodes.list_of(text);
    let extra = nodes.map_of(texts);
    let kind = nodes.object_of(&[("group", text), ("version", text), ("kind", text)]);
    let resource = nodes.object_of(&[("group", text), ("version", text), ("resource", text)]);
    let user = nodes.object_of(&[
        ("username", text),
        ("uid", text),
        ("groups", texts),
        ("extra", extra),
    ]);
    nodes.object_of(&[
        ("kind", kind),
        ("resource", resource),
        ("subResource", text),
        ("requestKind", kind),
        ("requestResource", resource),
        ("requestSubResource", text),
        ("name", text),
        ("namespace", text),
        ("operation", text),
        ("userInfo", user),
        ("dryRun", flag),
        ("options", any),
    ])
}

fn namespace(nodes: &mut Nodes) -> u32 {
    let text = nodes.of_kind(Type::String);
    let number = nodes.of_kind(Type::Integer);
    // Times are text where they are evaluated.
    let time = nodes.of_kind(Type::Any);
    let texts = nodes.list_of(text);
    let map = nodes.map_of(text);
    let condition = nodes.object_of(&[
        ("status", text),
        ("type", text),
        ("lastTransitionTime", time),
        ("message", text),
        ("reason", text),
    ]);
    let conditions = nodes.list_of(condition);
    let metadata = nodes.object_of(&[
        ("name", text),
        ("generateName", text),
        ("namespace", text),
        ("labels", map),
        ("annotations", map),
        ("UID", text),
        ("creationTimestamp", time),
        ("deletionGracePeriodSeconds", number),
        ("deletionTimestamp", time),
        ("generation", number),
        ("resourceVersion", text),
        ("finalizers", texts),
    ]);
    let spec = nodes.object_of(&[("finalizers", texts)]);
    let status = nodes.object_of(&[("conditions", conditions), ("phase", text)]);
    nodes.object_of(&[("metadata", metadata), ("spec", spec), ("status", status)])
}
