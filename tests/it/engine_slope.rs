//! Slopes and levels by evidence, through `Analysis::step` on rules as an operator writes them: what
//! is a leak and what is not, on which instance, how soon, and how often noise is taken for one.
//!
//! False alarms are counted over random walks, mean-reverting noise and saw-teeth. The check that
//! passes the engine must fail a process that is known to be invalid: Sen's interval on the last
//! readings, as it stands in the textbook, at every look.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::{
        analysis::Analysis,
        calibration::{Past, calibrate},
        envelope::{Envelope, SCALES, WINDOW, width_secs},
        gauge::SignEvidence,
        noise::Origin,
        observation::{
            Missing, Observation, Pair, Part, PartKind, Parts, Reading, Time, Value, Why,
        },
        rule::{Op, RuleSet},
        slope::{Level, Question, SlopeEvidence},
        verdict::{EffectKind, Progress, State, Step, Verdict},
    },
    rulefile,
};

use super::{
    engine_false_alarms::{alarms_max, plausible},
    engine_rules::START,
};

const MB: f64 = 1e6;

/// One signal, `memory`, of which `rule` asks something; looks each `interval` seconds.
fn rules(rule: &str, interval: u64, options: &str) -> Arc<RuleSet> {
    let text = format!(
        "version: 1\nservice: scene\nobserve: {{ interval: {interval}s, window: 1m, warmup: 0s }}\n\
         signals:\n  memory: {{ gauge: process_resident_memory_bytes{options} }}\n\
         rules:\n  - {{ when: {rule}, then: rollback }}\n\
         promote: {{ after: 15m, deadline: 30m }}\n"
    );
    let file = rulefile::load("scene.yaml", &text).unwrap_or_else(|faults| panic!("{faults}"));
    Arc::new(file.rules)
}

/// Levels of an arm's instances at a second, in bytes; and when each began, in seconds.
type Instances = Vec<(f64, i64)>;

fn at(secs: u64) -> Time {
    Time(START.0 + i64::try_from(secs).expect("small") * 1000)
}

fn arm(name: &str, instances: &Instances) -> (Reading, Vec<Part>) {
    let part = |(index, (level, began)): (usize, &(f64, i64))| Part {
        kind: PartKind::Instance,
        name: format!("{name}-{index}").into(),
        started: Some(Time(START.0 + began * 1000)),
        value: Value::Level(*level),
    };
    let highest = instances.iter().map(|(level, _)| *level).fold(0.0, f64::max);
    let reading = match instances.is_empty() {
        false => Ok(Value::Level(highest)),
        true => Err(Missing::new(Why::ScrapeFailed, "refused")),
    };
    (reading, instances.iter().enumerate().map(part).collect())
}

/// Takes looks until a final verdict or `last`; the steps.
fn judge(
    rules: Arc<RuleSet>,
    last: u64,
    levels: impl Fn(u64) -> (Instances, Instances),
) -> Vec<Step> {
    let interval = rules.observe.interval.as_secs();
    let mut analysis = Analysis::new(rules, START);
    let mut steps: Vec<Step> = Vec::new();
    for secs in (interval..=last).step_by(usize::try_from(interval).expect("small")) {
        let (canary, baseline) = levels(secs);
        let (canary, canary_parts) = arm("new", &canary);
        let (baseline, baseline_parts) = arm("old", &baseline);
        let parts = Parts { canary: canary_parts, baseline: baseline_parts };
        let signals = vec![Pair { canary, baseline, parts }];
        let step = analysis.step(&Observation {
            at: at(secs),
            signals,
            canary_gap: None,
            instances: None,
        });
        let is_final = step.verdict.is_final();
        steps.push(step);
        if is_final {
            break;
        }
    }
    steps
}

const OLD: i64 = -3600;

/// A level that leaks `per_sec` from `onset` on.
fn leaking(secs: u64, onset: u64, per_sec: f64) -> f64 {
    // A page or so of jitter that is the same in every run.
    let jitter = f64::from(u32::try_from(secs * 7919 % 13).expect("small")) * 4096.0;
    100.0 * MB + secs.saturating_sub(onset) as f64 * per_sec + jitter
}

const BEYOND: &str = "slope(memory) > baseline + 1MB/min";

