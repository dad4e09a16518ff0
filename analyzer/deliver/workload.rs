//! What the mechanisms that change objects of a Kubernetes cluster have in common: names that are
//! filled in, turns that are taken again when somebody else was faster, and what each refusal of
//! an API server means for a delivery.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::{
    Attempt, Clock, Mechanism, Parcel, Setting,
    mapping::Mapping,
    payload::{DeployAction, VerdictData},
    peer::{SetupError, SetupFault},
    retry,
    revision::Picked,
};
use crate::{
    kubernetes::{
        Cluster, ClusterError, ClusterOptions,
        object::{Kind, Name, Object, Patch},
    },
    outward::pattern::Pattern,
};

/// Names that stand in the patterns of these mechanisms.
pub const NAMES: [&str; 3] = ["service", "canary_version", "baseline_version"];

/// How often a turn is taken when what was read had changed before it was written.
const TURNS_MAX: u32 = 5;

/// Wait before another turn, as often as turns were taken.
const TURN_WAIT: Duration = Duration::from_millis(50);

/// Characters of a judged version that are shown.
const SHOWN_CHARS_MAX: usize = 80;

/// Which object of which cluster.
#[derive(Clone, Debug)]
pub struct WorkloadOptions {
    /// Name of the mechanism.
    pub name: String,
    /// The API server.
    pub cluster: ClusterOptions,
    /// The namespace; the cluster's own when none.
    pub namespace: Option<Pattern>,
    /// The object's name.
    pub object: Pattern,
    /// By what the judged version is found in what runs.
    pub revision: Picked,
    /// What is done on which decision.
    pub mapping: Mapping,
}

/// Why a mechanism cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}: {why}")]
pub struct WorkloadError {
    /// The mechanism's kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub why: String,
}

impl From<WorkloadError> for SetupError {
    fn from(WorkloadError { kind, name, why }: WorkloadError) -> Self {
        Self { kind, name, fault: SetupFault::Options(why) }
    }
}

/// The object of a mechanism, ready to be asked for.
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) cluster: Cluster,
    pub(super) picked: Picked,
    pub(super) mapping: Mapping,
    kind: Kind,
    namespace: Option<Pattern>,
    object: Pattern,
    now: Clock,
}

/// Why a turn has come to an end without a delivery.
#[derive(Debug)]
pub(super) enum Stop {
    /// The world is not as it was judged, or never will do this.
    Refused(String),
    /// To be tried again.
    Failed {
        /// Why.
        answer: String,
        /// `Retry-After` as it came.
        retry_after: Option<String>,
    },
    /// Somebody else was faster: to be read and decided anew.
    Outrun {
        /// What the server said.
        answer: String,
        /// The object's version that was written upon.
        version: String,
        /// Whether the server called the patch invalid, which it does both when a `test` fails and
        /// when what it would lead to is not allowed.
        is_invalid: bool,
    },
}

impl Stop {
    pub(super) fn failed(answer: impl Into<String>) -> Self {
        Self::Failed { answer: answer.into(), retry_after: None }
    }

    pub(super) fn refused(answer: impl Into<String>) -> Self {
        Self::Refused(answer.into())
    }

    /// What it means that `what` was not done, such as `read deployment prod/shop`.
    fn of(what: &str, error: ClusterError) -> Self {
        let answer = format!("cannot {what}: {error}");
        if error.is_final() {
            return Self::Refused(answer);
        }
        match error {
            ClusterError::Status { retry_after, .. } => Self::Failed { answer, retry_after },
            ClusterError::Credentials(_)
            | ClusterError::Unreachable(_)
            | ClusterError::Malformed(_) => Self::failed(answer),
        }
    }
}

/// Words of what was done; or why it came to an end without.
pub(super) type Turn = Result<String, Stop>;

impl Workload {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the cluster's address or credentials cannot be used.
    pub(super) fn new(
        kind: Kind,
        options: WorkloadOptions,
        setting: &Setting,
    ) -> Result<Self, String> {
        let WorkloadOptions { name, cluster, namespace, object, revision, mapping } = options;
        let cluster = Cluster::new(cluster, setting.rehearsal.clone())?;
        if namespace.is_none() && cluster.namespace().is_none() {
            return Err("namespace is missing, and the cluster has none of its own".to_owned());
        }
        let now = setting.now.clone();
        Ok(Self { name, cluster, picked: revision, mapping, kind, namespace, object, now })
    }

    /// Where it is, as it is configured: `deployment production/{service}`.
    pub(super) fn shown(&self) -> String {
        let own = self.cluster.namespace().unwrap_or_default();
        let namespace = self.namespace.as_ref().map_or(own, Pattern::as_str);
        format!("{} {namespace}/{}", self.kind.word, self.object.as_str())
    }

    /// The object that an event is about.
    pub(super) fn object(&self, event: &VerdictData) -> Result<Object, Stop> {
        self.beside(event, self.kind, &self.object)
    }

    /// Another object of the same namespace.
    pub(super) fn beside(
        &self,
        event: &VerdictData,
        kind: Kind,
        name: &Pattern,
    ) -> Result<Object, Stop> {
        let filled = |pattern: &Pattern| {
            Name::new(&pattern.fill(|name| placeholder(event, name)))
                .map_err(|why| Stop::Refused(format!("{}: {why}", pattern.as_str())))
        };
        let namespace = match &self.namespace {
            Some(pattern) => filled(pattern)?,
            None => Name::new(self.cluster.namespace().unwrap_or_default())
                .map_err(|why| Stop::Refused(format!("the namespace {why}")))?,
        };
        Ok(Object { kind, namespace, name: filled(name)? })
    }

