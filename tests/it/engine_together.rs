//! Comparisons whose arms are never read at the same look: a metrics server scrapes them at moments
//! of its own, more rarely than rollgate looks.

use rollgate::{
    engine::{
        analysis::Analysis,
        observation::{Missing, Observation, Pair, Reading, Time, Value, Why},
        verdict::{Step, Verdict},
    },
    rulefile,
};

use super::house::error_rules;

/// Looks every second for two minutes; each arm is scraped every third second, the baseline one
/// second after the canary, with 60 requests a scrape.
fn judged(canary_errors: f64) -> Step {
    let file = rulefile::load("shop.yaml", &error_rules("{ after: 110s, deadline: 5m }")).unwrap();
    let mut analysis = Analysis::new(file.rules.into(), Time(0));
    let nothing = || Err(Missing::new(Why::NoTraffic, "no new sample since the last look"));
    let scraped = |is_now: bool, errors: f64| -> Reading {
        if is_now { Ok(Value::Share { events: errors, total: 60.0 }) } else { nothing() }
    };
    let mut step = None;
    for second in 1..=120 {
        // One error in ten scrapes is usual.
        let usual = f64::from(u8::from(second % 30 < 3));
        let canary = scraped(second % 3 == 0, canary_errors.max(usual));
        let baseline = scraped(second % 3 == 1, usual);
        let signals = vec![Pair::new(canary, baseline)];
        let at = Time(second * 1000);
        let now = analysis.step(&Observation { at, signals, canary_gap: None, instances: None });
        let is_over = now.verdict.is_final();
        step = Some(now);
        if is_over {
            break;
        }
    }
    step.unwrap()
}

#[test]
fn a_regression_is_found_although_the_arms_are_never_read_at_once() {
    let bad = judged(15.0);
    assert!(matches!(bad.verdict, Verdict::Rollback { .. }), "{bad:?}");
    assert!(bad.at < Time(60_000), "{bad:?}");
    let good = judged(0.0);
    assert!(matches!(good.verdict, Verdict::Promote), "{good:?}");
}
