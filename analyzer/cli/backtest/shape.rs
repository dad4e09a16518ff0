//! The JSON shape of a backtest, from which table and page are drawn too. Times are unix seconds,
//! durations seconds, shares 0..1.

use serde::Serialize;

use super::Asked;
use crate::{
    backtest::{
        judging::{Ending, Judged, Lines, Trace},
        outcome::{Agreement, How, Outcome, Placebo, agreement},
        releases::{Known, Release},
    },
    simulation::share::Share,
};

/// Everything that came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Backtested {
    /// Version of this shape.
    pub v: u32,
    /// The rule file.
    pub rules: String,
    /// The service it is for.
    pub service: String,
    /// Host and port of the server.
    pub prometheus: String,
    /// From when.
    pub since: f64,
    /// Until when.
    pub until: f64,
    /// Seconds between two looks that the rule file asks for.
    pub interval_secs: f64,
    /// The hold.
    pub hold_secs: f64,
    /// The deadline.
    pub deadline_secs: f64,
    /// Whether it was interrupted, so that some was not judged.
    pub interrupted: bool,
    /// Releases that there are, judged or not.
    pub releases_known: usize,
    /// Rules that the past cannot answer.
    pub not_judged: Vec<LeftOutShape>,
    /// Releases, oldest first.
    pub releases: Vec<ReleaseShape>,
    /// How releases ended.
    pub verdicts: VerdictsShape,
    /// How that agrees with what is known; null when nothing is.
    pub score: Option<ScoreShape>,
    /// Times without a release; null when none was judged.
    pub placebo: Option<PlaceboShape>,
    /// Hours of releases and windows that were judged.
    pub judged_hours: f64,
    /// Seconds that took, without fetching.
    pub judging_secs: f64,
    /// Their quotient; null when nothing was judged.
    pub judged_hours_per_second: Option<f64>,
}

/// A rule that the past cannot answer.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOutShape {
    /// The rule as written.
    pub rule: String,
    /// The clauses that cannot be answered.
    pub clauses: Vec<String>,
    /// Whether the rest of it was judged.
    pub partly: bool,
    /// Why.
    pub why: &'static str,
}

/// One release.
#[derive(Clone, Debug, Serialize)]
pub struct ReleaseShape {
    /// What was released.
    pub service: String,
    /// Its version.
    pub version: String,
    /// When it began.
    pub started_at: f64,
    /// When it was over; null when it is not known.
    pub ended_at: Option<f64>,
    /// Label matchers of the new version.
    pub canary: String,
    /// Label matchers of the old version; null when none is known.
    pub baseline: Option<String>,
    /// `good`, `bad`, or null when it is not known.
    pub known: Option<&'static str>,
    /// What was noticed.
    pub notes: Vec<String>,
    /// What came of it; null when it was only listed.
    #[serde(flatten)]
    pub result: Option<ResultShape>,
    /// `found`, `missed`, `false_alarm`, `right`, `undecided`; null when nothing is known.
    pub agreement: Option<&'static str>,
    /// Seconds from when it turned bad to its rollback.
    pub delay_secs: Option<f64>,
}

/// What came of one case.
#[derive(Clone, Debug, Serialize)]
pub struct ResultShape {
    /// `rollback`, `promote`, `inconclusive` or `not_judged`.
    pub verdict: &'static str,
    /// Seconds from the start to the verdict; null when it was not judged.
    pub after_secs: Option<f64>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// Looks taken.
    pub looks: u64,
    /// Seconds between two.
    pub look_secs: Option<f64>,
    /// Seconds between two scrapes.
    pub resolution_secs: Option<f64>,
    /// Seconds of the past that noise was measured on.
    pub history_secs: Option<f64>,
    /// `[seconds, share]`: evidence of the rollback rules as a share of what they need.
    pub evidence: Vec<[f64; 2]>,
    /// What both versions were like.
    pub signals: Vec<LinesShape>,
}

/// Both arms' estimates of one signal: `[seconds, value]`.
#[derive(Clone, Debug, Serialize)]
pub struct LinesShape {
    /// Name in the rule file.
    pub name: String,
    /// How to write its numbers.
    pub unit: String,
    /// The new version's.
    pub canary: Vec<[f64; 2]>,
    /// What it was compared with.
    pub baseline: Vec<[f64; 2]>,
}

