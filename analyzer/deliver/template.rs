//! Bodies of a receiver's own shape, made from the event by a template.
//!
//! Whatever is printed is escaped for the body's type: in JSON a value stands as JSON, a text with
//! its quotes; in a form it is percent-encoded. A name that the event does not have is a fault and
//! never an empty text; what an event may lack is null. A template is tried on an event of each
//! decision before it is used, so that what can only go wrong at night goes wrong at noon.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, value::Serde};

use super::{
    payload::{DeployAction, EVENT_BYTES_MAX},
    sample::{self, Release},
};
use crate::engine::observation::Time;

/// Largest template.
pub const TEMPLATE_BYTES_MAX: usize = 64 << 10;

/// Largest body that a template may make.
pub const BODY_BYTES_MAX: usize = EVENT_BYTES_MAX;

/// Steps that one rendering may take.
const FUEL: u64 = 200_000;

/// What an event need not have. Templates see null there, so that `{% if data.step %}` is no fault
/// and a slip of the finger still is.
const OPTIONAL: [&str; 5] =
    ["step", "findings_omitted", "test", "overridden_by", "override_reason"];

/// The only template of its environment.
const NAME: &str = "body";

/// How what is printed is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    Json,
    Form,
    Text,
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Bodies of that type are not made.
    #[error(
        "content_type is {0:?}, expected a type of JSON, application/x-www-form-urlencoded or \
         text/plain"
    )]
    ContentType(String),
    /// It is too large.
    #[error("the body has {0} bytes, expected at most {TEMPLATE_BYTES_MAX}")]
    TooLarge(usize),
    /// It is no template.
    #[error("the body is no template: {0}")]
    Malformed(String),
    /// It fails for a decision.
    #[error("the body fails on {action}: {why}")]
    Fails {
        /// Which decision.
        action: DeployAction,
        /// How.
        why: String,
    },
}

/// A template that was tried.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    escape: Escape,
}

impl Template {
    /// Reads a template and tries it on an event of each of these decisions.
    ///
    /// # Errors
    /// When it is none, or fails for one of the decisions.
    pub fn new(
        text: &str,
        content_type: &str,
        actions: impl IntoIterator<Item = DeployAction>,
    ) -> Result<Self, TemplateError> {
        let escape = escape(content_type)
            .ok_or_else(|| TemplateError::ContentType(content_type.to_owned()))?;
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLarge(text.len()));
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(move |_| match escape {
            Escape::Json => AutoEscape::Json,
            Escape::Form | Escape::Text => AutoEscape::None,
        });
        if escape == Escape::Form {
            environment.set_formatter(|out, _, value| Ok(out.write_str(&encoded(value))?));
        }
        environment
            .add_template_owned(NAME, text.to_owned())
            .map_err(|error| TemplateError::Malformed(words(&error)))?;
        let template = Self { environment, escape };
        let release = Release { service: "shop", canary_version: "v2", baseline_version: "v1" };
        for action in actions {
            let events = [
                sample::rehearsal(action, &release, Time(0)),
                sample::bare(action, &release, Time(0)),
            ];
            for event in events {
                let made = template.render(&event, "a1.mechanism");
                made.map_err(|why| TemplateError::Fails { action, why })?;
            }
        }
        Ok(template)
    }

    /// The body for an event.
    ///
    /// # Errors
    /// In words, when the template fails or what it makes cannot be sent.
    pub fn render(&self, event: &str, key: &str) -> Result<String, String> {
        let mut event: serde_json::Value =
            serde_json::from_str(event).map_err(|error| format!("the event is none: {error}"))?;
        let fields = event.as_object_mut().ok_or("the event is no object")?;
        fields.insert("key".to_owned(), key.into());
        if let Some(data) = fields.get_mut("data").and_then(|data| data.as_object_mut()) {
            for name in OPTIONAL {
                data.entry(name).or_insert(serde_json::Value::Null);
            }
        }
        let template = self.environment.get_template(NAME).map_err(|error| words(&error))?;
        let mut body = Bounded(Vec::new());
        let made = template.render_captured_to(Value::from(Serde(event)), &mut body);
        if let Err(error) = made {
            return Err(match body.0.len() >= BODY_BYTES_MAX {
                true => format!("the body has more than {BODY_BYTES_MAX} bytes"),
                false => words(&error),
            });
        }
        let body = String::from_utf8(body.0).map_err(|_| "the body is no text".to_owned())?;
        if self.escape == Escape::Json
            && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&body)
        {
            return Err(format!(
                "what it makes is no JSON: {error} (texts are printed with their quotes)"
            ));
        }
        Ok(body)
    }
}

