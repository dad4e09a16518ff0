//! Which rules no test has ever seen fire, or seen clear: a rule that was never seen to do both is not
//! tested.

use serde::Serialize;

use super::{Loaded, Ran};
use crate::{engine::rule::Rule, ruletest::outcome::Seen};

/// What the tests of one rule file left unseen.
#[derive(Clone, Debug, Serialize)]
pub struct Coverage {
    /// Path of the rule file.
    pub rules: String,
    /// How many rules it has.
    pub count: usize,
    /// Those that never fired.
    pub never_fires: Vec<Unseen>,
    /// Those that never were clear.
    pub never_clear: Vec<Unseen>,
}

/// A rule of which something was never seen.
#[derive(Clone, Debug, Serialize)]
pub struct Unseen {
    /// Its number in the file, from 1.
    pub number: usize,
    /// As written.
    pub rule: String,
}

impl Coverage {
    /// Whether every rule was seen to fire and to be clear.
    pub fn is_whole(&self) -> bool {
        self.never_fires.is_empty() && self.never_clear.is_empty()
    }
}

/// By rule file, in the order in which they are met; several test files may be about one.
pub(super) fn of(loaded: &[Loaded], ran: &[Ran]) -> Vec<Coverage> {
    let mut seen: Vec<(&std::path::Path, &[Rule], Vec<Seen>)> = Vec::new();
    for (one, ran) in loaded.iter().zip(ran) {
        let rules = &one.rules.rules.rules;
        let known = seen.iter().position(|(path, ..)| *path == one.rules_path);
        let known = known.unwrap_or_else(|| {
            seen.push((&one.rules_path, rules, vec![Seen::default(); rules.len()]));
            seen.len() - 1
        });
        for outcome in &ran.outcomes {
            for (all, more) in seen[known].2.iter_mut().zip(&outcome.seen) {
                *all = all.or(*more);
            }
        }
    }
    seen.into_iter().map(|(path, rules, seen)| coverage(path, rules, &seen)).collect()
}

fn coverage(path: &std::path::Path, rules: &[Rule], seen: &[Seen]) -> Coverage {
    let unseen = |is_seen: fn(&Seen) -> bool| {
        let rules = rules.iter().zip(seen).enumerate().filter(|(_, (_, seen))| !is_seen(seen));
        rules
            .map(|(index, (rule, _))| Unseen { number: index + 1, rule: rule.text.clone() })
            .collect()
    };
    Coverage {
        rules: path.display().to_string(),
        count: rules.len(),
        never_fires: unseen(|seen| seen.fires),
        never_clear: unseen(|seen| seen.clear),
    }
}
