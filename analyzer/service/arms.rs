//! An arm of an order becomes a source: scraped targets, found ones, or a metrics server.

use super::{desk::ServiceDesk, known};
use crate::{
    api::desk::{ArmOrder, OpenAnalysis},
    source::{collector::ArmSource, discovery::Matches, found_arm::FoundArm, target::Target},
};

impl ServiceDesk {
    /// Where the samples of an arm come from; what is wrong with it is added to `faults`.
    pub(super) fn arm(
        &self,
        name: &str,
        arm: &ArmOrder,
        order: &OpenAnalysis,
        faults: &mut Vec<String>,
    ) -> Option<ArmSource> {
        let ArmOrder { version: _, targets, selector, dns, discover, labels } = arm;
        let found = match (targets.as_slice(), selector, dns, discover) {
            (_, Some(matchers), None, None) if targets.is_empty() => {
                self.selected(name, matchers, order.prometheus.as_deref())
            }
            ([], None, Some(dns), None) => self
                .discoveries
                .dns(dns)
                .map(|finder| ArmSource::Found(FoundArm::new(finder, Matches::default())))
                .map_err(|fault| vec![format!("{name}.dns: {fault}")]),
            ([], None, None, Some(discover)) => self
                .discoveries
                .named(discover, &known::arm_values(order, arm))
                .map(|finder| ArmSource::Found(FoundArm::new(finder, Matches::new(labels))))
                .map_err(|fault| vec![format!("{name}: {fault}")]),
            ([_, ..], None, None, None) => scraped(name, targets),
            ([], None, None, None) => Err(vec![format!(
                "{name} has no targets, selector, dns or discover, expected one of them"
            )]),
            _ => Err(vec![format!(
                "{name} has more than one of targets, selector, dns and discover, expected one"
            )]),
        };
        found.map_err(|found| faults.extend(found)).ok()
    }

    fn selected(
        &self,
        name: &str,
        matchers: &str,
        server: Option<&str>,
    ) -> Result<ArmSource, Vec<String>> {
        let Some(server) = server else {
            return Err(vec![format!("{name} is given by selector, which needs `prometheus`")]);
        };
        let Some(prometheus) = self.prometheus.get(server) else {
            let known: Vec<&str> = self.prometheus.keys().map(String::as_str).collect();
            return Err(vec![format!(
                "prometheus {server:?} is not configured, known are: {}",
                known.join(", ")
            )]);
        };
        let prometheus = prometheus.clone();
        Ok(ArmSource::Selector { prometheus, matchers: matchers.to_owned() })
    }
}

fn scraped(name: &str, urls: &[String]) -> Result<ArmSource, Vec<String>> {
    let (mut targets, mut faults) = (Vec::new(), Vec::new());
    for url in urls {
        match Target::parse(url) {
            Ok(target) => targets.push(target),
            Err(error) => faults.push(format!("{name}: {error}")),
        }
    }
    if faults.is_empty() { Ok(ArmSource::Targets(targets)) } else { Err(faults) }
}
