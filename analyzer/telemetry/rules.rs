//! Facts about rule files: which version is in use, and which file does not load.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// Rule files with series of their own; further ones are counted only.
pub const SERIES_MAX: usize = 200;

/// The group of the rule files.
pub struct RuleMetrics {
    good: Family<FileLabel, Gauge>,
    loaded: Family<FileLabel, Gauge<f64, AtomicU64>>,
    warnings: Family<FileLabel, Gauge>,
    info: Family<VersionLabels, Gauge>,
    files: Family<StateLabel, Gauge>,
    directory: Gauge,
    reloads: Family<OutcomeLabel, Counter>,
    /// The version in use of each file with series of its own; empty for one that never loaded.
    shown: Mutex<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FileLabel {
    file: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VersionLabels {
    file: String,
    sha256: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// A version of a rule file.
#[derive(Clone, Copy, Debug)]
pub struct VersionFact<'a> {
    /// SHA-256 of its text, in hex.
    pub sha256: &'a str,
    /// When it was taken into use, in unix seconds.
    pub loaded_secs: f64,
    /// How many warnings there are about it.
    pub warnings: usize,
}

impl RuleMetrics {
    /// Registers the group.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            good: Family::default(),
            loaded: Family::default(),
            warnings: Family::default(),
            info: Family::default(),
            files: Family::default(),
            directory: Gauge::default(),
            reloads: Family::default(),
            shown: Mutex::default(),
        };
        metrics.directory.set(1);
        registry.register(
            "rule_file_good",
            "Whether what is on the disk loads (1) or the version before it is in use (0)",
            metrics.good.clone(),
        );
        registry.register_with_unit(
            "rule_file_loaded_timestamp",
            "When the version in use was taken, in unix time",
            Unit::Seconds,
            metrics.loaded.clone(),
        );
        registry.register(
            "rule_file_warnings",
            "Warnings about the version in use",
            metrics.warnings.clone(),
        );
        registry.register("rule_file_info", "The version in use", metrics.info.clone());
        registry.register(
            "rule_files",
            "Rule files in the directory, by whether they load",
            metrics.files.clone(),
        );
        registry.register(
            "rule_directory_readable",
            "Whether the directory of rule files can be listed",
            metrics.directory.clone(),
        );
        registry.register(
            "rule_file_changes",
            "Changes of rule files, by what they led to",
            metrics.reloads.clone(),
        );
        metrics
    }

    /// A version of a rule file is used for new analyses from now on.
    pub fn in_use(&self, name: &str, version: VersionFact<'_>) {
        let VersionFact { sha256, loaded_secs, warnings } = version;
        self.changed("good");
        match warnings {
            0 => tracing::info!(rules = name, sha256, "rule file in use"),
            _ => tracing::warn!(rules = name, sha256, warnings, "rule file in use, with warnings"),
        }
        let Some(mut shown) = self.admit(name) else { return };
        let file = FileLabel { file: name.to_owned() };
        self.good.get_or_create(&file).set(1);
        self.loaded.get_or_create(&file).set(loaded_secs);
        self.warnings.get_or_create(&file).set(i64::try_from(warnings).unwrap_or(i64::MAX));
        let before = shown.insert(name.to_owned(), sha256.to_owned()).unwrap_or_default();
        self.info.remove(&VersionLabels { file: name.to_owned(), sha256: before });
        let labels = VersionLabels { file: name.to_owned(), sha256: sha256.to_owned() };
        self.info.get_or_create(&labels).set(1);
    }

    /// What is on the disk does not load. `in_use` is the version that stays in use, if there is one.
    pub fn refused(&self, name: &str, faults: &str, in_use: Option<&str>) {
        self.changed("bad");
        match in_use {
            Some(sha256) => tracing::error!(
                rules = name,
                faults,
                sha256,
                "rule file does not load, the version before stays in use"
            ),
            None => tracing::error!(
                rules = name,
                faults,
                "rule file does not load, and there is no version before"
            ),
        }
        let Some(mut shown) = self.admit(name) else { return };
        shown.entry(name.to_owned()).or_default();
        self.good.get_or_create(&FileLabel { file: name.to_owned() }).set(0);
    }

