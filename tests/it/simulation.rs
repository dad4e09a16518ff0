//! The generator of simulated releases: its moments are those of the stated laws, its faults do
//! what they say, and a seed fixes every number.

use std::time::Duration;

use rollgate::{
    engine::{
        observation::{Arm, Health, Observation, Reading, Value, Why},
        rule::{Baseline, RuleSet},
    },
    rulefile,
    simulation::{
        Arrivals, Fault, FaultKind, Hits, NoiseModel, Release, START, Scenario, Traffic,
        TrafficStep, past,
    },
};

const RULES: &str = "version: 1
service: simulated
observe: { interval: 1s, window: 1m, warmup: 10s }
signals:
  errors: { ratio: 'failed_total / asked_total', floor: 0.1% }
  p95: { quantile: 0.95, of: latency_seconds }
  requests: { rate: asked_total }
  logged: { count: logged_total }
  memory: { gauge: process_resident_memory_bytes }
  app: { health: /health }
  restarts: { restarts: process_start_time_seconds }
rules:
  - { when: errors > 1.5x baseline, then: rollback }
  - { when: p95 > 1.2x baseline, then: rollback }
  - { when: requests < 1/s for 1m, then: investigate }
  - { when: logged >= 10, then: rollback }
  - { when: memory > 1GB for 1m, then: rollback }
  - { when: app is down for 3 checks, then: rollback }
  - { when: restarts >= 1, then: rollback }
promote: { after: 15m, deadline: 30m, otherwise: hold }
";

const ERRORS: usize = 0;
const P95: usize = 1;
const REQUESTS: usize = 2;
const LOGGED: usize = 3;
const MEMORY: usize = 4;
const APP: usize = 5;
const RESTARTS: usize = 6;

fn rules() -> RuleSet {
    rulefile::load("simulated.yaml", RULES).expect("valid rules").rules
}

fn looks(scenario: &Scenario, seed: u64, count: usize) -> Vec<Observation> {
    Release::new(&rules(), scenario, seed).take(count).collect()
}

fn share(reading: &Reading) -> (f64, f64) {
    match reading {
        Ok(Value::Share { events, total }) => (*events, *total),
        other => panic!("no share: {other:?}"),
    }
}

fn events(reading: &Reading) -> (f64, f64, u32) {
    match reading {
        Ok(Value::Events { events, instance_secs, instances }) => {
            (*events, *instance_secs, *instances)
        }
        other => panic!("no events: {other:?}"),
    }
}

fn level(reading: &Reading) -> f64 {
    match reading {
        Ok(Value::Level(level)) => *level,
        other => panic!("no level: {other:?}"),
    }
}

fn why(reading: &Reading) -> Why {
    reading.as_ref().expect_err("a reason was expected").why
}

