//! When a release goes on: `promote:` with its margins, `steps:` and `baseline:`.
//!
//! A margin that could never be shown (of a signal that no rule compares, or one that asks for better
//! than equal) is a fault, not a note: every release would end inconclusive.

use std::time::Duration;

use super::{
    fault::{Complaint, Complaints, did_you_mean, excerpt},
    literal::{self, Dimension, duration_text},
    schema::{MAX_HOLD, SECOND, chance},
    signals::{Known, Scale},
    table::{self, Shape, Table},
    tree::{Kind, Node, Scalar},
};
use crate::engine::rule::{
    Baseline, Better, Margin, Otherwise, Promote, ReleaseStep, Rule, Signal, SignalKind,
};

/// Steps of one release.
pub(super) const MAX_STEPS: usize = 20;
/// Multiples of the baseline beyond this are slips of the finger.
const MARGIN_MAX: f64 = 1000.0;
/// Probability that a release beyond the margins is promoted, unless the file says otherwise.
const FALSE_PROMOTION_RATE: f64 = 0.05;
/// Longest `offset` of a baseline: five weeks, so that the same day of last month can be meant.
const MAX_OFFSET: Duration = Duration::from_secs(35 * 24 * 3600);

/// What is done at the deadline.
pub(super) const OTHERWISE: [(&str, Otherwise); 3] =
    [("hold", Otherwise::Hold), ("rollback", Otherwise::Rollback), ("promote", Otherwise::Promote)];

pub(super) static PROMOTE: Shape = Shape {
    what: "`promote`",
    keys: &["after", "margin", "false_promotion_rate", "deadline", "otherwise"],
    unbuilt: &[],
};
pub(super) static STEP: Shape = Shape { what: "a step", keys: &["weight", "hold"], unbuilt: &[] };

/// Reads `promote` and `steps`, which say together how long a release is watched. Without `promote`
/// there must be steps.
pub(super) fn read(
    source: &str,
    promote: Option<&Node>,
    steps: Option<&Node>,
    out: &mut Complaints,
) -> Option<(Promote, Vec<ReleaseStep>)> {
    let steps = match steps {
        None => Some(Vec::new()),
        Some(node) => read_steps(source, node, out),
    };
    let table = match promote {
        None => None,
        Some(node) => Some(Table::read(node, &PROMOTE, out)?),
    };
    let get = |key: &str| table.as_ref().and_then(|table| table.get(key));
    let is_stepped = steps.as_ref().is_none_or(|steps| !steps.is_empty());
    let whole = steps.as_ref().map(|steps| steps.iter().map(|step| step.hold).sum::<Duration>());
    let after = match get("after") {
        None if is_stepped => whole,
        None => {
            table.as_ref()?.need("after", "after: 15m", out);
            None
        }
        Some(node) => {
            let limits = SECOND..=MAX_HOLD;
            let after = out.keep(table::duration(source, node, "`after`", limits));
            if let (true, Some(whole), Some(after)) = (is_stepped, whole, after)
                && after != whole
            {
                out.push(Complaint::new(
                    node.span.clone(),
                    "`after` beside `steps`, which say how long each is watched",
                    format!("no `after`, or the {} of all steps together", duration_text(whole)),
                ));
            }
            after
        }
    };
    let deadline = match get("deadline") {
        None => after.map(|after| 2 * after),
        Some(node) => out.keep(table::duration(source, node, "`deadline`", SECOND..=2 * MAX_HOLD)),
    };
    let false_promotion_rate = match get("false_promotion_rate") {
        None => Some(FALSE_PROMOTION_RATE),
        Some(node) => out.keep(chance(
            source,
            node,
            "`false_promotion_rate`",
            ("5%", "it is the chance that a release beyond the margins is promoted"),
        )),
    };
    let otherwise = match get("otherwise") {
        None => Some(Otherwise::Hold),
        Some(node) => out.keep(table::choice(node, "`otherwise`", &OTHERWISE)),
    };
    let (after, deadline) = (after?, deadline?);
    if after > deadline {
        let span = get("deadline").or(promote).map(|node| node.span.clone());
        out.push(Complaint::new(
            span.unwrap_or_default(),
            format!(
                "the hold of {} is longer than the deadline of {}",
                duration_text(after),
                duration_text(deadline)
            ),
            "a `deadline` of at least `after`: a release could never be promoted",
        ));
        return None;
    }
    let (otherwise, false_promotion_rate) = (otherwise?, false_promotion_rate?);
    Some((Promote { after, deadline, otherwise, false_promotion_rate }, steps?))
}

