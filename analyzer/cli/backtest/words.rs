//! What a backtest comes to, in sentences that table and page share.

use std::collections::BTreeMap;

use super::{
    super::simulate::grouped,
    shape::{Backtested, PlaceboShape, ReleaseShape},
};
use crate::{engine::observation::Time, report::format};

/// A moment as people write it, in UTC, to the minute.
pub fn moment(secs: f64) -> String {
    let at = jiff::Timestamp::from_millisecond(Time::from_secs_f64(secs).0);
    let at = at.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(jiff::tz::TimeZone::UTC);
    at.strftime("%Y-%m-%d %H:%M").to_string()
}

/// What was judged and how, in a few sentences.
pub fn about(found: &Backtested) -> Vec<String> {
    let mut lines = vec![format!(
        "{} from {} to {} UTC; hold {}, deadline {}.",
        found.prometheus,
        moment(found.since),
        moment(found.until),
        format::duration(found.hold_secs),
        format::duration(found.deadline_secs),
    )];
    lines.extend(looks(found));
    let left_out: Vec<&str> =
        found.not_judged.iter().flat_map(|left| &left.clauses).map(String::as_str).collect();
    if let Some(first) = found.not_judged.first() {
        lines.push(format!("Not judged, {}: {}.", first.why, left_out.join("; ")));
    }
    lines
}

/// How often it looked, when that is not what the rule file asks for.
fn looks(found: &Backtested) -> Option<String> {
    let results = found.releases.iter().filter_map(|release| release.result.as_ref());
    let longest = results.filter_map(|result| result.look_secs).fold(0.0, f64::max);
    let asked = found.interval_secs;
    (longest > asked).then(|| {
        format!(
            "Looks are {} apart, as the samples are; the rule file asks for {}.",
            format::duration(longest),
            format::duration(asked)
        )
    })
}

/// What the numbers come to.
pub fn conclusions(found: &Backtested) -> Vec<String> {
    let mut sentences = Vec::new();
    let verdicts = found.verdicts;
    let total = found.releases.len();
    if total > 0 {
        let mut parts = Vec::new();
        for (count, what) in [
            (verdicts.rollback, "rolled back"),
            (verdicts.promote, "promoted"),
            (verdicts.inconclusive, "without a verdict"),
            (verdicts.not_judged, "not judged"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        let releases = if total == 1 { "release" } else { "releases" };
        sentences.push(format!("{} {releases}: {}.", grouped(total), parts.join(", ")));
    } else if found.releases_known == 0 {
        sentences.push("There was no release in that time.".to_owned());
    }
    sentences.extend(scored(found));
    sentences.extend(found.placebo.as_ref().map(placebo));
    if found.placebo.is_none() {
        sentences.push("No time without a release was judged.".to_owned());
    }
    if found.interrupted {
        sentences.push("It was interrupted: this is what was done by then.".to_owned());
    }
    sentences
}

fn scored(found: &Backtested) -> Option<String> {
    let score = found.score?;
    let bad = score.found + score.missed;
    let delays: Vec<f64> = found.releases.iter().filter_map(|release| release.delay_secs).collect();
    let mut delays = delays;
    delays.sort_by(f64::total_cmp);
    let mut parts = Vec::new();
    if bad > 0 {
        let within = delays
            .get(delays.len() / 2)
            .map_or(String::new(), |median| format!(", half within {}", format::duration(*median)));
        parts.push(format!("{} of {bad} bad ones were found{within}", score.found));
    }
    parts.push(match score.false_alarms {
        0 => "no good one was rolled back".to_owned(),
        count => format!("{count} good ones were rolled back"),
    });
    if score.undecided > 0 {
        parts.push(format!("{} had no verdict", score.undecided));
    }
    Some(format!("Of the releases whose outcome is known {}.", parts.join("; ")))
}

fn placebo(placebo: &PlaceboShape) -> String {
    let share = |share| format::quantity(share, "share");
    if placebo.windows == 0 {
        let why = placebo.not_judged_reason.clone().unwrap_or_default();
        return format!("No time without a release could be judged: {why}.");
    }
    let how = match placebo.windows - placebo.by_halves {
        0 => "half of the instances against the others".to_owned(),
        itself if itself == placebo.windows => "the service against itself before".to_owned(),
        itself => format!(
            "half of the instances against the others, in {itself} the service against itself \
             before"
        ),
    };
    format!(
        "Without a release, {} of {} windows were rolled back ({how}): the true share is {} at most \
         (with 95 % confidence), {} is stated for rules by evidence.",
        grouped(placebo.rolled_back.count),
        grouped(placebo.windows),
        share(placebo.rolled_back.high),
        share(placebo.stated),
    )
}

/// What would make the rule file better.
pub fn hints(found: &Backtested) -> Vec<String> {
    let mut hints = Vec::new();
    if let Some(placebo) = &found.placebo {
        for rule in &placebo.rules {
            hints.push(format!(
                "`{}` rolled back {} of {} windows in which nothing was released: raise its limit, \
                 give it a `for`, or let it `investigate`",
                rule.rule,
                rule.count,
                grouped(placebo.windows)
            ));
        }
        let idle = placebo.inconclusive;
        if idle.count * 5 > placebo.windows {
            hints.push(format!(
                "{} of {} windows without a release had no verdict: a longer deadline, a wider \
                 margin or more traffic would let good releases be promoted",
                idle.count,
                grouped(placebo.windows)
            ));
        }
        if placebo.not_judged > 0 && placebo.windows > 0 {
            let why = placebo.not_judged_reason.as_deref().unwrap_or_default();
            hints.push(format!("{} windows were not judged, such as: {why}", placebo.not_judged));
        }
    }
    if let Some(score) = found.score.filter(|score| score.missed > 0) {
        let known = if score.missed == 1 { "release was" } else { "releases were" };
        hints.push(format!(
            "{} bad {known} promoted: no rule asks what went wrong there, or its limit is too wide",
            score.missed
        ));
    }
    let mut failures: BTreeMap<&str, usize> = BTreeMap::new();
    for result in found.releases.iter().filter_map(|release| release.result.as_ref()) {
        if result.verdict == "not_judged" {
            *failures.entry(&result.reason).or_default() += 1;
        }
    }
    for (why, count) in failures {
        let releases = if count == 1 { "release was" } else { "releases were" };
        hints.push(format!("{count} {releases} not judged: {why}"));
    }
    hints
}

/// What decided, or why nothing did.
pub fn decided(release: &ReleaseShape) -> String {
    let Some(result) = &release.result else { return String::new() };
    match (&result.rule, result.verdict) {
        (Some(rule), _) => rule.clone(),
        (None, "promote") => "nothing fired".to_owned(),
        (None, _) => result.reason.clone(),
    }
}

/// What is known of it, beside its verdict.
pub fn known(release: &ReleaseShape) -> String {
    let known = match (release.known, release.agreement) {
        (Some("bad"), Some("found")) => {
            let delay = release.delay_secs.map(format::duration).unwrap_or_default();
            format!("bad, found in {delay}")
        }
        (Some("bad"), Some("missed")) => "bad, missed".to_owned(),
        (Some("bad"), Some("false_alarm")) => "not bad yet".to_owned(),
        (Some("good"), Some("false_alarm")) => "good: false alarm".to_owned(),
        (Some(known), _) => known.to_owned(),
        (None, _) => String::new(),
    };
    match release.notes.iter().find(|note| note.ends_with("came back after it")) {
        Some(note) if known.is_empty() => note.clone(),
        Some(_) | None => known,
    }
}
