//! A counter that is read as a level.

use super::{Findings, Lint, Subject};
use crate::signal::spec::Reads;

pub(super) static LINT: Lint = Lint {
    name: "counter-as-gauge",
    what: "a `gauge` of a metric whose name is a counter's (`_total`, `_bucket`)",
    why: "A counter only ever grows, and begins at zero with each process: its level says how old \
          a process is.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    for (index, spec) in subject.specs.iter().enumerate() {
        let Reads::Gauge { of, .. } = &spec.reads else { continue };
        let counter = of.names().into_iter().find(|name| is_counter(name));
        if let Some(name) = counter {
            found.warn(
                subject.selector(index, "gauge", name),
                format!("`{name}` is named as a counter, and `gauge` reads its level"),
                "the old version is always far ahead, whatever the new one does",
                format!("`rate: {name}`, `count: {name}`, or two of them as a `ratio`"),
            );
        }
    }
}

/// Whether a name says that the metric is a counter.
pub(super) fn is_counter(name: &str) -> bool {
    name.ends_with("_total") || name.ends_with("_bucket")
}
