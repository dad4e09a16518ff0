//! The schema of one signal: one kind, and beside it what that kind understands.

use serde_json::{Value, json};

use super::value::{AMOUNT, choice, matching, object, share, with_default};
use crate::rulefile::signals::{BETTER, INSTANCES, KINDS, OPTIONS};

/// A signal.
pub(super) fn signal() -> Value {
    let mut schema = object("One kind of signal, and what belongs to it.", &[], keys());
    let kinds: Vec<Value> = KINDS.iter().map(|kind| json!({ "required": [kind] })).collect();
    schema["oneOf"] = kinds.into();
    schema["dependencies"] = dependencies();
    schema
}

/// Each option needs one of the kinds that it means something to; a quantile needs its histogram.
fn dependencies() -> Value {
    let mut dependencies = json!({ "quantile": ["of"] });
    for (option, kinds) in OPTIONS {
        let any: Vec<Value> = kinds.iter().map(|kind| json!({ "required": [kind] })).collect();
        dependencies[option] = json!({ "anyOf": any });
    }
    dependencies
}

fn keys() -> Vec<(&'static str, Value)> {
    let mut keys = kinds();
    keys.extend(options());
    keys
}

fn kinds() -> Vec<(&'static str, Value)> {
    vec![
        (
            "ratio",
            matching(
                "The share of events among a total, from two raw counters: `EVENTS / TOTAL`. \
                 Selectors are PromQL's, without functions; alternatives are joined by `or`.",
                "/",
                &["http_requests_total{code=~\"5..\"} / http_requests_total"],
            ),
        ),
        ("rate", selector("Events a second, from a raw counter.", "http_requests_total")),
        (
            "count",
            selector(
                "Events since the analysis began, from a raw counter.",
                "log_messages_total{level=\"error\"}",
            ),
        ),
        ("quantile", quantile()),
        (
            "gauge",
            selector(
                "A level, or the share that one is of another: `IN_USE / LIMIT`.",
                "process_resident_memory_bytes",
            ),
        ),
        (
            "health",
            matching(
                "A health endpoint: a path, asked of every instance, or a whole URL, asked once.",
                r"^\s*(/([^/\s]\S*)?|https?://\S+)\s*$",
                &["/health", "http://auth:3001/health"],
            ),
        ),
        (
            "restarts",
            selector(
                "When each process began; every later beginning counts as one restart.",
                "process_start_time_seconds",
            ),
        ),
        (
            "up",
            json!({
                "description": "The share of the instances whose scrape answers: 0 when none does.",
                "enum": [true, "true"],
            }),
        ),
        (
            "promql",
            matching(
                "A whole expression for a metrics server; `$arm` stands for the arm's labels.",
                r"\$arm",
                &["avg(queue_depth{$arm})"],
            ),
        ),
    ]
}

fn options() -> Vec<(&'static str, Value)> {
    vec![
        (
            "floor",
            with_default(
                share(
                    "Of a ratio: below this share nobody is worse off, whatever the baseline has.",
                    json!({ "minimum": 0, "maximum": 0.5 }),
                    &["0.1%", "1%"],
                ),
                "0.1%",
            ),
        ),
        (
            "of",
            selector(
                "Of a quantile: the histogram (classic or native, without `_bucket`) or summary.",
                "http_request_duration_seconds",
            ),
        ),
        (
            "instances",
            with_default(
                choice(
                    "How the levels of several instances become one.",
                    INSTANCES.iter().map(|(word, _)| *word),
                ),
                "max",
            ),
        ),
        ("limit", limit()),
        (
            "better",
            with_default(
                choice(
                    "Which way is good: `higher` when it is worse to have less.",
                    BETTER.iter().map(|(word, _)| *word),
                ),
                "lower",
            ),
        ),
        (
            "optional",
            json!({
                "description": "What a service may do without: while neither version exposes it, \
                                its rules are clear and block nothing.",
                "enum": [true, false, "true", "false"],
                "default": false,
            }),
        ),
    ]
}

fn selector(words: &str, example: &str) -> Value {
    matching(words, r"\S", &[example])
}

fn quantile() -> Value {
    json!({
        "description": "A quantile of the histogram or summary that `of` names: 0.95 is the time \
                        within which 95 of 100 requests are answered.",
        "type": ["number", "string"],
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "pattern": r"^\s*0+\.[0-9]+\s*$",
        "examples": [0.5, 0.95, 0.99],
    })
}

fn limit() -> Value {
    json!({
        "description": "Where a level ends; a verdict then tells when it is reached at this pace.",
        "type": ["number", "string"],
        "exclusiveMinimum": 0,
        "pattern": format!(r"^\s*{AMOUNT}\s*$"),
        "examples": ["512MiB", "80%"],
    })
}
