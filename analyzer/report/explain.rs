//! A verdict in one or two sentences. Terminal, page, API and webhook all say these words.

use super::{
    format, proofs,
    shape::{ClauseShape, FindingShape, Report},
    words,
};
use crate::engine::{
    rule::RuleSet,
    verdict::{Step, Verdict},
};

/// Why the verdict is what it is.
pub fn reason(rules: &RuleSet, step: &Step, report: &Report) -> String {
    match step.verdict {
        Verdict::Rollback { rule } | Verdict::Investigate { rule } => {
            firing(&report.findings[rule])
        }
        Verdict::Promote => {
            let hold = format::duration(rules.promote.after.as_secs_f64());
            let shown = match proofs::shown(report) {
                Some(shown) => shown,
                None => "No margin was asked for, so nothing more was shown.".to_owned(),
            };
            format!(
                "Nothing fired in {}, the hold of {hold} is over and every signal had enough data. \
                 {shown}",
                format::duration(report.elapsed_secs)
            )
        }
        Verdict::Advance { to } => advance(rules, to, report),
        Verdict::Inconclusive { otherwise } if report.findings.len() < rules.rules.len() => {
            format!(
                "Judging this look failed inside rollgate, so nothing is concluded. The rule file says: \
             {}.",
                otherwise
            )
        }
        Verdict::Inconclusive { otherwise } => format!(
            "The deadline of {} passed without enough to promote or to roll back: {} The rule file \
             says: {}.",
            format::duration(rules.promote.deadline.as_secs_f64()),
            shortfall(report),
            otherwise,
        ),
        Verdict::Watching => watching(rules, step, report),
    }
}

/// Why a recording or a job that ended without a final verdict is inconclusive.
pub fn ended_early(report: &Report, hold_secs: f64) -> String {
    let lacking = if report.elapsed_secs < hold_secs {
        format!("the hold of {} was not over.", format::duration(hold_secs))
    } else {
        shortfall(report)
    };
    format!("It ended after {}: {lacking}", format::duration(report.elapsed_secs))
}

/// Why a release goes on to its next step.
fn advance(rules: &RuleSet, to: usize, report: &Report) -> String {
    let weight = |step: usize| {
        let weight = rules.steps.get(step).map_or(0.0, |step| step.weight);
        format::quantity(weight, "share")
    };
    let shown = proofs::shown(report).map(|shown| format!(" {shown}"));
    format!(
        "Nothing fires and the hold of step {to} of {} ({} of the traffic) is over.{} Go on to {}.",
        rules.steps.len(),
        weight(to.saturating_sub(1)),
        shown.unwrap_or_default(),
        weight(to),
    )
}

fn watching(rules: &RuleSet, step: &Step, report: &Report) -> String {
    let left = step.hold_left.as_secs_f64();
    let of = match rules.steps.len() {
        0 => "the hold".to_owned(),
        steps => format!("the hold of step {} of {steps}", step.release_step + 1),
    };
    if left > 0.0 {
        let mut sentence = format!("Nothing fires; {} of {of} left.", format::duration(left));
        let proofs =
            if proofs::outlast(report, left) { proofs::pending(report) } else { "".into() };
        for more in [lacking(report), proofs].iter().filter(|more| !more.is_empty()) {
            sentence.push_str(&format!(" {more}"));
        }
        return sentence;
    }
    let goal =
        if step.release_step + 1 < rules.steps.len() { "the next step" } else { "promotion" };
    format!("{} is over and {goal} waits: {}", capitalised(&of), shortfall(report))
}

/// What keeps a release from being promoted, in words.
fn shortfall(report: &Report) -> String {
    let told = [lacking(report), proofs::pending(report)];
    let told: Vec<String> = told.into_iter().filter(|told| !told.is_empty()).collect();
    if !told.is_empty() {
        return told.join(" ");
    }
    let investigated = report
        .findings
        .iter()
        .find(|finding| finding.then == "investigate" && finding.state == "fires");
    match investigated {
        Some(finding) => format!("{} {}", firing(finding), "It asks for a person's eye."),
        None => "nothing fires.".to_owned(),
    }
}

/// Missing data, rule by rule; empty when there is none. Rules that lack the same are named once.
fn lacking(report: &Report) -> String {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    if let Some(gap) = &report.gap {
        reasons.push((missing_words(&gap.why, &gap.detail), Vec::new()));
    }
    for finding in report.findings.iter().filter(|finding| finding.state == "not_enough_data") {
        for clause in &finding.clauses {
            let Some(missing) = &clause.missing else { continue };
            let reason = missing_words(&missing.why, &missing.detail);
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, signals)) if signals.contains(&clause.signal.as_str()) => {}
                Some((_, signals)) => signals.push(&clause.signal),
                None => reasons.push((reason, vec![&clause.signal])),
            }
        }
    }
    let sentences: Vec<String> = reasons
        .into_iter()
        .map(|(reason, signals)| match signals.is_empty() {
            true => format!("{reason}."),
            false => format!(
                "{} {} not enough data ({reason}).",
                signals.join(", "),
                if signals.len() == 1 { "has" } else { "have" },
            ),
        })
        .collect();
    sentences.join(" ")
}

