//! A pattern without anything to match.

use super::{Findings, Lint, Subject};
use crate::signal::spec::MatchTest;

pub(super) static LINT: Lint = Lint {
    name: "needless-regex",
    what: "a matcher with `=~` or `!~` whose value is plain text, such as `code=~\"500\"`",
    why: "Patterns are anchored: `=` selects the same, and is what a reader takes it for.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    for (index, selector, key) in subject.selectors() {
        for matcher in &selector.matchers {
            let (sign, meant, value) = match &matcher.test {
                MatchTest::Regex(value, _) => ("=~", "=", value),
                MatchTest::NotRegex(value, _) => ("!~", "!=", value),
                MatchTest::Equal(_) | MatchTest::NotEqual(_) => continue,
            };
            let is_plain = |c: char| c.is_alphanumeric() || ['_', '-', '/', ' ', ':'].contains(&c);
            if !value.is_empty() && value.chars().all(is_plain) {
                found.warn(
                    subject.selector(index, key, value),
                    format!("`{sign}` with the plain text `{value}`"),
                    "it matches this text as a whole and nothing else",
                    format!("`{}{meant}\"{value}\"`, or the pattern that is meant", matcher.label),
                );
            }
        }
    }
}
