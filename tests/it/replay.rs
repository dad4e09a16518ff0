//! `rollgate replay` of stored analyses, and the difference that another rule file would have made:
//! the real binary, on the store of the real service and on recordings.

use std::process::{Command, Output};

use rollgate::demo::{
    fault::Fault,
    scenario::{Plan, Scenario},
    stage::Stage,
};
use serde_json::{Value, json};

use super::house::{Api, House, arm, error_rules};

/// The same signal under another name, a health endpoint that the analysis did not ask, and a limit.
const OTHER: &str = "\
version: 1
service: shop
observe: { interval: 1s, window: 5s, warmup: 1s }
signals:
  failures: { ratio: 'http_requests_total{code=~\"5..\"} / http_requests_total', floor: 0.1% }
  app: { health: /health }
rules:
  - { when: failures > 90% for 1s, then: rollback }
  - { when: app is down for 3 checks, then: rollback }
promote: { after: 2s, deadline: 5m }
";

fn rollgate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rollgate"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

fn said(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn two_rule_files_are_set_beside_each_other_on_a_recording() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string("rules/recommended.yaml").unwrap();
    let mine = dir.path().join("mine.yaml");
    let changed =
        text.replace("when: error_rate > 1.5x baseline", "when: error_rate > 1% for 20s").replace(
            "  - when: restarts >= 1\n    then: rollback\n",
            "  - when: restarts >= 2\n    then: investigate\n",
        );
    let kept = |line: &&str| !line.contains("error_rate: 2x or 1%");
    let changed: Vec<&str> = changed.lines().filter(kept).collect();
    std::fs::write(&mine, changed.join("\n")).unwrap();
    let mine = mine.to_str().unwrap();
    let error5 = "tests/cases/recordings/error5";
    let replay = ["replay", error5, "--rules", "rules/recommended.yaml", "--hold", "2m", "--diff"];

    let (code, text) = said(&rollgate(&[&replay[..], &[mine]].concat()));
    assert_eq!(code, 1, "{text}");
    for part in [
        "recommended.yaml",
        "mine.yaml",
        "error_rate > 1.5x baseline",
        "error_rate > 1% for 20s",
        "restarts >= 2",
        "rollback at 1 m 9 s",
        "clear (investigate)",
        "the same verdict would have come",
        "later, by error_rate > 1% for 20s",
    ] {
        let unwrapped = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(unwrapped.contains(part), "lacks {part:?}:\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");

    let json = rollgate(&[&replay[..], &[mine, "--json"]].concat());
    let difference: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(difference["same"], false);
    assert_eq!(difference["one"]["report"]["rule"], "error_rate > 1.5x baseline");
    assert_eq!(difference["other"]["report"]["rule"], "error_rate > 1% for 20s");
    let rule = |text: &str| {
        let rules = difference["rules"].as_array().unwrap();
        rules.iter().find(|pair| pair["rule"] == text).unwrap().clone()
    };
    assert!(rule("error_rate > 1.5x baseline")["other"].is_null());
    assert!(rule("error_rate > 1% for 20s")["one"].is_null());
    let both = rule("p95_latency > 1.2x baseline");
    assert_eq!(
        (&both["one"]["state"], &both["other"]["then"]),
        (&json!("clear"), &json!("rollback"))
    );

    let (code, text) = said(&rollgate(&[&replay[..], &["rules/recommended.yaml"]].concat()));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Nothing would have been different."), "{text}");
}

fn plan() -> Plan {
    Plan { baseline_rps: 60.0, canary_rps: 40.0, ..Scenario::Healthy.plan() }
}

/// Opens an analysis and waits for its verdict.
async fn judged(api: &Api, stage: &Stage, rules: &str) -> Value {
    let order = json!({
        "service": "shop", "rules": rules, "mechanisms": [],
        "canary": arm("v2", &[stage.canary.addr]), "baseline": arm("v1", &[stage.baseline.addr]),
    });
    let id = api.open(&order).await;
    api.verdict(&id).await;
    api.view(&id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_analysis_is_judged_again_by_its_rules_and_by_others() {
    let stage = Stage::play(plan(), 7).await.unwrap();
    let rules = [
        ("short", error_rules("{ after: 4s, deadline: 1m }")),
        ("long", error_rules("{ after: 10m, deadline: 20m }")),
        ("other", OTHER.to_owned()),
    ];
    let house = House::new(json!({}), &rules);
    let (mut server, api) = house.start().await;
    let good = judged(&api, &stage, "short").await;
    stage.canary.fault.set(Fault::Errors { share: 0.4 });
    let bad = judged(&api, &stage, "long").await;
    let store = house.path().join("rollgate.db");
    let (store, other) = (store.to_str().unwrap(), house.rule_file("other"));
    let other = other.to_str().unwrap();
    let replay = |view: &Value, more: &[&str]| {
        let id = view["id"].as_str().unwrap();
        rollgate(&[&["replay", id, "--store", store][..], more].concat())
    };

    // The service still runs: its store is only read.
    for (view, code) in [(&good, 0), (&bad, 3)] {
        let (found, text) = said(&replay(view, &[]));
        assert_eq!(found, code, "{text}");
        assert!(text.contains("bit for bit"), "{text}");
        let report: Value = serde_json::from_slice(&replay(view, &["--json"]).stdout).unwrap();
        assert_eq!(report, view["report"]);
    }
    server.terminate().await;

    // By other rules: the ratio is found under another name; what was not asked is missing.
    let report: Value =
        serde_json::from_slice(&replay(&bad, &["--rules", other, "--json"]).stdout).unwrap();
    assert_eq!(report["verdict"], "inconclusive", "{report}");
    let clauses: Vec<&Value> = (0..2).map(|rule| &report["findings"][rule]["clauses"][0]).collect();
    assert_eq!(clauses[0]["state"], "clear");
    assert_eq!(
        clauses[0]["samples"]["canary_total"],
        bad["report"]["findings"][0]["clauses"][0]["samples"]["canary_total"]
    );
    assert_eq!(clauses[1]["missing"]["why"], "not_observed");
    assert!(clauses[1]["missing"]["detail"].as_str().unwrap().contains("read no such series"));

    let (code, text) = said(&replay(&bad, &["--diff", other]));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("would have been inconclusive instead of rollback"), "{text}");

    // What cannot be, with a reason and a way out.
    let nowhere = house.path().join("nowhere.db");
    let stranger = house.rule_file("other");
    for (args, code, words) in [
        (vec!["replay", "0193", "--store", store], 2, vec!["no analysis 0193", "the newest are"]),
        (vec!["replay", "0193", "--store", nowhere.to_str().unwrap()], 2, vec!["--store"]),
        (vec!["replay", "0193", "--store", stranger.to_str().unwrap()], 2, vec!["not a SQLite"]),
        (
            vec!["replay", good["id"].as_str().unwrap(), "--store", store, "--interval", "1s"],
            2,
            vec!["--interval means nothing"],
        ),
        (vec!["replay", "tests/cases/recordings/error5"], 2, vec!["give --rules"]),
    ] {
        let (found, text) = said(&rollgate(&args));
        assert_eq!(found, code, "{args:?}: {text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{args:?} lacks {word}: {text}"));
    }
    assert!(!nowhere.exists());
}
