//! Numbers of a health answer: how long it took, and what its JSON body says at a path.
//!
//! Invariants: never panics, whatever the bytes; nothing that is not a finite number is given as one;
//! where there is none it is said what was found and which names there are. An answer of any status
//! counts (a 503 tells its numbers too) unless somebody else gave it.

use std::cell::LazyCell;

use serde_json::{Map, Value};

use super::{
    excerpt::excerpt,
    health::{Said, of_somebody_else},
};
use crate::{
    engine::observation::{Missing, Why},
    signal::{
        answer::{AnswerNumber, FieldPath, FieldStep},
        sample::Level,
    },
};

/// Names that are shown where one was not found.
const NAMES_SHOWN: usize = 6;
/// Names of an object that are looked at for the nearest.
const NAMES_COMPARED: usize = 100;
/// Characters of a name that are compared and shown.
const NAME_CHARS_MAX: usize = 40;

/// An answer, live or recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard<'a> {
    /// Whose it is: address and path.
    pub endpoint: &'a str,
    /// What was answered.
    pub said: Said<'a>,
    /// Seconds to its end, when they are known.
    pub latency_secs: Option<f64>,
}

/// Reads the numbers that are asked for.
pub(super) fn read(numbers: &[(usize, &AnswerNumber)], heard: Heard<'_>) -> Vec<Level> {
    let missing = |why, words: String| Missing::new(why, format!("{}: {words}", heard.endpoint));
    if let Some(words) = of_somebody_else(heard.said.status) {
        return all_missing(numbers, &missing(Why::UnclearHealth, words));
    }
    let body = LazyCell::new(|| json(heard.said.body));
    let number = |number: &AnswerNumber| match number {
        AnswerNumber::Latency => {
            let untold = || (Why::NotObserved, "how long the answer took is not known".to_owned());
            heard.latency_secs.ok_or_else(untold)
        }
        AnswerNumber::Field(path) => match &*body {
            Ok(body) => at(body, path),
            Err(words) => Err((Why::BadValue, words.clone())),
        },
    };
    let level = |(signal, asked): &(usize, &AnswerNumber)| {
        let value = number(asked).map_err(|(why, words)| missing(why, words));
        Level { signal: *signal, value }
    };
    numbers.iter().map(level).collect()
}

/// All of them missing for one reason.
pub(super) fn all_missing(numbers: &[(usize, &AnswerNumber)], missing: &Missing) -> Vec<Level> {
    let level = |(signal, _): &(usize, _)| Level { signal: *signal, value: Err(missing.clone()) };
    numbers.iter().map(level).collect()
}

fn json(body: &[u8]) -> Result<Value, String> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Err("the answer is empty, expected JSON".to_owned());
    }
    // serde_json stops at 128 levels, so nesting cannot exhaust the stack.
    serde_json::from_slice(body)
        .map_err(|error| format!("the answer is no JSON ({})", excerpt(&error.to_string())))
}

/// The number at a path.
fn at(body: &Value, path: &FieldPath) -> Result<f64, (Why, String)> {
    let mut value = body;
    for (depth, step) in path.steps().iter().enumerate() {
        let absent = |words: String| (Why::AbsentSeries, format!("no `{path}`: {words}"));
        value = match (step, value) {
            (FieldStep::Name(name), Value::Object(object)) => {
                object.get(name).ok_or_else(|| absent(names(object, name, before(path, depth))))?
            }
            (FieldStep::Index(index), Value::Array(list)) => {
                let words = || format!("{} is a list of {}", before(path, depth), list.len());
                list.get(*index).ok_or_else(|| absent(words()))?
            }
            (FieldStep::Name(_) | FieldStep::Index(_), other) => {
                let words = format!("{} is {}", before(path, depth), described(other));
                return Err(absent(words));
            }
        };
    }
    let bad = || {
        let words = format!("`{path}` is {}, expected a number", described(value));
        (Why::BadValue, words)
    };
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    number.filter(|number| number.is_finite()).ok_or_else(bad)
}

/// The part of a path before a step, in words.
fn before(path: &FieldPath, depth: usize) -> String {
    match FieldPath::new(path.steps()[..depth].to_vec()) {
        Some(path) => format!("`{path}`"),
        None => "the answer".to_owned(),
    }
}

/// Which names an object has, those that look most like the wanted one first.
fn names(object: &Map<String, Value>, wanted: &str, whose: String) -> String {
    if object.is_empty() {
        return format!("{whose} is empty");
    }
    let short = |name: &str| -> String { name.chars().take(NAME_CHARS_MAX).collect() };
    let wanted = short(wanted).to_lowercase();
    let distance = |name: &str| strsim::osa_distance(&wanted, &short(name).to_lowercase());
    let mut near: Vec<(usize, &str)> =
        object.keys().take(NAMES_COMPARED).map(|name| (distance(name), name.as_str())).collect();
    near.sort();
    let shown: Vec<String> = near
        .iter()
        .take(NAMES_SHOWN)
        .map(|(_, name)| format!("`{}`", excerpt(&short(name))))
        .collect();
    let more = object.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{whose} has {}{more}", shown.join(", "))
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(yes) => yes.to_string(),
        Value::Number(number) => format!("the number {}", excerpt(&number.to_string())),
        Value::String(text) => format!("the text {:?}", excerpt(text)),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(object) => format!("an object of {}", object.len()),
    }
}

#[cfg(test)]
#[path = "health_number_tests.rs"]
mod tests;
