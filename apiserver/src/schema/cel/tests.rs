use super::*;
use crate::schema::structural;
use serde_json::json;

fn rules(schema: &Value) -> Result<(Schema, Rules), Vec<FieldError>> {
    let schema = structural::parse(schema, "s")?;
    let rules = Rules::compile(&schema, "s", Cost::Any)?;
    Ok((schema, rules))
}

fn lines(errors: &[FieldError]) -> Vec<String> {
    errors
        .iter()
        .map(|e| format!("{}: {}", e.field, e.message))
        .collect()
}

fn gadget() -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "lo": {"type": "integer"}, "hi": {"type": "integer"}, "mode": {"type": "string"},
        "my_field": {"type": "string"}, "namespace": {"type": "string"}, "a-b": {"type": "integer"}, "x__y": {"type": "integer"},
        "ratio": {"type": "number"}, "when": {"type": "string", "format": "date-time"},
        "wait": {"type": "string", "format": "duration"}, "port": {"x-kubernetes-int-or-string": true},
        "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"n": {"type": "integer"}},
              "x-kubernetes-validations": [{"rule": "self.n > 0", "message": "n must be positive"}]}},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "v must not shrink", "fieldPath": ".v"}]}}},
        "x-kubernetes-validations": [
            {"rule": "!has(self.lo) || !has(self.hi) || self.lo <= self.hi",
             "messageExpression": "self.mode == 'A' ? 'lo is over hi in A' : 'lo is over hi'"},
            {"rule": "self.mode == oldSelf.mode", "message": "mode is immutable", "fieldPath": ".mode",
             "reason": "FieldValueForbidden"},
            {"rule": "!has(self.my_field) || self.my_field != 'bad'", "message": "my_field"},
            {"rule": "!has(self.__namespace__) || self.__namespace__ != 'bad'", "message": "namespace"},
            {"rule": "!has(self.a__dash__b) || self.a__dash__b != 13", "message": "a-b"},
            {"rule": "!has(self.x__underscores__y) || self.x__underscores__y != 13", "message": "x__y"},
            {"rule": "!has(self.ratio) || self.ratio < 2.5", "message": "ratio"},
            {"rule": "!has(self.when) || self.when > timestamp('2024-01-01T00:00:00Z')", "message": "when"},
            {"rule": "!has(self.wait) || self.wait <= duration('1h')", "message": "wait"},
            {"rule": "!has(self.items) || self.items.all(i, self.items.exists_one(j, i.k == j.k))", "message": "unique"},
            {"rule": "!has(self.items) || self.items.filter(i, i.k.startsWith('x')).map(i, i.v).sum() < 10", "message": "sum"},
            {"rule": "self.?mode.optMap(m, m != 'Z').orValue(true)", "message": "bind"},
            {"rule": "oldSelf.hasValue() || self.mode != 'N'", "optionalOldSelf": true, "message": "not on create"}]}}})
}