/// Errors per look of one arm.
fn errors(looks: &[Observation], arm: Arm) -> Vec<f64> {
    looks.iter().map(|look| share(look.signals[ERRORS].of(arm)).0).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn covariance(a: &[f64], b: &[f64]) -> f64 {
    let (at, bt) = (mean(a), mean(b));
    a.iter().zip(b).map(|(a, b)| (a - at) * (b - bt)).sum::<f64>() / (a.len() - 1) as f64
}

/// Index of dispersion of sums over blocks.
fn dispersion(values: &[f64], block: usize) -> f64 {
    let sums: Vec<f64> = values.chunks_exact(block).map(|block| block.iter().sum()).collect();
    covariance(&sums, &sums) / mean(&sums)
}

fn busy() -> Scenario {
    Scenario::healthy(Traffic::new(100.0, 100.0))
}

#[test]
fn a_healthy_release_has_the_stated_rates_and_poisson_dispersion() {
    let looks = looks(&busy(), 1, 20_000);
    for arm in Arm::BOTH {
        let failed = errors(&looks, arm);
        let asked: Vec<f64> =
            looks.iter().map(|look| share(look.signals[ERRORS].of(arm)).1).collect();
        // Four standard errors: of 2,000,000 requests and of 10,000 errors.
        assert!((mean(&asked) - 100.0).abs() < 0.3, "{arm}: {} requests a look", mean(&asked));
        assert!((mean(&failed) - 0.5).abs() < 0.02, "{arm}: {} errors a look", mean(&failed));
        for block in [1, 10, 60] {
            let (of_failed, of_asked) = (dispersion(&failed, block), dispersion(&asked, block));
            let error = (2.0 * block as f64 / 20_000.0).sqrt();
            assert!((of_failed - 1.0).abs() < 5.0 * error, "{arm} {block}: {of_failed}");
            assert!((of_asked - 1.0).abs() < 5.0 * error, "{arm} {block}: {of_asked}");
        }
        let slow: f64 = looks
            .iter()
            .map(|look| match look.signals[P95].of(arm) {
                Ok(Value::Histogram(histogram)) => histogram.above(4),
                other => panic!("no histogram: {other:?}"),
            })
            .sum();
        // 12.4 % of the default law take longer than 0.1 s.
        let share_slow = slow / asked.iter().sum::<f64>();
        assert!((share_slow - 0.123995).abs() < 0.001, "{arm}: {share_slow} beyond 0.1 s");
    }
    let first = &looks[0];
    assert_eq!(first.at, START.after(Duration::from_secs(1)));
    assert_eq!(events(&first.signals[LOGGED].canary), (0.0, 1.0, 1));
    let (requests, _) = share(&first.signals[ERRORS].canary);
    assert!(requests <= events(&first.signals[REQUESTS].canary).0);
    assert_eq!(first.signals[RESTARTS].canary, Ok(Value::Restarts(0)));
    assert!((150e6..260e6).contains(&level(&first.signals[MEMORY].canary)));
    assert_eq!(first.signals[MEMORY].parts.canary.len(), 1);
}

/// Variance of a block's sum under the model: Poisson's, plus the autocovariance of the log-normal
/// rate, `exp(sigma^2 exp(-lag / tau)) - 1`, summed over all pairs of seconds.
fn dispersion_expected(per_look: f64, sigma: f64, tau: f64, block: usize) -> f64 {
    let covariance = |lag: usize| ((sigma * sigma * (-(lag as f64) / tau).exp()).exp()) - 1.0;
    let pairs: f64 =
        (0..block).flat_map(|a| (0..block).map(move |b| a.abs_diff(b))).map(covariance).sum();
    1.0 + per_look * pairs / block as f64
}

#[test]
fn noise_has_the_stated_dispersion_of_its_own_and_shared() {
    let (sigma, tau) = (0.5, 30.0);
    for noise in [NoiseModel::own(sigma, tau), NoiseModel::shared(sigma, tau)] {
        let looks = looks(&busy().with_noise(noise), 2, 120_000);
        let [canary, baseline] = Arm::BOTH.map(|arm| errors(&looks, arm));
        for block in [1, 30, 120] {
            let expected = dispersion_expected(0.5, sigma, tau, block);
            for failed in [&canary, &baseline] {
                let found = dispersion(failed, block);
                assert!((found / expected - 1.0).abs() < 0.2, "{block}: {found}, not {expected}");
            }
        }
        let sums = |values: &[f64]| -> Vec<f64> {
            values.chunks_exact(30).map(|block| block.iter().sum()).collect()
        };
        let (canary, baseline) = (sums(&canary), sums(&baseline));
        let together = covariance(&canary, &baseline)
            / (covariance(&canary, &canary) * covariance(&baseline, &baseline)).sqrt();
        // What both share is all that is not Poisson's.
        let shared = 1.0 - 1.0 / dispersion_expected(0.5, sigma, tau, 30);
        let expected = if noise.shared_sigma > 0.0 { shared } else { 0.0 };
        assert!((together - expected).abs() < 0.08, "{together}, not {expected}");
    }
}

#[test]
fn a_baseline_of_the_past_shares_no_burst() {
    let mut rules = rules();
    rules.baseline = Baseline::Before;
    let scenario = busy().with_noise(NoiseModel::shared(0.8, 60.0));
    let looks: Vec<Observation> = Release::new(&rules, &scenario, 3).take(60_000).collect();
    let [canary, baseline] = Arm::BOTH.map(|arm| errors(&looks, arm));
    let together = covariance(&canary, &baseline) / covariance(&canary, &canary);
    assert!(together.abs() < 0.08, "{together}");
}

#[test]
fn a_seed_fixes_every_number() {
    let noise = NoiseModel { latency_sigma: 0.1, ..NoiseModel::own(0.3, 10.0) };
    let traffic = Traffic::new(20.0, 60.0).with_instances(2, 3);
    let scenario = Scenario::healthy(traffic).with_noise(noise);
    assert_eq!(looks(&scenario, 9, 50), looks(&scenario, 9, 50));
    assert_ne!(looks(&scenario, 9, 50), looks(&scenario, 10, 50));
    let told: Vec<String> = looks(&scenario, 9, 3).iter().map(told).collect();
    insta::assert_snapshot!(told.join("\n"));
}

/// One look in a line an arm.
fn told(look: &Observation) -> String {
    let arm = |arm: Arm| {
        let (failed, asked) = share(look.signals[ERRORS].of(arm));
        let Ok(Value::Histogram(histogram)) = look.signals[P95].of(arm) else { panic!("{look:?}") };
        let memory = level(look.signals[MEMORY].of(arm)) / 1e6;
        format!("{arm}: {failed} of {asked}, {:?}, {memory:.3} MB", histogram.counts)
    };
    format!("{}\n{}", arm(Arm::Canary), arm(Arm::Baseline))
}

#[test]
fn regular_arrivals_are_regular_and_traffic_steps_come_when_stated() {
    let mut traffic = Traffic::new(0.2, 3.0);
    traffic.arrivals = Arrivals::Fixed;
    traffic.steps = vec![TrafficStep { at_secs: 60.0, canary_rps: 40.0, baseline_rps: 1.0 }];
    let looks = looks(&Scenario::healthy(traffic), 4, 120);
    let asked = |look: &Observation, arm| match look.signals[ERRORS].of(arm) {
        Ok(Value::Share { total, .. }) => *total,
        Err(missing) if missing.why == Why::NoTraffic => 0.0,
        other => panic!("{other:?}"),
    };
    for (index, look) in looks.iter().enumerate() {
        let secs = index + 1;
        let expected =
            if secs <= 60 { (f64::from(u8::from(secs % 5 == 0)), 3.0) } else { (40.0, 1.0) };
        assert_eq!((asked(look, Arm::Canary), asked(look, Arm::Baseline)), expected, "{secs} s");
    }
}

#[test]
fn longer_looks_hold_more() {
    let every = Duration::from_secs(5);
    let looks: Vec<Observation> = Release::every(&rules(), &busy(), every, 5).take(4_000).collect();
    assert_eq!(looks[1].at, START.after(Duration::from_secs(10)));
    let failed = errors(&looks, Arm::Canary);
    assert!((mean(&failed) - 2.5).abs() < 0.1, "{}", mean(&failed));
    assert_eq!(events(&looks[0].signals[REQUESTS].baseline).1, 5.0);
}

#[test]
fn errors_and_latency_grow_by_their_factor_at_their_onset() {
    let scenario = busy()
        .with_fault(FaultKind::Errors { factor: 10.0 }, 1_000.0)
        .with_fault(FaultKind::Latency { factor: 2.0 }, 1_000.0);
    let looks = looks(&scenario, 6, 2_000);
    let failed = errors(&looks, Arm::Canary);
    assert!((mean(&failed[..1_000]) - 0.5).abs() < 0.1);
    assert!((mean(&failed[1_000..]) - 5.0).abs() < 0.3);
    assert!((mean(&errors(&looks, Arm::Baseline)) - 0.5).abs() < 0.1);
    let slow = |looks: &[Observation]| -> f64 {
        let of = |look: &Observation| match &look.signals[P95].canary {
            Ok(Value::Histogram(histogram)) => histogram.above(4) / histogram.total(),
            other => panic!("{other:?}"),
        };
        looks.iter().map(of).sum::<f64>() / looks.len() as f64
    };
    // Twice as slow: half of the requests take longer than 0.1 s.
    assert!((slow(&looks[..1_000]) - 0.124).abs() < 0.01);
    assert!((slow(&looks[1_000..]) - 0.5).abs() < 0.01);
    // What is counted and not compared is there when something is wrong: 4.5 more a second.
    let logged: f64 = looks.iter().map(|look| events(&look.signals[LOGGED].canary).0).sum();
    assert!((logged / 1_000.0 - 4.5).abs() < 0.3, "{logged}");
}

#[test]
fn a_warm_up_heals_and_a_shared_fault_hits_both() {
    let warm_up = Fault {
        kind: FaultKind::Errors { factor: 20.0 },
        hits: Hits::Canary,
        onset_secs: 0.0,
        until_secs: 60.5,
    };
    let shared = Fault {
        kind: FaultKind::Errors { factor: 40.0 },
        hits: Hits::BothArms,
        onset_secs: 200.0,
        until_secs: f64::INFINITY,
    };
    let looks = looks(&busy().with(warm_up).with(shared), 7, 400);
    let (canary, baseline) = (errors(&looks, Arm::Canary), errors(&looks, Arm::Baseline));
    assert!((mean(&canary[..60]) - 10.0).abs() < 2.0, "{}", mean(&canary[..60]));
    assert!(mean(&canary[61..200]) < 1.0 && mean(&baseline[..200]) < 1.0);
    assert!((mean(&canary[200..]) - 20.0).abs() < 2.0);
    assert!((mean(&baseline[200..]) - 20.0).abs() < 2.0);
}

#[test]
fn one_bad_instance_shows_in_its_part() {
    let traffic = Traffic::new(100.0, 100.0).with_instances(5, 2);
    let bad = Fault {
        kind: FaultKind::Errors { factor: 50.0 },
        hits: Hits::OneCanaryInstance,
        onset_secs: 0.0,
        until_secs: f64::INFINITY,
    };
    let looks = looks(&Scenario::healthy(traffic).with(bad), 8, 1_000);
    let mut sums = [0.0; 5];
    for look in &looks {
        let pair = &look.signals[ERRORS];
        assert_eq!((pair.parts.canary.len(), pair.parts.baseline.len()), (5, 2));
        let mut whole = 0.0;
        for (sum, part) in sums.iter_mut().zip(&pair.parts.canary) {
            let (failed, _) = share(&Ok(part.value.clone()));
            *sum += failed;
            whole += failed;
        }
        assert_eq!(whole, share(&pair.canary).0);
        assert_eq!(events(&look.signals[REQUESTS].canary).1, 5.0);
    }
    assert_eq!(&*looks[0].signals[ERRORS].parts.canary[3].name, "canary-3");
    // 20 requests a second each, 25 % against 0.5 %.
    assert!((sums[0] / 1_000.0 - 5.0).abs() < 0.4, "{sums:?}");
    assert!(sums[1..].iter().all(|sum| (sum / 1_000.0 - 0.1).abs() < 0.05), "{sums:?}");
}

#[test]
fn a_leak_and_a_level_show_in_the_gauge() {
    let scenario = busy()
        .with_fault(FaultKind::Leak { bytes_per_sec: 2e6 }, 100.0)
        .with_fault(FaultKind::Level { factor: 2.0 }, 300.0);
    let looks = looks(&scenario, 9, 400);
    let memory = |from: usize, to: usize| {
        let levels: Vec<f64> =
            looks[from..to].iter().map(|look| level(&look.signals[MEMORY].canary) / 1e6).collect();
        mean(&levels)
    };
    // 200 MB and half a saw-tooth of 2 %.
    assert!((memory(0, 90) - 202.0).abs() < 1.0, "{}", memory(0, 90));
    assert!((memory(190, 220) - 202.0 - 2.0 * 105.0).abs() < 5.0, "{}", memory(190, 220));
    assert!((memory(360, 390) - 404.0 - 2.0 * 275.0).abs() < 10.0, "{}", memory(360, 390));
    let baseline = looks.iter().map(|look| level(&look.signals[MEMORY].baseline));
    assert!(baseline.fold(0.0, f64::max) < 240e6);
}

#[test]
fn a_crash_is_an_outage_and_then_a_restart() {
    let crash = FaultKind::Crash { every_secs: 30.0, down_secs: 4.0 };
    let looks = looks(&busy().with_fault(crash, 20.0), 10, 90);
    let mut restarts = Vec::new();
    for (index, look) in looks.iter().enumerate() {
        let secs = index + 1;
        let is_down = [21..=24, 51..=54, 81..=84].iter().any(|down| down.contains(&secs));
        let status = match look.signals[APP].canary {
            Ok(Value::Health { status, .. }) => status,
            ref other => panic!("{other:?}"),
        };
        assert_eq!(status, if is_down { Health::Down } else { Health::Up }, "{secs} s");
        assert_eq!(look.canary_gap.is_some(), is_down, "{secs} s");
        if is_down {
            assert_eq!(why(&look.signals[ERRORS].canary), Why::ScrapeFailed, "{secs} s");
            assert_eq!(why(&look.signals[RESTARTS].canary), Why::ScrapeFailed, "{secs} s");
            assert!(look.signals[MEMORY].parts.canary.is_empty());
        }
        if look.signals[RESTARTS].canary == Ok(Value::Restarts(1)) {
            restarts.push(secs);
            // Younger than the warm-up again.
            assert_eq!(why(&look.signals[ERRORS].canary), Why::WarmUp, "{secs} s");
        }
        share(&look.signals[ERRORS].baseline);
    }
    assert_eq!(restarts, [25, 55, 85]);
}

#[test]
fn a_young_canary_is_not_judged_before_its_warm_up() {
    let young = Scenario { canary_age_secs: 3.0, ..busy() };
    let looks = looks(&young, 11, 20);
    for (index, look) in looks.iter().enumerate() {
        if index + 1 < 8 {
            assert_eq!(why(&look.signals[ERRORS].canary), Why::WarmUp);
            assert_eq!(look.signals[RESTARTS].canary, Ok(Value::Restarts(0)));
        } else {
            share(&look.signals[ERRORS].canary);
        }
        share(&look.signals[ERRORS].baseline);
        assert_eq!(look.canary_gap, None);
    }
}

#[test]
fn missing_scrapes_are_made_good_and_resets_lose_a_look() {
    let mut traffic = Traffic::new(10.0, 10.0);
    traffic.arrivals = Arrivals::Fixed;
    let with = |kind| looks(&Scenario::healthy(traffic.clone()).with_fault(kind, 0.0), 12, 2_000);
    let missing = with(FaultKind::MissingScrapes { probability: 0.3 });
    let (mut owed, mut failed) = (0.0, 0);
    for look in &missing {
        owed += 10.0;
        match &look.signals[ERRORS].canary {
            Ok(Value::Share { total, .. }) => {
                assert_eq!(*total, owed);
                assert_eq!(events(&look.signals[REQUESTS].canary).1, owed / 10.0);
                owed = 0.0;
            }
            other => {
                assert_eq!(why(other), Why::ScrapeFailed);
                assert!(look.canary_gap.is_some());
                failed += 1;
            }
        }
    }
    assert!((550..650).contains(&failed), "{failed} of 2000 scrapes failed");
    let resets = with(FaultKind::CounterResets { probability: 0.1 });
    let lost = resets.iter().filter(|look| look.signals[ERRORS].canary.is_err()).count();
    assert!((150..250).contains(&lost), "{lost} of 2000 looks were lost");
    assert!(resets.iter().all(|look| look.canary_gap.is_none()));
}

#[test]
fn without_a_baseline_there_is_none() {
    let traffic = Traffic::new(10.0, 0.0).with_instances(1, 0);
    let looks = looks(&Scenario::healthy(traffic), 13, 3);
    assert!(looks.iter().all(|look| why(&look.signals[ERRORS].baseline) == Why::NotObserved));
    assert!(looks.iter().all(|look| look.signals[ERRORS].canary.is_ok()));
}

#[test]
fn the_past_is_the_healthy_baseline_before_the_release() {
    let scenario = Scenario::healthy(Traffic::new(1.0, 50.0))
        .with(Fault {
            kind: FaultKind::Errors { factor: 100.0 },
            hits: Hits::BothArms,
            onset_secs: 0.0,
            until_secs: f64::INFINITY,
        })
        .with_noise(NoiseModel::own(0.3, 10.0));
    let minute = Duration::from_secs(60);
    let past = past(&rules(), &scenario, 20 * minute, Duration::from_secs(2), 14);
    assert_eq!(past.len(), 600);
    assert_eq!(past.last().map(|look| look.at), Some(START));
    assert_eq!(START.since(past[0].at), Duration::from_secs(1_198));
    let (mut failed, mut asked) = (0.0, 0.0);
    for look in &past {
        assert_eq!((look.secs, look.readings.len()), (2.0, 7));
        let (events, total) = share(&look.readings[ERRORS]);
        (failed, asked) = (failed + events, asked + total);
    }
    assert!((asked / 60_000.0 - 1.0).abs() < 0.02, "{asked} requests");
    assert!((failed / 300.0 - 1.0).abs() < 0.3, "{failed} errors");
}
