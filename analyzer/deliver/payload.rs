//! The events that mechanisms receive: `rollgate.verdict.v1`, of a progressive release
//! `rollgate.advance.v1`, and on request `rollgate.test.v1`, all of the same shape.
//!
//! Its field names are a public contract. The text made here is stored in the outbox and is signed
//! and sent byte for byte, however often; nothing is computed again at the time of an attempt.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    engine::{
        observation::Time,
        rule::{Otherwise, ReleaseStep},
        verdict::Verdict,
    },
    report::shape::{FindingShape, Report, RulesRef},
};

/// Type of the event.
pub const VERDICT_EVENT: &str = "rollgate.verdict.v1";

/// Type of the event that tells to go on to the next step.
pub const ADVANCE_EVENT: &str = "rollgate.advance.v1";

/// Type of the event that asks for nothing: it shows that the way to a receiver works.
pub const TEST_EVENT: &str = "rollgate.test.v1";

/// Largest event. Findings are left out of one that would be larger: what is to be done must arrive
/// even where receivers limit bodies.
pub const EVENT_BYTES_MAX: usize = 256 << 10;

/// The event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictEvent {
    /// [`VERDICT_EVENT`], [`ADVANCE_EVENT`] or [`TEST_EVENT`].
    #[serde(rename = "type")]
    pub kind: String,
    /// When the verdict was reached, in ISO 8601.
    pub timestamp: String,
    /// The verdict.
    pub data: VerdictData,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerdictData {
    /// Id of the analysis.
    pub analysis: String,
    /// The service being released.
    pub service: String,
    /// The new version.
    pub canary_version: String,
    /// The old version; empty when there is no such arm.
    pub baseline_version: String,
    /// `promote`, `rollback`, `inconclusive` or `advance`.
    pub verdict: String,
    /// What is to be done.
    pub action: DeployAction,
    /// The step to go on to; absent unless the action is to advance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepShape>,
    /// The verdict in one or two sentences.
    pub reason: String,
    /// The rule that decided, as written in the rule file; null when none did.
    pub rule: Option<String>,
    /// When it was decided, in unix seconds.
    pub decided_at: f64,
    /// Seconds since the analysis began.
    pub elapsed_secs: f64,
    /// The rule file.
    pub rules: RulesRef,
    /// What it rests on, one per rule; empty when left out for size.
    pub findings: Vec<FindingShape>,
    /// How many findings were left out because the event would have been too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings_omitted: Option<usize>,
    /// True of an event that nobody decided, which is to change nothing; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<bool>,
}

/// What a deploy system is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeployAction {
    /// Go back to the old version.
    Rollback,
    /// Go on to the new version.
    Promote,
    /// Leave everything as it is.
    Hold,
    /// Give the new version the share of the traffic that the next step says.
    Advance,
}

impl fmt::Display for DeployAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rollback => "rollback",
            Self::Promote => "promote",
            Self::Hold => "hold",
            Self::Advance => "advance",
        })
    }
}

/// A step of a progressive release.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepShape {
    /// Its index, from 0.
    pub index: usize,
    /// How many steps there are.
    pub of: usize,
    /// The canary's share of the traffic, 0..1.
    pub weight: f64,
}

/// What an event is made of.
#[derive(Clone, Debug)]
pub struct VerdictParts<'a> {
    /// Id of the analysis.
    pub analysis: &'a str,
    /// The service being released.
    pub service: &'a str,
    /// The new version.
    pub canary_version: &'a str,
    /// The old version; empty when there is none.
    pub baseline_version: &'a str,
    /// The verdict.
    pub verdict: Verdict,
    /// The steps of the release.
    pub steps: &'a [ReleaseStep],
    /// When it was decided.
    pub decided: Time,
    /// The report of the look that decided.
    pub report: &'a Report,
    /// The rule file.
    pub rules: RulesRef,
}

/// The event's text; none when there is nothing to be done: a verdict that is neither final nor an
/// advance is not told.
pub fn verdict_event(parts: VerdictParts<'_>) -> Option<String> {
    let data = VerdictData {
        analysis: parts.analysis.to_owned(),
        service: parts.service.to_owned(),
        canary_version: parts.canary_version.to_owned(),
        baseline_version: parts.baseline_version.to_owned(),
        verdict: parts.verdict.to_string(),
        action: action(parts.verdict)?,
        step: match parts.verdict {
            Verdict::Advance { to } => parts.steps.get(to).map(|step| StepShape {
                index: to,
                of: parts.steps.len(),
                weight: step.weight,
            }),
            Verdict::Watching
            | Verdict::Investigate { .. }
            | Verdict::Promote
            | Verdict::Rollback { .. }
            | Verdict::Inconclusive { .. } => None,
        },
        reason: parts.report.reason.clone(),
        rule: parts.report.rule.clone(),
        decided_at: parts.decided.as_secs_f64(),
        elapsed_secs: parts.report.elapsed_secs,
        rules: parts.rules,
        findings: parts.report.findings.clone(),
        findings_omitted: None,
        test: None,
    };
    let timestamp = timestamp(parts.decided);
    let kind = if data.step.is_some() { ADVANCE_EVENT } else { VERDICT_EVENT };
    let mut event = VerdictEvent { kind: kind.to_owned(), timestamp, data };
    let text = text(&event);
    if text.len() <= EVENT_BYTES_MAX {
        return Some(text);
    }
    event.data.findings_omitted = Some(event.data.findings.len());
    event.data.findings.clear();
    Some(self::text(&event))
}

