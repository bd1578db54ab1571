use super::super::compile::Compiler;
use super::super::{Cost, Nodes, Rules, parse};
use super::*;
use crate::schema::structural;
use serde_json::{Value, json};
use std::collections::HashMap;

fn node() -> Value {
    let text = |max: u64| json!({"type": "string", "maxLength": max});
    let pair =
        json!({"type": "object", "required": ["x"], "properties": {"x": text(3), "y": {"type": "integer"}}});
    json!({"type": "object", "x-kubernetes-validations": [{"rule": "true"}], "properties": {
        "s": text(10), "r": text(20), "u": {"type": "string"}, "e": {"type": "string", "enum": ["aa", "bbb"]},
        "n": {"type": "integer"}, "b": {"type": "boolean"}, "d": {"type": "number"},
        "l": {"type": "array", "maxItems": 7, "items": text(5)},
        "li": {"type": "array", "maxItems": 7, "items": {"type": "integer"}},
        "ll": {"type": "array", "maxItems": 3, "items": {"type": "array", "maxItems": 4, "items": {"type": "integer"}}},
        "lo": {"type": "array", "maxItems": 5, "items": pair},
        "m": {"type": "object", "maxProperties": 6, "additionalProperties": text(5)},
        "o": {"type": "object", "properties": {"x": text(3), "y": {"type": "integer"}}},
        "t": {"type": "string", "format": "date-time"}, "dt": {"type": "string", "format": "date"},
        "du": {"type": "string", "format": "duration"}, "by": {"type": "string", "format": "byte", "maxLength": 10},
        "ios": {"x-kubernetes-int-or-string": true},
        "un": {"type": "array", "items": {"type": "integer"}}, "lu": {"type": "array", "items": {"type": "string"}},
        "mu": {"type": "object", "additionalProperties": {"type": "integer"}}}})
}

