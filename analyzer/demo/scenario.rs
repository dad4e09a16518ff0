//! What `rollgate demo` can show: which arm turns bad, how and when, and what verdict is right.
//!
//! Every scenario ends within [`Plan::deadline`]. None takes more than forty seconds, so that two of
//! them fit into a minute and a half; but for the leak, which takes a minute to be told from a rise.

use std::{fmt, str::FromStr, time::Duration};

use clap::ValueEnum;

use super::fault::Fault;

/// Traffic of the old version, in requests a second.
const BASELINE_RPS: f64 = 120.0;

/// Traffic of the new version: a quarter of the whole, a usual first step.
const CANARY_RPS: f64 = 40.0;

/// When a fault sets in: late enough for the matrix to have been seen healthy.
const ONSET: Duration = Duration::from_secs(12);

/// How long a healthy release is watched.
const HOLD: Duration = Duration::from_secs(30);

/// When an analysis without a verdict ends.
const DEADLINE: Duration = Duration::from_secs(36);

/// An instance younger than this is not judged: the demo's services are warm at once.
const WARMUP: Duration = Duration::from_secs(2);

/// How long a cold canary is slow.
const COLD: Duration = Duration::from_secs(10);

/// Seconds that a restarted process lives before it dies again.
const CRASH_EVERY: Duration = Duration::from_secs(3);

/// One story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Scenario {
    /// Nothing is wrong.
    Healthy,
    /// The canary answers some requests with 500.
    Errors,
    /// The canary is twice as slow.
    Latency,
    /// The canary keeps dying.
    Crash,
    /// The canary keeps a little memory of each request.
    Leak,
    /// Both arms degrade together.
    Shared,
    /// The canary gets no requests.
    Idle,
    /// The canary is slow while it is young.
    ColdStart,
    /// The memory of both arms rises and falls, as a garbage collector's does.
    SawTooth,
    /// Both arms get three times the traffic.
    Surge,
    /// The canary accepts connections and answers nothing, not even a health probe.
    Hang,
    /// The canary answers no client, while its metrics and its health say that all is well.
    Stall,
    /// One request a second reaches the canary.
    LowTraffic,
}

/// How a scenario runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The old version's traffic, in requests a second.
    pub baseline_rps: f64,
    /// The new version's traffic, in requests a second.
    pub canary_rps: f64,
    /// What becomes of the old version.
    pub baseline_fault: Fault,
    /// What becomes of the new version.
    pub canary_fault: Fault,
    /// When it does, after the start; `None` when nothing does.
    pub onset: Option<Duration>,
    /// When the faults are gone again, after the start; `None` when they stay.
    pub heals: Option<Duration>,
    /// From the onset on both arms get this many times the traffic.
    pub surge: f64,
    /// The warm-up to put into the rule file.
    pub warmup: Duration,
    /// The hold to put into the rule file.
    pub hold: Duration,
    /// The deadline to put into the rule file.
    pub deadline: Duration,
}