/// Seconds until the rollback, when there is one.
fn rolled_back(steps: &[Step]) -> Option<f64> {
    let last = steps.last().expect("looks were taken");
    matches!(last.verdict, Verdict::Rollback { .. }).then(|| last.elapsed.as_secs_f64())
}

#[test]
fn a_leak_is_found_within_ninety_seconds_and_says_when_it_ends() {
    for interval in [1, 2, 5] {
        let steps = judge(rules(BEYOND, interval, ", limit: 512MB"), 900, |secs| {
            (vec![(leaking(secs, 60, 0.33 * MB), OLD)], vec![(leaking(secs, 900, 0.0), OLD)])
        });
        let found = rolled_back(&steps).expect("it leaks");
        assert!((60.0..60.0 + 70.0).contains(&found), "{found} at {interval} s looks");
        let clause = &steps.last().expect("one").findings[0].clauses[0];
        let effect = clause.effect.expect("a slope has an interval");
        assert_eq!(effect.kind, EffectKind::SlopeDifference);
        assert!(effect.low < 0.33 * MB && 0.33 * MB < effect.high, "{effect:?}");
        assert!(clause.estimate.is_some_and(|slope| (slope / MB - 0.33).abs() < 0.05));
        let note = clause.note.as_deref().expect("it says over how long");
        assert!(note.contains("reaches its limit of 488 MiB in 20 min"), "{note}");
    }
}

#[test]
fn what_is_no_leak_is_clear() {
    let check = |what: &str, rule: &str, level: fn(u64, u64) -> f64, began: i64| {
        for interval in [1, 5] {
            let steps = judge(rules(rule, interval, ""), 900, |secs| {
                (vec![(level(secs, 0), began)], vec![(level(secs, 1), OLD)])
            });
            assert_eq!(rolled_back(&steps), None, "{what} at {interval} s looks");
            let last = steps.last().expect("looks were taken");
            assert_eq!(last.findings[0].state, State::Clear, "{what}");
        }
    };
    // The second argument tells the arms apart: 0 the canary, 1 the baseline.
    check("a level", BEYOND, |secs, _| leaking(secs, 900, 0.0), OLD);
    check("teeth of 90 s", BEYOND, |secs, arm| ((secs + 37 * arm) % 90) as f64 * MB, OLD);
    check("teeth of 20 s", "slope(memory) > 1MB/min", |secs, _| (secs % 20) as f64 * MB, OLD);
    check(
        "a cold start",
        BEYOND,
        |secs, arm| match arm {
            0 => 80.0 * MB * (1.0 - (-(secs as f64) / 45.0).exp()),
            _ => 80.0 * MB,
        },
        0,
    );
    check("a surge", BEYOND, |secs, _| (secs.clamp(300, 400) - 300) as f64 * MB, OLD);
    check(
        "a cache that is loaded",
        BEYOND,
        |secs, _| if secs > 200 { 500.0 * MB } else { 0.0 },
        OLD,
    );
    check("a shrinking baseline", BEYOND, |secs, arm| 1e9 - (secs * arm) as f64 * MB, OLD);
    check("a leak of both", BEYOND, |secs, _| leaking(secs, 100, MB), OLD);
}

#[test]
fn a_leak_among_teeth_is_a_leak() {
    let steps = judge(rules(BEYOND, 1, ""), 900, |secs| {
        let tooth = |secs: u64| (secs % 15) as f64 * MB;
        (vec![(tooth(secs) + leaking(secs, 60, 0.5 * MB), OLD)], vec![(tooth(secs + 7), OLD)])
    });
    assert!(rolled_back(&steps).is_some_and(|secs| secs < 300.0), "{:?}", rolled_back(&steps));
}

#[test]
fn a_slow_leak_is_found_in_minutes() {
    let steps = judge(rules(BEYOND, 2, ""), 900, |secs| {
        (vec![(leaking(secs, 60, 50.0 * 1024.0), OLD)], vec![(leaking(secs, 900, 0.0), OLD)])
    });
    assert!(rolled_back(&steps).is_some_and(|secs| secs < 360.0), "{:?}", rolled_back(&steps));
}

