//! The mechanism `argo-rollouts`: a Rollout is aborted while it goes on and undone once it is over,
//! taken to its next step, or promoted at once.
//!
//! An abort of a Rollout that is fully promoted is dropped by its controller without a word, so that
//! one is undone as a Deployment is. A paused Rollout does not hear an abort before it is resumed.
//! A next step is only taken when it leads to the weight that was decided: a step that is taken twice
//! would be one too many.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    Setting,
    mapping::Mapping,
    payload::VerdictData,
    revision::Running,
    undo::{self, ROLLOUT_MARKS, Revision, Undo, Versions},
    workload::{
        Act, Stop, Turn, Workload, WorkloadError, WorkloadOptions, is_true, judged, short,
        version_of,
    },
};
use crate::kubernetes::object::{Object, Patch, REPLICA_SETS, ROLLOUTS};

/// Its name in a configuration.
pub const KIND: &str = "argo-rollouts";

/// Abort what goes on, or undo what is over.
const ABORT: &str = "abort";
/// Undo, wherever it is.
const UNDO: &str = "undo";
/// Go on to the next step.
const PROMOTE: &str = "promote";
/// Skip all steps that are left.
const PROMOTE_FULL: &str = "promote-full";

/// What it can do on a decision.
pub const ACTIONS: [&str; 4] = [ABORT, UNDO, PROMOTE, PROMOTE_FULL];

/// What it does unless it is told otherwise.
pub const MAPPING: Mapping = Mapping {
    rollback: Some(ABORT),
    promote: Some(PROMOTE_FULL),
    advance: Some(PROMOTE),
    hold: None,
};

/// How far a weight may be off, in percent: it is a whole number there and a share here.
const WEIGHT_TOLERANCE: f64 = 0.5;

/// A Rollout that is steered.
pub struct ArgoRollouts(Workload);

/// A Rollout as it was read, with its revisions.
struct Seen {
    object: Object,
    found: Value,
    revisions: Vec<Revision>,
}

impl ArgoRollouts {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the cluster's address or credentials cannot be used.
    pub fn new(options: WorkloadOptions, setting: &Setting) -> Result<Self, WorkloadError> {
        let name = options.name.clone();
        let workload = Workload::new(ROLLOUTS, options, setting);
        workload.map(Self).map_err(|why| WorkloadError { kind: KIND, name, why })
    }

    async fn see(&self, event: &VerdictData) -> Result<Seen, Stop> {
        let object = self.0.object(event)?;
        let found = self.0.read(&object).await?;
        let (generation, observed) =
            (&found["metadata"]["generation"], &found["status"]["observedGeneration"]);
        if let (Some(generation), Some(observed)) = (generation.as_u64(), observed.as_str())
            && observed.parse().is_ok_and(|observed: u64| observed < generation)
        {
            let words = "'s controller has not seen its newest change";
            return Err(Stop::failed(format!("{object}{words}")));
        }
        let selector = undo::label_selector(&found["spec"]["selector"])
            .map_err(|why| Stop::failed(format!("{object}: {why}")))?;
        let sets = self.0.list(REPLICA_SETS, &object.namespace, &selector).await?;
        let uid = found["metadata"]["uid"].as_str().unwrap_or_default();
        let revisions = undo::revisions(&sets, uid, ROLLOUT_MARKS);
        Ok(Seen { object, found, revisions })
    }

    /// Aborts what was judged. An abort leaves the Rollout's template as it is, so that it is still
    /// the judged version afterwards.
    async fn abort(&self, seen: &Seen) -> Turn {
        let (object, found) = (&seen.object, &seen.found);
        let mut done = format!("{object} was aborted already");
        if !is_true(&found["status"]["abort"]) {
            if seen.stable().is_empty() {
                let words = "has no stable revision to go back to";
                return Err(Stop::Refused(format!("{object} {words}")));
            }
            let body = json!({ "status": { "abort": true } });
            self.0.patch((object, Some("status")), found, Patch::Merge, body).await?;
            done = format!("{object} is aborted");
        }
        if is_true(&found["spec"]["paused"]) {
            // Aborted first: resumed first, it would go on for a moment. What was read is not the
            // newest any more, by our own hand, so this holds for whatever is there.
            let body = json!({ "spec": { "paused": false } });
            self.0.patch((object, None), &Value::Null, Patch::Merge, body).await?;
            done += " and resumed, so that it hears of it";
        }
        Ok(done)
    }

