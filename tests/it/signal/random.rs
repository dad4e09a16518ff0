//! Seeded random bodies: against a slow, obvious reference, cut anywhere, in any order, with any
//! bits for values.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use rollgate::{
    engine::observation::{Histogram, Missing, Observation, Part, PartKind, Reading, Value, Why},
    signal::{
        carry::Carry,
        reduce::Reducer,
        sample::{Gathered, InstanceReading, Labels, Level, Sample},
        spec::{PROCESS_START_TIME, SignalSpec},
    },
};

use super::{BEGIN_SECS, at, gathered, line, probe, specs};

/// What one body said: process start and series by name. None: the scrape failed.
type Body = Option<(f64, BTreeMap<u32, f64>)>;

/// A process as it really is.
struct Process {
    start: f64,
    counters: BTreeMap<u32, f64>,
    hidden: BTreeMap<u32, bool>,
    /// Events since the first body.
    events: f64,
}

impl Process {
    fn work(&mut self, random: &mut StdRng) {
        for series in 0..6 {
            if self.counters.contains_key(&series) || random.random_bool(0.1) {
                let more = f64::from(random.random_range(0..5u32));
                *self.counters.entry(series).or_insert(0.0) += more;
                self.events += more;
            }
        }
    }

    fn body(&mut self, random: &mut StdRng, is_first: bool) -> BTreeMap<u32, f64> {
        let mut body = BTreeMap::new();
        for (&series, &value) in &self.counters {
            // Only a series that has been shown can vanish.
            let hidden = self.hidden.entry(series).or_insert(false);
            *hidden = !is_first && random.random_bool(if *hidden { 0.7 } else { 0.05 });
            if !*hidden {
                let bad = [f64::NAN, f64::INFINITY, -3.0][random.random_range(0..3usize)];
                body.insert(series, if random.random_bool(0.05) { bad } else { value });
            }
        }
        body
    }
}

/// What the last body of a history amounts to, from the whole of it every time.
fn reference(history: &[Body]) -> Result<f64, Why> {
    let read: Vec<&(f64, BTreeMap<u32, f64>)> = history.iter().flatten().collect();
    let Some(((start, now), earlier)) = read.split_last().map(|(now, earlier)| (*now, earlier))
    else {
        return Err(Why::ScrapeFailed);
    };
    if history.last().is_none_or(Option::is_none) {
        return Err(Why::ScrapeFailed);
    }
    if now.is_empty() {
        return Err(Why::AbsentSeries);
    }
    if earlier.is_empty() {
        return Err(Why::FirstLook);
    }
    let good = |value: f64| value.is_finite() && value >= 0.0;
    let life: Vec<&BTreeMap<u32, f64>> =
        earlier.iter().filter(|body| body.0 == *start).map(|body| &body.1).collect();
    let (mut sum, mut any, mut why) = (0.0, false, Why::BadValue);
    for (series, &value) in now {
        let shown: Vec<f64> = life.iter().filter_map(|body| body.get(series).copied()).collect();
        let mark = shown.iter().copied().rfind(|value| good(*value));
        let increment = match mark {
            _ if !good(value) => {
                why = Why::BadValue;
                continue;
            }
            Some(mark) if value >= mark => value - mark,
            None if !shown.is_empty() => {
                why = Why::FirstLook;
                continue;
            }
            Some(_) | None => value,
        };
        sum += increment;
        any = true;
    }
    if any { Ok(sum) } else { Err(why) }
}

fn counter_sample(series: u32, value: f64) -> Sample {
    let labels = Labels::new(vec![("n".into(), series.to_string().into())]);
    Sample::number("err_total".into(), labels, value)
}

fn start_sample(value: f64) -> Sample {
    Sample::number(PROCESS_START_TIME.into(), Labels::default(), value)
}

fn one_instance(secs: f64, samples: Result<Vec<Sample>, Missing>) -> Gathered {
    let mut look = gathered(secs, "i: ");
    look.canary[0].samples = samples;
    look
}

