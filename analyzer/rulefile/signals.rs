//! The `signals:` of a rule file: what each is read from, and in which unit it is judged.
//!
//! A signal that is faulty is still known by its name, so that the rules that use it are not
//! blamed for it.

use std::ops::Range;

use super::{
    fault::{Complaint, Complaints, excerpt},
    health_target,
    literal::{self, Dimension},
    selector::{self, Budget},
    table::{self, Shape, Table},
    tree::{Kind, Node, Scalar},
    units::Units,
};
use crate::{
    engine::rule::{Better, SignalKind, Unit},
    signal::spec::{HealthTarget, Reads, Reduce, Selection, SignalSpec},
};

/// Signals in one file: each costs a series pair per look.
pub(super) const MAX_SIGNALS: usize = 64;
/// Longest signal name: it appears in every finding.
const MAX_NAME_BYTES: usize = 64;
/// Share of events below which a comparison never fires, unless the file says otherwise.
const FLOOR_DEFAULT: f64 = 0.001;

pub(super) const KINDS: [&str; 9] =
    ["ratio", "rate", "count", "quantile", "gauge", "health", "restarts", "up", "promql"];
/// Keys beside a kind, and the kinds that they mean something to.
pub(super) const OPTIONS: [(&str, &[&str]); 6] = [
    ("floor", &["ratio"]),
    ("of", &["quantile"]),
    ("instances", &["gauge"]),
    ("limit", &["gauge", "promql"]),
    ("better", &["ratio", "rate", "gauge", "promql"]),
    ("optional", &["ratio", "rate", "count", "quantile", "gauge", "restarts"]),
];
/// How the levels of several instances become one.
pub(super) const INSTANCES: [(&str, Reduce); 4] =
    [("max", Reduce::Max), ("min", Reduce::Min), ("mean", Reduce::Mean), ("sum", Reduce::Sum)];
/// Which way is good.
pub(super) const BETTER: [(&str, Better); 2] =
    [("lower", Better::Lower), ("higher", Better::Higher)];
/// Words that the condition grammar needs for itself.
pub(super) const RESERVED: [&str; 8] = ["and", "or", "not", "is", "for", "baseline", "x", "checks"];

pub(super) static SIGNAL: Shape = Shape {
    what: "a signal",
    keys: &[
        "ratio",
        "floor",
        "rate",
        "count",
        "quantile",
        "of",
        "gauge",
        "instances",
        "limit",
        "health",
        "restarts",
        "up",
        "promql",
        "better",
        "optional",
    ],
    unbuilt: &[
        ("native", "a `quantile` reads native histograms as it reads classic ones"),
        ("summary", "a `quantile` reads the quantile of that number that a summary tells"),
    ],
};

/// In which unit a signal's numbers are, which decides what may be written beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// A share of 1.
    Share,
    /// The share of an arm's instances, never beyond 0 to 1.
    Instances,
    /// Events a second.
    PerSecond,
    /// Whole numbers.
    Count,
    /// Time, in units of this many seconds.
    Time {
        /// 1 for `_seconds`, 0.001 for `_milliseconds`.
        unit_secs: f64,
    },
    /// Bytes.
    Bytes,
    /// A plain number.
    Plain,
    /// A histogram whose name does not say its unit: plain numbers or bytes.
    PlainOrBytes,
    /// Whatever an expression gives: any unit, taken in its base.
    Any,
    /// A status; only its answer time is a number.
    Health,
}

impl Scale {
    /// The unit that surfaces write the signal's numbers in.
    pub(super) fn unit(self) -> Unit {
        match self {
            Scale::Share | Scale::Instances => Unit::Share,
            Scale::PerSecond => Unit::PerSecond,
            Scale::Count => Unit::Count,
            Scale::Time { unit_secs: 1.0 } => Unit::Seconds,
            Scale::Bytes => Unit::Bytes,
            Scale::Health => Unit::Health,
            Scale::Time { .. } | Scale::Plain | Scale::PlainOrBytes | Scale::Any => Unit::Number,
        }
    }
}

