//! What the body of a health answer says, by the conventions in use: health+json, Spring, ASP.NET,
//! Kubernetes verbose lines, MicroProfile, Django, etcd, and plain words.
//!
//! Invariants: never panics, whatever the bytes; a body that is not understood is *unclear*, not
//! up. A service's own word about itself is believed before that of its components: one of them
//! being down makes it degraded. It deliberately reads no numbers such as response times.

use serde_json::{Map, Value};

use super::excerpt::{excerpt, excerpt_bytes};
use crate::engine::observation::Health;

/// Plain text longer than this is a page, not a status.
const WORDS_BYTES_MAX: usize = 4096;
/// A HTML page that says more than this is not a load balancer's "ready" page.
const PAGE_BYTES_MAX: usize = 120;
/// Levels of components below the status that are looked into.
const COMPONENT_DEPTH_MAX: u32 = 4;

const UP: &[&str] = &[
    "up",
    "ok",
    "okay",
    "pass",
    "passed",
    "passing",
    "healthy",
    "working",
    "green",
    "ready",
    "alive",
    "live",
    "running",
    "serving",
    "available",
    "operational",
    "success",
    "succeeded",
    "online",
    "good",
    "true",
    "active",
    "normal",
    "connected",
    "pong",
    "imok",
];
const DEGRADED: &[&str] = &["degraded", "warn", "warning", "yellow", "partial", "impaired"];
const DOWN: &[&str] = &[
    "down",
    "fail",
    "failed",
    "failing",
    "failure",
    "error",
    "errors",
    "unhealthy",
    "out_of_service",
    "critical",
    "red",
    "unavailable",
    "not_ready",
    "not_serving",
    "dead",
    "offline",
    "false",
    "stopped",
    "outage",
    "disconnected",
    "fatal",
    "ko",
];
/// Where the status of a JSON object is, in order of preference.
const STATUS_KEYS: &[&str] = &[
    "status", "state", "health", "healthy", "outcome", "overall", "ok", "ready", "alive", "success",
];
/// Where the components of a JSON object are.
const COMPONENT_KEYS: &[&str] =
    &["checks", "components", "details", "entries", "dependencies", "services", "info"];

/// What a body says.
#[derive(Clone, Debug, PartialEq)]
pub enum BodySays {
    /// It is empty.
    Nothing,
    /// A status and, when that is not up, why.
    Status(Health, String),
    /// Something that is not a status, in words.
    Unclear(String),
}

/// Reads a body.
pub fn read_body(content_type: Option<&str>, body: &[u8]) -> BodySays {
    let body = body.trim_ascii();
    let json = content_type.is_some_and(|content_type| content_type.contains("json"));
    match body.first() {
        None => BodySays::Nothing,
        Some(b'<') => read_page(body),
        Some(b'{' | b'"') => read_json(body),
        // Verbose lines begin with a bracket too.
        Some(b'[') if !body.starts_with(b"[+]") && !body.starts_with(b"[-]") => read_json(body),
        Some(_) if json => read_json(body),
        Some(_) => read_words(body),
    }
}

fn read_page(body: &[u8]) -> BodySays {
    let unclear = || {
        BodySays::Unclear(format!(
            "a page ({:?}), expected a health answer; hint: is there a login page in front?",
            excerpt_bytes(body)
        ))
    };
    // A form asks for something; it is not a status.
    let asks = |tag: &str| {
        body.windows(tag.len()).any(|window| window.eq_ignore_ascii_case(tag.as_bytes()))
    };
    if body.len() > WORDS_BYTES_MAX || asks("<form") || asks("<input") || asks("<script") {
        return unclear();
    }
    let mut text = String::new();
    let mut inside = false;
    for c in String::from_utf8_lossy(body).chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                text.push(' ');
            }
            _ if inside => {}
            _ => text.push(c),
        }
    }
    if text.len() > PAGE_BYTES_MAX {
        return unclear();
    }
    match status_of_words(&text) {
        Some(status) => BodySays::Status(status, detail(status, &text)),
        None => unclear(),
    }
}

fn read_words(body: &[u8]) -> BodySays {
    let unclear = || {
        BodySays::Unclear(format!(
            "the text {:?}, expected a word such as ok, healthy, degraded or down",
            excerpt_bytes(body)
        ))
    };
    let Ok(text) = str::from_utf8(body) else { return unclear() };
    if text.len() > WORDS_BYTES_MAX {
        return unclear();
    }
    if let Some(failed) = text.lines().find(|line| line.starts_with("[-]")) {
        return BodySays::Status(Health::Down, excerpt(failed));
    }
    if text.lines().any(|line| line.starts_with("[+]")) {
        return BodySays::Status(Health::Up, String::new());
    }
    match status_of_words(text) {
        Some(status) => BodySays::Status(status, detail(status, text)),
        None => unclear(),
    }
}

