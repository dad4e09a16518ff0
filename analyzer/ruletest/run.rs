//! One test: the engine over its looks, each step held against what the test expects.

use std::{sync::Arc, time::Duration};

use super::{
    outcome::{Failure, Outcome, RuleTurns, Seen, Turn},
    scene::{BEGIN, Scene},
};
use crate::{
    engine::{
        analysis::Analysis,
        verdict::{State, Step},
    },
    report::{build, shape::Report},
    rulefile::{
        RuleFile, duration_text,
        test_file::{Ask, Check, End, Test, Word},
    },
};

/// Runs a test to its final verdict.
pub fn run(test: &Test, file: &RuleFile) -> Outcome {
    let rules = Arc::new(file.rules.clone());
    let mut scene = Scene::new(test, file);
    let mut analysis = Analysis::new(rules, BEGIN);
    let mut watch = Watch::new(test, file);
    loop {
        let step = analysis.step(&scene.observe());
        watch.look(&step);
        // What nobody asks for need not be waited for.
        let is_done = test.end.is_none() && watch.next_check_after(scene.time()).is_none();
        if step.verdict.is_final() || is_done {
            return watch.outcome(&step);
        }
    }
}

/// What has come of a test so far.
struct Watch<'t> {
    test: &'t Test,
    file: &'t RuleFile,
    verdicts: Vec<(Duration, Word)>,
    states: Vec<Vec<(Duration, State)>>,
    seen: Vec<Seen>,
    /// With the index of the check that it is about; none for the end.
    failures: Vec<(Option<usize>, Failure)>,
    /// The look at which the end was expected.
    due: Option<Box<Report>>,
    /// Checks that a look has been held against.
    checked: Vec<bool>,
}

impl<'t> Watch<'t> {
    fn new(test: &'t Test, file: &'t RuleFile) -> Self {
        let rules = file.rules.rules.len();
        Self {
            test,
            file,
            verdicts: Vec::new(),
            states: vec![Vec::new(); rules],
            seen: vec![Seen::default(); rules],
            failures: Vec::new(),
            due: None,
            checked: vec![false; test.checks.len()],
        }
    }

    /// The look by which something is said of this time: the last one that is not later.
    fn look_of(&self, time: Duration) -> Duration {
        let interval = self.file.rules.observe.interval.as_millis();
        let looks = time.as_millis() / interval.max(1);
        Duration::from_millis(u64::try_from(looks * interval).unwrap_or(u64::MAX))
    }

