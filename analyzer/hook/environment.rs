//! Words of an event that commands find in their environment.
//!
//! A shell script reads variables more easily than JSON, and quotes them less carefully than it
//! should. So a value is only passed on when it is a plain word that can be no option, no path
//! upwards and no piece of a command; any other is left out, and a script under `set -u` ends.

use super::{Environment, event::Event};

/// Longest value that is passed on.
pub const VALUE_CHARS_MAX: usize = 200;

/// The variables that an event gives.
pub fn of(event: &Event) -> Environment {
    let data = &event.data;
    let step = data.step.map(|step| (step.index.to_string(), step.of.to_string(), step.weight));
    let mut words = vec![
        ("ROLLGATE_ACTION", data.action.to_string()),
        ("ROLLGATE_VERDICT", data.verdict.clone()),
        ("ROLLGATE_ID", event.id.clone()),
        ("ROLLGATE_ANALYSIS", data.analysis.clone()),
        ("ROLLGATE_SERVICE", data.service.clone()),
        ("ROLLGATE_CANARY_VERSION", data.canary_version.clone()),
        ("ROLLGATE_BASELINE_VERSION", data.baseline_version.clone()),
    ];
    if let Some((index, of, weight)) = step {
        words.push(("ROLLGATE_STEP", index));
        words.push(("ROLLGATE_STEPS", of));
        words.push(("ROLLGATE_WEIGHT", weight.to_string()));
    }
    let plain = words.into_iter().filter(|(_, value)| is_plain(value));
    plain.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Whether a value is one plain word: a version, an image, a commit, a name.
pub fn is_plain(value: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "._+@:/-".contains(c);
    value.len() <= VALUE_CHARS_MAX
        && value.starts_with(|c: char| c.is_ascii_alphanumeric())
        && value.chars().all(is_inner)
        && !value.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_are_passed_on() {
        for plain in ["v1.2.3", "f25daf9", "shop:v2", "r/shop@sha256:0a", "2026-11-21", "v1+b"] {
            assert!(is_plain(plain), "{plain}");
        }
        let long = "a".repeat(VALUE_CHARS_MAX + 1);
        for other in [
            "", "-rf", "--", "$(id)", "a b", "a;b", "a\nb", "`id`", "a'b", "../x", "a/../b", "/x",
            "é", "a\0", "{a}", "a*", "~a", "a=b", "a&b", "a|b", "a\\b", &long,
        ] {
            assert!(!is_plain(other), "{other:?}");
        }
    }
}
