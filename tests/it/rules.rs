//! Rule files from outside: those that ship with the product, and what people get wrong.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::{
        observation::Health,
        rule::{
            Allowed, Better, Bound, Clause, Condition, HealthHold, Observe, Op, Otherwise, Promote,
            Scope, SignalKind, Test,
        },
    },
    rulefile,
};

pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The example file of `rules/README.md`, and a rule for each condition of its table.
pub fn readme() -> (String, Vec<String>) {
    let text = fs::read_to_string(repository("rules/README.md")).expect("the page is there");
    let (_, rest) = text.split_once("```yaml\n").expect("it holds an example");
    let (file, _) = rest.split_once("```").expect("the example ends");
    let (_, table) = text.split_once("| condition | holds when |").expect("it holds a table");
    let table = table.split("\n## ").next().unwrap_or_default();
    let conditions = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(condition, _)| condition.to_owned())
        .collect();
    (file.to_owned(), conditions)
}

#[test]
fn every_example_of_the_page_is_good() {
    let (file, conditions) = readme();
    assert!(conditions.len() >= 18, "{conditions:?}");
    if let Err(faults) = rulefile::load("README.md", &file) {
        panic!("{}", faults.render(false));
    }
    for condition in conditions {
        let text = file.replace("error_rate > 1.5x baseline", &condition);
        assert!(text.contains(&condition));
        if let Err(faults) = rulefile::load("README.md", &text) {
            panic!("{}", faults.render(false));
        }
    }
}

/// The page's examples of how a release goes on, each in the place of what its whole file says.
#[test]
fn the_page_shows_margins_and_steps_that_are_good() {
    let text = fs::read_to_string(repository("rules/README.md")).expect("the page is there");
    let (file, _) = readme();
    let (head, _) = file.split_once("promote:").expect("it promotes");
    let promotes = |block: &&str| block.split("```").next().is_some_and(|b| b.contains("promote:"));
    let blocks: Vec<&str> = text.split("```yaml\n").skip(2).filter(promotes).collect();
    assert_eq!(blocks.len(), 2);
    let read = |block: &str| {
        let (block, _) = block.split_once("```").expect("it ends");
        let file = rulefile::load("README.md", &format!("{head}{block}"));
        file.unwrap_or_else(|faults| panic!("{}", faults.render(false))).rules
    };
    let margin = read(blocks[0]).signals[0].margin.expect("a margin");
    assert_eq!((margin.factor, margin.or), (2.0, Some(0.01)));
    let stepped = read(blocks[1]);
    let steps: Vec<(f64, u64)> =
        stepped.steps.iter().map(|step| (step.weight, step.hold.as_secs())).collect();
    assert_eq!(steps, [(0.1, 300), (0.5, 600), (1.0, 3600)]);
    assert_eq!((stepped.promote.after.as_secs(), stepped.promote.deadline.as_secs()), (4500, 9000));
    assert_eq!(stepped.signals[0].margin.map(|margin| margin.factor), Some(1.5));
    assert!(stepped.signals[4].margin.is_none(), "no rule compares it");
    let (signals, _) = file.split_once("rules:").expect("it has rules");
    let (_, section) = text.split_once("\n## Lints\n").expect("it has a section");
    let (_, block) = section.split_once("```yaml\n").expect("it holds an example");
    let (allows, _) = block.split_once("```").expect("it ends");
    let text = format!("{signals}{allows}promote: {{ after: 15m }}\n");
    let allowing = rulefile::load("README.md", &text).unwrap_or_else(|faults| panic!("{faults}"));
    let warned = |lint| allowing.warnings.iter().any(|warning| warning.lint == Some(lint));
    assert!(warned("unused-signal") && !warned("rollback-on-one-check"));
}

/// The example file with one condition in place of its own.
pub fn with_condition(condition: &str) -> String {
    let (file, _) = readme();
    file.replace("error_rate > 1.5x baseline", &format!("'{condition}'"))
}