/// Reads the steps; none when one of them is faulty.
fn read_steps(source: &str, node: &Node, out: &mut Complaints) -> Option<Vec<ReleaseStep>> {
    let Kind::List(items) = &node.kind else {
        out.push(Complaint::new(
            node.span.clone(),
            format!("`steps` was given as {}", table::describe(node)),
            "a list: `- { weight: 10%, hold: 5m }`",
        ));
        return None;
    };
    if items.is_empty() || items.len() > MAX_STEPS {
        out.push(Complaint::new(
            node.span.clone(),
            format!("`steps` has {} entries", items.len()),
            format!("1 to {MAX_STEPS} steps"),
        ));
        return None;
    }
    let mut steps: Vec<ReleaseStep> = Vec::new();
    for item in items {
        let Some(table) = Table::read(item, &STEP, out) else { continue };
        let weight = table.need("weight", "weight: 10%", out);
        let weight = weight.and_then(|node| out.keep(read_weight(source, node, steps.last())));
        let hold = table.need("hold", "hold: 5m", out);
        let hold = hold
            .and_then(|node| out.keep(table::duration(source, node, "`hold`", SECOND..=MAX_HOLD)));
        if let (Some(weight), Some(hold)) = (weight, hold) {
            steps.push(ReleaseStep { weight, hold });
        }
    }
    if steps.len() < items.len() {
        return None;
    }
    let whole: Duration = steps.iter().map(|step| step.hold).sum();
    if whole > MAX_HOLD {
        out.push(Complaint::new(
            node.span.clone(),
            format!("the steps take {} together", duration_text(whole)),
            format!("at most {}", duration_text(MAX_HOLD)),
        ));
        return None;
    }
    Some(steps)
}

fn read_weight(source: &str, node: &Node, before: Option<&ReleaseStep>) -> Result<f64, Complaint> {
    let scalar = table::text(node, "`weight`")?;
    let literal = literal::parse(&scalar.text)
        .map_err(|complaint| complaint.moved(|span| scalar.place(source, span)))?;
    let share = matches!(literal.dimension, Dimension::Share | Dimension::Plain);
    let found = || format!("a step of weight `{}`", excerpt(&scalar.text));
    if !(share && literal.value > 0.0 && literal.value <= 1.0) {
        let percent =
            literal.dimension == Dimension::Plain && literal.value > 1.0 && literal.value <= 100.0;
        let hint = percent.then(|| format!("did you mean `{}%`?", literal::short(literal.value)));
        let expected = "the canary's share of the traffic, above 0% and at most 100%";
        return Err(Complaint::new(scalar.span.clone(), found(), expected).hint_if(hint));
    }
    match before {
        Some(before) if before.weight >= literal.value => Err(Complaint::new(
            scalar.span.clone(),
            format!("{} after one of {}%", found(), literal::short(before.weight * 100.0)),
            "a larger share at each step",
        )),
        Some(_) | None => Ok(literal.value),
    }
}