/// A signal as the rules see it.
pub(super) struct Known {
    pub(super) name: String,
    /// None when its definition is faulty.
    pub(super) meaning: Option<(SignalKind, Scale)>,
    pub(super) better: Better,
    /// Whether a service may do without it.
    pub(super) optional: bool,
    /// Which endpoint it asks, when it is a health signal.
    pub(super) health: Option<HealthTarget>,
}

/// All signals of a file.
#[derive(Default)]
pub(super) struct Signals {
    /// As the rules see them: those of `signals:`, then those that rules make of health answers.
    pub(super) known: Vec<Known>,
    /// What each is read from; complete, and of the same order, when nothing was complained about.
    pub(super) specs: Vec<SignalSpec>,
    /// Which of them rules made of health answers.
    pub(super) answers: Vec<Answer>,
}

impl Signals {
    /// Those that stand under `signals:`.
    pub(super) fn named(&self) -> &[Known] {
        &self.known[..self.known.len() - self.answers.len()]
    }
}

/// A signal that a rule made of a health answer.
pub(super) struct Answer {
    /// How the rule writes it.
    pub(super) written: String,
    /// Which of several instances counts.
    pub(super) reduce: Reduce,
    /// Where it is among the signals.
    pub(super) index: usize,
}

struct Defined {
    kind: SignalKind,
    scale: Scale,
    reads: Reads,
}

/// What may be said beside any kind that it means something to.
struct Manner {
    better: Better,
    optional: bool,
}

/// Reads all signals. The specs are complete only when nothing was complained about.
pub(super) fn read(source: &str, node: &Node, out: &mut Complaints) -> Signals {
    let mut signals = Signals::default();
    let Signals { known, specs, .. } = &mut signals;
    let Kind::Map(entries) = &node.kind else {
        out.push(Complaint::new(
            node.span.clone(),
            format!("`signals` was given as {}", table::describe(node)),
            "a mapping of names to signals: `error_rate: { ratio: 'errors / requests' }`",
        ));
        return signals;
    };
    if entries.is_empty() || entries.len() > MAX_SIGNALS {
        out.push(Complaint::new(
            node.span.clone(),
            format!("`signals` has {} entries", entries.len()),
            format!("1 to {MAX_SIGNALS} signals"),
        ));
    }
    let mut budget = Budget::new();
    for (key, value) in entries.iter().take(MAX_SIGNALS) {
        if known.iter().any(|earlier: &Known| earlier.name == key.text) {
            out.push(table::twice(key));
            continue;
        }
        out.keep(check_name(key));
        let defined = Table::read(value, &SIGNAL, out)
            .and_then(|table| Definition { source, table, out, budget: &mut budget }.read());
        let meaning = defined.as_ref().map(|(defined, _)| (defined.kind, defined.scale));
        let manner = defined.as_ref().map(|(_, manner)| (manner.better, manner.optional));
        let (better, optional) = manner.unwrap_or((Better::Lower, false));
        let health = defined.as_ref().and_then(|(defined, _)| match &defined.reads {
            Reads::Health(target) => Some(target.clone()),
            _ => None,
        });
        known.push(Known { name: key.text.clone(), meaning, better, optional, health });
        if let Some((defined, _)) = defined {
            specs.push(SignalSpec { name: key.text.clone(), reads: defined.reads });
        }
    }
    signals
}

fn check_name(key: &Scalar) -> Result<(), Complaint> {
    let name = &key.text;
    let complain = |message: String| {
        Err(Complaint::new(
            key.span.clone(),
            message,
            format!("a name of letters, digits and `_`, at most {MAX_NAME_BYTES} long"),
        ))
    };
    if RESERVED.contains(&name.as_str()) {
        return complain(format!("`{name}` is a word of the condition language"));
    }
    let letters = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !letters || name.len() > MAX_NAME_BYTES {
        return complain(format!("`{}` cannot be the name of a signal", excerpt(name)));
    }
    Ok(())
}