/// The idempotency key of one analysis' decision for one mechanism: the same whenever it is made.
pub fn delivery_key(analysis: &str, advance_to: Option<usize>, mechanism: &str) -> String {
    match advance_to {
        None => format!("{analysis}.{mechanism}"),
        Some(step) => format!("{analysis}.step{step}.{mechanism}"),
    }
}

/// What a verdict asks to be done.
pub fn action(verdict: Verdict) -> Option<DeployAction> {
    match verdict {
        Verdict::Watching | Verdict::Investigate { .. } => None,
        Verdict::Advance { .. } => Some(DeployAction::Advance),
        Verdict::Promote => Some(DeployAction::Promote),
        Verdict::Rollback { .. } => Some(DeployAction::Rollback),
        Verdict::Inconclusive { otherwise } => Some(match otherwise {
            Otherwise::Hold => DeployAction::Hold,
            Otherwise::Rollback => DeployAction::Rollback,
            Otherwise::Promote => DeployAction::Promote,
        }),
    }
}

pub(super) fn text(event: &VerdictEvent) -> String {
    serde_json::to_string(event).expect("strings and numbers are always JSON")
}

pub(super) fn timestamp(at: Time) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(rules: usize, reason: &str) -> Report {
        let finding = FindingShape {
            rule: "error_rate > 5%".to_owned(),
            then: "rollback".to_owned(),
            reason: None,
            state: "fires".to_owned(),
            in_state_secs: 0.0,
            clauses: vec![],
        };
        Report {
            verdict: "rollback".to_owned(),
            is_final: true,
            decided_at: Some(1_700_000_000.5),
            at: 1_700_000_000.5,
            elapsed_secs: 61.0,
            look: 7,
            rule: Some("error_rate > 5%".to_owned()),
            reason: reason.to_owned(),
            release_step: None,
            gap: None,
            otherwise: None,
            findings: vec![finding; rules],
            signals: vec![],
            rules: None,
        }
    }

    const STEPS: [ReleaseStep; 2] = [
        ReleaseStep { weight: 0.1, hold: Duration::from_secs(60) },
        ReleaseStep { weight: 0.5, hold: Duration::from_secs(120) },
    ];

    #[test]
    fn an_advance_says_how_far_to_go() {
        let text = event(Verdict::Advance { to: 1 }, &report(0, "step 1 of 2")).expect("told");
        let expected = r#""action":"advance","step":{"index":1,"of":2,"weight":0.5},"reason":"#;
        assert!(text.starts_with(r#"{"type":"rollgate.advance.v1","#), "{text}");
        assert!(text.contains(expected), "{text}");
    }

    fn event(verdict: Verdict, report: &Report) -> Option<String> {
        verdict_event(VerdictParts {
            analysis: "a1",
            service: "shop",
            canary_version: "v2",
            baseline_version: "v1",
            verdict,
            steps: &STEPS,
            decided: Time(1_700_000_000_500),
            report,
            rules: RulesRef { name: "shop".to_owned(), sha256: "00ff".to_owned() },
        })
    }

    #[test]
    fn the_event_has_the_documented_shape() {
        let text = event(Verdict::Rollback { rule: 0 }, &report(1, "too many errors"));
        let expected = concat!(
            r#"{"type":"rollgate.verdict.v1","timestamp":"2023-11-14T22:13:20.500Z","data":"#,
            r#"{"analysis":"a1","service":"shop","canary_version":"v2","baseline_version":"v1","#,
            r#""verdict":"rollback","action":"rollback","reason":"too many errors","#,
            r#""rule":"error_rate > 5%","decided_at":1700000000.5,"elapsed_secs":61.0,"#,
            r#""rules":{"name":"shop","sha256":"00ff"},"#,
            r#""findings":[{"rule":"error_rate > 5%","then":"rollback","reason":null,"#,
            r#""state":"fires","in_state_secs":0.0,"clauses":[]}]}}"#,
        );
        assert_eq!(text.as_deref(), Some(expected));
    }

    #[test]
    fn only_decisions_become_events() {
        let check = |verdict, expected| assert_eq!(action(verdict), expected, "{verdict:?}");
        let inconclusive = |otherwise| Verdict::Inconclusive { otherwise };
        check(Verdict::Watching, None);
        check(Verdict::Investigate { rule: 1 }, None);
        check(Verdict::Advance { to: 1 }, Some(DeployAction::Advance));
        check(Verdict::Promote, Some(DeployAction::Promote));
        check(Verdict::Rollback { rule: 1 }, Some(DeployAction::Rollback));
        check(inconclusive(Otherwise::Hold), Some(DeployAction::Hold));
        check(inconclusive(Otherwise::Rollback), Some(DeployAction::Rollback));
        check(inconclusive(Otherwise::Promote), Some(DeployAction::Promote));
        assert_eq!(event(Verdict::Watching, &report(1, "")), None);
    }

    #[test]
    fn a_huge_event_keeps_the_verdict_and_drops_the_findings() {
        let text = event(Verdict::Promote, &report(5000, "fine")).expect("final");
        assert!(text.len() < EVENT_BYTES_MAX);
        let event: VerdictEvent = serde_json::from_str(&text).expect("JSON");
        assert_eq!((event.data.findings.len(), event.data.findings_omitted), (0, Some(5000)));
        assert_eq!(
            (event.data.reason.as_str(), event.data.action),
            ("fine", DeployAction::Promote)
        );
    }
}
