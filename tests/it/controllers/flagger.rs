//! A controller that goes through the phases of a canary as Flagger does, hook by hook in the order of
//! its scheduler, and counts failed checks. Written after `pkg/controller/scheduler.go`,
//! `scheduler_hooks.go` and `webhook.go`.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{argo::seconds, at};

/// Time that a hook has when the canary does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The first wait between two tries of a hook; a second in Flagger.
const RETRY_WAIT: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Initialized,
    Waiting,
    Progressing,
    WaitingPromotion,
    Promoting,
    Finalising,
    Succeeded,
    Failed,
}

/// One hook that was called, with what it was answered.
#[derive(Clone, Debug)]
pub struct Call {
    pub kind: String,
    pub weight: u64,
    pub passed: bool,
    pub words: String,
}

/// One canary and its controller.
pub struct Flagger {
    canary: Value,
    client: reqwest::Client,
    /// What the deployment says now.
    spec: String,
    last_applied: String,
    pub phase: Phase,
    pub weight: u64,
    pub failed_checks: u64,
    pub calls: Vec<Call>,
    /// Weights that were set, in order.
    pub weights: Vec<u64>,
}

impl Flagger {
    /// A canary of a file whose primary runs this text.
    pub fn new(canary: &Value, spec: &str) -> Self {
        assert_eq!(faults_of_canary(canary), [""; 0]);
        Self {
            canary: canary.clone(),
            client: crate::wire::client_builder().build().unwrap(),
            spec: spec.to_owned(),
            last_applied: spec.to_owned(),
            phase: Phase::Initialized,
            weight: 0,
            failed_checks: 0,
            calls: Vec::new(),
            weights: Vec::new(),
        }
    }

    /// Changes the deployment.
    pub fn apply(&mut self, spec: &str) {
        self.spec = spec.to_owned();
    }

    /// One interval. Whether anything was to be done.
    pub async fn advance(&mut self) -> bool {
        let is_under_way =
            !matches!(self.phase, Phase::Initialized | Phase::Succeeded | Phase::Failed);
        if !is_under_way && self.spec == self.last_applied {
            return false;
        }
        if !is_under_way || self.phase == Phase::Waiting {
            self.begin().await;
            return true;
        }
        let restarts = matches!(self.phase, Phase::Progressing | Phase::WaitingPromotion);
        if restarts && self.spec != self.last_applied {
            self.route(0);
            self.sync(Phase::Progressing);
            self.event("New revision detected! Restarting analysis").await;
            return true;
        }
        if restarts && self.hooks("rollback", self.phase).await.0 {
            self.roll_back("manual webhook invoked").await;
            return true;
        }
        match self.phase {
            Phase::Promoting => {
                self.route(0);
                self.phase = Phase::Finalising;
            }
            Phase::Finalising => {
                self.phase = Phase::Succeeded;
                self.hooks("post-rollout", Phase::Succeeded).await;
                self.event("Promotion completed!").await;
            }
            Phase::Progressing | Phase::WaitingPromotion => self.analyse().await,
            Phase::Initialized | Phase::Waiting | Phase::Succeeded | Phase::Failed => {}
        }
        true
    }

    async fn begin(&mut self) {
        let (asked, passed) =
            (self.has("confirm-rollout"), self.hooks("confirm-rollout", self.phase).await);
        if asked && !passed.0 {
            self.phase = Phase::Waiting;
            return;
        }
        if asked && self.phase == Phase::Waiting {
            self.phase = Phase::Progressing;
            return;
        }
        self.event("New revision detected! Scaling up").await;
        self.sync(Phase::Progressing);
    }

    async fn analyse(&mut self) {
        let threshold = at(&self.canary, "spec.analysis.threshold").as_u64().unwrap();
        if self.failed_checks >= threshold {
            self.roll_back("failed checks threshold reached").await;
            return;
        }
        let check = if self.weight == 0 { "pre-rollout" } else { "rollout" };
        let (passed, words) = self.hooks(check, Phase::Progressing).await;
        if !passed {
            self.failed_checks += 1;
            self.event(&format!("Halt advancement {check} check failed {words}")).await;
            return;
        }
        if self.phase == Phase::Progressing
            && !self.hooks("confirm-traffic-increase", Phase::Progressing).await.0
        {
            return;
        }
        let steps = at(&self.canary, "spec.analysis.stepWeights").as_array().unwrap();
        let next = steps.iter().filter_map(Value::as_u64).find(|weight| *weight > self.weight);
        match next {
            Some(weight) => {
                self.route(weight);
                self.event(&format!("Advance canary weight {weight}")).await;
            }
            None if self.hooks("confirm-promotion", Phase::Progressing).await.0 => {
                self.phase = Phase::Promoting;
            }
            None => self.phase = Phase::WaitingPromotion,
        }
    }

    async fn roll_back(&mut self, why: &str) {
        self.event(&format!("Rolling back: {why}")).await;
        self.route(0);
        self.sync(Phase::Failed);
        self.hooks("post-rollout", Phase::Failed).await;
    }

    fn sync(&mut self, phase: Phase) {
        self.last_applied.clone_from(&self.spec);
        (self.phase, self.failed_checks, self.weight) = (phase, 0, 0);
    }

    fn route(&mut self, weight: u64) {
        if weight != self.weight {
            self.weights.push(weight);
        }
        self.weight = weight;
    }

    fn webhooks(&self, kind: &str) -> Vec<Value> {
        let all = at(&self.canary, "spec.analysis.webhooks").as_array().unwrap();
        all.iter().filter(|hook| hook["type"] == kind).cloned().collect()
    }

