//! The mechanism `gitlab`: starts a pipeline, by a trigger token or an access token.
//!
//! With an environment, what was last deployed there must be the version that was judged. 2xx (GitLab
//! says 201) is acknowledged. A request that GitLab will never take (400, as for a ref that is not
//! there, 410, 413, 415, 422) is refused; a token that expired, lacks a permission, or sees no such
//! project (401, 403, 404) has failed, since that can be mended meanwhile.

use async_trait::async_trait;
use reqwest::{Method, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    About, Attempt, Checks, Mechanism, Parcel, Setting,
    deployed::{Deployment, changed},
    mapping::Mapping,
    names::{self, fill},
    payload::{DeployAction, VerdictEvent},
    peer::{
        ANSWER_BYTES_MAX, Hide, Peer, PeerOptions, SetupError, SetupFault, is_refusal, no_event,
    },
};
use crate::{
    outward::{exchange::Call, pattern::Pattern},
    telemetry::secret::Secret,
};

/// Its kind.
pub const KIND: &str = "gitlab";

/// What it can do on a decision.
pub const ACTIONS: [&str; 1] = ["pipeline"];

/// What it does unless it is told otherwise: a pipeline acts where there is something to do.
pub const MAPPING: Mapping = Mapping {
    rollback: Some("pipeline"),
    promote: Some("pipeline"),
    advance: Some("pipeline"),
    hold: None,
};

/// Where GitLab itself is.
pub const URL_DEFAULT: &str = "https://gitlab.com";

/// Most variables besides our own.
pub const VARIABLES_MAX: usize = 50;

/// Deployments of an environment that are looked through for the newest that has begun.
const DEPLOYMENTS: &str = "20";

/// States of a deployment that has not touched its environment.
const NOT_BEGUN: [&str; 3] = ["created", "blocked", "skipped"];

/// How to reach GitLab, and what to start there.
#[derive(Clone, Debug)]
pub struct GitlabOptions {
    /// The way to it.
    pub peer: PeerOptions,
    /// Path or number of the project.
    pub project: String,
    /// The branch or tag that the pipeline runs on.
    pub reference: Pattern,
    /// Starts pipelines and nothing else.
    pub trigger_token: Option<Secret>,
    /// An access token: reads deployments, and starts pipelines where there is no trigger token.
    pub token: Option<Secret>,
    /// More variables of the pipeline.
    pub variables: Vec<(String, Pattern)>,
    /// The environment that must run the version that was judged.
    pub environment: Option<Pattern>,
    /// What it does on which decision.
    pub mapping: Mapping,
}

/// Pipelines of a project.
pub struct Gitlab {
    name: String,
    peer: Peer,
    project: String,
    reference: Pattern,
    trigger_token: Option<Secret>,
    variables: Vec<(String, Pattern)>,
    environment: Option<Pattern>,
    mapping: Mapping,
}

/// A deployment as GitLab lists it.
#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    status: String,
    #[serde(flatten)]
    deployment: Deployment,
}

impl Gitlab {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the URL, the project, a token or a certificate cannot be used.
    pub fn new(options: GitlabOptions, setting: &Setting) -> Result<Self, SetupError> {
        let name = options.peer.name.clone();
        let fault = |fault| SetupError { kind: KIND, name: name.clone(), fault };
        Self::checked(options, setting).map_err(fault)
    }

    fn checked(options: GitlabOptions, setting: &Setting) -> Result<Self, SetupFault> {
        let GitlabOptions { mut peer, project, reference, variables, .. } = options;
        let GitlabOptions { trigger_token, token, environment, mapping, .. } = options;
        let refused = |words: String| Err(SetupFault::Options(words));
        if project.trim_matches('/').is_empty() {
            return refused(format!("project is {project:?}, expected its path or number"));
        }
        if token.is_none() && trigger_token.is_none() {
            return refused("there is no token, expected trigger_token or token".to_owned());
        }
        if token.is_none() && environment.is_some() {
            return refused("environment needs `token`, which may read deployments".to_owned());
        }
        if let Some(token) = &token {
            peer.headers.push(("private-token".to_owned(), token.clone()));
        }
        let secrets = trigger_token.iter().cloned().collect();
        let (name, project) = (peer.name.clone(), project.trim_matches('/').to_owned());
        let peer = Peer::open(peer, Hide::Password, secrets, setting)?;
        Ok(Self { name, peer, project, reference, trigger_token, variables, environment, mapping })
    }

