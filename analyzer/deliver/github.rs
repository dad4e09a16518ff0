//! The mechanism `github`: starts workflows by `repository_dispatch` or `workflow_dispatch`.
//!
//! With an environment, its newest deployment must be of the version that was judged. 2xx (GitHub
//! says 204) is acknowledged. A request that GitHub will never take (400, 410, 413, 415, 422) is
//! refused; a token that expired, lacks a permission, or sees no such repository (401, 403, 404) has
//! failed, since that can be mended meanwhile. Rate limits are waited for.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{
    Method,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName},
};
use serde_json::{Value, json};

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
    engine::observation::Time,
    outward::{
        exchange::{Call, Reply},
        pattern::Pattern,
    },
    telemetry::secret::Secret,
};

/// Its kind.
pub const KIND: &str = "github";

/// What it can do on a decision.
pub const ACTIONS: [&str; 1] = ["dispatch"];

/// What it does unless it is told otherwise: a workflow acts where there is something to do.
pub const MAPPING: Mapping = Mapping {
    rollback: Some("dispatch"),
    promote: Some("dispatch"),
    advance: Some("dispatch"),
    hold: None,
};

/// Where GitHub itself is.
pub const URL_DEFAULT: &str = "https://api.github.com";

/// The event type of a repository dispatch, which a workflow names under `types`.
pub const EVENT_TYPE_DEFAULT: &str = "rollgate-{action}";

/// Inputs of a workflow when none are configured; a workflow has to declare what it is given.
pub const INPUTS_DEFAULT: [(&str, &str); 5] = [
    ("action", "{action}"),
    ("service", "{service}"),
    ("canary_version", "{canary_version}"),
    ("baseline_version", "{baseline_version}"),
    ("key", "{key}"),
];

/// Most inputs of a workflow.
pub const INPUTS_MAX: usize = 25;

/// Longest event type, in characters.
const EVENT_TYPE_CHARS_MAX: usize = 100;

/// Payloads must be smaller than 64 KiB; findings are left out of larger ones.
const PAYLOAD_BYTES_MAX: usize = 60_000;

/// What to wait for after a secondary rate limit that does not say it.
const SECONDARY_WAIT: Duration = Duration::from_secs(60);

const API_VERSION: (&str, &str) = ("x-github-api-version", "2022-11-28");
const MEDIA_TYPE: &str = "application/vnd.github+json";

/// How to reach GitHub, and what to start there.
#[derive(Clone, Debug)]
pub struct GithubOptions {
    /// The way to its API.
    pub peer: PeerOptions,
    /// `owner/name`.
    pub repository: String,
    /// What may dispatch: `contents: write` of the repository, or `actions: write` for a workflow.
    pub token: Secret,
    /// What is started.
    pub dispatch: Dispatch,
    /// The environment whose newest deployment must be of the version that was judged.
    pub environment: Option<Pattern>,
    /// What it does on which decision.
    pub mapping: Mapping,
}

/// What is started.
#[derive(Clone, Debug)]
pub enum Dispatch {
    /// Every workflow that listens to this event type.
    Repository {
        /// The type.
        event_type: Pattern,
    },
    /// One workflow.
    Workflow {
        /// Its file name or number.
        workflow: String,
        /// The branch or tag it is taken from.
        reference: Pattern,
        /// What it is told.
        inputs: Vec<(String, Pattern)>,
    },
}

/// Workflows of a repository.
pub struct Github {
    name: String,
    peer: Peer,
    owner: String,
    repository: String,
    dispatch: Dispatch,
    environment: Option<Pattern>,
    mapping: Mapping,
}

impl Github {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the URL, the repository, the token or a certificate cannot be used.
    pub fn new(options: GithubOptions, setting: &Setting) -> Result<Self, SetupError> {
        let GithubOptions { mut peer, repository, token, dispatch, environment, mapping } = options;
        let name = peer.name.clone();
        let fault = |fault| SetupError { kind: KIND, name: name.clone(), fault };
        let parts: Vec<&str> = repository.split('/').collect();
        let [owner, repository] = parts[..] else {
            let words = format!("repository is {repository:?}, expected owner/name");
            return Err(fault(SetupFault::Options(words)));
        };
        if ![owner, repository].into_iter().all(is_name) {
            let words = format!("repository is \"{owner}/{repository}\", expected owner/name");
            return Err(fault(SetupFault::Options(words)));
        }
        let bearer = Secret::new(format!("Bearer {}", token.expose()));
        peer.headers.push(("authorization".to_owned(), bearer));
        let (owner, repository) = (owner.to_owned(), repository.to_owned());
        let peer = Peer::open(peer, Hide::Password, vec![token], setting).map_err(fault)?;
        Ok(Self { name, peer, owner, repository, dispatch, environment, mapping })
    }