/// Reads `baseline`.
pub(super) fn baseline(node: &Node) -> Result<Baseline, Complaint> {
    let scalar = table::text(node, "`baseline`")?;
    let expected = "`concurrent`, `before`, or `offset` and a time, such as `offset 1d`";
    let words: Vec<&str> = scalar.text.split_whitespace().collect();
    let offset = match words[..] {
        ["concurrent"] => return Ok(Baseline::Concurrent),
        ["before"] => return Ok(Baseline::Before),
        ["offset", time] => time,
        _ => {
            let names = ["concurrent", "before", "offset 1d"].into_iter();
            let message = format!("the baseline `{}`", excerpt(&scalar.text));
            let complaint = Complaint::new(scalar.span.clone(), message, expected);
            return Err(complaint.hint_if(did_you_mean(&scalar.text, names)));
        }
    };
    // Days only here: a hold is written in hours, but yesterday is a day ago.
    let days = offset.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let offset = match days {
        Some(days) => Duration::from_secs(u64::from(days) * 24 * 3600),
        None => literal::duration(offset).map_err(|complaint| Complaint {
            span: scalar.span.clone(),
            expected: expected.to_owned(),
            ..complaint
        })?,
    };
    if offset < Duration::from_secs(60) || offset > MAX_OFFSET {
        return Err(Complaint::new(
            scalar.span.clone(),
            format!("a baseline `{}` ago", excerpt(&scalar.text)),
            format!("an offset from 1m to {}d", MAX_OFFSET.as_secs() / 86_400),
        ));
    }
    Ok(Baseline::Offset(offset))
}

/// Reads `promote.margin` into the signals. `known` are the signals as they were written, in the
/// order of `signals`.
pub(super) fn margins(
    source: &str,
    promote: &Node,
    known: &[Known],
    rules: &[Rule],
    signals: &mut [Signal],
    out: &mut Complaints,
) {
    let Kind::Map(entries) = &promote.kind else { return };
    let Some((_, node)) = entries.iter().find(|(key, _)| key.text == "margin") else { return };
    let compared = |index: usize| {
        let clauses = rules.iter().flat_map(|rule| rule.when.clauses());
        clauses.into_iter().any(|clause| clause.signal == index && clause.test.needs_baseline())
    };
    match &node.kind {
        Kind::Map(entries) => {
            for (key, value) in entries {
                let Some(index) = known.iter().position(|known| known.name == key.text) else {
                    let names: Vec<&str> = known.iter().map(|known| known.name.as_str()).collect();
                    let shown = table::list(&names[..names.len().min(12)]);
                    out.push(
                        Complaint::new(
                            key.span.clone(),
                            format!("a margin for the unknown signal `{}`", excerpt(&key.text)),
                            format!("a signal of this file: {shown}"),
                        )
                        .hint_if(did_you_mean(&key.text, names.iter().copied())),
                    );
                    continue;
                };
                let Some((_, scale)) = known[index].meaning else { continue };
                let Some(signal) = signals.get_mut(index) else { continue };
                if signal.margin.is_some() {
                    out.push(table::twice(key));
                } else if let Err(complaint) = provable(signal, compared(index), key) {
                    out.push(complaint);
                } else {
                    signal.margin = out.keep(read_margin(source, value, Some((signal, scale))));
                }
            }
        }
        Kind::Scalar(_) => {
            let Some(Margin { factor, .. }) = out.keep(read_margin(source, node, None)) else {
                return;
            };
            let mut none = true;
            for (index, signal) in signals.iter_mut().enumerate() {
                if is_count(signal.kind) && compared(index) {
                    let factor = match signal.better {
                        Better::Lower => factor,
                        // Within one and a half times, whichever way is the bad one.
                        Better::Higher => 1.0 / factor,
                    };
                    signal.margin = Some(Margin { factor, or: None });
                    none = false;
                }
            }
            // Faulty rules may be the ones that compare.
            if none && out.is_empty() {
                out.push(Complaint::new(
                    node.span.clone(),
                    "a margin, and no rule that compares a ratio, rate or quantile",
                    "no margin, or a rule such as `error_rate > 1.5x baseline`",
                ));
            }
        }
        Kind::List(_) => out.push(Complaint::new(
            node.span.clone(),
            "`margin` was given as a list",
            "`margin: 1.5x` for all that is compared, or a mapping of signals to margins",
        )),
    }
}

