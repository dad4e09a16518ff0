//! A deadline at the end of the hold.

use super::{Findings, Lint, Subject};
use crate::{engine::rule::Otherwise, rulefile::literal::duration_text};

pub(super) static LINT: Lint = Lint {
    name: "deadline-at-hold",
    what: "a deadline that is as long as `promote.after`, or as all steps together",
    why: "A release is promoted at that one look or never: a proof that needs longer, a late step \
          or a gap at the wrong moment makes it inconclusive.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let promote = &subject.rules.promote;
    if promote.after < promote.deadline {
        return;
    }
    let otherwise = match promote.otherwise {
        Otherwise::Hold => "held",
        Otherwise::Rollback => "rolled back",
        Otherwise::Promote => "promoted all the same",
    };
    found.warn(
        subject.below("promote", "deadline"),
        format!("the deadline is {}, and so is the hold", duration_text(promote.deadline)),
        format!("a release that is not ready at that one look is {otherwise}"),
        "a later `deadline`; twice the hold when it is left out",
    );
}
