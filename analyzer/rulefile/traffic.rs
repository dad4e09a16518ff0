//! `observe.traffic`: what a service gets, as its rule file states it.
//!
//! Nothing is judged by it. Lints reckon with it, and `plan` and `simulate` take it where the command
//! line says nothing.

use super::{
    fault::{Complaint, Complaints, excerpt},
    literal::{self, Dimension},
    table,
    tree::{Kind, Node},
};
use crate::engine::rule::RuleSet;

/// Requests a second that an arm may be said to get.
pub const TRAFFIC_RPS_MAX: f64 = 100_000.0;

/// Stated traffic, in requests a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StatedTraffic {
    /// What the canary gets; of a release in steps, what the whole service gets.
    pub rps: f64,
    /// What the baseline gets: as much as the canary unless it is said. Never beside steps.
    pub baseline_rps: Option<f64>,
}

impl StatedTraffic {
    /// What the canary and the baseline get, at each step or all the time.
    pub fn arms(self, rules: &RuleSet) -> Vec<(f64, f64)> {
        if rules.steps.is_empty() {
            return vec![(self.rps, self.baseline_rps.unwrap_or(self.rps))];
        }
        let steps = rules.steps.iter();
        steps.map(|step| (self.rps * step.weight, self.rps * (1.0 - step.weight))).collect()
    }
}

/// Reads what `observe` says of traffic.
pub(super) fn read(
    source: &str,
    observe: Option<&Node>,
    has_steps: bool,
    out: &mut Complaints,
) -> Option<StatedTraffic> {
    let Kind::Map(entries) = &observe?.kind else { return None };
    let find = |key: &str| entries.iter().find(|(name, _)| name.text == key);
    let mut rate = |key: &str| {
        let node = &find(key)?.1;
        out.keep(read_rate(source, node, key))
    };
    let (rps, baseline_rps) = (rate("traffic"), rate("baseline_traffic"));
    if let Some((key, _)) = find("baseline_traffic") {
        if has_steps {
            out.push(
                Complaint::new(
                    key.span.clone(),
                    "`baseline_traffic` in a file with `steps`",
                    "`traffic` alone: what the whole service gets",
                )
                .hint("the steps divide the traffic between the versions"),
            );
        } else if find("traffic").is_none() {
            out.push(Complaint::new(
                key.span.clone(),
                "`baseline_traffic` without `traffic`",
                "`traffic: 20/s` beside it: what the canary gets",
            ));
        }
    }
    Some(StatedTraffic { rps: rps?, baseline_rps })
}

fn read_rate(source: &str, node: &Node, key: &str) -> Result<f64, Complaint> {
    let scalar = table::text(node, &format!("`{key}`"))?;
    let expected = "requests a second, a minute or an hour, such as `20/s` or `300/min`";
    let literal = literal::parse(&scalar.text).map_err(|complaint| Complaint {
        expected: expected.to_owned(),
        ..complaint.moved(|span| scalar.place(source, span))
    })?;
    let fits = literal.value > 0.0 && literal.value <= TRAFFIC_RPS_MAX;
    if literal.dimension == Dimension::PerSecond && fits {
        return Ok(literal.value);
    }
    let plain = literal.dimension == Dimension::Plain && fits;
    let text = scalar.text.trim();
    let hint = plain.then(|| format!("write `{text}/s` for requests a second"));
    Err(Complaint::new(
        scalar.span.clone(),
        format!("`{key}` is `{}`", excerpt(text)),
        format!("{expected}; more than none, and at most {TRAFFIC_RPS_MAX}/s"),
    )
    .hint_if(hint))
}