/// Whether a proof is made of counts of this kind.
fn is_count(kind: SignalKind) -> bool {
    match kind {
        SignalKind::Ratio { .. } | SignalKind::Rate | SignalKind::Quantile { .. } => true,
        SignalKind::Count
        | SignalKind::Gauge { .. }
        | SignalKind::Health
        | SignalKind::Restarts => false,
    }
}

/// Why there can be no proof for a signal.
fn provable(signal: &Signal, compared: bool, key: &Scalar) -> Result<(), Complaint> {
    let name = &signal.name;
    if !is_count(signal.kind) {
        return Err(Complaint::new(
            key.span.clone(),
            format!("a margin for `{name}`, which is not made of counted events"),
            "margins for ratios, rates and quantiles only",
        )
        .hint("levels and counts keep a release from being promoted by their rules"));
    }
    if !compared {
        return Err(Complaint::new(
            key.span.clone(),
            format!("a margin for `{name}`, which no rule compares with the baseline"),
            format!("a rule such as `{name} > 1.5x baseline`, or no margin"),
        ));
    }
    Ok(())
}

/// Reads `1.5x` or, where the signal is known, `2x or 1%`.
fn read_margin(
    source: &str,
    node: &Node,
    signal: Option<(&Signal, Scale)>,
) -> Result<Margin, Complaint> {
    let scalar = table::text(node, "a margin")?;
    let text = scalar.text.as_str();
    let parse = |start: usize, part: &str| {
        literal::parse(part).map_err(|complaint| {
            complaint.moved(|span| scalar.place(source, start + span.start..start + span.end))
        })
    };
    let (first, rest) = match text.find(" or ") {
        Some(at) => (&text[..at], Some((at + 4, &text[at + 4..]))),
        None => (text, None),
    };
    let factor = parse(0, first)?;
    let wrong = |expected: &str| {
        let message = format!("a margin of `{}`", excerpt(text.trim()));
        Err(Complaint::new(scalar.span.clone(), message, expected))
    };
    if factor.dimension != Dimension::Factor {
        return wrong("a multiple of the baseline, such as `1.5x` or `2x or 1%`");
    }
    let factor = factor.value;
    let better = signal.map_or(Better::Lower, |(signal, _)| signal.better);
    match better {
        Better::Lower if factor > 1.0 && factor <= MARGIN_MAX => {}
        Better::Lower => {
            return wrong(&format!(
                "a multiple above 1x, at most {MARGIN_MAX}x: an equal release is to be shown good"
            ));
        }
        Better::Higher if factor > 0.0 && factor < 1.0 => {}
        Better::Higher => {
            return wrong("a multiple below 1x, such as `0.9x`: more of this signal is better");
        }
    }
    let Some((start, rest)) = rest else { return Ok(Margin { factor, or: None }) };
    let Some((signal, scale)) = signal else {
        return wrong("a multiple alone; an `or` is in the unit of one signal")
            .map_err(|complaint| complaint.hint("write `margin: { error_rate: 2x or 1% }`"));
    };
    let or = parse(start, rest)?;
    let value = match (scale, or.dimension) {
        (Scale::Share, Dimension::Share | Dimension::Plain) if or.value < 1.0 => Some(or.value),
        (Scale::PerSecond, Dimension::PerSecond) => Some(or.value),
        (Scale::Time { unit_secs }, Dimension::Time) => Some(or.value / unit_secs),
        (Scale::Bytes, Dimension::Bytes) => Some(or.value),
        (Scale::PlainOrBytes, Dimension::Plain | Dimension::Bytes) => Some(or.value),
        (Scale::Plain, Dimension::Plain) => Some(or.value),
        _ => None,
    };
    match value.filter(|value| *value > 0.0) {
        Some(value) => Ok(Margin { factor, or: Some(value) }),
        None => wrong(&format!(
            "after `or` a value of `{}` above zero that is good enough, in its own unit",
            signal.name
        )),
    }
}