    /// Says why nothing may be sent; none when the newest deployment is what was judged.
    async fn checked(&self, event: &VerdictEvent, key: &str) -> Option<Attempt> {
        let environment = fill(self.environment.as_ref()?, event, key);
        let mut url = self.peer.at(["repos", &self.owner, &self.repository, "deployments"]);
        url.query_pairs_mut().append_pair("environment", &environment).append_pair("per_page", "1");
        let reply = match self.peer.exchange.read(headed(Call::get(url, ANSWER_BYTES_MAX))).await {
            Ok(reply) => reply,
            Err(answer) => return Some(Attempt::Failed { answer, retry_after: None }),
        };
        if !reply.status.is_success() {
            return Some(self.judge(&reply));
        }
        let failed = |words: &str| {
            let answer = format!("the deployments of {environment} {words}");
            Some(Attempt::Failed { answer, retry_after: None })
        };
        if !reply.is_whole {
            return failed("were not answered whole");
        }
        let Ok(found) = serde_json::from_slice::<Vec<Deployment>>(&reply.body) else {
            return failed("are no list of deployments");
        };
        if event.data.test.is_some() {
            return None;
        }
        let answer = changed(found.first(), &environment, &event.data.canary_version)?;
        Some(Attempt::Refused { answer })
    }

    fn call(&self, event: &VerdictEvent, parcel: &Parcel) -> Result<Call, serde_json::Error> {
        let repository = ["repos", &self.owner, &self.repository];
        let (url, body) = match &self.dispatch {
            Dispatch::Repository { event_type } => {
                let event_type = fill(event_type, event, &parcel.key);
                let event_type: String = event_type.chars().take(EVENT_TYPE_CHARS_MAX).collect();
                let payload = payload(parcel)?;
                let body = json!({ "event_type": event_type, "client_payload": payload });
                (self.peer.at(repository.into_iter().chain(["dispatches"])), body)
            }
            Dispatch::Workflow { workflow, reference, inputs } => {
                let inputs: serde_json::Map<String, Value> = inputs
                    .iter()
                    .map(|(name, value)| (name.clone(), fill(value, event, &parcel.key).into()))
                    .collect();
                let reference = fill(reference, event, &parcel.key);
                let body = json!({ "ref": reference, "inputs": inputs });
                let path = ["actions", "workflows", workflow, "dispatches"];
                (self.peer.at(repository.into_iter().chain(path)), body)
            }
        };
        let call = Call::new(Method::POST, url, body.to_string());
        Ok(headed(call).header(CONTENT_TYPE, "application/json"))
    }

    fn judge(&self, reply: &Reply) -> Attempt {
        match self.peer.judge(reply, is_refusal) {
            Attempt::Failed { answer, retry_after: None } => {
                let limited = matches!(reply.status.as_u16(), 403 | 429);
                let wait = || limit_wait(&reply.headers, &answer, self.peer.now());
                let retry_after = if limited { wait() } else { None };
                Attempt::Failed { answer, retry_after }
            }
            other => other,
        }
    }
}

/// The event under its key, as a dispatch carries it.
fn payload(parcel: &Parcel) -> Result<Value, serde_json::Error> {
    let mut event: Value = serde_json::from_str(&parcel.body)?;
    event["key"] = parcel.key.as_str().into();
    if event.to_string().len() > PAYLOAD_BYTES_MAX {
        let omitted = event["data"]["findings"].as_array().map_or(0, Vec::len);
        event["data"]["findings_omitted"] = omitted.into();
        event["data"]["findings"] = json!([]);
    }
    Ok(event)
}

fn headed(call: Call) -> Call {
    let (name, version) = API_VERSION;
    call.header(ACCEPT, MEDIA_TYPE).header(HeaderName::from_static(name), version)
}