#[test]
fn rules_judge() {
    let (schema, rules) = rules(&gadget()).unwrap_or_else(|e| panic!("{:#?}", lines(&e)));
    let check = |new: &Value, old: Option<&Value>| lines(&validate_custom(&schema, &rules, new, old));
    let spec = |s: Value| {
        let mut object = json!({"apiVersion": "x.io/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"mode": "A"}});
        object["spec"]
            .as_object_mut()
            .unwrap()
            .extend(s.as_object().unwrap().clone());
        object
    };
    let on_create: [(Value, &[&str]); 17] = [
        (json!({}), &[]),
        (json!({"lo": 1, "hi": 2}), &[]),
        (
            json!({"lo": 3, "hi": 2}),
            &["spec: Invalid value: lo is over hi in A"],
        ),
        (
            json!({"lo": 3, "hi": 2, "mode": "B"}),
            &["spec: Invalid value: lo is over hi"],
        ),
        (json!({"my_field": "bad"}), &["spec: Invalid value: my_field"]),
        (json!({"namespace": "bad"}), &["spec: Invalid value: namespace"]),
        (json!({"a-b": 13}), &["spec: Invalid value: a-b"]),
        (json!({"x__y": 13}), &["spec: Invalid value: x__y"]),
        (json!({"ratio": 2}), &[]),
        (json!({"ratio": 3}), &["spec: Invalid value: ratio"]),
        (
            json!({"when": "2023-01-01T00:00:00Z"}),
            &["spec: Invalid value: when"],
        ),
        (json!({"wait": "30m"}), &[]),
        (json!({"wait": "90m"}), &["spec: Invalid value: wait"]),
        (json!({"mode": "Z"}), &["spec: Invalid value: bind"]),
        (json!({"mode": "N"}), &["spec: Invalid value: not on create"]),
        (
            json!({"m": {"a": {"n": 1}, "b": {"n": 0}}}),
            &["spec.m[b]: Invalid value: n must be positive"],
        ),
        (
            json!({"items": [{"k": "xa", "v": 6}, {"k": "xb", "v": 6}]}),
            &["spec: Invalid value: sum"],
        ),
    ];
    for (given, expected) in on_create {
        assert_eq!(check(&spec(given.clone()), None), expected, "{given}");
    }
    // A missing key is an error and refuses the object.
    assert_eq!(
        check(&spec(json!({"m": {"a": {}}})), None),
        ["spec.m[a]: Invalid value: \"object\": no such key: n evaluating rule: n must be positive"]
    );
    let old = spec(json!({"items": [{"k": "a", "v": 1}, {"k": "b", "v": 5}], "lo": 9, "hi": 1}));
    assert!(
        check(&old, Some(&old)).is_empty(),
        "what did not change is not judged"
    );
    let moved = spec(json!({"items": [{"k": "b", "v": 4}, {"k": "a", "v": 2}, {"k": "c", "v": 0}]}));
    assert_eq!(
        check(&moved, Some(&old)),
        ["spec.items[0].v: Invalid value: v must not shrink"]
    );
    assert_eq!(
        check(&spec(json!({"mode": "B"})), Some(&spec(json!({})))),
        ["spec.mode: Forbidden: mode is immutable"]
    );
    let blocked = check(&spec(json!({"lo": "x"})), None);
    assert_eq!(blocked.len(), 2);
    assert!(
        blocked[1].starts_with("<nil>: Invalid value: null: some validation rules were not checked"),
        "{blocked:?}"
    );
}

#[test]
fn bad_rules_are_refused() {
    let with = |rule: Value| {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}}}, "x-kubernetes-validations": [rule]}}})
    };
    let at = "s.properties[spec].x-kubernetes-validations[0]";
    let go = |rule: &str| {
        format!(
            "Invalid value: {{\"Rule\":{rule},\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\
             \"OptionalOldSelf\":null}}"
        )
    };
    let cases = [
        (
            json!({"rule": "self.b > 1"}),
            format!(
                "{at}.rule: {}: compilation failed: ERROR: <input>:1:5: undefined field 'b'\n | self.b > 1\n | ....^",
                go("\"self.b \\u003e 1\"")
            ),
        ),
        (
            json!({"rule": "self.a"}),
            format!(
                "{at}.rule: {}: cel expression must evaluate to a bool",
                go("\"self.a\"")
            ),
        ),
        (
            json!({"rule": "self.a == 'x'"}),
            format!(
                "{at}.rule: {}: compilation failed: ERROR: <input>:1:8: found no matching overload for '_==_' applied to \
                 '(int, string)'\n | self.a == 'x'\n | .......^",
                go("\"self.a == 'x'\"")
            ),
        ),
        (
            json!({"rule": "foo(self.a)"}),
            format!(
                "{at}.rule: {}: compilation failed: ERROR: <input>:1:4: undeclared reference to 'foo' (in container '')\n | \
                 foo(self.a)\n | ...^",
                go("\"foo(self.a)\"")
            ),
        ),
        (
            json!({"rule": " "}),
            format!("{at}.rule: Required value: rule is not specified"),
        ),
        (
            json!({"rule": "true", "fieldPath": ".zz"}),
            format!("{at}.fieldPath: Invalid value: \".zz\": must be a valid path"),
        ),
        (
            json!({"rule": "true", "reason": "Because"}),
            format!(
                "{at}.reason: Unsupported value: \"Because\": supported values: \"FieldValueDuplicate\", \
                 \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\""
            ),
        ),
    ];
    for (rule, expected) in cases {
        let errors = rules(&with(rule.clone())).map(|_| ()).unwrap_err();
        assert_eq!(lines(&errors), [expected], "{rule}");
    }
    for rule in [
        "self.a >",
        "self.l.all(",
        "request.name == 'x'",
        "self.l.all(i, v, v)",
        "self.?b.hasValue()",
        "self.?a == 1",
        "self.?a.orValue('x') == 1",
        "self.a.hasValue()",
        "self[?'a'].hasValue()",
        "self['a'] == 1",
        "cel.bind(x, 1, x == 1)",
        "math.greatest(1, 2) == 2",
        "base64.decode('eA==') == b'x'",
        "jsonpatch.escapeKey('x') == 'x'",
        "self.l.all(1, v, true)",
        "Foo{}.x",
        "self.a.b == 1",
    ] {
        assert!(rules(&with(json!({"rule": rule}))).is_err(), "{rule}");
    }
    let in_list = json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "string",
        "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}});
    let errors = rules(&in_list).map(|_| ()).unwrap_err();
    assert!(
        errors[0]
            .message
            .contains("uncorrelatable portion of the schema within s.properties[l]"),
        "{errors:?}"
    );
}

