//! Facts about controllers that ask for verdicts in their own way.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The group of the controllers.
pub struct ControllerMetrics {
    hooks: Family<HookLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HookLabels {
    controller: &'static str,
    hook: &'static str,
    answer: &'static str,
}

/// One question and what was said to it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Which controller: `argo`, `flagger`.
    pub controller: &'static str,
    /// Its name for the question.
    pub hook: &'static str,
    /// What it asked about, as people name it.
    pub object: &'a str,
    /// In one word.
    pub answer: &'static str,
    /// In a sentence.
    pub words: &'a str,
}

impl ControllerMetrics {
    /// Registers the group.
    pub fn register(registry: &mut Registry) -> Self {
        let hooks = Family::default();
        registry.register(
            "controller_questions",
            "Questions of deploy controllers that were answered, by controller, hook and answer",
            hooks.clone(),
        );
        Self { hooks }
    }

    /// A question was answered.
    pub fn answered(&self, asked: Asked<'_>) {
        let Asked { controller, hook, object, answer, words } = asked;
        self.hooks.get_or_create(&HookLabels { controller, hook, answer }).inc();
        tracing::debug!(controller, hook, object, answer, words, "controller answered");
    }

    /// A controller began a release, which is judged from now on.
    pub fn began(&self, controller: &'static str, object: &str, analysis: &str) {
        tracing::info!(controller, object, analysis, "release of a controller is judged");
    }

    /// A controller told what it did.
    pub fn reported(&self, controller: &'static str, object: &str, phase: &str, message: &str) {
        tracing::info!(controller, object, phase, message, "event of a controller");
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Telemetry;

    use super::*;

    #[test]
    fn questions_are_counted_by_what_was_said() {
        let telemetry = Telemetry::new();
        let asked = Asked {
            controller: "flagger",
            hook: "rollback",
            object: "test/shop",
            answer: "deny",
            words: "no rollback",
        };
        telemetry.controllers().answered(asked);
        telemetry.controllers().answered(asked);
        let line = "rollgate_controller_questions_total{controller=\"flagger\",hook=\"rollback\",\
                    answer=\"deny\"} 2";
        assert!(telemetry.render().contains(line), "{}", telemetry.render());
    }
}
