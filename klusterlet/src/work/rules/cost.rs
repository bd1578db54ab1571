//! What an expression can cost at most, known before it runs: the engine neither meters what it does nor can it be stopped.
//!
//! The object is at hand, so the sizes of its parts are. What is made of them is bounded by polynomials of these sizes: a
//! loop over a list costs no more than its body does over an item as large as the whole list, and over empty ones.

use super::equality;
use kube::core::cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, LiteralValue, operators,
};
use kube::core::cel::cel::objects::Key;
use kube::core::cel::cel::{IdedExpr, Value as Cel};
use std::sync::Arc;

/// Loop turns that one expression may cost.
const MAX_TURNS: u64 = 200_000;
/// Bytes that one value may take which an expression makes.
const MAX_SIZE: u64 = 16 << 20;
/// Parts of an expression that are looked at: one in loops within loops is looked at several times.
const MAX_LOOKS: u32 = 50_000;
/// What any value takes.
const UNIT: u64 = 32;
/// Reading or copying so many bytes counts as a turn.
const BYTES_A_TURN: u64 = 4096;
/// Items of a list of the object that are looked at one by one; beyond that a loop is bounded by the list's size.
const MOST_ITEMS: usize = 64;

/// Whether an expression over these variables can be afforded, whatever it does.
pub fn is_affordable(expression: &IdedExpr, variables: &[(&str, &Cel)]) -> bool {
    let names = variables.iter().map(|(name, value)| (*name, Name::Value(value)));
    let mut bounds = Bounds {
        names: names.collect(),
        largest: 0,
        looks: 0,
    };
    let all = bounds.of(expression);
    all.turns <= MAX_TURNS && bounds.largest <= MAX_SIZE && bounds.looks <= MAX_LOOKS
}

/// What is known of a value that does not exist yet. All of it is an upper bound.
#[derive(Debug, Clone, Copy, Default)]
struct Bound {
    /// Bytes, in it and all it holds.
    size: u64,
    /// Items, if it is a list or a map.
    items: u64,
    /// Loop turns until it is there.
    turns: u64,
}

impl Bound {
    const SCALAR: Self = Self {
        size: UNIT,
        items: 0,
        turns: 1,
    };
    const ENDLESS: Self = Self {
        size: u64::MAX,
        items: u64::MAX,
        turns: u64::MAX,
    };

    /// How long it is, if it is text.
    fn text(self) -> u64 {
        self.size.saturating_sub(UNIT)
    }

