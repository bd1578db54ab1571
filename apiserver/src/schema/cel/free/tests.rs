//! Expressions without a schema.

use super::*;
use serde_json::json;

fn check(names: &[(&'static str, Value)], variables: &[(&str, &str)], text: &str) -> Result<bool, String> {
    let declared: Vec<&'static str> = names.iter().map(|(n, _)| *n).collect();
    let mut scope = Scope::new(&declared);
    for (name, text) in variables {
        scope.declare(name, text)?;
    }
    let expression = scope.compile(text, Gives::Bool)?;
    let mut evaluation = Evaluation::new(&scope);
    for (name, value) in names {
        evaluation.given().give(name, Converted::of(value));
    }
    evaluation.check(&expression)
}

#[test]
fn variables_are_computed_when_asked_for() {
    let object = json!({"spec": {"replicas": 3}, "metadata": {"namespace": "n"}});
    let names = [("object", object), ("oldObject", Value::Null)];
    let broken = ("broken", "object.nothing.here == 1");
    let twice = ("twice", "object.spec.replicas * 2");
    for (text, want) in [
        ("variables.twice == 6", Ok(true)),
        ("variables.next == 7", Ok(true)),
        ("[1, 2].all(i, i < variables.twice)", Ok(true)),
        ("has(object.spec) || variables.broken", Ok(true)),
        ("oldObject == null && object.metadata.namespace == 'n'", Ok(true)),
        ("has(variables.twice)", Ok(true)),
        (
            "variables.broken",
            Err("composited variable \"broken\" fails to evaluate: no such key: nothing".to_owned()),
        ),
    ] {
        let variables = [broken, twice, ("next", "variables.twice + 1")];
        assert_eq!(check(&names, &variables, text), want, "{text}");
    }
}

#[test]
fn what_is_not_declared_does_not_compile() {
    let scope = Scope::new(&["object"]);
    for text in [
        "params.x == 1",
        "object.x(",
        "object.x.frob()",
        "variables.x == 1",
    ] {
        let error = scope.compile(text, Gives::Bool).unwrap_err();
        assert!(error.starts_with("compilation failed: ERROR"), "{text}: {error}");
    }
    assert_eq!(
        scope.compile("'text'", Gives::Bool).unwrap_err(),
        "must evaluate to bool but got string"
    );
}

#[test]
fn loops_over_large_values_end() {
    let many: Vec<Value> = (0..3000).map(Value::from).collect();
    let names = [("object", json!({"l": many}))];
    let text = "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c >= 0)))";
    assert_eq!(check(&names, &[], text), Err(OVER_BUDGET.into()));
    let small = [("object", json!({"l": [1, 2, 3]}))];
    assert_eq!(check(&small, &[], text), Ok(true));
}

#[test]
fn objects_and_patches_are_constructed() {
    let scope = Scope::new(&["object"]).constructing();
    let object = json!({"data": {"k": "v"}});
    let made = |text: &str, gives: Gives| {
        let expression = scope.compile(text, gives).unwrap();
        let mut evaluation = Evaluation::new(&scope);
        evaluation.given().give("object", Converted::of(&object));
        match gives {
            Gives::Object => evaluation.object(&expression),
            _ => evaluation.patch(&expression).map(Value::Array),
        }
    };
    let misnamed = "type mismatch: unexpected type name \"Object.b\", expected \"Object.a\", which matches field name path from root Object type";
    for (text, gives, want) in [
        ("Object{}", Gives::Object, Ok(json!({}))),
        (
            "Object{a: Object.a{b: [Object.a.b{c: 1}], d: 2.0, e: object.data.k}}",
            Gives::Object,
            Ok(json!({"a": {"b": [{"c": 1}], "d": 2, "e": "v"}})),
        ),
        (
            "Object{?a: object.data.?k, ?b: object.data.?nope, c: {'d': true}}",
            Gives::Object,
            Ok(json!({"a": "v", "c": {"d": true}})),
        ),
        (
            "Object{a: Object.b{}}",
            Gives::Object,
            Err(Unmade::Shape(misnamed.into())),
        ),
        (
            "Object{a: object.nope}",
            Gives::Object,
            Err(Unmade::Evaluation("no such key: nope".into())),
        ),
        (
            "[] + [JSONPatch{op: 'add', path: '/a', value: Object.a{b: null}}, JSONPatch{op: 'move', from: '/a', path: '/b'}]",
            Gives::Patch,
            Ok(json!([
                {"op": "add", "path": "/a", "value": {"b": null}}, {"op": "move", "from": "/a", "path": "/b"},
            ])),
        ),
        (
            "object.data.map(k, JSONPatch{op: 'remove', path: '/' + jsonpatch.escapeKey(k)}).filter(o, o.op == 'add')",
            Gives::Patch,
            Ok(json!([])),
        ),
        (
            "[JSONPatch{op: dyn(1)}]",
            Gives::Patch,
            Err(Unmade::Evaluation(
                "unexpected type int64 for JSONPatchType 'op' field".into(),
            )),
        ),
    ] {
        assert_eq!(made(text, gives), want, "{text}");
    }
}
