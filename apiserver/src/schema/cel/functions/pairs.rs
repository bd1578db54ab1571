//! What loops over two variables are made of.

use crate::schema::cel::rewrite::pairs::{KEY, MAP, MERGE, PAIRS, VALUE};
use kube::core::cel::cel::objects::{Key, Map};
use kube::core::cel::cel::{Context, ExecutionError, Value as Cel};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) fn register(context: &mut Context<'_>) {
    context.add_function(PAIRS, pairs);
    context.add_function(KEY, |pair: Cel| part(&pair, 0));
    context.add_function(VALUE, |pair: Cel| part(&pair, 1));
    context.add_function(MAP, map);
    context.add_function(MERGE, merge);
}

fn key(key: &Key) -> Cel {
    match key {
        Key::Int(n) => Cel::Int(*n),
        Key::Uint(n) => Cel::UInt(*n),
        Key::Bool(b) => Cel::Bool(*b),
        Key::String(s) => Cel::String(Arc::clone(s)),
    }
}

#[allow(clippy::needless_pass_by_value)] // what a function is given
fn pairs(of: Cel) -> Result<Cel, ExecutionError> {
    let pair = |k: Cel, v: &Cel| Cel::List(Arc::new(vec![k, v.clone()]));
    let all: Vec<Cel> = match &of {
        Cel::List(list) => (0..)
            .zip(list.iter())
            .map(|(i, v)| pair(Cel::Int(i), v))
            .collect(),
        Cel::Map(map) => map.map.iter().map(|(k, v)| pair(key(k), v)).collect(),
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    Ok(Cel::List(Arc::new(all)))
}

fn part(pair: &Cel, at: usize) -> Result<Cel, ExecutionError> {
    match pair {
        Cel::List(pair) => pair.get(at).cloned().ok_or(ExecutionError::NoSuchOverload),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

#[allow(clippy::needless_pass_by_value)] // what a function is given
fn map(pairs: Cel) -> Result<Cel, ExecutionError> {
    let Cel::List(pairs) = &pairs else {
        return Err(ExecutionError::NoSuchOverload);
    };
    let mut map = HashMap::new();
    for pair in pairs.iter() {
        let key = match part(pair, 0)? {
            Cel::Int(n) => Key::Int(n),
            Cel::UInt(n) => Key::Uint(n),
            Cel::Bool(b) => Key::Bool(b),
            Cel::String(s) => Key::String(s),
            _ => return Err(ExecutionError::NoSuchOverload),
        };
        map.insert(key, part(pair, 1)?);
    }
    Ok(Cel::Map(Map { map: Arc::new(map) }))
}

#[allow(clippy::needless_pass_by_value)] // what a function is given
fn merge(maps: Cel) -> Result<Cel, ExecutionError> {
    let Cel::List(maps) = &maps else {
        return Err(ExecutionError::NoSuchOverload);
    };
    let mut all = HashMap::new();
    for one in maps.iter() {
        let Cel::Map(one) = one else {
            return Err(ExecutionError::NoSuchOverload);
        };
        for (k, v) in one.map.iter() {
            if all.insert(k.clone(), v.clone()).is_some() {
                return Err(ExecutionError::function_error(
                    "transformMapEntry",
                    "insert failed: a key is there already",
                ));
            }
        }
    }
    Ok(Cel::Map(Map { map: Arc::new(all) }))
}
