//! What a test expects: how it ends, and what is found on the way.

use std::{fmt, time::Duration};

use super::Reader;
use crate::{
    engine::{
        rule::RuleSet,
        verdict::{State, Verdict},
    },
    rulefile::{
        fault::{Complaint, did_you_mean, excerpt},
        meaning::words,
        table::{self, Shape, Table},
        tree::{Kind, Node, Scalar},
    },
};

/// Checks of one test.
const CHECKS_MAX: usize = 500;

static END: Shape = Shape { what: "`expect`", keys: &["verdict", "at", "because"], unbuilt: &[] };
static CHECK: Shape =
    Shape { what: "an expected finding", keys: &["at", "rule", "is", "verdict"], unbuilt: &[] };

/// A verdict by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Not final.
    Watching,
    /// Not final: asks for a person's eye.
    Investigate,
    /// Not final: on to the next step.
    Advance,
    /// Final.
    Promote,
    /// Final.
    Rollback,
    /// Final.
    Inconclusive,
}

impl Word {
    const ALL: [(&str, Word); 6] = [
        ("watching", Word::Watching),
        ("investigate", Word::Investigate),
        ("advance", Word::Advance),
        ("promote", Word::Promote),
        ("rollback", Word::Rollback),
        ("inconclusive", Word::Inconclusive),
    ];

    /// The word for a verdict.
    pub fn of(verdict: Verdict) -> Word {
        match verdict {
            Verdict::Watching => Word::Watching,
            Verdict::Investigate { .. } => Word::Investigate,
            Verdict::Advance { .. } => Word::Advance,
            Verdict::Promote => Word::Promote,
            Verdict::Rollback { .. } => Word::Rollback,
            Verdict::Inconclusive { .. } => Word::Inconclusive,
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(_, word)| word == self).map_or("", |(text, _)| text);
        f.write_str(word)
    }
}

/// How a test is to end.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Line of the file, from 1.
    pub line: usize,
    /// The final verdict.
    pub verdict: Word,
    /// From when to when it may be reached.
    pub at: Option<(Duration, Duration)>,
    /// Index of the rule that decides.
    pub because: Option<usize>,
}

/// What is to be found at a look, or at every look of a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Line of the file, from 1.
    pub line: usize,
    /// From when to when; both the same for one look.
    pub at: (Duration, Duration),
    /// What; never empty.
    pub asks: Vec<Ask>,
}

/// One thing that is to be found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ask {
    /// The verdict.
    Verdict(Word),
    /// What a rule is.
    Rule {
        /// Its index.
        rule: usize,
        /// Its state.
        is: State,
    },
}

const STATES: [(&str, State); 4] = [
    ("fires", State::Fires),
    ("clear", State::Clear),
    ("not enough data", State::NotEnoughData),
    ("asleep", State::Asleep),
];

impl Reader<'_, '_> {
    pub(super) fn end(&mut self, node: &Node) -> Option<End> {
        let table = Table::read(node, &END, self.out)?;
        let verdict = table.need("verdict", "verdict: rollback", self.out);
        let verdict = verdict.and_then(|node| self.final_word(node));
        let at = table.get("at").map(|node| self.times(node, "`at`"));
        let because = table.get("because").map(|node| self.rule(node, "`because`"));
        Some(End {
            line: self.line(&table),
            verdict: verdict?,
            at: at.flatten(),
            because: because.flatten(),
        })
    }

    fn final_word(&mut self, node: &Node) -> Option<Word> {
        let word = self.out.keep(table::choice(node, "`verdict`", &Word::ALL))?;
        match word {
            Word::Promote | Word::Rollback | Word::Inconclusive => Some(word),
            Word::Watching | Word::Investigate | Word::Advance => {
                self.out.push(
                    Complaint::new(
                        node.span.clone(),
                        format!("a test that ends with `{word}`, which is not final"),
                        "`promote`, `rollback` or `inconclusive`",
                    )
                    .hint(format!("write `findings: [{{ at: 5m, verdict: {word} }}]`")),
                );
                None
            }
        }
    }

