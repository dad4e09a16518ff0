//! The `rules:` of a rule file: conditions with what they lead to, and when each is awake.
//!
//! A rule that could never fire within the analysis (a hold longer than the deadline, a waking
//! time after it) is a fault, not a note: its author believes to be protected by it.

use std::time::Duration;

use super::{
    condition::{self, Length, Tree},
    fault::{Complaint, Complaints, excerpt},
    lint,
    literal::{self, Dimension, duration_text},
    meaning,
    signals::Signals,
    table::{self, Shape, Table},
    tree::{Kind, Node, QUOTE_HINT, Scalar},
};
use crate::engine::rule::{Action, Condition, Rule};

/// Rules in one file: each is judged at every look.
pub(super) const MAX_RULES: usize = 64;
/// Longest reason and runbook link.
pub(super) const MAX_REASON_BYTES: usize = 500;
/// Largest `weight`: the least of two rules then still has a thousandth of the rate.
pub(super) const WEIGHT_MAX: f64 = 1000.0;
/// Longest `after` and `until`.
const MAX_WAKING: Duration = Duration::from_secs(14 * 24 * 3600);

/// What a rule leads to.
pub(super) const THEN: [(&str, Action); 3] =
    [("rollback", Action::Rollback), ("investigate", Action::Investigate), ("ok", Action::Ok)];

pub(super) static RULE: Shape = Shape {
    what: "a rule",
    keys: &["when", "then", "reason", "runbook", "after", "until", "weight", "allow"],
    unbuilt: &[],
};

/// Reads all rules; `deadline` is the analysis's, when it could be read.
pub(super) fn read(
    source: &str,
    node: &Node,
    signals: &mut Signals,
    deadline: Option<Duration>,
    out: &mut Complaints,
) -> Vec<Rule> {
    let Kind::List(items) = &node.kind else {
        out.push(Complaint::new(
            node.span.clone(),
            format!("`rules` was given as {}", table::describe(node)),
            "a list: `- { when: error_rate > 1.5x baseline, then: rollback }`",
        ));
        return Vec::new();
    };
    if items.is_empty() || items.len() > MAX_RULES {
        out.push(
            Complaint::new(
                node.span.clone(),
                format!("`rules` has {} entries", items.len()),
                format!("1 to {MAX_RULES} rules"),
            )
            .hint("without a rule every release would be promoted"),
        );
    }
    let mut rules = Vec::new();
    for item in items.iter().take(MAX_RULES) {
        if let Some(table) = Table::read(item, &RULE, out) {
            rules.extend(Reader { source, table, signals: &mut *signals, deadline, out }.rule());
        }
    }
    rules
}

struct Reader<'t, 'o> {
    source: &'t str,
    table: Table<'t>,
    signals: &'o mut Signals,
    deadline: Option<Duration>,
    out: &'o mut Complaints,
}

impl Reader<'_, '_> {
    fn rule(mut self) -> Option<Rule> {
        let when = self.table.need("when", "when: error_rate > 5% for 2m", self.out);
        let then = self.table.need("then", "then: rollback", self.out);
        let after = self.waking("after");
        let until = self.waking("until");
        self.check_waking(after, until);
        let condition = when.and_then(|node| self.condition(node, after, until));
        let then = then.and_then(|node| self.out.keep(table::choice(node, "`then`", &THEN)));
        let reason = self.reason();
        if let Some(node) = self.table.get("allow") {
            lint::allow::read(node, self.out);
        }
        let (text, when) = condition?;
        let weight = self.weight(&when);
        Some(Rule { text, when, then: then?, reason, after, until, weight })
    }

    /// How much of the false-rollback rate its evidence gets, beside that of the other rules.
    fn weight(&mut self, when: &Condition) -> f64 {
        let Some(node) = self.table.get("weight") else { return 1.0 };
        if !when.clauses().iter().any(|clause| clause.test.is_evidence()) {
            self.out.push(
                Complaint::new(
                    node.span.clone(),
                    "a weight means nothing here: the rule takes none of `false_rollback_rate`",
                    "`weight` only where a clause is judged by evidence",
                )
                .hint("evidence is a comparison without `for`, or a slope"),
            );
        }
        self.out.keep(weight(self.source, node)).unwrap_or(1.0)
    }

    /// The reason, with the runbook's link at its end: it is read where the reason is read.
    fn reason(&mut self) -> Option<String> {
        let reason = self.short_text("reason");
        let runbook = self.short_text("runbook");
        match (reason, runbook) {
            (reason, None) => reason,
            (None, Some(runbook)) => Some(format!("see {runbook}")),
            (Some(reason), Some(runbook)) => Some(format!("{reason}; see {runbook}")),
        }
    }

