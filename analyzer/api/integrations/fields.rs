//! An order in plain strings, as controllers can say it: the parameters of a query, or the metadata of
//! a webhook.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::IntoParams;

use super::super::{
    desk::{ArmOrder, OpenAnalysis},
    input::duration,
};

/// The members of an order. Lists are separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Fields {
    /// The service being released.
    service: Option<String>,
    /// Name of a rule file, without `.yaml`; the service's own when left out.
    rules: Option<String>,
    /// Version of the canary, such as the hash of its pod template.
    canary_version: Option<String>,
    /// Version that runs beside it.
    baseline_version: Option<String>,
    /// URLs of the canary's instances.
    canary_targets: Option<String>,
    /// URLs of the other instances.
    baseline_targets: Option<String>,
    /// Label matchers that choose the canary's series, for a metrics server.
    canary_selector: Option<String>,
    /// Label matchers that choose the other series.
    baseline_selector: Option<String>,
    /// Name of a configured metrics server.
    prometheus: Option<String>,
    /// Names of configured mechanisms that are told the verdict beside whoever asks.
    mechanisms: Option<String>,
    /// Watch at least this long, such as `10m`.
    hold: Option<String>,
    /// Values for placeholders of the configured service: `zone=eu,cluster=a`.
    parameters: Option<String>,
    /// What is new for every release, and only then: the same key is the same analysis.
    key: Option<String>,
}

impl Fields {
    /// From names and values; says which name is not known.
    pub(super) fn named(values: &BTreeMap<String, String>) -> Result<Self, String> {
        let values = serde_json::to_value(values).map_err(|error| error.to_string())?;
        serde_json::from_value(values).map_err(|error| error.to_string())
    }

    /// The order that they make; `service` is what it is about when they do not say.
    pub(super) fn order(self, service: &str) -> Result<OpenAnalysis, Vec<String>> {
        let mut faults = Vec::new();
        let hold_secs = self.hold.as_deref().and_then(|text| match duration(text) {
            Ok(hold) => Some(hold.as_secs_f64()),
            Err(_) => {
                let found: String = text.chars().take(40).collect();
                faults.push(format!("hold is {found:?}, expected a duration such as 30s or 10m"));
                None
            }
        });
        let mut parameters = BTreeMap::new();
        for part in list(self.parameters.as_deref()) {
            match part.split_once('=') {
                Some((name, value)) => {
                    parameters.insert(name.trim().to_owned(), value.trim().to_owned());
                }
                None => {
                    let found: String = part.chars().take(40).collect();
                    faults.push(format!("parameters: {found:?} found, expected name=value"));
                }
            }
        }
        let canary = arm(self.canary_version, self.canary_targets.as_deref(), self.canary_selector);
        let baseline =
            arm(self.baseline_version, self.baseline_targets.as_deref(), self.baseline_selector);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(OpenAnalysis {
            service: self.service.unwrap_or_else(|| service.to_owned()),
            rules: self.rules.unwrap_or_default(),
            canary,
            baseline: Some(baseline).filter(|arm| *arm != ArmOrder::default()),
            prometheus: self.prometheus,
            mechanisms: list(self.mechanisms.as_deref()),
            parameters,
            idempotency_key: self.key,
            hold_secs,
        })
    }
}

fn arm(version: Option<String>, targets: Option<&str>, selector: Option<String>) -> ArmOrder {
    ArmOrder { version: version.unwrap_or_default(), targets: list(targets), selector }
}

fn list(text: Option<&str>) -> Vec<String> {
    let parts = text.unwrap_or_default().split(',').map(str::trim);
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pairs: &[(&str, &str)]) -> Result<Fields, String> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Fields::named(&pairs.collect())
    }

    #[test]
    fn strings_become_an_order() {
        let fields = named(&[
            ("rules", "recommended"),
            ("canary_version", "7d4f"),
            ("canary_targets", "http://a:1, http://b:2,"),
            ("baseline_selector", "job=\"shop\""),
            ("mechanisms", "chat"),
            ("hold", "10m"),
            ("parameters", "zone=eu, cluster = a"),
        ]);
        let order = fields.unwrap().order("shop").unwrap();
        assert_eq!((order.service.as_str(), order.rules.as_str()), ("shop", "recommended"));
        assert_eq!(order.canary.targets, ["http://a:1", "http://b:2"]);
        assert_eq!(order.baseline.unwrap().selector.as_deref(), Some("job=\"shop\""));
        assert_eq!((order.hold_secs, order.mechanisms), (Some(600.0), vec!["chat".to_owned()]));
        assert_eq!((&*order.parameters["zone"], &*order.parameters["cluster"]), ("eu", "a"));
        let little = named(&[("service", "till")]).unwrap().order("shop").unwrap();
        assert_eq!((little.service.as_str(), little.baseline), ("till", None));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let unknown = named(&[("ruels", "x")]).unwrap_err();
        assert!(unknown.contains("ruels") && unknown.contains("rules"), "{unknown}");
        let faults = named(&[("hold", "soon"), ("parameters", "zone")]).unwrap().order("s");
        assert_eq!(faults.unwrap_err().len(), 2);
    }
}
