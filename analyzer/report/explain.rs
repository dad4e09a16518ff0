//! A verdict in one or two sentences. Terminal, page, API and webhook all say these words.

use super::{
    format,
    shape::{ClauseShape, FindingShape, Report},
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
            format!(
                "Nothing fired in {}, the hold of {hold} is over and every signal had enough data.",
                format::duration(report.elapsed_secs)
            )
        }
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
        Verdict::Watching | Verdict::Advance { .. } => watching(rules, report),
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

fn watching(rules: &RuleSet, report: &Report) -> String {
    let hold = rules.promote.after.as_secs_f64();
    if report.elapsed_secs < hold {
        let left = format::duration(hold - report.elapsed_secs);
        let lacking = lacking(report);
        return match lacking.is_empty() {
            true => format!("Nothing fires; {left} of the hold left."),
            false => format!("Nothing fires; {left} of the hold left. {lacking}"),
        };
    }
    format!("The hold is over and promotion waits: {}", shortfall(report))
}

/// What keeps a release from being promoted, in words.
fn shortfall(report: &Report) -> String {
    let lacking = lacking(report);
    if !lacking.is_empty() {
        return lacking;
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
        reasons.push((words(&gap.why, &gap.detail), Vec::new()));
    }
    for finding in report.findings.iter().filter(|finding| finding.state == "not_enough_data") {
        for clause in &finding.clauses {
            let Some(missing) = &clause.missing else { continue };
            let reason = words(&missing.why, &missing.detail);
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

fn words(why: &str, detail: &str) -> String {
    let why = why.replace('_', " ");
    if detail.is_empty() { why } else { format!("{why}: {detail}") }
}

/// A firing rule with its numbers.
fn firing(finding: &FindingShape) -> String {
    let mut sentence = format!("{}: ", finding.rule);
    let firing = finding.clauses.iter().filter(|clause| clause.state == "fires");
    let told: Vec<String> = firing.map(clause_words).collect();
    sentence.push_str(&told.join("; "));
    sentence.push('.');
    if let Some(reason) = &finding.reason {
        sentence.push_str(&format!(" {}.", capitalised(reason.trim_end_matches('.'))));
    }
    sentence
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn clause_words(clause: &ClauseShape) -> String {
    let quantity = |value: f64| format::quantity(value, &clause.unit);
    let estimate = clause.estimate.map_or_else(|| "unknown".to_owned(), quantity);
    let name = &clause.signal;
    let against = match (clause.baseline, clause.bound) {
        (Some(baseline), Some(bound)) => {
            format!(" against {} of the baseline (bound {})", quantity(baseline), quantity(bound))
        }
        (None, Some(bound)) => format!(" (bound {})", quantity(bound)),
        (_, None) => String::new(),
    };
    let progress = format::progress(&clause.progress);
    match clause.progress.kind.as_str() {
        "evidence_decades" => format!(
            "the canary's {name} is {estimate}{against}, with evidence of {progress} after {} requests",
            format::quantity(clause.samples.canary_total, "count"),
        ),
        "held_secs" if clause.unit == "health" && clause.estimate.is_none() => {
            format!("{name} is {} for {progress}", clause.note.as_deref().unwrap_or("not up"))
        }
        "held_secs" => format!("the canary's {name} is {estimate}{against}, held for {progress}"),
        "checks" => {
            format!("{name} is {} for {progress}", clause.note.as_deref().unwrap_or("not up"))
        }
        _ => format!("{name} is {}", format::quantity(clause.progress.value, "count")),
    }
}
