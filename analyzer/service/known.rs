//! What an order leaves out is completed by what the configuration knows of its service.
//!
//! The completed order is what the analysis keeps, so that a changed configuration changes nothing
//! of one that runs. Beside it lies the order as it came: a client that repeats it is answered by the
//! same analysis, whatever the configuration says by then.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    api::desk::{ArmOrder, OpenAnalysis},
    config::{
        services::{ANY_SERVICE, ArmTemplate, KnownService},
        template::Values,
    },
};

/// An order that was completed, with what it was before.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Completed {
    asked: OpenAnalysis,
    order: OpenAnalysis,
}

/// The orders of a stored analysis: as it came, and as it is carried out.
pub struct StoredOrder {
    /// As the client sent it.
    pub asked: OpenAnalysis,
    /// Completed.
    pub order: OpenAnalysis,
}

impl StoredOrder {
    /// Reads what [`StoredOrder::text`] wrote.
    ///
    /// # Errors
    /// When it is of another shape.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        if value.get("asked").is_none() {
            let order: OpenAnalysis = serde_json::from_value(value)?;
            return Ok(Self { asked: order.clone(), order });
        }
        let Completed { asked, order } =
            serde_json::from_value(value).context("a completed order")?;
        Ok(Self { asked, order })
    }

    /// As it is stored. One that needed no completing lies there as it is.
    pub fn text(self) -> String {
        let Self { asked, order } = self;
        let text = match asked == order {
            true => serde_json::to_string(&order),
            false => serde_json::to_string(&Completed { asked, order }),
        };
        text.expect("strings and numbers are always JSON")
    }
}

/// Completes an order; every fault at once.
pub fn completed(
    asked: &OpenAnalysis,
    services: &BTreeMap<String, KnownService>,
) -> Result<OpenAnalysis, Vec<String>> {
    let mut faults = Vec::new();
    let nothing = KnownService::default();
    let found = services.get(&asked.service).or_else(|| services.get(ANY_SERVICE));
    let known = found.unwrap_or(&nothing);
    let mut order = asked.clone();
    if order.rules.is_empty() {
        order.rules.clone_from(&known.rules);
    }
    if order.rules.is_empty() {
        faults.push(match found {
            Some(_) => format!(
                "rules is left out, and the configuration names none for service {:?}",
                asked.service
            ),
            None => format!(
                "rules is left out, and service {:?} is not among `services` of the configuration",
                asked.service
            ),
        });
    }
    if order.mechanisms.is_empty() {
        order.mechanisms.clone_from(&known.mechanisms);
    }
    order.prometheus = order.prometheus.or_else(|| known.prometheus.clone());
    order.hold_secs = order.hold_secs.or(known.hold.map(|hold| hold.as_secs_f64()));
    let values = values(asked, known);
    place(&mut order.canary, known.canary.as_ref(), &values, &mut faults);
    if let Some(template) = &known.baseline {
        let baseline = order.baseline.get_or_insert_default();
        place(baseline, Some(template), &values, &mut faults);
    }
    faults.dedup();
    if faults.is_empty() { Ok(order) } else { Err(faults) }
}

/// Says where an arm is, unless the order does.
fn place(
    arm: &mut ArmOrder,
    template: Option<&ArmTemplate>,
    values: &Values,
    faults: &mut Vec<String>,
) {
    let Some(template) = template.filter(|_| !arm.is_placed()) else { return };
    let mut values = values.clone();
    if !arm.version.is_empty() {
        values.insert("version".to_owned(), arm.version.clone());
    }
    let mut filled = |found: Result<String, String>| found.map_err(|fault| faults.push(fault)).ok();
    match template {
        ArmTemplate::Targets(targets) => {
            arm.targets =
                targets.iter().filter_map(|target| filled(target.fill(&values))).collect();
        }
        ArmTemplate::Selector(selector) => arm.selector = filled(selector.fill(&values)),
    }
}