/// How many releases ended how.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct VerdictsShape {
    /// Would have been rolled back.
    pub rollback: usize,
    /// Would have been promoted.
    pub promote: usize,
    /// No verdict by the deadline.
    pub inconclusive: usize,
    /// Could not be judged.
    pub not_judged: usize,
}

/// How often verdicts agree with what is known.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ScoreShape {
    /// Bad and rolled back.
    pub found: usize,
    /// Bad and promoted.
    pub missed: usize,
    /// Good and rolled back.
    pub false_alarms: usize,
    /// Good and promoted.
    pub right: usize,
    /// Without a verdict.
    pub undecided: usize,
}

/// Times without a release.
#[derive(Clone, Debug, Serialize)]
pub struct PlaceboShape {
    /// Windows that were judged.
    pub windows: usize,
    /// Windows that could not be.
    pub not_judged: usize,
    /// Why the first of them could not be.
    pub not_judged_reason: Option<String>,
    /// Rolled back, wrongly.
    pub rolled_back: ShareShape,
    /// Promoted.
    pub promoted: ShareShape,
    /// No verdict by the deadline.
    pub inconclusive: ShareShape,
    /// What the rule file states about its rules by evidence.
    pub stated: f64,
    /// Whether that could well have given this.
    pub agrees: bool,
    /// Windows in which half of the instances played the canary; in the others it was compared with
    /// itself before.
    pub by_halves: usize,
    /// Rules that rolled back, most often first.
    pub rules: Vec<RuleShape>,
    /// Those that were not promoted, and why.
    pub exceptions: Vec<WindowShape>,
}

/// So many of so many, with an exact 95 % interval.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ShareShape {
    /// How many.
    pub count: usize,
    /// As a share.
    pub share: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A rule that rolled back windows without a release.
#[derive(Clone, Debug, Serialize)]
pub struct RuleShape {
    /// As written.
    pub rule: String,
    /// How often.
    pub count: usize,
}

/// A window without a release.
#[derive(Clone, Debug, Serialize)]
pub struct WindowShape {
    /// Of what.
    pub service: String,
    /// When it began.
    pub started_at: f64,
    /// Its verdict.
    pub verdict: &'static str,
    /// Seconds from the start to the verdict.
    pub after_secs: f64,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Why, in words.
    pub reason: String,
}

impl Backtested {
    pub(super) fn new(asked: &Asked<'_>, outcome: &Outcome) -> Self {
        let backtest = asked.backtest;
        let rules = &backtest.past.rules;
        let left_out = backtest.past.left_out.iter().map(|left| LeftOutShape {
            rule: left.rule.clone(),
            clauses: left.clauses.clone(),
            partly: left.partly,
            why: left.why,
        });
        let releases = outcome.releases.iter().map(|(of, result)| judged_release(of, result));
        let failed = outcome.releases.iter().filter(|(_, result)| result.is_err()).count();
        Self {
            v: 1,
            rules: asked.file.clone(),
            service: rules.service.clone(),
            prometheus: backtest.archivist.server().to_owned(),
            since: backtest.span.after.as_secs_f64(),
            until: backtest.span.until.as_secs_f64(),
            interval_secs: rules.observe.interval.as_secs_f64(),
            hold_secs: rules.promote.after.as_secs_f64(),
            deadline_secs: rules.promote.deadline.as_secs_f64(),
            interrupted: outcome.interrupted,
            releases_known: asked.releases,
            not_judged: left_out.collect(),
            releases: releases.collect(),
            verdicts: VerdictsShape {
                rollback: outcome.ended(Ending::Rollback),
                promote: outcome.ended(Ending::Promote),
                inconclusive: outcome.ended(Ending::Inconclusive),
                not_judged: failed,
            },
            score: outcome.score().map(|score| ScoreShape {
                found: score.found,
                missed: score.missed,
                false_alarms: score.false_alarms,
                right: score.right,
                undecided: score.undecided,
            }),
            placebo: (asked.placebos > 0).then(|| placebo(outcome, rules.false_rollback_rate)),
            judged_hours: outcome.hours(),
            judging_secs: outcome.judging_secs,
            judged_hours_per_second: outcome.hours_per_second(),
        }
    }
}

/// A release that is only listed.
pub(super) fn release(release: &Release) -> ReleaseShape {
    ReleaseShape {
        service: release.service.clone(),
        version: release.version.clone(),
        started_at: release.started.as_secs_f64(),
        ended_at: release.ended.map(|ended| ended.as_secs_f64()),
        canary: release.canary.clone(),
        baseline: release.baseline.clone(),
        known: release.known.map(|known| match known {
            Known::Good => "good",
            Known::Bad { .. } => "bad",
        }),
        notes: release.notes.clone(),
        result: None,
        agreement: None,
        delay_secs: None,
    }
}

