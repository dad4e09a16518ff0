//! The rule files that ship, and the tables of `rules/README.md` that say how five runbooks became
//! five of them: each row is true of its file, and neither a rule nor a trigger is left out.

use std::{fs, path::Path, process::Command};

use rollgate::{
    engine::rule::Action,
    rulefile::{self, RuleFile},
    signal::{sample::Labels, spec::Reads},
};

/// The runbooks with their rule files, and the sentences of each that have to become a rule.
const RUNBOOKS: [(&str, &str, &[&str]); 5] = [
    (
        "000_1b3df3ccb806d67f.txt",
        "pg-neo-graph-rl.yaml",
        &[
            "Error rate > 5%: Consider rollback",
            "P95 latency > 2x baseline: Investigate",
            "Memory usage > 85%: Scale or rollback",
            "Agent performance drop > 20%: Review changes",
            "rate(http_requests_total{status=~\"5..\"}[5m])",
            "histogram_quantile(0.95, rate(http_request_duration_seconds_bucket[5m]))",
            "rate(agent_reward_total[5m])",
            "container_memory_usage_bytes / container_spec_memory_limit_bytes > 0.8",
            "query=up{job='pg-neo-graph-rl'}",
            "curl -f http://localhost:8000/health/detailed",
            "Monitor metrics for 10 minutes",
            "Watch dashboards for 30 minutes",
            "Stop deployment if critical errors detected",
            "Prepare rollback if no improvement",
            "Execute full rollback",
        ],
    ),
    (
        "001_11ac0b370b482bd7.txt",
        "deia-bot-controller.yaml",
        &[
            "Error rate >5% for >5 min",
            "Response time P95 >5 seconds",
            "Application crashes",
            "Database unreachable",
            "Memory leak (>100MB/min)",
            "Error rate 1-5% for <5 min",
            "Response time P95 2-5 seconds",
            "Single error in logs",
            "Memory usage increased 10%",
            "Expected: HTTP 200, JSON response with \"status\": \"healthy\"",
            "Expected: HTTP 200, database latency <50ms",
            "Expected: Request count increasing (traffic flowing)",
            "Check error rate is low (<0.5%)",
            "Check database connections stable",
            "Error logs clean: No new error patterns",
            "Performance metrics: Response times P95 <1.5s",
            "Database queries: Average query time <50ms",
            "Memory usage: Stable, not growing",
            "No memory leaks: Memory usage stable",
            "No connection leaks: Connection pool stable",
            "Error rate steady: Consistent with baseline",
        ],
    ),
    (
        "002_8bcb82f5e631c33f.txt",
        "app.yaml",
        &[
            "error_rate_threshold: 5%",
            "response_time_threshold: 2000ms",
            "health_check_failures: 3",
            "monitoring_duration: 10m",
            "setWeight: 10",
            "pause: {duration: 5m}",
            "setWeight: 50",
            "pause: {duration: 10m}",
            "setWeight: 100",
            "curl -f http://app.domain.com/health",
            "curl -f http://app.domain.com/health/database",
            "curl -f http://app.domain.com/health/dependencies",
            "Application metrics reporting",
            "Error rates within normal range",
            "Response times acceptable",
            "Resource utilization normal",
            "Business metrics tracking",
        ],
    ),
    (
        "003_d6b2f0b42435f966.txt",
        "adaptive-learning.yaml",
        &[
            "Health checks fail",
            "Error rate > 5% for 2 minutes",
            "Response time P95 > 2 seconds for 5 minutes",
            "Any critical service unavailable",
            "Monitor metrics for 15 minutes",
            "Request rate and error rate",
            "Response time percentiles",
            "Active user sessions",
            "Database connection pool usage",
            "CPU and memory usage",
            "Network I/O",
            "Disk usage",
            "Pod restart count",
            "User login success rate",
            "Practice session completion rate",
            "ML model prediction accuracy",
        ],
    ),
    (
        "004_10624713f743a37c.txt",
        "release-manager.yaml",
        &[
            "Deploy using canary strategy (10% → 50% → 100%)",
            "Pod Health (0-2 minutes)",
            "API Endpoint Health (2-5 minutes)",
            "Error rate: prometheus query 'rate(errors_total[5m])'",
            "Response time: p99 < 500ms",
            "Database connections: < 80 of max pool",
            "Memory usage: < 70% of allocated",
            "\"checks\": { \"database\": \"ok\", \"cache\": \"ok\", \"message_queue\": \"ok\" }",
            "release_manager_requests_total - Total request count",
            "release_manager_request_duration_seconds - Request latency",
            "release_manager_errors_total - Error count by type",
            "release_manager_db_connections_active - Active database connections",
            "monitor the application continuously for 1 hour",
            "P99 latency should not exceed 500ms",
            "Error rate should be < 0.1% of total requests",
            "Cache hit rate should exceed 85%",
            "Database query time p99 < 100ms",
            "level:ERROR service:release-manager",
            "level:WARN service:release-manager",
        ],
    ),
];

