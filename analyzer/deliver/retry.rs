//! When to try again: exponential back-off with full jitter, the receiver's own wish, and an end.
//!
//! Pure: the random number and the time are arguments. Full jitter, because a receiver that comes
//! back after an outage should not meet every sender in the same second.

use std::time::Duration;

use crate::engine::observation::Time;

/// Bounds of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Longest wait after the first failure; doubles with each further one.
    pub base: Duration,
    /// Longest wait of the back-off itself.
    pub wait_max: Duration,
    /// Longest wait that a receiver's `Retry-After` can ask for.
    pub retry_after_max: Duration,
    /// A parcel older than this is given up at its next failure.
    pub age_max: Duration,
    /// A parcel is given up after this many attempts.
    pub attempts_max: u32,
}

impl Default for Schedule {
    /// A day of patience: a receiver that is down overnight still hears the verdict. At half of
    /// five minutes a wait that is some 580 attempts, so that the age decides and the number is
    /// there for a schedule that was made much shorter.
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            wait_max: Duration::from_secs(5 * 60),
            retry_after_max: Duration::from_secs(60 * 60),
            age_max: Duration::from_secs(24 * 60 * 60),
            attempts_max: 2000,
        }
    }
}

/// What is known of a parcel when an attempt has failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failure {
    /// Attempts so far, with this one.
    pub attempts: u32,
    /// Age of the parcel.
    pub age: Duration,
    /// How long the receiver asks to be left alone.
    pub retry_after: Option<Duration>,
    /// A random number in 0..1.
    pub dice: f64,
}

impl Schedule {
    /// How long to wait before the next attempt; none when there is to be none.
    pub fn wait(&self, failure: Failure) -> Option<Duration> {
        let Failure { attempts, age, retry_after, dice } = failure;
        if attempts >= self.attempts_max || age >= self.age_max {
            return None;
        }
        let doublings = attempts.saturating_sub(1).min(31);
        let ceiling = self.base.saturating_mul(1 << doublings).min(self.wait_max);
        let jitter = ceiling.mul_f64(dice.clamp(0.0, 1.0));
        let asked = retry_after.unwrap_or_default().min(self.retry_after_max);
        // The last attempt falls on the day's end instead of being skipped for a long wait.
        Some(asked.saturating_add(jitter).min(self.age_max.saturating_sub(age)))
    }
}

/// Reads `Retry-After`: seconds, or an HTTP date in any of its three forms. What is neither, or has
/// passed, is none.
pub fn retry_after(header: &str, now: Time) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(header.parse().unwrap_or(u64::MAX)));
    }
    const FORMS: [&str; 3] =
        ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let read = |form: &&str| jiff::civil::DateTime::strptime(form, header).ok();
    let date = FORMS.iter().find_map(read)?;
    let at = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    let wait = Time(at.as_millisecond()).since(now);
    (!wait.is_zero()).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn failure(attempts: u32, dice: f64) -> Failure {
        Failure { attempts, age: Duration::ZERO, retry_after: None, dice }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let longest = |attempts| Schedule::default().wait(failure(attempts, 1.0));
        let found: Vec<_> = (1..=11).filter_map(longest).map(|wait| wait.as_secs()).collect();
        assert_eq!(found, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(longest(1999), Some(300 * S));
    }

    #[test]
    fn jitter_spans_the_whole_wait() {
        let wait = |dice| Schedule::default().wait(failure(3, dice));
        assert_eq!(wait(0.0), Some(Duration::ZERO));
        assert_eq!(wait(0.25), Some(S));
        assert_eq!(wait(1.0), Some(4 * S));
    }

    #[test]
    fn the_receiver_is_heard_up_to_a_limit() {
        let wait = |secs: u64| {
            let retry_after = Some(Duration::from_secs(secs));
            Schedule::default().wait(Failure { retry_after, ..failure(1, 0.5) })
        };
        assert_eq!(wait(10), Some(S * 10 + S / 2));
        assert_eq!(wait(3600), Some(S * 3600 + S / 2));
        assert_eq!(wait(u64::MAX), Some(S * 3600 + S / 2));
    }

    #[test]
    fn there_is_an_end() {
        let schedule = Schedule { attempts_max: 5, ..Schedule::default() };
        assert!(schedule.wait(failure(4, 1.0)).is_some());
        assert_eq!(schedule.wait(failure(5, 1.0)), None);
        let day = 24 * 3600 * S;
        let wait = |age| Schedule::default().wait(Failure { age, ..failure(20, 1.0) });
        assert_eq!(wait(day), None);
        assert_eq!(wait(day - S), Some(S));
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let now = Time(784_111_777_000 - 90_000);
        let check = |header: &str, expected: Option<u64>| {
            assert_eq!(retry_after(header, now), expected.map(Duration::from_secs), "{header:?}");
        };
        check("120", Some(120));
        check(" 0 ", Some(0));
        check("99999999999999999999999", Some(u64::MAX));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(90));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(90));
        check("Sun Nov  6 08:49:37 1994", Some(90));
        check("Sun, 06 Nov 1994 08:40:00 GMT", None);
        for nonsense in ["", "soon", "-5", "1.5", "Sun, 99 Nov 1994 08:49:37 GMT", "\u{7f}"] {
            check(nonsense, None);
        }
    }
}
