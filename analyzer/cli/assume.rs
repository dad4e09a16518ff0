//! What `simulate` and `plan` are told about a service: traffic, errors, latency, noise, history.
//!
//! Every literal is read here, once, with a sentence for the person who mistyped it.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{UsageError, load_rules, parse_duration};
use crate::{
    engine::rule::RuleSet,
    rulefile::{StatedTraffic, TRAFFIC_RPS_MAX},
    simulation::{LatencyLaw, NoiseModel, Traffic, Truth, questions::Assumed},
};

/// Why a baseline has no traffic of its own.
pub const STEPS_DIVIDE: &str = "--baseline-traffic does not go with a rule file that has `steps`: \
     --traffic is then what the whole service gets, and the steps divide it";

/// Longest history that is simulated.
pub const HISTORY_MAX: Duration = Duration::from_secs(24 * 3600);

/// Shortest history that noise can be measured on.
pub const HISTORY_MIN: Duration = Duration::from_secs(300);

/// A fault begins so long after the analysis did, or after a quarter of a shorter hold.
const ONSET: Duration = Duration::from_secs(120);

/// Latencies wander by this much of what event rates do: the share of slow requests then wanders
/// about half as much as the share of failing ones.
const LATENCY_NOISE: f64 = 0.2;

/// The arguments that `simulate` and `plan` share.
#[derive(Args, Clone, Debug)]
pub struct Assumptions {
    /// Rule file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Requests that the canary gets: 50rps, 50/s, 3000/min; what the rule file states unless given.
    /// With `steps`, the whole service.
    #[arg(long, value_name = "RATE", value_parser = parse_traffic)]
    pub traffic: Option<f64>,
    /// Requests that the baseline gets; the same as the canary unless given or stated.
    #[arg(long, value_name = "RATE", value_parser = parse_traffic)]
    pub baseline_traffic: Option<f64>,
    /// Share of requests that fail on a healthy version.
    #[arg(long, value_name = "SHARE", default_value = "0.5%", value_parser = parse_share)]
    pub errors: f64,
    /// Median latency of a healthy version.
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = parse_duration)]
    pub latency: Duration,
    /// How error rates wander by themselves: DEVIATION/TIME of the log rate such as 0.3/10s, or
    /// none, calm (0.1/10s), typical (0.3/10s), busy (0.5/30s), wild (0.8/60s). Latencies wander by
    /// a fifth of it.
    #[arg(long, value_name = "NOISE", default_value = "typical", value_parser = parse_noise)]
    pub noise: (f64, f64),
    /// How long the old version was watched before, to learn its noise: 1h, or none.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_history)]
    pub history: History,
    /// Watch at least this long instead of what the rule file says.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub hold: Option<Duration>,
}

/// How long the old version was watched before; none for not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History(pub Option<Duration>);

impl Assumptions {
    /// The rules, and what is taken to be true of the service.
    pub fn read(&self) -> anyhow::Result<(RuleSet, Assumed)> {
        let hold_secs = self.hold.map(|hold| hold.as_secs_f64());
        let file = load_rules(&self.file, hold_secs)?;
        let rules = file.rules;
        let (sigma, tau_secs) = self.noise;
        let spread = match LatencyLaw::default() {
            LatencyLaw::LogNormal { spread, .. } => spread,
            LatencyLaw::Gamma { .. } | LatencyLaw::Bimodal { .. } => 0.5,
        };
        let latency = LatencyLaw::LogNormal { median_secs: self.latency.as_secs_f64(), spread };
        let assumed = Assumed {
            traffic: self.split(&rules, file.traffic)?,
            truth: Truth { error_share: self.errors, latency, ..Truth::default() },
            noise: NoiseModel {
                latency_sigma: LATENCY_NOISE * sigma,
                ..NoiseModel::own(sigma, tau_secs)
            },
            history: self.history.0,
            onset: ONSET.min(rules.promote.after / 4),
        };
        Ok((rules, assumed))
    }

    /// Who gets how much at the beginning: as the command line says, or as the file states.
    fn split(&self, rules: &RuleSet, stated: Option<StatedTraffic>) -> anyhow::Result<Traffic> {
        let baseline_rps = self.baseline_traffic;
        if baseline_rps.is_some() && !rules.steps.is_empty() {
            return Err(UsageError(STEPS_DIVIDE.to_owned()).into());
        }
        let traffic = match (self.traffic, stated) {
            (Some(rps), _) => StatedTraffic { rps, baseline_rps },
            (None, Some(stated)) => {
                StatedTraffic { baseline_rps: baseline_rps.or(stated.baseline_rps), ..stated }
            }
            (None, None) => {
                let fault = "how much traffic? give --traffic 50rps, or say \
                             `observe: { traffic: 50/s }` in the rule file";
                return Err(UsageError(fault.to_owned()).into());
            }
        };
        let (canary_rps, baseline_rps) = traffic.arms(rules)[0];
        Ok(Traffic::new(canary_rps, baseline_rps))
    }
}