#[test]
fn one_bad_instance_of_three_is_named_and_is_not_most() {
    let levels = |bad: usize| {
        move |secs: u64| {
            let new = (0..3)
                .map(|index| (leaking(secs, if index < bad { 30 } else { 900 }, 0.5 * MB), OLD));
            (new.collect(), vec![(leaking(secs, 900, 0.0), OLD); 3])
        }
    };
    let steps = judge(rules(BEYOND, 1, ""), 300, levels(1));
    assert!(rolled_back(&steps).is_some());
    let blame = steps.last().expect("one").findings[0].clauses[0].blame.clone();
    let blame = blame.expect("there are several instances");
    assert_eq!((blame.name.as_str(), blame.bad_of), ("new-0", (1, 3)));
    assert!(blame.share > 0.9, "{blame:?}");
    let most = format!("{BEYOND} on most instances");
    assert_eq!(rolled_back(&judge(rules(&most, 1, ""), 300, levels(1))), None);
    assert!(rolled_back(&judge(rules(&most, 1, ""), 300, levels(2))).is_some());
}

#[test]
fn a_restart_begins_a_new_life() {
    // Dies again and again: no life is long enough for a leak, and the shortest say nothing at all.
    for (secs_alive, state) in [(40, State::Clear), (10, State::NotEnoughData)] {
        let steps = judge(rules(BEYOND, 1, ""), 319, |secs| {
            let life = secs / secs_alive * secs_alive;
            let began = i64::try_from(life).expect("small");
            (vec![((secs - life) as f64 * 2.0 * MB, began)], vec![(0.0, OLD)])
        });
        assert_eq!(rolled_back(&steps), None);
        let finding = &steps.last().expect("one").findings[0];
        assert_eq!(finding.state, state, "{secs_alive} s");
        if let Some(missing) = &finding.clauses[0].missing {
            assert!(missing.to_string().contains("of the 3 points"), "{missing}");
        }
    }
}

#[test]
fn falling_is_growing_turned_round() {
    let falls = "slope(memory) < -60MB/min";
    let steps = judge(rules(falls, 1, ""), 900, |secs| {
        (vec![(1e10 - leaking(secs, 60, 3.0 * MB), OLD)], vec![(0.0, OLD)])
    });
    let found = rolled_back(&steps).expect("it falls");
    assert!((60.0..180.0).contains(&found), "{found}");
    let effect = steps.last().expect("one").findings[0].clauses[0].effect.expect("an interval");
    assert!(effect.low < -3.0 * MB && -3.0 * MB < effect.high && effect.high < -MB, "{effect:?}");
    let level = |secs| (vec![(leaking(secs, 60, 3.0 * MB), OLD)], vec![(0.0, OLD)]);
    assert_eq!(rolled_back(&judge(rules(falls, 1, ""), 900, level)), None);
}

#[test]
fn silence_blocks_and_never_fires() {
    // The baseline stops answering: what was found before stays, and is not enough to be clear.
    let steps = judge(rules(BEYOND, 1, ""), 1000, |secs| {
        let baseline = if secs < 200 { vec![(0.0, OLD)] } else { vec![] };
        (vec![(leaking(secs, 2000, 0.0), OLD)], baseline)
    });
    assert_eq!(steps[150].findings[0].state, State::Clear);
    let last = steps.last().expect("one");
    assert_eq!((last.findings[0].state, last.verdict), (State::NotEnoughData, Verdict::Watching));
}

/// What the new and the old version say of memory, for the whole hold.
fn verdict(options: &str, canary: Why, baseline: Option<Why>) -> Verdict {
    let mut analysis = Analysis::new(rules(BEYOND, 5, options), START);
    let reading = |why| Err(Missing::new(why, "process_resident_memory_bytes"));
    let mut last = Verdict::Watching;
    for secs in (5..=900).step_by(5) {
        let old = baseline.map_or(Ok(Value::Level(1e6)), reading);
        let signals = vec![Pair::new(reading(canary), old)];
        last = analysis
            .step(&Observation { at: at(secs), signals, canary_gap: None, instances: None })
            .verdict;
    }
    last
}

#[test]
fn only_what_neither_version_ever_had_can_be_done_without() {
    let (optional, absent) = (", optional: true", Why::AbsentSeries);
    assert_eq!(verdict(optional, absent, Some(absent)), Verdict::Promote);
    assert_eq!(verdict(optional, absent, Some(Why::NotObserved)), Verdict::Promote);
    assert_eq!(verdict("", absent, Some(absent)), Verdict::Watching);
    assert_eq!(verdict(optional, absent, None), Verdict::Watching);
    assert_eq!(verdict(optional, Why::ScrapeFailed, Some(absent)), Verdict::Watching);
}