#[test]
fn increments_equal_the_slow_reference_and_never_exceed_the_truth() {
    let mut judged = 0;
    for seed in 0..400 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut process = Process {
            start: BEGIN_SECS - 1000.0,
            counters: (0..3)
                .map(|series| (series, f64::from(random.random_range(0..99u32))))
                .collect(),
            hidden: BTreeMap::new(),
            events: 0.0,
        };
        let mut reducer = Reducer::new(specs("count err_total"), Duration::ZERO, Carry::default());
        let (mut history, mut sum): (Vec<Body>, f64) = (Vec::new(), 0.0);
        for look in 0..60 {
            process.work(random);
            if random.random_bool(0.04) {
                process.start = BEGIN_SECS + f64::from(look) * 2.0 - 0.5;
                process.counters.clear();
                process.hidden.clear();
            }
            let is_first = history.iter().flatten().next().is_none();
            let body = (!random.random_bool(0.1)).then(|| process.body(random, is_first));
            if is_first && body.is_some() {
                process.events = 0.0;
            }
            let samples = match &body {
                Some(body) => {
                    let series = body.iter().map(|(series, value)| counter_sample(*series, *value));
                    let mut samples: Vec<Sample> = series.collect();
                    samples.push(start_sample(process.start));
                    samples.shuffle(random);
                    Ok(samples)
                }
                None => Err(Missing::new(Why::ScrapeFailed, "")),
            };
            history.push(body.map(|body| (process.start, body)));
            let seen = reducer.reduce(&one_instance(f64::from(look) * 2.0, samples));
            let got = match &seen.signals[0].canary {
                Ok(Value::Events { events, .. }) => Ok(*events),
                Ok(value) => panic!("seed {seed} look {look}: {value:?}"),
                Err(missing) => Err(missing.why),
            };
            let expected = reference(&history);
            if expected.is_ok() || got.is_ok() {
                assert_eq!(got, expected, "seed {seed} look {look}");
            }
            sum += got.unwrap_or(0.0);
            judged += usize::from(got.is_ok());
            let truth = process.events;
            assert!(sum <= truth, "seed {seed} look {look}: {sum} counted of {truth}");
        }
    }
    assert!(judged > 10_000, "only {judged} looks were judged");
}

fn every_kind() -> Arc<[SignalSpec]> {
    let texts = [
        r#"ratio req{status=~"5.."} / req"#,
        "count err_total",
        "histogram lat",
        "max g / limit",
        "health",
        "restarts process_start_time_seconds",
        "promql",
    ];
    texts.iter().flat_map(|text| specs(text).to_vec()).collect()
}

fn random_sample(random: &mut StdRng, value: f64) -> Sample {
    let names = ["req", "err_total", "lat_bucket", "g", "limit", PROCESS_START_TIME];
    let name = names[random.random_range(0..names.len())];
    let pick = |random: &mut StdRng, of: &[&str]| of[random.random_range(0..of.len())].to_owned();
    let labels = match name {
        "req" => vec![("status", pick(random, &["200", "500", "503"]))],
        "lat_bucket" => vec![
            ("le", pick(random, &["0.1", "0.5", "1", "+Inf", "+Inf"])),
            ("route", pick(random, &["a", "b"])),
        ],
        _ => Vec::new(),
    };
    let labels = labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    Sample::number(name.into(), Labels::new(labels), value)
}

