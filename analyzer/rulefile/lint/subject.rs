//! What a lint looks at: a good file's typed rules, and where each part of them was written.

use std::ops::Range;

use crate::{
    engine::rule::{Clause, RuleSet},
    rulefile::{
        StatedTraffic,
        condition::{self, Ask, Tree},
        tree::{Kind, Node, Scalar},
    },
    signal::spec::{Reads, Selection, Selector, SignalSpec},
};

/// A file without faults.
pub(in crate::rulefile) struct Subject<'t> {
    pub(in crate::rulefile) source: &'t str,
    pub(in crate::rulefile) root: &'t Node,
    pub(in crate::rulefile) rules: &'t RuleSet,
    pub(in crate::rulefile) specs: &'t [SignalSpec],
    pub(in crate::rulefile) traffic: Option<StatedTraffic>,
}

/// A clause, and where its parts stand in the file.
pub(super) struct Placed<'t> {
    pub(super) clause: &'t Clause,
    pub(super) span: Range<usize>,
    /// Operator and bound, or status.
    pub(super) ask: Range<usize>,
    /// `for` and what follows; the whole clause where there is none.
    pub(super) hold: Range<usize>,
}

impl<'t> Subject<'t> {
    /// The value of a top key, such as `promote`.
    pub(super) fn value(&self, key: &str) -> Option<&'t Node> {
        self.root.entry(key).map(|(_, node)| node)
    }

    /// Where a top key stands; the file's first line where it is left out.
    pub(super) fn key(&self, key: &str) -> Range<usize> {
        self.root.entry(key).map_or(self.root.span.clone(), |(key, _)| key.span.clone())
    }

    /// Where the value of a key below a top key stands: `promote`, `deadline`; where it is left out
    /// the top key.
    pub(super) fn below(&self, top: &str, key: &str) -> Range<usize> {
        let value = self.value(top).and_then(|node| node.entry(key));
        value.map_or_else(|| self.key(top), |(_, node)| node.span.clone())
    }

    /// The value of a rule's key.
    pub(super) fn rule_value(&self, rule: usize, key: &str) -> Option<&'t Node> {
        let Kind::List(items) = &self.value("rules")?.kind else { return None };
        items.get(rule)?.entry(key).map(|(_, node)| node)
    }

    /// Where a rule's condition stands.
    pub(super) fn when(&self, rule: usize) -> Range<usize> {
        let node = self.rule_value(rule, "when");
        node.map_or_else(|| self.key("rules"), |node| node.span.clone())
    }

    /// The line that a rule's condition stands on, from 1.
    pub(super) fn line(&self, rule: usize) -> usize {
        self.source[..self.when(rule).start].matches('\n').count() + 1
    }

    /// A rule's clauses, left to right.
    pub(super) fn clauses(&self, rule: usize) -> Vec<Placed<'t>> {
        let clauses = self.rules.rules[rule].when.clauses();
        let scalar = self.rule_value(rule, "when").and_then(Node::scalar);
        let tree = scalar.and_then(|scalar| condition::parse(&scalar.text).ok());
        let mut written = Vec::new();
        if let Some(tree) = &tree {
            flatten(tree, &mut written);
        }
        let placed = clauses.into_iter().enumerate().map(|(index, clause)| {
            let (Some(scalar), Some(written)) = (scalar, written.get(index)) else {
                let whole = self.when(rule);
                return Placed { clause, span: whole.clone(), ask: whole.clone(), hold: whole };
            };
            let place = |span: &Range<usize>| scalar.place(self.source, span.clone());
            let ask = match &written.ask {
                Ask::Compare { op_span, bound_span, .. } => op_span.start..bound_span.end,
                Ask::Is { span, .. } => span.clone(),
            };
            let hold = written.hold.as_ref().map_or(&written.span, |hold| &hold.span);
            Placed { clause, span: place(&written.span), ask: place(&ask), hold: place(hold) }
        });
        placed.collect()
    }

    /// The definition of a signal: its name, and the mapping; none of one that a rule made.
    pub(super) fn signal(&self, signal: usize) -> Option<(&'t Scalar, &'t Node)> {
        let Kind::Map(entries) = &self.value("signals")?.kind else { return None };
        entries.get(signal).map(|(key, node)| (key, node))
    }

    /// Where the margin of a signal stands: its own, or the one of all.
    pub(super) fn margin(&self, signal: &str) -> Range<usize> {
        let margin = self.value("promote").and_then(|promote| promote.entry("margin"));
        let own = margin.and_then(|(_, margins)| margins.entry(signal));
        own.or(margin).map_or_else(|| self.key("promote"), |(_, node)| node.span.clone())
    }

    /// A signal's name.
    pub(super) fn name(&self, signal: usize) -> &'t str {
        &self.rules.signals[signal].name
    }

    /// The key under which a counter's selector stands.
    pub(super) fn counter_key(&self, signal: usize) -> &'static str {
        let has =
            |key: &&&str| self.signal(signal).is_some_and(|(_, node)| node.entry(key).is_some());
        ["rate", "count"].iter().find(has).copied().unwrap_or("rate")
    }

    /// Every selector, with its signal and the key of the definition under which it stands.
    pub(super) fn selectors(&self) -> Vec<(usize, &'t Selector, &'static str)> {
        let mut all = Vec::new();
        for (index, spec) in self.specs.iter().enumerate() {
            let mut add = |of: &'t Selection, key| {
                all.extend(of.any_of.iter().map(|selector| (index, selector, key)));
            };
            match &spec.reads {
                Reads::Ratio { events, total } => {
                    add(events, "ratio");
                    add(total, "ratio");
                }
                Reads::Counter(of) => add(of, self.counter_key(index)),
                Reads::Restarts(of) => add(of, "restarts"),
                Reads::Histogram { of, .. } => add(of, "of"),
                Reads::Gauge { of, per, .. } => {
                    add(of, "gauge");
                    if let Some(per) = per {
                        add(per, "gauge");
                    }
                }
                Reads::Health(_) | Reads::Answer { .. } | Reads::Up | Reads::Promql(_) => {}
            }
        }
        all
    }

    /// Where a signal's selector says this, or the whole selector under that key of its definition.
    pub(super) fn selector(&self, signal: usize, key: &str, part: &str) -> Range<usize> {
        let Some((name, node)) = self.signal(signal) else { return self.key("signals") };
        let Some((_, value)) = node.entry(key) else { return name.span.clone() };
        let Some(scalar) = value.scalar() else { return value.span.clone() };
        match scalar.text.find(part) {
            Some(at) if !part.is_empty() => scalar.place(self.source, at..at + part.len()),
            Some(_) | None => value.span.clone(),
        }
    }
}

fn flatten<'c>(tree: &'c Tree, out: &mut Vec<&'c condition::Clause>) {
    match tree {
        Tree::Clause(clause) => out.push(clause),
        Tree::And(parts) | Tree::Or(parts) => parts.iter().for_each(|part| flatten(part, out)),
        Tree::Not(part) => flatten(part, out),
    }
}
