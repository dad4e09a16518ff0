//! The top level of a rule file, `observe:` and `promote:`, with their defaults.
//!
//! Version 1. A later version of the shape gets a number of its own; a file of an unknown version
//! is refused whole, because its keys may mean something else.

use std::time::Duration;

use super::{
    fault::{Complaint, Complaints, excerpt},
    literal::{self, Dimension, duration_text},
    meaning, rules, signals,
    table::{self, Shape, Table},
    tree::{self, Kind, Node},
};
use crate::{
    engine::rule::{Baseline, Better, Observe, Otherwise, Promote, RuleSet, Signal},
    signal::spec::SignalSpec,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Longest hold; the deadline may be twice that.
const MAX_HOLD: Duration = Duration::from_secs(7 * 24 * 3600);
/// Probability that a healthy release is rolled back by evidence, unless the file says otherwise.
const FALSE_ROLLBACK_RATE: f64 = 0.001;
/// Probability that a release beyond the margins is promoted, unless the file says otherwise.
const FALSE_PROMOTION_RATE: f64 = 0.05;
/// Longest `service`.
const MAX_SERVICE_BYTES: usize = 200;

static FILE: Shape = Shape {
    what: "a rule file",
    keys: &[
        "version",
        "service",
        "description",
        "observe",
        "false_rollback_rate",
        "signals",
        "rules",
        "promote",
        "baseline",
    ],
    unbuilt: &[("steps", "judge each step as an analysis of its own")],
};
static OBSERVE: Shape =
    Shape { what: "`observe`", keys: &["interval", "window", "warmup"], unbuilt: &[] };
static PROMOTE: Shape = Shape {
    what: "`promote`",
    keys: &["after", "deadline", "otherwise"],
    unbuilt: &[(
        "margin",
        "a release is promoted when the hold is over, every signal had data and no rule fires",
    )],
};

/// Reads the whole file. What is returned is complete only when nothing was complained about.
pub(super) fn read(
    source: &str,
    root: &Node,
    out: &mut Complaints,
) -> Option<(RuleSet, Vec<SignalSpec>)> {
    if matches!(&root.kind, Kind::Scalar(scalar) if scalar.text.trim().is_empty()) {
        out.push(tree::empty_file(root.span.clone()));
        return None;
    }
    let table = Table::read(root, &FILE, out)?;
    if let Some(version) = table.need("version", "version: 1", out) {
        out.keep(check_version(version))?;
    }
    let service = table.need("service", "service: checkout", out);
    let service = service.and_then(|node| out.keep(service_name(node)));
    if let Some(node) = table.get("description") {
        out.keep(table::text(node, "`description`"));
    }
    let observe = read_observe(source, table.get("observe"), out);
    let false_rollback_rate = match table.get("false_rollback_rate") {
        None => Some(FALSE_ROLLBACK_RATE),
        Some(node) => out.keep(rollback_rate(source, node)),
    };
    let promote = table.need("promote", "promote: { after: 15m, deadline: 30m }", out);
    let promote = promote.and_then(|node| read_promote(source, node, out));
    let signals = table.need("signals", "signals: { app: { health: /health } }", out);
    let (known, specs) = signals.map(|node| signals::read(source, node, out)).unwrap_or_default();
    let deadline = promote.map(|promote| promote.deadline);
    let rules = table.need("rules", "rules: [{ when: app is down, then: rollback }]", out);
    let rules = rules.map(|node| rules::read(source, node, &known, deadline, out));
    let signals = known
        .into_iter()
        .filter_map(|known| {
            let (kind, scale) = known.meaning?;
            let (unit, better) = (scale.unit(), Better::Lower);
            Some(Signal { name: known.name, kind, unit, better, margin: None })
        })
        .collect();
    let set = RuleSet {
        service: service?,
        signals,
        rules: rules?,
        observe: observe?,
        false_rollback_rate: false_rollback_rate?,
        promote: promote?,
        steps: Vec::new(),
        baseline: match table.get("baseline") {
            None => Baseline::Concurrent,
            Some(node) => out.keep(baseline(node))?,
        },
    };
    Some((set, specs))
}

fn check_version(node: &Node) -> Result<(), Complaint> {
    let scalar = table::text(node, "`version`")?;
    if scalar.text == "1" {
        return Ok(());
    }
    Err(Complaint::new(
        scalar.span.clone(),
        format!("the file is of version `{}`", excerpt(&scalar.text)),
        "`version: 1`, the only one there is; the rest of the file was not read",
    ))
}

fn service_name(node: &Node) -> Result<String, Complaint> {
    let scalar = table::text(node, "`service`")?;
    if scalar.text.len() > MAX_SERVICE_BYTES {
        return Err(Complaint::new(
            scalar.span.clone(),
            format!("a service name of {} bytes", scalar.text.len()),
            format!("at most {MAX_SERVICE_BYTES} bytes"),
        ));
    }
    Ok(meaning::words(&scalar.text))
}

fn baseline(node: &Node) -> Result<Baseline, Complaint> {
    let scalar = table::text(node, "`baseline`")?;
    match scalar.text.split_whitespace().collect::<Vec<_>>()[..] {
        ["concurrent"] => Ok(Baseline::Concurrent),
        ["before"] => Ok(Baseline::Before),
        ["offset", time] => Ok(Baseline::Offset(literal::duration(time)?)),
        _ => Err(Complaint::new(
            scalar.span.clone(),
            format!("the baseline `{}`", excerpt(&scalar.text)),
            "`concurrent`, `before`, or `offset` and a time",
        )),
    }
}

fn rollback_rate(source: &str, node: &Node) -> Result<f64, Complaint> {
    let scalar = table::text(node, "`false_rollback_rate`")?;
    let literal = literal::parse(&scalar.text)
        .map_err(|complaint| complaint.moved(|span| scalar.place(source, span)))?;
    match literal.dimension {
        Dimension::Share | Dimension::Plain if literal.value > 0.0 && literal.value < 0.5 => {
            Ok(literal.value)
        }
        Dimension::Share
        | Dimension::Plain
        | Dimension::Time
        | Dimension::Bytes
        | Dimension::PerSecond
        | Dimension::BytesPerSecond
        | Dimension::Factor => Err(Complaint::new(
            scalar.span.clone(),
            format!("`false_rollback_rate` is `{}`", excerpt(&scalar.text)),
            "a share above 0% and below 50%, such as `0.1%`",
        )
        .hint("it is the chance that a healthy release is rolled back by evidence")),
    }
}

fn read_observe(source: &str, node: Option<&Node>, out: &mut Complaints) -> Option<Observe> {
    let defaults = Observe { interval: 5 * SECOND, window: MINUTE, warmup: 30 * SECOND };
    let Some(node) = node else {
        return Some(defaults);
    };
    let table = Table::read(node, &OBSERVE, out)?;
    let mut read = |key: &str, limits, default: Duration| match table.get(key) {
        None => Some(default),
        Some(node) => out.keep(table::duration(source, node, &format!("`{key}`"), limits)),
    };
    let interval = read("interval", SECOND..=MINUTE, defaults.interval);
    let window = read("window", 2 * SECOND..=HOUR, defaults.window);
    let warmup = read("warmup", Duration::ZERO..=HOUR, defaults.warmup);
    let (interval, window, warmup) = (interval?, window?, warmup?);
    if window < 2 * interval {
        let span = table.get("window").or(table.get("interval")).map(|node| node.span.clone());
        out.push(Complaint::new(
            span.unwrap_or(table.span()),
            format!(
                "a window of {} with an interval of {}",
                duration_text(window),
                duration_text(interval)
            ),
            "a `window` of at least two intervals: a rate needs two looks",
        ));
        return None;
    }
    Some(Observe { interval, window, warmup })
}

fn read_promote(source: &str, node: &Node, out: &mut Complaints) -> Option<Promote> {
    let table = Table::read(node, &PROMOTE, out)?;
    let after = table
        .need("after", "after: 15m", out)
        .and_then(|node| out.keep(table::duration(source, node, "`after`", SECOND..=MAX_HOLD)));
    let deadline = match table.get("deadline") {
        None => after.map(|after| 2 * after),
        Some(node) => out.keep(table::duration(source, node, "`deadline`", SECOND..=2 * MAX_HOLD)),
    };
    let otherwise = match table.get("otherwise") {
        None => Some(Otherwise::Hold),
        Some(node) => out.keep(table::choice(
            node,
            "`otherwise`",
            &[
                ("hold", Otherwise::Hold),
                ("rollback", Otherwise::Rollback),
                ("promote", Otherwise::Promote),
            ],
        )),
    };
    let (after, deadline) = (after?, deadline?);
    if after > deadline {
        let span = table.get("deadline").map(|node| node.span.clone());
        out.push(Complaint::new(
            span.unwrap_or(table.span()),
            format!(
                "the hold of {} is longer than the deadline of {}",
                duration_text(after),
                duration_text(deadline)
            ),
            "a `deadline` of at least `after`: a release could never be promoted",
        ));
        return None;
    }
    let false_promotion_rate = FALSE_PROMOTION_RATE;
    Some(Promote { after, deadline, otherwise: otherwise?, false_promotion_rate })
}