fn random_look(random: &mut StdRng, secs: f64, value: impl Fn(&mut StdRng) -> f64) -> Gathered {
    let arm = |names: &[&str], random: &mut StdRng| {
        let mut instances: Vec<InstanceReading> = Vec::new();
        for name in names {
            if random.random_bool(0.1) {
                continue;
            }
            let samples = (0..random.random_range(0..30)).map(|_| {
                let value = value(random);
                random_sample(random, value)
            });
            let samples: Vec<Sample> = samples.collect();
            let fails = random.random_bool(0.1);
            let statuses = ["up", "up", "degraded", "down", "unclear"];
            let mut status = probe(statuses[random.random_range(0..statuses.len())]);
            status.signal = 4;
            instances.push(InstanceReading {
                instance: (*name).into(),
                at: at(secs - f64::from(random.random_range(0..2u32))),
                samples: if fails { Err(Missing::new(Why::Stale, "")) } else { Ok(samples) },
                refused: None,
                probes: vec![status],
                levels: Vec::new(),
            });
        }
        instances.push(InstanceReading {
            instance: "promql".into(),
            at: at(secs),
            samples: Ok(Vec::new()),
            refused: None,
            probes: Vec::new(),
            levels: vec![Level { signal: 6, value: Ok(value(random)) }],
        });
        instances
    };
    let canary = arm(&["a", "b", "c"], random);
    let baseline = arm(&["d", "e"], random);
    Gathered { at: at(secs), canary, baseline, dependencies: Vec::new() }
}

/// Numbers as services expose them: counters that grow, and now and then anything.
fn plausible(secs: f64) -> impl Fn(&mut StdRng) -> f64 {
    move |random| match random.random_range(0..40) {
        0 => f64::NAN,
        1 => -1.0,
        2 => 0.0,
        _ => (secs * 10.0).floor() + f64::from(random.random_range(0..10u32)),
    }
}

#[test]
fn a_reducer_that_resumes_from_its_carry_sees_the_same() {
    let warmup = Duration::from_secs(5);
    let (mut values, mut kinds) = (0, [0; 7]);
    for seed in 0..40 {
        let random = &mut StdRng::seed_from_u64(seed);
        let looks: Vec<Gathered> = (0..30)
            .map(|look| random_look(random, f64::from(look), plausible(f64::from(look))))
            .collect();
        let mut whole = Reducer::new(every_kind(), warmup, Carry::default());
        let mut carries = Vec::new();
        let mut expected: Vec<Observation> = Vec::new();
        for look in &looks {
            carries.push(whole.carry().clone());
            expected.push(whole.reduce(look));
        }
        for observation in &expected {
            for (signal, pair) in observation.signals.iter().enumerate() {
                values += usize::from(pair.canary.is_ok());
                kinds[signal] += usize::from(pair.canary.is_ok());
            }
        }
        for (cut, carry) in carries.into_iter().enumerate() {
            let mut resumed = Reducer::new(every_kind(), warmup, carry);
            let got: Vec<Observation> =
                looks[cut..].iter().map(|look| resumed.reduce(look)).collect();
            assert_eq!(got, expected[cut..], "seed {seed}, cut before look {cut}");
        }
    }
    assert!(values > 1000 && kinds.iter().all(|kind| *kind > 20), "{kinds:?} of {values}");
}

#[test]
fn the_order_of_series_does_not_matter() {
    for seed in 0..60 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut straight = Reducer::new(every_kind(), Duration::ZERO, Carry::default());
        let mut shuffled = Reducer::new(every_kind(), Duration::ZERO, Carry::default());
        for look in 0..20 {
            let mut seen = random_look(random, f64::from(look), plausible(f64::from(look)));
            // A series given twice counts as first given, so here each is given once.
            for reading in seen.canary.iter_mut().chain(&mut seen.baseline) {
                if let Ok(samples) = &mut reading.samples {
                    samples.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
                    samples.dedup_by(|a, b| (&a.name, &a.labels) == (&b.name, &b.labels));
                }
            }
            let expected = straight.reduce(&seen);
            for reading in seen.canary.iter_mut().chain(&mut seen.baseline) {
                if let Ok(samples) = &mut reading.samples {
                    samples.shuffle(random);
                }
            }
            assert_eq!(shuffled.reduce(&seen), expected, "seed {seed} look {look}");
        }
    }
}

