//! The mechanism `kubernetes-undo`: a Deployment goes back to its revision before, as `kubectl
//! rollout undo` does it.
//!
//! Its pod template is replaced by the older one, with a `test` on the version that was read, so that
//! nothing is undone that somebody released in between.

use async_trait::async_trait;
use serde_json::json;

use super::{
    Setting,
    mapping::Mapping,
    payload::VerdictData,
    undo::{self, DEPLOYMENT_MARKS, Undo, Versions},
    workload::{
        Act, Stop, Turn, Workload, WorkloadError, WorkloadOptions, is_true, judged, version_of,
    },
};
use crate::kubernetes::object::{DEPLOYMENTS, Patch, REPLICA_SETS};

/// Its name in a configuration.
pub const KIND: &str = "kubernetes-undo";

/// What it can do on a decision.
pub const ACTIONS: [&str; 1] = ["undo"];

/// What it does unless it is told otherwise.
pub const MAPPING: Mapping =
    Mapping { rollback: Some("undo"), promote: None, advance: None, hold: None };

/// A Deployment that is undone.
pub struct KubernetesUndo(Workload);

impl KubernetesUndo {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the cluster's address or credentials cannot be used.
    pub fn new(options: WorkloadOptions, setting: &Setting) -> Result<Self, WorkloadError> {
        let name = options.name.clone();
        let workload = Workload::new(DEPLOYMENTS, options, setting);
        workload.map(Self).map_err(|why| WorkloadError { kind: KIND, name, why })
    }
}

#[async_trait]
impl Act for KubernetesUndo {
    fn workload(&self) -> &Workload {
        &self.0
    }

    fn words(&self, _: &'static str) -> String {
        format!("undo {}", self.0.shown())
    }

    async fn act(&self, _: &'static str, event: &VerdictData) -> Turn {
        let workload = &self.0;
        let canary = judged(event)?;
        let object = workload.object(event)?;
        let found = workload.read(&object).await?;
        if is_true(&found["spec"]["paused"]) {
            return Err(Stop::Refused(format!(
                "{object} is paused: `kubectl rollout resume` first"
            )));
        }
        let selector = undo::label_selector(&found["spec"]["selector"])
            .map_err(|why| Stop::failed(format!("{object}: {why}")))?;
        let sets = workload.list(REPLICA_SETS, &object.namespace, &selector).await?;
        let uid = found["metadata"]["uid"].as_str().unwrap_or_default();
        let revisions = undo::revisions(&sets, uid, DEPLOYMENT_MARKS);
        let template = undo::without_hash(&found["spec"]["template"], DEPLOYMENT_MARKS);
        let baseline = event.baseline_version.trim();
        let versions = Versions { picked: &workload.picked, canary, baseline };
        let before = match undo::decide(&object.to_string(), versions, &revisions, &template)? {
            Undo::Done(words) => return Ok(words),
            Undo::To(before) => before,
        };
        let patch = json!([
            { "op": "test", "path": "/metadata/resourceVersion", "value": version_of(&found) },
            { "op": "replace", "path": "/spec/template", "value": before.template },
        ]);
        workload.patch((&object, None), &found, Patch::Json, patch).await?;
        Ok(format!("{object} goes back to {}", before.running().words()))
    }
}
