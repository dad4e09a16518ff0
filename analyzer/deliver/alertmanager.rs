//! The mechanism `alertmanager`: an alert for a decision, by Alertmanager's API version 2.
//!
//! An alert is about one analysis, so that a second rollback is told anew. Nothing resolves it but
//! time: it ends by itself so long after it was sent. 2xx is acknowledged, 400 and its like are
//! refused, anything else is tried again later.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Map, Value, json};

use super::{
    About, Attempt, Checks, Mechanism, Parcel, Setting,
    mapping::Mapping,
    names::{action, fill, headline},
    payload::{DeployAction, TEST_EVENT, VerdictEvent, timestamp},
    peer::{Hide, Peer, PeerOptions, SetupError, SetupFault, is_refusal, no_event},
};
use crate::outward::{exchange::Call, pattern::Pattern};

/// Its kind.
pub const KIND: &str = "alertmanager";

/// What it can do on a decision: fire an alert of severity `critical`, or of `warning`.
pub const ACTIONS: [&str; 2] = [FIRE, WARN];

/// What it does unless it is told otherwise: people are woken by what went wrong.
pub const MAPPING: Mapping =
    Mapping { rollback: Some(FIRE), promote: None, advance: None, hold: Some(WARN) };

const FIRE: &str = "fire";
const WARN: &str = "warn";

/// How long an alert lasts when nothing else is configured.
pub const LASTS_DEFAULT: Duration = Duration::from_secs(3600);

/// Most labels besides our own.
pub const LABELS_MAX: usize = 20;

/// Labels that are ours.
const RESERVED: [&str; 4] = ["alertname", "service", "analysis", "severity"];

/// How to reach an Alertmanager.
#[derive(Clone, Debug)]
pub struct AlertmanagerOptions {
    /// The way to it: its address, with the prefix of its routes if it has one.
    pub peer: PeerOptions,
    /// More labels, for its routes.
    pub labels: Vec<(String, Pattern)>,
    /// How long an alert lasts after it was sent.
    pub lasts: Duration,
    /// Where people read more: the generator's URL.
    pub link: Option<Pattern>,
    /// What it does on which decision.
    pub mapping: Mapping,
}

/// An Alertmanager.
pub struct Alertmanager {
    name: String,
    peer: Peer,
    labels: Vec<(String, Pattern)>,
    lasts: Duration,
    link: Option<Pattern>,
    mapping: Mapping,
}

impl Alertmanager {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the URL, a header, a label or a certificate cannot be used.
    pub fn new(options: AlertmanagerOptions, setting: &Setting) -> Result<Self, SetupError> {
        let AlertmanagerOptions { peer, labels, lasts, link, mapping } = options;
        let name = peer.name.clone();
        let fault = |fault| SetupError { kind: KIND, name: name.clone(), fault };
        for (label, _) in &labels {
            if let Some(why) = bad_label(label) {
                return Err(fault(SetupFault::Options(format!("label {label:?} {why}"))));
            }
        }
        let peer = Peer::open(peer, Hide::Password, Vec::new(), setting).map_err(fault)?;
        Ok(Self { name, peer, labels, lasts, link, mapping })
    }

    fn alert(&self, event: &VerdictEvent, key: &str) -> Value {
        let data = &event.data;
        let severity = match self.mapping.of(data.action) {
            _ if event.kind == TEST_EVENT => "info",
            Some(FIRE) => "critical",
            Some(_) | None => "warning",
        };
        let word = action(event);
        let name = format!("Rollgate{}{}", word[..1].to_uppercase(), &word[1..]);
        let mut labels = Map::new();
        for (label, pattern) in &self.labels {
            labels.insert(label.clone(), fill(pattern, event, key).into());
        }
        let ours = [name.as_str(), &data.service, &data.analysis, severity];
        for (label, value) in RESERVED.iter().zip(ours) {
            labels.insert((*label).to_owned(), value.into());
        }
        // A label without a value is none; Alertmanager would refuse or drop it.
        labels.retain(|_, value| value.as_str().is_some_and(|value| !value.is_empty()));
        let mut annotations = Map::new();
        let summary = headline(event);
        let told = [
            ("summary", summary.as_str()),
            ("description", &data.reason),
            ("rule", data.rule.as_deref().unwrap_or_default()),
            ("canary_version", &data.canary_version),
            ("baseline_version", &data.baseline_version),
        ];
        for (name, value) in told.into_iter().filter(|(_, value)| !value.is_empty()) {
            annotations.insert(name.to_owned(), value.into());
        }
        // It lasts from now on: one that arrives after an outage has not ended before it came.
        let ends = timestamp(self.peer.now().after(self.lasts));
        let mut alert = json!({
            "labels": labels,
            "annotations": annotations,
            "startsAt": event.timestamp,
            "endsAt": ends,
        });
        if let Some(link) = &self.link {
            alert["generatorURL"] = fill(link, event, key).into();
        }
        alert
    }
}

/// What is wrong with the name of a label.
fn bad_label(label: &str) -> Option<&'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if RESERVED.contains(&label) {
        Some("is set by rollgate itself")
    } else if label.starts_with(|c: char| c.is_ascii_digit()) || !label.chars().all(plain) {
        Some("is no name, expected letters, digits and _")
    } else {
        None
    }
}

#[async_trait]
impl Mechanism for Alertmanager {
    fn name(&self) -> &str {
        &self.name
    }

    fn does(&self, action: DeployAction) -> Option<String> {
        let severity = if self.mapping.of(action)? == FIRE { "critical" } else { "warning" };
        Some(format!("fire an alert ({severity})"))
    }

    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        let event = match parcel.event() {
            Ok(event) => event,
            Err(error) => return no_event(&error),
        };
        let body = Value::Array(vec![self.alert(&event, &parcel.key)]).to_string();
        let url = self.peer.at(["api", "v2", "alerts"]);
        let call = Call::new(Method::POST, url, body).header(CONTENT_TYPE, "application/json");
        self.peer.write(call, is_refusal).await
    }

    fn about(&self) -> About {
        About {
            kind: KIND,
            to: self.peer.place(),
            checks: Checks::People,
            takes_tests: true,
            carries_token: self.peer.carries_token(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bad_label;

    #[test]
    fn labels_have_names() {
        for good in ["team", "_x", "a1"] {
            assert_eq!(bad_label(good), None, "{good}");
        }
        for bad in ["1a", "a-b", "a b", "ä", "severity", "analysis"] {
            assert!(bad_label(bad).is_some(), "{bad}");
        }
    }
}
