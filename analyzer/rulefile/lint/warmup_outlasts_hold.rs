//! A warm-up that is as long as the release is watched.

use super::{Findings, Lint, Subject};
use crate::rulefile::literal::duration_text;

pub(super) static LINT: Lint = Lint {
    name: "warmup-outlasts-hold",
    what: "a warm-up as long as the release is watched (`promote.after`)",
    why: "Instances that began with the release are not judged before it could be promoted, and \
          with a warm-up beyond the deadline never.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let (warmup, promote) = (subject.rules.observe.warmup, &subject.rules.promote);
    if warmup < promote.after {
        return;
    }
    let (limit, means) = match warmup < promote.deadline {
        true => (("hold", promote.after), "the release is hardly watched before it is promoted"),
        false => (("deadline", promote.deadline), "no release of new instances is ever judged"),
    };
    found.warn(
        subject.below("observe", "warmup"),
        format!(
            "the warm-up is {}, and the {} is {}",
            duration_text(warmup),
            limit.0,
            duration_text(limit.1)
        ),
        means,
        "a warm-up that is much shorter than `promote.after`",
    );
}
