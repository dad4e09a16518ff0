//! Buckets that are counted all together.

use super::{Findings, Lint, Subject};
use crate::signal::spec::{Reads, Selection};

pub(super) static LINT: Lint = Lint {
    name: "bucket-without-le",
    what: "a `ratio`, `rate` or `count` of `_bucket` series without a matcher on `le`",
    why: "Buckets are cumulative: a request is counted once for every bucket that it fits into.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    for (index, spec) in subject.specs.iter().enumerate() {
        let (key, selections): (_, Vec<&Selection>) = match &spec.reads {
            Reads::Ratio { events, total } => ("ratio", vec![events, total]),
            Reads::Counter(of) => (subject.counter_key(index), vec![of]),
            _ => continue,
        };
        let mut selectors = selections.into_iter().flat_map(|of| &of.any_of);
        let whole = selectors.find(|selector| {
            selector.name.ends_with("_bucket")
                && selector.matchers.iter().all(|matcher| matcher.label != "le")
        });
        if let Some(selector) = whole {
            found.warn(
                subject.selector(index, key, &selector.name),
                format!("all buckets of `{}` are added up", selector.name),
                "a fast request counts once for every bucket, and a slow one hardly at all",
                "a matcher such as `{le=\"0.5\"}`, the `_count` series, or a `quantile`",
            );
        }
    }
}
