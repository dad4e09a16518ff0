//! Rule files made to cost much: each is refused in about the time that a good one is read in.

use std::{
    fs,
    time::{Duration, Instant},
};

use rollgate::rulefile;

use crate::rules;

/// A bomb may take as long as so many readings of the recommended file, on the same machine in the
/// same minute: a few hundred KiB of text against five. One reading takes some hundred microseconds.
const GOOD_FILES_MAX: u32 = 400;

/// The least of three times, which a busy machine disturbs least.
fn fastest(run: impl Fn()) -> Duration {
    let once = || {
        let begun = Instant::now();
        run();
        begun.elapsed()
    };
    (0..3).map(|_| once()).min().expect("there are three")
}

#[test]
fn bombs_are_refused_in_milliseconds() {
    let recommended = rules::repository("rules/recommended.yaml");
    let recommended = fs::read_to_string(recommended).expect("it is there");
    let good = fastest(|| assert!(rulefile::load("good", &recommended).is_ok()));
    let anchors: String = (1..=9)
        .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(",")))
        .collect();
    let regexes: String = (0..60)
        .map(|n| format!("  s{n}: {{ rate: 'a{{x=~\"(\\\\pL{{900}}){{900}}\"}}' }}\n"))
        .collect();
    let costly: String = (0..60)
        .map(|n| format!("  s{n}: {{ rate: 'a{{x=~\"\\\\pL{{2}}\",y=~\"\\\\w{{3}}\"}}' }}\n"))
        .collect();
    let signal = |text: &str| format!("version: 1\nservice: s\nsignals:\n  a: {{ {text} }}\n");
    let flat: String = (0..20_000).map(|n| format!("k{n}: 1\n")).collect();
    let braces = format!("version: 1\nservice: {}\n", "{".repeat(200_000));
    let folded = format!("service: >\n{}", "  word\n".repeat(30_000));
    let bombs = [
        ("aliases", format!("a0: &a0 [x]\n{anchors}")),
        ("flow nesting", "[".repeat(200_000)),
        ("map nesting", "{a: ".repeat(60_000)),
        ("block nesting", (0..600).map(|n| format!("{}a:\n", " ".repeat(n))).collect()),
        ("dashes", "- ".repeat(100_000)),
        ("question marks", "? ".repeat(100_000)),
        ("ten megabytes", "# comment\n".repeat(1 << 20)),
        ("one long line", format!("version: {}", "1".repeat(250_000))),
        ("entries", flat),
        ("a million entries", "k: 1\n".repeat(1_000_000)),
        ("templates", braces),
        ("folded text", folded),
        ("escapes", format!("service: \"{}\"", "\\u00e9".repeat(40_000))),
        ("repeated groups", signal("rate: 'a{x=~\"(a+)+$\",y=~\"((a{50}){50}){50}\"}'")),
        ("durations", rules::with_condition(&format!("app is down for {}", "1m1s".repeat(500)))),
        ("quotes", "'".repeat(250_000)),
        ("regexes", format!("version: 1\nservice: s\nsignals:\n{regexes}rules: []\n")),
        ("signs", signal(&format!("rate: '{}a'", "-".repeat(4000)))),
        ("operators", signal(&format!("rate: '{}'", vec!["a"; 1300].join("+")))),
        ("matchers", signal(&format!("rate: 'a{{{}}}[1m]'", vec!["b=\"1\""; 580].join(",")))),
        ("calls", signal(&format!("promql: '{}$arm'", "abs(".repeat(900)))),
        ("costly regexes", format!("version: 1\nservice: s\nsignals:\n{costly}rules: []\n")),
        ("parentheses", rules::with_condition(&"(".repeat(100_000))),
        ("nots", rules::with_condition(&"not ".repeat(50_000))),
        ("clauses", rules::with_condition(&vec!["app is up"; 20_000].join(" or "))),
    ];
    for (name, text) in bombs {
        let took = fastest(|| {
            let faults = rulefile::load("bomb", &text).expect_err(name);
            let rendered = faults.render(false);
            assert!(rendered.len() < 100_000, "{name}: {} bytes said", rendered.len());
        });
        println!("{name}: {took:?}, {:.1} good files", took.as_secs_f64() / good.as_secs_f64());
        assert!(took < GOOD_FILES_MAX * good, "{name} took {took:?}, and a good file {good:?}");
    }
}