    pub(super) fn checks(&mut self, node: &Node) -> Vec<Check> {
        let Kind::List(items) = &node.kind else {
            self.out.push(Complaint::new(
                node.span.clone(),
                format!("`findings` was given as {}", table::describe(node)),
                "a list: `- { at: 4m, rule: error_rate > 5% for 5m, is: clear }`",
            ));
            return Vec::new();
        };
        if items.len() > CHECKS_MAX {
            self.out.push(Complaint::new(
                node.span.clone(),
                format!("`findings` has {} entries", items.len()),
                format!("at most {CHECKS_MAX}"),
            ));
        }
        items.iter().take(CHECKS_MAX).filter_map(|item| self.check(item)).collect()
    }

    fn check(&mut self, node: &Node) -> Option<Check> {
        let table = Table::read(node, &CHECK, self.out)?;
        let at = table.need("at", "at: 5m", self.out);
        let at = at.and_then(|node| self.times(node, "`at`"));
        let verdict = table
            .get("verdict")
            .and_then(|node| self.out.keep(table::choice(node, "`verdict`", &Word::ALL)));
        let rule = table.get("rule").and_then(|node| self.rule(node, "`rule`"));
        let is =
            table.get("is").and_then(|node| self.out.keep(table::choice(node, "`is`", &STATES)));
        let has = |key: &str| table.get(key).is_some();
        if has("rule") != has("is") {
            let (there, lacking) =
                if has("rule") { ("rule", "is: fires") } else { ("is", "rule: ...") };
            self.out.push(Complaint::new(
                table.span(),
                format!("an expected finding with `{there}` alone"),
                format!("`{lacking}` beside it"),
            ));
        } else if !has("rule") && !has("verdict") && !table.has_refused() {
            self.out.push(Complaint::new(
                table.span(),
                "an expected finding that says nothing",
                "`rule: ...` with `is: fires`, or `verdict: investigate`",
            ));
        }
        let asked = rule.zip(is).map(|(rule, is)| Ask::Rule { rule, is });
        let asks: Vec<Ask> = verdict.map(Ask::Verdict).into_iter().chain(asked).collect();
        Some(Check { line: self.line(&table), at: at?, asks })
    }

    fn line(&self, table: &Table<'_>) -> usize {
        1 + self.source[..table.span().start].matches('\n').count()
    }

    /// A rule by its condition, or by its number from 1.
    fn rule(&mut self, node: &Node, what: &str) -> Option<usize> {
        let scalar = self.out.keep(table::text(node, what))?;
        let rules = &self.rules?.rules;
        self.out.keep(find_rule(rules, scalar))
    }
}

fn find_rule(rules: &RuleSet, scalar: &Scalar) -> Result<usize, Complaint> {
    let wanted = words(&scalar.text);
    let count = rules.rules.len();
    if let Ok(number) = wanted.parse::<usize>() {
        return number.checked_sub(1).filter(|index| *index < count).ok_or_else(|| {
            let found = format!("rule number {number}");
            Complaint::new(scalar.span.clone(), found, format!("a number from 1 to {count}"))
        });
    }
    let texts = || rules.rules.iter().map(|rule| rule.text.as_str());
    let found: Vec<usize> =
        texts().enumerate().filter(|(_, text)| *text == wanted).map(|(index, _)| index).collect();
    match found[..] {
        [index] => Ok(index),
        [] => {
            let nearest = nearest_text(&wanted, texts());
            Err(Complaint::new(
                scalar.span.clone(),
                format!("no rule reads `{}`", excerpt(&wanted)),
                "a rule's `when` as the rule file has it, or its number from 1",
            )
            .hint_if(did_you_mean(&wanted, texts()).or(nearest)))
        }
        _ => {
            let numbers: Vec<String> = found.iter().map(|index| (index + 1).to_string()).collect();
            Err(Complaint::new(
                scalar.span.clone(),
                format!("{} rules read `{}`", found.len(), excerpt(&wanted)),
                "one of them by its number in the file, from 1",
            )
            .hint(format!("they are number {}", numbers.join(" and "))))
        }
    }
}

/// A rule whose text is long is near in words rather than in letters.
fn nearest_text<'r>(wanted: &str, rules: impl Iterator<Item = &'r str>) -> Option<String> {
    let shared = |rule: &str| {
        wanted.split(' ').filter(|word| rule.split(' ').any(|other| other == *word)).count()
    };
    let (common, rule) = rules.map(|rule| (shared(rule), rule)).max_by_key(|(n, _)| *n)?;
    let is_near = common > 0 && 2 * common >= wanted.split(' ').count();
    is_near.then(|| format!("did you mean `{rule}`?"))
}
