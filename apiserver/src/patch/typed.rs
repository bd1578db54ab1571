//! A value seen through its schema: is it one piece, a map whose fields are owned one by one, or a list of keyed items.
//!
//! Follows how kube-apiserver reads OpenAPI for merging (kube-openapi `schemaconv`): what has no type is *deduced* from
//! the value, maps granular and lists atomic.

use super::fieldset::{FieldSet, Node};
use super::path::PathElement;
use crate::schema::{ListType, Ref, Schema, Type, builtin};
use serde_json::Value;
use std::sync::LazyLock;

const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
/// Where metadata.managedFields is: never part of a comparison.
pub(super) const MANAGED_FIELDS: &str = "managedFields";

/// The type of a place in an object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ty<'a> {
    /// By schema. `preserve`: an ancestor keeps unknown fields; `root`: a whole object with apiVersion, kind, metadata.
    Known {
        node: &'a Schema,
        preserve: bool,
        root: bool,
    },
    /// By value, maps granular.
    Deduced,
    /// By value, all one piece.
    Whole,
}

/// How a value is taken apart.
pub(super) enum Shape<'a> {
    Scalar(Scalar),
    List(List<'a>),
    Map(Fields<'a>),
}

/// Which scalars fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Numeric,
    String,
    Boolean,
    Any,
}

/// How a list is taken apart.
pub(super) enum Items<'a> {
    Atomic,
    Set,
    Keys(&'a [Box<str>]),
}

/// A list.
pub(super) struct List<'a> {
    pub(super) by: Items<'a>,
    pub(super) items: Ty<'a>,
    /// Keys that are not there have the zero value of their type: Go's structs always have them.
    zero: bool,
}

/// A map or struct.
pub(super) struct Fields<'a> {
    pub(super) atomic: bool,
    ty: Ty<'a>,
}

/// The type of a map's field.
pub(super) enum Field<'a> {
    /// Named in the schema.
    Declared(Ty<'a>),
    /// A key of a map.
    Entry(Ty<'a>),
    /// Not allowed.
    Unknown,
}

impl<'a> Field<'a> {
    pub(super) fn ty(self) -> Ty<'a> {
        match self {
            Self::Declared(ty) | Self::Entry(ty) => ty,
            Self::Unknown => Ty::Deduced,
        }
    }
}

static METADATA: LazyLock<Schema> = LazyLock::new(metadata);
static TEXT: LazyLock<Schema> = LazyLock::new(|| Schema {
    kind: Type::String,
    ..Schema::default()
});

static NO_TEXT: LazyLock<Value> = LazyLock::new(|| "".into());
static NO_NUMBER: LazyLock<Value> = LazyLock::new(|| 0.into());

fn inline(schema: Schema) -> Ref {
    Ref::Inline(Box::new(schema))
}

/// ObjectMeta, as far as merging needs it: a CustomResourceDefinition's schema does not spell it out.
fn metadata() -> Schema {
    let of = |kind| Schema {
        kind,
        ..Schema::default()
    };
    let list = |list_type, items| Schema {
        list_type: Some(list_type),
        items: Some(inline(items)),
        ..of(Type::Array)
    };
    let any = || Schema {
        additional: Some(inline(Schema::default())),
        ..of(Type::Object)
    };
    let mut schema = of(Type::Object);
    let mut add = |name: &str, field: Schema| schema.properties.insert(name.into(), inline(field));
    for name in [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
    ] {
        add(name, of(Type::String));
    }
    for name in ["creationTimestamp", "deletionTimestamp"] {
        add(
            name,
            Schema {
                format: Some("date-time".into()),
                ..of(Type::String)
            },
        );
    }
    for name in ["generation", "deletionGracePeriodSeconds"] {
        add(name, of(Type::Integer));
    }
    for name in ["labels", "annotations"] {
        add(
            name,
            Schema {
                additional: Some(inline(of(Type::String))),
                ..of(Type::Object)
            },
        );
    }
    add("finalizers", list(ListType::Set, of(Type::String)));
    add(MANAGED_FIELDS, list(ListType::Atomic, any()));
    let mut owner = Schema {
        atomic_map: true,
        ..of(Type::Object)
    };
    for name in ["apiVersion", "kind", "name", "uid"] {
        owner.properties.insert(name.into(), inline(of(Type::String)));
    }
    for name in ["controller", "blockOwnerDeletion"] {
        owner.properties.insert(name.into(), inline(of(Type::Boolean)));
    }
    add("ownerReferences", list(ListType::Map(vec!["uid".into()]), owner));
    schema
}

