//! How far back the looks lie that stand in for the baseline.
//!
//! Pure: from the rule file's baseline, what is known of the past, and the stretches in which other
//! releases went wrong, to one lag and one sentence. A look at the past is used once, so the lag is
//! the same from the first look to the last.

use std::time::Duration;

use crate::{
    engine::{observation::Time, rule::Baseline},
    report::format,
    signal::past::Stretch,
};

/// Multiples of an offset that are tried before none is left: two weeks of days.
pub const OFFSETS_MAX: u32 = 14;

/// What is said when a nearer stretch would have been long enough.
const SKIPPED: &str = "; what came later belongs to releases that were rolled back or still run";

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What the rule file compares with.
    pub baseline: Baseline,
    /// When the release began.
    pub started: Time,
    /// How long it is watched at most.
    pub deadline: Duration,
    /// Time between two looks.
    pub interval: Duration,
    /// Of when the past is known; none when even that is not known.
    pub known: Option<Stretch>,
    /// Stretches that must not be compared with.
    pub avoid: &'a [Stretch],
}

/// The stretch of the past that stands in for the baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Lag {
    /// How much older the baseline's looks are than the canary's.
    pub lag: Duration,
    /// Where they lie; there are none outside.
    pub stretch: Stretch,
    /// What was chosen and why, in a sentence.
    pub note: String,
}

/// Chooses the lag; none for a concurrent baseline.
///
/// # Errors
/// In words, when no stretch of the past can stand in.
pub fn choose(question: Question<'_>) -> Result<Option<Lag>, String> {
    match question.baseline {
        Baseline::Concurrent => Ok(None),
        Baseline::Before => before(question).map(Some),
        Baseline::Offset(offset) => by_offset(question, offset).map(Some),
    }
}

/// The newest stretch before the release that is long enough for all of it, or the longest.
fn before(question: Question<'_>) -> Result<Lag, String> {
    let Question { started, interval, known, .. } = question;
    // One look more than the deadline: the last one is taken just after it.
    let need = question.deadline + interval;
    let free = free(question);
    let newest = free.iter().rev().find(|free| free.length() >= need);
    let end = known.map_or(started, |known| known.until.min(started));
    let skipped = |free: &Stretch| if free.until < end { SKIPPED } else { "" };
    let words = |secs: Duration| format::duration(secs.as_secs_f64());
    if let Some(newest) = newest {
        let after = back(newest.until, need);
        let lag = started.since(after);
        return Ok(Lag {
            lag,
            stretch: Stretch { after, until: newest.until },
            note: format!("the baseline is the service {} earlier{}", words(lag), skipped(newest)),
        });
    }
    // Of two that are equally long the newer one.
    let longest = free.into_iter().max_by_key(|free| free.length());
    let Some(longest) = longest.filter(|longest| longest.length() >= interval) else {
        return Err("nothing is known of the service before the release".to_owned());
    };
    let lag = started.since(longest.after);
    let note = format!(
        "the baseline is the service {} earlier, and the past before the release is only {} \
         long{}",
        words(lag),
        words(longest.length()),
        skipped(&longest)
    );
    Ok(Lag { lag, stretch: longest, note })
}

/// The first multiple of the offset at which no release went wrong.
fn by_offset(question: Question<'_>, offset: Duration) -> Result<Lag, String> {
    let Question { started, deadline, interval, known, avoid, .. } = question;
    let words = |secs: Duration| format::duration(secs.as_secs_f64());
    for multiple in 1..=OFFSETS_MAX {
        let lag = offset * multiple;
        let after = back(started, lag);
        let stretch = Stretch { after, until: after.after(deadline + interval).min(started) };
        if known.is_some_and(|known| stretch.until <= known.after) {
            break;
        }
        if avoid.iter().any(|avoid| avoid.overlaps(stretch)) {
            continue;
        }
        let skipped = if multiple > 1 { SKIPPED } else { "" };
        let note = format!("the baseline is the service {} earlier{skipped}", words(lag));
        return Ok(Lag { lag, stretch, note });
    }
    Err(format!("nothing fit to compare with is known of the service {} before", words(offset)))
}

/// What is known of the past before the release, without what is to be avoided, oldest first.
fn free(question: Question<'_>) -> Vec<Stretch> {
    let Question { started, deadline, interval, known, avoid, .. } = question;
    // Where the beginning is not known: room for the release beside every stretch to be avoided.
    let reach = (deadline + interval) * (u32::try_from(avoid.len()).unwrap_or(u32::MAX - 1) + 1);
    let oldest = avoid.iter().map(|avoid| avoid.after).fold(started, Time::min);
    let end = known.map_or(started, |known| known.until.min(started));
    let mut from = known.map_or_else(|| back(oldest, reach), |known| known.after);
    let mut avoid: Vec<Stretch> = avoid.to_vec();
    avoid.sort_by_key(|avoid| avoid.after);
    let mut free = Vec::with_capacity(avoid.len() + 1);
    for avoid in avoid {
        let stretch = Stretch { after: from, until: avoid.after.min(end) };
        if stretch.after < stretch.until {
            free.push(stretch);
        }
        from = from.max(avoid.until);
    }
    if from < end {
        free.push(Stretch { after: from, until: end });
    }
    free
}

