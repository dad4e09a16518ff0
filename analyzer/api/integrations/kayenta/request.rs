//! What Kayenta's clients send, and the order that it makes.
//!
//! A scope says where one version is found: as label matchers (`job="shop",version="v2"`), as URLs, or
//! by a name that is the version, where the configuration's `services` says the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::super::desk::{ArmOrder, OpenAnalysis},
    execution::Thresholds,
};
use crate::engine::observation::Time;

/// Scopes of one request.
const SCOPES_MAX: usize = 32;

/// Minutes of anything: 30 days.
const MINUTES_MAX: f64 = 30.0 * 24.0 * 60.0;

/// What requests that begin something say in their query. Other parameters are not read.
#[derive(Debug, Default, Deserialize, Serialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Accounts {
    /// The service being released; the configuration's name when left out.
    #[serde(default)]
    pub(super) application: Option<String>,
    /// Name of a configured Prometheus, for scopes that are label matchers.
    #[serde(default)]
    pub(super) metrics_account_name: Option<String>,
    /// What the request belongs to: another one is another request.
    #[serde(default)]
    pub(super) parent_pipeline_execution_id: Option<String>,
}

/// What begins a canary execution.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(super) struct CanaryRequest {
    /// Where both versions are found. Of several the one that is called `default`.
    scopes: BTreeMap<String, ScopePair>,
    /// 95 and 75 when left out.
    #[serde(default)]
    thresholds: Option<Thresholds>,
}

/// Both versions.
#[derive(Debug, Deserialize, Serialize, PartialEq, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ScopePair {
    #[serde(default)]
    control_scope: Option<Scope>,
    experiment_scope: Scope,
}

/// One version.
#[derive(Debug, Default, Deserialize, Serialize, PartialEq, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CanaryScope)]
struct Scope {
    /// Label matchers, URLs, or the version.
    #[serde(default)]
    scope: String,
    /// The parameter `location` (`control_location`); some clients call it `region`.
    #[serde(default, alias = "region")]
    location: Option<String>,
    /// Not needed: it is watched from now on.
    #[serde(default)]
    start: Option<String>,
    /// Until when it is watched at least; the rule file's hold when left out.
    #[serde(default)]
    end: Option<String>,
    /// Parameters; `canary_version` and `baseline_version` are versions.
    #[serde(default)]
    extended_scope_params: Option<BTreeMap<String, String>>,
}

/// A standalone analysis with its configuration.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AdhocRequest)]
pub(super) struct Adhoc {
    pub(super) canary_config: InlineConfig,
    pub(super) execution_request: StandaloneRequest,
}

/// A canary configuration that comes with the request.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct InlineConfig {
    /// Name of a rule file.
    #[serde(default)]
    id: Option<String>,
    /// The same.
    #[serde(default)]
    name: Option<String>,
    /// Not read.
    #[serde(default)]
    metrics: Vec<Unread>,
}

/// Something that is counted and not read.
#[derive(Debug, Deserialize, ToSchema)]
struct Unread {}

/// What a standalone analysis is asked for: by itself, or with a configuration beside it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Named {
    /// With a configuration, which the path names already.
    Wrapped {
        #[serde(rename = "executionRequest")]
        execution_request: StandaloneRequest,
    },
    /// By itself.
    Bare(StandaloneRequest),
}

impl Named {
    pub(super) fn into_request(self) -> StandaloneRequest {
        match self {
            Self::Wrapped { execution_request: request } | Self::Bare(request) => request,
        }
    }
}

/// A standalone analysis.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StandaloneRequest {
    /// Where both versions are found. Of several the one that is called `default`.
    scopes: Vec<StandaloneScope>,
    /// 95 and 75 when left out.
    #[serde(default)]
    thresholds: Option<Thresholds>,
    /// Watch at least so long; the rule file's hold when neither this nor an end is given.
    #[serde(default)]
    lifetime_duration_mins: Option<f64>,
    /// Added to it: we watch from the beginning.
    #[serde(default)]
    begin_after_mins: Option<f64>,
}

/// Both versions.
#[derive(Debug, Default, Deserialize, Serialize, PartialEq, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StandaloneScope {
    #[serde(default)]
    scope_name: Option<String>,
    #[serde(default)]
    control_scope: String,
    #[serde(default)]
    control_location: Option<String>,
    #[serde(default)]
    experiment_scope: String,
    #[serde(default)]
    experiment_location: Option<String>,
    #[serde(default)]
    start_time_iso: Option<String>,
    #[serde(default)]
    end_time_iso: Option<String>,
    #[serde(default)]
    extended_scope_params: Option<BTreeMap<String, String>>,
}