#[test]
fn a_level_beyond_its_bound_more_often_than_not_is_shown_by_signs() {
    let mut random = StdRng::seed_from_u64(3);
    let noises: Vec<f64> = (0..2000).map(|_| random.random()).collect();
    let noise = |secs: u64| noises[usize::try_from(secs).expect("small")];
    let check = |rule: &str, canary: f64, expected: bool| {
        let steps = judge(rules(rule, 1, ""), 899, |secs| {
            let level = |mean: f64, salt| (mean * (0.9 + 0.2 * noise(secs + salt)), OLD);
            (vec![level(canary, 1000)], vec![level(100.0 * MB, 0)])
        });
        let found = rolled_back(&steps);
        assert_eq!(found.is_some(), expected, "{rule} at {canary}: {found:?}");
        let clause = &steps.last().expect("one").findings[0].clauses[0];
        let effect = clause.effect.expect("signs have an interval");
        assert_eq!(effect.kind, EffectKind::SignShare);
        assert_eq!(effect.estimate > 0.5, expected, "{rule} at {canary}: {effect:?}");
        assert!(effect.low <= effect.estimate && effect.estimate <= effect.high);
    };
    check("memory > 1.1x baseline", 130.0 * MB, true);
    check("memory > 1.1x baseline", 105.0 * MB, false);
    check("memory > 1.1x baseline", 100.0 * MB, false);
    check("memory < 0.9x baseline", 70.0 * MB, true);
    check("memory < 0.9x baseline", 100.0 * MB, false);
    check("memory > 120MB", 150.0 * MB, true);
    check("memory > 120MB", 100.0 * MB, false);
}

/// A past in which the level holds for long makes signs worth less; the finding says so.
#[test]
fn a_level_that_was_measured_brings_its_own_noise() {
    let rules = rules("memory > 1.1x baseline", 1, "");
    let past: Vec<Past> = (0..1200)
        .map(|secs| Past {
            at: Time(START.0 - 1_200_000 + secs * 1000),
            secs: 1.0,
            readings: vec![Ok(Value::Level(if secs / 60 % 2 == 0 { 90.0 } else { 110.0 }))],
        })
        .collect();
    let calibration = calibrate(&rules, &past, Duration::ZERO);
    let mut analysis = Analysis::calibrated(rules, START, &calibration);
    let signals = vec![Pair::new(Ok(Value::Level(150.0)), Ok(Value::Level(100.0)))];
    let step =
        analysis.step(&Observation { at: at(1), signals, canary_gap: None, instances: None });
    let Progress::Evidence { noise, .. } = step.findings[0].clauses[0].progress else {
        panic!("a level without `for` is judged by evidence");
    };
    assert_eq!(noise.origin, Origin::History { secs: 1199.0 });
    assert!((30.0..400.0).contains(&noise.kappa_secs) && noise.factor > 60.0, "{noise:?}");
}

/// How a level wanders. Amplitudes in bytes, times in seconds.
#[derive(Clone, Copy, Debug)]
enum Noise {
    /// A random walk that is drawn back to its mean within `secs`; the longer, the freer.
    Reverting {
        sd: f64,
        secs: f64,
    },
    Walk {
        sd: f64,
    },
    White {
        sd: f64,
    },
    /// Teeth of a random phase, and of a length that varies.
    Teeth {
        height: f64,
        secs: f64,
    },
}

struct Wandering {
    noise: Noise,
    level: f64,
    pace: f64,
}

impl Wandering {
    fn new(noise: Noise, random: &mut StdRng) -> Self {
        let level = match noise {
            Noise::Reverting { sd, .. } => sd * normal(random),
            Noise::Teeth { .. } => random.random(),
            Noise::Walk { .. } | Noise::White { .. } => 0.0,
        };
        Self { noise, level, pace: 1.0 }
    }

