//! What a mechanism does on which decision: one of the actions of its kind, or nothing.

use std::collections::BTreeMap;

use super::payload::DeployAction;

/// How nothing is written in a configuration.
pub const NOTHING: &str = "nothing";

/// Every decision, in the order in which people read of them.
pub const DECISIONS: [DeployAction; 4] =
    [DeployAction::Rollback, DeployAction::Promote, DeployAction::Advance, DeployAction::Hold];

/// One action or nothing for each decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Go back to the old version.
    pub rollback: Option<&'static str>,
    /// Go on to the new version.
    pub promote: Option<&'static str>,
    /// Go on to the next step of a progressive release.
    pub advance: Option<&'static str>,
    /// Leave everything as it is: inconclusive.
    pub hold: Option<&'static str>,
}

impl Mapping {
    /// The action for a decision.
    pub fn of(&self, action: DeployAction) -> Option<&'static str> {
        match action {
            DeployAction::Rollback => self.rollback,
            DeployAction::Promote => self.promote,
            DeployAction::Advance => self.advance,
            DeployAction::Hold => self.hold,
        }
    }

    /// The decisions on which something is done.
    pub fn actions(&self) -> impl Iterator<Item = DeployAction> {
        let mapping = *self;
        DECISIONS.into_iter().filter(move |decision| mapping.of(*decision).is_some())
    }

    /// The same with what a configuration says instead; `actions` are those of the kind.
    ///
    /// # Errors
    /// Every decision and action that there is none of, in words.
    pub fn with(
        mut self,
        on: &BTreeMap<String, String>,
        actions: &[&'static str],
    ) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        for (decision, action) in on {
            let chosen = match action.as_str() {
                NOTHING => None,
                word => match actions.iter().find(|known| **known == word) {
                    Some(known) => Some(*known),
                    None => {
                        faults.push(format!(
                            "on.{decision} is {word:?}, expected {} or {NOTHING}",
                            actions.join(", ")
                        ));
                        continue;
                    }
                },
            };
            match decision.as_str() {
                "rollback" => self.rollback = chosen,
                "promote" => self.promote = chosen,
                "advance" => self.advance = chosen,
                "hold" => self.hold = chosen,
                _ => faults.push(format!(
                    "on.{decision} is no decision, expected rollback, promote, advance or hold"
                )),
            }
        }
        if faults.is_empty() { Ok(self) } else { Err(faults) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING: Mapping =
        Mapping { rollback: Some("undo"), promote: None, advance: None, hold: None };

    fn on(text: &str) -> BTreeMap<String, String> {
        serde_saphyr::from_str(text).expect("a map of words")
    }

    #[test]
    fn a_configuration_overrides_decision_by_decision() {
        let found = MAPPING.with(&on("{ rollback: nothing, promote: undo }"), &["undo"]);
        let expected = Mapping { rollback: None, promote: Some("undo"), ..MAPPING };
        assert_eq!(found, Ok(expected));
        assert_eq!(MAPPING.of(DeployAction::Rollback), Some("undo"));
        assert_eq!(MAPPING.of(DeployAction::Hold), None);
    }

    #[test]
    fn every_fault_is_named() {
        let found = MAPPING.with(&on("{ rollback: redo, demote: undo }"), &["undo", "pause"]);
        let expected = [
            "on.demote is no decision, expected rollback, promote, advance or hold",
            "on.rollback is \"redo\", expected undo, pause or nothing",
        ];
        assert_eq!(found, Err(expected.map(str::to_owned).to_vec()));
    }
}
