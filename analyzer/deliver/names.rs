//! What may stand in braces in the options of mechanisms: `{service}`, `{action}` and so on.

use super::payload::{DeployAction, StepShape, TEST_EVENT, VerdictEvent};
use crate::outward::pattern::Pattern;

/// The name of what is to be done.
pub const ACTION: &str = "action";

/// The names, each of which an event fills in.
pub const NAMES: [&str; 9] = [
    ACTION,
    "service",
    "canary_version",
    "baseline_version",
    "verdict",
    "reason",
    "rule",
    "analysis",
    "key",
];

/// What stands for the action of an event that is to change nothing.
pub const TEST_ACTION: &str = "test";

/// What an event asks for, in one word: `rollback`, `promote`, `hold`, `advance` or `test`.
pub(super) fn action(event: &VerdictEvent) -> String {
    match event.kind.as_str() {
        TEST_EVENT => TEST_ACTION.to_owned(),
        _ => event.data.action.to_string(),
    }
}

/// Fills a pattern in that was read with [`NAMES`]. `key` is the idempotency key.
pub(super) fn fill(pattern: &Pattern, event: &VerdictEvent, key: &str) -> String {
    let (action, data) = (action(event), &event.data);
    pattern.fill(|name| match name {
        ACTION => &action,
        "service" => &data.service,
        "canary_version" => &data.canary_version,
        "baseline_version" => &data.baseline_version,
        "verdict" => &data.verdict,
        "reason" => &data.reason,
        "rule" => data.rule.as_deref().unwrap_or_default(),
        "analysis" => &data.analysis,
        "key" => key,
        other => unreachable!("{other} is none of the names that patterns are read with"),
    })
}

/// What was decided, in one line for people.
pub(super) fn headline(event: &VerdictEvent) -> String {
    let data = &event.data;
    let release = format!("{} {}", data.service, data.canary_version);
    let release = release.trim();
    if event.kind == TEST_EVENT {
        return format!("A test from rollgate, about {release}");
    }
    match data.action {
        DeployAction::Rollback => format!("Roll back {release}"),
        DeployAction::Promote => format!("Promote {release}"),
        DeployAction::Hold => format!("Leave {release} as it is: not enough evidence"),
        DeployAction::Advance => match data.step {
            Some(StepShape { index, of, weight }) => format!(
                "Go on with {release}: step {} of {of}, {} % of the traffic",
                index + 1,
                (weight * 10_000.0).round() / 100.0
            ),
            None => format!("Go on with {release}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        deliver::sample::{self, Release},
        engine::observation::Time,
    };

    #[test]
    fn every_name_is_filled_in() {
        let release = Release { service: "shop", canary_version: "v2", baseline_version: "v1" };
        let read = |text: &str| serde_json::from_str(text).expect("an event");
        let rollback =
            read(&sample::rehearsal(DeployAction::Rollback, &release, Time(1_700_000_000_000)));
        let all: Vec<String> = NAMES.iter().map(|name| format!("{{{name}}}")).collect();
        let pattern = Pattern::parse(&all.join("|"), &NAMES).expect("known names");
        let filled = fill(&pattern, &rollback, "k1");
        let parts: Vec<&str> = filled.split('|').collect();
        assert_eq!(parts[..5], ["rollback", "shop", "v2", "v1", "rollback"]);
        assert!(parts[5..].iter().all(|part| !part.is_empty()), "{filled}");
        let test = read(&sample::test(&release, Time(1_700_000_000_000)));
        let pattern = Pattern::parse("{action} of {rule}.", &NAMES).expect("known names");
        assert_eq!(fill(&pattern, &test, "k1"), "test of .");
        assert_eq!(headline(&test), "A test from rollgate, about shop v2");
        let headline_of = |action| headline(&read(&sample::rehearsal(action, &release, Time(0))));
        assert_eq!(headline_of(DeployAction::Rollback), "Roll back shop v2");
        assert_eq!(headline_of(DeployAction::Promote), "Promote shop v2");
        let expected = "Leave shop v2 as it is: not enough evidence";
        assert_eq!(headline_of(DeployAction::Hold), expected);
        let expected = "Go on with shop v2: step 2 of 3, 50 % of the traffic";
        assert_eq!(headline_of(DeployAction::Advance), expected);
    }
}