    fn next(&mut self, secs: f64, random: &mut StdRng) -> f64 {
        match self.noise {
            Noise::Reverting { sd, secs: memory } => {
                let keep = (-secs / memory).exp();
                self.level = keep * self.level + sd * (1.0 - keep * keep).sqrt() * normal(random);
                self.level
            }
            Noise::Walk { sd } => {
                self.level += sd * secs.sqrt() * normal(random);
                self.level
            }
            Noise::White { sd } => sd * normal(random),
            Noise::Teeth { height, secs: length } => {
                self.level += self.pace * secs / length;
                if self.level >= 1.0 {
                    self.level -= 1.0;
                    self.pace = 0.8 + 0.4 * random.random::<f64>();
                }
                height * self.level
            }
        }
    }
}

fn normal(random: &mut StdRng) -> f64 {
    let (a, b): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// Whether a process ever alarms over a quarter of an hour of looks two seconds apart, both arms
/// having the same noise.
fn alarms(noise: Noise, seed: u64, mut process: impl FnMut(Time, f64, f64) -> bool) -> bool {
    let mut random = StdRng::seed_from_u64(seed);
    let mut canary = Wandering::new(noise, &mut random);
    let mut baseline = Wandering::new(noise, &mut random);
    (1..=450u64).any(|look| {
        let (new, old) = (canary.next(2.0, &mut random), baseline.next(2.0, &mut random));
        process(at(look * 2), new, old)
    })
}

const NOISES: [Noise; 7] = [
    Noise::Reverting { sd: MB, secs: 10.0 },
    Noise::Reverting { sd: 10.0 * MB, secs: 60.0 },
    Noise::Reverting { sd: 10.0 * MB, secs: 600.0 },
    Noise::Walk { sd: 0.5 * MB },
    Noise::White { sd: MB },
    Noise::Teeth { height: 20.0 * MB, secs: 25.0 },
    Noise::Teeth { height: 50.0 * MB, secs: 120.0 },
];

const ALPHA: f64 = 0.01;

#[test]
fn noise_is_taken_for_a_leak_no_more_often_than_stated() {
    let question =
        Question { growing: true, beyond_baseline: true, limit: MB / 60.0, most_instances: false };
    for noise in NOISES {
        let (found, plausible) = plausible(120, ALPHA, |seed| {
            let mut evidence = SlopeEvidence::new(question, 450);
            let name: Arc<str> = "one".into();
            let level = |level| std::iter::once(Level { name: &name, started: None, level });
            alarms(noise, seed, |now, new, old| {
                evidence.step(now, 2.0, level(new), level(old), -ALPHA.log10());
                evidence.found().is_some_and(|found| found.decades >= -ALPHA.log10())
            })
        });
        println!("{noise:?}: {found} of 120, {} allowed", alarms_max(120, ALPHA));
        assert!(plausible, "{noise:?}: {found} of 120 alike arms");
    }
}

/// Levels that are alike, asked for the hardest: `> 1x baseline`. One that holds for longer than the
/// prior says must be told by the baseline's own series.
#[test]
fn alike_levels_are_told_apart_no_more_often_than_stated() {
    for noise in [
        Noise::White { sd: MB },
        Noise::Reverting { sd: MB, secs: 10.0 },
        Noise::Reverting { sd: MB, secs: 40.0 },
        Noise::Teeth { height: 20.0 * MB, secs: 30.0 },
    ] {
        let run = |phi_known: Option<f64>| {
            plausible(200, ALPHA, |seed| {
                let mut evidence = SignEvidence::new(Op::Above, 450);
                alarms(noise, seed, |_, new, old| {
                    evidence.step(new, old, 2.0, phi_known);
                    evidence.learn(old, old);
                    evidence.log_value() >= -ALPHA.ln()
                })
            })
        };
        let (found, plausible) = run(None);
        println!("{noise:?}: {found} of 200, {} allowed", alarms_max(200, ALPHA));
        assert!(plausible, "{noise:?}: {found} of 200 alike arms");
        // Taken for independent, looks at a level that holds are not.
        if let Noise::Reverting { secs: 40.0, .. } = noise {
            let (found, plausible) = run(Some(1e-9));
            assert!(!plausible, "{found}: the check would pass anything");
        }
    }
}

/// The lowest of the pairs' slopes that Sen's interval at this alpha holds, of the readings as they
/// are: no envelope, no allowance for autocorrelation, for what was given back, or for many looks.
#[test]
fn the_textbook_interval_is_caught() {
    let mut caught = 0;
    for noise in NOISES {
        let (_, plausible) = plausible(120, ALPHA, |seed| {
            let mut differences: Vec<f64> = Vec::new();
            alarms(noise, seed, |_, new, old| {
                differences.push(new - old);
                let Some(from) = differences.len().checked_sub(WINDOW) else { return false };
                let recent = &differences[from..];
                let mut slopes: Vec<f64> = (0..WINDOW)
                    .flat_map(|late| (0..late).map(move |early| (early, late)))
                    .map(|(early, late)| {
                        (recent[late] - recent[early]) / (2.0 * (late - early) as f64)
                    })
                    .collect();
                slopes.sort_by(f64::total_cmp);
                // z of 2.33 times sqrt(212.7) is 34: rank (66 - 34) / 2.
                slopes[16] > MB / 60.0
            })
        });
        caught += usize::from(!plausible);
    }
    assert_eq!(caught, NOISES.len(), "the check would pass anything");
}

/// Points of every scale against a slow reading of what they are: all readings are kept.
#[test]
fn the_envelope_equals_a_slow_reference() {
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut readings: Vec<(f64, f64)> = Vec::new();
        let mut envelope = Envelope::new(0.0);
        let mut secs = 0.0;
        for _ in 0..700 {
            let level = f64::from(random.random_range(-1000..1000));
            envelope.push(secs, level);
            readings.push((secs, level));
            secs += f64::from([1u8, 1, 1, 2, 5, 30][random.random_range(0..6)]);
        }
        for scale in 0..SCALES {
            let number = |secs: f64| (secs / width_secs(scale)).floor();
            let last = number(readings.last().expect("some").0);
            let mut points: Vec<(f64, f64, f64)> = Vec::new();
            for (secs, level) in readings.iter().filter(|(secs, _)| number(*secs) < last) {
                match points.last_mut() {
                    Some(point) if point.0 == number(*secs) => point.2 = point.2.min(*level),
                    Some(_) | None => points.push((number(*secs), *secs, *level)),
                }
            }
            let Some((window, before)) = envelope.window(scale) else {
                assert!(points.len() < WINDOW, "seed {seed} scale {scale}");
                continue;
            };
            let found: Vec<(f64, f64)> = before
                .chain(window)
                .map(|point| (f64::from(point.secs), f64::from(point.level)))
                .collect();
            let from = points.len() - found.len();
            let expected: Vec<(f64, f64)> =
                points[from..].iter().map(|(_, secs, level)| (*secs, *level)).collect();
            assert_eq!(found, expected, "seed {seed} scale {scale}");
        }
    }
}