fn judged_release(of: &Release, result: &Result<Judged, String>) -> ReleaseShape {
    let agreement = result.as_ref().ok().and_then(|judged| agreement(of, judged));
    ReleaseShape {
        result: Some(result_shape(result)),
        agreement: agreement.map(|agreement| match agreement {
            Agreement::Found(_) => "found",
            Agreement::Missed => "missed",
            Agreement::FalseAlarm => "false_alarm",
            Agreement::Right => "right",
            Agreement::Undecided => "undecided",
        }),
        delay_secs: match agreement {
            Some(Agreement::Found(secs)) => Some(secs),
            Some(
                Agreement::Missed | Agreement::FalseAlarm | Agreement::Right | Agreement::Undecided,
            )
            | None => None,
        },
        ..release(of)
    }
}

fn result_shape(result: &Result<Judged, String>) -> ResultShape {
    match result {
        Ok(judged) => {
            let Trace { evidence, signals } = judged.trace.clone();
            ResultShape {
                verdict: judged.verdict.word(),
                after_secs: Some(judged.secs),
                rule: judged.rule.clone(),
                reason: judged.reason.clone(),
                looks: judged.looks,
                look_secs: Some(judged.step.as_secs_f64()),
                resolution_secs: Some(judged.resolution.as_secs_f64()),
                history_secs: Some(judged.history_secs),
                evidence: rounded(evidence),
                signals: signals.into_iter().map(lines).collect(),
            }
        }
        Err(why) => ResultShape {
            verdict: "not_judged",
            after_secs: None,
            rule: None,
            reason: why.clone(),
            looks: 0,
            look_secs: None,
            resolution_secs: None,
            history_secs: None,
            evidence: Vec::new(),
            signals: Vec::new(),
        },
    }
}

fn lines(lines: Lines) -> LinesShape {
    let Lines { name, unit, canary, baseline } = lines;
    LinesShape { name, unit, canary: rounded(canary), baseline: rounded(baseline) }
}

/// Five digits are more than a drawing shows.
fn rounded(points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    let digits = |value: f64| {
        let power = 10f64.powi(4 - value.abs().log10().floor().clamp(-300.0, 300.0) as i32);
        if value == 0.0 || !power.is_finite() { value } else { (value * power).round() / power }
    };
    points.into_iter().map(|[secs, value]| [secs, digits(value)]).collect()
}

fn placebo(outcome: &Outcome, stated: f64) -> PlaceboShape {
    let share = |ending| share(outcome.placebo_share(ending));
    let rolled_back = outcome.placebo_share(Ending::Rollback);
    let judged =
        || outcome.placebos.iter().filter_map(|one| Some((one, one.result.as_ref().ok()?)));
    let mut faults = outcome.placebos.iter().filter_map(|one| one.result.as_ref().err());
    let first_fault = faults.next().cloned();
    PlaceboShape {
        windows: rolled_back.of,
        not_judged: outcome.placebos.len() - rolled_back.of,
        not_judged_reason: first_fault,
        rolled_back: share(Ending::Rollback),
        promoted: share(Ending::Promote),
        inconclusive: share(Ending::Inconclusive),
        stated,
        agrees: rolled_back.agrees_with_at_most(stated),
        by_halves: judged().filter(|(one, _)| matches!(one.how, How::Halves { .. })).count(),
        rules: outcome
            .placebo_rules()
            .into_iter()
            .map(|(rule, count)| RuleShape { rule: rule.to_owned(), count })
            .collect(),
        exceptions: judged()
            .filter(|(_, judged)| judged.verdict != Ending::Promote)
            .map(|(placebo, judged)| window(placebo, judged))
            .collect(),
    }
}

fn window(placebo: &Placebo, judged: &Judged) -> WindowShape {
    WindowShape {
        service: placebo.window.service.clone(),
        started_at: placebo.window.started.as_secs_f64(),
        verdict: judged.verdict.word(),
        after_secs: judged.secs,
        rule: judged.rule.clone(),
        reason: judged.reason.clone(),
    }
}

fn share(share: Share) -> ShareShape {
    let [low, high] = share.interval();
    ShareShape { count: share.count, share: share.value(), low, high }
}