/// The status that words amount to: that of the first word when it is one, else what all status
/// words agree on. "Unhealthy: db ok" is down; "all fine but db down, cache ok" is unclear.
fn status_of_words(text: &str) -> Option<Health> {
    let mut agreed: Option<Health> = None;
    let mut negated = false;
    let mut first = true;
    for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
        if word.is_empty() {
            continue;
        }
        let word = word.to_ascii_lowercase();
        match (word.as_str(), status_of_word(&word)) {
            ("not" | "no" | "0" | "without" | "isn", None) => {
                negated = true;
                continue;
            }
            (_, None) => {}
            (_, Some(status)) => {
                let said = match (negated, status) {
                    (false, status) => Some(status),
                    (true, Health::Up) => Some(Health::Down),
                    // "no errors" praises nothing by itself.
                    (true, Health::Degraded | Health::Down) => None,
                };
                match (said, agreed) {
                    (None, _) => {}
                    (Some(said), _) if first => return Some(said),
                    (Some(said), None) => agreed = Some(said),
                    (Some(said), Some(agreed)) if said == agreed => {}
                    (Some(_), Some(_)) => return None,
                }
            }
        }
        negated = false;
        first = false;
    }
    agreed
}

fn status_of_word(word: &str) -> Option<Health> {
    if UP.contains(&word) {
        Some(Health::Up)
    } else if DEGRADED.contains(&word) {
        Some(Health::Degraded)
    } else if DOWN.contains(&word) {
        Some(Health::Down)
    } else {
        None
    }
}

fn read_json(body: &[u8]) -> BodySays {
    // serde_json stops at 128 levels, so nesting cannot exhaust the stack.
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return BodySays::Unclear(format!("cut or broken JSON ({error})")),
    };
    let unclear =
        || BodySays::Unclear(format!("JSON without a known status ({:?})", excerpt_bytes(body)));
    let Value::Object(object) = &value else {
        return match status_of_value(&value) {
            Some(status) => BodySays::Status(status, detail(status, &value.to_string())),
            None => unclear(),
        };
    };
    let Some((key, said)) = status_entry(object) else {
        // Django: one entry a component, no status above them.
        return match worst_entry(object, COMPONENT_DEPTH_MAX) {
            Some((status, detail)) => BodySays::Status(status, up_is_silent(status, detail)),
            None => unclear(),
        };
    };
    let Some(status) = status_of_value(said) else { return unclear() };
    let component = worst_component(object, COMPONENT_DEPTH_MAX);
    match (status, component) {
        (Health::Up, Some((Health::Degraded | Health::Down, component))) => {
            BodySays::Status(Health::Degraded, format!("{key} is up, but {component}"))
        }
        (status, Some((Health::Degraded | Health::Down, component))) => {
            BodySays::Status(status, format!("{key} is {}, {component}", shown(said)))
        }
        (status, Some((Health::Up, _)) | None) => {
            let output = object.get("output").and_then(Value::as_str).unwrap_or("");
            let colon = if output.is_empty() { "" } else { ": " };
            let words = format!("{key} is {}{colon}{output}", shown(said));
            BodySays::Status(status, up_is_silent(status, excerpt(&words)))
        }
    }
}

fn status_entry(object: &Map<String, Value>) -> Option<(&str, &Value)> {
    STATUS_KEYS.iter().find_map(|wanted| {
        object
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(wanted))
            .map(|(key, value)| (key.as_str(), value))
    })
}

fn status_of_value(value: &Value) -> Option<Health> {
    match value {
        Value::Bool(true) => Some(Health::Up),
        Value::Bool(false) => Some(Health::Down),
        Value::String(text) if text.len() <= WORDS_BYTES_MAX => {
            let word = text.trim().to_ascii_lowercase().replace([' ', '-'], "_");
            status_of_word(&word).or_else(|| status_of_words(text))
        }
        Value::String(_) | Value::Null | Value::Array(_) => None,
        Value::Number(code) => match code.as_u64() {
            Some(200..=299) => Some(Health::Up),
            Some(400..=599) => Some(Health::Down),
            Some(_) | None => None,
        },
        // Old Spring: {"status": {"code": "UP", "description": ""}}.
        Value::Object(object) => {
            object.get("code").or_else(|| object.get("status")).and_then(|inner| match inner {
                Value::String(_) | Value::Bool(_) | Value::Number(_) => status_of_value(inner),
                Value::Null | Value::Array(_) | Value::Object(_) => None,
            })
        }
    }
}

