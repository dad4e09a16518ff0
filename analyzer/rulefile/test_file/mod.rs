//! Rule tests: what each arm shows over time, and what is to come of it. YAML text in, typed tests out,
//! or every fault of the file with its place and a hint.
//!
//! A test file belongs to a rule file, whose signals say how values are read. So it is read twice:
//! [`load`] alone tells what is wrong with its shape, [`Outline::bind`] all that is wrong with it once the
//! rule file is known. `arm` reads what an arm shows, `notation` and `series` its values over time,
//! `expect` what is expected. Nothing is run here.

mod arm;
mod expect;
mod notation;
mod series;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::arm::Layer;
pub use self::{
    arm::{ArmScript, InstanceScript},
    expect::{Ask, Check, End, Word},
    notation::{Script, Shown},
    series::{Item, Series, Values, value_at},
};
use super::{
    MAX_FILE_BYTES, RuleFile,
    fault::{Complaint, Complaints, Faults, excerpt},
    literal::duration_text,
    table::{self, Shape, Table},
    tree::{self, Kind, Node},
};

/// Tests in one file.
pub const TESTS_MAX: usize = 200;
/// Looks of one test, from the beginning to the deadline.
pub const LOOKS_MAX: u128 = 100_000;
/// Longest name of a test.
const NAME_BYTES_MAX: usize = 200;

static FILE: Shape = Shape {
    what: "a test file",
    keys: &["rules", "description", "defaults", "tests"],
    unbuilt: &[],
};
static DEFAULTS: Shape =
    Shape { what: "`defaults`", keys: &["both", "canary", "baseline"], unbuilt: &[] };
static TEST: Shape = Shape {
    what: "a test",
    keys: &["name", "both", "canary", "baseline", "expect", "findings"],
    unbuilt: &[],
};

/// One test: a release as it is seen, and what is expected of judging it.
#[derive(Clone, Debug)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// Line of the file that it begins on, from 1.
    pub line: usize,
    /// What the new version shows.
    pub canary: ArmScript,
    /// What the old version shows.
    pub baseline: ArmScript,
    /// How it ends, when that is said.
    pub end: Option<End>,
    /// What is expected on the way, in file order.
    pub checks: Vec<Check>,
}

/// A test file whose shape is right.
#[derive(Clone, Debug)]
pub struct Outline {
    file: String,
    text: String,
    rules: Option<String>,
}

/// Reads a test file without its rule file: YAML, keys and shape. `file_name` only appears in faults.
///
/// # Errors
/// Every such fault of the file at once, in the order of their places.
pub fn load(file_name: &str, text: &str) -> Result<Outline, Faults> {
    let (rules, _) = read(file_name, text, None)?;
    Ok(Outline { file: file_name.to_owned(), text: text.to_owned(), rules })
}

/// Reads the tests by the signals of their rule file.
///
/// # Errors
/// Every fault of the file at once, those of its shape too, in the order of their places.
pub fn bind(file_name: &str, text: &str, rules: &RuleFile) -> Result<Vec<Test>, Faults> {
    read(file_name, text, Some(rules)).map(|(_, tests)| tests)
}

/// The rule file that a test file names, whatever else is wrong with it.
pub fn rules_named(text: &str) -> Option<String> {
    let Kind::Map(entries) = tree::parse(text).ok()?.kind else { return None };
    let (_, value) = entries.into_iter().find(|(key, _)| key.text == "rules")?;
    match value.kind {
        Kind::Scalar(scalar) => Some(scalar.text),
        Kind::Map(_) | Kind::List(_) => None,
    }
}

impl Outline {
    /// The rule file that it names, relative to its own place; none when it is the one of its name.
    pub fn rules(&self) -> Option<&str> {
        self.rules.as_deref()
    }

    /// Reads the tests by the signals of their rule file.
    ///
    /// # Errors
    /// Every fault of the file at once, in the order of their places.
    pub fn bind(&self, rules: &RuleFile) -> Result<Vec<Test>, Faults> {
        bind(&self.file, &self.text, rules)
    }
}

type Read = (Option<String>, Vec<Test>);

fn read(file: &str, text: &str, rules: Option<&RuleFile>) -> Result<Read, Faults> {
    let mut out = Complaints::default();
    if text.len() > MAX_FILE_BYTES {
        let found = format!("the file has {} bytes", text.len());
        let expected = format!("a test file of at most {} KiB", MAX_FILE_BYTES / 1024);
        out.push(Complaint::new(0..0, found, expected));
        return Err(out.into_faults(file, ""));
    }
    let read = match tree::parse(text) {
        Ok(root) => Reader { source: text, rules, out: &mut out }.file(&root),
        Err(complaint) => {
            out.push(complaint);
            None
        }
    };
    match read {
        Some(read) if out.is_empty() => Ok(read),
        Some(_) | None => Err(out.into_faults(file, text)),
    }
}

struct Reader<'t, 'o> {
    source: &'t str,
    rules: Option<&'t RuleFile>,
    out: &'o mut Complaints,
}

/// What both arms show, in one place of the file.
#[derive(Clone, Default)]
struct Layers {
    both: Option<Layer>,
    canary: Option<Layer>,
    baseline: Option<Layer>,
}

