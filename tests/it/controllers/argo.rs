//! A controller that counts as Argo Rollouts does: measurements of a `web` metric by interval, phases by
//! condition, and an end by failures, inconclusive measurements, errors in a row, or successes in a row.
//! Written after `analysis/analysis.go`, `metricproviders/webmetric` and `utils/analysis/factory.go`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::at;

/// Time that the provider waits when a template does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Errors in a row that are suffered when a template does not say.
pub const CONSECUTIVE_ERROR_LIMIT_DEFAULT: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Running,
    Successful,
    Failed,
    Inconclusive,
    Error,
}

/// One measurement as it is kept.
#[derive(Clone, Debug)]
pub struct Measurement {
    pub phase: Phase,
    /// The whole answer, as `{$}` gives it; of an error what was wrong.
    pub value: String,
}

/// One run of a template for one release.
pub struct AnalysisRun {
    metric: Value,
    url: String,
    headers: Vec<(String, String)>,
    client: reqwest::Client,
    pub measurements: Vec<Measurement>,
    failed: u64,
    inconclusive: u64,
    count: u64,
    consecutive_errors: u64,
    consecutive_successes: u64,
}

impl AnalysisRun {
    /// A run of a template's first metric with these arguments.
    pub fn new(template: &Value, given: &[(&str, &str)]) -> Self {
        assert_eq!(faults_of_template(template), [""; 0]);
        let mut args = BTreeMap::new();
        for arg in at(template, "spec.args").as_array().unwrap() {
            let name = arg["name"].as_str().unwrap().to_owned();
            let value = given.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            let value = value.or(arg["value"].as_str());
            args.insert(name.clone(), value.unwrap_or_else(|| panic!("{name} is open")).to_owned());
        }
        let metric = at(template, "spec.metrics.0").clone();
        let web = at(&metric, "provider.web");
        let timeout = web["timeoutSeconds"].as_u64().map_or(TIMEOUT_DEFAULT, Duration::from_secs);
        let client = crate::wire::client_builder().timeout(timeout).build().unwrap();
        let headers = web["headers"].as_array().cloned().unwrap_or_default();
        let headers = headers.iter().map(|header| {
            let word = |member: &str| header[member].as_str().unwrap();
            (word("key").to_owned(), filled(word("value"), &args))
        });
        Self {
            url: filled(web["url"].as_str().unwrap(), &args),
            headers: headers.collect(),
            metric,
            client,
            measurements: Vec::new(),
            failed: 0,
            inconclusive: 0,
            count: 0,
            consecutive_errors: 0,
            consecutive_successes: 0,
        }
    }

    /// Time between two measurements.
    pub fn interval(&self) -> Duration {
        seconds(self.metric["interval"].as_str().unwrap()).expect("a duration")
    }

    /// Takes one measurement; the phase of the run after it.
    pub async fn measure(&mut self) -> Phase {
        let (phase, value) = self.ask().await.unwrap_or_else(|message| (Phase::Error, message));
        if phase == Phase::Error {
            self.consecutive_errors += 1;
            self.consecutive_successes = 0;
        } else {
            self.count += 1;
            self.consecutive_errors = 0;
            let succeeds = phase == Phase::Successful;
            self.consecutive_successes = if succeeds { self.consecutive_successes + 1 } else { 0 };
            self.failed += u64::from(phase == Phase::Failed);
            self.inconclusive += u64::from(phase == Phase::Inconclusive);
        }
        self.measurements.push(Measurement { phase, value });
        self.assess()
    }

    /// Measurements that were errors.
    pub fn errors(&self) -> usize {
        self.measurements.iter().filter(|one| one.phase == Phase::Error).count()
    }

    async fn ask(&self) -> Result<(Phase, String), String> {
        let mut request = self.client.get(&self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("received non 2xx response code: {}", answer.status()));
        }
        let body = answer.text().await.map_err(|error| error.to_string())?;
        // As in every released version: what is no JSON passes.
        let Ok(result) = serde_json::from_str::<Value>(&body) else {
            return Ok((Phase::Successful, body));
        };
        let condition = |name: &str| self.metric[name].as_str().map(|text| holds(text, &result));
        let (succeeds, fails) = match (condition("successCondition"), condition("failureCondition"))
        {
            (None, None) => (true, false),
            (Some(succeeds), None) => (succeeds, !succeeds),
            (None, Some(fails)) => (!fails, fails),
            (Some(succeeds), Some(fails)) => (succeeds, fails),
        };
        let phase = match (fails, succeeds) {
            (true, _) => Phase::Failed,
            (false, true) => Phase::Successful,
            (false, false) => Phase::Inconclusive,
        };
        Ok((phase, body))
    }

    fn assess(&self) -> Phase {
        let limit = |name: &str| self.metric[name].as_u64();
        if self.failed > limit("failureLimit").unwrap_or(0) {
            return Phase::Failed;
        }
        if self.inconclusive > limit("inconclusiveLimit").unwrap_or(0) {
            return Phase::Inconclusive;
        }
        let errors = limit("consecutiveErrorLimit").unwrap_or(CONSECUTIVE_ERROR_LIMIT_DEFAULT);
        if self.consecutive_errors > errors {
            return Phase::Error;
        }
        let successes = limit("consecutiveSuccessLimit").filter(|limit| *limit > 0);
        if successes.is_some_and(|limit| self.consecutive_successes >= limit) {
            return Phase::Successful;
        }
        match limit("count").filter(|count| *count > 0) {
            Some(count) if self.count >= count => Phase::Successful,
            Some(_) | None => Phase::Running,
        }
    }
}

