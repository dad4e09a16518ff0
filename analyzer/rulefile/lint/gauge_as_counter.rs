//! A level that is read as a counter.

use super::{Findings, Lint, Subject};
use crate::signal::spec::{Reads, Selection};

pub(super) static LINT: Lint = Lint {
    name: "gauge-as-counter",
    what: "a `ratio`, `rate` or `count` of a metric whose name is a level's (`_bytes`, `_ratio`, ...)",
    why: "Of a counter only what it grows by counts, and where it falls it is taken to begin anew: \
          a level read so gives numbers without a meaning.",
    needs_traffic: false,
    look,
};

/// How the names of levels end. Counters of the same units end in `_total`.
const LEVELS: [&str; 7] =
    ["_bytes", "_ratio", "_percent", "_celsius", "_threads", "_in_use", "_limit"];

fn look(subject: &Subject, found: &mut Findings) {
    let is_level = |name: &&str| LEVELS.iter().any(|end| name.ends_with(end));
    for (index, spec) in subject.specs.iter().enumerate() {
        let (key, selections): (_, Vec<&Selection>) = match &spec.reads {
            Reads::Ratio { events, total } => ("ratio", vec![events, total]),
            Reads::Counter(of) => (subject.counter_key(index), vec![of]),
            _ => continue,
        };
        if let Some(name) = selections.iter().flat_map(|of| of.names()).find(is_level) {
            let instead = match key {
                "ratio" => "`gauge: 'IN_USE / LIMIT'` for a share of a limit".to_owned(),
                _ => format!("`gauge: {name}`"),
            };
            found.warn(
                subject.selector(index, key, name),
                format!("`{name}` is named as a level, and `{key}` reads a counter"),
                "each fall is taken for a restart of the counter: the numbers mean nothing",
                instead,
            );
        }
    }
}