/// What a request asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) order: OpenAnalysis,
    pub(super) thresholds: Thresholds,
}

impl InlineConfig {
    /// The rule file that it names, and how many metrics it has that are not read.
    pub(super) fn rule_file(&self, known: &[&str]) -> Result<(String, usize), String> {
        let named = [&self.id, &self.name].into_iter().flatten();
        let found = named.clone().find(|name| known.contains(&name.as_str()));
        found.map(|name| (name.clone(), self.metrics.len())).ok_or_else(|| {
            let named: Vec<String> = named.map(|name| format!("{name:.80?}")).collect();
            format!(
                "canaryConfig is named {}, which is no rule file; known are {}. Metrics of a \
                 configuration that comes with the request are not read: write what is to be \
                 judged as a rule file and name it, or have Kayenta fetch the metrics and ask \
                 /judge as its remote judge",
                if named.is_empty() { "nothing".to_owned() } else { named.join(" and ") },
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )
        })
    }
}

/// The order that a canary request makes.
pub(super) fn of_canary(
    config: &str,
    accounts: &Accounts,
    request: &CanaryRequest,
    now: Time,
) -> Result<Asked, Vec<String>> {
    let mut reading = Reading { now, faults: Vec::new() };
    let pair = reading.one(request.scopes.iter().map(|(name, pair)| (name.as_str(), pair)));
    let Some(pair) = pair else { return Err(reading.faults) };
    let nothing = Scope::default();
    let (control, experiment) =
        (pair.control_scope.as_ref().unwrap_or(&nothing), &pair.experiment_scope);
    let mut more = experiment.extended_scope_params.clone().unwrap_or_default();
    more.extend(control.extended_scope_params.clone().unwrap_or_default());
    let end = reading.time("experimentScope.end", experiment.end.as_deref());
    reading.time("experimentScope.start", experiment.start.as_deref());
    let hold_secs = end.and_then(|end| reading.until("experimentScope.end", end));
    let places = Places {
        control: &control.scope,
        control_location: control.location.as_deref(),
        experiment: &experiment.scope,
        experiment_location: experiment.location.as_deref(),
        more,
    };
    reading.asked(config, accounts, places, hold_secs, request.thresholds)
}

/// The order that a standalone request makes.
pub(super) fn of_standalone(
    config: &str,
    accounts: &Accounts,
    request: &StandaloneRequest,
    now: Time,
) -> Result<Asked, Vec<String>> {
    let mut reading = Reading { now, faults: Vec::new() };
    let named = |scope| (StandaloneScope::name(scope), scope);
    let Some(scope) = reading.one(request.scopes.iter().map(named)) else {
        return Err(reading.faults);
    };
    let begin_after = reading.minutes("beginAfterMins", request.begin_after_mins).unwrap_or(0.0);
    let lifetime = reading.minutes("lifetimeDurationMins", request.lifetime_duration_mins);
    let start = reading.time("startTimeIso", scope.start_time_iso.as_deref());
    let end = reading.time("endTimeIso", scope.end_time_iso.as_deref());
    let hold_secs = match (end, lifetime) {
        (Some(end), _) => reading.until("endTimeIso", end),
        (None, Some(secs)) => {
            let begin = start.unwrap_or(now).as_secs_f64();
            reading.until("startTimeIso", Time::from_secs_f64(begin + begin_after + secs))
        }
        (None, None) => None,
    };
    let places = Places {
        control: &scope.control_scope,
        control_location: scope.control_location.as_deref(),
        experiment: &scope.experiment_scope,
        experiment_location: scope.experiment_location.as_deref(),
        more: scope.extended_scope_params.clone().unwrap_or_default(),
    };
    reading.asked(config, accounts, places, hold_secs, request.thresholds)
}

impl StandaloneScope {
    fn name(&self) -> &str {
        self.scope_name.as_deref().unwrap_or("default")
    }
}

/// Where both versions are.
struct Places<'a> {
    control: &'a str,
    control_location: Option<&'a str>,
    experiment: &'a str,
    experiment_location: Option<&'a str>,
    more: BTreeMap<String, String>,
}

/// Reads a request and gathers its faults.
struct Reading {
    now: Time,
    faults: Vec<String>,
}

