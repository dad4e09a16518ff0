//! A share of itself.

use super::{Findings, Lint, Subject};
use crate::signal::spec::{MatchTest, Reads, Selection, Selector};

pub(super) static LINT: Lint = Lint {
    name: "ratio-of-itself",
    what: "a `ratio` or a `gauge` whose two sides select the same",
    why: "It is 100 % at every look.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    for (index, spec) in subject.specs.iter().enumerate() {
        let (key, left, right) = match &spec.reads {
            Reads::Ratio { events, total } => ("ratio", events, total),
            Reads::Gauge { of, per: Some(per), .. } => ("gauge", of, per),
            _ => continue,
        };
        if is_same(left, right) {
            found.warn(
                subject.selector(index, key, ""),
                "both sides select the same series",
                "the share is 100 % whatever happens",
                "what counts as an event on the left, such as `{code=~\"5..\"}`",
            );
        }
    }
}

fn is_same(left: &Selection, right: &Selection) -> bool {
    left.any_of.len() == right.any_of.len()
        && left.any_of.iter().zip(&right.any_of).all(|(left, right)| text(left) == text(right))
}

/// A selector's name and its matchers, in the order of labels.
fn text(selector: &Selector) -> (&str, Vec<(&str, u8, &str)>) {
    let mut matchers: Vec<_> = selector
        .matchers
        .iter()
        .map(|matcher| {
            let (kind, value) = match &matcher.test {
                MatchTest::Equal(value) => (0, value),
                MatchTest::NotEqual(value) => (1, value),
                MatchTest::Regex(value, _) => (2, value),
                MatchTest::NotRegex(value, _) => (3, value),
            };
            (matcher.label.as_str(), kind, value.as_str())
        })
        .collect();
    matchers.sort_unstable();
    (&selector.name, matchers)
}