    pub(super) async fn read(&self, object: &Object) -> Result<Value, Stop> {
        let found = self.cluster.read(object).await;
        found.map_err(|error| Stop::of(&format!("read {object}"), error))
    }

    /// An object, or none when it is not there.
    pub(super) async fn read_if_there(&self, object: &Object) -> Result<Option<Value>, Stop> {
        match self.cluster.read(object).await {
            Err(error) if error.is_absent() => Ok(None),
            found => found.map(Some).map_err(|error| Stop::of(&format!("read {object}"), error)),
        }
    }

    pub(super) async fn list(
        &self,
        kind: Kind,
        namespace: &Name,
        label_selector: &str,
    ) -> Result<Vec<Value>, Stop> {
        let found = self.cluster.list(kind, namespace, label_selector).await;
        found.map_err(|error| Stop::of(&format!("list {} of {namespace}", kind.plural), error))
    }

    /// Changes an object, or a part of it, that was read as `found`. A merge only holds for what
    /// was read: it carries its version.
    pub(super) async fn patch(
        &self,
        (object, part): (&Object, Option<&str>),
        found: &Value,
        patch: Patch,
        mut body: Value,
    ) -> Result<(), Stop> {
        let version = version_of(found);
        match patch {
            Patch::Json => {}
            Patch::Merge | Patch::Strategic if !version.is_empty() => {
                body["metadata"] = serde_json::json!({ "resourceVersion": version });
            }
            Patch::Merge | Patch::Strategic => {}
        }
        self.cluster.patch(object, part, patch, &body).await.map_err(|error| {
            let part = part.map(|part| format!(" ({part})")).unwrap_or_default();
            let what = format!("change {object}{part}");
            if !error.is_outrun() {
                return Stop::of(&what, error);
            }
            let is_invalid = error.code() == Some(reqwest::StatusCode::UNPROCESSABLE_ENTITY);
            let (answer, version) = (format!("cannot {what}: {error}"), version.to_owned());
            Stop::Outrun { answer, version, is_invalid }
        })
    }
}

/// What a kind of mechanism does in a cluster. Each turn reads, decides and writes; it may be taken
/// again from the start at any time, also after half of it was done.
#[async_trait]
pub(super) trait Act: Send + Sync + 'static {
    /// Where.
    fn workload(&self) -> &Workload;
    /// What an action is, in words.
    fn words(&self, action: &'static str) -> String;
    /// Takes one turn of an action.
    async fn act(&self, action: &'static str, event: &VerdictData) -> Turn;
}

#[async_trait]
impl<A: Act> Mechanism for A {
    fn name(&self) -> &str {
        &self.workload().name
    }

    fn does(&self, action: DeployAction) -> Option<String> {
        self.workload().mapping.of(action).map(|action| self.words(action))
    }

    /// Takes turns until one comes to an end that is not somebody else's write in between.
    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        let event = match parcel.event() {
            Ok(event) => event.data,
            Err(error) => {
                return Attempt::Refused { answer: format!("the event cannot be read: {error}") };
            }
        };
        let Some(action) = self.workload().mapping.of(event.action) else {
            return Attempt::Nothing { answer: format!("nothing is done on {}", event.action) };
        };
        let mut before: Option<String> = None;
        let mut turns = 0;
        loop {
            turns += 1;
            let (answer, version) = match self.act(action, &event).await {
                Ok(answer) => return Attempt::Delivered { answer },
                Err(Stop::Refused(answer)) => return Attempt::Refused { answer },
                Err(Stop::Failed { answer, retry_after }) => {
                    let now = (self.workload().now)();
                    let asked = retry_after.as_deref();
                    let retry_after = asked.and_then(|header| retry::retry_after(header, now));
                    return Attempt::Failed { answer, retry_after };
                }
                // Nobody wrote in between, and it is invalid all the same: it always will be.
                Err(Stop::Outrun { answer, version, is_invalid })
                    if is_invalid && before.as_deref() == Some(&*version) =>
                {
                    return Attempt::Refused { answer };
                }
                Err(Stop::Outrun { answer, version, .. }) => (answer, version),
            };
            if turns == TURNS_MAX {
                let answer = format!("{answer}; read and decided anew {TURNS_MAX} times");
                return Attempt::Failed { answer, retry_after: None };
            }
            before = Some(version);
            tokio::time::sleep(TURN_WAIT * turns).await;
        }
    }
}

/// The version that was judged.
///
/// # Errors
/// When the order named none: nothing could tell whether it still runs.
pub(super) fn judged(event: &VerdictData) -> Result<&str, Stop> {
    match event.canary_version.trim() {
        "" => Err(Stop::refused(
            "the order named no canary version, so nothing tells whether what was judged still runs",
        )),
        version => Ok(version),
    }
}

/// A version for people.
pub(super) fn short(version: &str) -> String {
    version.chars().take(SHOWN_CHARS_MAX).collect()
}

/// An object's version in the API server; empty when it says none.
pub(super) fn version_of(found: &Value) -> &str {
    found["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

/// A part of an object that is there and true.
pub(super) fn is_true(found: &Value) -> bool {
    found.as_bool() == Some(true)
}

pub(super) fn placeholder<'a>(event: &'a VerdictData, name: &str) -> &'a str {
    match name {
        "service" => &event.service,
        "canary_version" => &event.canary_version,
        "baseline_version" => &event.baseline_version,
        _ => "",
    }
}
