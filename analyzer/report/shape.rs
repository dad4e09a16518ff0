//! The JSON shape of a verdict and its findings, version 1.
//!
//! Field names are part of the public contract: they appear in API answers, webhooks and
//! `replay --json`. Times are unix seconds, durations seconds, shares 0..1.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use super::intervention::{InterventionShape, OverrideShape};

/// What one look concluded, with everything it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// `watching`, `investigate`, `advance`, `promote`, `rollback` or `inconclusive`.
    pub verdict: String,
    /// Whether the analysis is over.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// When the final verdict was reached, in unix seconds; null before.
    pub decided_at: Option<f64>,
    /// Time of the look, in unix seconds.
    pub at: f64,
    /// Seconds since the analysis began.
    pub elapsed_secs: f64,
    /// Number of the look, from 1.
    pub look: u64,
    /// The rule that decided, as written in the rule file; null when none did.
    pub rule: Option<String>,
    /// The verdict in one or two sentences.
    pub reason: String,
    /// What the rule file says to do when inconclusive: `hold`, `rollback`, `promote`.
    pub otherwise: Option<String>,
    /// Index of the present step of a progressive release; null without steps.
    #[serde(default)]
    pub release_step: Option<usize>,
    /// Canary instances that gave nothing at this look while others did; blocks promotion.
    #[serde(default)]
    pub gap: Option<MissingShape>,
    /// One per rule, in file order.
    pub findings: Vec<FindingShape>,
    /// One per signal, in file order.
    pub signals: Vec<SignalShape>,
    /// Who put this verdict in the place of the rules'; absent where nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<OverrideShape>,
    /// The rule file it was reached by; absent of what was written before reports named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<RulesRef>,
}

impl Report {
    /// The same report, naming the rule file that it was reached by.
    pub fn by(self, rules: RulesRef) -> Self {
        Self { rules: Some(rules), ..self }
    }
}

/// Which rule file, and that it was this text of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RulesRef {
    /// Its name.
    pub name: String,
    /// SHA-256 of its text, in hex.
    pub sha256: String,
}

/// What one rule found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FindingShape {
    /// The condition as written.
    pub rule: String,
    /// `rollback`, `investigate` or `ok`.
    pub then: String,
    /// The operator's own reason, when the rule file gives one.
    pub reason: Option<String>,
    /// `fires`, `clear`, `not_enough_data`, `asleep`.
    pub state: String,
    /// Seconds in this state.
    pub in_state_secs: f64,
    /// One per clause, left to right.
    pub clauses: Vec<ClauseShape>,
}

/// What one clause found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClauseShape {
    /// The clause as written.
    pub clause: String,
    /// Name of its signal.
    pub signal: String,
    /// `fires`, `clear`, `not_enough_data`.
    pub state: String,
    /// `share`, `seconds`, `bytes`, `per_second`, `count`, `health`, `number`: how to write numbers. Of
    /// a slope with `_per_second` behind it, such as `bytes_per_second`.
    pub unit: String,
    /// The canary's point estimate over the window.
    pub estimate: Option<f64>,
    /// 95 % interval of it, for display.
    pub interval: Option<[f64; 2]>,
    /// The baseline's point estimate, where the clause compares.
    pub baseline: Option<f64>,
    /// What the estimate is held against now.
    pub bound: Option<f64>,
    /// Evidence, time, checks or count, against what is needed to fire.
    pub progress: ProgressShape,
    /// What the numbers rest on, since the analysis began.
    pub samples: SamplesShape,
    /// Why there is not enough data: `no_traffic`, `scrape_failed`, ... with its detail.
    pub missing: Option<MissingShape>,
    /// Anything else worth knowing.
    pub note: Option<String>,
    /// How much worse the canary is, with an interval that holds at all looks together.
    #[serde(default)]
    pub effect: Option<EffectShape>,
    /// The part that contributes most.
    #[serde(default)]
    pub blame: Option<BlameShape>,
}

/// An estimated effect with an anytime-valid interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EffectShape {
    /// `rate_ratio`, `quantile_ratio`, `sign_share`, `slope`, `slope_difference`.
    pub kind: String,
    /// The estimate: a factor, a share, or units a second.
    pub estimate: f64,
    /// Lower end; null when nothing is known below.
    pub low: Option<f64>,
    /// Upper end; null when nothing is known above.
    pub high: Option<f64>,
    /// Probability that it covers the truth at all looks together.
    pub confidence: f64,
}

/// The part of a signal that contributes most to the evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BlameShape {
    /// `instance`, `route` or `edge`.
    pub by: String,
    /// Its name.
    pub name: String,
    /// Its share of what all parts together contribute, 0..1.
    pub share: f64,
    /// How many parts are bad by themselves.
    pub bad: usize,
    /// How many parts there are.
    pub of: usize,
}

/// Where a noise factor came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NoiseShape {
    /// Noise intensity, in seconds.
    pub kappa_secs: f64,
    /// `prior`, `history`, or `analysis` when what was seen since has changed it.
    pub origin: String,
    /// Seconds of history behind it.
    pub history_secs: f64,
}

/// How far the proof is that promotion asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProofShape {
    /// Multiple of the baseline that the canary is to be shown within.
    pub factor: f64,
    /// Value that is good enough whatever the baseline does.
    pub or: Option<f64>,
    /// Evidence so far, in decades.
    pub decades: f64,
    /// Needed.
    pub needed: f64,
    /// Whether it has been reached.
    pub shown: bool,
    /// Seconds more at today's traffic, if the canary is as good as the baseline.
    pub remaining_secs: Option<f64>,
    /// Requests a second that this was reckoned with.
    pub per_sec: f64,
}

/// How far a clause is from firing: `value` of `needed`, in the unit that `kind` names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProgressShape {
    /// `evidence_decades`, `held_secs`, `checks`, `count`.
    pub kind: String,
    /// So far.
    pub value: f64,
    /// Needed to fire.
    pub needed: f64,
    /// The noise factor, for evidence.
    pub noise_factor: Option<f64>,
    /// What it was made of, for evidence.
    #[serde(default)]
    pub noise: Option<NoiseShape>,
}

/// Requests and events since the analysis began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SamplesShape {
    /// Events of the canary.
    pub canary_events: f64,
    /// Requests of the canary.
    pub canary_total: f64,
    /// Events of the baseline.
    pub baseline_events: f64,
    /// Requests of the baseline.
    pub baseline_total: f64,
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MissingShape {
    /// Snake-case kind.
    pub why: String,
    /// In words.
    pub detail: String,
}

/// Both arms' estimates of one signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SignalShape {
    /// Name in the rule file.
    pub name: String,
    /// How to write its numbers; see [`ClauseShape::unit`].
    pub unit: String,
    /// The canary's estimate over the window.
    pub canary: Option<f64>,
    /// The baseline's estimate over the window.
    pub baseline: Option<f64>,
    /// How far the proof is that promotion asks for; null where it asks for none.
    #[serde(default)]
    pub proof: Option<ProofShape>,
}
