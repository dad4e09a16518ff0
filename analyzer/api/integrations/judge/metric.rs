//! One metric of both versions: from the values that came to a classification and its reason.

use super::{
    CanaryAnalysis, Class, Metadata, MetricConfig, MetricResult, MetricSetPair, Outliers,
    ResultMetadata, Stats, Value,
};
use crate::engine::series::{Apart, FALSE_ALARM, Pairs, TooFew, moments};

/// Larger values are none, as everywhere else.
const VALUE_MAX: f64 = 1e30;

/// Interquartile ranges beyond the quartiles from which on a value is an outlier.
const OUTLIER_FACTOR: f64 = 3.0;

/// One metric with what its score depends on.
pub(super) struct Judged {
    /// What is answered.
    pub(super) result: MetricResult,
    /// How it counts.
    pub(super) counts: Counts,
}

/// How a metric counts in the score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    /// It was seen to be well.
    Passed,
    /// It was seen to be bad, or it lacks the data that it must have.
    Failed,
    /// It lacks data, which its configuration allows.
    Neutral,
    /// It lacks data, or could not be judged: neither well nor bad.
    Unknown,
}

/// What a metric's configuration asks.
struct Asked {
    increase: Option<Bounds>,
    decrease: Option<Bounds>,
    replaces_nan: bool,
    outlier_factor: Option<f64>,
    is_critical: bool,
    must_have_data: Option<bool>,
}

/// Multiples of the control, less 1.
struct Bounds {
    allowed: f64,
    critical: Option<f64>,
}

/// A configured metric that came without values.
pub(super) fn absent(config: &MetricConfig) -> Judged {
    let pair = MetricSetPair {
        name: config.name.clone(),
        id: config.name.clone(),
        tags: Default::default(),
        values: super::Values { control: Vec::new(), experiment: Vec::new() },
    };
    judge(Some(config), &pair)
}

/// Judges one pair.
pub(super) fn judge(config: Option<&MetricConfig>, pair: &MetricSetPair) -> Judged {
    let groups = config.map(|config| config.groups.clone()).unwrap_or_default();
    let mut judged = Judged {
        result: MetricResult {
            name: pair.name.clone(),
            id: pair.id.clone(),
            tags: pair.tags.clone(),
            classification: Class::Error,
            classification_reason: String::new(),
            groups,
            experiment_metadata: Metadata { stats: stats(&[]) },
            control_metadata: Metadata { stats: stats(&[]) },
            result_metadata: ResultMetadata::default(),
            critical: false,
        },
        counts: Counts::Unknown,
    };
    let asked = config.ok_or_else(|| "canaryConfig has no metric of this name".to_owned());
    let classified = asked.and_then(asked_of).and_then(|asked| classify(&asked, pair, &mut judged));
    if let Err(fault) = classified {
        judged.result.classification_reason = fault;
    }
    judged
}

fn classify(asked: &Asked, pair: &MetricSetPair, judged: &mut Judged) -> Result<(), String> {
    let steps = pair.values.control.len().max(pair.values.experiment.len());
    let mut control = values("control", &pair.values.control, steps, asked)?;
    let mut experiment = values("experiment", &pair.values.experiment, steps, asked)?;
    // Of what neither version has a single value, zeros would be made up.
    if asked.replaces_nan && [&control, &experiment].iter().any(|all| !known(all).is_empty()) {
        let zero = |value: &mut Option<f64>| *value = value.or(Some(0.0));
        control.iter_mut().chain(&mut experiment).for_each(zero);
    }
    let result = &mut judged.result;
    result.control_metadata.stats = stats(&known(&control));
    result.experiment_metadata.stats = stats(&known(&experiment));
    let pairs = Pairs::new(&control, &experiment);
    result.result_metadata = metadata(&pairs);

    let high = asked.increase.as_ref().map(|bounds| (bounds, pairs.beyond(bounds.allowed)));
    let low = asked.decrease.as_ref().map(|bounds| (bounds, pairs.beyond(bounds.allowed)));
    let is_above = |found: &Result<Apart, TooFew>| found.is_ok_and(|apart| apart.low > 0.0);
    let is_below = |found: &Result<Apart, TooFew>| found.is_ok_and(|apart| apart.high < 0.0);
    let (class, is_critical) = match (&high, &low) {
        (Some((bounds, found)), _) if is_above(found) => {
            (Class::High, bounds.critical.is_none_or(|by| is_above(&pairs.beyond(by))))
        }
        (_, Some((bounds, found))) if is_below(found) => {
            (Class::Low, bounds.critical.is_none_or(|by| is_below(&pairs.beyond(by))))
        }
        (Some((_, Err(_))), _) | (_, Some((_, Err(_)))) => (Class::Nodata, true),
        (Some((_, Ok(_))) | None, Some((_, Ok(_))) | None) => (Class::Pass, false),
    };
    // Values that are too few yet are not what a metric may or must not lack.
    let lacks = pairs.is_empty();
    judged.counts = match (class, asked.must_have_data) {
        (Class::Pass, _) => Counts::Passed,
        (Class::High | Class::Low, _) => Counts::Failed,
        (Class::Nodata, Some(false)) if lacks => Counts::Neutral,
        (Class::Nodata, Some(true)) if lacks => Counts::Failed,
        (Class::Nodata | Class::Error, _) => Counts::Unknown,
    };
    let has_failed = judged.counts == Counts::Failed;
    result.critical = asked.is_critical && is_critical && has_failed;
    result.classification = class;
    result.classification_reason = match class {
        Class::Nodata => lacking(&control, &experiment, &pairs),
        Class::Pass | Class::High | Class::Low | Class::Error => compared(class, asked, &pairs),
    };
    Ok(())
}