struct Definition<'t, 'o> {
    source: &'t str,
    table: Table<'t>,
    out: &'o mut Complaints,
    budget: &'o mut Budget,
}

impl<'t> Definition<'t, '_> {
    fn read(mut self) -> Option<(Defined, Manner)> {
        let kinds: Vec<(&str, &Scalar)> =
            self.table.keys().filter(|(name, _)| KINDS.contains(name)).collect();
        let [(kind, _)] = kinds[..] else {
            match kinds.get(1) {
                // What the refused key said was perhaps the kind.
                None if self.table.has_refused() => {}
                None => self.out.push(Complaint::new(
                    self.table.span(),
                    "a signal that does not say what it is",
                    format!("one of {}", table::list(&KINDS)),
                )),
                Some((second, key)) => self.out.push(
                    Complaint::new(
                        key.span.clone(),
                        format!("a signal that is both `{}` and `{second}`", kinds[0].0),
                        "one kind",
                    )
                    .hint("give each quantity a name of its own"),
                ),
            }
            return None;
        };
        let options_fit = self.check_options(kind);
        let value = self.table.get(kind)?;
        let defined = match kind {
            "ratio" => self.ratio(value),
            "rate" => self.counter(value, SignalKind::Rate, Scale::PerSecond),
            "count" => self.counter(value, SignalKind::Count, Scale::Count),
            "quantile" => self.quantile(value),
            "gauge" => self.gauge(value),
            "health" => self.health(value),
            "restarts" => {
                let of = self.selection(value, "`restarts`")?;
                Some(Defined {
                    kind: SignalKind::Restarts,
                    scale: Scale::Count,
                    reads: Reads::Restarts(of),
                })
            }
            "up" => self.up(value),
            _ => self.promql(value),
        };
        let manner = self.manner(kind);
        defined.filter(|_| options_fit).zip(manner)
    }

    fn check_options(&mut self, kind: &str) -> bool {
        let mut fit = true;
        for (name, key) in self.table.keys() {
            let Some((_, kinds)) = OPTIONS.iter().find(|(option, _)| *option == name) else {
                continue;
            };
            if !kinds.contains(&kind) {
                fit = false;
                self.out.push(Complaint::new(
                    key.span.clone(),
                    format!("`{name}` means nothing to a `{kind}`"),
                    format!("`{name}` only beside {}", table::list(kinds)),
                ));
            }
        }
        fit
    }

    fn manner(&mut self, kind: &str) -> Option<Manner> {
        let better = match self.table.get("better") {
            None if kind == "up" => Some(Better::Higher),
            None => Some(Better::Lower),
            Some(node) => self.out.keep(table::choice(node, "`better`", &BETTER)),
        };
        let optional = match self.table.get("optional") {
            None => Some(false),
            Some(node) => self.out.keep(table::choice(
                node,
                "`optional`",
                &[("true", true), ("false", false)],
            )),
        };
        Some(Manner { better: better?, optional: optional? })
    }

    fn ratio(&mut self, value: &'t Node) -> Option<Defined> {
        let floor = match self.table.get("floor") {
            None => Some(FLOOR_DEFAULT),
            Some(node) => self.out.keep(share(self.source, node, "`floor`", 0.0..=0.5)),
        };
        let (events, total) = self.selectors(value, "`ratio`", selector::quotient)?;
        Some(Defined {
            kind: SignalKind::Ratio { floor: floor? },
            scale: Scale::Share,
            reads: Reads::Ratio { events, total },
        })
    }

    fn counter(&mut self, value: &'t Node, kind: SignalKind, scale: Scale) -> Option<Defined> {
        let of = self.selection(value, "a counter")?;
        Some(Defined { kind, scale, reads: Reads::Counter(of) })
    }

    fn quantile(&mut self, value: &'t Node) -> Option<Defined> {
        let q = table::text(value, "`quantile`").and_then(|scalar| {
            let number = literal::parse(&scalar.text).ok();
            let q = number.filter(|number| number.dimension == Dimension::Plain).map(|n| n.value);
            q.filter(|q| *q > 0.0 && *q < 1.0).ok_or_else(|| {
                Complaint::new(
                    scalar.span.clone(),
                    format!("the quantile `{}`", excerpt(&scalar.text)),
                    "a number between 0 and 1, such as `0.95`",
                )
                .hint_if(percent_hint(&scalar.text))
            })
        });
        let q = self.out.keep(q);
        let node = self.table.need("of", "of: http_request_duration_seconds", self.out)?;
        let of = self.selection(node, "`of`")?;
        let checked = check_histogram(&of, node.span.clone());
        let scale = self.out.keep(checked)?;
        let q = q?;
        let reads = Reads::Histogram { of, q };
        Some(Defined { kind: SignalKind::Quantile { q }, scale, reads })
    }

    fn gauge(&mut self, value: &'t Node) -> Option<Defined> {
        let reduce = match self.table.get("instances") {
            None => Some(Reduce::Max),
            Some(node) => self.out.keep(table::choice(node, "`instances`", &INSTANCES)),
        };
        let (of, per) = self.selectors(value, "`gauge`", selector::level)?;
        let scale = match per {
            Some(_) => Scale::Share,
            None => self.out.keep(common_scale(&of, value.span.clone(), Scale::Plain))?,
        };
        let whole = per.is_some().then_some(1.0);
        let kind = SignalKind::Gauge { limit: self.limit(scale)?.or(whole) };
        Some(Defined { kind, scale, reads: Reads::Gauge { of, per, reduce: reduce? } })
    }

    fn health(&mut self, value: &'t Node) -> Option<Defined> {
        let target = table::text(value, "`health`").and_then(health_target::read);
        let reads = Reads::Health(self.out.keep(target)?);
        Some(Defined { kind: SignalKind::Health, scale: Scale::Health, reads })
    }

    /// The share of the arm's instances that answer when they are scraped.
    fn up(&mut self, value: &'t Node) -> Option<Defined> {
        let scalar = self.out.keep(table::text(value, "`up`"))?;
        if scalar.text != "true" {
            self.out.push(
                Complaint::new(
                    scalar.span.clone(),
                    format!("`up` is `{}`", excerpt(&scalar.text)),
                    "`up: true`: the share of the instances whose scrape answers",
                )
                .hint("which instances there are is said with the release, not in a rule file"),
            );
            return None;
        }
        let kind = SignalKind::Gauge { limit: None };
        Some(Defined { kind, scale: Scale::Instances, reads: Reads::Up })
    }

    fn promql(&mut self, value: &'t Node) -> Option<Defined> {
        let text = self.selectors(value, "`promql`", selector::expression)?;
        let kind = SignalKind::Gauge { limit: self.limit(Scale::Any)? };
        Some(Defined { kind, scale: Scale::Any, reads: Reads::Promql(text) })
    }

    /// Where a level ends, when that is said; none when it is said wrongly.
    fn limit(&mut self, scale: Scale) -> Option<Option<f64>> {
        let Some(node) = self.table.get("limit") else { return Some(None) };
        let scalar = self.out.keep(table::text(node, "`limit`"))?;
        let kind = SignalKind::Gauge { limit: None };
        let read = literal::parse(&scalar.text)
            .map_err(|complaint| complaint.moved(|span| scalar.place(self.source, span)))
            .and_then(|literal| Units { name: "limit", kind, scale }.in_unit(literal, &scalar.span))
            .and_then(|limit| match limit > 0.0 {
                true => Ok(limit),
                false => Err(Complaint::new(
                    scalar.span.clone(),
                    "a level that ends at zero",
                    "a limit above zero, such as `512MiB`",
                )),
            });
        self.out.keep(read).map(Some)
    }

    fn selection(&mut self, node: &'t Node, what: &str) -> Option<Selection> {
        self.selectors(node, what, selector::selection)
    }

    fn selectors<T>(
        &mut self,
        node: &'t Node,
        what: &str,
        read: impl FnOnce(&str, &mut Budget) -> Result<T, Complaint>,
    ) -> Option<T> {
        let scalar = self.out.keep(table::text(node, what))?;
        let read = read(&scalar.text, self.budget)
            .map_err(|complaint| complaint.moved(|span| scalar.place(self.source, span)));
        self.out.keep(read)
    }
}

