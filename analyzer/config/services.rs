//! `services:` of the configuration: what is known of a service, so that an order or a controller
//! needs to say no more than its name and its versions.
//!
//! The entry `*` stands for every service that has none of its own.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{
    reading::Reading,
    template::{NAMES, Purpose, Template},
    watch,
};

/// Services that may be known.
pub const SERVICES_MAX: usize = 1_000;

/// Parameters that a service may have.
const PARAMETERS_MAX: usize = 32;

/// Characters of a parameter's name.
const PARAMETER_CHARS_MAX: usize = 64;

/// The entry that stands for every service without one.
pub const ANY_SERVICE: &str = "*";

/// Longest hold: a week.
const HOLD_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is known of one service. What is left out has to be in the order.
#[derive(Clone, Debug, Default)]
pub struct KnownService {
    /// Name of its rule file, without `.yaml`; empty when the order has to say it.
    pub rules: String,
    /// The metrics server that its selectors are asked of.
    pub prometheus: Option<String>,
    /// Mechanisms that are told its verdicts.
    pub mechanisms: Vec<String>,
    /// Watch at least this long.
    pub hold: Option<Duration>,
    /// What orders may fill in, with what stands where they do not.
    pub parameters: BTreeMap<String, Option<String>>,
    /// The new version.
    pub canary: Option<ArmTemplate>,
    /// The old version.
    pub baseline: Option<ArmTemplate>,
}

/// Where one arm of any release of a service is found.
#[derive(Clone, Debug)]
pub enum ArmTemplate {
    /// URLs of its instances.
    Targets(Vec<Template>),
    /// Label matchers for a metrics server.
    Selector(Template),
}

/// One entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    #[serde(default)]
    rules: Option<String>,
    #[serde(default)]
    prometheus: Option<String>,
    #[serde(default)]
    mechanisms: Vec<String>,
    #[serde(default)]
    hold: Option<String>,
    #[serde(default)]
    parameters: BTreeMap<String, Option<String>>,
    #[serde(default)]
    canary: Option<Arm>,
    #[serde(default)]
    baseline: Option<Arm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arm {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    selector: Option<String>,
}

/// Names of other parts of the configuration that a service may refer to.
pub(super) struct Known<'a> {
    pub mechanisms: Vec<&'a str>,
    pub prometheus: Vec<&'a str>,
}

impl Reading<'_> {
    pub(super) fn services(
        &mut self,
        entries: BTreeMap<String, Service>,
        known: &Known<'_>,
    ) -> BTreeMap<String, KnownService> {
        if entries.len() > SERVICES_MAX {
            self.fault(format!("services has {} entries, at most {SERVICES_MAX}", entries.len()));
        }
        let one = |(name, entry): (String, Service)| {
            let service = self.service(&format!("services.{name}"), entry, known);
            (name, service)
        };
        entries.into_iter().map(one).collect()
    }

    fn service(&mut self, at: &str, entry: Service, known: &Known<'_>) -> KnownService {
        let Service { rules, prometheus, mechanisms, hold, parameters, canary, baseline } = entry;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if let Some(rules) = &rules
            && (rules.is_empty() || !rules.chars().all(is_plain))
        {
            self.fault(format!(
                "{at}.rules is {rules:?}, expected the name of a rule file without `.yaml`"
            ));
        }
        if let Some(name) = &prometheus {
            self.among(&format!("{at}.prometheus"), name, &known.prometheus);
        }
        for name in &mechanisms {
            self.among(&format!("{at}.mechanisms"), name, &known.mechanisms);
        }
        if parameters.len() > PARAMETERS_MAX {
            self.fault(format!(
                "{at}.parameters has {} entries, at most {PARAMETERS_MAX}",
                parameters.len()
            ));
        }
        for name in parameters.keys() {
            if !is_parameter(name) || NAMES.contains(&name.as_str()) {
                self.fault(format!(
                    "{at}.parameters has {name:?}, expected a name of small letters, digits and _ \
                     other than {}",
                    NAMES.join(", ")
                ));
            }
        }
        let names: Vec<&str> =
            NAMES.into_iter().chain(parameters.keys().map(String::as_str)).collect();
        let canary = canary.and_then(|arm| self.arm(&format!("{at}.canary"), arm, &names));
        let baseline = baseline.and_then(|arm| self.arm(&format!("{at}.baseline"), arm, &names));
        let hold = hold.and_then(|text| self.hold(&format!("{at}.hold"), &text));
        let rules = rules.unwrap_or_default();
        KnownService { rules, prometheus, mechanisms, hold, parameters, canary, baseline }
    }

    fn among(&mut self, at: &str, name: &str, known: &[&str]) {
        if !known.contains(&name) {
            let known = known.join(", ");
            self.fault(format!("{at} names {name:?}, which is not configured, known are: {known}"));
        }
    }

    fn hold(&mut self, at: &str, text: &str) -> Option<Duration> {
        let hold = watch::duration(text);
        let hold = hold.filter(|hold| !hold.is_zero() && *hold <= HOLD_MAX);
        if hold.is_none() {
            self.fault(format!("{at} is {text:?}, expected 1s to 7d, such as `10m`"));
        }
        hold
    }

    fn arm(&mut self, at: &str, arm: Arm, names: &[&str]) -> Option<ArmTemplate> {
        match arm {
            Arm { targets, selector: None } if !targets.is_empty() => {
                let at = format!("{at}.targets");
                let parsed = targets
                    .iter()
                    .filter_map(|text| self.template(&at, text, names, Purpose::Name));
                let parsed = parsed.collect();
                Some(ArmTemplate::Targets(parsed))
            }
            Arm { targets, selector: Some(selector) } if targets.is_empty() => {
                let at = format!("{at}.selector");
                let selector = self.template(&at, &selector, names, Purpose::Matchers)?;
                Some(ArmTemplate::Selector(selector))
            }
            Arm { .. } => {
                self.fault(format!("{at}: expected either targets or selector"));
                None
            }
        }
    }

    pub(super) fn template(
        &mut self,
        at: &str,
        text: &str,
        names: &[&str],
        purpose: Purpose,
    ) -> Option<Template> {
        Template::parse(at, text, names, purpose).map_err(|fault| self.fault(fault)).ok()
    }
}