/// What Argo's own validation, and the shape of its resources, would say against a template.
pub fn faults_of_template(template: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, fault: &str| {
        if !holds {
            faults.push(fault.to_owned());
        }
    };
    must(template["apiVersion"] == "argoproj.io/v1alpha1", "apiVersion");
    let kinds = ["AnalysisTemplate", "ClusterAnalysisTemplate"];
    must(kinds.iter().any(|kind| template["kind"] == *kind), "kind");
    must(template["metadata"]["name"].is_string(), "metadata.name must be a string");
    let args = at(template, "spec.args").as_array().cloned().unwrap_or_default();
    let mut names = Vec::new();
    for arg in &args {
        let name = arg["name"].as_str().unwrap_or("");
        must(!name.is_empty() && !names.contains(&name.to_owned()), "args: names are there once");
        names.push(name.to_owned());
        must(arg["value"].is_null() || arg["value"].is_string(), "args: a value is a string");
        must(arg["value"].is_null() || arg["valueFrom"].is_null(), "args: value and valueFrom");
        let secret = &arg["valueFrom"]["secretKeyRef"];
        let is_whole = secret["name"].is_string() && secret["key"].is_string();
        must(arg["valueFrom"].is_null() || is_whole, "args: a secret has a name and a key");
    }
    let metrics = at(template, "spec.metrics").as_array().cloned().unwrap_or_default();
    must(!metrics.is_empty(), "no metrics specified");
    const KNOWN: [&str; 11] = [
        "name",
        "interval",
        "initialDelay",
        "count",
        "successCondition",
        "failureCondition",
        "failureLimit",
        "inconclusiveLimit",
        "consecutiveErrorLimit",
        "consecutiveSuccessLimit",
        "provider",
    ];
    for metric in &metrics {
        let members = metric.as_object().unwrap();
        must(members.keys().all(|name| KNOWN.contains(&name.as_str())), "an unknown member");
        let number = |name: &str| metric[name].as_i64().unwrap_or(0);
        for name in ["failureLimit", "inconclusiveLimit", "consecutiveErrorLimit", "count"] {
            must(metric[name].is_null() || metric[name].as_u64().is_some(), "limits are numbers");
        }
        let count = number("count");
        must(count == 0 || count >= number("failureLimit"), "count must be >= failureLimit");
        must(count == 0 || count >= number("inconclusiveLimit"), "count must be >= inconclusive");
        let interval = metric["interval"].as_str();
        must(count <= 1 || interval.is_some(), "interval must be specified when count > 1");
        must(interval.is_none_or(|text| seconds(text).is_some()), "invalid interval string");
        must(metric["provider"].as_object().is_some_and(|all| all.len() == 1), "one provider");
        let web = at(metric, "provider.web");
        must(web["url"].as_str().is_some_and(|url| url.starts_with("http")), "web.url");
        let method = web["method"].as_str().unwrap_or("GET");
        let has_body = !web["body"].is_null() || !web["jsonBody"].is_null();
        must(!has_body || method != "GET", "a body needs POST or PUT");
        must(web["timeoutSeconds"].is_null() || web["timeoutSeconds"].is_u64(), "timeoutSeconds");
        for part in metric.to_string().split("{{args.").skip(1) {
            let name = part.split("}}").next().unwrap_or("").to_owned();
            must(names.contains(&name), "failed to resolve an argument");
        }
        must(!metric.to_string().contains("{{ "), "an argument in another form");
    }
    faults
}

fn filled(text: &str, args: &BTreeMap<String, String>) -> String {
    let fill = |text: String, (name, value): (&String, &String)| {
        text.replace(&format!("{{{{args.{name}}}}}"), value)
    };
    args.iter().fold(text.to_owned(), fill)
}

/// The conditions that our template has: `result.member == "word"`.
fn holds(condition: &str, result: &Value) -> bool {
    let (path, word) = condition.split_once(" == ").expect("a comparison");
    let path = path.strip_prefix("result.").expect("of the result");
    at(result, path) == word.trim_matches('"')
}

/// A duration as Go reads it, of one unit.
pub fn seconds(text: &str) -> Option<Duration> {
    let number = |unit: &str| text.strip_suffix(unit)?.parse::<f64>().ok();
    let secs = number("ms")
        .map(|ms| ms / 1e3)
        .or(number("s"))
        .or(number("m").map(|minutes| minutes * 60.0))
        .or(number("h").map(|hours| hours * 3600.0))?;
    Some(Duration::from_secs_f64(secs))
}

#[tokio::test]
async fn the_fifth_error_in_a_row_aborts_when_a_template_does_not_say() {
    let template = serde_json::json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate",
        "metadata": { "name": "t" },
        "spec": { "args": [], "metrics": [{ "name": "m", "interval": "1s",
            "successCondition": "result.verdict == \"promote\"",
            "provider": { "web": { "url": "http://127.0.0.1:1/" } } }] },
    });
    let mut run = AnalysisRun::new(&template, &[]);
    let mut phases = Vec::new();
    for _ in 0..5 {
        phases.push(run.measure().await);
    }
    assert_eq!(phases[..4], [Phase::Running; 4]);
    assert_eq!(phases[4], Phase::Error);
    // What was read of a template is what Argo would refuse too.
    let mut broken = template.clone();
    broken["spec"]["metrics"][0]["count"] = 3.into();
    broken["spec"]["metrics"][0]["failureLimit"] = 4.into();
    broken["spec"]["metrics"][0]["provider"]["web"]["url"] = "http://x/{{args.y}}".into();
    let faults = faults_of_template(&broken);
    assert_eq!(faults, ["count must be >= failureLimit", "failed to resolve an argument"]);
}
