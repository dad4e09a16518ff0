//! `mechanisms:` of the configuration: whom verdicts are told, and how.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::reading::{Place, Reading, Tls};
use crate::{
    deliver::{
        mapping::Mapping,
        webhook::{self, WebhookOptions},
    },
    telemetry::secret::Secret,
};

/// One mechanism, ready to be set up.
#[derive(Clone, Debug)]
pub enum MechanismOptions {
    /// A signed POST.
    Webhook(WebhookOptions),
}

/// One entry as it is written: its kind is the key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mechanism {
    /// What it does on which decision, instead of what its kind does.
    #[serde(default)]
    on: BTreeMap<String, String>,
    #[serde(default)]
    webhook: Option<Webhook>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Webhook {
    url: String,
    /// Signing keys; several while one is being replaced.
    secrets: Vec<Place>,
    #[serde(default)]
    headers: BTreeMap<String, Place>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    tls: Option<Tls>,
}

impl Reading<'_> {
    pub(super) fn mechanisms(
        &mut self,
        entries: BTreeMap<String, Mechanism>,
    ) -> BTreeMap<String, MechanismOptions> {
        let mut options = BTreeMap::new();
        for (name, entry) in entries {
            let at = format!("mechanisms.{name}");
            match entry.webhook {
                Some(webhook) => {
                    let mapping = self.mapping(&at, &entry.on, webhook::MAPPING, &webhook::ACTIONS);
                    let webhook = self.webhook(&at, &name, webhook, mapping);
                    options.insert(name, MechanismOptions::Webhook(webhook));
                }
                None => self.fault(format!("{at} says no kind, expected `webhook`")),
            }
        }
        options
    }

    fn mapping(
        &mut self,
        at: &str,
        on: &BTreeMap<String, String>,
        default: Mapping,
        actions: &[&'static str],
    ) -> Mapping {
        default.with(on, actions).unwrap_or_else(|faults| {
            self.faults.extend(faults.iter().map(|fault| format!("{at}.{fault}")));
            default
        })
    }

    fn webhook(
        &mut self,
        at: &str,
        name: &str,
        webhook: Webhook,
        mapping: Mapping,
    ) -> WebhookOptions {
        let Webhook { url, secrets, headers, timeout, tls } = webhook;
        let at = format!("{at}.webhook");
        if secrets.is_empty() {
            self.fault(format!("{at}.secrets is empty, expected a place of a signing key"));
        }
        let secrets = secrets.iter().filter_map(|place| self.secret(&at, place)).collect();
        let headers = self.headers(&at, &headers);
        let timeout = self.duration(&format!("{at}.timeout"), timeout.as_deref());
        let tls = self.tls(&format!("{at}.tls"), tls.as_ref());
        let (name, url) = (name.to_owned(), Secret::new(url));
        WebhookOptions { name, url, secrets, headers, timeout, tls, mapping }
    }
}
