//! The mechanism `kubernetes-service`: blue-green. A Service selects one of two Deployments by one
//! label; going back selects the other one and then scales the judged one down.
//!
//! First the selector, then the scale: the other way round requests would go to pods that end. Each
//! step is left out where it is done already, so that a delivery that is repeated finishes what was
//! begun. Traffic is never sent to a Deployment that has no ready pod.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    Setting,
    mapping::Mapping,
    payload::VerdictData,
    revision::{Picked, Running},
    undo::DEPLOYMENT_MARKS,
    workload::{
        Act, Stop, Turn, Workload, WorkloadError, WorkloadOptions, judged, placeholder, short,
    },
};
use crate::{
    kubernetes::object::{DEPLOYMENTS, Name, Object, Patch, SERVICES},
    outward::pattern::Pattern,
};

/// Its name in a configuration.
pub const KIND: &str = "kubernetes-service";

/// Select the other Deployment, and scale the judged one down.
const SWITCH_BACK: &str = "switch-back";
/// Select the judged Deployment.
const SWITCH: &str = "switch";
/// Select the judged Deployment, and scale the other one down.
const SWITCH_AND_RETIRE: &str = "switch-and-retire";

/// What it can do on a decision.
pub const ACTIONS: [&str; 3] = [SWITCH_BACK, SWITCH, SWITCH_AND_RETIRE];

/// What it does unless it is told otherwise. The old Deployment is kept: it is the way back.
pub const MAPPING: Mapping =
    Mapping { rollback: Some(SWITCH_BACK), promote: Some(SWITCH), advance: None, hold: None };

/// Names that stand in the pattern of the Deployments: `{value}` is the label's value.
pub const DEPLOYMENT_NAMES: [&str; 4] = ["service", "canary_version", "baseline_version", "value"];

/// Which Service, and what it selects.
#[derive(Clone, Debug)]
pub struct KubernetesServiceOptions {
    /// The Service.
    pub service: WorkloadOptions,
    /// The label of its selector that is switched.
    pub label: String,
    /// The two values of that label, such as `blue` and `green`.
    pub values: [String; 2],
    /// The Deployments' names, with `{value}` in them. Without, the version that is judged must be
    /// one of the two values, and nothing is scaled.
    pub deployment: Option<Pattern>,
    /// Whether the Deployment that is switched away from is scaled down.
    pub scales_down: bool,
}

/// A Service that is switched.
pub struct KubernetesService {
    service: Workload,
    label: String,
    values: [String; 2],
    deployment: Option<Pattern>,
    scales_down: bool,
}

/// One of the two sides.
struct Side<'a> {
    value: &'a str,
    deployment: Option<(Object, Value)>,
}

impl KubernetesService {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the cluster's address or credentials cannot be used, or the two sides are one.
    pub fn new(
        options: KubernetesServiceOptions,
        setting: &Setting,
    ) -> Result<Self, WorkloadError> {
        let KubernetesServiceOptions { service, label, values, deployment, scales_down } = options;
        let name = service.name.clone();
        let fault = |why: String| WorkloadError { kind: KIND, name: name.clone(), why };
        if values[0] == values[1] {
            return Err(fault(format!("values are {:?} twice, expected two", values[0])));
        }
        if deployment.as_ref().is_some_and(|pattern| !pattern.names("value")) {
            return Err(fault(
                "deployment lacks {value}, expected one such as shop-{value}".into(),
            ));
        }
        if service.revision == Picked::Hash {
            return Err(fault("revision is hash, which the Deployments do not tell".into()));
        }
        let service = Workload::new(SERVICES, service, setting).map_err(fault)?;
        Ok(Self { service, label, values, deployment, scales_down })
    }