/// Reads a metric's configuration.
fn asked_of(config: &MetricConfig) -> Result<Asked, String> {
    let nothing = CanaryAnalysis::default();
    let given = config.analysis_configurations.as_ref();
    let given = given.and_then(|all| all.canary.as_ref()).unwrap_or(&nothing);
    let (up, down) = match given.direction.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("either") => (true, true),
        Some("increase") => (true, false),
        Some("decrease") => (false, true),
        Some(_) => return Err(odd("direction", &given.direction, "increase, decrease or either")),
    };
    let replaces_nan = match given.nan_strategy.as_deref() {
        None | Some("remove") => false,
        Some("replace") => true,
        Some(_) => return Err(odd("nanStrategy", &given.nan_strategy, "remove or replace")),
    };
    let sizes = given.effect_size.clone().unwrap_or_default();
    if sizes.measure.as_ref().is_some_and(|measure| measure != "meanRatio") {
        return Err(odd("effectSize.measure", &sizes.measure, "meanRatio"));
    }
    let above = |name: &str, value: Option<f64>| bound(name, value, 1.0, VALUE_MAX);
    let below = |name: &str, value: Option<f64>| bound(name, value, 0.0, 1.0);
    let increase = Bounds {
        allowed: above("allowedIncrease", sizes.allowed_increase)?.unwrap_or(0.0),
        critical: above("criticalIncrease", sizes.critical_increase)?,
    };
    let decrease = Bounds {
        allowed: below("allowedDecrease", sizes.allowed_decrease)?.unwrap_or(0.0),
        critical: below("criticalDecrease", sizes.critical_decrease)?,
    };
    Ok(Asked {
        increase: up.then_some(increase),
        decrease: down.then_some(decrease),
        replaces_nan,
        outlier_factor: outlier_factor(given.outliers.as_ref())?,
        is_critical: given.critical == Some(true),
        must_have_data: given.must_have_data,
    })
}

fn odd(name: &str, found: &Option<String>, expected: &str) -> String {
    let found: String = found.as_deref().unwrap_or_default().chars().take(40).collect();
    format!("{name} is {found:?}, expected {expected}")
}

/// A multiple of the control as what is added to 1.
fn bound(name: &str, value: Option<f64>, least: f64, most: f64) -> Result<Option<f64>, String> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(format!("effectSize.{name} is {value}, expected {least} to {most}"))
        }
        Some(value) => Ok(Some(value - 1.0)),
        None => Ok(None),
    }
}

fn outlier_factor(outliers: Option<&Outliers>) -> Result<Option<f64>, String> {
    let Some(outliers) = outliers else { return Ok(None) };
    match outliers.strategy.as_deref() {
        None | Some("keep") => Ok(None),
        Some("remove") => match outliers.outlier_factor {
            None => Ok(Some(OUTLIER_FACTOR)),
            Some(factor) if factor > 0.0 => Ok(Some(factor)),
            Some(factor) => Err(format!("outlierFactor is {factor}, expected more than 0")),
        },
        Some(_) => Err(odd("outliers.strategy", &outliers.strategy, "keep or remove")),
    }
}

