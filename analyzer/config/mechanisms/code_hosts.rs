//! Mechanisms that start work where the code lies: `github` and `gitlab`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    super::reading::{Place, Reading, Tls},
    receivers::Way,
};
use crate::{
    deliver::{
        github::{self, Dispatch, EVENT_TYPE_DEFAULT, GithubOptions, INPUTS_DEFAULT, INPUTS_MAX},
        gitlab::{self, GitlabOptions, VARIABLES_MAX},
        mapping::Mapping,
    },
    outward::pattern::Pattern,
    telemetry::secret::Secret,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Github {
    /// `owner/name`.
    repository: String,
    token: Place,
    /// The address of the API; GitHub's own unless it is said.
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    event_type: Option<String>,
    /// One workflow instead of an event type.
    #[serde(default)]
    workflow: Option<String>,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    inputs: Option<BTreeMap<String, String>>,
    #[serde(default)]
    environment: Option<String>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    tls: Option<Tls>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gitlab {
    /// Its path or number.
    project: String,
    #[serde(rename = "ref")]
    reference: String,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    trigger_token: Option<Place>,
    #[serde(default)]
    token: Option<Place>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    #[serde(default)]
    environment: Option<String>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    tls: Option<Tls>,
}

impl Reading<'_> {
    pub(super) fn github(
        &mut self,
        at: &str,
        name: &str,
        entry: Github,
        mapping: Mapping,
    ) -> GithubOptions {
        let Github { repository, token, url, event_type, workflow, reference, .. } = entry;
        let Github { inputs, environment, timeout, tls, .. } = entry;
        let at = format!("{at}.github");
        let dispatch = match workflow {
            None => {
                for (key, is_said) in [("ref", reference.is_some()), ("inputs", inputs.is_some())] {
                    if is_said {
                        self.fault(format!("{at}.{key} is set, expected it with `workflow` only"));
                    }
                }
                let event_type = event_type.as_deref().unwrap_or(EVENT_TYPE_DEFAULT);
                let event_type = self.pattern(&format!("{at}.event_type"), event_type);
                Dispatch::Repository { event_type }
            }
            Some(workflow) => {
                if event_type.is_some() {
                    self.fault(format!(
                        "{at} says both event_type and workflow, expected one of them"
                    ));
                }
                if reference.is_none() {
                    self.fault(format!(
                        "{at}.ref is not set, expected the branch or tag whose {workflow} is run"
                    ));
                }
                let reference = reference.unwrap_or_default();
                let reference = self.pattern(&format!("{at}.ref"), &reference);
                let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
                let inputs =
                    inputs.unwrap_or_else(|| INPUTS_DEFAULT.into_iter().map(own).collect());
                let inputs = self.patterns(&format!("{at}.inputs"), &inputs, INPUTS_MAX);
                Dispatch::Workflow { workflow, reference, inputs }
            }
        };
        let environment = environment.map(|text| self.pattern(&format!("{at}.environment"), &text));
        let token = self.secret(&format!("{at}.token"), &token).unwrap_or_else(nothing);
        let url = Secret::new(url.as_deref().unwrap_or(github::URL_DEFAULT));
        let peer = self.peer(&at, name, url, Way { headers: BTreeMap::new(), timeout, tls });
        GithubOptions { peer, repository, token, dispatch, environment, mapping }
    }

    pub(super) fn gitlab(
        &mut self,
        at: &str,
        name: &str,
        entry: Gitlab,
        mapping: Mapping,
    ) -> GitlabOptions {
        let Gitlab { project, reference, url, trigger_token, token, .. } = entry;
        let Gitlab { variables, environment, timeout, tls, .. } = entry;
        let at = format!("{at}.gitlab");
        if trigger_token.is_none() && token.is_none() {
            self.fault(format!(
                "{at} has no token, expected trigger_token (starts pipelines) or token (reads \
                 deployments too)"
            ));
        }
        if token.is_none() && environment.is_some() {
            self.fault(format!(
                "{at}.environment is set, expected `token` beside it: a trigger token reads nothing"
            ));
        }
        let reference = self.pattern(&format!("{at}.ref"), &reference);
        let variables = self.patterns(&format!("{at}.variables"), &variables, VARIABLES_MAX);
        let environment = environment.map(|text| self.pattern(&format!("{at}.environment"), &text));
        let trigger_token =
            trigger_token.and_then(|place| self.secret(&format!("{at}.trigger_token"), &place));
        let token = token.and_then(|place| self.secret(&format!("{at}.token"), &place));
        let url = Secret::new(url.as_deref().unwrap_or(gitlab::URL_DEFAULT));
        let peer = self.peer(&at, name, url, Way { headers: BTreeMap::new(), timeout, tls });
        GitlabOptions {
            peer,
            project,
            reference,
            trigger_token,
            token,
            variables,
            environment,
            mapping,
        }
    }

    /// Values with names in braces, at most so many.
    pub(super) fn patterns(
        &mut self,
        at: &str,
        texts: &BTreeMap<String, String>,
        most: usize,
    ) -> Vec<(String, Pattern)> {
        if texts.len() > most {
            self.fault(format!("{at} has {} entries, expected at most {most}", texts.len()));
        }
        let read = |(name, text): (&String, &String)| {
            (name.clone(), self.pattern(&format!("{at}.{name}"), text))
        };
        texts.iter().map(read).collect()
    }
}

/// Stands for a secret whose fault is already put down.
fn nothing() -> Secret {
    Secret::new("")
}