    fn short_text(&mut self, key: &str) -> Option<String> {
        let scalar = self.table.get(key).map(|node| table::text(node, &format!("`{key}`")))?;
        let scalar = self.out.keep(scalar)?;
        if scalar.text.len() > MAX_REASON_BYTES {
            self.out.push(Complaint::new(
                scalar.span.clone(),
                format!("`{key}` has {} bytes", scalar.text.len()),
                format!("at most {MAX_REASON_BYTES}: it is part of every verdict"),
            ));
        }
        Some(meaning::words(&scalar.text))
    }

    fn waking(&mut self, key: &str) -> Option<Duration> {
        let node = self.table.get(key)?;
        let limits = Duration::ZERO..=MAX_WAKING;
        self.out.keep(table::duration(self.source, node, &format!("`{key}`"), limits))
    }

    fn check_waking(&mut self, after: Option<Duration>, until: Option<Duration>) {
        let at = |key: &str| self.table.get(key).map_or(self.table.span(), |n| n.span.clone());
        if let (Some(after), Some(deadline)) = (after, self.deadline)
            && after >= deadline
        {
            self.out.push(Complaint::new(
                at("after"),
                format!("the rule wakes at {}, when the analysis is over", duration_text(after)),
                format!("less than the deadline of {}", duration_text(deadline)),
            ));
        }
        if let Some(until) = until
            && until <= after.unwrap_or_default()
        {
            self.out.push(Complaint::new(
                at("until"),
                "the rule is never awake: `until` is not later than `after`",
                "`until` later than `after`",
            ));
        }
    }

    fn condition(
        &mut self,
        node: &Node,
        after: Option<Duration>,
        until: Option<Duration>,
    ) -> Option<(String, Condition)> {
        let scalar = self.out.keep(table::text(node, "`when`"))?;
        let place = |complaint: Complaint| complaint.moved(|span| scalar.place(self.source, span));
        let tree = match condition::parse(&scalar.text) {
            Ok(tree) => tree,
            Err(complaint) => {
                self.out.push(place(block_hint(complaint, scalar, self.source)));
                return None;
            }
        };
        let mut complaints = Vec::new();
        let read = meaning::condition(&scalar.text, &tree, self.signals, &mut complaints);
        let end = [until, self.deadline].into_iter().flatten().min();
        if let Some(end) = end {
            let awake = end.saturating_sub(after.unwrap_or_default());
            too_long(&tree, awake, &mut complaints);
        }
        for complaint in complaints {
            self.out.push(place(complaint));
        }
        Some((meaning::words(&scalar.text), read?))
    }
}

fn weight(source: &str, node: &Node) -> Result<f64, Complaint> {
    let scalar = table::text(node, "`weight`")?;
    let literal = literal::parse(&scalar.text)
        .map_err(|complaint| complaint.moved(|span| scalar.place(source, span)))?;
    let fits = literal.value > 0.0 && literal.value <= WEIGHT_MAX;
    if literal.dimension == Dimension::Plain && fits {
        return Ok(literal.value);
    }
    Err(Complaint::new(
        scalar.span.clone(),
        format!("`weight` is `{}`", excerpt(&scalar.text)),
        format!("a plain number above 0 and at most {WEIGHT_MAX}"),
    )
    .hint("`weight: 3` takes three times as much of `false_rollback_rate` as a rule without one"))
}

/// Complains about every `for` that outlasts the time its rule is awake.
fn too_long(tree: &Tree, awake: Duration, out: &mut Vec<Complaint>) {
    match tree {
        Tree::And(parts) | Tree::Or(parts) => {
            parts.iter().for_each(|part| too_long(part, awake, out));
        }
        Tree::Not(part) => too_long(part, awake, out),
        Tree::Clause(clause) => {
            if let Some(hold) = &clause.hold
                && let Length::For(time) = hold.length
                && time > awake
                && !awake.is_zero()
            {
                out.push(Complaint::new(
                    hold.span.clone(),
                    format!(
                        "the clause must hold for {}, and the rule is awake for {}",
                        duration_text(time),
                        duration_text(awake)
                    ),
                    "a shorter `for`, or a later `deadline`",
                ));
            }
        }
    }
}

/// `when: >` begins a folded block in YAML, and its operator is lost without a word; inside braces a
/// comma ends the text.
fn block_hint(complaint: Complaint, scalar: &Scalar, source: &str) -> Complaint {
    if source[..scalar.span.start].trim_end().ends_with(['>', '|']) {
        return complaint.hint(QUOTE_HINT);
    }
    let quoted = source[scalar.span.start..].starts_with(['\'', '"'])
        || source[..scalar.span.start].ends_with(['\'', '"']);
    let cut = scalar.text.contains("field(") && !scalar.text.contains(',');
    if !quoted && cut && source[scalar.span.end..].trim_start().starts_with(',') {
        return complaint.hint(
            "inside `{ }` a comma ends the text: put the condition in single quotes, `when: \
             'field(app, active_connections) > 100'`",
        );
    }
    complaint
}