fn clause(condition: &str) -> Test {
    let read = rulefile::load("t", &with_condition(condition))
        .unwrap_or_else(|faults| panic!("{}", faults.render(false)));
    let clauses = read.rules.rules[0].when.clauses();
    assert_eq!(clauses.len(), 1, "{condition}");
    clauses[0].test
}

#[test]
fn each_form_becomes_the_test_it_stands_for() {
    let check = |condition: &str, expected: Test| {
        assert_eq!(clause(condition), expected, "{condition}");
    };
    let secs = Duration::from_secs;
    let dwell = |op, bound, hold| Test::Dwell { op, bound, hold };
    check("error_rate > 5% for 2m", dwell(Op::Above, Bound::Constant(0.05), secs(120)));
    check("error_rate>5 % for 2m", dwell(Op::Above, Bound::Constant(0.05), secs(120)));
    check("error_rate >= 0.5 for 90s", dwell(Op::AtLeast, Bound::Constant(0.5), secs(90)));
    check("error_rate > 2x baseline for 1m", dwell(Op::Above, Bound::TimesBaseline(2.0), secs(60)));
    let (times, plus) = (Bound::TimesBaseline, Bound::BaselinePlus);
    check("error_rate < 0.5 x baseline for 1m", dwell(Op::Below, times(0.5), secs(60)));
    check("error_rate > baseline + 1% for 1m", dwell(Op::Above, plus(0.01), secs(60)));
    check("p95_latency < baseline - 50ms for 1m", dwell(Op::Below, plus(-0.05), secs(60)));
    check("memory > 1KiB for 15m", dwell(Op::Above, Bound::Constant(1024.0), secs(900)));
    check("queue > -5 for 1m30s", dwell(Op::Above, Bound::Constant(-5.0), secs(90)));
    check("pool > 80% for 1m", dwell(Op::Above, Bound::Constant(0.8), secs(60)));
    check("traffic < 60/min for 1m", dwell(Op::Below, Bound::Constant(1.0), secs(60)));
    check("error_rate > 5%", Test::BeyondConstant { op: Op::Above, limit: 0.05 });
    check("error_rate <= 25%", Test::BeyondConstant { op: Op::AtMost, limit: 0.25 });
    check("p95_latency >= 1m30s", Test::BeyondConstant { op: Op::AtLeast, limit: 90.0 });
    check("traffic > 7200/h", Test::BeyondConstant { op: Op::Above, limit: 2.0 });
    let above = |allowed| Test::BeyondBaseline { op: Op::Above, allowed };
    check("error_rate > baseline + 1%", above(Allowed::Plus(0.01)));
    check("p95_latency >= baseline + 100ms", above(Allowed::Plus(0.1)));
    check("memory > baseline + 1MB", above(Allowed::Plus(1e6)));
    let lower = |amount| Test::BeyondBaseline { op: Op::Below, allowed: Allowed::Plus(amount) };
    check("hits < baseline - 5%", lower(-0.05));
    check("traffic <= baseline - 60/min", lower(-1.0));
    check("p95_latency < baseline - 20ms", lower(-0.02));
    check("p95_latency < 100ms", Test::BeyondConstant { op: Op::Below, limit: 0.1 });
    check("traffic <= 10/s", Test::BeyondConstant { op: Op::AtMost, limit: 10.0 });
    check("error_rate > 1.5x baseline", above(Allowed::Times(1.5)));
    check("p95_latency >= 1 x baseline", above(Allowed::Times(1.0)));
    let below = |margin| Test::BeyondBaseline { op: Op::Below, allowed: Allowed::Times(margin) };
    check("hits < 0.9x baseline", below(0.9));
    check("hits <= 1x baseline", below(1.0));
    check("traffic < 0.5x baseline", below(0.5));
    check("memory > 1.1x baseline", above(Allowed::Times(1.1)));
    check("memory > 2GB", Test::BeyondConstant { op: Op::Above, limit: 2e9 });
    check("pool <= 5%", Test::BeyondConstant { op: Op::AtMost, limit: 0.05 });
    check("queue > -5", Test::BeyondConstant { op: Op::Above, limit: -5.0 });
    let slope = |op, bound| Test::Slope { op, bound };
    check("slope(memory) > 60MB/min", slope(Op::Above, Bound::Constant(1e6)));
    check("slope( memory ) >= baseline + 3.6GB/h", slope(Op::AtLeast, Bound::BaselinePlus(1e6)));
    check("slope(pool) > 6 % / min", slope(Op::Above, Bound::Constant(0.001)));
    check("slope(queue) < baseline - 60/min", slope(Op::Below, Bound::BaselinePlus(-1.0)));
    check("slope(queue) < -120/min", slope(Op::Below, Bound::Constant(-2.0)));
    check("restarts >= 1", Test::Counted { op: Op::AtLeast, limit: 1.0 });
    check("log_errors > 10", Test::Counted { op: Op::Above, limit: 10.0 });
    let health = |status, hold| Test::HealthIs { status, hold };
    check("app is down", health(Health::Down, HealthHold::Checks(1)));
    check("app is down for 3 checks", health(Health::Down, HealthHold::Checks(3)));
    check("app is degraded for 30s", health(Health::Degraded, HealthHold::For(secs(30))));
    check("auth is up for 1 check", health(Health::Up, HealthHold::Checks(1)));
    let (op, hold) = (Op::Above, secs(60));
    check("latency(app) > 500ms for 1m", Test::HealthLatency { op, limit_secs: 0.5, hold });
    check("latency(app) > 500ms", Test::BeyondConstant { op, limit: 0.5 });
    check("latency(app) > 2x baseline", Test::BeyondBaseline { op, allowed: Allowed::Times(2.0) });
    check("latency(app) > 2x baseline for 1m", dwell(op, Bound::TimesBaseline(2.0), hold));
    check("instances_up < 100% for 1m", dwell(Op::Below, Bound::Constant(1.0), hold));
    check("instances_up < 0.5", Test::BeyondConstant { op: Op::Below, limit: 0.5 });
    check("field(app, connections) > 100", Test::BeyondConstant { op, limit: 100.0 });
    check("field( app ,db.p99_ms )>2s for 1m", dwell(op, Bound::Constant(2000.0), hold));
    check("field(app, used_bytes) > 1KiB for 1m", dwell(op, Bound::Constant(1024.0), hold));
    check(
        "field(app, \"a.b\"[0]) > 1.5x baseline",
        Test::BeyondBaseline { op, allowed: Allowed::Times(1.5) },
    );
    check("slope(field(app, connections)) > 60/min", slope(Op::Above, Bound::Constant(1.0)));
    check("slope(latency(app)) > 6s/h", slope(Op::Above, Bound::Constant(6.0 / 3600.0)));
    check("auth is up for 5m", health(Health::Up, HealthHold::For(secs(300))));
}

