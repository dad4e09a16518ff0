//! The JSON Schema of a rule file, for editors: completion, hover text, and a squiggle under what
//! is wrong while it is written.
//!
//! Draft 7, since that is what the YAML language server reads, which most editors ask. Nothing is
//! referred to by `$ref`: draft 7 ignores what stands beside one, and each key has words of its own.
//!
//! Invariant: what `load` accepts the schema accepts, but for values that YAML reads as null or,
//! in the place of a selector, as true or false. The other way it is loose: names, units that must
//! fit a signal, and what one key means for another are left to `rollgate check`. Keys, choices and
//! limits are taken from the readers themselves, or held against them by the tests below.

mod signal;
pub(crate) mod value;

use serde_json::{Value, json};

use self::value::{
    AMOUNT, DURATION, Examples, NAME, NUMBER, choice, duration, free_text, matching, number,
    object, share, with_default,
};
use super::{
    condition, lint, release, rules,
    schema::MAX_SERVICE_BYTES,
    signals::{MAX_SIGNALS, RESERVED},
};

/// The draft it is written in.
pub(crate) const DRAFT: &str = "http://json-schema.org/draft-07/schema#";

/// The schema of a rule file.
pub fn rule_file() -> Value {
    let mut schema = object(
        "What is measured of a service, what is compared, and what each finding leads to.",
        &["version", "service", "signals", "rules"],
        file_keys(),
    );
    schema["$schema"] = DRAFT.into();
    schema["title"] = "rollgate rule file".into();
    // Steps say by themselves how long a release is watched.
    schema["anyOf"] = json!([
        { "required": ["steps"] },
        { "required": ["promote"], "properties": { "promote": { "required": ["after"] } } },
    ]);
    schema
}

/// A schema as it is printed and committed.
pub fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}

fn file_keys() -> Vec<(&'static str, Value)> {
    vec![
        (
            "version",
            json!({
                "description": "Of the rule language, not of your service.",
                "enum": [1, "1"],
                "default": 1,
            }),
        ),
        (
            "service",
            free_text(
                "Whose release this judges. Shown in every verdict.",
                Some(MAX_SERVICE_BYTES),
                &["checkout"],
            ),
        ),
        ("description", free_text("A note for people. Optional.", None, &[])),
        ("observe", observe()),
        (
            "false_rollback_rate",
            with_default(
                share(
                    "The chance that a healthy release is rolled back by evidence: all rules and \
                     all looks of an analysis together.",
                    chance(),
                    &["0.1%", "1%"],
                ),
                "0.1%",
            ),
        ),
        ("signals", signals()),
        ("rules", rule_list()),
        ("promote", promote()),
        ("steps", steps()),
        (
            "baseline",
            with_default(
                matching(
                    "What the canary is compared with: the version beside it (`concurrent`), or \
                     the service's own past, which a standing watch or a metrics server keeps.",
                    &format!(r"^\s*(concurrent|before|offset\s+([0-9]+d|{DURATION}))\s*$"),
                    &["concurrent", "before", "offset 1d", "offset 7d"],
                ),
                "concurrent",
            ),
        ),
        ("allow", allow("Lints that do not warn of this file.")),
    ]
}

fn observe() -> Value {
    let keys = vec![
        ("interval", duration_key("How often to look: 1s to 1m.", "5s", &["2s", "5s", "15s"])),
        (
            "window",
            duration_key(
                "What rates and quantiles are taken over: at least two intervals, at most an hour.",
                "1m",
                &["1m", "5m"],
            ),
        ),
        (
            "warmup",
            duration_key("An instance younger than this is not judged.", "30s", &["30s", "2m"]),
        ),
        (
            "traffic",
            rate(
                "What the canary gets, for `check`, `plan` and `simulate`: nothing is judged by \
                 it. Of a release in steps, what the whole service gets.",
            ),
        ),
        (
            "baseline_traffic",
            rate("What the baseline gets: as much as the canary unless it is said."),
        ),
    ];
    object("How to look. Optional.", &[], keys)
}

/// Requests over a time.
fn rate(words: &str) -> Value {
    let pattern = format!(r"^\s*{NUMBER}\s*/\s*(s|min|h)\s*$");
    matching(words, &pattern, &["20/s", "300/min"])
}

/// One lint, or several. Its name stands with what it finds.
fn allow(words: &str) -> Value {
    let name = || {
        let lints = lint::ALL.iter();
        let names = lints.map(|lint| json!({ "const": lint.name, "description": lint.what }));
        json!({ "anyOf": names.collect::<Vec<Value>>() })
    };
    json!({
        "description": words,
        "anyOf": [name(), { "type": "array", "items": name() }],
    })
}

fn signals() -> Value {
    json!({
        "description": "What is measured: a name of your own, and what it is read from.",
        "type": "object",
        "minProperties": 1,
        "maxProperties": MAX_SIGNALS,
        "propertyNames": { "pattern": format!("^{NAME}$"), "not": { "enum": RESERVED } },
        "additionalProperties": signal::signal(),
    })
}

fn rule_list() -> Value {
    json!({
        "description": "The decision matrix: conditions, and what each leads to.",
        "type": "array",
        "minItems": 1,
        "maxItems": rules::MAX_RULES,
        "items": rule(),
    })
}

