//! Mechanisms that send the event to a receiver which decides: `webhook` and `cloudevents`.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;

use super::super::reading::{Place, Reading, TextOrPlace, Tls};
use crate::{
    deliver::{
        cloudevents::{CloudEventsOptions, Mode, SOURCE_DEFAULT},
        mapping::Mapping,
        peer::PeerOptions,
        webhook::{Shape, WebhookOptions},
    },
    telemetry::secret::Secret,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    url: TextOrPlace,
    /// Signing keys; several while one is being replaced.
    #[serde(default)]
    secrets: Vec<Place>,
    /// Only `false` has to be said.
    #[serde(default = "yes")]
    sign: bool,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    /// A template of the body.
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Place>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    tls: Option<Tls>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CloudEvents {
    url: TextOrPlace,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Place>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    tls: Option<Tls>,
}

fn yes() -> bool {
    true
}

impl Reading<'_> {
    pub(super) fn webhook(
        &mut self,
        at: &str,
        name: &str,
        webhook: Webhook,
        mapping: Mapping,
    ) -> WebhookOptions {
        let Webhook { url, secrets, sign, headers, timeout, tls, .. } = webhook;
        let Webhook { method, content_type, body, .. } = webhook;
        let at = format!("{at}.webhook");
        match (sign, secrets.is_empty()) {
            (true, true) => self.fault(format!(
                "{at}.secrets is empty, expected a place of a signing key; hint: `sign: false` \
                 for a receiver that cannot verify"
            )),
            (false, false) => {
                self.fault(format!("{at}.secrets is set, expected none with `sign: false`"));
            }
            (true, false) | (false, true) => {}
        }
        let standard = Shape::default();
        let method = match method.as_deref() {
            None | Some("POST") => Method::POST,
            Some("PUT") => Method::PUT,
            Some(other) => {
                self.fault(format!("{at}.method is {other:?}, expected POST or PUT"));
                Method::POST
            }
        };
        if content_type.is_some() && body.is_none() {
            self.fault(format!("{at}.content_type is set, expected it with a `body` only"));
        }
        let content_type = content_type.unwrap_or(standard.content_type);
        let url = self.url(&at, &url);
        let secrets = secrets.iter().filter_map(|place| self.secret(&at, place)).collect();
        let headers = self.headers(&at, &headers);
        let timeout = self.duration(&format!("{at}.timeout"), timeout.as_deref());
        let tls = self.tls(&format!("{at}.tls"), tls.as_ref());
        let shape = Shape { method, content_type, body, sign };
        WebhookOptions {
            name: name.to_owned(),
            url,
            secrets,
            headers,
            timeout,
            tls,
            shape,
            mapping,
        }
    }

    pub(super) fn cloudevents(
        &mut self,
        at: &str,
        name: &str,
        entry: CloudEvents,
        mapping: Mapping,
    ) -> CloudEventsOptions {
        let CloudEvents { url, mode, source, headers, timeout, tls } = entry;
        let at = format!("{at}.cloudevents");
        let mode = match mode.as_deref() {
            None | Some("binary") => Mode::Binary,
            Some("structured") => Mode::Structured,
            Some(other) => {
                self.fault(format!("{at}.mode is {other:?}, expected binary or structured"));
                Mode::Binary
            }
        };
        let source = source.unwrap_or_else(|| SOURCE_DEFAULT.to_owned());
        let url = self.url(&at, &url);
        let peer = self.peer(&at, name, url, Way { headers, timeout, tls });
        CloudEventsOptions { peer, mode, source, mapping }
    }

    /// What every receiver over HTTP is reached by.
    pub(super) fn peer(&mut self, at: &str, name: &str, url: Secret, way: Way) -> PeerOptions {
        let headers = self.headers(at, &way.headers);
        let timeout = self.duration(&format!("{at}.timeout"), way.timeout.as_deref());
        let tls = self.tls(&format!("{at}.tls"), way.tls.as_ref());
        PeerOptions { name: name.to_owned(), url, headers, timeout, tls }
    }
}

/// What may be said of the way to a receiver.
pub(super) struct Way {
    pub(super) headers: BTreeMap<String, Place>,
    pub(super) timeout: Option<String>,
    pub(super) tls: Option<Tls>,
}
