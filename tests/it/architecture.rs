//! The shape of the sources: who may import whom, what the engine must not touch, a head on every
//! file, and no file longer than a reader can hold.
//!
//! A checker that is never seen to fail proves nothing, so the same functions are also run over
//! planted violations, each of which has to be named.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines a file may have.
const LINES_MAX: usize = 600;

/// Which modules a module may import, besides itself.
const TABLE: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("signal", &["engine"]),
    ("rulefile", &["engine", "signal"]),
    ("telemetry", &["engine"]),
    ("outward", &["engine", "telemetry"]),
    ("kubernetes", &["telemetry", "outward"]),
    ("report", &["engine"]),
    ("ruletest", &["engine", "signal", "rulefile", "report"]),
    ("source", &["engine", "signal", "telemetry", "outward", "kubernetes"]),
    ("store", &["engine", "signal"]),
    ("deliver", &["engine", "report", "telemetry", "outward", "kubernetes"]),
    ("api", &["engine", "signal", "report", "telemetry"]),
    ("hook", &["engine", "deliver", "telemetry", "api"]),
    (
        "config",
        &["engine", "api", "deliver", "source", "telemetry", "outward", "kubernetes", "hook"],
    ),
    (
        "service",
        &[
            "engine",
            "signal",
            "rulefile",
            "telemetry",
            "report",
            "source",
            "store",
            "deliver",
            "outward",
            "kubernetes",
            "api",
            "config",
        ],
    ),
    ("demo", &["telemetry"]),
    ("simulation", &["engine"]),
    ("chart", &[]),
    (
        "backtest",
        &["engine", "signal", "rulefile", "telemetry", "report", "source", "service", "simulation"],
    ),
    (
        "cli",
        &[
            "backtest",
            "engine",
            "signal",
            "rulefile",
            "ruletest",
            "telemetry",
            "report",
            "source",
            "store",
            "deliver",
            "outward",
            "kubernetes",
            "api",
            "config",
            "service",
            "simulation",
            "chart",
            "demo",
            "hook",
        ],
    ),
];

/// Crates that only compute, which the engine may use.
const PURE_CRATES: &[&str] = &["statrs", "thiserror"];

/// Parts of `std` through which the outside reaches in or out.
const IMPURE_STD: &[&str] = &["fs", "net", "io", "env", "process", "thread", "os", "random"];

/// Words that make code impure wherever they stand. Hash maps are among them because they are
/// walked in another order in every process.
const IMPURE_WORDS: &[&str] = &[
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "async",
    "await",
    "print",
    "println",
    "eprint",
    "eprintln",
    "dbg",
];

#[test]
fn the_sources_keep_to_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = dependencies(&fs::read_to_string(root.join("Cargo.toml")).unwrap());
    let mut files = 0;
    let mut faults = Vec::new();
    for folder in ["analyzer", "tests", "benches"] {
        for path in sources(&root.join(folder)) {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            faults.extend(check(&name, &fs::read_to_string(&path).unwrap(), &crates));
            files += 1;
        }
    }
    assert!(files > 100, "only {files} files were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_table_names_every_module_and_has_no_circle() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("analyzer/lib.rs");
    let text = fs::read_to_string(library).unwrap();
    let mut modules: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut named: Vec<&str> = TABLE.iter().map(|(module, _)| *module).collect();
    modules.sort_unstable();
    named.sort_unstable();
    assert_eq!(modules, named);

    // A module whose imports are all settled is settled; a circle would leave some that never are.
    let mut settled: Vec<&str> = Vec::new();
    while settled.len() < TABLE.len() {
        let next = TABLE.iter().find(|(module, imports)| {
            !settled.contains(module) && imports.iter().all(|import| settled.contains(import))
        });
        settled.push(next.unwrap_or_else(|| panic!("a circle beyond {settled:?}")).0);
    }
}

