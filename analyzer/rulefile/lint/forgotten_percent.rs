//! A chance or a share that was perhaps meant in percent.

use super::{Findings, Lint, Subject};
use crate::{
    engine::rule::SignalKind,
    rulefile::{
        literal::{self, Dimension},
        tree::Node,
    },
};

pub(super) static LINT: Lint = Lint {
    name: "forgotten-percent",
    what: "a chance or a floor of 2 % and more that is written without `%`",
    why: "`0.1` is 10 %. A `false_rollback_rate` of that rolls one healthy release in ten back.",
    needs_traffic: false,
    look,
};

/// Below this a plain number is hardly a slip: `0.001` is what it looks like.
const SUSPICIOUS: f64 = 0.02;

fn look(subject: &Subject, found: &mut Findings) {
    let mut places: Vec<(&str, Option<&Node>)> =
        vec![("false_rollback_rate", subject.value("false_rollback_rate"))];
    let ratios = subject.rules.signals.iter().enumerate();
    let ratios = ratios.filter(|(_, signal)| matches!(signal.kind, SignalKind::Ratio { .. }));
    for (index, _) in ratios {
        let node = subject.signal(index).and_then(|(_, node)| node.entry("floor"));
        places.push(("floor", node.map(|(_, node)| node)));
    }
    for (key, node) in places {
        let Some(scalar) = node.and_then(Node::scalar) else { continue };
        let Ok(literal) = literal::parse(&scalar.text) else { continue };
        if literal.dimension == Dimension::Plain && literal.value >= SUSPICIOUS {
            let text = scalar.text.trim();
            found.warn(
                scalar.span.clone(),
                format!("`{key}: {text}` is {} %", literal::short(literal.value * 100.0)),
                match key {
                    "floor" => "no comparison fires while fewer requests than that fail",
                    _ => "that share of all healthy releases may be rolled back",
                },
                format!(
                    "`{text}%`, or `{}%` if so much is meant",
                    literal::short(literal.value * 100.0)
                ),
            );
        }
    }
}
