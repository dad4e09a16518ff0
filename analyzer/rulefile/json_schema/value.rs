//! Pieces of a JSON Schema: objects of known keys, texts of a pattern, and the patterns.
//!
//! The patterns are understood alike by ECMAScript and by Rust's `regex`: no look-around, no
//! classes whose meaning differs. They are as wide as the readers they stand for, or wider.

use serde_json::{Map, Value, json};

/// Examples of a value: what an editor offers.
pub(crate) type Examples<'e> = &'e [&'e str];

/// A number: digits, with a point at most between them.
pub(crate) const NUMBER: &str = r"[0-9]+(\.[0-9]+)?";
/// `90s`, `1m30s`.
pub(crate) const DURATION: &str = r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+";
/// Any literal but a multiple: `5%`, `200ms`, `100MB`, `10/min`.
pub(crate) const AMOUNT: &str =
    r"(([0-9]+(\.[0-9]+)?(ms|s|m|h))+|[0-9]+(\.[0-9]+)?(\s*%|[KMG]i?B|B)?)(\s*/\s*(s|min|h))?";
/// A signal's name.
pub(crate) const NAME: &str = "[A-Za-z_][A-Za-z0-9_]*";

/// A mapping of exactly these keys.
pub(crate) fn object(
    words: &str,
    required: &[&str],
    keys: impl IntoIterator<Item = (&'static str, Value)>,
) -> Value {
    let properties: Map<String, Value> =
        keys.into_iter().map(|(key, schema)| (key.to_owned(), schema)).collect();
    let mut schema = json!({
        "description": words,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

/// Words for people. YAML reads some of them as numbers or as true, and they are words all the same.
pub(crate) fn free_text(words: &str, length_max: Option<usize>, examples: Examples<'_>) -> Value {
    let schema = json!({
        "description": words,
        "type": ["string", "number", "boolean"],
        "pattern": r"\S",
    });
    let mut schema = with_examples(schema, examples);
    if let Some(length_max) = length_max {
        // Characters here and bytes there: never fewer of those.
        schema["maxLength"] = length_max.into();
    }
    schema
}

/// A text of this pattern.
pub(crate) fn matching(words: &str, pattern: &str, examples: Examples<'_>) -> Value {
    let schema = json!({ "description": words, "type": "string", "pattern": pattern });
    with_examples(schema, examples)
}

/// A duration such as `1m30s`.
pub(crate) fn duration(words: &str, examples: Examples<'_>) -> Value {
    matching(words, &format!(r"^\s*{DURATION}\s*$"), examples)
}

/// A share of 1: `5%`, or a plain number, which `bounds` hold.
pub(crate) fn share(words: &str, bounds: Value, examples: Examples<'_>) -> Value {
    let mut schema = json!({
        "description": words,
        "type": ["string", "number"],
        "pattern": format!(r"^\s*{NUMBER}\s*%?\s*$"),
    });
    if let (Some(schema), Value::Object(bounds)) = (schema.as_object_mut(), bounds) {
        schema.extend(bounds);
    }
    with_examples(schema, examples)
}

/// A plain number, which `bounds` hold.
pub(crate) fn number(words: &str, bounds: Value, examples: Examples<'_>) -> Value {
    let mut schema = share(words, bounds, examples);
    schema["pattern"] = format!(r"^\s*{NUMBER}\s*$").into();
    schema
}

/// One word of several.
pub(crate) fn choice(words: &str, choices: impl IntoIterator<Item = &'static str>) -> Value {
    let choices: Vec<&str> = choices.into_iter().collect();
    json!({ "description": words, "enum": choices })
}

/// The same, and what holds when nothing is said.
pub(crate) fn with_default(mut schema: Value, default: impl Into<Value>) -> Value {
    schema["default"] = default.into();
    schema
}

fn with_examples(mut schema: Value, examples: Examples<'_>) -> Value {
    if !examples.is_empty() {
        schema["examples"] = examples.into();
    }
    schema
}

/// The condition language, but for whether parentheses come in pairs and signals are known.
pub(crate) fn condition() -> String {
    let step = r#"([A-Za-z0-9_-]+|"([^"\\]|\\["\\])+")"#;
    let path = format!(r"({step}|\[[0-9]+\])(\.{step}|\[[0-9]+\])*");
    let quantity =
        format!(r"({NAME}|latency\s*\(\s*{NAME}\s*\)|field\s*\(\s*{NAME}\s*,\s*{path}\s*\))");
    let value = format!(r"({quantity}|slope\s*\(\s*{quantity}\s*\))");
    let bound = format!(r"(-?\s*{AMOUNT}|{NUMBER}\s*x\s*baseline|baseline\s*[+-]\s*{AMOUNT})");
    let length = format!(r"({NUMBER}\s*checks?|{DURATION})");
    let asked = format!(r"(\s*[<>]=?\s*{bound}|\s+is\s+(up|degraded|down))");
    let clause = format!(r"{value}{asked}(\s*on\s+most\s+instances)?(\s*for\s+{length})?");
    let opened = r"[\s(]*(not[\s(]+)*";
    format!(r"{opened}{clause}[\s)]*((and|or)[\s(]+(not[\s(]+)*{clause}[\s)]*)*")
}