/// How long a rate limit asks to wait (GitHub, "Rate limits for the REST API").
fn limit_wait(headers: &HeaderMap, answer: &str, now: Time) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<i64>().ok();
    if number("x-ratelimit-remaining") == Some(0)
        && let Some(reset) = number("x-ratelimit-reset")
    {
        let wait = Time(reset.saturating_mul(1000)).since(now);
        return Some(wait.max(Duration::from_secs(1)));
    }
    answer.to_ascii_lowercase().contains("secondary rate limit").then_some(SECONDARY_WAIT)
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.chars().all(plain) && name.chars().any(|c| c != '.')
}

#[async_trait]
impl Mechanism for Github {
    fn name(&self) -> &str {
        &self.name
    }

    fn does(&self, action: DeployAction) -> Option<String> {
        self.mapping.of(action)?;
        let Self { owner, repository, .. } = self;
        Some(match &self.dispatch {
            Dispatch::Repository { event_type } => {
                let event_type = event_type.as_str().replace("{action}", &action.to_string());
                format!("dispatch {event_type} to {owner}/{repository}")
            }
            Dispatch::Workflow { workflow, reference, .. } => {
                format!("run {workflow} of {owner}/{repository} on {}", reference.as_str())
            }
        })
    }

    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        let event = match parcel.event() {
            Ok(event) => event,
            Err(error) => return no_event(&error),
        };
        if let Some(attempt) = self.checked(&event, &parcel.key).await {
            return attempt;
        }
        let call = match self.call(&event, parcel) {
            Ok(call) => call,
            Err(error) => return no_event(&error),
        };
        match self.peer.exchange.write(call).await {
            Ok(reply) => self.judge(&reply),
            Err(answer) => Attempt::Failed { answer, retry_after: None },
        }
    }

    fn about(&self) -> About {
        let checks = match &self.environment {
            Some(environment) => {
                Checks::Itself(format!("the newest deployment of {}", environment.as_str()))
            }
            None => Checks::Nobody,
        };
        // A type that does not say the action would start the workflow of a decision.
        let takes_tests = match &self.dispatch {
            Dispatch::Repository { event_type } => event_type.names(names::ACTION),
            Dispatch::Workflow { .. } => false,
        };
        About { kind: KIND, to: self.peer.place(), checks, takes_tests, carries_token: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limits_say_how_long() {
        let check = |pairs: &[(&'static str, &str)], answer: &str, expected: Option<u64>| {
            let pairs = pairs.iter().map(|(name, value)| {
                (HeaderName::from_static(name), value.parse().expect("a value"))
            });
            let headers: HeaderMap = pairs.collect();
            let found = limit_wait(&headers, answer, Time(1_700_000_000_000));
            assert_eq!(found, expected.map(Duration::from_secs), "{headers:?}");
        };
        let none_left = ("x-ratelimit-remaining", "0");
        check(&[none_left, ("x-ratelimit-reset", "1700000090")], "", Some(90));
        check(&[none_left, ("x-ratelimit-reset", "1600000000")], "", Some(1));
        check(&[none_left, ("x-ratelimit-reset", "soon")], "", None);
        check(
            &[("x-ratelimit-remaining", "9"), ("x-ratelimit-reset", "1700000090")],
            "You have exceeded a secondary rate limit.",
            Some(60),
        );
        check(&[], "Resource not accessible by integration", None);
    }

    #[test]
    fn a_large_payload_leaves_its_findings_out() {
        let finding = "x".repeat(500);
        let parcel = |findings: usize| Parcel {
            key: "a1.d".to_owned(),
            analysis: "a1".to_owned(),
            mechanism: "d".to_owned(),
            body: json!({ "data": { "findings": vec![&finding; findings], "service": "shop" } })
                .to_string(),
            attempts: 0,
            created: Time(0),
        };
        let small = payload(&parcel(100)).expect("JSON");
        assert_eq!(small["data"]["findings"].as_array().map(Vec::len), Some(100));
        assert_eq!(
            (&small["key"], &small["data"]["findings_omitted"]),
            (&"a1.d".into(), &Value::Null)
        );
        let large = payload(&parcel(200)).expect("JSON");
        assert_eq!(large["data"]["findings"], json!([]));
        assert_eq!(large["data"]["findings_omitted"], 200);
        assert_eq!(large["data"]["service"], "shop");
        assert!(large.to_string().len() < PAYLOAD_BYTES_MAX);
    }
}