    /// Both.
    fn and(self, other: Self) -> Self {
        Self {
            size: self.size.saturating_add(other.size),
            items: self.items.saturating_add(other.items),
            turns: self.turns.saturating_add(other.turns),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Name<'a> {
    Value(&'a Cel),
    Bound(Bound),
}

struct Bounds<'a> {
    names: Vec<(&'a str, Name<'a>)>,
    largest: u64,
    looks: u32,
}

impl<'a> Bounds<'a> {
    fn of(&mut self, expression: &'a IdedExpr) -> Bound {
        self.looks += 1;
        if self.looks > MAX_LOOKS {
            return Bound::ENDLESS;
        }
        let bound = match self.value(expression) {
            Some(value) => Bound {
                size: size(value),
                items: items(value),
                turns: 1,
            },
            None => self.made(&expression.expr),
        };
        self.largest = self.largest.max(bound.size);
        Bound {
            turns: bound.turns.saturating_add(bound.size / BYTES_A_TURN),
            ..bound
        }
    }

    /// The part of a variable that an expression names, if it does.
    fn value(&self, expression: &'a IdedExpr) -> Option<&'a Cel> {
        match &expression.expr {
            Expr::Ident(name) => match self.named(name)? {
                Name::Value(value) => Some(value),
                Name::Bound(_) => None,
            },
            Expr::Select(select) if !select.test => field(self.value(&select.operand)?, &select.field),
            Expr::Call(call) if [operators::INDEX, operators::OPT_INDEX].contains(&&*call.func_name) => {
                let [of, at] = call.args.as_slice() else {
                    return None;
                };
                let of = self.value(of)?;
                match (&at.expr, of) {
                    (Expr::Literal(LiteralValue::String(key)), _) => field(of, key.inner()),
                    (Expr::Literal(LiteralValue::Int(at)), Cel::List(list)) => {
                        list.get(usize::try_from(*at.inner()).ok()?)
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn named(&self, name: &str) -> Option<Name<'a>> {
        let mut inner = self.names.iter().rev();
        inner.find(|(known, _)| *known == name).map(|(_, what)| *what)
    }

    fn made(&mut self, expression: &'a Expr) -> Bound {
        match expression {
            Expr::Literal(LiteralValue::String(text)) => Bound {
                size: UNIT + length(text.inner().len()),
                ..Bound::SCALAR
            },
            Expr::Literal(LiteralValue::Bytes(bytes)) => Bound {
                size: UNIT + length(bytes.inner().len()),
                ..Bound::SCALAR
            },
            Expr::Unspecified | Expr::Literal(_) => Bound::SCALAR,
            Expr::Ident(name) => match self.named(name) {
                Some(Name::Bound(bound)) => Bound { turns: 1, ..bound },
                _ => Bound::SCALAR,
            },
            Expr::Select(select) => {
                let of = self.of(&select.operand);
                part(if select.test { UNIT } else { of.size }, of.turns)
            }
            Expr::List(list) => {
                let parts: Vec<Bound> = list.elements.iter().map(|e| self.of(e)).collect();
                together(&parts, list.elements.len())
            }
            Expr::Map(map) => self.entries(&map.entries),
            Expr::Struct(made) => self.entries(&made.entries),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    fn entries(&mut self, entries: &'a [IdedEntryExpr]) -> Bound {
        let mut parts = Vec::new();
        for entry in entries {
            match &entry.expr {
                EntryExpr::StructField(field) => parts.push(self.of(&field.value)),
                EntryExpr::MapEntry(entry) => {
                    parts.push(self.of(&entry.key));
                    parts.push(self.of(&entry.value));
                }
            }
        }
        together(&parts, entries.len())
    }

    /// `optMap` and `optFlatMap`: an expression over what an optional value holds.
    fn over_optional(&mut self, call: &'a CallExpr) -> Option<Bound> {
        let (Some(target), [variable, body]) = (&call.target, call.args.as_slice()) else {
            return None;
        };
        let Expr::Ident(name) = &variable.expr else {
            return None;
        };
        let of = self.of(target);
        self.names.push((name.as_str(), Name::Bound(part(of.size, 0))));
        let made = self.of(body);
        self.names.pop();
        Some(Bound {
            size: made.size.saturating_add(UNIT),
            turns: of.turns.saturating_add(made.turns).saturating_add(1),
            ..made
        })
    }

    /// The text of an expression that is written out or names a part of the object.
    fn text_of(&self, expression: &'a IdedExpr) -> Option<&'a str> {
        match (&expression.expr, self.value(expression)) {
            (Expr::Literal(LiteralValue::String(text)), _) => Some(text.inner()),
            (_, Some(Cel::String(text))) => Some(text.as_str()),
            _ => None,
        }
    }

    /// How many `lists.range` of this gives.
    fn range_of(&mut self, count: &'a IdedExpr) -> Option<u64> {
        match &count.expr {
            Expr::Literal(LiteralValue::Int(n)) => Some(u64::try_from(*n.inner()).unwrap_or(0)),
            Expr::Call(call) if call.func_name == "size" => {
                let what = call.target.as_deref().or(call.args.first())?;
                let of = self.of(what);
                match self.value(what) {
                    Some(Cel::List(_) | Cel::Map(_)) => Some(of.items),
                    _ => Some(of.items.max(of.text())),
                }
            }
            _ => match self.value(count)? {
                Cel::Int(n) => Some(u64::try_from(*n).unwrap_or(0)),
                _ => None,
            },
        }
    }

    fn call(&mut self, call: &'a CallExpr) -> Bound {
        if matches!(call.func_name.as_str(), "optMap" | "optFlatMap") {
            return self.over_optional(call).unwrap_or(Bound::ENDLESS);
        }
        let target = call.target.as_ref().map(|t| self.of(t));
        let args: Vec<Bound> = call.args.iter().map(|a| self.of(a)).collect();
        let all = target
            .iter()
            .chain(&args)
            .fold(Bound::default(), |sum, b| sum.and(*b));
        // `f(a, b)` is the same as `a.f(b)`.
        let (of, given) = match target {
            Some(target) => (target, args.as_slice()),
            None => (
                args.first().copied().unwrap_or_default(),
                args.get(1..).unwrap_or_default(),
            ),
        };
        let (first, second) = (
            given.first().copied().unwrap_or_default(),
            given.get(1).copied().unwrap_or_default(),
        );
        let work = match call.func_name.as_str() {
            "distinct" => of.items.saturating_mul(of.items) / 64,
            "sets.contains" | "sets.equivalent" | "sets.intersects" => {
                let [one, other] = [args.first(), args.get(1)].map(|a| a.copied().unwrap_or_default().items);
                one.saturating_mul(other) / 64
            }
            "matches" | "find" | "findAll" => {
                let pattern = if call.target.is_some() {
                    call.args.first()
                } else {
                    call.args.get(1)
                };
                pattern.and_then(|p| self.text_of(p)).map_or(u64::MAX, compiling)
            }
            _ => 0,
        };
        let turns = all
            .turns
            .saturating_add(1)
            .saturating_add(all.size / BYTES_A_TURN)
            .saturating_add(work);
        let bound = |size: u64, items: u64| Bound { size, items, turns };
        match call.func_name.as_str() {
            operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::IN
            | equality::EQUAL
            | equality::UNEQUAL
            | equality::WITHIN
            | operators::NOT_STRICTLY_FALSE
            | "size"
            | "matches"
            | "contains"
            | "startsWith"
            | "endsWith" => bound(UNIT, 0),
            operators::ADD | operators::CONDITIONAL | "or" | "orValue" => bound(all.size, all.items),
            operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT => part(of.size, all.turns),
            "sort" | "reverse" | "distinct" | "slice" => bound(of.size, of.items),
            // Every character may be what is replaced, and so may every place between two.
            "replace" => {
                let times = of.text().saturating_add(1);
                bound(of.size.saturating_add(times.saturating_mul(second.text())), 0)
            }
            "join" => bound(of.size.saturating_add(of.items.saturating_mul(first.text())), 0),
            "split" | "findAll" => bound(
                of.text().saturating_add(1).saturating_mul(UNIT + 1),
                of.text() + 1,
            ),
            "range" | "lists.range" => match call.args.first().and_then(|a| self.range_of(a)) {
                Some(n) => bound(n.saturating_mul(UNIT).saturating_add(UNIT), n),
                None => Bound::ENDLESS,
            },
            "format" => match call
                .target
                .as_deref()
                .and_then(|t| self.text_of(t))
                .and_then(digits)
            {
                Some(more) => {
                    let size = all.size.saturating_mul(2).saturating_add(UNIT + more);
                    bound(size, 0)
                }
                None => Bound::ENDLESS,
            },
            // Numbers and text are shown in no more than some times their size; the others make nothing larger.
            _ => {
                let size = all.size.saturating_mul(2).saturating_add(UNIT);
                bound(size, size / UNIT)
            }
        }
    }

    fn comprehension(&mut self, c: &'a ComprehensionExpr) -> Bound {
        let range = self.of(&c.iter_range);
        let init = self.of(&c.accu_init);
        let largest = Bound {
            items: range.size / UNIT,
            ..range
        };
        let times = range.items.max(1);
        let (all, each) = match self.value(&c.iter_range) {
            // What is there is looked at as it is.
            Some(Cel::List(list)) if list.len() <= MOST_ITEMS => {
                let mut all = Bound::default();
                for item in list.iter() {
                    all = all.and(self.step(c, Name::Value(item)));
                }
                (all, Bound::default())
            }
            _ => (
                self.step(c, Name::Bound(largest)),
                self.step(c, Name::Bound(Bound::SCALAR)),
            ),
        };
        let made = Bound {
            size: init
                .size
                .saturating_add(all.size)
                .saturating_add(each.size.saturating_mul(times)),
            items: init
                .items
                .saturating_add(all.items)
                .saturating_add(each.items.saturating_mul(times)),
            turns: 1,
        };
        self.names.push((c.accu_var.as_str(), Name::Bound(made)));
        let result = self.of(&c.result);
        self.names.pop();
        self.largest = self.largest.max(made.size);
        Bound {
            turns: range
                .turns
                .saturating_add(init.turns)
                .saturating_add(all.turns)
                .saturating_add(each.turns.saturating_mul(times))
                // Each turn copies what there is so far.
                .saturating_add(times.saturating_mul(made.size / BYTES_A_TURN))
                .saturating_add(result.turns),
            ..result
        }
    }

    /// What one turn adds, with an item of this size.
    fn step(&mut self, c: &'a ComprehensionExpr, item: Name<'a>) -> Bound {
        let nothing = Bound {
            turns: 1,
            ..Bound::default()
        };
        let before = self.names.len();
        self.names.push((c.iter_var.as_str(), item));
        if let Some(second) = &c.iter_var2 {
            self.names.push((second.as_str(), item));
        }
        self.names.push((c.accu_var.as_str(), Name::Bound(nothing)));
        let condition = self.of(&c.loop_cond);
        let step = self.of(&c.loop_step);
        self.names.truncate(before);
        Bound {
            turns: condition.turns.saturating_add(step.turns),
            ..step
        }
    }
}

/// What a regular expression costs to compile: it is, at every call, and its counted repetitions are written out.
fn compiling(pattern: &str) -> u64 {
    let counts = pattern.split('{').skip(1).map(|after| {
        let count = after.split('}').next().unwrap_or_default();
        let most = count
            .split(',')
            .filter_map(|n| n.trim().parse::<u64>().ok())
            .max();
        most.unwrap_or(1).max(1)
    });
    let times = counts.fold(1u64, u64::saturating_mul);
    length(pattern.len()).saturating_mul(times) / 8 + 20
}

/// Digits that a format asks for; none where it asks for more than anybody reads.
fn digits(format: &str) -> Option<u64> {
    let mut sum = 0;
    for after in format.split("%.").skip(1) {
        let count: String = after.chars().take_while(char::is_ascii_digit).collect();
        let count: u64 = if count.is_empty() { 0 } else { count.parse().ok()? };
        sum += (count <= 100).then_some(count)?;
    }
    Some(sum)
}

/// A part of a value of this size.
fn part(size: u64, turns: u64) -> Bound {
    Bound {
        size,
        items: size / UNIT,
        turns: turns.saturating_add(1),
    }
}

fn together(parts: &[Bound], count: usize) -> Bound {
    let all = parts.iter().fold(Bound::default(), |sum, part| sum.and(*part));
    Bound {
        size: all.size.saturating_add(UNIT),
        items: length(count),
        turns: all.turns.saturating_add(1),
    }
}

fn field<'a>(of: &'a Cel, name: &str) -> Option<&'a Cel> {
    let Cel::Map(map) = of else { return None };
    map.map.get(&Key::String(Arc::new(name.to_owned())))
}

fn length(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

/// What a value takes.
fn size(value: &Cel) -> u64 {
    UNIT + match value {
        Cel::String(text) => length(text.len()),
        Cel::Bytes(bytes) => length(bytes.len()),
        Cel::List(list) => list.iter().map(size).sum(),
        Cel::Map(map) => {
            let key = |key: &Key| match key {
                Key::String(text) => UNIT + length(text.len()),
                _ => UNIT,
            };
            map.map.iter().map(|(k, v)| key(k) + size(v)).sum()
        }
        _ => 0,
    }
}

/// Items of a list or map.
fn items(value: &Cel) -> u64 {
    match value {
        Cel::List(list) => length(list.len()),
        Cel::Map(map) => length(map.map.len()),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::to_cel;
    use super::*;
    use kube::core::cel::cel::parser::Parser;
    use serde_json::json;

    /// On a stack as large as that of `bounded`: expressions are parsed by recursion.
    fn affordable(expression: &str) -> bool {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(64 << 20);
            let judge = thread.spawn_scoped(scope, || judged(expression)).unwrap();
            judge.join().unwrap()
        })
    }

    fn judged(expression: &str) -> bool {
        let conditions: Vec<_> = (0..20)
            .map(|n| json!({"type": format!("T{n}"), "status": "True", "message": "m".repeat(400)}))
            .collect();
        let wide: Vec<u32> = (0..1000).collect();
        let object = to_cel(
            &json!({"apiVersion": "v1", "kind": "X", "l": wide, "a": "a".repeat(5000), "s": "aXb",
            "containers": (0..3).map(|c| json!({"name": format!("c{c}"), "image": "registry.example/image:1", "ports":
                (0..3).map(|p| json!({"name": format!("p{p}"), "containerPort": 8000 + p, "protocol": "TCP"}))
                    .collect::<Vec<_>>()})).collect::<Vec<_>>(),
            "status": {"conditions": conditions}}),
        );
        let parsed = Parser::default()
            .enable_optional_syntax(true)
            .parse(expression)
            .unwrap();
        is_affordable(&parsed, &[("object", &object)])
    }

    #[test]
    fn what_people_write_is_affordable() {
        for expression in [
            "object.status.conditions.exists(c, c.type == 'T3' && c.status == 'True')",
            "object.status.conditions.filter(c, c.status == 'True').map(c, c.type + ': ' + c.message).join(', ') != ''",
            "object.status.conditions.all(c, object.status.conditions.exists(d, d.type == c.type))",
            "object.l.all(a, a >= 0)",
            "object.l.map(a, string(a)).join(',').size() > 3",
            "object.s.replace('X', object.a).size() > 0",
            "object.a.split('').size() > 0",
            "'%s of %d'.format([object.s, object.l.size()]) == 'aXb of 1000'",
            "object.?status.conditions.orValue([]).exists(c, c.type.startsWith('T'))",
            "lists.range(100).all(i, i < 100)",
            "lists.range(size(object.l)).all(i, object.l[i] >= 0)",
            "object.l.all(a, string(a).matches('^[0-9]{1,4}$'))",
            "object.?status.conditions.optMap(c, c.size()).orValue(0) == 20",
            "object.containers.all(c, c.ports.all(p, c.ports.exists_one(q, q.name == p.name)))",
            "'%.2f'.format([1.5]) == '1.50'",
        ] {
            assert!(affordable(expression), "{expression}");
        }
    }

    #[test]
    fn what_grows_or_goes_on_without_end_is_not() {
        let hundred = "a".repeat(100);
        let replaced = |times: usize| {
            format!(
                "'a'{}.size() > 0",
                format!(".replace('a', '{hundred}')").repeat(times)
            )
        };
        assert!(affordable(&replaced(2)), "ten thousand characters");
        let mut nested = "[[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]]".to_owned();
        for _ in 0..8 {
            nested = format!("{nested}.map(x, x + x + x + x + x + x + x + x + x + x)");
        }
        let deep = (0..40).fold("1".to_owned(), |inner, n| format!("[{inner}].map(v{n}, v{n})"));
        for expression in [
            replaced(4).as_str(),
            replaced(50).as_str(),
            nested.as_str(),
            "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c >= 0)))",
            "lists.range(1000000000).size() > 0",
            "lists.range(object.l[5] * 100000000).size() > 0",
            "object.a.split('').all(a, object.a.split('').all(b, a == b))",
            "object.l.map(x, object.a).map(x, object.l.map(y, x)).size() > 0",
            "optional.of(lists.range(100000)).optMap(v, v.map(x, v)).hasValue()",
            "object.?l.optMap(d, d.map(a, d.map(b, d.map(c, d)))).hasValue()",
            "reverse(lists.range(500000)).map(x, reverse(lists.range(500000))).size() > 0",
            "lists.range(5000).map(i, '%.60000f'.format([1.0])).size() > 0",
            "lists.range(524000).distinct().size() > 0",
            "lists.range(60000).map(x, x).size() > 0",
            "lists.range(30000).all(i, !'x'.matches('(a{100}){100}'))",
            format!("{deep}.size() > 0 && {}", replaced(5)).as_str(),
        ] {
            assert!(!affordable(expression), "{expression}");
        }
    }
}