/// The schema a reference means; `None` for a name no built-in type has.
pub(super) fn resolve(r: &Ref) -> Option<&Schema> {
    match r {
        Ref::Inline(schema) => Some(schema),
        Ref::Named(name) => builtin::named(name),
    }
}

impl<'a> Ty<'a> {
    /// The type of a whole object.
    pub(super) fn object(schema: &'a Schema) -> Self {
        Self::Known {
            node: schema,
            preserve: false,
            root: true,
        }
    }

    fn of(r: &'a Ref, preserve: bool) -> Self {
        match r {
            Ref::Named(name) if &**name == RAW_EXTENSION => Self::Whole,
            Ref::Named(_) => resolve(r).map_or(Self::Deduced, |node| Self::Known {
                node,
                preserve: false,
                root: false,
            }),
            Ref::Inline(node) => Self::Known {
                node,
                preserve: preserve || node.preserve_unknown,
                root: node.embedded_resource,
            },
        }
    }

    /// How this value is taken apart. A value that does not fit its type keeps the type's shape.
    pub(super) fn shape(self, value: &Value) -> Shape<'a> {
        let kind = match self {
            Self::Known { node, .. } => node.kind,
            Self::Deduced | Self::Whole => Type::Any,
        };
        match kind {
            Type::Object => Shape::Map(self.fields()),
            Type::Array => Shape::List(self.list()),
            Type::Any => match value {
                Value::Object(_) | Value::Null => Shape::Map(self.fields()),
                Value::Array(_) => Shape::List(self.list()),
                _ => Shape::Scalar(Scalar::Any),
            },
            Type::Integer | Type::Number => Shape::Scalar(Scalar::Numeric),
            Type::Boolean => Shape::Scalar(Scalar::Boolean),
            // Of a custom resource the published schema says nothing more than that it may be either: what is neither is
            // refused by the rules of the schema.
            Type::IntOrString if self.is_free() => match value {
                Value::Object(_) => Shape::Map(Ty::Deduced.fields()),
                Value::Array(_) => Shape::List(Ty::Deduced.list()),
                _ => Shape::Scalar(Scalar::Any),
            },
            Type::IntOrString | Type::Quantity => Shape::Scalar(Scalar::Any),
            Type::String => match self {
                Self::Known { node, .. }
                    if node.format.as_deref().is_none_or(|f| f == "byte" || f.is_empty()) =>
                {
                    Shape::Scalar(Scalar::String)
                }
                _ => Shape::Scalar(Scalar::Any),
            },
        }
    }

    /// This type as a map; what it would be for a map value.
    pub(super) fn fields(self) -> Fields<'a> {
        let atomic = match self {
            Self::Known { node, .. } => node.atomic_map,
            Self::Deduced => false,
            Self::Whole => true,
        };
        Fields { atomic, ty: self }
    }

    /// This type as a list; what it would be for a list value.
    pub(super) fn list(self) -> List<'a> {
        let Self::Known { node, preserve, .. } = self else {
            return List {
                by: Items::Atomic,
                items: Ty::Whole,
                zero: false,
            };
        };
        let by = match (&node.list_type, &node.patch_strategy, &node.patch_merge_key) {
            (Some(ListType::Set), ..) => Items::Set,
            (Some(ListType::Map(keys)), ..) => Items::Keys(keys),
            (None, Some(strategy), key) if strategy.split(',').any(|s| s == "merge") => match key {
                Some(key) => Items::Keys(std::slice::from_ref(key)),
                None => Items::Set,
            },
            (Some(ListType::Atomic) | None, ..) => Items::Atomic,
        };
        let items = node.items.as_ref().map_or(Ty::Whole, |r| Ty::of(r, preserve));
        let zero = matches!(node.items, Some(Ref::Named(_)));
        List { by, items, zero }
    }

    /// Whether a number or text is one of a custom resource: built-in ones have a format.
    fn is_free(self) -> bool {
        matches!(self, Self::Known { node, .. } if node.format.is_none())
    }

    fn is_map(self) -> bool {
        match self {
            Self::Known { node, .. } => matches!(node.kind, Type::Object | Type::Any),
            Self::Deduced | Self::Whole => true,
        }
    }

    fn is_list(self) -> bool {
        match self {
            Self::Known { node, .. } => matches!(node.kind, Type::Array | Type::Any),
            Self::Deduced | Self::Whole => true,
        }
    }
}