    /// Says why nothing may be sent; none when what was last deployed is what was judged.
    async fn checked_world(&self, event: &VerdictEvent, key: &str) -> Option<Attempt> {
        let environment = fill(self.environment.as_ref()?, event, key);
        let mut url = self.peer.at(["api", "v4", "projects", &self.project, "deployments"]);
        url.query_pairs_mut()
            .append_pair("environment", &environment)
            .append_pair("order_by", "id")
            .append_pair("sort", "desc")
            .append_pair("per_page", DEPLOYMENTS);
        let reply = match self.peer.exchange.read(Call::get(url, ANSWER_BYTES_MAX)).await {
            Ok(reply) => reply,
            Err(answer) => return Some(Attempt::Failed { answer, retry_after: None }),
        };
        if !reply.status.is_success() {
            return Some(self.peer.judge(&reply, is_refusal));
        }
        let failed = |words: &str| {
            let answer = format!("the deployments of {environment} {words}");
            Some(Attempt::Failed { answer, retry_after: None })
        };
        if !reply.is_whole {
            return failed("were not answered whole");
        }
        let Ok(listed) = serde_json::from_slice::<Vec<Listed>>(&reply.body) else {
            return failed("are no list of deployments");
        };
        if event.data.test.is_some() {
            return None;
        }
        let has_begun = |listed: &&Listed| !NOT_BEGUN.contains(&listed.status.as_str());
        let found = listed.iter().find(has_begun).map(|listed| &listed.deployment);
        let answer = changed(found, &environment, &event.data.canary_version)?;
        Some(Attempt::Refused { answer })
    }

    fn call(&self, event: &VerdictEvent, key: &str) -> Call {
        let reference = fill(&self.reference, event, key);
        let variables = self.variables(event, key);
        let project = ["api", "v4", "projects", &self.project];
        let (url, body) = match &self.trigger_token {
            Some(token) => {
                let url = self.peer.at(project.into_iter().chain(["trigger", "pipeline"]));
                let token = token.expose();
                (url, json!({ "token": token, "ref": reference, "variables": variables }))
            }
            None => {
                let url = self.peer.at(project.into_iter().chain(["pipeline"]));
                let variables: Vec<Value> = variables
                    .into_iter()
                    .map(|(key, value)| json!({ "key": key, "value": value }))
                    .collect();
                (url, json!({ "ref": reference, "variables": variables }))
            }
        };
        Call::new(Method::POST, url, body.to_string()).header(CONTENT_TYPE, "application/json")
    }

    fn variables(&self, event: &VerdictEvent, key: &str) -> Map<String, Value> {
        let data = &event.data;
        let mut variables = Map::new();
        for (name, pattern) in &self.variables {
            variables.insert(name.clone(), fill(pattern, event, key).into());
        }
        let action = names::action(event);
        let ours = [
            ("ROLLGATE_ACTION", action.as_str()),
            ("ROLLGATE_ANALYSIS", &data.analysis),
            ("ROLLGATE_BASELINE_VERSION", &data.baseline_version),
            ("ROLLGATE_CANARY_VERSION", &data.canary_version),
            ("ROLLGATE_KEY", key),
            ("ROLLGATE_REASON", &data.reason),
            ("ROLLGATE_SERVICE", &data.service),
            ("ROLLGATE_VERDICT", &data.verdict),
        ];
        for (name, value) in ours {
            variables.insert(name.to_owned(), value.into());
        }
        if let Some(step) = data.step {
            variables.insert("ROLLGATE_STEP".to_owned(), step.index.to_string().into());
            variables.insert("ROLLGATE_WEIGHT".to_owned(), step.weight.to_string().into());
        }
        variables
    }
}

#[async_trait]
impl Mechanism for Gitlab {
    fn name(&self) -> &str {
        &self.name
    }

    fn does(&self, action: DeployAction) -> Option<String> {
        self.mapping.of(action)?;
        Some(format!("run a pipeline of {} on {}", self.project, self.reference.as_str()))
    }

    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        let event = match parcel.event() {
            Ok(event) => event,
            Err(error) => return no_event(&error),
        };
        if let Some(attempt) = self.checked_world(&event, &parcel.key).await {
            return attempt;
        }
        self.peer.write(self.call(&event, &parcel.key), is_refusal).await
    }

    fn about(&self) -> About {
        let checks = match &self.environment {
            Some(environment) => {
                Checks::Itself(format!("what was last deployed to {}", environment.as_str()))
            }
            None => Checks::Nobody,
        };
        let (to, takes_tests) = (self.peer.place(), false);
        About { kind: KIND, to, checks, takes_tests, carries_token: true }
    }
}
