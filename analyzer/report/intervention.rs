//! What people do to an analysis by hand, in the one public shape, and the report of a verdict that
//! a person put in the place of the engine's.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shape::{Report, RulesRef};

/// One intervention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InterventionShape {
    /// When, in unix seconds.
    pub at: f64,
    /// `cancel`, `override` or `resend`.
    pub what: String,
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// Of an override the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Of a re-send the key of the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
}

impl InterventionShape {
    /// What was done, in a sentence without an end: `overridden by ann: the graphs are wrong`.
    pub fn words(&self) -> String {
        let done = match (self.what.as_str(), &self.verdict, &self.delivery) {
            ("override", Some(verdict), _) => format!("overridden with {verdict}"),
            ("resend", _, Some(delivery)) => format!("{delivery} sent again"),
            ("cancel", _, _) => "cancelled".to_owned(),
            (other, _, _) => other.to_owned(),
        };
        signed(&done, &self.who, &self.why)
    }
}

/// Who put another verdict in the place of the engine's, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OverrideShape {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// The verdict that the rules stood at.
    pub instead_of: String,
}

/// When and under which rules a verdict was overridden.
#[derive(Clone, Debug, PartialEq)]
pub struct Overridden {
    /// The verdict's word.
    pub verdict: String,
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// When, in unix seconds.
    pub at: f64,
    /// Seconds since the analysis began.
    pub elapsed_secs: f64,
    /// The rule file.
    pub rules: RulesRef,
}

/// The report of an overridden verdict: what the last look found stays beside it.
pub fn overridden(last: Option<Report>, by: Overridden) -> Report {
    let instead_of = last.as_ref().map_or("watching", |last| &last.verdict).to_owned();
    let sentence = signed("Overridden", &by.who, &by.why);
    let end = if sentence.ends_with(['.', '!', '?']) { "" } else { "." };
    Report {
        reason: format!("{sentence}{end} The rules stood at {instead_of}."),
        verdict: by.verdict,
        is_final: true,
        decided_at: Some(by.at),
        at: by.at,
        elapsed_secs: by.elapsed_secs,
        look: last.as_ref().map_or(0, |last| last.look),
        rule: None,
        otherwise: None,
        release_step: last.as_ref().and_then(|last| last.release_step),
        gap: last.as_ref().and_then(|last| last.gap.clone()),
        overridden: Some(OverrideShape { who: by.who, why: by.why, instead_of }),
        rules: Some(by.rules),
        signals: last.as_ref().map_or_else(Vec::new, |last| last.signals.clone()),
        findings: last.map_or_else(Vec::new, |last| last.findings),
    }
}

fn signed(done: &str, who: &str, why: &str) -> String {
    match (who.trim(), why.trim()) {
        ("", "") => done.to_owned(),
        (who, "") => format!("{done} by {who}"),
        ("", why) => format!("{done}: {why}"),
        (who, why) => format!("{done} by {who}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_did_what_and_why() {
        let check = |what: &str, who: &str, why: &str, expected: &str| {
            let shape = InterventionShape {
                at: 1.0,
                what: what.to_owned(),
                who: who.to_owned(),
                why: why.to_owned(),
                verdict: (what == "override").then(|| "rollback".to_owned()),
                delivery: (what == "resend").then(|| "a1.hook".to_owned()),
            };
            assert_eq!(shape.words(), expected);
        };
        check("override", "ann", "it is on fire", "overridden with rollback by ann: it is on fire");
        check("resend", "ann", "", "a1.hook sent again by ann");
        check("cancel", "", "rehearsal", "cancelled: rehearsal");
    }

    #[test]
    fn before_the_first_look_there_is_nothing_beside_it() {
        let by = Overridden {
            verdict: "promote".to_owned(),
            who: "ann".to_owned(),
            why: "it is a hotfix".to_owned(),
            at: 12.5,
            elapsed_secs: 2.5,
            rules: RulesRef { name: "shop".to_owned(), sha256: "00".to_owned() },
        };
        let report = overridden(None, by);
        let reason = "Overridden by ann: it is a hotfix. The rules stood at watching.";
        assert_eq!((report.look, report.reason.as_str()), (0, reason));
        assert!(report.is_final && report.findings.is_empty());
    }
}
