//! The committed recordings, judged by the recommended rules as `rollgate replay` does.

use std::{path::Path, time::Duration};

use rollgate::{
    cli::replay::replay,
    rulefile,
    service::case::override_hold,
    source::{exposition::Format, recording::Recording},
};
use serde_json::Value;

/// Looks every so many seconds.
pub const INTERVALS: [u64; 2] = [1, 5];

/// The recordings last three minutes.
const HOLD_SECS: f64 = 120.0;

/// What came of one recording.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub name: String,
    pub what: String,
    pub expected: String,
    /// Most seconds from the onset to the rollback, where one is expected.
    pub delay_secs_max: Option<f64>,
    /// One per interval.
    pub judged: Vec<Judged>,
}

/// What came of it at one interval.
#[derive(Clone, Debug)]
pub struct Judged {
    pub verdict: String,
    pub rule: Option<String>,
    pub delay_secs: Option<f64>,
}

impl Recorded {
    /// Whether every interval has the expected verdict in time.
    pub fn is_right(&self) -> bool {
        self.judged.iter().all(|judged| {
            let right = match self.expected.as_str() {
                "hold_or_promote" => judged.verdict != "rollback",
                expected => judged.verdict == expected,
            };
            let late = self.delay_secs_max.zip(judged.delay_secs);
            right && late.is_none_or(|(most, delay)| (0.0..=most).contains(&delay))
        })
    }
}

/// Every directory with a `meta.json`, by name.
pub fn judge_all(root: &Path) -> Vec<Recorded> {
    let folder = root.join("tests/cases/recordings");
    let rules = std::fs::read_to_string(root.join("rules/recommended.yaml")).expect("the rules");
    let entries = std::fs::read_dir(folder).expect("the recordings");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.join("meta.json").is_file());
    paths.sort();
    paths.iter().map(|path| judge(path, &rules)).collect()
}

fn judge(path: &Path, rules: &str) -> Recorded {
    let meta = std::fs::read(path.join("meta.json")).expect("meta.json");
    let meta: Value = serde_json::from_slice(&meta).expect("JSON");
    let text = |key: &str| meta[key].as_str().unwrap_or_default().to_owned();
    let onset = meta["onset"].as_f64();
    let recording = Recording::open(path, Format::Text).expect("a recording");
    let judged = INTERVALS.map(|secs| {
        let mut file = rulefile::load("recommended.yaml", rules).expect("valid rules");
        override_hold(&mut file.rules, HOLD_SECS);
        file.rules.observe.interval = Duration::from_secs(secs);
        let report = replay(&recording, file).expect("a verdict");
        let rolled_back = report.verdict == "rollback";
        let delay_secs = report.decided_at.zip(onset).filter(|_| rolled_back);
        Judged {
            verdict: report.verdict,
            rule: report.rule,
            delay_secs: delay_secs.map(|(at, onset)| at - onset),
        }
    });
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    eprintln!("recording {name}: {judged:?}");
    let fault = meta["knobs"]["c_fault"].as_str().unwrap_or_default();
    Recorded {
        name,
        what: text("what"),
        expected: text("expect"),
        delay_secs_max: delay_secs_max(fault).filter(|_| text("expect") == "rollback"),
        judged: judged.into(),
    }
}

/// What is required of each kind of fault, by its name in the recording.
fn delay_secs_max(fault: &str) -> Option<f64> {
    match fault.split(':').next()? {
        "error" | "latency" => Some(15.0),
        "crash" | "crashloop" => Some(5.0),
        "leak" => Some(90.0),
        _ => None,
    }
}