impl<'t> Reader<'t, '_> {
    fn file(&mut self, root: &'t Node) -> Option<Read> {
        if matches!(&root.kind, Kind::Scalar(scalar) if scalar.text.trim().is_empty()) {
            self.out.push(Complaint::new(
                root.span.clone(),
                "the file is empty",
                "a test file: `tests: [{ name: ..., canary: ..., expect: ... }]`",
            ));
            return None;
        }
        let table = Table::read(root, &FILE, self.out)?;
        let mut named = |key: &str| {
            let node = table.get(key)?;
            let scalar = self.out.keep(table::text(node, &format!("`{key}`")))?;
            Some(scalar.text.clone())
        };
        let rules = named("rules");
        named("description");
        let defaults = match table.get("defaults") {
            Some(node) => {
                let table = Table::read(node, &DEFAULTS, self.out);
                table.map(|table| self.layers(&table)).unwrap_or_default()
            }
            None => Layers::default(),
        };
        let example = "tests: [{ name: ..., canary: ..., expect: ... }]";
        let tests = table.need("tests", example, self.out)?;
        let Kind::List(items) = &tests.kind else {
            self.out.push(Complaint::new(
                tests.span.clone(),
                format!("`tests` was given as {}", table::describe(tests)),
                "a list: `- { name: ..., canary: ..., expect: ... }`",
            ));
            return None;
        };
        if items.is_empty() || items.len() > TESTS_MAX {
            self.out.push(Complaint::new(
                tests.span.clone(),
                format!("`tests` has {} entries", items.len()),
                format!("1 to {TESTS_MAX} tests"),
            ));
        }
        self.check_length(tests);
        let mut read: Vec<Test> = Vec::new();
        for item in items.iter().take(TESTS_MAX) {
            let Some(table) = Table::read(item, &TEST, self.out) else { continue };
            read.extend(self.test(&table, &defaults, &read));
        }
        Some((rules, read))
    }

    fn check_length(&mut self, tests: &Node) {
        let Some(file) = self.rules else { return };
        let (deadline, interval) = (file.rules.promote.deadline, file.rules.observe.interval);
        let looks = deadline.as_millis() / interval.as_millis().max(1);
        if looks > LOOKS_MAX {
            self.out.push(Complaint::new(
                tests.span.clone(),
                format!("a test of this rule file may take {looks} looks"),
                format!("a deadline of at most {LOOKS_MAX} looks, for a file with tests"),
            ));
        }
    }

    fn test(&mut self, table: &Table<'t>, defaults: &Layers, known: &[Test]) -> Option<Test> {
        let name = table.need("name", "name: errors above 5 % roll back", self.out);
        let name = name.and_then(|node| {
            let scalar = self.out.keep(table::text(node, "`name`"))?;
            let name = super::meaning::words(&scalar.text);
            if known.iter().any(|test| test.name == name) {
                self.out.push(Complaint::new(
                    scalar.span.clone(),
                    format!("a second test called `{}`", excerpt(&name)),
                    "a name of its own for each test",
                ));
            }
            if name.len() > NAME_BYTES_MAX {
                let found = format!("a name of {} bytes", name.len());
                let expected = format!("at most {NAME_BYTES_MAX} bytes");
                self.out.push(Complaint::new(scalar.span.clone(), found, expected));
            }
            Some(name)
        });
        let own = self.layers(table);
        let canary = [&defaults.both, &defaults.canary, &own.both, &own.canary];
        let baseline = [&defaults.both, &defaults.baseline, &own.both, &own.baseline];
        let canary = self.arm(table, "canary", &canary);
        let baseline = self.arm(table, "baseline", &baseline);
        let end = table.get("expect").and_then(|node| self.end(node));
        let checks = table.get("findings").map(|node| self.checks(node)).unwrap_or_default();
        if table.get("expect").is_none() && table.get("findings").is_none() && !table.has_refused()
        {
            self.out.push(Complaint::new(
                table.span(),
                "a test that expects nothing",
                "`expect: { verdict: rollback, at: 7m }`, or `findings`",
            ));
        }
        let line = 1 + self.source[..table.span().start].matches('\n').count();
        Some(Test { name: name?, line, canary, baseline, end, checks })
    }

    fn layers(&mut self, table: &Table<'t>) -> Layers {
        let mut layer = |key: &str| table.get(key).map(|node| self.layer(node));
        Layers { both: layer("both"), canary: layer("canary"), baseline: layer("baseline") }
    }

    /// `5m`, or `5m..6m`: from when to when.
    fn times(&mut self, node: &Node, what: &str) -> Option<(Duration, Duration)> {
        let scalar = self.out.keep(table::text(node, what))?;
        let place = |complaint: Complaint, by: usize| {
            complaint.moved(|span| scalar.place(self.source, span.start + by..span.end + by))
        };
        let read = |text: &str, by: usize| {
            super::literal::duration(text).map_err(|complaint| place(complaint, by))
        };
        let times = match scalar.text.split_once("..") {
            None => read(&scalar.text, 0).map(|time| (time, time)),
            Some((from, to)) => {
                let both = read(from, 0).and_then(|a| Ok((a, read(to, from.len() + 2)?)));
                both.and_then(|(from, to)| match from <= to {
                    true => Ok((from, to)),
                    false => Err(Complaint::new(
                        scalar.span.clone(),
                        format!("{what} ends before it begins"),
                        format!("`{}..{}`", duration_text(to), duration_text(from)),
                    )),
                })
            }
        };
        self.out.keep(times)
    }
}