    async fn undo(&self, seen: &Seen, versions: Versions<'_>) -> Turn {
        let (object, found) = (&seen.object, &seen.found);
        if found["spec"]["workloadRef"].is_object() {
            return Err(Stop::Refused(format!(
                "{object} takes its template from a workloadRef: undo that one, by kubernetes-undo"
            )));
        }
        if is_true(&found["spec"]["paused"]) {
            return Err(Stop::Refused(format!(
                "{object} is paused, and would not be undone before it is resumed"
            )));
        }
        let template = undo::without_hash(&found["spec"]["template"], ROLLOUT_MARKS);
        match undo::decide(&object.to_string(), versions, &seen.revisions, &template)? {
            Undo::Done(words) => Ok(words),
            Undo::To(before) => {
                let patch = json!([
                    { "op": "test", "path": "/metadata/resourceVersion", "value": version_of(found) },
                    { "op": "replace", "path": "/spec/template", "value": before.template },
                ]);
                self.0.patch((object, None), found, Patch::Json, patch).await?;
                Ok(format!("{object} goes back to {}", before.running().words()))
            }
        }
    }

    /// Takes the next step, when it leads to the weight that was decided.
    async fn promote(&self, seen: &Seen, event: &VerdictData) -> Turn {
        let (object, found) = (&seen.object, &seen.found);
        seen.must_go_on()?;
        let Some(step) = &event.step else {
            return Err(Stop::Refused(format!("{} has no step to go to", event.action)));
        };
        let wanted = step.weight * 100.0;
        let Some((weight, next)) = weights(found) else {
            return Err(Stop::Refused(format!("{object} has no steps of a canary to go on with")));
        };
        if seen.is_full() || weight + WEIGHT_TOLERANCE >= wanted {
            return Ok(format!("{object} is at {weight} % already"));
        }
        if next > wanted + WEIGHT_TOLERANCE {
            return Err(Stop::Refused(format!(
                "{object} would go from {weight} % to {next} %, and {wanted:.0} % was decided: its \
                 steps are not those of the rule file"
            )));
        }
        if found["status"]["pauseConditions"].as_array().is_none_or(Vec::is_empty) {
            return Err(Stop::failed(format!("{object} is at {weight} % and not paused so far")));
        }
        let body = json!({ "status": { "pauseConditions": null } });
        self.0.patch((object, Some("status")), found, Patch::Merge, body).await?;
        Ok(format!("{object} goes on from {weight} % to {next} %"))
    }

    async fn promote_full(&self, seen: &Seen) -> Turn {
        let (object, found) = (&seen.object, &seen.found);
        if seen.is_full() {
            return Ok(format!("{object} is fully promoted already"));
        }
        seen.must_go_on()?;
        if is_true(&found["status"]["promoteFull"]) {
            return Ok(format!("{object} is being promoted already"));
        }
        let body = json!({ "status": { "promoteFull": true } });
        self.0.patch((object, Some("status")), found, Patch::Merge, body).await?;
        Ok(format!("{object} is promoted"))
    }
}

#[async_trait]
impl Act for ArgoRollouts {
    fn workload(&self) -> &Workload {
        &self.0
    }

    fn words(&self, action: &'static str) -> String {
        let shown = self.0.shown();
        match action {
            ABORT => format!("abort {shown}; undo it when it is fully promoted"),
            UNDO => format!("undo {shown}"),
            PROMOTE => format!("take {shown} to its next step"),
            _ => format!("promote {shown} fully"),
        }
    }

    async fn act(&self, action: &'static str, event: &VerdictData) -> Turn {
        let canary = judged(event)?;
        let seen = self.see(event).await?;
        let baseline = event.baseline_version.trim();
        let versions = Versions { picked: &self.0.picked, canary, baseline };
        // Undoing tells by itself whether what was judged still runs.
        if action == UNDO {
            return self.undo(&seen, versions).await;
        }
        if !seen.runs(versions) {
            if action == ABORT {
                return self.undo_if_older(&seen, versions).await;
            }
            return Err(Stop::Refused(format!(
                "{} runs {} now; {} was judged",
                seen.object,
                seen.words(),
                short(canary)
            )));
        }
        match action {
            ABORT if seen.is_full() => self.undo(&seen, versions).await,
            ABORT => self.abort(&seen).await,
            PROMOTE => self.promote(&seen, event).await,
            _ => self.promote_full(&seen).await,
        }
    }
}