/// The values of so many steps, each a number or missing. NaN and infinity are missing; a word that is
/// no number is a fault.
fn values(
    arm: &str,
    given: &[Value],
    steps: usize,
    asked: &Asked,
) -> Result<Vec<Option<f64>>, String> {
    let number = |value: &Value| {
        let number = match value {
            Value::Number(number) => *number,
            Value::Nothing(()) => return Ok(None),
            Value::Word(word) => {
                let expected = || format!("{arm} has {word:.40?}, expected numbers and \"NaN\"");
                word.parse().map_err(|_| expected())?
            }
        };
        Ok(Some(number).filter(|number: &f64| number.abs() <= VALUE_MAX))
    };
    let mut values = given.iter().map(number).collect::<Result<Vec<_>, String>>()?;
    values.resize(steps, None);
    if let Some(factor) = asked.outlier_factor {
        leave_out_outliers(&mut values, factor);
    }
    Ok(values)
}

/// Where the middle half of all values is one value there is no scale by which another is far away.
fn leave_out_outliers(values: &mut [Option<f64>], factor: f64) {
    let mut sorted = known(values);
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return };
    let quartile = |share: f64| {
        let at = share * last as f64;
        let (low, part) = (at.floor() as usize, at.fract());
        sorted[low] + part * (sorted[(low + 1).min(last)] - sorted[low])
    };
    let (first, third) = (quartile(0.25), quartile(0.75));
    let reach = factor * (third - first);
    if reach > 0.0 {
        let is_near = |value: &f64| (first - reach..=third + reach).contains(value);
        values.iter_mut().for_each(|value| *value = value.filter(is_near));
    }
}

fn known(values: &[Option<f64>]) -> Vec<f64> {
    values.iter().copied().flatten().collect()
}

fn stats(values: &[f64]) -> Stats {
    let (mean, std) = moments(values);
    let some = |value: f64| (!values.is_empty()).then_some(value);
    Stats {
        count: values.len(),
        mean: some(mean),
        std: some(std),
        min: values.iter().copied().reduce(f64::min),
        max: values.iter().copied().reduce(f64::max),
    }
}

fn metadata(pairs: &Pairs) -> ResultMetadata {
    if pairs.is_empty() {
        return ResultMetadata::default();
    }
    let (control, experiment) = (pairs.means().0, pairs.means().1);
    let ratio = experiment / control;
    let apart = pairs.beyond(0.0).ok();
    ResultMetadata {
        ratio: Some(ratio).filter(|ratio| ratio.is_finite()),
        difference: Some(experiment - control),
        interval: apart.map(|apart| [apart.low, apart.high]),
    }
}

fn lacking(control: &[Option<f64>], experiment: &[Option<f64>], pairs: &Pairs) -> String {
    let is_empty = |values: &[Option<f64>]| values.iter().all(Option::is_none);
    match (is_empty(control), is_empty(experiment)) {
        (true, true) => "there are no values".to_owned(),
        (true, false) => "the control has no values".to_owned(),
        (false, true) => "the experiment has no values".to_owned(),
        (false, false) if pairs.is_empty() => "no step has a value of both".to_owned(),
        (false, false) => {
            let few = pairs.beyond(0.0).err().map_or(pairs.len() as f64, |few| few.worth);
            format!(
                "too few values: {} steps have one of both, which is worth {few:.1} independent \
                 values, and no difference could be shown however large",
                pairs.len()
            )
        }
    }
}

fn compared(class: Class, asked: &Asked, pairs: &Pairs) -> String {
    let (control, experiment) = pairs.means();
    let confidence = 100.0 * (1.0 - FALSE_ALARM);
    let interval = pairs.beyond(0.0).map_or_else(
        |_| String::new(),
        |apart| {
            let (low, high) = (short(apart.low), short(apart.high));
            format!(", with {confidence} % confidence between {low} and {high}")
        },
    );
    let means = format!(
        "the experiment's mean is {} and the control's {} over {} steps, a difference of {}{interval}",
        short(experiment),
        short(control),
        pairs.len(),
        short(experiment - control)
    );
    let beyond = |bounds: &Option<Bounds>| match bounds {
        Some(bounds) if bounds.allowed != 0.0 => {
            format!("; allowed is {} times the control", short(1.0 + bounds.allowed))
        }
        Some(_) | None => String::new(),
    };
    match class {
        Class::High => format!("higher: {means}{}", beyond(&asked.increase)),
        Class::Low => format!("lower: {means}{}", beyond(&asked.decrease)),
        Class::Pass => format!("not shown to be worse: {means}"),
        Class::Nodata | Class::Error => means,
    }
}

/// Four digits are enough to read.
fn short(value: f64) -> String {
    if value == 0.0 || (1e-3..1e6).contains(&value.abs()) {
        let digits = (3 - value.abs().max(1.0).log10().floor() as usize).min(4);
        let text = format!("{value:.digits$}");
        let bare = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        bare.to_owned()
    } else {
        format!("{value:.3e}")
    }
}