impl<'a> Fields<'a> {
    /// The type of one field.
    pub(super) fn field(&self, name: &str) -> Field<'a> {
        let (node, preserve) = match self.ty {
            Ty::Known { node, preserve, root } => {
                match name {
                    "metadata" if root => {
                        return Field::Declared(Ty::Known {
                            node: &METADATA,
                            preserve: false,
                            root: false,
                        });
                    }
                    "apiVersion" | "kind" if root => {
                        return Field::Declared(Ty::Known {
                            node: &TEXT,
                            preserve: false,
                            root: false,
                        });
                    }
                    _ => {}
                }
                (node, preserve || node.preserve_unknown)
            }
            other => return Field::Entry(other),
        };
        if let Some(r) = node.properties.get(name) {
            Field::Declared(Ty::of(r, preserve))
        } else if let Some(r) = &node.additional {
            Field::Entry(Ty::of(r, preserve))
        } else if preserve || node.properties.is_empty() {
            Field::Entry(Ty::Deduced)
        } else {
            Field::Unknown
        }
    }

    /// Whether this is the metadata of an object, where managedFields stays out of everything.
    pub(super) fn skips(&self, name: &str) -> bool {
        name == MANAGED_FIELDS
            && matches!(self.ty, Ty::Known { node, .. } if std::ptr::eq(node, &raw const *METADATA))
    }
}

impl List<'_> {
    /// The path element of an item of a set or list-map; defaults stand in for keys that are not there.
    pub(super) fn element(&self, item: &Value) -> Result<PathElement, String> {
        match self.by {
            Items::Atomic => Err("invalid indexing of non-associative list".into()),
            Items::Set => match item {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".into())
                }
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => {
                    Err("associative list without keys has an element that's an explicit null".into())
                }
                scalar => Ok(PathElement::Item(scalar.clone())),
            },
            Items::Keys(names) => {
                let fields = match item {
                    Value::Object(fields) => fields,
                    Value::Null => {
                        return Err("associative list with keys may not have a null element".into());
                    }
                    _ => return Err("associative list with keys may not have non-map elements".into()),
                };
                let mut keys = Vec::with_capacity(names.len());
                for name in names {
                    if let Some(value) = fields.get(&**name).or_else(|| self.default_of(name)) {
                        keys.push((name.clone(), value.clone()));
                    }
                }
                if keys.is_empty() {
                    return Err(format!(
                        "associative list with keys has an element that omits all key fields {names:?} \
                         (and doesn't have default values for any key fields)"
                    ));
                }
                Ok(PathElement::key(keys))
            }
        }
    }

    fn default_of(&self, name: &str) -> Option<&Value> {
        match self.items {
            Ty::Known { node, .. } => {
                let key = resolve(node.properties.get(name)?)?;
                let zero = match key.kind {
                    Type::String if self.zero => Some(&*NO_TEXT),
                    Type::Integer if self.zero => Some(&*NO_NUMBER),
                    _ => None,
                };
                key.default.as_ref().or(zero)
            }
            _ => None,
        }
    }

    pub(super) fn is_atomic(&self) -> bool {
        matches!(self.by, Items::Atomic)
    }
}