impl ArgoRollouts {
    /// Something else runs now: gone back to already, or a refusal. Never a write.
    async fn undo_if_older(&self, seen: &Seen, versions: Versions<'_>) -> Turn {
        let template = match seen.current() {
            Some(current) => current.template.clone(),
            None => undo::without_hash(&seen.found["spec"]["template"], ROLLOUT_MARKS),
        };
        match undo::decide(&seen.object.to_string(), versions, &seen.revisions, &template)? {
            Undo::Done(words) => Ok(words),
            Undo::To(_) => Err(Stop::failed(format!("{} is changing", seen.object))),
        }
    }
}

impl Seen {
    fn hash(&self) -> &str {
        self.found["status"]["currentPodHash"].as_str().unwrap_or_default()
    }

    fn stable(&self) -> &str {
        self.found["status"]["stableRS"].as_str().unwrap_or_default()
    }

    fn is_full(&self) -> bool {
        !self.hash().is_empty() && self.hash() == self.stable()
    }

    /// The revision that the controller brings out.
    fn current(&self) -> Option<&Revision> {
        self.revisions.iter().find(|found| !found.hash.is_empty() && found.hash == self.hash())
    }

    fn running(&self) -> Running<'_> {
        let hash = Some(self.hash()).filter(|hash| !hash.is_empty());
        match self.current() {
            Some(current) => Running { hash, ..current.running() },
            None => Running { template: &self.found["spec"]["template"], hash, number: None },
        }
    }

    fn runs(&self, versions: Versions<'_>) -> bool {
        versions.picked.is(versions.canary, self.running())
    }

    fn words(&self) -> String {
        self.running().words()
    }

    /// People who paused or aborted a Rollout have decided themselves.
    fn must_go_on(&self) -> Result<(), Stop> {
        let why = if is_true(&self.found["status"]["abort"]) {
            "was aborted"
        } else if is_true(&self.found["spec"]["paused"]) {
            "was paused by hand"
        } else {
            return Ok(());
        };
        Err(Stop::Refused(format!(
            "{} {why}: `kubectl argo rollouts` must say how to go on",
            self.object
        )))
    }
}

/// The canary's weight now and at the next step, in percent, as the steps say it; none without.
fn weights(found: &Value) -> Option<(f64, f64)> {
    let steps = found["spec"]["strategy"]["canary"]["steps"].as_array()?;
    let index = found["status"]["currentStepIndex"].as_u64().unwrap_or(0);
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    let weight = |step: &Value| step["setWeight"].as_f64();
    if index >= steps.len() {
        return (!steps.is_empty()).then_some((100.0, 100.0));
    }
    // A step that pauses has the weight that was set before it.
    let (taken, left) = steps.split_at(index + 1);
    let now = taken.iter().rev().find_map(weight).unwrap_or(0.0);
    Some((now, left.iter().find_map(weight).unwrap_or(100.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_the_steps() {
        let check = |index: u64, expected: (f64, f64)| {
            let found = json!({ "status": { "currentStepIndex": index },
                "spec": { "strategy": { "canary": { "steps": [
                    { "setWeight": 10 }, { "pause": {} }, { "setWeight": 50 },
                    { "pause": { "duration": "10m" } }, { "setWeight": 100 }] } } } });
            assert_eq!(weights(&found), Some(expected), "{index}");
        };
        check(0, (10.0, 50.0));
        check(1, (10.0, 50.0));
        check(2, (50.0, 100.0));
        check(3, (50.0, 100.0));
        check(4, (100.0, 100.0));
        check(5, (100.0, 100.0));
        check(900, (100.0, 100.0));
        assert_eq!(weights(&json!({})), None);
        let empty = json!({ "spec": { "strategy": { "canary": { "steps": [] } } } });
        assert_eq!(weights(&empty), None);
    }
}