#[test]
fn optional_steps_and_loops_over_two_variables() {
    let holds = |rule: &str, spec: Value| {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string"}, "n": {"type": "integer"}, "o": {"type": "object", "properties": {"b": {"type": "integer"}}},
            "l": {"type": "array", "items": {"type": "string"}},
            "m": {"type": "object", "additionalProperties": {"type": "integer"}}},
            "x-kubernetes-validations": [{"rule": rule}]}}});
        let (schema, rules) = rules(&schema).unwrap_or_else(|e| panic!("{rule}: {:#?}", lines(&e)));
        let errors = validate_custom(&schema, &rules, &json!({"spec": spec}), None);
        errors.is_empty()
    };
    let full = json!({"a": "x", "n": 3, "o": {"b": 7}, "l": ["p", "q"], "m": {"k": 1, "j": 2}});
    // What holds of the full one, and of the empty one.
    for (rule, of_full, of_empty) in [
        ("self.?a.hasValue()", true, false),
        ("self.?a.orValue('y') == 'x'", true, false),
        ("self.?o.b.orValue(7) == 7", true, true),
        ("self.?o.?b.hasValue()", true, false),
        ("has(self.?o.b)", true, false),
        ("self.?m['k'].orValue(0) == 1", true, false),
        ("self.?l[?1].orValue('') == 'q'", true, false),
        ("self.?l.orValue([]).size() == 2", true, false),
        ("self.?n.optMap(n, n + 1).orValue(0) == 4", true, false),
        ("self.?o.optFlatMap(o, o.?b).hasValue()", true, false),
        ("self.?a.or(optional.of('z')).value() == 'x'", true, false),
        ("size([?self.?a, 'b']) == 2", true, false),
        ("size({?'a': self.?a}) == 1", true, false),
        ("has(self.l) && self.l.all(i, v, i < 2 && v != '')", true, false),
        (
            "has(self.m) && self.m.exists(k, v, k == 'j' && v == 2)",
            true,
            false,
        ),
        ("has(self.l) && self.l.existsOne(i, v, v == 'p')", true, false),
        (
            "has(self.l) && self.l.transformList(i, v, i > 0, v + 'x') == ['qx']",
            true,
            false,
        ),
        (
            "has(self.m) && self.m.transformMap(k, v, v * 2)['j'] == 4",
            true,
            false,
        ),
        (
            "has(self.l) && self.l.transformMapEntry(i, v, {v: i})['q'] == 1",
            true,
            false,
        ),
        (
            "has(self.l) && self.l.all(i, v, self.l.exists(j, w, j == i && w == v))",
            true,
            false,
        ),
        ("dyn(self.?n.orValue(0)) == 'x'", false, false),
    ] {
        assert_eq!(holds(rule, full.clone()), of_full, "{rule}");
        assert_eq!(holds(rule, json!({})), of_empty, "{rule}");
    }
    let chain = |long| format!("self.?a{}.hasValue()", ".optMap(x, x)".repeat(long));
    assert!(holds(&chain(4), full));
    assert!(parse(&chain(40)).is_err(), "a chain does not grow beyond bounds");
    let many = |n| parse(&vec![chain(5); n].join(" && "));
    assert!(many(3).is_ok());
    let error = many(20).unwrap_err();
    assert!(error.contains("too many optMap()"), "many chains do not: {error}");
    assert!(parse("{'a': 1}[?'a'].optMap(x, {'b': x}).optMap(x, x).hasValue()").is_ok());
}

