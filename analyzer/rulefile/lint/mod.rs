//! Lints: what a good rule file says and its author hardly means. One file per lint.
//!
//! A lint warns and never refuses: what can be judged is judged. It is right nearly always, or it is
//! not a lint; where it is wrong, the file says so by its name under `allow:`, for the whole file or
//! for one rule. Every warning says what comes of it for a release.

mod against_better;
pub(super) mod allow;
mod bucket_without_le;
mod contradiction;
mod counter_as_gauge;
mod deadline_at_hold;
mod duplicate_rule;
mod dwell_of_one_look;
mod evidence_beyond_traffic;
mod fires_after_promotion;
mod fires_when_healthy;
mod forgotten_percent;
mod gauge_as_counter;
mod implies;
mod margin_below_noise;
mod margin_beyond_limit;
mod needless_regex;
mod no_health_rule;
mod no_rollback_rule;
mod pattern_as_text;
mod promotion_beyond_traffic;
mod quantile_of_few;
mod ratio_of_itself;
mod reckon;
mod rollback_on_one_check;
mod shadowed_rule;
mod subject;
mod unused_signal;
mod warmup_outlasts_hold;

use std::ops::Range;

pub(super) use self::subject::Subject;
use super::fault::{Complaint, Complaints, Warning};

/// One thing that is warned of.
pub struct Lint {
    /// Its name, in the brackets of a warning and under `allow:`.
    pub name: &'static str,
    /// What it finds, as a phrase.
    pub what: &'static str,
    /// What comes of it, as sentences.
    pub why: &'static str,
    /// Whether it needs to know the traffic.
    needs_traffic: bool,
    look: fn(&Subject, &mut Findings),
}

/// Every lint, in the order of what goes wrong: first rules that never fire, then those that fire
/// wrongly, promotion, signals, and traffic.
pub static ALL: [&Lint; 26] = [
    &duplicate_rule::LINT,
    &shadowed_rule::LINT,
    &contradiction::LINT,
    &fires_after_promotion::LINT,
    &fires_when_healthy::LINT,
    &against_better::LINT,
    &rollback_on_one_check::LINT,
    &dwell_of_one_look::LINT,
    &no_rollback_rule::LINT,
    &no_health_rule::LINT,
    &warmup_outlasts_hold::LINT,
    &deadline_at_hold::LINT,
    &margin_beyond_limit::LINT,
    &margin_below_noise::LINT,
    &forgotten_percent::LINT,
    &unused_signal::LINT,
    &counter_as_gauge::LINT,
    &gauge_as_counter::LINT,
    &bucket_without_le::LINT,
    &ratio_of_itself::LINT,
    &pattern_as_text::LINT,
    &needless_regex::LINT,
    &promotion_beyond_traffic::LINT,
    &evidence_beyond_traffic::LINT,
    &quantile_of_few::LINT,
    &allow::LINT,
];

/// What one lint has found.
pub(super) struct Findings {
    lint: &'static Lint,
    list: Vec<Finding>,
}

impl Findings {
    /// Warns of a part of the file as a whole.
    fn warn(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        means: impl Into<String>,
        expected: impl Into<String>,
    ) {
        let (message, means, expected) = (message.into(), means.into(), expected.into());
        self.list.push(Finding::new(self.lint, None, span, message, means, expected));
    }

    /// Warns of a rule, by its number in the file.
    fn warn_rule(
        &mut self,
        rule: usize,
        span: Range<usize>,
        message: impl Into<String>,
        means: impl Into<String>,
        expected: impl Into<String>,
    ) {
        let (message, means, expected) = (message.into(), means.into(), expected.into());
        self.list.push(Finding::new(self.lint, Some(rule), span, message, means, expected));
    }
}

/// One warning, and the rule that may allow it.
struct Finding {
    lint: &'static Lint,
    rule: Option<usize>,
    complaint: Complaint,
}

impl Finding {
    fn new(
        lint: &'static Lint,
        rule: Option<usize>,
        span: Range<usize>,
        message: String,
        means: String,
        expected: String,
    ) -> Self {
        let complaint = Complaint {
            warning: Some(Box::new(Warning { lint: lint.name, means })),
            ..Complaint::new(span, message, expected)
        };
        Self { lint, rule, complaint }
    }
}

/// Asks every lint, and leaves out what the file allows.
pub(super) fn run(subject: &Subject) -> Complaints {
    let mut found = Vec::new();
    for lint in ALL {
        let mut findings = Findings { lint, list: Vec::new() };
        (lint.look)(subject, &mut findings);
        found.append(&mut findings.list);
    }
    allow::sift(subject, found)
}