/// A share of 1, in percent or plain.
pub(super) fn share(
    source: &str,
    node: &Node,
    what: &str,
    limits: std::ops::RangeInclusive<f64>,
) -> Result<f64, Complaint> {
    let scalar = table::text(node, what)?;
    let literal = literal::parse(&scalar.text)
        .map_err(|complaint| complaint.moved(|span| scalar.place(source, span)))?;
    let fits = matches!(literal.dimension, Dimension::Share | Dimension::Plain)
        && limits.contains(&literal.value);
    if fits {
        return Ok(literal.value);
    }
    Err(Complaint::new(
        scalar.span.clone(),
        format!("{what} is `{}`", excerpt(&scalar.text)),
        format!(
            "a share from {}% to {}%, such as `0.1%`",
            limits.start() * 100.0,
            limits.end() * 100.0
        ),
    )
    .hint_if(percent_hint(&scalar.text)))
}

/// `95` and `95%` for 0.95, `5` for 5%.
fn percent_hint(text: &str) -> Option<String> {
    let literal = literal::parse(text).ok()?;
    match literal.dimension {
        Dimension::Plain if literal.value > 1.0 && literal.value < 100.0 => {
            Some(format!("{text} percent is `{}`", literal::short(literal.value / 100.0)))
        }
        Dimension::Share if literal.value < 1.0 => {
            Some(format!("as a plain number it is `{}`", literal::short(literal.value)))
        }
        _ => None,
    }
}

