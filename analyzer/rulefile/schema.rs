//! The top level of a rule file and `observe:`, with their defaults.
//!
//! Version 1. A later version of the shape gets a number of its own; a file of an unknown version
//! is refused whole, because its keys may mean something else.

use std::time::Duration;

use super::{
    fault::{Complaint, Complaints, excerpt},
    lint,
    literal::{self, Dimension, duration_text},
    meaning, release, rules,
    signals::{self, Known, Signals},
    table::{self, Shape, Table},
    traffic::{self, StatedTraffic},
    tree::{self, Kind, Node},
};
use crate::{
    engine::rule::{Baseline, Observe, RuleSet, Signal},
    signal::spec::SignalSpec,
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Longest hold; the deadline may be twice that.
pub(super) const MAX_HOLD: Duration = Duration::from_secs(7 * 24 * 3600);
/// Probability that a healthy release is rolled back by evidence, unless the file says otherwise.
const FALSE_ROLLBACK_RATE: f64 = 0.001;
/// Longest `service`.
pub(super) const MAX_SERVICE_BYTES: usize = 200;

pub(super) static FILE: Shape = Shape {
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
        "steps",
        "baseline",
        "allow",
    ],
    unbuilt: &[],
};
pub(super) static OBSERVE: Shape = Shape {
    what: "`observe`",
    keys: &["interval", "window", "warmup", "traffic", "baseline_traffic"],
    unbuilt: &[],
};

/// What a whole file says.
pub(super) struct Read {
    pub(super) rules: RuleSet,
    pub(super) specs: Vec<SignalSpec>,
    pub(super) traffic: Option<StatedTraffic>,
}

/// Reads the whole file. What is returned is complete only when nothing was complained about.
pub(super) fn read(source: &str, root: &Node, out: &mut Complaints) -> Option<Read> {
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
    let traffic = traffic::read(source, table.get("observe"), table.get("steps").is_some(), out);
    if let Some(node) = table.get("allow") {
        lint::allow::read(node, out);
    }
    let false_rollback_rate = match table.get("false_rollback_rate") {
        None => Some(FALSE_ROLLBACK_RATE),
        Some(node) => out.keep(chance(
            source,
            node,
            "`false_rollback_rate`",
            ("0.1%", "it is the chance that a healthy release is rolled back by evidence"),
        )),
    };
    let (promote, steps) = (table.get("promote"), table.get("steps"));
    let release = match promote.or(steps) {
        None => {
            table.need("promote", "promote: { after: 15m, deadline: 30m }", out);
            None
        }
        Some(_) => release::read(source, promote, steps, out),
    };
    let baseline = match table.get("baseline") {
        None => Some(Baseline::Concurrent),
        Some(node) => out.keep(release::baseline(node)),
    };
    let signals = table.need("signals", "signals: { app: { health: /health } }", out);
    let mut signals = signals.map(|node| signals::read(source, node, out)).unwrap_or_default();
    let deadline = release.as_ref().map(|(promote, _)| promote.deadline);
    let rules = table.need("rules", "rules: [{ when: app is down, then: rollback }]", out);
    let rules = rules.map(|node| rules::read(source, node, &mut signals, deadline, out));
    let Signals { known, specs, .. } = signals;
    let mut signals: Vec<Signal> = known
        .iter()
        .filter_map(|known| {
            let (kind, scale) = known.meaning?;
            let Known { name, better, optional, .. } = known;
            let (name, better, optional) = (name.clone(), *better, *optional);
            Some(Signal { name, kind, unit: scale.unit(), better, margin: None, optional })
        })
        .collect();
    // Of a signal that is faulty there is nothing to hold a margin against.
    if let (Some(node), Some(rules)) = (promote, &rules)
        && signals.len() == known.len()
    {
        release::margins(source, node, &known, rules, &mut signals, out);
    }
    let (promote, steps) = release?;
    let set = RuleSet {
        service: service?,
        signals,
        rules: rules?,
        observe: observe?,
        false_rollback_rate: false_rollback_rate?,
        promote,
        steps,
        baseline: baseline?,
    };
    Some(Read { rules: set, specs, traffic })
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

/// A chance, with an example of one and what it is the chance of.
pub(super) fn chance(
    source: &str,
    node: &Node,
    what: &str,
    (example, hint): (&str, &str),
) -> Result<f64, Complaint> {
    let scalar = table::text(node, what)?;
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
        | Dimension::SharePerSecond
        | Dimension::TimePerSecond
        | Dimension::Factor => Err(Complaint::new(
            scalar.span.clone(),
            format!("{what} is `{}`", excerpt(&scalar.text)),
            format!("a share above 0% and below 50%, such as `{example}`"),
        )
        .hint(hint)),
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
