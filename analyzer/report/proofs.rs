//! Promotion in words: what was shown, what is not shown yet and how long that would take.

use super::{
    explain::capitalised,
    format,
    shape::{Report, SignalShape},
    words,
};
use crate::engine::verdict::DOUBT_DECADES;

/// What was shown: `Shown: error_rate within 2x of the baseline or below 1 %, p95_latency ...`.
pub fn shown(report: &Report) -> Option<String> {
    let told: Vec<String> = report
        .signals
        .iter()
        .filter(|signal| signal.proof.as_ref().is_some_and(|proof| proof.shown))
        .filter_map(|signal| Some(format!("{} {}", signal.name, margin(signal)?)))
        .collect();
    (!told.is_empty()).then(|| format!("Shown: {}.", told.join(", ")))
}

/// How far one signal's proof is, in a line: `error_rate within 2x of the baseline`, then `shown`, or
/// `0.8 of 1.3 decades, about 6 min more`. None where promotion asks for no proof of it.
pub fn line(signal: &SignalShape) -> Option<(String, String)> {
    let proof = signal.proof.as_ref()?;
    let what = format!("{} {}", signal.name, margin(signal)?);
    let far = match (proof.shown, proof.remaining_secs) {
        (true, _) => "shown".to_owned(),
        (false, remaining) => {
            let decades = |decades: f64| format!("{:.1}", decades.max(0.0));
            let so_far = format!("{} of {} decades", decades(proof.decades), decades(proof.needed));
            match remaining {
                Some(secs) => format!("{so_far}, about {} more", about(secs)),
                None => so_far,
            }
        }
    };
    Some((what, far))
}

/// What promotion waits for, a sentence each; empty when all is shown and nothing stands against it.
pub fn pending(report: &Report) -> String {
    let missing = report.signals.iter().filter_map(|signal| {
        let proof = signal.proof.as_ref().filter(|proof| !proof.shown)?;
        let margin = margin(signal)?;
        let name = &signal.name;
        // Of a rate the traffic is instances and not requests.
        let traffic = match signal.unit.as_str() {
            "per_second" => "at today's traffic".to_owned(),
            _ => format!("at {} requests/s", format::quantity(pace(proof.per_sec), "number")),
        };
        Some(match proof.remaining_secs {
            Some(secs) => format!("About {} more {traffic} to show {name} {margin}.", about(secs)),
            None if proof.per_sec > 0.0 => {
                format!("{} it cannot be shown that {name} is {margin}.", capitalised(&traffic))
            }
            None => format!("Without traffic it cannot be shown that {name} is {margin}."),
        })
    });
    let doubts = report.signals.iter().filter_map(|signal| {
        let decades = format::quantity(doubt(report, &signal.name)?, "number");
        let name = &signal.name;
        match &signal.proof {
            Some(proof) if proof.shown => Some(format!(
                "{name} was shown {}, and evidence of {decades} decades has come to stand against it.",
                margin(signal)?
            )),
            // What is missing has been said.
            Some(_) => None,
            None => Some(format!("Evidence of {decades} decades stands against {name}.")),
        }
    });
    let told: Vec<String> = missing.chain(doubts).collect();
    told.join(" ")
}

/// Whether something is not shown yet that takes longer than this at today's traffic.
pub fn outlast(report: &Report, secs: f64) -> bool {
    let mut proofs = report.signals.iter().filter_map(|signal| signal.proof.as_ref());
    proofs.any(|proof| !proof.shown && proof.remaining_secs.is_none_or(|left| left > secs))
}

/// `within 2x of the baseline or below 1 %`.
fn margin(signal: &SignalShape) -> Option<String> {
    let proof = signal.proof.as_ref()?;
    let factor = format::quantity(proof.factor, "number");
    let (within, side) = match proof.factor >= 1.0 {
        true => (format!("within {factor}x of the baseline"), "below"),
        false => (format!("above {factor}x the baseline"), "above"),
    };
    let or = proof.or.map(|or| format!(" or {side} {}", format::quantity(or, &signal.unit)));
    Some(format!("{within}{}", or.unwrap_or_default()))
}

/// The most evidence of a rule against this signal that keeps a release from being promoted.
fn doubt(report: &Report, signal: &str) -> Option<f64> {
    report
        .findings
        .iter()
        .filter(|finding| finding.then != "ok")
        .flat_map(|finding| &finding.clauses)
        .filter(|clause| clause.signal == signal && !words::is_slope(clause))
        .filter(|clause| clause.progress.kind == "evidence_decades")
        .map(|clause| clause.progress.value)
        .filter(|decades| *decades >= DOUBT_DECADES)
        .max_by(f64::total_cmp)
}

/// A length of time that is only a guess.
fn about(secs: f64) -> String {
    match secs {
        secs if secs < 90.0 => format!("{} s", (secs / 10.0).ceil().max(1.0) * 10.0),
        secs if secs < 5400.0 => format!("{} min", (secs / 60.0).round()),
        secs if secs < 129_600.0 => format!("{} h", (secs / 3600.0).round()),
        secs => format!("{} days", (secs / 86_400.0).round()),
    }
}

/// Requests a second with two digits.
fn pace(per_sec: f64) -> f64 {
    match per_sec {
        per_sec if per_sec >= 10.0 => per_sec.round(),
        per_sec => (per_sec * 10.0).round() / 10.0,
    }
}