/// Reads `50rps`, `50/s`, `3000/min`, `10/h` as requests a second.
pub(super) fn parse_traffic(text: &str) -> Result<f64, String> {
    let expected = "expected a rate such as 50rps, 50/s, 3000/min or 100/h";
    let units = [("rps", 1.0), ("/s", 1.0), ("/min", 60.0), ("/h", 3600.0)];
    let found = units.into_iter().find_map(|(unit, secs)| Some((text.strip_suffix(unit)?, secs)));
    let Some((amount, secs)) = found else { return Err(expected.to_owned()) };
    let amount: f64 = amount.trim().parse().map_err(|_| expected.to_owned())?;
    let rps = amount / secs;
    if rps.is_nan() || rps <= 0.0 {
        return Err("expected more than no traffic".to_owned());
    }
    if rps > TRAFFIC_RPS_MAX {
        return Err(format!("expected at most {TRAFFIC_RPS_MAX} requests a second"));
    }
    Ok(rps)
}

/// Reads `0.5%` or `0.005` as a share below a half: more is not a healthy version.
fn parse_share(text: &str) -> Result<f64, String> {
    let (amount, scale) = match text.strip_suffix('%') {
        Some(amount) => (amount, 100.0),
        None => (text, 1.0),
    };
    let share = amount.trim().parse::<f64>().ok().map(|amount| amount / scale);
    share
        .filter(|share| (0.0..=0.5).contains(share))
        .ok_or_else(|| "expected a share such as 0.5% or 0.005, from 0 to 50%".to_owned())
}

/// Reads a deviation and a correlation time in seconds, or the name of a preset.
fn parse_noise(text: &str) -> Result<(f64, f64), String> {
    match text {
        "none" => return Ok((0.0, 10.0)),
        "calm" => return Ok((0.1, 10.0)),
        "typical" => return Ok((0.3, 10.0)),
        "busy" => return Ok((0.5, 30.0)),
        "wild" => return Ok((0.8, 60.0)),
        _ => {}
    }
    let parts = text.split_once('/').and_then(|(sigma, tau)| {
        Some((sigma.parse::<f64>().ok()?, parse_duration(tau).ok()?.as_secs_f64()))
    });
    parts
        .filter(|(sigma, tau)| (0.0..=3.0).contains(sigma) && (0.1..=3600.0).contains(tau))
        .ok_or_else(|| {
            "expected none, calm, typical, busy, wild, or a deviation of the log rate (at most 3) \
             and how long it lasts (at most 1h), such as 0.3/10s"
                .to_owned()
        })
}

fn parse_history(text: &str) -> Result<History, String> {
    if text == "none" {
        return Ok(History(None));
    }
    let history = parse_duration(text).ok().filter(|h| (HISTORY_MIN..=HISTORY_MAX).contains(h));
    let history = history.ok_or("expected none, or a time from 5m to 24h such as 1h")?;
    Ok(History(Some(history)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_or_refused() {
        for (text, expected) in [
            ("50rps", Some(50.0)),
            ("50/s", Some(50.0)),
            ("3000/min", Some(50.0)),
            ("1/min", Some(1.0 / 60.0)),
            ("36/h", Some(0.01)),
            ("0.2 rps", Some(0.2)),
            ("50", None),
            ("rps", None),
            ("-1rps", None),
            ("0/s", None),
            ("NaN/s", None),
            ("inf/s", None),
            ("1e9rps", None),
        ] {
            assert_eq!(parse_traffic(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("0.5%", Some(0.005)),
            ("0", Some(0.0)),
            ("0.02", Some(0.02)),
            ("51%", None),
            ("-1%", None),
            ("NaN", None),
            ("x%", None),
        ] {
            assert_eq!(parse_share(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("none", Some((0.0, 10.0))),
            ("wild", Some((0.8, 60.0))),
            ("0.5/30s", Some((0.5, 30.0))),
            ("0.5/1m", Some((0.5, 60.0))),
            ("0.5", None),
            ("9/30s", None),
            ("-1/30s", None),
            ("0.5/2h", None),
            ("loud", None),
        ] {
            assert_eq!(parse_noise(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("none", Some(None)),
            ("1h", Some(Some(3600))),
            ("1m", None),
            ("25h", None),
            ("x", None),
        ] {
            let found = parse_history(text).ok().map(|history| history.0.map(|h| h.as_secs()));
            assert_eq!(found, expected, "{text}");
        }
    }
}
