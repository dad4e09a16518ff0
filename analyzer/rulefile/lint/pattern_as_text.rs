//! A pattern in a matcher that compares text.

use super::{Findings, Lint, Subject};
use crate::signal::spec::MatchTest;

pub(super) static LINT: Lint = Lint {
    name: "pattern-as-text",
    what: "a matcher with `=` or `!=` whose value looks like a pattern, such as `code=\"5..\"`",
    why: "It selects the series with exactly that text, which is none: no error is ever counted, \
          and nothing says so.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    for (index, selector, key) in subject.selectors() {
        for matcher in &selector.matchers {
            let (sign, value) = match &matcher.test {
                MatchTest::Equal(value) => ("=", value),
                MatchTest::NotEqual(value) => ("!=", value),
                MatchTest::Regex(..) | MatchTest::NotRegex(..) => continue,
            };
            if is_pattern(value) {
                let meant = if sign == "=" { "=~" } else { "!~" };
                found.warn(
                    subject.selector(index, key, value),
                    format!("`{sign}` compares with the very text `{value}`"),
                    "no series has such a label, and nothing is ever counted",
                    format!("`{}{meant}\"{value}\"` for a pattern", matcher.label),
                );
            }
        }
    }
}

/// Whether a label's value was hardly meant as it stands.
fn is_pattern(value: &str) -> bool {
    let digit = value.strip_suffix("..");
    let is_status =
        digit.is_some_and(|digit| digit.len() == 1 && digit.as_bytes()[0].is_ascii_digit());
    is_status || [".*", ".+", "[0-9]", "|", "\\d"].iter().any(|part| value.contains(part))
}