/// The worst of an object's components.
fn worst_component(object: &Map<String, Value>, depth: u32) -> Option<(Health, String)> {
    object
        .iter()
        .filter(|(key, _)| COMPONENT_KEYS.iter().any(|wanted| key.eq_ignore_ascii_case(wanted)))
        .filter_map(|(_, components)| match components {
            Value::Object(components) => worst_entry(components, depth),
            Value::Array(components) => worst_of_list(components, "", depth),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        })
        .max_by_key(|(status, _)| *status)
}

/// The worst of named components; those that are not understood do not count.
fn worst_entry(components: &Map<String, Value>, depth: u32) -> Option<(Health, String)> {
    components
        .iter()
        .filter_map(|(name, value)| component(name, value, depth))
        .max_by_key(|(status, _)| *status)
}

fn worst_of_list(components: &[Value], name: &str, depth: u32) -> Option<(Health, String)> {
    components
        .iter()
        .filter_map(|value| {
            let own = value.get("name").and_then(Value::as_str).unwrap_or(name);
            component(own, value, depth)
        })
        .max_by_key(|(status, _)| *status)
}

fn component(name: &str, value: &Value, depth: u32) -> Option<(Health, String)> {
    let depth = depth.checked_sub(1)?;
    match value {
        // Numbers and nulls among components are measurements.
        Value::Number(_) | Value::Null => None,
        Value::Bool(_) | Value::String(_) => {
            status_of_value(value).map(|status| (status, named(name, value)))
        }
        Value::Array(list) => worst_of_list(list, name, depth),
        Value::Object(object) => {
            let own = status_entry(object).and_then(|(_, said)| {
                status_of_value(said).map(|status| (status, named(name, said)))
            });
            let below = worst_component(object, depth);
            [own, below].into_iter().flatten().max_by_key(|(status, _)| *status)
        }
    }
}

fn named(name: &str, said: &Value) -> String {
    excerpt(&format!("{name} is {}", shown(said)))
}

fn shown(said: &Value) -> String {
    match said {
        Value::String(text) => format!("{:?}", excerpt(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            excerpt(&said.to_string())
        }
    }
}

fn detail(status: Health, text: &str) -> String {
    up_is_silent(status, excerpt(text))
}

fn up_is_silent(status: Health, detail: String) -> String {
    match status {
        Health::Up => String::new(),
        Health::Degraded | Health::Down => detail,
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn random_and_broken_bodies_never_panic() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        const MARKS: &[u8] = b"{}[]\"<>:,\\ -";
        let bodies: [&[u8]; 5] = [
            br#"{"status":"UP","components":{"db":{"status":"DOWN"},"disk":[{"status":1}]}}"#,
            b"[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n",
            b"<html><body><h1>200 OK</h1>\nService ready.\n</body></html>",
            b"{\"a\": \"working\", \"b\": \"warning: \xe2\x80\xa6 x\"}",
            b"not ready, 0 failed",
        ];
        for round in 0..20_000 {
            let mut body = bodies[round % bodies.len()].to_vec();
            for _ in 0..rng.random_range(1..8) {
                let at = rng.random_range(0..body.len());
                match rng.random_range(0..3) {
                    0 => body[at] = rng.random(),
                    1 => body.truncate(at.max(1)),
                    _ => body.insert(at, MARKS[rng.random_range(0..MARKS.len())]),
                }
            }
            let content_type = [None, Some("application/json"), Some("text/plain")][round % 3];
            match read_body(content_type, &body) {
                BodySays::Nothing => assert!(body.trim_ascii().is_empty()),
                BodySays::Status(_, words) | BodySays::Unclear(words) => {
                    assert!(!words.contains('\n') && words.len() < 2000, "{words:?}");
                }
            }
        }
    }

    #[test]
    fn components_are_looked_into_to_a_limited_depth() {
        let nested = |depth: usize| {
            let inner = "{\"status\":\"DOWN\"}".to_owned();
            let components =
                (0..depth).fold(inner, |inner, _| format!("{{\"components\":{{\"c\":{inner}}}}}"));
            let body = format!("{{\"status\":\"UP\",{}", &components[1..]);
            match read_body(None, body.as_bytes()) {
                BodySays::Status(status, _) => Some(status),
                BodySays::Nothing | BodySays::Unclear(_) => None,
            }
        };
        let limit = COMPONENT_DEPTH_MAX as usize;
        assert_eq!(nested(limit), Some(Health::Degraded));
        assert_eq!(nested(limit + 1), Some(Health::Up));
    }
}
