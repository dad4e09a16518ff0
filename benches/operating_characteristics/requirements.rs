//! What is required, what was reached, and where the two differ, why.

use rollgate::engine::interval::share_interval;

use crate::{
    recordings::Recorded,
    rows::{ALPHA, Demand, FaultRow, Row},
    runs::Outcome,
};

/// Rows that miss their figure for a known reason, by name.
const EXPLAINED: [(&str, &str); 0] = [];

/// One required figure.
#[derive(Clone, Debug)]
pub struct Requirement {
    pub figure: String,
    pub required: String,
    pub reached: String,
    pub standing: Standing,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Reached,
    Missed { why: Option<&'static str> },
}

impl Requirement {
    fn new(
        name: &str,
        figure: String,
        required: String,
        reached: String,
        is_reached: bool,
    ) -> Self {
        let why = || EXPLAINED.iter().find(|(row, _)| *row == name).map(|(_, why)| *why);
        let standing = if is_reached { Standing::Reached } else { Standing::Missed { why: why() } };
        Self { figure, required, reached, standing }
    }
}

/// Every required figure, in the order of the page's sections.
pub fn all(
    healthy: &[Outcome<Row>],
    faulty: &[Outcome<FaultRow>],
    recordings: &[Recorded],
) -> Vec<Requirement> {
    let rates = healthy.iter().filter_map(rate);
    let delays = faulty.iter().filter_map(delay);
    rates.chain(delays).chain(recordings.iter().map(recorded)).collect()
}

fn rate(outcome: &Outcome<Row>) -> Option<Requirement> {
    match outcome.row.demand {
        Demand::Rate | Demand::RateAtMargin => {}
        Demand::Ratio(_) | Demand::Secs(_) | Demand::Shown => return None,
    }
    let (count, runs) = (outcome.ours.iter().flatten().count(), outcome.ours.len());
    Some(Requirement::new(
        outcome.row.name,
        format!("false rollbacks: {}", outcome.row.name),
        "at most 0.1 %".to_owned(),
        share(count, runs),
        count as f64 <= ALPHA * runs as f64,
    ))
}

fn delay(outcome: &Outcome<FaultRow>) -> Option<Requirement> {
    let name = outcome.row.row.name;
    let delays = Delays::of(outcome);
    let (required, reached, is_reached) = match outcome.row.row.demand {
        Demand::Ratio(most) => {
            let ratio = delays.ratio?;
            (
                format!("at most {most:.1} times the bound"),
                format!("{ratio:.2} times"),
                ratio <= most,
            )
        }
        Demand::Secs(most) => {
            let median = delays.median_secs;
            (format!("at most {most:.0} s"), format!("{median:.0} s"), median <= most)
        }
        Demand::Rate | Demand::RateAtMargin | Demand::Shown => return None,
    };
    Some(Requirement::new(name, format!("median delay: {name}"), required, reached, is_reached))
}

fn recorded(recorded: &Recorded) -> Requirement {
    let required = match recorded.delay_secs_max {
        Some(secs) => format!("{} within {secs:.0} s", recorded.expected),
        None => match recorded.expected.as_str() {
            "hold_or_promote" => "no rollback".to_owned(),
            expected => expected.to_owned(),
        },
    };
    let said = recorded.judged.iter().map(|judged| match judged.delay_secs {
        Some(secs) => format!("{} after {secs:.1} s", judged.verdict),
        None => judged.verdict.clone(),
    });
    let reached = said.collect::<Vec<_>>().join("; ");
    let figure = format!("recording {}, looks of 1 s and 5 s", recorded.name);
    Requirement::new(&recorded.name, figure, required, reached, recorded.is_right())
}

/// A count of runs with its share and 95 % interval (Clopper and Pearson).
pub fn share(count: usize, runs: usize) -> String {
    let Some((low, high)) = share_interval(count as f64, runs as f64) else {
        return "-".to_owned();
    };
    let percent = |share: f64| match share {
        share if share == 0.0 || share == 1.0 => format!("{:.0} %", 100.0 * share),
        share if share < 0.1 => format!("{:.2} %", 100.0 * share),
        share => format!("{:.0} %", 100.0 * share),
    };
    let all = runs as f64;
    format!(
        "{count} of {runs}: {} ({} to {})",
        percent(count as f64 / all),
        percent(low),
        percent(high)
    )
}

/// Delays of the runs that were not rolled back before the onset; one never found is infinite.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    pub early: usize,
    pub found: usize,
    pub runs: usize,
    pub median_secs: f64,
    pub p95_secs: f64,
    /// The median as a multiple of Wald's bound, in whole looks of one second.
    pub ratio: Option<f64>,
}

impl Delays {
    pub fn of(outcome: &Outcome<FaultRow>) -> Self {
        let mut delays = Self::from(&outcome.ours, outcome.row.onset_secs);
        delays.ratio = outcome.row.bound_secs.map(|bound| delays.median_secs / bound.ceil());
        delays
    }

    pub fn from(rolled_back: &[Option<f64>], onset_secs: f64) -> Self {
        let after = |at: &Option<f64>| at.map_or(f64::INFINITY, |at| at - onset_secs);
        let mut delays: Vec<f64> = rolled_back.iter().map(after).collect();
        let early = delays.iter().filter(|delay| **delay <= 0.0).count();
        delays.retain(|delay| *delay > 0.0);
        delays.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = ((delays.len() as f64 * share).ceil() as usize).max(1) - 1;
            delays.get(index).copied().unwrap_or(f64::INFINITY)
        };
        Self {
            early,
            found: delays.iter().filter(|delay| delay.is_finite()).count(),
            runs: rolled_back.len(),
            median_secs: at(0.5),
            p95_secs: at(0.95),
            ratio: None,
        }
    }
}