impl Scenario {
    /// All of them, in the order of the help text.
    pub const ALL: [Scenario; 13] = [
        Scenario::Healthy,
        Scenario::Errors,
        Scenario::Latency,
        Scenario::Crash,
        Scenario::Leak,
        Scenario::Shared,
        Scenario::Idle,
        Scenario::ColdStart,
        Scenario::SawTooth,
        Scenario::Surge,
        Scenario::Hang,
        Scenario::Stall,
        Scenario::LowTraffic,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Healthy => "healthy",
            Scenario::Errors => "errors",
            Scenario::Latency => "latency",
            Scenario::Crash => "crash",
            Scenario::Leak => "leak",
            Scenario::Shared => "shared",
            Scenario::Idle => "idle",
            Scenario::ColdStart => "cold-start",
            Scenario::SawTooth => "saw-tooth",
            Scenario::Surge => "surge",
            Scenario::Hang => "hang",
            Scenario::Stall => "stall",
            Scenario::LowTraffic => "low-traffic",
        }
    }

    /// All names, for a person who mistyped one.
    fn names() -> String {
        Scenario::ALL.map(Scenario::name).join(", ")
    }

    /// What happens, in a sentence.
    pub fn description(self) -> &'static str {
        match self {
            Scenario::Healthy => "The canary is as good as the baseline.",
            Scenario::Errors => "After 12 s the canary answers 6 % of its requests with a 500.",
            Scenario::Latency => "After 12 s the canary takes twice as long to answer.",
            Scenario::Crash => {
                "After 12 s the canary crashes, comes back, and crashes again 3 s later."
            }
            Scenario::Leak => "After 8 s the canary keeps 64 KiB of every request.",
            Scenario::Shared => {
                "After 12 s something both depend on breaks: 4 % of requests fail in either arm."
            }
            Scenario::Idle => "The canary gets no requests at all.",
            Scenario::ColdStart => {
                "For its first 10 s the canary takes three times as long to answer, then it is warm."
            }
            Scenario::SawTooth => "The memory of both arms rises, is given back, and rises again.",
            Scenario::Surge => "After 12 s three times as many requests reach both arms.",
            Scenario::Hang => "After 12 s the canary answers nothing any more, not even a probe.",
            Scenario::Stall => {
                "After 12 s the canary answers no client, and its metrics and health know nothing of it."
            }
            Scenario::LowTraffic => "One request a second reaches the canary, three the baseline.",
        }
    }

    /// The final verdicts that are right, in the words of a report. A fault that both arms share
    /// must not be blamed on the canary; whether it also holds up its promotion is the rules' say.
    pub fn expected(self) -> &'static [&'static str] {
        match self {
            Scenario::Healthy | Scenario::ColdStart | Scenario::SawTooth | Scenario::Surge => {
                &["promote"]
            }
            Scenario::Errors
            | Scenario::Latency
            | Scenario::Crash
            | Scenario::Leak
            | Scenario::Hang => &["rollback"],
            Scenario::Shared => &["promote", "inconclusive"],
            // No counter tells a stalled canary from one that nobody asks: it is not promoted.
            Scenario::Idle | Scenario::Stall | Scenario::LowTraffic => &["inconclusive"],
        }
    }

    /// How it runs.
    pub fn plan(self) -> Plan {
        let healthy = Plan {
            baseline_rps: BASELINE_RPS,
            canary_rps: CANARY_RPS,
            baseline_fault: Fault::None,
            canary_fault: Fault::None,
            onset: None,
            heals: None,
            surge: 1.0,
            warmup: WARMUP,
            hold: HOLD,
            deadline: DEADLINE,
        };
        let from_onset = |canary_fault| Plan { canary_fault, onset: Some(ONSET), ..healthy };
        match self {
            Scenario::Healthy => healthy,
            Scenario::Errors => from_onset(Fault::Errors { share: 0.06 }),
            Scenario::Latency => from_onset(Fault::Latency { factor: 2.0 }),
            Scenario::Crash => from_onset(Fault::Crash { every: CRASH_EVERY }),
            // A rise has to last for three quarters of a minute before it is a leak.
            Scenario::Leak => Plan {
                onset: Some(Duration::from_secs(8)),
                hold: Duration::from_secs(60),
                deadline: Duration::from_secs(66),
                ..from_onset(Fault::Leak { bytes_per_request: 64 * 1024 })
            },
            Scenario::Shared => {
                let fault = Fault::Errors { share: 0.04 };
                Plan { baseline_fault: fault, ..from_onset(fault) }
            }
            // Shorter: there is nothing to see but the reason.
            Scenario::Idle => Plan {
                canary_rps: 0.0,
                hold: Duration::from_secs(15),
                deadline: Duration::from_secs(20),
                ..healthy
            },
            Scenario::ColdStart => Plan {
                canary_fault: Fault::Latency { factor: 3.0 },
                onset: Some(Duration::ZERO),
                heals: Some(COLD),
                warmup: COLD + WARMUP,
                ..healthy
            },
            Scenario::SawTooth => {
                let fault = Fault::SawTooth { bytes_per_request: 64 << 10, keep_bytes: 16 << 20 };
                let onset = Some(Duration::ZERO);
                Plan { baseline_fault: fault, canary_fault: fault, onset, ..healthy }
            }
            Scenario::Surge => Plan { onset: Some(ONSET), surge: 3.0, ..healthy },
            Scenario::Hang => from_onset(Fault::Hang),
            Scenario::Stall => from_onset(Fault::Stall),
            Scenario::LowTraffic => Plan { baseline_rps: 3.0, canary_rps: 1.0, ..healthy },
        }
    }
}

impl Plan {
    /// The same story told more slowly, for a recording of this length and with this many times the
    /// traffic: what sets in later than the start sets in after a third of it.
    pub fn stretched(self, length: Duration, traffic: f64) -> Self {
        let onset = self.onset.map(|onset| if onset.is_zero() { onset } else { length / 3 });
        let (baseline_rps, canary_rps) = (self.baseline_rps * traffic, self.canary_rps * traffic);
        Self { onset, baseline_rps, canary_rps, ..self }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = UnknownScenario;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Scenario::ALL
            .into_iter()
            .find(|scenario| scenario.name() == name)
            .ok_or_else(|| UnknownScenario(name.to_owned()))
    }
}

/// A name that no scenario has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no scenario {0:?}: expected one of {names}", names = Scenario::names())]
pub struct UnknownScenario(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_and_clap_says_the_same() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.name().parse(), Ok(scenario));
            let clap = scenario.to_possible_value().expect("no scenario is hidden from clap");
            assert_eq!(clap.get_name(), scenario.name());
        }
        assert_eq!(
            "eror".parse::<Scenario>().expect_err("no such scenario").to_string(),
            "there is no scenario \"eror\": expected one of healthy, errors, latency, crash, leak, \
             shared, idle, cold-start, saw-tooth, surge, hang, stall, low-traffic"
        );
    }

    #[test]
    fn every_plan_fits_its_time_and_faults_have_an_onset() {
        for scenario in Scenario::ALL {
            let plan = scenario.plan();
            let most = if scenario == Scenario::Leak { 70 } else { 40 };
            assert!(plan.deadline <= Duration::from_secs(most), "{scenario}");
            assert!(plan.hold < plan.deadline, "{scenario}");
            let faulty = plan.canary_fault != Fault::None || plan.baseline_fault != Fault::None;
            assert_eq!(faulty || plan.surge != 1.0, plan.onset.is_some(), "{scenario}");
            assert!(plan.heals.is_none_or(|heals| Some(heals) > plan.onset), "{scenario}");
            assert!(plan.onset.is_none_or(|onset| onset < plan.hold), "{scenario}");
        }
    }
}