/// How a row begins that nothing became of.
const NOT_OBSERVED: &str = "Not observed: ";

/// A row of a table of the page.
struct Row {
    /// Where the runbook says it.
    sections: Vec<String>,
    /// What it says, in pieces.
    says: Vec<String>,
    /// What the rule file says, or why it says nothing.
    becomes: String,
}

impl Row {
    fn is_observed(&self) -> bool {
        !self.becomes.starts_with(NOT_OBSERVED)
    }

    /// What stands between backticks, each with the word that follows it.
    fn spans(&self) -> Vec<(&str, &str)> {
        let pieces: Vec<&str> = self.becomes.split('`').collect();
        assert_eq!(pieces.len() % 2, 1, "a backtick is not closed: {}", self.becomes);
        let word = |text: &'_ str| text.split_whitespace().next().map_or(0, str::len);
        let pairs = pieces[1..].chunks(2);
        pairs.map(|pair| (pair[0], pair[1].trim_start())).map(|(s, t)| (s, &t[..word(t)])).collect()
    }
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn load(file: &str) -> RuleFile {
    let read = rulefile::load(file, &read(&format!("rules/{file}")));
    read.unwrap_or_else(|faults| panic!("{}", faults.render(false)))
}

/// Text without markup, and with single blanks.
fn plain(text: &str) -> String {
    let bare: String = text.chars().filter(|c| !"*`#".contains(*c)).collect();
    bare.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The rows of one rule file's table.
fn rows(file: &str) -> Vec<Row> {
    let page = read("rules/README.md");
    let (_, rest) = page.split_once(&format!("\n### {file}\n")).expect("the page has a table");
    let table = rest.split("\n#").next().unwrap_or(rest);
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [section, says, becomes] = cells[..] else { panic!("three cells: {line}") };
        let sections = section.split(';').map(plain).collect();
        let says = says.split(" … ").map(plain).collect();
        Row { sections, says, becomes: becomes.to_owned() }
    })
    .collect()
}

/// Every rule file of the directory, and not their tests.
fn shipped() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.into_string().unwrap());
    names.filter(|name| name.ends_with(".yaml") && !name.ends_with(".test.yaml")).collect()
}

#[test]
fn the_rule_files_that_ship_are_good_and_free_of_warnings() {
    let shipped = shipped();
    assert!(shipped.len() >= 7, "{shipped:?}");
    let page = read("rules/README.md");
    for file in shipped {
        let warnings = load(&file).warnings;
        assert!(warnings.is_empty(), "{file}: {warnings:?}");
        assert!(page.contains(&format!("| `{file}` |")), "the page does not tell of {file}");
    }
}

/// As CI runs them: every rule is driven to firing and to clear.
#[test]
fn the_rule_files_that_ship_do_what_their_tests_say() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    for file in shipped() {
        let tests = rules.join(file.replace(".yaml", ".test.yaml"));
        assert!(tests.exists(), "{file} has no tests");
    }
    let command = Command::new(env!("CARGO_BIN_EXE_rollgate"))
        .args(["test", "--require-coverage"])
        .arg(&rules)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&command.stdout);
    let faults = String::from_utf8_lossy(&command.stderr);
    assert!(command.status.success(), "{said}{faults}");
}