/// Whether a text can be a parameter's name.
fn is_parameter(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.len() <= PARAMETER_CHARS_MAX && name.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Secrets;

    use super::*;

    fn read(text: &str) -> (BTreeMap<String, KnownService>, String) {
        let entries = serde_saphyr::from_str(text).expect("the shape");
        let env = |_: &str| None;
        let mut reading = Reading::new(Path::new("."), &env, Secrets::Read);
        let known = Known { mechanisms: vec!["deploy"], prometheus: vec!["main"] };
        let services = reading.services(entries, &known);
        (services, reading.faults.join("\n"))
    }

    #[test]
    fn a_service_says_what_orders_leave_out() {
        let (services, faults) = read(
            "shop: { rules: recommended, prometheus: main, mechanisms: [deploy], hold: 10m, \
             parameters: { namespace: prod, zone: }, \
             canary: { selector: 'job=\"{service}\",zone=\"{zone}\"' }, \
             baseline: { targets: ['http://{service}.{namespace}:8080'] } }",
        );
        assert_eq!(faults, "");
        let shop = &services["shop"];
        assert_eq!(
            (shop.rules.as_str(), shop.mechanisms.as_slice()),
            ("recommended", &["deploy".to_owned()][..])
        );
        assert_eq!(shop.hold, Some(Duration::from_secs(600)));
        assert_eq!(shop.parameters["namespace"].as_deref(), Some("prod"));
        assert!(matches!(shop.canary, Some(ArmTemplate::Selector(_))));
    }

    #[test]
    fn every_fault_of_a_service_is_named() {
        let (_, faults) = read(
            "a: { rules: ../x, prometheus: second, mechanisms: [deploy, x], hold: 8d, \
             parameters: { Name: , version: x }, canary: {}, \
             baseline: { selector: 'v=\"{nope}\"' } }\n\
             b: { canary: { targets: [a], selector: b } }",
        );
        for words in [
            "services.a.rules is \"../x\"",
            "services.a.prometheus names \"second\", which is not configured, known are: main",
            "services.a.mechanisms names \"x\"",
            "services.a.hold is \"8d\"",
            "services.a.parameters has \"Name\"",
            "services.a.parameters has \"version\"",
            "services.a.canary: expected",
            "services.a.baseline.selector: {nope} is not known",
            "services.b.canary: expected",
        ] {
            assert!(faults.contains(words), "{faults}\nlacks {words}");
        }
    }
}