/// Takes so many bytes and no more.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = BODY_BYTES_MAX - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn escape(content_type: &str) -> Option<Escape> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" | "text/json" => Some(Escape::Json),
        "application/x-www-form-urlencoded" => Some(Escape::Form),
        "text/plain" => Some(Escape::Text),
        essence if essence.starts_with("application/") && essence.ends_with("+json") => {
            Some(Escape::Json)
        }
        _ => None,
    }
}

/// A value in a form: percent-encoded but for letters, digits and `-._~`. Null is nothing.
fn encoded(value: &Value) -> String {
    if value.is_none() {
        return String::new();
    }
    let mut text = String::new();
    for byte in value.to_string().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

/// What a template's fault is, with its line, on one line.
fn words(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!(" (line {line} of the body)")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{}{detail}{line}", error.kind()).replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [DeployAction; 4] =
        [DeployAction::Rollback, DeployAction::Promote, DeployAction::Advance, DeployAction::Hold];
    const RELEASE: Release<'static> =
        Release { service: "sh\"op & <b>", canary_version: "v 2", baseline_version: "" };

    fn made(text: &str, content_type: &str) -> Result<String, String> {
        let template = Template::new(text, content_type, ALL).map_err(|error| error.to_string())?;
        template.render(&sample::rehearsal(DeployAction::Rollback, &RELEASE, Time(0)), "a1.d")
    }

    #[test]
    fn what_is_printed_is_escaped_for_its_type() {
        let check = |text: &str, content_type: &str, expected: &str| {
            assert_eq!(made(text, content_type), Ok(expected.to_owned()), "{text}");
        };
        let json = "application/json; charset=utf-8";
        check(r#"{"s": {{ data.service }}}"#, json, r#"{"s": "sh\"op & <b>"}"#);
        check(r#"{{ {"k": key, "a": data.action} }}"#, json, r#"{"a":"rollback","k":"a1.d"}"#);
        check(
            r#"[{{ "on " ~ data.service if data.action == "rollback" else "" }}]"#,
            "application/vnd.x+json",
            r#"["on sh\"op & <b>"]"#,
        );
        check("{{ data.step }}", json, "null");
        check(
            "S={{ data.service }}&V={{ data.canary_version }}&W={{ data.step }}",
            "application/x-www-form-urlencoded",
            "S=sh%22op%20%26%20%3Cb%3E&V=v%202&W=",
        );
        check("{{ data.service }}: {{ type }}", "text/plain", "sh\"op & <b>: rollgate.verdict.v1");
        check(
            "{% if data.step %}{{ data.step.weight }}{% else %}all{% endif %}",
            "text/plain",
            "all",
        );
    }

    #[test]
    fn what_cannot_be_sent_is_found_before_it_is_needed() {
        let check = |text: &str, content_type: &str, words: &[&str]| {
            let error = Template::new(text, content_type, ALL).expect_err(text).to_string();
            for word in words {
                assert!(error.contains(word), "{error}\nlacks {word}");
            }
        };
        let json = "application/json";
        check(
            "{}",
            "application/xml",
            &["content_type is \"application/xml\", expected a type of"],
        );
        check("{{ data.", json, &["the body is no template", "line 1"]);
        check("{{ data.servcie }}", json, &["fails on rollback", "undefined value", "line 1"]);
        check("{% if data.stpe %}1{% endif %}", json, &["fails on rollback", "undefined"]);
        check("\n{{ data.step.weight }}", json, &["fails on rollback", "undefined", "line 2"]);
        // An event whose findings were left out has none.
        check("{{ data.findings[0].rule }}", json, &["fails on rollback", "undefined"]);
        check(
            "{% if data.action == 'hold' %}{{ nope }}{% endif %}{}",
            json,
            &["fails on hold", "undefined"],
        );
        check("{\"t\": \"{{ data.service }}\"}", json, &["no JSON", "with their quotes"]);
        check(
            "{% for a in range(9000) %}{% for b in range(9000) %}{% endfor %}{% endfor %}",
            "text/plain",
            &["fails on rollback", "fuel"],
        );
        check(
            "{% for a in range(3000) %}{{ 'x' * 100 }}{% endfor %}",
            "text/plain",
            &["the body has more than 262144 bytes"],
        );
        check(&"x".repeat(TEMPLATE_BYTES_MAX + 1), json, &["has 65537 bytes, expected at most"]);
        check("{% include 'other' %}", json, &["the body"]);
    }
}