#[test]
fn every_row_is_true_of_its_rule_file() {
    for (_, file, _) in RUNBOOKS {
        let text = plain(&read(&format!("rules/{file}")));
        let rules = load(file).rules.rules;
        let rows = rows(file);
        assert!(rows.len() >= 20, "{file}: {} rows", rows.len());
        for row in rows.iter().filter(|row| row.is_observed()) {
            assert!(
                !row.spans().is_empty(),
                "{file}: neither a rule nor a reason: {}",
                row.becomes
            );
            for (span, word) in row.spans() {
                assert!(text.contains(&plain(span)), "{file} does not say `{span}`");
                let then = match word.trim_matches([',', ';', ':']) {
                    "rollback" => Action::Rollback,
                    "investigate" => Action::Investigate,
                    "ok" => Action::Ok,
                    _ => continue,
                };
                let leads = rules.iter().any(|rule| rule.text == span && rule.then == then);
                assert!(leads, "{file}: no rule `{span}` leads to {then}");
            }
        }
    }
}

#[test]
fn every_rule_of_a_runbook_stands_in_its_table() {
    for (_, file, _) in RUNBOOKS {
        let rows = rows(file);
        for rule in load(file).rules.rules {
            let named = |row: &Row| row.spans().iter().any(|(span, _)| *span == rule.text);
            assert!(
                rows.iter().any(|row| row.is_observed() && named(row)),
                "{file}: the table lacks `{}`",
                rule.text
            );
        }
    }
}

#[test]
fn every_trigger_of_a_runbook_became_a_rule() {
    for (_, file, sentences) in RUNBOOKS {
        let rows = rows(file);
        for sentence in sentences {
            let says = |row: &Row| row.says.iter().any(|piece| piece == sentence);
            assert!(
                rows.iter().any(|row| row.is_observed() && says(row)),
                "{file}: nothing became of {sentence:?}"
            );
        }
    }
}

/// The runbooks are not part of the repository.
#[test]
fn the_tables_quote_the_runbooks_word_for_word() {
    for (runbook, file, _) in RUNBOOKS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/runbooks").join(runbook);
        let Ok(text) = fs::read_to_string(&path) else {
            assert!(std::env::var_os("CI").is_none(), "{} must be there in CI", path.display());
            eprintln!("not checked: {} is absent", path.display());
            continue;
        };
        let text = plain(&text);
        let rows = rows(file);
        for piece in rows.iter().flat_map(|row| row.sections.iter().chain(&row.says)) {
            assert!(text.contains(piece.as_str()), "{runbook} does not say {piece:?}");
        }
    }
}

/// The recommended file reads every naming convention it promises, and only failures as events.
#[test]
fn the_recommended_file_knows_the_common_names() {
    let text = read("rules/recommended.yaml");
    let read = rulefile::load("recommended.yaml", &text).expect("it is good");
    let Reads::Ratio { events, total } = &read.specs[0].reads else {
        panic!("the first signal is the error share");
    };
    let check = |name: &str, label: &str, value: &str, is_event: bool| {
        let labels =
            Labels::new(vec![(label.into(), value.into()), ("method".into(), "GET".into())]);
        assert_eq!(events.matches(name, &labels), is_event, "{name}{{{label}={value}}}");
        assert!(total.matches(name, &labels), "{name}");
    };
    for label in ["status", "code", "status_code"] {
        check("http_requests_total", label, "503", true);
        check("http_requests_total", label, "200", false);
        check("http_requests_total", label, "5030", false);
    }
    check("http_server_requests_seconds_count", "status", "500", true);
    let otel = "http_server_request_duration_seconds_count";
    check(otel, "http_response_status_code", "500", true);
    check(otel, "http_response_status_code", "404", false);
    assert_eq!(events.names(), total.names(), "both sides prefer the same names");
}
