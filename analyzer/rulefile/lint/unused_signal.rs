//! A signal that nothing asks for.

use super::{Findings, Lint, Subject};

pub(super) static LINT: Lint = Lint {
    name: "unused-signal",
    what: "a signal that no rule names",
    why: "It is read of every target at every look, and judged by nothing.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (index, signal) in subject.rules.signals.iter().enumerate() {
        let Some((key, _)) = subject.signal(index) else { continue };
        // By name: a health signal may be named for what its answer says of something else.
        let mut rules = subject.rules.rules.iter();
        let is_named =
            rules.any(|rule| rule.text.split(|c| !is_word(c)).any(|word| word == signal.name));
        if !is_named {
            found.warn(
                key.span.clone(),
                format!("no rule names `{}`", signal.name),
                "it is read at every look and judged by nothing",
                format!("a rule that names `{}`, or no such signal", signal.name),
            );
        }
    }
}