#[test]
fn an_evaluation_too_large_is_refused_at_once() {
    let (_, rules) = rules(&json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "string"}}},
        "x-kubernetes-validations": [{"rule": "self.l.all(a, self.l.all(b, self.l.all(c, a != b || b != c || c != a)))"}]}))
    .unwrap();
    let object = |n: usize| json!({"l": vec!["x"; n]});
    assert_eq!(rules.check(&object(3), None).len(), 1, "small ones run");
    let errors = rules.check(&object(10_000), None);
    assert!(
        errors[0].message.contains("call cost exceeds limit"),
        "{errors:?}"
    );
}

#[test]
fn rules_like_those_of_gateway_api_compile() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "listeners": {"type": "array", "maxItems": 64, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"},
                "protocol": {"type": "string"}, "hostname": {"type": "string"}, "port": {"type": "integer", "format": "int32"},
                "tls": {"type": "object", "properties": {"mode": {"type": "string"}, "certificateRefs": {"type": "array",
                    "x-kubernetes-list-type": "atomic", "items": {"type": "string"}},
                    "options": {"type": "object", "additionalProperties": {"type": "string"}}}}}},
            "x-kubernetes-validations": [
                {"message": "tls must not be specified for protocols ['HTTP', 'TCP']",
                 "rule": "self.all(l, l.protocol in ['HTTP', 'TCP'] ? !has(l.tls) : true)"},
                {"message": "certificates", "rule": "self.all(l, (l.protocol == 'HTTPS' && has(l.tls) && (l.tls.mode == '' || l.tls.mode == 'Terminate')) ? size(l.tls.certificateRefs) > 0 || size(l.tls.options) > 0 : true)"},
                {"message": "unique", "rule": "self.all(l1, self.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol && (has(l1.hostname) && has(l2.hostname) ? l1.hostname == l2.hostname : !has(l1.hostname) && !has(l2.hostname))))"}]},
        "path": {"type": "object", "properties": {"type": {"type": "string"}, "value": {"type": "string"}},
            "x-kubernetes-validations": [{"message": "path", "rule":
                "(self.type in ['Exact','PathPrefix']) ? self.value.matches(r\"\"\"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$\"\"\") : true"}]}}}}});
    let (_, rules) = rules(&schema).unwrap_or_else(|e| panic!("{:#?}", lines(&e)));
    let listener = |i: usize| json!({"name": format!("l{i}"), "protocol": "HTTP", "port": i});
    let many: Vec<Value> = (0..64).map(listener).collect();
    assert!(
        rules
            .check(
                &json!({"spec": {"listeners": many, "path": {"type": "Exact", "value": "/a"}}}),
                None
            )
            .is_empty()
    );
    let twice = json!({"spec": {"listeners": [listener(1), {"name": "b", "protocol": "HTTP", "port": 1, "tls": {}}]}});
    let errors = lines(&rules.check(&twice, None));
    assert_eq!(errors.len(), 2, "{errors:?}");
    let path = json!({"spec": {"path": {"type": "Exact", "value": "a b"}}});
    assert_eq!(
        lines(&rules.check(&path, None)),
        ["spec.path: Invalid value: path"]
    );
}