    fn next_check_after(&self, time: Duration) -> Option<&'t Check> {
        self.test.checks.iter().find(|check| self.look_of(check.at.1) >= time)
    }

    fn look(&mut self, step: &Step) {
        let now = step.elapsed;
        let word = Word::of(step.verdict);
        if self.verdicts.last().is_none_or(|(_, last)| *last != word) {
            self.verdicts.push((now, word));
        }
        for (rule, finding) in step.findings.iter().enumerate() {
            let states = &mut self.states[rule];
            if states.last().is_none_or(|(_, last)| *last != finding.state) {
                states.push((now, finding.state));
            }
            self.seen[rule].fires |= finding.state == State::Fires;
            self.seen[rule].clear |= finding.state == State::Clear;
        }
        if let Some((_, until)) = self.test.end.as_ref().and_then(|end| end.at)
            && now == self.look_of(until)
        {
            self.due = Some(self.report(step));
        }
        for (index, check) in self.test.checks.iter().enumerate() {
            let (from, until) = (self.look_of(check.at.0), self.look_of(check.at.1));
            if !(from..=until).contains(&now) {
                continue;
            }
            self.checked[index] = true;
            let is_known = self.failures.iter().any(|(known, _)| *known == Some(index));
            if !is_known {
                let failures: Vec<Failure> =
                    check.asks.iter().filter_map(|ask| self.hold(check, *ask, step)).collect();
                self.failures.extend(failures.into_iter().map(|failure| (Some(index), failure)));
            }
        }
    }

    /// One look against one thing that is asked of it.
    fn hold(&self, check: &Check, ask: Ask, step: &Step) -> Option<Failure> {
        let at = time_text(check.at);
        let (expected, found, rule) = match ask {
            Ask::Verdict(word) => {
                let found = Word::of(step.verdict);
                if found == word {
                    return None;
                }
                (format!("{word} at {at}"), format!("{found}{}", self.because(step)), None)
            }
            Ask::Rule { rule, is } => {
                let found = step.findings.get(rule)?.state;
                if found == is {
                    return None;
                }
                let text = &self.file.rules.rules[rule].text;
                (
                    format!("`{text}` {} at {at}", state_words(is)),
                    state_words(found).to_owned(),
                    Some(rule),
                )
            }
        };
        let found = format!("{found} at {}", duration_text(step.elapsed));
        Some(Failure {
            line: check.line,
            expected,
            found,
            at_secs: step.elapsed.as_secs_f64(),
            hint: None,
            rule: rule.map(|rule| self.turns(rule)),
            look: Some(self.report(step)),
        })
    }

    fn because(&self, step: &Step) -> String {
        match step.verdict.rule() {
            Some(rule) => format!(" because `{}`", self.file.rules.rules[rule].text),
            None => String::new(),
        }
    }

    fn report(&self, step: &Step) -> Box<Report> {
        Box::new(build::report(&self.file.rules, step))
    }

    fn turns(&self, rule: usize) -> RuleTurns {
        let turn = |(at, state): &(Duration, State)| Turn {
            at_secs: at.as_secs_f64(),
            is: state.to_string(),
        };
        RuleTurns {
            rule: self.file.rules.rules[rule].text.clone(),
            number: rule + 1,
            timeline: self.states[rule].iter().map(turn).collect(),
        }
    }

    fn outcome(mut self, step: &Step) -> Outcome {
        let report = self.report(step);
        if let Some(end) = &self.test.end {
            let failure = self.end(end, step, &report);
            self.failures.extend(failure.map(|failure| (None, failure)));
        }
        for (index, check) in self.test.checks.iter().enumerate() {
            if !self.checked[index] {
                let failure = self.unseen(check, step, &report);
                self.failures.push((Some(index), failure));
            }
        }
        // A rule's states are known to the end only now.
        let mut failures: Vec<Failure> =
            self.failures.iter().map(|(_, failure)| failure.clone()).collect();
        for failure in &mut failures {
            if let Some(turns) = &mut failure.rule {
                *turns = self.turns(turns.number - 1);
                let later = self.states[turns.number - 1]
                    .iter()
                    .find(|(at, _)| at.as_secs_f64() > failure.at_secs);
                let later = later.map(|(at, state)| {
                    format!("at {} it {}", duration_text(*at), state_words(*state))
                });
                failure.hint = failure.hint.take().or(later);
            }
        }
        failures.sort_by_key(|failure| failure.line);
        let turn = |(at, word): &(Duration, Word)| Turn {
            at_secs: at.as_secs_f64(),
            is: word.to_string(),
        };
        Outcome {
            name: self.test.name.clone(),
            line: self.test.line,
            passed: failures.is_empty(),
            looks: step.look,
            verdict: report.verdict.clone(),
            at_secs: step.elapsed.as_secs_f64(),
            rule: report.rule.clone(),
            reason: report.reason.clone(),
            timeline: self.verdicts.iter().map(turn).collect(),
            failures,
            end: *report,
            seen: self.seen,
        }
    }

    /// How it ended against how it was to end.
    fn end(&self, end: &End, step: &Step, report: &Report) -> Option<Failure> {
        let (word, now) = (Word::of(step.verdict), step.elapsed);
        let in_time = end
            .at
            .is_none_or(|(from, until)| (self.look_of(from)..=self.look_of(until)).contains(&now));
        let decided = step.verdict.rule();
        let is_right_rule = end.because.is_none() || end.because == decided;
        if word == end.verdict && in_time && is_right_rule {
            return None;
        }
        let text = |rule: usize| &self.file.rules.rules[rule].text;
        let at = end.at.map(|at| format!(" at {}", time_text(at))).unwrap_or_default();
        let because = end.because.map(|rule| format!(" because `{}`", text(rule)));
        let expected = format!("{}{at}{}", end.verdict, because.unwrap_or_default());
        let found = format!("{word} at {}{}", duration_text(now), self.because(step));
        // What the deciding rule said when it was expected to decide shows more than the end does.
        let look = self.due.clone().filter(|_| !in_time || word != end.verdict);
        let look = look.unwrap_or_else(|| Box::new(report.clone()));
        let hint = match (word == end.verdict, in_time) {
            (true, false) => end.at.map(|at| self.off_by(at, now)),
            (true, true) => Some("the first rule of the file that fires decides".to_owned()),
            (false, _) => None,
        };
        Some(Failure {
            line: end.line,
            expected,
            found,
            at_secs: look.elapsed_secs,
            hint,
            rule: end.because.map(|rule| self.turns(rule)),
            look: Some(look),
        })
    }

    /// How much too early or too late something came.
    fn off_by(&self, (from, until): (Duration, Duration), now: Duration) -> String {
        let (from, until) = (self.look_of(from), self.look_of(until));
        match now.checked_sub(until) {
            Some(late) if !late.is_zero() => format!("that is {} too late", duration_text(late)),
            Some(_) | None => {
                format!("that is {} too early", duration_text(from.saturating_sub(now)))
            }
        }
    }

    /// A check of a time that never came.
    fn unseen(&self, check: &Check, step: &Step, report: &Report) -> Failure {
        let ask = match check.asks.first() {
            Some(Ask::Verdict(word)) => word.to_string(),
            Some(Ask::Rule { rule, is }) => {
                format!("`{}` {}", self.file.rules.rules[*rule].text, state_words(*is))
            }
            None => String::new(),
        };
        Failure {
            line: check.line,
            expected: format!("{ask} at {}", time_text(check.at)),
            found: format!(
                "the analysis was over at {}: {}{}",
                duration_text(step.elapsed),
                report.verdict,
                self.because(step)
            ),
            at_secs: report.elapsed_secs,
            hint: None,
            rule: None,
            look: None,
        }
    }
}

fn state_words(state: State) -> &'static str {
    match state {
        State::Fires => "fires",
        State::Clear => "is clear",
        State::NotEnoughData => "has not enough data",
        State::Asleep => "is asleep",
    }
}

fn time_text((from, until): (Duration, Duration)) -> String {
    if from == until {
        return duration_text(from);
    }
    format!("{}..{}", duration_text(from), duration_text(until))
}