    /// A rule file is not there any more.
    pub fn gone(&self, name: &str) {
        self.changed("gone");
        tracing::warn!(rules = name, "rule file is gone, new analyses that name it are refused");
        let sha256 = self.shown().remove(name).unwrap_or_default();
        let file = FileLabel { file: name.to_owned() };
        self.good.remove(&file);
        self.loaded.remove(&file);
        self.warnings.remove(&file);
        self.info.remove(&VersionLabels { file: name.to_owned(), sha256 });
    }

    /// What an earlier run had in use is no rule file for this program.
    pub fn forgotten(&self, name: &str, faults: &str) {
        tracing::warn!(
            rules = name,
            faults,
            "the kept version of a rule file does not load any more"
        );
    }

    /// A file looks like a rule file and is not taken.
    pub fn ignored(&self, file: &str, why: &str) {
        tracing::warn!(file, why, "a file in the directory of rule files is not taken");
    }

    /// The directory cannot be listed, or can again.
    pub fn directory(&self, fault: Option<&str>) {
        self.directory.set(i64::from(fault.is_none()));
        match fault {
            Some(fault) => tracing::error!(fault, "rule files stay as they were"),
            None => tracing::info!("the directory of rule files can be listed again"),
        }
    }

    /// How many files load and do not.
    pub fn counted(&self, good: usize, bad: usize) {
        for (state, count) in [("good", good), ("bad", bad)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.files.get_or_create(&StateLabel { state }).set(count);
        }
    }

    /// Every file was read again because somebody asked for it.
    pub fn reloaded(&self, good: usize, bad: usize) {
        tracing::info!(good, bad, "rule files read again");
    }

    /// What is in use could not be kept for a restart; it is tried again.
    pub fn unsaved(&self, name: &str, why: &str) {
        tracing::warn!(rules = name, why, "a rule file cannot be kept for a restart, trying again");
    }

    fn changed(&self, outcome: &'static str) {
        self.reloads.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Room for a file's own series; none when there are too many.
    fn admit(&self, name: &str) -> Option<MutexGuard<'_, BTreeMap<String, String>>> {
        let shown = self.shown();
        (shown.contains_key(name) || shown.len() < SERIES_MAX).then_some(shown)
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Telemetry, SERIES_MAX, VersionFact};

    fn version(sha256: &str, loaded_secs: f64) -> VersionFact<'_> {
        VersionFact { sha256, loaded_secs, warnings: 2 }
    }

    fn check(body: &str, expected: &[&str]) {
        for line in expected {
            assert!(body.lines().any(|found| found == *line), "{line} in {body}");
        }
    }

    #[test]
    fn a_fact_moves_its_metric() {
        let telemetry = Telemetry::new();
        let rules = telemetry.rules();
        rules.in_use("shop", version("aa", 5.0));
        rules.in_use("shop", version("bb", 9.0));
        rules.refused("shop", "shop.yaml:1:1: bad", Some("bb"));
        rules.refused("till", "till.yaml:1:1: bad", None);
        rules.counted(0, 2);
        rules.directory(Some("gone"));
        let body = telemetry.render();
        check(
            &body,
            &[
                "rollgate_rule_file_good{file=\"shop\"} 0",
                "rollgate_rule_file_good{file=\"till\"} 0",
                "rollgate_rule_file_loaded_timestamp_seconds{file=\"shop\"} 9.0",
                "rollgate_rule_file_info{file=\"shop\",sha256=\"bb\"} 1",
                "rollgate_rule_file_warnings{file=\"shop\"} 2",
                "rollgate_rule_files{state=\"bad\"} 2",
                "rollgate_rule_directory_readable 0",
                "rollgate_rule_file_changes_total{outcome=\"good\"} 2",
                "rollgate_rule_file_changes_total{outcome=\"bad\"} 2",
            ],
        );
        assert!(!body.contains("sha256=\"aa\""), "{body}");
        rules.gone("shop");
        assert!(!telemetry.render().contains("file=\"shop\""));
    }

    #[test]
    fn series_are_bounded() {
        let telemetry = Telemetry::new();
        for number in 0..SERIES_MAX + 9 {
            telemetry.rules().in_use(&format!("r{number}"), version("aa", 1.0));
        }
        telemetry.rules().gone("r0");
        telemetry.rules().in_use("late", version("aa", 1.0));
        let body = telemetry.render();
        assert_eq!(body.matches("rollgate_rule_file_good{").count(), SERIES_MAX);
        check(&body, &["rollgate_rule_file_good{file=\"late\"} 1"]);
    }
}