#[test]
fn a_clause_is_asked_of_the_arm_or_of_most_instances() {
    let scope = |condition: &str| {
        let read = rulefile::load("t", &with_condition(condition))
            .unwrap_or_else(|faults| panic!("{}", faults.render(false)));
        read.rules.rules[0].when.clauses()[0].scope
    };
    for condition in [
        "error_rate > 5% on most instances for 2m",
        "error_rate > 1.5x baseline on most instances",
        "p95_latency > 2s on most instances",
        "slope(memory) > baseline + 1MB/min on most instances",
        "(pool > 80% on most instances) or traffic > 1/s",
    ] {
        assert_eq!(scope(condition), Scope::MostInstances, "{condition}");
    }
    assert_eq!(scope("error_rate > 5%"), Scope::Arm);
}

#[test]
fn direction_limit_and_optional_are_read() {
    let (file, _) = readme();
    let read = rulefile::load("t", &file).expect("it is good");
    let signal = |name: &str| {
        let found = read.rules.signals.iter().find(|signal| signal.name == name);
        found.expect("it is a signal").clone()
    };
    assert_eq!(signal("hits").better, Better::Higher);
    assert_eq!(signal("error_rate").better, Better::Lower);
    assert_eq!(signal("memory").kind, SignalKind::Gauge { limit: Some(536_870_912.0) });
    assert_eq!(signal("pool").kind, SignalKind::Gauge { limit: Some(1.0) });
    assert_eq!(signal("queue").kind, SignalKind::Gauge { limit: None });
    assert!(!signal("memory").optional);
    let text = file.replace("limit: 512MiB", "optional: true");
    let read = rulefile::load("t", &text).expect("it is good");
    assert!(read.rules.signals.iter().any(|signal| signal.name == "memory" && signal.optional));
}

