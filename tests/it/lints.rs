//! Lints: each is seen to warn in the words beside its case, and to keep still on files that are as
//! they should be.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rollgate::rulefile::{self, RuleFile, lint};

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn load(path: &Path) -> RuleFile {
    let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
    let text = fs::read_to_string(path).expect("a case is text");
    rulefile::load(&name, &text).unwrap_or_else(|faults| panic!("{}", faults.render(false)))
}

fn rendered(file: &RuleFile) -> String {
    let warnings = file.warnings.iter().map(|warning| warning.render(&file.text, false));
    warnings.collect::<Vec<_>>().join("\n\n") + "\n"
}

/// Every lint has a case of its own name, which only it warns of, in exactly the words beside it. Run
/// with `BLESS=1` to write those words anew, and read them as the person who wrote the file.
#[test]
fn each_lint_warns_in_the_words_beside_its_case() {
    let mut differing = Vec::new();
    for lint in lint::ALL {
        let case = repository("tests/cases/lints").join(format!("{}.yaml", lint.name));
        let file = load(&case);
        assert!(!file.warnings.is_empty(), "{} does not warn", lint.name);
        for warning in &file.warnings {
            assert_eq!(warning.lint, Some(lint.name), "{}", warning.render(&file.text, false));
        }
        let said = rendered(&file);
        let beside = case.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&beside, &said).expect("the words can be written");
        }
        if fs::read_to_string(&beside).unwrap_or_default() != said {
            differing.push(format!("{} now warns:\n{said}", lint.name));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    let cases = fs::read_dir(repository("tests/cases/lints")).expect("the cases are there").count();
    assert_eq!(cases, 2 * lint::ALL.len(), "a case for every lint, and none for no lint");
}

/// The files that ship, and the examples of both pages.
#[test]
fn good_files_are_free_of_warnings() {
    let shipped = fs::read_dir(repository("rules")).expect("the rules are there");
    let mut seen = 0;
    for entry in shipped {
        let path = entry.expect("a directory can be listed").path();
        let name = path.to_string_lossy();
        if name.ends_with(".yaml") && !name.ends_with(".test.yaml") {
            let file = load(&path);
            assert!(file.warnings.is_empty(), "{}", rendered(&file));
            seen += 1;
        }
    }
    assert!(seen >= 2);
    let page = fs::read_to_string(repository("README.md")).expect("the page is there");
    let (_, rest) = page.split_once("```yaml\nversion: 1").expect("it holds a rule file");
    let (text, _) = rest.split_once("```").expect("it ends");
    let file = rulefile::load("README.md", &format!("version: 1{text}")).expect("it is good");
    assert!(file.warnings.is_empty(), "{}", rendered(&file));
}

/// What is allowed for the file or for the rule is not warned of, and nothing else is hidden.
#[test]
fn what_is_allowed_is_not_warned_of() {
    for lint in lint::ALL {
        let case = repository("tests/cases/lints").join(format!("{}.yaml", lint.name));
        let text = fs::read_to_string(&case).expect("a case is text");
        let text = match text.contains("\nallow:") {
            true => text.replace("\nallow: [", &format!("\nallow: [{}, ", lint.name)),
            false => format!("{text}allow: [{}]\n", lint.name),
        };
        let file = rulefile::load("t", &text).expect("it is good");
        assert!(file.warnings.is_empty(), "{}: {}", lint.name, rendered(&file));
    }
}

/// The table of `rules/README.md` names every lint, in order, with what it finds and why.
#[test]
fn the_page_tells_of_every_lint() {
    let page = fs::read_to_string(repository("rules/README.md")).expect("the page is there");
    let (_, section) = page.split_once("\n## Lints\n").expect("it has a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = lint::ALL
        .iter()
        .map(|lint| format!("| `{}` | {} | {} |", lint.name, lint.what, lint.why))
        .collect();
    assert_eq!(rows, expected, "\n{}", expected.join("\n"));
}

#[test]
fn warnings_beyond_the_limit_are_counted() {
    let mut text = "version: 1\nservice: s\nsignals:\n  app: { health: /h }\n".to_owned();
    (0..63).for_each(|n| text.push_str(&format!("  s{n}: {{ health: /h }}\n")));
    text.push_str("rules: [{ when: app is down for 3 checks, then: rollback }]\n");
    text.push_str("promote: { after: 5m }\n");
    let file = rulefile::load("t", &text).expect("it is good");
    assert_eq!((file.warnings.len(), file.warnings_unlisted), (50, 13));
}