    /// The judged side and the other one.
    async fn sides(
        &self,
        event: &VerdictData,
        selected: &str,
    ) -> Result<(Side<'_>, Side<'_>), Stop> {
        let canary = judged(event)?;
        let [first, second] =
            [self.side(event, &self.values[0]).await?, self.side(event, &self.values[1]).await?];
        let runs = |side: &Side<'_>, version: &str| {
            side.value == version
                || side.deployment.as_ref().is_some_and(|(_, found)| self.is(version, found))
        };
        match (runs(&first, canary), runs(&second, canary)) {
            (true, false) => Ok((first, second)),
            (false, true) => Ok((second, first)),
            (is_both, _) => {
                let words = format!("{} and {}", self.words_of(&first), self.words_of(&second));
                let which = if is_both { "both are" } else { "neither is" };
                Err(Stop::Refused(format!(
                    "{words}: {which} {}, which was judged; {} is selected",
                    short(canary),
                    short(selected)
                )))
            }
        }
    }

    async fn side<'a>(&self, event: &VerdictData, value: &'a str) -> Result<Side<'a>, Stop> {
        let Some(pattern) = &self.deployment else { return Ok(Side { value, deployment: None }) };
        let filled = pattern.fill(|name| match name {
            "value" => value,
            name => placeholder(event, name),
        });
        let name = Name::new(&filled)
            .map_err(|why| Stop::Refused(format!("{}: {why}", pattern.as_str())))?;
        let namespace = self.service.object(event)?.namespace;
        let object = Object { kind: DEPLOYMENTS, namespace, name };
        // One side may be gone: the old one is deleted after a while.
        let found = self.service.read_if_there(&object).await?;
        Ok(Side { value, deployment: found.map(|found| (object, found)) })
    }

    fn is(&self, version: &str, deployment: &Value) -> bool {
        self.service.picked.is(version, running(deployment))
    }

    fn words_of(&self, side: &Side<'_>) -> String {
        match &side.deployment {
            Some((object, found)) => format!("{object} runs {}", running(found).words()),
            None => format!("{} has no deployment", side.value),
        }
    }

    /// Selects `to`, unless it is selected already.
    async fn select(
        &self,
        (object, found): (&Object, &Value),
        from: &Side<'_>,
        to: &Side<'_>,
    ) -> Turn {
        let selected = found["spec"]["selector"][&self.label].as_str().unwrap_or_default();
        let (label, value) = (&self.label, to.value);
        if selected == value {
            return Ok(format!("{object} selects {label}={value} already"));
        }
        if selected != from.value {
            return Err(Stop::Refused(format!(
                "{object} selects {label}={:?} now, expected {} or {value}",
                short(selected),
                from.value
            )));
        }
        match &to.deployment {
            None if self.deployment.is_some() => {
                return Err(Stop::Refused(format!("{value} has no deployment to switch to")));
            }
            Some((deployment, found)) if !has_ready_pods(found) => {
                return Err(Stop::failed(format!(
                    "{deployment} has no ready pod: switching to it would leave {object} without any"
                )));
            }
            Some(_) | None => {}
        }
        let body = json!({ "spec": { "selector": { (label): value } } });
        self.service.patch((object, None), found, Patch::Strategic, body).await?;
        Ok(format!("{object} selects {label}={value} again"))
    }

    /// Scales a side to zero, unless it is there already or must not be.
    async fn scale_down(&self, side: &Side<'_>, done: String) -> Turn {
        let Some((object, found)) = side.deployment.as_ref().filter(|_| self.scales_down) else {
            return Ok(done);
        };
        if found["spec"]["replicas"].as_u64() == Some(0) {
            return Ok(format!("{done}; {object} is scaled to 0 already"));
        }
        let body = json!({ "spec": { "replicas": 0 } });
        self.service.patch((object, Some("scale")), found, Patch::Merge, body).await?;
        Ok(format!("{done}; {object} is scaled to 0"))
    }
}

#[async_trait]
impl Act for KubernetesService {
    fn workload(&self) -> &Workload {
        &self.service
    }

    fn words(&self, action: &'static str) -> String {
        let (shown, [one, other]) = (self.service.shown(), &self.values);
        let label = &self.label;
        let scaled = match (&self.deployment, self.scales_down) {
            (Some(pattern), true) => format!(", then scale {} to 0", pattern.as_str()),
            (Some(_) | None, _) => String::new(),
        };
        match action {
            SWITCH_BACK => format!("switch {shown} back ({label}: {one} or {other}){scaled}"),
            SWITCH_AND_RETIRE => {
                format!("switch {shown} to what was judged ({label}: {one} or {other}){scaled}")
            }
            _ => format!("switch {shown} to what was judged ({label}: {one} or {other})"),
        }
    }

    async fn act(&self, action: &'static str, event: &VerdictData) -> Turn {
        judged(event)?;
        let object = self.service.object(event)?;
        let found = self.service.read(&object).await?;
        let Some(selected) = found["spec"]["selector"][&self.label].as_str() else {
            return Err(Stop::Refused(format!("{object} selects by no label {}", self.label)));
        };
        let (canary, other) = self.sides(event, selected).await?;
        match action {
            SWITCH_BACK => {
                let done = self.select((&object, &found), &canary, &other).await?;
                self.scale_down(&canary, done).await
            }
            SWITCH_AND_RETIRE => {
                let done = self.select((&object, &found), &other, &canary).await?;
                self.scale_down(&other, done).await
            }
            _ => self.select((&object, &found), &other, &canary).await,
        }
    }
}

fn running(deployment: &Value) -> Running<'_> {
    let number = deployment["metadata"]["annotations"][DEPLOYMENT_MARKS.number].as_str();
    let number = number.and_then(|number| number.parse().ok());
    Running { template: &deployment["spec"]["template"], hash: None, number }
}

/// Whether traffic could be served; where the status says nothing, whether it is meant to be.
fn has_ready_pods(deployment: &Value) -> bool {
    let is_told = deployment["status"].as_object().is_some_and(|status| !status.is_empty());
    let ready = deployment["status"]["readyReplicas"].as_u64().unwrap_or(0);
    deployment["spec"]["replicas"].as_u64() != Some(0) && (!is_told || ready > 0)
}