#[test]
fn planted_violations_are_named() {
    let caught = |path: &str, text: &str, expected: &str| {
        let crates = vec!["tokio".to_owned(), "serde_json".to_owned(), "rand".to_owned()];
        let faults = check(path, &format!("//! Head.\n{text}"), &crates);
        assert!(
            faults.len() == 1 && faults[0].contains(expected),
            "{text:?} in {path} gave {faults:?}, expected one with {expected:?}"
        );
    };
    caught("analyzer/engine/a.rs", "use crate::signal::sample;", "engine imports signal");
    caught("analyzer/source/a.rs", "use crate::{engine::rule, store::Store};", "imports store");
    caught(
        "analyzer/api/a.rs",
        "use crate::{\n  report::{a, b},\n  deliver::c};",
        "imports deliver",
    );
    caught("analyzer/deliver/a.rs", "fn a() { crate::api::b(); }", "deliver imports api");
    caught("analyzer/demo/a.rs", "type A = Vec<crate::engine::rule::Rule>;", "demo imports engine");
    caught("analyzer/report/mod.rs", "use super::api;", "climbs");
    caught("analyzer/engine/a.rs", "use super::super::store;", "climbs");
    caught("analyzer/service/a.rs", "use crate::cli::main;", "service imports cli");
    caught("analyzer/novel/a.rs", "", "novel is not in the table");
    caught("analyzer/engine/a.rs", "use std::time::Instant;", "Instant");
    caught("analyzer/engine/a.rs", "use std::{fmt, time::{Duration, SystemTime}};", "SystemTime");
    caught("analyzer/engine/a.rs", "use std::{fmt, fs};", "std::fs");
    caught("analyzer/engine/a.rs", "fn a() { std::env::var(\"A\"); }", "std::env");
    caught("analyzer/engine/a.rs", "fn a() { println!(\"a\"); }", "println");
    caught("analyzer/engine/a.rs", "use rand::Rng;", "rand");
    caught("analyzer/engine/a.rs", "use serde_json as json;", "serde_json");
    caught("analyzer/engine/a.rs", "async fn a() {}", "async");
    caught("analyzer/engine/a.rs", "use std::collections::HashMap;", "HashMap");
    caught("analyzer/store/a.rs", &"\n".repeat(LINES_MAX), "601 lines");
    let headless = check("benches/a.rs", "use std::fs;", &[]);
    assert!(headless.len() == 1 && headless[0].contains("does not open with `//!`"));
}

#[test]
fn words_in_comments_and_texts_are_not_imports() {
    for text in [
        "// crate::store is not for us, nor println.",
        "/* async, crate::api::x */ fn a() {}",
        "const A: &str = \"crate::store::b \\\" println\";",
        "const A: &str = r#\"crate::\"store::b\"#;",
        "const A: (char, char) = ('\"', '\\''); // crate::api",
        "use super::rule::Rule; use crate::engine::verdict;",
        "#[cfg(test)] mod tests { use super::super::rule; }",
    ] {
        let faults = check("analyzer/engine/a.rs", &format!("//! Head.\n{text}"), &[]);
        assert!(faults.is_empty(), "{text:?} gave {faults:?}");
    }
}

/// Every Rust file under a folder.
pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Names of all crates the package depends on, as code spells them.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies]");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| inside) {
            names.push(name.trim().replace('-', "_"));
        }
    }
    assert!(names.iter().any(|name| name == "tokio"), "the manifest is read wrongly: {names:?}");
    names
}

