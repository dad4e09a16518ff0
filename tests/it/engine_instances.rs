//! Clauses asked `on most instances`.

use std::sync::Arc;

use rollgate::engine::{
    analysis::Analysis,
    observation::{Missing, Observation, Pair, Part, PartKind, Time, Value, Why},
    rule::{Condition, RuleSet, Scope},
    verdict::{ClauseFinding, State},
};

use crate::engine_blame::{ALL_BAD, ERRORS, Fault, Known, LATENCY, ONE_BAD, found, rules};

/// The same rule, asked on most instances.
fn on_most(when: &str) -> Arc<RuleSet> {
    let mut rules = Arc::unwrap_or_clone(rules(when));
    for rule in &mut rules.rules {
        let Condition::Clause(clause) = &mut rule.when else { panic!("one clause") };
        clause.scope = Scope::MostInstances;
    }
    Arc::new(rules)
}

const FORMS: [&str; 5] =
    [ERRORS, LATENCY, "errors > 1%", "errors > 3% for 15s", "p95 > 1.3x baseline for 15s"];

#[test]
fn one_bad_instance_of_five_is_not_most() {
    for when in FORMS {
        // The arm as a whole is bad enough by any of these, and four of five instances are not.
        assert!(found(rules(when), 1, ONE_BAD, Known::Instances).is_some(), "{when}");
        assert!(found(on_most(when), 1, ONE_BAD, Known::Instances).is_none(), "{when}");
    }
}

#[test]
fn a_bad_version_fires_on_most() {
    for when in FORMS {
        let (finding, _) = found(on_most(when), 2, ALL_BAD, Known::Instances).expect(when);
        let note = finding.note.expect("says on how many");
        let of_five = [3, 4, 5].map(|n| format!("holds on {n} of 5 instances, needs 3"));
        assert!(of_five.contains(&note), "{when}: {note}");
        assert_eq!(finding.blame, None);
    }
}

#[test]
fn fewer_than_two_instances_are_the_arm() {
    let healthy: Fault = |_, _| (0.002, 1.0);
    for when in FORMS {
        assert!(found(on_most(when), 3, ALL_BAD, Known::Nothing).is_some(), "{when}");
        assert!(found(on_most(when), 3, healthy, Known::Nothing).is_none(), "{when}");
    }
}

/// Share of errors that each instance has at a look; none where it says nothing.
type Instances<'a> = &'a [(&'a str, Option<f64>)];

fn look(secs: i64, instances: Instances<'_>) -> Observation {
    let share = |events: f64, total: f64| Value::Share { events, total };
    let heard = || instances.iter().filter_map(|(name, share)| Some((*name, (*share)?)));
    let bad: f64 = heard().map(|(_, errors)| 100.0 * errors).sum();
    let total = 100.0 * heard().count() as f64;
    let mut pair = Pair::new(Ok(share(bad, total)), Ok(share(1.0, 100.0)));
    let part = |(name, errors): (&str, f64)| Part {
        kind: PartKind::Instance,
        name: name.into(),
        started: None,
        value: share(100.0 * errors, 100.0),
    };
    pair.parts.canary = heard().map(part).collect();
    let unseen = || Err(Missing::new(Why::NotObserved, ""));
    let signals = vec![pair, Pair::new(unseen(), unseen())];
    Observation { at: Time(secs * 1000), signals, canary_gap: None, instances: None }
}

/// Looks of the rule over a story of instances: state and note at the last.
fn judged(when: &str, story: &[(i64, Instances<'_>)]) -> (State, String) {
    let mut analysis = Analysis::new(on_most(when), Time(0));
    let (mut secs, mut last) = (0, None::<ClauseFinding>);
    for (looks, instances) in story {
        for _ in 0..*looks {
            secs += 1;
            last = Some(analysis.step(&look(secs, instances)).findings[0].clauses[0].clone());
        }
    }
    let last = last.expect("a look");
    (last.state, last.note.unwrap_or_default())
}

#[test]
fn instances_are_counted_while_they_are_there() {
    let (good, bad) = (Some(0.01), Some(0.3));
    let when = "errors > 10% for 5s";
    for (story, state, note) in [
        (
            &[(20, &[("a", bad), ("b", good)][..])][..],
            State::Clear,
            "holds on 1 of 2 instances, needs 2",
        ),
        (
            &[(20, &[("a", bad), ("b", bad), ("c", good)])],
            State::Fires,
            "holds on 2 of 3 instances, needs 2",
        ),
        // Two more come up and are fine; before they have been seen for the hold they are not clear.
        (
            &[
                (20, &[("a", bad), ("b", bad), ("c", good)]),
                (10, &[("a", bad), ("b", bad), ("c", good), ("d", good), ("e", good)]),
            ],
            State::Clear,
            "holds on 2 of 5 instances, needs 3",
        ),
        // One that is silent for longer than its pace allows is counted for a window, as unknown.
        (
            &[
                (30, &[("a", bad), ("b", good), ("c", good)]),
                (30, &[("a", bad), ("b", None), ("c", good)]),
            ],
            State::NotEnoughData,
            "holds on 1 of 3 instances, needs 2",
        ),
        // Those that left are not.
        (
            &[
                (30, &[("a", bad), ("b", good), ("c", good), ("d", bad)]),
                (70, &[("a", bad), ("d", bad)]),
            ],
            State::Fires,
            "holds on 2 of 2 instances, needs 2",
        ),
    ] {
        assert_eq!(judged(when, story), (state, note.to_owned()), "{story:?}");
    }
}

#[test]
fn an_instance_nobody_knows_enough_of_keeps_the_clause_open() {
    let (good, bad) = (Some(0.01), Some(0.3));
    let young: Instances<'_> = &[("a", bad), ("b", bad), ("c", good), ("d", good)];
    let story = [(40, &[("a", bad), ("c", good)][..]), (1, young)];
    let mut analysis = Analysis::new(on_most(ERRORS), Time(0));
    let mut secs = 0;
    let mut last = None;
    for (looks, instances) in story {
        for _ in 0..looks {
            secs += 1;
            last = Some(analysis.step(&look(secs, instances)).findings[0].clauses[0].clone());
        }
    }
    let last = last.expect("a look");
    // After one look "b" has no evidence yet, "d" has had its hundred requests and is clear.
    assert_eq!(last.state, State::Clear);
    assert_eq!(last.note.as_deref(), Some("holds on 1 of 4 instances, needs 3"));
}