#[test]
fn and_binds_tighter_than_or() {
    let shape = |condition: &str| {
        let read = rulefile::load("t", &with_condition(condition)).expect("it is good");
        drawn(&read.rules.rules[0].when)
    };
    let (a, b, c) = ("app is up", "app is down", "auth is up");
    assert_eq!(shape(&format!("{a} or {b} and {c}")), format!("({a} | ({b} & {c}))"));
    assert_eq!(shape(&format!("({a} or {b}) and {c}")), format!("(({a} | {b}) & {c})"));
    assert_eq!(shape(&format!("not {a} and {b}")), format!("(!{a} & {b})"));
    assert_eq!(shape(&format!("not ({a} and {b})")), format!("!({a} & {b})"));
}

fn drawn(condition: &Condition) -> String {
    let join = |parts: &[Condition], word: &str| {
        format!("({})", parts.iter().map(drawn).collect::<Vec<_>>().join(word))
    };
    match condition {
        Condition::Clause(clause) => clause.text.clone(),
        Condition::And(parts) => join(parts, " & "),
        Condition::Or(parts) => join(parts, " | "),
        Condition::Not(part) => format!("!{}", drawn(part)),
    }
}

#[test]
fn defaults_and_options_are_read() {
    let text = "version: 1\nservice: s\nsignals:\n  a: { health: /h }\n  \
                b: { ratio: 'x_total{c=\"1\"} / x_total' }\nrules:\n  - { when: a is down, then: rollback, \
                runbook: 'https://w/1' }\npromote: { after: 10m }\n";
    let read = rulefile::load("t", text).expect("it is good");
    let secs = Duration::from_secs;
    let (interval, window, warmup) = (secs(5), secs(60), secs(30));
    assert_eq!(read.rules.observe, Observe { interval, window, warmup });
    assert_eq!(read.rules.false_rollback_rate, 0.001);
    let (after, deadline, otherwise) = (secs(600), secs(1200), Otherwise::Hold);
    assert_eq!(
        read.rules.promote,
        Promote { after, deadline, otherwise, false_promotion_rate: 0.05 }
    );
    assert_eq!(read.rules.signals[1].kind, SignalKind::Ratio { floor: 0.001 });
    assert_eq!(read.rules.rules[0].reason.as_deref(), Some("see https://w/1"));
    assert_eq!(read.specs.len(), 2);
    assert_eq!(read.text, text);
    assert_eq!(read.sha256.len(), 64);
    let other = rulefile::load("t", &format!("{text}# more\n")).expect("it is good");
    assert_ne!(read.sha256, other.sha256);
}

#[test]
fn limits_are_reached() {
    let check = |clauses: usize, signals: usize, rules: usize, good: bool| {
        let mut text = "version: 1\nservice: s\nsignals:\n".to_owned();
        (0..signals).for_each(|n| text.push_str(&format!("  s{n}: {{ health: /h }}\n")));
        text.push_str("rules:\n");
        let condition = vec!["s0 is up"; clauses].join(" and ");
        (0..rules).for_each(|_| text.push_str(&format!("  - {{ when: {condition}, then: ok }}\n")));
        text.push_str("promote: { after: 1m }\n");
        let read = rulefile::load("t", &text);
        assert_eq!(read.is_ok(), good, "{clauses} clauses, {signals} signals, {rules} rules");
    };
    check(32, 64, 64, true);
    check(33, 64, 64, false);
    check(32, 65, 64, false);
    check(32, 64, 65, false);
    check(1, 1, 0, false);
}