/// The instances of a canary that has several add up to what it is judged by.
#[test]
fn instances_add_up_to_the_arm() {
    let counts = |value: &Value| match value {
        Value::Share { events, total } => Some(vec![*events, *total]),
        Value::Events { events, instance_secs, .. } => Some(vec![*events, *instance_secs]),
        Value::Histogram(Histogram { counts, .. }) => Some(counts.clone()),
        Value::Native(native) => Some(native.classic().counts),
        Value::Level(_) | Value::Health { .. } | Value::Restarts(_) => None,
    };
    let mut compared = 0;
    for seed in 0..300 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut reducer = Reducer::new(every_kind(), Duration::ZERO, Carry::default());
        for look in 0..20 {
            let secs = f64::from(look);
            let seen = reducer.reduce(&random_look(random, secs, plausible(secs)));
            for pair in &seen.signals {
                let instances = pair.parts.canary.iter();
                let instances: Vec<&Part> =
                    instances.filter(|part| part.kind == PartKind::Instance).collect();
                let Some(arm) = pair.canary.as_ref().ok().and_then(counts) else { continue };
                let sums = instances.iter().filter_map(|part| counts(&part.value)).fold(
                    vec![0.0; arm.len()],
                    |sums, one| {
                        // Layouts that differ are joined on the edges in common.
                        if one.len() != sums.len() {
                            return sums;
                        }
                        sums.iter().zip(one).map(|(sum, count)| sum + count).collect()
                    },
                );
                let same_layout = instances
                    .iter()
                    .all(|part| counts(&part.value).is_some_and(|one| one.len() == arm.len()));
                if instances.len() > 1 && same_layout {
                    assert_eq!(sums, arm, "seed {seed} look {look}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 100, "only {compared} readings were compared");
}

#[test]
fn any_bits_for_values_give_sound_numbers() {
    let sound = |reading: &Reading| match reading {
        Ok(Value::Share { events, total }) => {
            events.is_finite() && *events >= 0.0 && total.is_finite() && *total > 0.0
        }
        Ok(Value::Events { events, instance_secs, .. }) => {
            events.is_finite()
                && *events >= 0.0
                && instance_secs.is_finite()
                && *instance_secs > 0.0
        }
        Ok(Value::Histogram(histogram)) => {
            histogram.counts.len() == histogram.edges.len() + 1
                && histogram.edges.windows(2).all(|pair| pair[0] < pair[1])
                && histogram.counts.iter().all(|count| *count >= 0.0)
                && histogram.total().is_finite()
        }
        Ok(Value::Native(native)) => native.total().is_finite() && native.total() > 0.0,
        Ok(Value::Level(level)) => level.is_finite(),
        Ok(Value::Health { .. } | Value::Restarts(_)) | Err(_) => true,
    };
    let any_bits = |random: &mut StdRng| match random.random_range(0..4) {
        0 => f64::from_bits(random.random()),
        1 => [f64::MAX, 1e30, 1e29][random.random_range(0..3usize)],
        2 => f64::from(random.random_range(0..1000u32)),
        _ => [f64::NAN, f64::INFINITY, -0.0, 5e-324][random.random_range(0..4usize)],
    };
    for seed in 0..200 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut reducer = Reducer::new(every_kind(), Duration::ZERO, Carry::default());
        for look in 0..20 {
            let seen = reducer.reduce(&random_look(random, f64::from(look), any_bits));
            for pair in &seen.signals {
                for reading in [&pair.canary, &pair.baseline] {
                    assert!(sound(reading), "seed {seed} look {look}: {}", line(reading));
                }
                for part in pair.parts.canary.iter().chain(&pair.parts.baseline) {
                    let value = Ok(part.value.clone());
                    assert!(sound(&value), "seed {seed} look {look}: {}", line(&value));
                }
                let named = |part: &Part| (part.kind, part.name.clone());
                let sorted = |parts: &[Part]| parts.is_sorted_by(|a, b| named(a) < named(b));
                assert!(sorted(&pair.parts.canary) && sorted(&pair.parts.baseline));
            }
        }
    }
}
