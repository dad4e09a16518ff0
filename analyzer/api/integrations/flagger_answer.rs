//! What a hook of Flagger is told: pass or deny, with words on one line.

use super::{
    super::{desk::AnalysisView, verdict::SmallVerdict},
    flagger_release::{Hook, Release},
    one_line,
    ruling::{self, Ruling},
};
use crate::report::format;

/// Characters of an answer: it becomes the text of a Kubernetes event.
const WORDS_CHARS_MAX: usize = 400;

/// The answer to one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether the hook passes. Of `rollback` that means to roll back.
    pub passes: bool,
    /// Whether this allows the next of the rule file's steps, which is counted.
    pub is_increase: bool,
    /// On one line.
    pub words: String,
}

impl Answer {
    /// The hook passes.
    pub(super) fn pass(words: impl AsRef<str>) -> Self {
        let words = one_line(words.as_ref(), WORDS_CHARS_MAX);
        Self { passes: true, is_increase: false, words }
    }

    /// The hook does not pass.
    pub(super) fn deny(words: impl AsRef<str>) -> Self {
        Self { passes: false, ..Self::pass(words) }
    }

    /// When nobody can say how the analysis stands. That is never held against a release, and never
    /// lets it go on.
    pub(super) fn unknown(hook: Hook, why: &str) -> Self {
        let words = format!("rollgate cannot say now: {why}");
        match hook {
            Hook::Rollout | Hook::Event => Self::pass(words),
            Hook::ConfirmRollout
            | Hook::PreRollout
            | Hook::ConfirmTrafficIncrease
            | Hook::ConfirmPromotion
            | Hook::Rollback
            | Hook::PostRollout => Self::deny(words),
        }
    }

    /// What an analysis says to a hook.
    pub(super) fn of(hook: Hook, release: &Release, view: &AnalysisView) -> Self {
        let small = SmallVerdict::of(view);
        let (ruling, reason) = (Ruling::of(&small), ruling::reason(&small));
        let state = || format!("{} ({})", reason, ruling::progress(view));
        match hook {
            Hook::ConfirmRollout => Self::pass(format!("judged as analysis {}", view.id)),
            Hook::PreRollout | Hook::Rollout => match ruling {
                Ruling::Rollback => Self::deny(format!("rollback: {reason}")),
                Ruling::Watching | Ruling::Promote | Ruling::Held => {
                    Self::pass(format!("{}: {}", ruling.word(), state()))
                }
            },
            Hook::ConfirmTrafficIncrease => match ruling {
                Ruling::Promote => Self::pass(format!("promote: {reason}")),
                Ruling::Rollback => Self::deny(format!("rollback: {reason}")),
                Ruling::Held => Self::deny(format!("held: {reason}")),
                Ruling::Watching => Self::increase(release, &small, view),
            },
            Hook::ConfirmPromotion => match ruling {
                Ruling::Promote => Self::pass(format!("promote: {reason}")),
                Ruling::Rollback => Self::deny(format!("rollback: {reason}")),
                Ruling::Held => Self::deny(format!("held: {reason}")),
                Ruling::Watching => Self::deny(format!("not yet: {}", state())),
            },
            Hook::Rollback => match ruling {
                Ruling::Rollback => Self::pass(format!("rollback: {reason}")),
                Ruling::Watching | Ruling::Promote | Ruling::Held => {
                    Self::deny(format!("no rollback, {}: {reason}", ruling.word()))
                }
            },
            Hook::PostRollout | Hook::Event => Self::pass("recorded"),
        }
    }

    /// Whether the canary may have more traffic while nothing is decided. The rule file's steps are
    /// the shares that Flagger goes through: at each the next is allowed once it was shown to be
    /// good, and the first, at no traffic at all, to begin with.
    fn increase(release: &Release, small: &SmallVerdict, view: &AnalysisView) -> Self {
        let reason = &small.reason;
        if small.verdict == "investigate" {
            return Self::deny(format!("a person should look first: {reason}"));
        }
        if view.steps.is_empty() {
            return Self::pass(format!("watching: {reason}"));
        }
        let step = small.release_step.unwrap_or(0);
        let of = view.steps.len();
        if release.increases <= step {
            let words = format!("go on to step {} of {of}", release.increases + 1);
            return Self { is_increase: true, ..Self::pass(words) };
        }
        let weight = view.steps.get(step).map_or(0.0, |step| step.weight);
        let weight = format::quantity(weight, "share");
        Self::deny(format!("step {} of {of} ({weight}) is not passed yet: {reason}", step + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_of_ours_is_held_against_nobody() {
        for (name, hook) in Hook::ALL {
            let answer = Answer::unknown(hook, "the store does not answer");
            // Failed `rollout` checks add up to a rollback; the other hooks only wait.
            let expected = matches!(hook, Hook::Rollout | Hook::Event);
            assert_eq!(answer.passes, expected, "{name}");
            assert!(answer.words.contains("the store does not answer"), "{name}");
        }
    }
}
