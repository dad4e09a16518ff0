//! Events that no analysis made: to rehearse a delivery, to test the way to a receiver, and to check
//! templates before they are needed.

use super::payload::{
    ADVANCE_EVENT, DeployAction, StepShape, TEST_EVENT, VERDICT_EVENT, VerdictData, VerdictEvent,
    text, timestamp,
};
use crate::{
    engine::observation::Time,
    report::shape::{FindingShape, RulesRef},
};

/// Of what release an event speaks.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// The service.
    pub service: &'a str,
    /// Its new version.
    pub canary_version: &'a str,
    /// Its old one.
    pub baseline_version: &'a str,
}

/// An event as a decision would make it.
pub fn rehearsal(action: DeployAction, release: &Release<'_>, at: Time) -> String {
    text(&event(action, release, at))
}

/// The same with its findings left out, as those of a very large event are.
pub(super) fn bare(action: DeployAction, release: &Release<'_>, at: Time) -> String {
    let mut event = event(action, release, at);
    event.data.findings_omitted = Some(event.data.findings.len());
    event.data.findings.clear();
    event.data.rule = None;
    text(&event)
}

/// An event that says of itself that it is a test and asks for nothing.
pub fn test(release: &Release<'_>, at: Time) -> String {
    let mut event = event(DeployAction::Hold, release, at);
    event.kind = TEST_EVENT.to_owned();
    event.data.analysis = "test".to_owned();
    event.data.reason = "a test of the way to this receiver; there is nothing to do".to_owned();
    event.data.test = Some(true);
    event.data.findings.clear();
    text(&event)
}

fn event(action: DeployAction, release: &Release<'_>, at: Time) -> VerdictEvent {
    let verdict = match action {
        DeployAction::Rollback => "rollback",
        DeployAction::Promote => "promote",
        DeployAction::Hold => "inconclusive",
        DeployAction::Advance => "advance",
    };
    let rule = "error_rate > 1.5x baseline".to_owned();
    let fires = action == DeployAction::Rollback;
    let step =
        (action == DeployAction::Advance).then_some(StepShape { index: 1, of: 3, weight: 0.5 });
    let data = VerdictData {
        analysis: "rehearsal".to_owned(),
        service: release.service.to_owned(),
        canary_version: release.canary_version.to_owned(),
        baseline_version: release.baseline_version.to_owned(),
        verdict: verdict.to_owned(),
        action,
        step,
        reason: "a rehearsal: nothing was judged".to_owned(),
        rule: fires.then(|| rule.clone()),
        decided_at: at.as_secs_f64(),
        elapsed_secs: 60.0,
        rules: RulesRef { name: "rehearsal".to_owned(), sha256: "0".repeat(64) },
        findings: vec![FindingShape {
            rule,
            then: "rollback".to_owned(),
            reason: None,
            state: if fires { "fires" } else { "clear" }.to_owned(),
            in_state_secs: 10.0,
            clauses: vec![],
        }],
        findings_omitted: None,
        test: None,
    };
    let kind = if step.is_some() { ADVANCE_EVENT } else { VERDICT_EVENT };
    VerdictEvent { kind: kind.to_owned(), timestamp: timestamp(at), data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_says_that_it_is_one_and_asks_for_nothing() {
        let release = Release { service: "shop", canary_version: "v2", baseline_version: "v1" };
        let text = test(&release, Time(1_700_000_000_000));
        let expected = concat!(
            r#"{"type":"rollgate.test.v1","timestamp":"2023-11-14T22:13:20.000Z","data":"#,
            r#"{"analysis":"test","service":"shop","canary_version":"v2","#,
            r#""baseline_version":"v1","verdict":"inconclusive","action":"hold","#,
        );
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with(r#""findings":[],"test":true}}"#), "{text}");
    }

    #[test]
    fn a_rehearsal_has_the_shape_of_its_decision() {
        let release = Release { service: "shop", canary_version: "v2", baseline_version: "v1" };
        let check = |action, kind: &str, verdict: &str, has_step: bool| {
            let text = rehearsal(action, &release, Time(0));
            let event: VerdictEvent = serde_json::from_str(&text).expect("an event");
            assert_eq!((event.kind.as_str(), event.data.verdict.as_str()), (kind, verdict));
            assert_eq!((event.data.step.is_some(), event.data.test), (has_step, None));
        };
        check(DeployAction::Rollback, VERDICT_EVENT, "rollback", false);
        check(DeployAction::Promote, VERDICT_EVENT, "promote", false);
        check(DeployAction::Hold, VERDICT_EVENT, "inconclusive", false);
        check(DeployAction::Advance, ADVANCE_EVENT, "advance", true);
    }
}