/// Everything wrong with one file.
fn check(path: &str, text: &str, crates: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push(format!("{path} does not open with `//!`"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{path} has {lines} lines, at most {LINES_MAX} are allowed"));
    }
    let Some(inside) = path.strip_prefix("analyzer/") else { return faults };
    // lib.rs and main.rs are the roots.
    let Some((module, _)) = inside.split_once('/') else { return faults };
    let Some((_, allowed)) = TABLE.iter().find(|(known, _)| *known == module) else {
        faults.push(format!("{path}: module {module} is not in the table"));
        return faults;
    };
    let tokens = tokens(text);
    // How many `super` lead out of the module: one from its mod.rs, two from a file within.
    let depth = inside.matches('/').count() + usize::from(!inside.ends_with("/mod.rs"));
    for (tested, path_of) in paths(&tokens) {
        let root = path_of[0].as_str();
        if root == "crate" {
            let import = path_of.get(1).map_or("", String::as_str);
            if import != module && !allowed.contains(&import) {
                faults.push(format!("{path}: {module} imports {import} ({})", path_of.join("::")));
            }
        }
        let climbs = path_of.iter().take_while(|segment| *segment == "super").count();
        if climbs >= depth + usize::from(tested) {
            faults.push(format!("{path}: {} climbs out of {module}", path_of.join("::")));
        }
    }
    if module == "engine" {
        faults.extend(impurities(path, &tokens, crates));
    }
    faults
}

fn impurities(path: &str, tokens: &[String], crates: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for (_, path_of) in paths(tokens) {
        let part = path_of.get(1).map_or("", String::as_str);
        if path_of[0] == "std" && IMPURE_STD.contains(&part) {
            faults.push(format!("{path}: the engine is pure and uses std::{part}"));
        }
    }
    for token in tokens {
        let token = token.as_str();
        let foreign = crates.iter().any(|name| name == token) && !PURE_CRATES.contains(&token);
        if foreign || IMPURE_WORDS.contains(&token) {
            faults.push(format!("{path}: the engine is pure and uses {token}"));
        }
    }
    faults
}

/// Every path of the code, `use` trees spread out, with whether it stands in a test module.
fn paths(tokens: &[String]) -> Vec<(bool, Vec<String>)> {
    let mut found = Vec::new();
    let mut tested = false;
    let mut at = 0;
    while at < tokens.len() {
        tested |= tokens[at] == "mod" && tokens.get(at + 1).is_some_and(|name| name == "tests");
        if is_word(&tokens[at]) && tokens.get(at + 1).is_some_and(|next| next == "::") {
            let mut spread = Vec::new();
            at = tree(tokens, at, &[], &mut spread);
            found.extend(spread.into_iter().map(|path| (tested, path)));
        } else {
            at += 1;
        }
    }
    found
}

/// Spreads out the path tree that begins at a token; returns where it ends.
fn tree(
    tokens: &[String],
    mut at: usize,
    before: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    let next = tree(tokens, at, &path, found);
                    at = next.max(at + 1);
                }
                return at + 1;
            }
            Some(word) if is_word(word) => path.push(word.to_owned()),
            Some(_) | None => break,
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    if path.len() > before.len() {
        found.push(path);
    }
    at
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single signs of the code, without comments and literals.
fn tokens(text: &str) -> Vec<String> {
    let mut rest = text;
    let mut found = Vec::new();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            length
        } else if rest.starts_with("::") {
            found.push("::".to_owned());
            2
        } else if first.is_alphanumeric() || first == '_' {
            let word = |c: char| !(c.is_alphanumeric() || c == '_');
            let length = rest.find(word).unwrap_or(rest.len());
            found.push(rest[..length].to_owned());
            length
        } else {
            if !first.is_whitespace() {
                found.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

/// Length of the text or character literal that begins here.
fn literal(rest: &str) -> Option<usize> {
    let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'));
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = rest.len() - raw.len() + hashes + 1;
            return Some(rest[begin..].find(&end).map_or(rest.len(), |at| begin + at + end.len()));
        }
    }
    let quote = rest.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    // A quote that closes neither after one character nor after an escape begins a lifetime.
    let lifetime = quote == '\''
        && !rest[1..].starts_with('\\')
        && rest.chars().nth(2).is_none_or(|c| c != '\'');
    if lifetime {
        return None;
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\\' if !escaped => escaped = true,
            _ if c == quote && !escaped => return Some(at + 1),
            _ => escaped = false,
        }
    }
    Some(rest.len())
}