#[test]
fn nonsense_and_many_instances_cost_nothing() {
    let mut random = StdRng::seed_from_u64(7);
    let question =
        Question { growing: true, beyond_baseline: true, limit: 1.0, most_instances: true };
    let mut evidence = SlopeEvidence::new(question, 1);
    let names: Vec<Arc<str>> = (0..500).map(|index| format!("i{index}").into()).collect();
    for _ in 0..2000 {
        // A clock that jumps, instances that come and go, levels of any size.
        let now = Time(START.0 + random.random_range(-10_000_000..10_000_000));
        let mut levels = |count: usize| -> Vec<(usize, f64)> {
            let level = |random: &mut StdRng| match random.random_range(0..5) {
                0 => f64::NAN,
                1 => f64::INFINITY,
                2 => f64::MAX,
                3 => 0.0,
                _ => random.random_range(-1e12..1e12),
            };
            (0..count).map(|_| (random.random_range(0..500), level(&mut random))).collect()
        };
        let (new, old) = (levels(40), levels(40));
        let named = |levels: Vec<(usize, f64)>| -> Vec<(Arc<str>, f64)> {
            levels.into_iter().map(|(name, level)| (names[name].clone(), level)).collect()
        };
        let (new, old) = (named(new), named(old));
        fn each(all: &[(Arc<str>, f64)]) -> impl Iterator<Item = Level<'_>> {
            all.iter().map(|(name, level)| Level { name, started: None, level: *level })
        }
        evidence.step(now, 1.0, each(&new), each(&old), 3.0);
        if let Some(found) = evidence.found() {
            assert!(found.decades.is_finite() && found.decades >= 0.0);
            assert!(found.slope.is_finite() && found.effect.0.is_finite(), "{found:?}");
        }
    }
}
