//! The mechanism `flagger`: a Canary is told that its checks have failed, or that it needs none.
//!
//! Flagger rolls back by itself once as many checks have failed as its threshold says, so that is what
//! is written. It promotes at once what is marked to skip its analysis; the mark is taken back when it
//! has, since Flagger would let every later release pass too.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    Setting,
    mapping::Mapping,
    payload::VerdictData,
    revision::Running,
    undo::DEPLOYMENT_MARKS,
    workload::{Act, Stop, Turn, Workload, WorkloadError, WorkloadOptions, is_true, judged, short},
};
use crate::kubernetes::object::{CANARIES, DEPLOYMENTS, Name, Object, Patch};

/// Its name in a configuration.
pub const KIND: &str = "flagger";

/// As many failed checks as lead to a rollback.
const FAIL: &str = "fail";
/// Promote without any more checks.
const SKIP_ANALYSIS: &str = "skip-analysis";

/// What it can do on a decision.
pub const ACTIONS: [&str; 2] = [FAIL, SKIP_ANALYSIS];

/// What it does unless it is told otherwise. Flagger promotes by itself; to wait for our verdict
/// with that is what its own webhooks are for.
pub const MAPPING: Mapping =
    Mapping { rollback: Some(FAIL), promote: None, advance: None, hold: None };

/// Failed checks that Flagger rolls back at where a Canary says nothing.
const THRESHOLD_DEFAULT: u64 = 1;

/// How long Flagger is given before it is asked again whether it has promoted.
const PROMOTION_WAIT: Duration = Duration::from_secs(5);

/// A Canary that is steered.
pub struct Flagger(Workload);

impl Flagger {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the cluster's address or credentials cannot be used.
    pub fn new(options: WorkloadOptions, setting: &Setting) -> Result<Self, WorkloadError> {
        let name = options.name.clone();
        let workload = Workload::new(CANARIES, options, setting);
        workload.map(Self).map_err(|why| WorkloadError { kind: KIND, name, why })
    }

    /// The workload that the Canary releases is the one whose template is new.
    async fn must_run(
        &self,
        event: &VerdictData,
        object: &Object,
        found: &Value,
    ) -> Result<(), Stop> {
        let canary = judged(event)?;
        // Flagger's own hash of the template that it releases.
        let hash = found["status"]["lastAppliedSpec"].as_str();
        let target = &found["spec"]["targetRef"];
        let (kind, name) = (&target["kind"], target["name"].as_str().unwrap_or_default());
        if kind.as_str() != Some("Deployment") {
            return Err(Stop::Refused(format!(
                "{object} releases a {}, and only a Deployment tells which version runs",
                short(kind.as_str().unwrap_or("nothing"))
            )));
        }
        let name = Name::new(name).map_err(|why| Stop::Refused(format!("{object}: {why}")))?;
        let target = Object { kind: DEPLOYMENTS, namespace: object.namespace.clone(), name };
        let deployment = self.0.read(&target).await?;
        let number = deployment["metadata"]["annotations"][DEPLOYMENT_MARKS.number].as_str();
        let number = number.and_then(|number| number.parse().ok());
        let running = Running { template: &deployment["spec"]["template"], hash, number };
        match self.0.picked.is(canary, running) {
            true => Ok(()),
            false => Err(Stop::Refused(format!(
                "{target} runs {} now; {} was judged",
                running.words(),
                short(canary)
            ))),
        }
    }

    async fn fail(&self, object: &Object, found: &Value) -> Turn {
        match phase(found) {
            "Failed" => return Ok(format!("{object} has been rolled back already")),
            "Progressing" | "WaitingPromotion" => {}
            // Failed checks are forgotten when the release begins.
            "Waiting" | "" => return Err(Stop::failed(format!("{object} has not begun so far"))),
            phase => {
                return Err(Stop::Refused(format!(
                    "{object} is {}, and Flagger only rolls back what is Progressing",
                    short(phase)
                )));
            }
        }
        let threshold = found["spec"]["analysis"]["threshold"].as_u64().unwrap_or(0);
        let checks = threshold.max(THRESHOLD_DEFAULT);
        if found["status"]["failedChecks"].as_u64() >= Some(checks) {
            return Ok(format!("{object} has {checks} failed checks already"));
        }
        let body = json!({ "status": { "failedChecks": checks } });
        self.0.patch((object, Some("status")), found, Patch::Merge, body).await?;
        Ok(format!("{object} has {checks} failed checks, at which Flagger rolls back"))
    }

    async fn skip(&self, object: &Object, found: &Value) -> Turn {
        let is_marked = is_true(&found["spec"]["skipAnalysis"]);
        let phase = phase(found);
        match phase {
            "Succeeded" if is_marked => {
                self.mark(object, found, false).await?;
                Ok(format!("{object} is promoted, and later releases are analyzed again"))
            }
            "Succeeded" => Ok(format!("{object} is promoted already")),
            "Promoting" | "Finalising" if !is_marked => {
                Ok(format!("{object} is being promoted already"))
            }
            "Waiting" | "Progressing" | "WaitingPromotion" | "Promoting" | "Finalising" => {
                if !is_marked {
                    self.mark(object, found, true).await?;
                }
                Err(Stop::Failed {
                    answer: format!(
                        "{object} is marked to skip its analysis; it is {phase}, and is asked \
                         again until it has succeeded, to take the mark back"
                    ),
                    retry_after: Some(PROMOTION_WAIT.as_secs().to_string()),
                })
            }
            "Failed" => Err(Stop::Refused(format!("{object} has been rolled back"))),
            phase => Err(Stop::Refused(format!(
                "{object} is {}, and there is no release to promote",
                short(phase)
            ))),
        }
    }

    async fn mark(&self, object: &Object, found: &Value, is_marked: bool) -> Result<(), Stop> {
        let body = json!({ "spec": { "skipAnalysis": is_marked } });
        self.0.patch((object, None), found, Patch::Merge, body).await
    }
}

#[async_trait]
impl Act for Flagger {
    fn workload(&self) -> &Workload {
        &self.0
    }

    fn words(&self, action: &'static str) -> String {
        let shown = self.0.shown();
        match action {
            FAIL => format!("let the checks of {shown} fail"),
            _ => format!("let {shown} skip its analysis until it has succeeded"),
        }
    }

    async fn act(&self, action: &'static str, event: &VerdictData) -> Turn {
        judged(event)?;
        let object = self.0.object(event)?;
        let found = self.0.read(&object).await?;
        self.must_run(event, &object, &found).await?;
        match action {
            FAIL => self.fail(&object, &found).await,
            _ => self.skip(&object, &found).await,
        }
    }
}

fn phase(found: &Value) -> &str {
    found["status"]["phase"].as_str().unwrap_or_default()
}
