//! From classifications to a score: of each group the share of metrics that passed, of all groups the
//! weighted mean.
//!
//! Weights are those of groups that have data, so that what may be neutral is. What is unknown keeps
//! the score half way between `marginal` and `pass`: it neither passes nor fails.

use std::collections::BTreeMap;

use super::{
    Class, Grade, GroupScore, Score, Thresholds,
    metric::{Counts, Judged},
};

/// The group of metrics without one; Kayenta would leave them out of the score.
const NO_GROUP: &str = "no group";

/// What is wrong with weights.
pub(super) fn weight_faults(weights: &BTreeMap<String, f64>) -> Vec<String> {
    let mut faults = Vec::new();
    for (group, weight) in weights {
        if !(0.0..=100.0).contains(weight) {
            let group: String = group.chars().take(80).collect();
            faults.push(format!("groupWeights: {group:?} has {weight}, expected 0 to 100"));
        }
    }
    faults
}

#[derive(Default)]
struct Group {
    passed: usize,
    counted: usize,
    all: usize,
}

/// Scores of all groups, and of all together.
pub(super) fn score(
    judged: &[Judged],
    weights: &BTreeMap<String, f64>,
    thresholds: Thresholds,
) -> (Vec<GroupScore>, Score) {
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for metric in judged {
        let named = metric.result.groups.iter().map(String::as_str);
        let fallback = metric.result.groups.is_empty().then_some(NO_GROUP);
        for name in named.chain(fallback) {
            let group = groups.entry(name).or_default();
            group.all += 1;
            group.passed += usize::from(metric.counts == Counts::Passed);
            group.counted += usize::from(matches!(metric.counts, Counts::Passed | Counts::Failed));
        }
    }
    let unweighted = groups.keys().filter(|name| !weights.contains_key(**name)).count();
    let rest = (100.0 - weights.values().sum::<f64>()).max(0.0) / unweighted.max(1) as f64;
    let (mut sum, mut whole) = (0.0, 0.0);
    let mut scores = Vec::new();
    for (name, group) in &groups {
        let weight = weights.get(*name).copied().unwrap_or(rest);
        let score = share(group);
        if let Some(score) = score {
            sum += weight * score;
            whole += weight;
        }
        scores.push(GroupScore {
            name: (*name).to_owned(),
            score: score.unwrap_or(0.0),
            classification: score.map_or(Grade::Nodata, |score| grade(score, thresholds)),
            classification_reason: format!(
                "{} of {} metrics passed, {} without data",
                group.passed,
                group.all,
                group.all - group.counted
            ),
        });
    }
    let mean = (whole > 0.0).then(|| sum / whole);
    (scores, total(mean, judged, thresholds))
}

/// Of 100; none without data.
fn share(group: &Group) -> Option<f64> {
    (group.counted > 0).then(|| 100.0 * group.passed as f64 / group.counted as f64)
}

fn grade(score: f64, thresholds: Thresholds) -> Grade {
    if score >= thresholds.pass {
        Grade::Pass
    } else if score >= thresholds.marginal {
        Grade::Marginal
    } else {
        Grade::Fail
    }
}

fn total(mean: Option<f64>, judged: &[Judged], thresholds: Thresholds) -> Score {
    let names = |is: &dyn Fn(&Judged) -> bool| names_of(judged, is);
    let critical = names(&|metric| metric.result.critical);
    if !critical.is_empty() {
        return Score {
            score: 0.0,
            classification: Grade::Fail,
            classification_reason: format!("critical: {critical}"),
        };
    }
    let between = 0.5 * (thresholds.pass + thresholds.marginal);
    // Between two thresholds that are one there is nothing.
    let between = if between < thresholds.pass { between } else { 0.0 };
    let Some(mean) = mean else {
        return Score {
            score: between,
            classification: Grade::Nodata,
            classification_reason: "no metric that has a weight has data".to_owned(),
        };
    };
    let unknown = names(&|metric| metric.counts == Counts::Unknown);
    let score = if unknown.is_empty() { mean } else { mean.min(between) };
    let bad = names(&|metric| metric.counts == Counts::Failed);
    let reason = match (bad.is_empty(), unknown.is_empty()) {
        (true, true) => "every metric passed".to_owned(),
        (false, true) => format!("failed: {bad}"),
        (true, false) => format!("unknown: {unknown}"),
        (false, false) => format!("failed: {bad}; unknown: {unknown}"),
    };
    Score { score, classification: grade(score, thresholds), classification_reason: reason }
}

/// The first few names, with how they were classified.
fn names_of(judged: &[Judged], is: &dyn Fn(&Judged) -> bool) -> String {
    const SHOWN: usize = 5;
    let all: Vec<String> = judged
        .iter()
        .filter(|metric| is(metric))
        .map(|metric| {
            let name: String = metric.result.name.chars().take(80).collect();
            format!("{name} ({})", word(metric.result.classification))
        })
        .collect();
    let more = all.len().saturating_sub(SHOWN);
    let shown = all[..all.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

fn word(class: Class) -> &'static str {
    match class {
        Class::Pass => "pass",
        Class::High => "high",
        Class::Low => "low",
        Class::Nodata => "no data",
        Class::Error => "cannot be judged",
    }
}