fn check_histogram(of: &Selection, span: Range<usize>) -> Result<Scale, Complaint> {
    for selector in &of.any_of {
        if let Some(name) = selector.name.strip_suffix("_bucket") {
            return Err(Complaint::new(
                span,
                format!("`{}` names the buckets", excerpt(&selector.name)),
                format!("the histogram itself: `{}`", excerpt(name)),
            ));
        }
        if selector.matchers.iter().any(|m| m.label == "quantile" || m.label == "le") {
            return Err(Complaint::new(
                span,
                "a matcher on `quantile` or `le` picks a part of a metric",
                "the histogram or summary itself",
            )
            .hint("of a summary the quantile that `quantile:` names is read"));
        }
    }
    common_scale(of, span, Scale::PlainOrBytes)
}

/// The unit that metric names end in; alternatives must agree.
fn common_scale(of: &Selection, span: Range<usize>, unnamed: Scale) -> Result<Scale, Complaint> {
    let scale_of = |name: &str| {
        if name.ends_with("_seconds") {
            Scale::Time { unit_secs: 1.0 }
        } else if name.ends_with("_milliseconds") || name.ends_with("_ms") {
            Scale::Time { unit_secs: 0.001 }
        } else if name.ends_with("_bytes") {
            Scale::Bytes
        } else if name.ends_with("_ratio") {
            Scale::Share
        } else {
            unnamed
        }
    };
    let names = of.names();
    let scale = names.first().map_or(unnamed, |name| scale_of(name));
    match names.iter().find(|name| scale_of(name) != scale) {
        None => Ok(scale),
        Some(other) => Err(Complaint::new(
            span,
            format!("`{}` and `{}` are in different units", excerpt(names[0]), excerpt(other)),
            "alternatives whose names end in the same unit",
        )
        .hint("make two signals of them: a limit cannot hold in both units")),
    }
}