/// Files and conditions with random damage: never a panic, always in time, and what is refused
/// has a place inside the text.
#[test]
fn damaged_files_never_panic() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let whole =
        [readme().0, fs::read_to_string(repository("rules/recommended.yaml")).expect("text")];
    let pieces = [
        "{", "}", "[", "]", "'", "\"", "\\", ": ", "- ", "#", "&a", "*a", "!t", "|", ">", "%",
        "\n", "\t", " ", "or", "and", "not", "for", "is", "x", "baseline", "5%", "1m", "1e9", "(",
        ")", "é", "\u{0}", "\u{feff}", "🚀", "\r\n", "---\n", "'", "''", "\\u00e9", "=~", "{$arm}",
        "/",
    ];
    let begun = Instant::now();
    for round in 0..1500 {
        let mut text = whole[round % 2].clone();
        for _ in 0..random.random_range(1..6) {
            let mut at = random.random_range(0..=text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let end =
                text[at..].char_indices().nth(random.random_range(1..12)).map(|(n, _)| at + n);
            let piece = pieces[random.random_range(0..pieces.len())];
            match (random.random_range(0..3), end) {
                (0, Some(end)) => text.replace_range(at..end, ""),
                (1, Some(end)) => text.replace_range(at..end, piece),
                _ => text.insert_str(at, piece),
            }
        }
        if let Err(faults) = rulefile::load("t", &text) {
            assert!(faults.count() > 0 && !faults.render(false).is_empty());
            for fault in &faults {
                let inside = fault.span.start <= fault.span.end && fault.span.end <= text.len();
                assert!(
                    inside && fault.line > 0 && fault.column > 0,
                    "seed {seed}: {fault:?}\n{text}"
                );
                assert!(!fault.message.is_empty() && !fault.expected.is_empty(), "seed {seed}");
            }
        }
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(60), "seed {seed}: {took:?}");
}

/// A random condition, printed, is read back as itself.
#[test]
fn printed_conditions_are_read_back() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let (file, _) = readme();
    let signals: Vec<String> =
        rulefile::load("t", &file).expect("it is good").specs.into_iter().map(|s| s.name).collect();
    for _ in 0..300 {
        let (text, expected) = random_condition(&mut random, &signals, 3);
        let read = rulefile::load("t", &with_condition(&text))
            .unwrap_or_else(|faults| panic!("seed {seed}: {}", faults.render(false)));
        assert_eq!(drawn(&read.rules.rules[0].when), drawn(&expected), "seed {seed}: {text}");
        let tests = |condition: &Condition| -> Vec<(usize, Test)> {
            condition.clauses().iter().map(|clause| (clause.signal, clause.test)).collect()
        };
        assert_eq!(tests(&read.rules.rules[0].when), tests(&expected), "seed {seed}: {text}");
    }
}

pub(crate) fn random_condition(
    random: &mut StdRng,
    signals: &[String],
    depth: u32,
) -> (String, Condition) {
    let kind = if depth == 0 { 0 } else { random.random_range(0..5) };
    if kind < 2 {
        let (text, name, test) = random_clause(random);
        let signal = signals.iter().position(|known| known == name).expect("it is a signal");
        return (text.clone(), Condition::Clause(Clause { text, signal, test, scope: Scope::Arm }));
    }
    if kind == 2 {
        // Only what one look decides can be turned round.
        let (text, name) = ("app is degraded".to_owned(), "app");
        let signal = signals.iter().position(|known| known == name).expect("it is a signal");
        let test = Test::HealthIs { status: Health::Degraded, hold: HealthHold::Checks(1) };
        let part =
            Condition::Clause(Clause { text: text.clone(), signal, test, scope: Scope::Arm });
        return (format!("not ({text})"), Condition::Not(Box::new(part)));
    }
    let count = random.random_range(2..4);
    let (texts, parts): (Vec<String>, Vec<Condition>) =
        (0..count).map(|_| random_condition(random, signals, depth - 1)).unzip();
    let texts: Vec<String> = texts.into_iter().map(|text| format!("({text})")).collect();
    if kind == 3 {
        (texts.join(" and "), Condition::And(parts))
    } else {
        (texts.join(" or "), Condition::Or(parts))
    }
}