fn rule() -> Value {
    let mut when = matching(
        "When the rule fires. `X > 5% for 2m`: over the limit at every look for so long. \
         `X > 5%` and `X > 1.5x baseline`: there is evidence of it. `app is down for 3 checks`, \
         `restarts >= 1`, `slope(memory) > baseline + 1MB/min`, \
         `field(app, queue.length) > 100`; joined by `and`, `or`, `not` and \
         parentheses.",
        &format!("^{}$", value::condition()),
        &[
            "error_rate > 1.5x baseline",
            "error_rate > 5% for 2m",
            "app is down for 3 checks",
            "restarts >= 1",
        ],
    );
    when["maxLength"] = condition::MAX_BYTES.into();
    let asleep = |words: &str| duration(words, &["15m"]);
    let keys = vec![
        ("when", when),
        (
            "then",
            choice(
                "What it leads to: `rollback` is final; `investigate` is not, and blocks promotion \
                 as long as it holds; `ok` only leaves a note.",
                rules::THEN.iter().map(|(word, _)| *word),
            ),
        ),
        (
            "reason",
            free_text(
                "Why, in your words. Shown in the verdict.",
                Some(rules::MAX_REASON_BYTES),
                &["more failures than on the old version"],
            ),
        ),
        (
            "runbook",
            free_text(
                "Where to read on. Shown after the reason.",
                Some(rules::MAX_REASON_BYTES),
                &["https://wiki.example.org/checkout"],
            ),
        ),
        ("after", asleep("The rule is asleep before this time since the analysis began.")),
        ("until", asleep("The rule is asleep from this time on.")),
        ("allow", allow("Lints that do not warn of this rule.")),
        (
            "weight",
            with_default(
                number(
                    "How much of `false_rollback_rate` the rule's evidence gets, beside the other \
                     rules.",
                    json!({ "exclusiveMinimum": 0, "maximum": rules::WEIGHT_MAX }),
                    &["3"],
                ),
                1,
            ),
        ),
    ];
    object("A rule: a condition and what it leads to.", &["when", "then"], keys)
}

fn promote() -> Value {
    let margin = matching(
        "At most so many times the baseline's; `or` a value that is good enough whatever the \
         baseline does.",
        &format!(r"^\s*{NUMBER}x(\s* or \s*{AMOUNT})?\s*$"),
        &["1.5x", "2x or 1%"],
    );
    let keys = vec![
        (
            "after",
            duration(
                "Watch at least this long. Needed unless `steps` say it.",
                &["10m", "15m", "1h"],
            ),
        ),
        (
            "margin",
            json!({
                "description": "What must be shown before a promotion: `1.5x` of all that is \
                                compared, or a margin for each signal by its name.",
                "examples": ["1.5x", { "error_rate": "2x or 1%" }],
                "anyOf": [
                    { "type": "string", "pattern": format!(r"^\s*{NUMBER}x\s*$") },
                    {
                        "type": "object",
                        "propertyNames": { "pattern": format!("^{NAME}$") },
                        "additionalProperties": margin,
                    },
                ],
            }),
        ),
        (
            "false_promotion_rate",
            with_default(
                share(
                    "The chance that a release beyond a margin is promoted.",
                    chance(),
                    &["5%", "1%"],
                ),
                "5%",
            ),
        ),
        (
            "deadline",
            duration(
                "When there is a verdict at the latest. Twice `after` unless it is said.",
                &["30m", "1h"],
            ),
        ),
        (
            "otherwise",
            with_default(
                choice(
                    "What to do at the deadline without enough data or proof.",
                    release::OTHERWISE.iter().map(|(word, _)| *word),
                ),
                "hold",
            ),
        ),
    ];
    object("When the release goes on.", &[], keys)
}

fn steps() -> Value {
    let keys = vec![
        (
            "weight",
            share(
                "The canary's share of the traffic; larger at each step.",
                json!({ "exclusiveMinimum": 0, "maximum": 1 }),
                &["10%", "50%", "100%"],
            ),
        ),
        ("hold", duration("How long this step is watched at least.", &["5m", "10m"])),
    ];
    json!({
        "description": "The steps of a progressive release, judged as one analysis.",
        "type": "array",
        "minItems": 1,
        "maxItems": release::MAX_STEPS,
        "items": object("A step.", &["weight", "hold"], keys),
        "examples": [[{ "weight": "10%", "hold": "5m" }, { "weight": "100%", "hold": "1h" }]],
    })
}

/// Bounds of a chance that is given as a plain number.
fn chance() -> Value {
    json!({ "exclusiveMinimum": 0, "exclusiveMaximum": 0.5 })
}

fn duration_key(words: &str, default: &str, examples: Examples<'_>) -> Value {
    with_default(duration(words, examples), default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rulefile::{
        schema::{FILE, OBSERVE},
        signals::SIGNAL,
        table::Shape,
    };

    /// A level has the keys that its reader has, each with words of its own.
    #[test]
    fn every_level_has_the_keys_of_its_reader() {
        let schema = rule_file();
        let check = |pointer: &str, shape: &Shape| {
            let level = schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
            let keys = level["properties"].as_object().expect("a level has keys");
            let mut expected: Vec<&str> = shape.keys.to_vec();
            expected.sort_unstable();
            let mut found: Vec<&str> = keys.keys().map(String::as_str).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{}", shape.what);
            assert_eq!(level["additionalProperties"], false, "{}", shape.what);
            for (key, schema) in keys {
                let words = schema["description"].as_str().unwrap_or_default();
                assert!(words.len() > 10, "`{key}` of {} says nothing", shape.what);
            }
        };
        check("", &FILE);
        check("/properties/observe", &OBSERVE);
        check("/properties/signals/additionalProperties", &SIGNAL);
        check("/properties/rules/items", &rules::RULE);
        check("/properties/promote", &release::PROMOTE);
        check("/properties/steps/items", &release::STEP);
    }
}
