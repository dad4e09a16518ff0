//! What came of a backtest, and what it says about the rule file.

use std::{collections::BTreeMap, time::Duration};

use super::{
    judging::{Ending, Judged},
    placebo::Window,
    releases::{Known, Release},
};
use crate::simulation::share::Share;

/// Everything that was judged, and what was not.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Releases, oldest first.
    pub releases: Vec<(Release, Result<Judged, String>)>,
    /// Times without a release.
    pub placebos: Vec<Placebo>,
    /// Whether it was interrupted; then what is missing was not asked for.
    pub interrupted: bool,
    /// Seconds that judging itself took, without fetching.
    pub judging_secs: f64,
}

/// A window without a release.
#[derive(Clone, Debug)]
pub struct Placebo {
    /// When and of what.
    pub window: Window,
    /// Who played the canary and who the baseline.
    pub how: How,
    /// What came of it.
    pub result: Result<Judged, String>,
}

/// Who was compared with whom in a window without a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// So many instances with so many others.
    Halves {
        /// Instances that played the canary.
        canary: usize,
        /// Instances that played the baseline.
        baseline: usize,
    },
    /// The service with itself before.
    Itself,
    /// Not known: it was not judged.
    Unknown,
}

/// A verdict beside what is known of the release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Agreement {
    /// A bad one was rolled back, so many seconds after it turned bad.
    Found(f64),
    /// A bad one was promoted.
    Missed,
    /// A good one was rolled back, or a bad one before it was bad.
    FalseAlarm,
    /// A good one was promoted.
    Right,
    /// There was no verdict by the deadline.
    Undecided,
}

/// How often verdicts were right, of releases whose outcome is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
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

/// How a verdict agrees with what is known; none where nothing is.
pub fn agreement(release: &Release, judged: &Judged) -> Option<Agreement> {
    let decided = release.started.after(Duration::from_secs_f64(judged.secs.max(0.0)));
    Some(match (release.known?, judged.verdict) {
        (_, Ending::Inconclusive) => Agreement::Undecided,
        (Known::Good, Ending::Promote) => Agreement::Right,
        (Known::Good, Ending::Rollback) => Agreement::FalseAlarm,
        (Known::Bad { .. }, Ending::Promote) => Agreement::Missed,
        (Known::Bad { since }, Ending::Rollback) => {
            let since = since.unwrap_or(release.started);
            if decided < since {
                Agreement::FalseAlarm
            } else {
                Agreement::Found(decided.since(since).as_secs_f64())
            }
        }
    })
}

impl Outcome {
    /// Everything that has a verdict.
    pub fn judged(&self) -> impl Iterator<Item = &Judged> {
        let releases = self.releases.iter().filter_map(|(_, result)| result.as_ref().ok());
        releases.chain(self.placebos.iter().filter_map(|placebo| placebo.result.as_ref().ok()))
    }

    /// Hours of releases that were judged, placebos among them.
    pub fn hours(&self) -> f64 {
        let secs = self.judged().map(|judged| judged.looks as f64 * judged.step.as_secs_f64());
        secs.sum::<f64>() / 3600.0
    }

    /// Hours judged in a second; none when nothing was.
    pub fn hours_per_second(&self) -> Option<f64> {
        let hours = self.hours();
        (hours > 0.0 && self.judging_secs > 0.0).then(|| hours / self.judging_secs)
    }

    /// Releases with this verdict.
    pub fn ended(&self, ending: Ending) -> usize {
        let results = self.releases.iter().filter_map(|(_, result)| result.as_ref().ok());
        results.filter(|judged| judged.verdict == ending).count()
    }

    /// How often verdicts were right; none when nothing is known of any release.
    pub fn score(&self) -> Option<Score> {
        let mut score = None;
        for (release, result) in &self.releases {
            let Some(agreement) = result.as_ref().ok().and_then(|one| agreement(release, one))
            else {
                continue;
            };
            let score = score.get_or_insert_with(Score::default);
            match agreement {
                Agreement::Found(_) => score.found += 1,
                Agreement::Missed => score.missed += 1,
                Agreement::FalseAlarm => score.false_alarms += 1,
                Agreement::Right => score.right += 1,
                Agreement::Undecided => score.undecided += 1,
            }
        }
        score
    }