/// Why there is no value: `scrape failed: 10.0.0.7:8080: connection refused`.
pub fn missing_words(why: &str, detail: &str) -> String {
    let why = why.replace('_', " ");
    if detail.is_empty() { why } else { format!("{why}: {detail}") }
}

/// A firing rule with its numbers: what is the matter, who is to blame, how sure that is.
fn firing(finding: &FindingShape) -> String {
    let firing: Vec<&ClauseShape> =
        finding.clauses.iter().filter(|clause| clause.state == "fires").collect();
    let told: Vec<String> = firing.iter().map(|clause| clause_words(clause)).collect();
    let mut sentence = format!("{}: {}.", finding.rule, told.join("; "));
    for clause in firing {
        if let Some(blame) = &clause.blame {
            let blame = capitalised(&words::blame(blame));
            sentence.push_str(&format!(" {blame}."));
        }
        if let Some(sure) = evidence_words(clause) {
            sentence.push_str(&format!(" {sure}."));
        }
    }
    if let Some(reason) = &finding.reason {
        sentence.push_str(&format!(" {}.", capitalised(reason.trim_end_matches('.'))));
    }
    sentence
}

/// How sure a clause by evidence is, and after how much of it.
fn evidence_words(clause: &ClauseShape) -> Option<String> {
    if clause.progress.kind != "evidence_decades" {
        return None;
    }
    let evidence = format!("Evidence of {}", format::progress(&clause.progress));
    let total = clause.samples.canary_total;
    // Of a rate the total is time, and a level has none.
    Some(match clause.unit.as_str() {
        "share" | "seconds" if total > 0.0 => {
            format!("{evidence} after {} requests", format::quantity(total, "count"))
        }
        _ => evidence,
    })
}

pub(super) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// One firing clause without a full stop.
fn clause_words(clause: &ClauseShape) -> String {
    let name = &clause.signal;
    let progress = format::progress(&clause.progress);
    match clause.progress.kind.as_str() {
        "evidence_decades" => compared_words(clause),
        "held_secs" if clause.unit == "health" && clause.estimate.is_none() => {
            format!("{name} is {} for {progress}", clause.note.as_deref().unwrap_or("not up"))
        }
        "held_secs" => format!("{}, held for {progress}", compared_words(clause)),
        "checks" => {
            format!("{name} is {} for {progress}", clause.note.as_deref().unwrap_or("not up"))
        }
        _ => format!("{name} is {}", format::quantity(clause.progress.value, "count")),
    }
}

/// The canary's number against what it is held to.
fn compared_words(clause: &ClauseShape) -> String {
    let (name, unit) = (&clause.signal, &clause.unit);
    let quantity = |value: f64| format::quantity(value, unit);
    let is_slope = words::is_slope(clause);
    let mut sentence = match clause.estimate {
        Some(slope) if is_slope && slope < 0.0 => {
            format!("the canary's {name} falls by {}", quantity(-slope))
        }
        Some(slope) if is_slope => format!("the canary's {name} grows by {}", quantity(slope)),
        Some(estimate) => format!("the canary's {name} is {}", quantity(estimate)),
        None => format!("the canary's {name} is unknown"),
    };
    if let Some(baseline) = clause.baseline {
        sentence.push_str(&format!(" against {} of the baseline", quantity(baseline)));
    }
    match (&clause.effect, clause.bound) {
        // The factor says it, and what it has to be is in the rule.
        (Some(effect), _) if matches!(effect.kind.as_str(), "rate_ratio" | "quantile_ratio") => {
            sentence.push_str(&format!(" ({})", words::effect(effect, unit)));
        }
        (effect, Some(bound)) => {
            sentence.push_str(&format!(" (bound {}", quantity(bound)));
            if let Some(effect) = effect {
                let what = if effect.kind == "sign_share" { "; beyond it at " } else { "; " };
                sentence.push_str(&format!("{what}{}", words::effect(effect, unit)));
            }
            sentence.push(')');
        }
        (_, None) => {}
    }
    // Elsewhere a note is for who looks closer; here it is what the clause is about.
    let is_on_most = clause.clause.contains("on most instances");
    if let Some(note) = clause.note.as_ref().filter(|_| is_slope || is_on_most) {
        sentence.push_str(&format!(", {note}"));
    }
    sentence
}