/// The moment so long before another.
pub fn back(at: Time, by: Duration) -> Time {
    Time(at.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    const MINUTE: i64 = 60_000;

    fn stretch(after: i64, until: i64) -> Stretch {
        Stretch { after: Time(after * MINUTE), until: Time(until * MINUTE) }
    }

    /// The release begins at minute 1000, is watched for 29 min, and needs 30 min of the past.
    fn ask(baseline: Baseline, first: Option<i64>, avoid: &[Stretch]) -> Result<Lag, String> {
        let question = Question {
            baseline,
            started: Time(1000 * MINUTE),
            deadline: Duration::from_secs(29 * 60),
            interval: Duration::from_secs(60),
            known: first.map(|first| stretch(first, 1000)),
            avoid,
        };
        choose(question).map(|lag| lag.expect("not concurrent"))
    }

    fn check(found: Result<Lag, String>, lag_min: u64, in_it: (i64, i64), words: &str) {
        let found = found.unwrap();
        assert_eq!(found.lag, Duration::from_secs(lag_min * 60), "{found:?}");
        assert_eq!(found.stretch, stretch(in_it.0, in_it.1), "{found:?}");
        assert!(found.note.contains(words), "{:?} lacks {words:?}", found.note);
    }

    #[test]
    fn before_takes_the_newest_stretch_that_is_long_enough() {
        let before = |first, avoid: &[Stretch]| ask(Baseline::Before, first, avoid);
        check(before(Some(0), &[]), 30, (970, 1000), "30 m earlier");
        check(before(None, &[]), 30, (970, 1000), "30 m earlier");
        // A rolled back release in the way, and two.
        let later = "that were rolled back or still run";
        check(before(Some(0), &[stretch(980, 990)]), 50, (950, 980), later);
        check(before(None, &[stretch(980, 990)]), 50, (950, 980), later);
        let two = [stretch(980, 1000), stretch(930, 960)];
        check(before(Some(0), &two), 100, (900, 930), later);
        // One that reaches over the beginning, and one in another.
        check(before(Some(0), &[stretch(990, 1010), stretch(992, 995)]), 40, (960, 990), later);
    }

    #[test]
    fn a_short_past_is_used_as_far_as_it_goes() {
        let before = |first, avoid: &[Stretch]| ask(Baseline::Before, first, avoid);
        check(before(Some(980), &[]), 20, (980, 1000), "only 20 m long");
        check(before(Some(970), &[stretch(990, 995)]), 30, (970, 990), "only 20 m long");
        for nothing in [before(Some(1000), &[]), before(Some(2000), &[])] {
            assert!(nothing.unwrap_err().contains("nothing is known"));
        }
        assert!(before(Some(970), &[stretch(900, 1000)]).is_err());
    }

    #[test]
    fn a_past_that_ended_a_while_ago_is_taken_from_its_end() {
        let question = Question {
            baseline: Baseline::Before,
            started: Time(1000 * MINUTE),
            deadline: Duration::from_secs(29 * 60),
            interval: Duration::from_secs(60),
            known: Some(stretch(0, 900)),
            avoid: &[],
        };
        let lag = choose(question).map(|lag| lag.expect("not concurrent"));
        check(lag.clone(), 130, (870, 900), "2 h 10 m earlier");
        assert!(!lag.unwrap().note.contains(SKIPPED));
    }

    #[test]
    fn an_offset_moves_on_by_its_multiples() {
        let offset = |minutes: u64, first, avoid: &[Stretch]| {
            ask(Baseline::Offset(Duration::from_secs(minutes * 60)), first, avoid)
        };
        check(offset(100, None, &[]), 100, (900, 930), "1 h 40 m earlier");
        check(offset(100, None, &[stretch(925, 940)]), 200, (800, 830), "rolled back or still run");
        check(
            offset(100, Some(0), &[stretch(925, 940)]),
            200,
            (800, 830),
            "rolled back or still run",
        );
        // What would be the release itself is not its past.
        check(offset(10, None, &[]), 10, (990, 1000), "10 m earlier");
        // The history begins within the stretch: the first looks have nothing to compare with.
        check(offset(100, Some(910), &[]), 100, (900, 930), "1 h 40 m earlier");
        assert!(offset(100, Some(950), &[]).is_err());
        assert!(offset(100, None, &[stretch(-9000, 1000)]).is_err());
    }

    #[test]
    fn no_choice_ever_touches_what_is_to_be_avoided() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut chosen = 0;
        for _ in 0..5000 {
            let started = 1000;
            let avoid: Vec<Stretch> = (0..rng.random_range(0..6))
                .map(|_| {
                    let after = rng.random_range(0..1000);
                    stretch(after, after + rng.random_range(0..60))
                })
                .collect();
            let first = rng.random_bool(0.5).then(|| rng.random_range(0..1010));
            let baseline = match rng.random_bool(0.5) {
                true => Baseline::Before,
                false => Baseline::Offset(Duration::from_secs(rng.random_range(5..300) * 60)),
            };
            let Ok(lag) = ask(baseline, first, &avoid) else { continue };
            chosen += 1;
            assert!(lag.stretch.until <= Time(started * MINUTE), "{lag:?}");
            assert!(lag.stretch.length() > Duration::ZERO, "{lag:?}");
            assert!(!avoid.iter().any(|avoid| avoid.overlaps(lag.stretch)), "{lag:?} {avoid:?}");
            assert_eq!(back(Time(started * MINUTE), lag.lag), lag.stretch.after, "{lag:?}");
        }
        assert!(chosen > 1000, "{chosen} choices say too little");
    }
}