/// The fields a value has: what a manager that applies it owns.
pub(super) fn field_set(ty: Ty<'_>, value: &Value) -> FieldSet {
    fields_of(ty, value).1
}

fn fields_of(ty: Ty<'_>, value: &Value) -> (bool, FieldSet) {
    let mut set = FieldSet::default();
    match (ty.shape(value), value) {
        (Shape::Scalar(_), _) => return (true, set),
        (Shape::List(list), _) if list.is_atomic() => return (true, set),
        (Shape::Map(map), _) if map.atomic => return (true, set),
        (Shape::List(list), Value::Array(items)) => {
            let mut keyed: Vec<_> = items
                .iter()
                .filter_map(|i| Some((list.element(i).ok()?, i)))
                .collect();
            keyed.sort_by(|a, b| a.0.cmp(&b.0));
            let mut keyed = keyed.into_iter().peekable();
            while let Some((element, item)) = keyed.next() {
                let mut alone = true;
                while keyed.next_if(|(other, _)| *other == element).is_some() {
                    alone = false;
                }
                // An item that is there twice is owned as one piece.
                let children = if alone {
                    fields_of(list.items, item).1
                } else {
                    FieldSet::EMPTY
                };
                set.attach(element, true, children);
            }
        }
        (Shape::Map(map), Value::Object(fields)) => {
            for (name, value) in fields.iter().filter(|(name, _)| !map.skips(name)) {
                let field = map.field(name);
                let entry = !matches!(field, Field::Declared(_));
                let (member, children) = fields_of(field.ty(), value);
                let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                set.attach(PathElement::field(name), member || entry || empty, children);
            }
        }
        _ => {}
    }
    (false, set)
}

/// The set, and with it the struct fields above its members, which no one names in fieldsV1.
pub(super) fn with_named_parents(ty: Ty<'_>, mut set: FieldSet) -> FieldSet {
    for node in set.nodes_mut() {
        let below = match &node.element {
            PathElement::Field(name) if ty.is_map() => {
                let field = ty.fields().field(name);
                if matches!(field, Field::Declared(_)) && !node.children.is_empty() {
                    node.member = true;
                }
                field.ty()
            }
            PathElement::Key(_) if ty.is_list() => ty.list().items,
            _ => Ty::Deduced,
        };
        node.children = with_named_parents(below, std::mem::take(&mut node.children));
    }
    set
}

/// Turns ownership of parts of what has become one piece since into ownership of the piece.
pub(super) fn reconcile(ty: Ty<'_>, set: &mut FieldSet) {
    for node in set.nodes_mut() {
        let below = match &node.element {
            PathElement::Field(name) if ty.is_map() => match ty.fields().field(name) {
                Field::Unknown => continue,
                field => field.ty(),
            },
            PathElement::Key(_) | PathElement::Item(_) if ty.is_list() => ty.list().items,
            _ => continue,
        };
        reconcile_node(below, node);
    }
}

fn reconcile_node(ty: Ty<'_>, node: &mut Node) {
    let Ty::Known { node: schema, .. } = ty else {
        return;
    };
    if node.children.is_empty() {
        return;
    }
    let atomic = match schema.kind {
        Type::Array => ty.list().is_atomic(),
        Type::Object => schema.atomic_map,
        _ => false,
    };
    if atomic {
        node.member = true;
        node.children = FieldSet::EMPTY;
    } else {
        reconcile(ty, &mut node.children);
    }
}
