//! Mechanisms that tell people: `alertmanager` and `slack`.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{
    super::{
        reading::{Place, Reading, TextOrPlace, Tls},
        watch,
    },
    receivers::Way,
};
use crate::deliver::{
    alertmanager::{AlertmanagerOptions, LABELS_MAX, LASTS_DEFAULT},
    mapping::Mapping,
    slack::SlackOptions,
};

/// Shortest and longest time that an alert may last.
const LASTS: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(30 * 24 * 3600)];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alertmanager {
    url: TextOrPlace,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    lasts: Option<String>,
    #[serde(default)]
    link: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Place>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    tls: Option<Tls>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Slack {
    url: TextOrPlace,
    #[serde(default)]
    link: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Place>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    tls: Option<Tls>,
}

impl Reading<'_> {
    pub(super) fn alertmanager(
        &mut self,
        at: &str,
        name: &str,
        entry: Alertmanager,
        mapping: Mapping,
    ) -> AlertmanagerOptions {
        let Alertmanager { url, labels, lasts, link, headers, timeout, tls } = entry;
        let at = format!("{at}.alertmanager");
        let labels = self.patterns(&format!("{at}.labels"), &labels, LABELS_MAX);
        let [shortest, longest] = LASTS;
        let lasts = match lasts.as_deref() {
            None => LASTS_DEFAULT,
            Some(text) => match watch::duration(text) {
                Some(lasts) if (shortest..=longest).contains(&lasts) => lasts,
                Some(_) | None => {
                    self.fault(format!("{at}.lasts is {text:?}, expected 1m to 30d, such as `1h`"));
                    LASTS_DEFAULT
                }
            },
        };
        let link = link.map(|text| self.pattern(&format!("{at}.link"), &text));
        let url = self.url(&at, &url);
        let peer = self.peer(&at, name, url, Way { headers, timeout, tls });
        AlertmanagerOptions { peer, labels, lasts, link, mapping }
    }

    pub(super) fn slack(
        &mut self,
        at: &str,
        name: &str,
        entry: Slack,
        mapping: Mapping,
    ) -> SlackOptions {
        let Slack { url, link, headers, timeout, tls } = entry;
        let at = format!("{at}.slack");
        let link = link.map(|text| self.pattern(&format!("{at}.link"), &text));
        let url = self.url(&at, &url);
        let peer = self.peer(&at, name, url, Way { headers, timeout, tls });
        SlackOptions { peer, link, mapping }
    }
}
