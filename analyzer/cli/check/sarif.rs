//! What `check --format sarif` says: a log of SARIF 2.1.0, which code scanners and editors read.
//!
//! Source: OASIS, Static Analysis Results Interchange Format 2.1.0. Columns are characters, which
//! the log says of itself; files are relative to where the command ran.

use serde_json::{Value, json};

use super::{Checked, Outcome, config};
use crate::rulefile::{Fault, lint};

/// The rule of every fault.
const FAULT: &str = "rule-file";
/// The rule of a file that cannot be read.
const UNREADABLE: &str = "unreadable-file";

/// The log, on several lines.
pub fn render(checked: &[Checked]) -> String {
    let mut rules = vec![
        rule(FAULT, "error", "a fault of a rule file", "Nothing is judged by a file with a fault."),
        rule(
            UNREADABLE,
            "error",
            "a rule file that cannot be read",
            "It is missing, too large, or not text.",
        ),
    ];
    rules.extend(lint::ALL.iter().map(|lint| rule(lint.name, "warning", lint.what, lint.why)));
    let of_configs = config::LINTS.iter();
    rules.extend(of_configs.map(|lint| rule(lint.name, "warning", lint.what, lint.why)));
    let mut results = Vec::new();
    let mut notes = Vec::new();
    for Checked { name, outcome, .. } in checked {
        match outcome {
            Outcome::Good(file) => results.extend(file.warnings.iter().map(result)),
            Outcome::Config(picture) => results.extend(picture.warnings.iter().map(result)),
            Outcome::Hook(_) | Outcome::Tests { .. } => {}
            Outcome::Faulty(faults) => results.extend(faults.iter().map(result)),
            Outcome::Unreadable(error) => results.push(json!({
                "ruleId": UNREADABLE,
                "ruleIndex": index(UNREADABLE),
                "level": "error",
                "message": { "text": error },
                "locations": [{ "physicalLocation": { "artifactLocation": { "uri": uri(name) } } }],
            })),
        }
        let unlisted = outcome.unlisted();
        if unlisted > 0 {
            let text = format!("{name}: {unlisted} more findings are not listed");
            notes.push(json!({ "level": "note", "message": { "text": text } }));
        }
    }
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "rollgate",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": true,
                "toolExecutionNotifications": notes,
            }],
            "results": results,
        }],
    });
    serde_json::to_string_pretty(&log).expect("strings and numbers can be written") + "\n"
}

fn rule(id: &str, level: &str, what: &str, why: &str) -> Value {
    json!({
        "id": id,
        "shortDescription": { "text": what },
        "fullDescription": { "text": format!("{what}. {why}") },
        "help": { "text": why },
        "defaultConfiguration": { "level": level },
    })
}

/// A rule's place in the list of rules.
fn index(id: &str) -> usize {
    let of_configs = config::LINTS.iter().map(|lint| lint.name);
    let lints = lint::ALL.iter().map(|lint| lint.name).chain(of_configs);
    [FAULT, UNREADABLE].into_iter().chain(lints).position(|known| known == id).unwrap_or(0)
}

fn result(fault: &Fault) -> Value {
    let id = fault.lint.unwrap_or(FAULT);
    json!({
        "ruleId": id,
        "ruleIndex": index(id),
        "level": if fault.lint.is_some() { "warning" } else { "error" },
        "message": { "text": super::paragraph(fault) },
        "locations": [{ "physicalLocation": {
            "artifactLocation": { "uri": uri(&fault.file) },
            "region": {
                "startLine": fault.line,
                "startColumn": fault.column,
                "endLine": fault.end_line,
                "endColumn": fault.end_column,
            },
        }}],
    })
}

/// A path as a relative reference, or as a `file:` URI where it begins at the root.
fn uri(path: &str) -> String {
    let here = std::env::current_dir().map(|here| format!("{}/", here.display()));
    let path = here.ok().and_then(|here| path.strip_prefix(&here)).unwrap_or(path);
    let path = path.strip_prefix("./").unwrap_or(path);
    let mut uri = if path.starts_with('/') { "file://".to_owned() } else { String::new() };
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                uri.push(char::from(byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_references() {
        for (path, expected) in [
            ("rules/shop.yaml", "rules/shop.yaml"),
            ("./rules/a b.yaml", "rules/a%20b.yaml"),
            ("/etc/rules/größe.yaml", "file:///etc/rules/gr%C3%B6%C3%9Fe.yaml"),
            ("a:b#c%.yaml", "a%3Ab%23c%25.yaml"),
        ] {
            assert_eq!(uri(path), expected);
        }
    }
}