fn random_clause(random: &mut StdRng) -> (String, &'static str, Test) {
    let op = [Op::Above, Op::AtLeast, Op::Below, Op::AtMost][random.random_range(0..4)];
    let up = [Op::Above, Op::AtLeast][random.random_range(0..2)];
    let n: u32 = random.random_range(1..90);
    let value = f64::from(n);
    let hold = Duration::from_secs(random.random_range(1..900));
    let held = rulefile::duration_text(hold);
    let status = [Health::Up, Health::Degraded, Health::Down][random.random_range(0..3)];
    match random.random_range(0..14) {
        9 => {
            let bound = Bound::BaselinePlus(value * 1e6 / 60.0);
            (
                format!("slope(memory) {op} baseline + {n}MB/min"),
                "memory",
                Test::Slope { op, bound },
            )
        }
        12 => {
            let allowed = Allowed::Plus(value * 0.01);
            let test = Test::BeyondBaseline { op: Op::Above, allowed };
            (format!("error_rate {up} baseline + {n}%"), "error_rate", test)
        }
        13 => {
            let test = Test::BeyondConstant { op, limit: value };
            (format!("traffic {op} {n}/s"), "traffic", test)
        }
        10 => {
            let test = Test::BeyondConstant { op, limit: value * 0.01 };
            (format!("pool {op} {n}%"), "pool", test)
        }
        11 => {
            let factor = format!("0.{n:02}");
            let margin = factor.parse().expect("a number");
            let allowed = Allowed::Times(margin);
            let test = Test::BeyondBaseline { op: Op::Below, allowed };
            (format!("hits < {factor}x baseline"), "hits", test)
        }
        0 => {
            let bound = Bound::Constant(value * 0.01);
            (
                format!("error_rate {op} {n}% for {held}"),
                "error_rate",
                Test::Dwell { op, bound, hold },
            )
        }
        1 => {
            let test = Test::BeyondConstant { op: up, limit: value * 0.001 };
            (format!("p95_latency {up} {n}ms"), "p95_latency", test)
        }
        2 => {
            let allowed = Allowed::Times(value);
            let test = Test::BeyondBaseline { op: Op::Above, allowed };
            (format!("error_rate {up} {n}x baseline"), "error_rate", test)
        }
        3 => {
            let bound = Bound::BaselinePlus(-value * 1e6);
            let test = Test::Dwell { op, bound, hold };
            (format!("memory {op} baseline - {n}MB for {held}"), "memory", test)
        }
        4 => {
            let test = Test::Dwell { op, bound: Bound::TimesBaseline(value), hold };
            (format!("traffic {op} {n}x baseline for {held}"), "traffic", test)
        }
        5 => {
            let test = Test::Counted { op, limit: value };
            (format!("restarts {op} {n}"), "restarts", test)
        }
        6 => {
            let test = Test::HealthIs { status, hold: HealthHold::Checks(n) };
            (format!("app is {status} for {n} checks"), "app", test)
        }
        7 => {
            let test = Test::HealthIs { status, hold: HealthHold::For(hold) };
            (format!("auth is {status} for {held}"), "auth", test)
        }
        _ => {
            let test = Test::HealthLatency { op, limit_secs: value, hold };
            (format!("latency(app) {op} {n}s for {held}"), "app", test)
        }
    }
}

/// The seed of a random test: given by `SEED`, or new, and printed for when the test fails.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("SEED={seed}");
    seed
}