impl Reading {
    /// The pair of scopes that counts.
    fn one<'a, T: PartialEq>(
        &mut self,
        scopes: impl ExactSizeIterator<Item = (&'a str, &'a T)>,
    ) -> Option<&'a T> {
        if scopes.len() > SCOPES_MAX {
            let found = scopes.len();
            self.faults.push(format!("scopes: {found} given, at most {SCOPES_MAX} allowed"));
            return None;
        }
        let all: Vec<(&str, &T)> = scopes.collect();
        let default = all.iter().find(|(name, _)| *name == "default");
        let alike = all.first().filter(|first| all.iter().all(|scope| scope.1 == first.1));
        let found = default.or(alike).map(|(_, scope)| *scope);
        if found.is_none() {
            self.faults.push(match all.len() {
                0 => "scopes: none is given, expected one".to_owned(),
                several => format!(
                    "scopes: {several} different ones are given and none is called default; a \
                     release has one pair of versions"
                ),
            });
        }
        found
    }

    fn time(&mut self, field: &str, text: Option<&str>) -> Option<Time> {
        let text = text.map(str::trim).filter(|text| !text.is_empty())?;
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => Some(Time(time.as_millisecond())),
            Err(_) => {
                self.faults.push(format!(
                    "{field}: {text:.60?} found, expected a time such as 2026-03-01T09:30:00Z"
                ));
                None
            }
        }
    }

    /// Seconds from a number of minutes.
    fn minutes(&mut self, field: &str, minutes: Option<f64>) -> Option<f64> {
        let minutes = minutes?;
        if !(0.0..=MINUTES_MAX).contains(&minutes) {
            self.faults.push(format!("{field}: {minutes} found, expected 0 to {MINUTES_MAX}"));
        }
        Some(60.0 * minutes).filter(|secs| *secs > 0.0)
    }

    /// Seconds from now to an end that is still to come.
    fn until(&mut self, field: &str, end: Time) -> Option<f64> {
        let secs = end.as_secs_f64() - self.now.as_secs_f64();
        if secs <= 0.0 {
            self.faults.push(format!(
                "{field}: the analysis would have ended {:.0} s ago; a release is judged while it \
                 happens, and `rollgate backtest` judges past ones",
                -secs
            ));
        }
        Some(secs)
    }

    fn asked(
        mut self,
        config: &str,
        accounts: &Accounts,
        places: Places<'_>,
        hold_secs: Option<f64>,
        thresholds: Option<Thresholds>,
    ) -> Result<Asked, Vec<String>> {
        let thresholds = thresholds.unwrap_or_default();
        self.faults.extend(thresholds.faults());
        let mut parameters = BTreeMap::new();
        let mut versions = BTreeMap::new();
        let located = [
            ("control_location", places.control_location),
            ("location", places.experiment_location),
        ];
        let located = located
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let named = places.more.into_iter().map(|(name, value)| (snake_case(&name), value));
        for (name, value) in named.chain(located).filter(|(_, value)| !value.is_empty()) {
            let is_version = ["canary_version", "baseline_version"].contains(&name.as_str());
            if is_version { &mut versions } else { &mut parameters }.insert(name, value);
        }
        let canary = arm(places.experiment, versions.remove("canary_version"));
        // The same on both sides is no baseline: it would compare a version with itself.
        let has_baseline = !places.control.trim().is_empty() && places.control != places.experiment;
        let baseline =
            has_baseline.then(|| arm(places.control, versions.remove("baseline_version")));
        if canary == ArmOrder::default() {
            self.faults.push(
                "experimentScope: is empty, expected label matchers, URLs or a version".to_owned(),
            );
        }
        let is_selected = canary.selector.is_some()
            || baseline.as_ref().is_some_and(|baseline| baseline.selector.is_some());
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let prometheus = given(&accounts.metrics_account_name).filter(|_| is_selected);
        let order = OpenAnalysis {
            service: given(&accounts.application).unwrap_or_else(|| config.to_owned()),
            rules: config.to_owned(),
            canary,
            baseline,
            prometheus,
            parameters,
            hold_secs,
            ..OpenAnalysis::default()
        };
        if self.faults.is_empty() { Ok(Asked { order, thresholds }) } else { Err(self.faults) }
    }
}

/// What a scope's text says of one version.
fn arm(scope: &str, version: Option<String>) -> ArmOrder {
    let scope = scope.trim();
    let version = version.unwrap_or_default();
    let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    if is_url(scope) {
        let apart = |c: char| c == ',' || c.is_whitespace();
        let targets = scope.split(apart).filter(|url| !url.is_empty()).map(str::to_owned).collect();
        ArmOrder { version, targets, ..ArmOrder::default() }
    } else if scope.contains(['=', '~']) {
        ArmOrder { version, selector: Some(scope.to_owned()), ..ArmOrder::default() }
    } else if version.is_empty() {
        ArmOrder { version: scope.to_owned(), ..ArmOrder::default() }
    } else {
        ArmOrder { version, ..ArmOrder::default() }
    }
}

/// `resourceType` is the parameter `resource_type`.
fn snake_case(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() && !words.ends_with('_') {
            words.push('_');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}