/// What the names of a template stand for, apart from the version of its own arm.
fn values(order: &OpenAnalysis, known: &KnownService) -> Values {
    let mut values: Values = known
        .parameters
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
        .collect();
    values.extend(order.parameters.clone());
    let baseline = order.baseline.as_ref().map(|arm| &arm.version);
    let named = [
        ("service", Some(&order.service)),
        ("canary_version", Some(&order.canary.version)),
        ("baseline_version", baseline),
    ];
    for (name, value) in named {
        values.extend(value.map(|value| (name.to_owned(), value.clone())));
    }
    values
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn services() -> BTreeMap<String, KnownService> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("rules")).expect("rules");
        let path = dir.path().join("rollgate.yaml");
        let text = "
prometheus: { main: { url: 'http://p:9090' } }
services:
  shop:
    rules: recommended
    prometheus: main
    hold: 10m
    parameters: { namespace: prod, zone: }
    canary: { selector: 'app=\"{service}\",version=~\"{canary_version}\",ns=\"{namespace}\"' }
    baseline: { targets: ['http://{service}-{version}.{zone}:8080'] }
  \"*\":
    rules: template
    canary: { targets: ['http://{service}-{version}:80'] }
";
        std::fs::write(&path, text).expect("the file");
        crate::config::read(&path, |_| None).expect("a configuration").services
    }

    fn order(value: serde_json::Value) -> OpenAnalysis {
        serde_json::from_value(value).expect("an order")
    }

    #[test]
    fn an_order_says_no_more_than_names_and_versions() {
        let asked = order(json!({ "service": "shop", "canary": { "version": "1.2" },
            "baseline": { "version": "1.1" }, "parameters": { "zone": "a" } }));
        let found = completed(&asked, &services()).expect("an order");
        let expected = order(json!({
            "service": "shop", "rules": "recommended", "prometheus": "main", "hold_secs": 600.0,
            "canary": { "version": "1.2",
                "selector": "app=\"shop\",version=~\"1[.]2\",ns=\"prod\"" },
            "baseline": { "version": "1.1", "targets": ["http://shop-1.1.a:8080"] },
            "parameters": { "zone": "a" } }));
        assert_eq!(found, expected);
        let text = StoredOrder { asked: asked.clone(), order: found }.text();
        let read = StoredOrder::read(&text).expect("an order");
        assert_eq!((read.asked, read.order), (asked, expected));
    }

    #[test]
    fn what_an_order_says_holds() {
        let asked = order(json!({
            "service": "shop", "rules": "strict", "prometheus": "second", "hold_secs": 5.0,
            "mechanisms": ["x"], "canary": { "targets": ["http://h:1"] },
            "baseline": { "version": "v1", "selector": "a=\"b\"" } }));
        let found = completed(&asked, &services()).expect("an order");
        assert_eq!(found, asked);
        let text = StoredOrder { asked: asked.clone(), order: found }.text();
        assert_eq!(text, serde_json::to_string(&asked).expect("JSON"));
        assert_eq!(StoredOrder::read(&text).expect("an order").asked, asked);
    }

    #[test]
    fn any_service_has_an_entry_where_there_is_one_for_all() {
        let asked = order(json!({ "service": "mail", "canary": { "version": "v2" } }));
        let found = completed(&asked, &services()).expect("an order");
        assert_eq!(found.canary.targets, ["http://mail-v2:80"]);
        assert_eq!((found.rules.as_str(), found.baseline), ("template", None));
    }

    #[test]
    fn what_is_missing_is_named() {
        let check = |value, expected: &[&str]| {
            let faults = completed(&order(value), &services()).expect_err("faults").join("\n");
            for words in expected {
                assert!(faults.contains(words), "{faults}\nlacks {words}");
            }
        };
        check(
            json!({ "service": "shop", "canary": {} }),
            &[
                "canary.version is not given, and services.shop.canary.selector has it",
                "version is not given, and services.shop.baseline.targets",
            ],
        );
        check(
            json!({ "service": "shop", "canary": { "version": "a\"b" }, "baseline": { "version": "a/b" },
                    "parameters": { "zone": "a" } }),
            &["canary_version is \"a\\\"b\"", "version is \"a/b\""],
        );
        let faults = completed(&order(json!({ "service": "x", "canary": {} })), &BTreeMap::new());
        let faults = faults.expect_err("faults").join("\n");
        assert!(faults.contains("service \"x\" is not among `services`"), "{faults}");
    }
}
