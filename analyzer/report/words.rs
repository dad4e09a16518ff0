//! What a finding rests on, in words: the effect with its interval, what is to blame, and the noise
//! that was reckoned with.

use super::{
    explain, format,
    shape::{
        BlameShape, ClauseShape, EffectShape, HeadcountShape, InstancesShape, NoiseShape,
        ProgressShape, RulesRef,
    },
};

/// A part with this much of the excess, and bad alone, has all of the blame.
const SOLE_SHARE_MIN: f64 = 0.5;

/// An effect with its anytime-valid interval: `8.1x, 95 % interval 4.2x to 15x at any look`. That is
/// not the interval of the estimate, which is of one look's window.
pub fn effect(effect: &EffectShape, unit: &str) -> String {
    format!("{}, {}", effect_value(effect, effect.estimate, unit), effect_interval(effect, unit))
}

/// The interval alone.
pub fn effect_interval(effect: &EffectShape, unit: &str) -> String {
    let value = |value| effect_value(effect, value, unit);
    // A ratio is never below zero, so that zero says nothing.
    let low = effect.low.filter(|low| !is_ratio(effect) || *low > 0.0);
    let ends = match (low, effect.high) {
        (Some(low), Some(high)) => range(&value(low), &value(high)),
        (Some(low), None) => format!("{} and more", value(low)),
        (None, Some(high)) => format!("up to {}", value(high)),
        (None, None) => "open on both sides".to_owned(),
    };
    let confidence = format::quantity(effect.confidence, "share");
    format!("{confidence} interval {ends} at any look")
}

/// Both ends, with a unit that they share said once.
fn range(low: &str, high: &str) -> String {
    match (low.split_once(' '), high.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number} to {high}"),
        _ => format!("{low} to {high}"),
    }
}

fn is_ratio(effect: &EffectShape) -> bool {
    matches!(effect.kind.as_str(), "rate_ratio" | "quantile_ratio")
}

fn effect_value(effect: &EffectShape, value: f64, unit: &str) -> String {
    match effect.kind.as_str() {
        // Two digits: its interval is wider than the third.
        "rate_ratio" | "quantile_ratio" if value >= 9.95 => {
            format!("{}x", format::quantity(value.round(), "number"))
        }
        "rate_ratio" | "quantile_ratio" => format!("{}x", format::quantity(value, "number")),
        "sign_share" => format::quantity(value, "share"),
        _ => format::quantity(value, unit),
    }
}

/// What is to blame, without a full stop:
/// `one instance of 5 is to blame: 10.0.0.3:8080 has 92 % of the excess`.
pub fn blame(blame: &BlameShape) -> String {
    let BlameShape { by, name, share, bad, of } = blame;
    let share_words = format::quantity(*share, "share");
    if by == "edge" {
        return format!("strongest beyond {name}, at {bad} of {of} bucket edges");
    }
    let parts = if *of == 1 { by.clone() } else { format!("{by}s") };
    if *bad <= 1 && *share >= SOLE_SHARE_MIN {
        return format!("one {by} of {of} is to blame: {name} has {share_words} of the excess");
    }
    if by == "instance" && 2 * bad > *of {
        return format!(
            "the version is to blame, not one instance: {bad} of {of} are bad by themselves"
        );
    }
    // Evidence may be there before any instance has enough of it by itself.
    let spread = if by == "instance" && *share < SOLE_SHARE_MIN {
        "no one instance stands out, "
    } else {
        ""
    };
    let most = format!("{spread}most is from {name}, {share_words} of the excess");
    match bad {
        0 => format!("{most}; none of {of} {parts} is bad by itself yet"),
        1 => format!("{most}; 1 of {of} {parts} is bad by itself"),
        _ => format!("{most}; {bad} of {of} {parts} are bad by themselves"),
    }
}

/// The noise factor and where it came from: `noise factor 1.8, measured on 1 h of history`.
pub fn noise(progress: &ProgressShape) -> Option<String> {
    let factor = format::quantity(progress.noise_factor?, "number");
    let Some(noise) = &progress.noise else { return Some(format!("noise factor {factor}")) };
    Some(format!("noise factor {factor}, {}", noise_origin(noise)))
}

fn noise_origin(noise: &NoiseShape) -> String {
    let history = format::duration(noise.history_secs);
    match noise.origin.as_str() {
        "history" => format!("measured on {history} of history"),
        "analysis" if noise.history_secs > 0.0 => {
            format!("measured on {history} of history and on this analysis")
        }
        "analysis" => "measured on this analysis".to_owned(),
        _ => "a stated prior".to_owned(),
    }
}

/// A clause's numbers, or why there are none: `6.1 %, baseline 0.5 %, bound 0.8 %, 3.6 of 3.6
/// decades`. None when it has neither.
pub fn numbers(clause: &ClauseShape) -> Option<String> {
    if let Some(missing) = &clause.missing {
        return Some(explain::missing_words(&missing.why, &missing.detail));
    }
    let quantity = |value| format::quantity(value, &clause.unit);
    let mut words = match status(clause) {
        Some(word) => vec![word.to_owned()],
        None => vec![quantity(clause.estimate?)],
    };
    words.extend(clause.baseline.map(|value| format!("baseline {}", quantity(value))));
    words.extend(clause.bound.map(|value| format!("bound {}", quantity(value))));
    words.push(format::progress(&clause.progress));
    Some(words.join(", "))
}