#[test]
fn rules_see_the_name_and_no_other_metadata() {
    let schema = |rule: &str| {
        json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    let (_, rules_) = rules(&schema(
        "self.metadata.name.startsWith('g') && self.kind == 'Gadget'",
    ))
    .unwrap();
    let named = |name: &str| json!({"apiVersion": "x.io/v1", "kind": "Gadget", "metadata": {"name": name, "labels": {}}});
    assert!(rules_.check(&named("g"), None).is_empty());
    assert_eq!(
        lines(&rules_.check(&named("h"), None)),
        ["<nil>: Invalid value: failed rule: self.metadata.name.startsWith('g') && self.kind == 'Gadget'"]
    );
    assert!(rules(&schema("has(self.metadata.labels)")).is_err());
}

#[test]
fn what_is_too_deep_for_the_stack_is_refused() {
    let thread = std::thread::Builder::new().stack_size(crate::STACK);
    thread.spawn(too_deep_for_the_stack).unwrap().join().unwrap();
}

fn too_deep_for_the_stack() {
    let deep = |n: usize| {
        [
            vec!["1"; n].join("+") + " > 1",
            vec!["true"; n].join("&&"),
            vec!["true ? true"; n].join(" : ") + " : true",
            format!("self{} == 1", ".a".repeat(n)),
            format!("self{} == 1", "[1]".repeat(n)),
            format!("{}true", "!".repeat(n)),
            format!("{}-1 < 1", "-".repeat(n)),
            format!("{}true{}", "(".repeat(n), ")".repeat(n)),
            format!("{}1{} != null", "[".repeat(n), "]".repeat(n)),
            format!("{}1{} != null", "{'a':".repeat(n), "}".repeat(n)),
            format!("{}true{}", "[1].all(x, ".repeat(n), ")".repeat(n)),
        ]
    };
    let schema = |rule: &str| {
        json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-validations": [{"rule": rule}]}}})
    };
    let scope = free::Scope::new(&["object"]);
    for n in [100, DEEPEST - 20, DEEPEST + 1, 3000] {
        for rule in deep(n) {
            if let Ok((_, rules)) = rules(&schema(&rule)) {
                rules.check(&json!({"spec": {"a": 1}}), None);
            }
            let _ = scope.compile(&rule.replace("self", "object"), free::Gives::Anything);
        }
    }
    let (refused, words) = (deep(DEEPEST + 1), "operators deep, 500 are allowed");
    for rule in refused {
        let errors = scope.compile(&rule, free::Gives::Anything).unwrap_err();
        assert!(errors.contains(words), "{errors}");
    }
    let quoted = format!("object.matches('{}\\'')", ".".repeat(600));
    assert!(depth(&quoted) < 5, "what is in texts is no operator");
    let wide = vec!["has(object.a) && (object.a.b == 1 || object.c.exists(x, x == 'y'))"; 40].join(" && ");
    assert!(depth(&wide) < DEEPEST, "{}", depth(&wide));
    assert!(depth(&format!("[{}].size() == 1", vec!["a.b.c"; 400].join(", "))) < 10);
}

proptest::proptest! {
    #[test]
    fn no_expression_and_no_value_panics(rule in "[a-z.()!&|=<>'0-9 \\[\\]?:+,-]{0,24}", n in proptest::prelude::any::<i64>()) {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "integer"}, "l": {"type": "array", "items": {"type": "integer"}}},
            "x-kubernetes-validations": [{"rule": rule}, {"rule": format!("self.a {rule}")}]}}});
        let _ = rules(&schema);
        let fixed = json!({"type": "object", "properties": {"a": {"type": "integer"}, "l": {"type": "array", "items": {"type":
            "integer"}}}, "x-kubernetes-validations": [{"rule": "self.l.all(x, x / self.a * x != 7 - self.a)"}]});
        let (_, rules) = rules(&fixed).unwrap();
        rules.check(&json!({"a": n, "l": [n, 0, i64::MIN, i64::MAX]}), None);
        rules.check(&json!({"a": null, "l": [n.to_string(), null, {}]}), None);
    }
}