    fn has(&self, kind: &str) -> bool {
        !self.webhooks(kind).is_empty()
    }

    /// Calls the hooks of a kind. Whether they pass, and the words of the last; of `rollback`
    /// whether one passes.
    async fn hooks(&mut self, kind: &str, phase: Phase) -> (bool, String) {
        let (mut passed, mut words) = (kind != "rollback", String::new());
        for hook in self.webhooks(kind) {
            let metadata = hook["metadata"].clone();
            let answer = self.call(&hook, &self.payload(phase, metadata)).await;
            let (call_passed, call_words) = match answer {
                Ok(words) => (true, words),
                Err(words) => (false, words),
            };
            self.calls.push(Call {
                kind: kind.to_owned(),
                weight: self.weight,
                passed: call_passed,
                words: call_words.clone(),
            });
            (passed, words) = (call_passed, call_words);
            if passed == (kind == "rollback") {
                break;
            }
        }
        (passed, words)
    }

    async fn event(&self, message: &str) {
        let metadata = json!({ "eventMessage": message, "eventType": "Normal", "timestamp": "0" });
        for hook in self.webhooks("event") {
            let _ = self.call(&hook, &self.payload(self.phase, metadata.clone())).await;
        }
    }

    fn payload(&self, phase: Phase, metadata: Value) -> Value {
        let digest = Sha256::digest(&self.last_applied);
        let checksum: String = digest.iter().take(8).map(|byte| format!("{byte:x}")).collect();
        json!({
            "name": self.canary["metadata"]["name"],
            "namespace": self.canary["metadata"]["namespace"],
            "phase": format!("{phase:?}"),
            "checksum": checksum,
            "metadata": metadata,
        })
    }

    /// The body when the status is at most 202, and otherwise the error that is shown.
    async fn call(&self, hook: &Value, payload: &Value) -> Result<String, String> {
        let timeout = hook["timeout"].as_str().and_then(seconds).unwrap_or(TIMEOUT_DEFAULT);
        let retries = hook["retries"].as_u64().unwrap_or(0);
        let mut wait = RETRY_WAIT;
        for attempt in 0.. {
            let request = self.client.post(hook["url"].as_str().unwrap()).timeout(timeout);
            let answer = request.json(payload).send().await;
            let is_last = attempt >= retries;
            match answer {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    if (status == 429 || status >= 500) && !is_last {
                        // Tried again below.
                    } else if status == 429 || status >= 500 {
                        return Err(format!("giving up after {} attempts", attempt + 1));
                    } else {
                        let body = answer.text().await.map_err(|error| error.to_string())?;
                        return if status > 202 { Err(body) } else { Ok(body) };
                    }
                }
                Err(error) if is_last => return Err(format!("giving up: {error}")),
                Err(_) => {}
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        unreachable!("attempts have no end")
    }
}

/// What Flagger's resource definition, and its scheduler, would say against a canary.
pub fn faults_of_canary(canary: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    must(canary["apiVersion"] == "flagger.app/v1beta1", "apiVersion".to_owned());
    must(canary["kind"] == "Canary", "kind".to_owned());
    for path in ["metadata.name", "metadata.namespace"] {
        must(at(canary, path).is_string(), path.to_owned());
    }
    for name in ["apiVersion", "kind", "name"] {
        must(at(canary, "spec.targetRef")[name].is_string(), format!("targetRef.{name}"));
    }
    must(at(canary, "spec.service.port").is_u64(), "service.port".to_owned());
    let analysis = at(canary, "spec.analysis");
    let interval = analysis["interval"].as_str().and_then(seconds);
    must(interval.is_some(), "analysis.interval".to_owned());
    must(analysis["threshold"].as_u64().is_some_and(|count| count > 0), "threshold".to_owned());
    let weights = analysis["stepWeights"].as_array().cloned().unwrap_or_default();
    let weights: Vec<u64> = weights.iter().filter_map(Value::as_u64).collect();
    let rise =
        weights.windows(2).all(|pair| pair[0] < pair[1]) && weights.iter().all(|w| *w <= 100);
    must(rise && !weights.is_empty(), "stepWeights".to_owned());
    const KINDS: [&str; 8] = [
        "confirm-rollout",
        "pre-rollout",
        "rollout",
        "confirm-traffic-increase",
        "confirm-promotion",
        "rollback",
        "post-rollout",
        "event",
    ];
    const KNOWN: [&str; 7] = ["name", "type", "url", "timeout", "retries", "muteAlert", "metadata"];
    for hook in analysis["webhooks"].as_array().cloned().unwrap_or_default() {
        let name = hook["name"].as_str().unwrap_or("");
        must(!name.is_empty(), "a hook has a name".to_owned());
        let kind = hook["type"].as_str().unwrap_or("");
        must(KINDS.contains(&kind), format!("{name}: type {kind}"));
        let url = hook["url"].as_str().unwrap_or("");
        must(url.starts_with("http://") || url.starts_with("https://"), format!("{name}: url"));
        let timeout = hook["timeout"].as_str();
        must(timeout.is_none_or(|text| seconds(text).is_some()), format!("{name}: timeout"));
        must(hook["retries"].is_null() || hook["retries"].is_u64(), format!("{name}: retries"));
        let metadata = hook["metadata"].as_object().cloned().unwrap_or_default();
        must(metadata.values().all(Value::is_string), format!("{name}: metadata are strings"));
        let members = hook.as_object().unwrap();
        must(members.keys().all(|key| KNOWN.contains(&key.as_str())), format!("{name}: a member"));
    }
    faults
}