/// Which text of which rule file: `recommended, sha256 1a2b3c4d5e6f`.
pub fn rules(rules: &RulesRef) -> String {
    let sha256: String = rules.sha256.chars().take(12).collect();
    format!("{}, sha256 {sha256}", rules.name)
}

/// How many instances there were: `canary 3 of 4, 6 in all; baseline 2 of 2`.
pub fn instances(instances: &InstancesShape) -> String {
    let of = |arm: &str, count: &HeadcountShape| {
        let HeadcountShape { answered, found, seen } = count;
        let more = if seen > found { format!(", {seen} in all") } else { String::new() };
        format!("{arm} {answered} of {found}{more}")
    };
    let mut words = of("canary", &instances.canary);
    if let Some(baseline) = &instances.baseline {
        words.push_str(&format!("; {}", of("baseline", baseline)));
    }
    words
}

/// What a health clause has in place of a number: the word for what the canary said last.
pub fn status(clause: &ClauseShape) -> Option<&str> {
    let is_word = clause.unit == "health" && clause.estimate.is_none();
    clause.note.as_deref().filter(|_| is_word)
}

/// Whether a clause is about a slope.
pub fn is_slope(clause: &ClauseShape) -> bool {
    clause.unit.ends_with("_per_second")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_say_how_sure_they_are() {
        for (kind, estimate, low, high, unit, expected) in [
            (
                "rate_ratio",
                8.13,
                Some(4.2),
                Some(15.2),
                "share",
                "8.1x, 95 % interval 4.2x to 15x at any look",
            ),
            (
                "quantile_ratio",
                2.0,
                Some(1.21),
                None,
                "seconds",
                "2x, 95 % interval 1.2x and more at any look",
            ),
            (
                "rate_ratio",
                0.0,
                Some(0.0),
                Some(3.0),
                "share",
                "0x, 95 % interval up to 3x at any look",
            ),
            (
                "rate_ratio",
                1.0,
                None,
                None,
                "share",
                "1x, 95 % interval open on both sides at any look",
            ),
            (
                "sign_share",
                0.93,
                Some(0.8),
                Some(0.99),
                "number",
                "93 %, 95 % interval 80 to 99 % at any look",
            ),
            (
                "slope",
                347_777.0,
                Some(2e5),
                Some(4e5),
                "bytes_per_second",
                "19.9 MiB/min, 95 % interval 11.4 to 22.9 MiB/min at any look",
            ),
        ] {
            let shape = EffectShape { kind: kind.into(), estimate, low, high, confidence: 0.95 };
            assert_eq!(effect(&shape, unit), expected);
        }
    }

    #[test]
    fn blame_tells_one_bad_instance_from_a_bad_version() {
        for (by, name, share, bad, of, expected) in [
            (
                "instance",
                "10.0.0.3:8080",
                0.92,
                1,
                5,
                "one instance of 5 is to blame: 10.0.0.3:8080 has 92 % of the excess",
            ),
            (
                "instance",
                "10.0.0.3:8080",
                0.31,
                4,
                5,
                "the version is to blame, not one instance: 4 of 5 are bad by themselves",
            ),
            (
                "instance",
                "a",
                0.45,
                2,
                5,
                "no one instance stands out, most is from a, 45 % of the excess; 2 of 5 instances are bad by themselves",
            ),
            (
                "instance",
                "a",
                0.45,
                0,
                5,
                "no one instance stands out, most is from a, 45 % of the excess; none of 5 instances is bad by itself yet",
            ),
            (
                "route",
                "GET /checkout",
                0.97,
                1,
                8,
                "one route of 8 is to blame: GET /checkout has 97 % of the excess",
            ),
            (
                "route",
                "GET /",
                0.3,
                6,
                8,
                "most is from GET /, 30 % of the excess; 6 of 8 routes are bad by themselves",
            ),
            ("edge", "0.25 s", 0.8, 3, 4, "strongest beyond 0.25 s, at 3 of 4 bucket edges"),
        ] {
            let shape = BlameShape { by: by.into(), name: name.into(), share, bad, of };
            assert_eq!(blame(&shape), expected);
        }
    }

    #[test]
    fn noise_says_where_it_came_from() {
        for (origin, history_secs, expected) in [
            ("prior", 0.0, "noise factor 1.8, a stated prior"),
            ("history", 3600.0, "noise factor 1.8, measured on 1 h of history"),
            (
                "analysis",
                3600.0,
                "noise factor 1.8, measured on 1 h of history and on this analysis",
            ),
            ("analysis", 0.0, "noise factor 1.8, measured on this analysis"),
        ] {
            let noise_shape = NoiseShape { kappa_secs: 0.3, origin: origin.into(), history_secs };
            let progress = ProgressShape {
                kind: "evidence_decades".into(),
                value: 0.0,
                needed: 3.0,
                noise_factor: Some(1.8),
                noise: Some(noise_shape),
            };
            assert_eq!(noise(&progress).as_deref(), Some(expected));
        }
    }
}