    /// Placebos with this verdict, of those that were judged.
    pub fn placebo_share(&self, ending: Ending) -> Share {
        let judged = || self.placebos.iter().filter_map(|placebo| placebo.result.as_ref().ok());
        Share {
            count: judged().filter(|judged| judged.verdict == ending).count(),
            of: judged().count(),
        }
    }

    /// Rules that rolled placebos back, most often first.
    pub fn placebo_rules(&self) -> Vec<(&str, usize)> {
        let judged = self.placebos.iter().filter_map(|placebo| placebo.result.as_ref().ok());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for rule in judged.filter_map(|judged| judged.rule.as_deref()) {
            *counts.entry(rule).or_default() += 1;
        }
        let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

    /// Seconds from the start to this verdict, of releases, ascending.
    pub fn verdict_secs(&self, ending: Ending) -> Vec<f64> {
        let results = self.releases.iter().filter_map(|(_, result)| result.as_ref().ok());
        let mut secs: Vec<f64> =
            results.filter(|judged| judged.verdict == ending).map(|judged| judged.secs).collect();
        secs.sort_by(f64::total_cmp);
        secs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backtest::judging::Trace, engine::observation::Time};

    fn judged(verdict: Ending, secs: f64) -> Judged {
        Judged {
            verdict,
            secs,
            rule: (verdict == Ending::Rollback).then(|| "a > 1".to_owned()),
            reason: String::new(),
            looks: 240,
            step: Duration::from_secs(15),
            resolution: Duration::from_secs(15),
            history_secs: 3600.0,
            trace: Trace::default(),
        }
    }

    fn release(known: Option<Known>) -> Release {
        Release {
            service: String::new(),
            version: String::new(),
            started: Time(1_000_000),
            ended: None,
            canary: String::new(),
            baseline: None,
            known,
            notes: Vec::new(),
        }
    }

    #[test]
    fn verdicts_are_held_against_what_is_known() {
        let bad = |secs: Option<i64>| {
            Some(Known::Bad { since: secs.map(|s| Time(1_000_000 + s * 1000)) })
        };
        let check = |known, verdict, expected| {
            assert_eq!(agreement(&release(known), &judged(verdict, 120.0)), expected, "{known:?}");
        };
        check(None, Ending::Rollback, None);
        check(bad(None), Ending::Rollback, Some(Agreement::Found(120.0)));
        check(bad(Some(90)), Ending::Rollback, Some(Agreement::Found(30.0)));
        check(bad(Some(180)), Ending::Rollback, Some(Agreement::FalseAlarm));
        check(bad(None), Ending::Promote, Some(Agreement::Missed));
        check(bad(None), Ending::Inconclusive, Some(Agreement::Undecided));
        check(Some(Known::Good), Ending::Promote, Some(Agreement::Right));
        check(Some(Known::Good), Ending::Rollback, Some(Agreement::FalseAlarm));
        check(Some(Known::Good), Ending::Inconclusive, Some(Agreement::Undecided));
    }

    #[test]
    fn what_was_not_judged_counts_nowhere() {
        let window = Window { service: String::new(), matchers: String::new(), started: Time(0) };
        let placebo = |result| Placebo { window: window.clone(), how: How::Itself, result };
        let outcome = Outcome {
            releases: vec![
                (release(Some(Known::Good)), Ok(judged(Ending::Promote, 600.0))),
                (release(Some(Known::Good)), Err("no answer".to_owned())),
            ],
            placebos: vec![
                placebo(Ok(judged(Ending::Rollback, 30.0))),
                placebo(Ok(judged(Ending::Promote, 600.0))),
                placebo(Err("no answer".to_owned())),
            ],
            interrupted: false,
            judging_secs: 0.5,
        };
        assert_eq!(outcome.hours(), 3.0);
        assert_eq!(outcome.hours_per_second(), Some(6.0));
        assert_eq!(outcome.placebo_share(Ending::Rollback), Share { count: 1, of: 2 });
        assert_eq!(outcome.placebo_rules(), [("a > 1", 1)]);
        assert_eq!(outcome.score(), Some(Score { right: 1, ..Score::default() }));
        assert_eq!(outcome.ended(Ending::Promote), 1);
        assert_eq!(outcome.verdict_secs(Ending::Promote), [600.0]);
        assert_eq!(Outcome::default().score(), None);
        assert_eq!(Outcome::default().hours_per_second(), None);
    }
}