/// Costs as a kube-apiserver 1.36 estimates them, read from how far it says they are over its limit.
#[test]
fn expressions_cost_what_they_cost_on_kube_apiserver() {
    let schema = structural::parse(&node(), "s").unwrap();
    let mut compiler = Compiler {
        errors: Vec::new(),
        programs: HashMap::new(),
        costs: None,
    };
    let nodes = Nodes::build(&schema, "s", &mut compiler);
    let mut wrong = Vec::new();
    for (rule, want) in [
        ("self.b", 2),
        ("has(self.b)", 1),
        ("has(self.o.x)", 2),
        ("!self.b", 3),
        ("self.n == 1", 2),
        ("self.n > 1", 3),
        ("self.n + 1 > self.n", 6),
        ("self.s == 'abc'", 3),
        ("self.s == self.r", 8),
        ("self.s != self.r", 8),
        ("self.s < self.r", 8),
        ("self.u == 'abc'", 3),
        ("self.e == 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'", 3),
        ("self.e == self.r", 5),
        ("self.t == self.t", 8),
        ("self.t < self.t", 5),
        ("self.dt == self.dt", 6),
        ("self.du == self.du", 8),
        ("self.by == self.by", 5),
        ("self.d == self.d", 4),
        ("self.b == self.b", 4),
        ("self.n == self.n", 4),
        ("self.ios == 'abcdefghijklmnop'", 4),
        ("self.l == self.l", 5),
        ("self.l == ['a','b']", 13),
        ("self.m == self.m", 5),
        ("self.o == self.o", 4),
        ("self.o.x == self.o.x", 8),
        ("self.lo == self.lo", 5),
        ("self.l[0] == self.l[1]", 8),
        ("self.m['a'] == self.m['b']", 8),
        ("self.m['a'] == self.r", 7),
        ("self.lo[0].x == self.r", 8),
        ("'a' in self.l", 9),
        ("'a' in self.m", 3),
        ("self.n in [1,2,3]", 15),
        ("self.l.all(x, x == 'abcdefghijklmnop')", 45),
        ("self.l.exists(x, x == 'a')", 45),
        ("self.l.exists_one(x, x == 'a')", 32),
        ("self.l.map(x, x + 'b') == self.l", 128),
        ("self.l.map(x, x).size() > 2", 106),
        ("self.l.filter(x, x != '').size() > 2", 113),
        ("self.l.filter(x, x != '').all(y, y in self.l)", 203),
        ("self.m.all(k, k == 'abc')", 27),
        ("self.m.all(k, k == self.r)", 39),
        ("self.m.all(k, self.m[k] == self.r)", 69),
        ("self.m.exists(k, self.m[k] == self.m[k])", 87),
        ("self.li.all(x, x == 1)", 31),
        ("self.li.all(x, x in self.li)", 94),
        ("self.ll.all(x, x.all(y, y > 1))", 78),
        ("self.lo.all(x, x.x == self.r)", 48),
        ("self.lo.all(x, self.lo.exists(y, y.x == x.x && y.y == x.y))", 383),
        ("self.s.startsWith('abcdefghijklmnopq')", 4),
        ("self.s.endsWith(self.r)", 12),
        ("self.s.contains('abcdefghijkl')", 10),
        ("self.s.matches('^[a-z]+$')", 12),
        ("self.s.size() < 4", 4),
        ("size(self.l) < 4", 4),
        ("self.l.size() + self.m.size() < 4", 8),
        ("self.b && self.b", 4),
        ("self.b || self.n > 1", 5),
        ("self.b ? self.s == 'a' : self.n == 1", 5),
        ("(self.b ? self.s : self.r) == self.r", 14),
        ("self.s + self.r == self.u", 30),
        ("self.l + self.l == self.l", 8),
        ("(self.l + self.l).all(x, true)", 48),
        ("int(self.s) > 1", 4),
        ("string(self.n) == 'abc'", 4),
        ("string(self.n) == self.r", 13),
        ("double(self.n) > 1.0", 4),
        ("timestamp(self.s) > self.t", 6),
        ("duration(self.s) > self.du", 6),
        ("type(self.n) == int", 4),
        ("self.s.lowerAscii() == self.u", 12),
        ("self.s.trim() == self.u", 12),
        ("self.s.substring(1) == self.u", 12),
        ("self.s.replace('a', 'bcd') == self.u", 24),
        ("self.s.replace(self.r, self.r) == self.u", 348),
        ("self.s.split(',').all(x, x == 'abcdefghijkl')", 171),
        ("self.s.split(',', 3).all(x, true)", 20),
        ("self.s.split(',').size() > 2", 12),
        ("self.l.join(',') == self.u", 34),
        ("self.l.join() == self.u", 32),
        ("self.s.indexOf('a') > 1", 7),
        ("self.s.lastIndexOf('a') > 1", 7),
        ("self.l.indexOf('a') > 1", 24),
        ("self.s.charAt(1) == 'a'", 4),
        ("self.s.find('^[a-z]+$') == self.u", 18),
        ("self.s.findAll('^[a-z]+$').size() > 2", 14),
        ("self.s.findAll('^[a-z]+$').all(x, true)", 133),
        ("self.l.isSorted()", 23),
        ("self.li.isSorted()", 9),
        ("self.li.sum() > 2", 10),
        ("self.li.max() > 2", 10),
        ("isURL(self.s)", 3),
        ("url(self.s) == url(self.s)", 16),
        ("isIP(self.s)", 6),
        ("ip(self.s).family() == 4", 8),
        ("cidr(self.s).containsIP('10.0.0.1')", 11),
        ("isCIDR(self.s)", 6),
        ("quantity(self.s).isGreaterThan(quantity('1'))", 8),
        ("isQuantity(self.s)", 6),
        ("quantity(self.s) == quantity('1')", 8),
        ("semver(self.s).major() > 1", 8),
        ("isSemver(self.s)", 6),
        ("format.dns1123Label().validate(self.s).hasValue()", 132),
        ("!format.uuid().validate(self.s).hasValue()", 133),
        ("self.t.getFullYear() > 2000", 4),
        ("self.du.getHours() > 2", 4),
        ("self.t - self.t > duration('1s')", 7),
        ("self.s.format([]) == 'a'", 17),
        ("sets.contains(self.l, ['a','b'])", 27),
        ("sets.equivalent(self.l, self.l)", 103),
        ("sets.intersects(self.li, [1])", 20),
        ("optional.of(self.s).hasValue()", 4),
        ("{'a': self.s} == {'b': self.r}", 65),
        ("[self.s, self.r].all(x, x == self.u)", 27),
        ("['a','b'].exists(x, x == self.s)", 25),
        ("dyn(self.n) == 1", 3),
        ("self.li.map(x, x > 1, x + 1).size() > 1", 127),
        ("self.l.reverse().size() > 1", 22),
        ("(self.n > 1) == self.b", 5),
        ("(self.n > 1) == (self.n > 2)", 7),
        ("self.n + 1 == self.n", 5),
        ("self.n + 1 == self.n + 2", 7),
        ("(self.s == 'a') == (self.r == 'b')", 7),
        ("has(self.b) == has(self.n)", 3),
        ("has(self.b) == self.b", 3),
        ("duration(self.s) == self.du", 6),
        ("duration(self.s) == duration(self.r)", 7),
        ("timestamp(self.s) == self.t", 6),
        ("self.t - self.t == self.du", 8),
        ("self.t.getFullYear() == 2000", 4),
        ("self.s.size() == self.r.size()", 7),
        ("self.d * 2.0 == self.d + self.d", 9),
        ("(has(self.b) ? self.b : self.n > 1) == true", 5),
        ("self.lo.filter(x, x.y > 1).all(y, y.y == self.n + 1)", 139),
        ("self.s.startsWith('a') == self.r.startsWith('b')", 7),
        ("[self.n > 1, self.b] == [true, false]", 26),
        ("self.li.max() == self.li.min()", 19),
        ("quantity(self.s).isLessThan(quantity(self.r)) == self.b", 19),
        ("self.l.exists(x, x == 'a') == self.l.exists(x, x == 'b')", 91),
        ("self.l.distinct().size() > 1", 113),
        ("self.l.sort().size() > 1", 118),
        ("self.li.sort().size() > 1", 113),
        ("self.l.slice(0, 1).size() > 1", 16),
        ("self.l.slice(1, 3).size() > 1", 17),
        ("self.by.size() > 1", 4),
        ("self.li.map(x, x).all(y, y > 1)", 140),
        ("self.l.map(x, x).all(y, y == self.r)", 147),
        ("self.lo.map(x, x.x).all(y, y == self.r)", 114),
        ("self.lo.filter(x, x.y > 1).all(y, y.x == self.r)", 169),
        (
            "self.l.map(x, x).exists(y, self.l.map(z, z).exists(w, w == y))",
            1_162,
        ),
        ("self.u == self.u", 314_577),
        ("self.ios == self.ios", 314_577),
        ("self.un.all(x, x == 1)", 6_291_455),
        ("self.mu.all(k, self.mu[k] == 1)", 3_145_726),
        ("self.lu.all(x, true)", 3_145_728),
        ("self.u.matches('^[a-z]+$')", 629_148),
        ("self.l.max() == self.u", 314_598),
        ("url(self.s).getHost() == self.u", 314_582),
        ("'%s'.format([self.s]) == self.u", 314_588),
    ] {
        let parsed = parse(rule).unwrap_or_else(|e| panic!("{rule}: {e}"));
        let got = of(&nodes, 0, false, &parsed);
        if got != want {
            wrong.push(format!("{rule}: {got} instead of {want}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn told(schema: &Value) -> Vec<String> {
    let schema = structural::parse(schema, "s").unwrap();
    match Rules::compile(&schema, "s", Cost::Bounded) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect(),
    }
}

#[test]
fn what_costs_too_much_is_refused() {
    let list = |rules: &[&str], bounds: Value| {
        let rules: Vec<Value> = rules.iter().map(|r| json!({"rule": r})).collect();
        let mut list =
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": rules});
        if let Some(most) = bounds.as_u64() {
            list["maxItems"] = most.into();
            list["items"]["maxLength"] = most.into();
        }
        json!({"type": "object", "properties": {"a": list}})
    };
    let hint = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are \
                declared)";
    let at = "s.properties[a].x-kubernetes-validations";
    let twice = "self.all(x, self.all(y, x == y))";
    let thrice = "self.all(x, self.exists_one(y, self.all(z, x==y || y==z)))";
    assert_eq!(told(&list(&[twice], json!(100))), Vec::<String>::new());
    assert_eq!(
        told(&list(&[twice, thrice], json!(100))),
        [format!(
            "{at}[1].rule: Forbidden: estimated rule cost exceeds budget by factor of 8.7x {hint}"
        )]
    );
    let contributed = "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
    assert_eq!(
        told(&list(&["self.all(x, x == 'abc')", twice], Value::Null)),
        [
            format!(
                "{at}[1].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {hint}"
            ),
            format!("{at}[1].rule: {contributed}"),
            format!("{at}[0].rule: {contributed}"),
            format!(
                "s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by \
                 factor of more than 100x {hint}"
            ),
        ]
    );
}

/// A rule counts as often as there can be values it is about.
#[test]
fn rules_below_lists_count_for_each_item() {
    let item = json!({"type": "object", "properties": {"n": {"type": "string", "maxLength": 10}},
                      "x-kubernetes-validations": [{"rule": "self.n.matches('^[a-z]+$')"}]});
    let list = |most: Option<u64>| {
        let mut list = json!({"type": "array", "items": item});
        if let Some(most) = most {
            list["maxItems"] = most.into();
        }
        json!({"type": "object", "properties": {"a": list}})
    };
    assert_eq!(told(&list(Some(1_000))), Vec::<String>::new());
    // 12 × 1,000,000, and 12 × what fits into a request.
    assert!(told(&list(Some(1_000_000)))[0].contains("budget by factor of 1.200000x"));
    assert!(told(&list(None))[0].contains("budget by factor of 1.258291x"));
}
