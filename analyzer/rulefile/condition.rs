//! The condition language: text in, a tree of clauses with their places out.
//!
//! ```text
//! condition = all { "or" all }
//! all       = part { "and" part }
//! part      = "not" part | "(" condition ")" | clause
//! clause    = value op bound [ "on" "most" "instances" ] [ "for" duration ]
//!           | signal "is" ( "up" | "degraded" | "down" ) [ "for" ( duration | N "checks" ) ]
//! value     = quantity | "slope(" quantity ")"
//! quantity  = signal | "latency(" signal ")" | "field(" signal "," path ")"
//! op        = ">" | ">=" | "<" | "<="
//! bound     = literal | N "x" "baseline" | "baseline" ( "+" | "-" ) literal
//! ```
//!
//! `and` binds tighter than `or`. Whether a clause makes sense for its signal is deliberately not
//! asked here but in `meaning`; paths are read by `field_path`. Tokens are cut in `token`; the descent over them is written out,
//! because at each place it can say what it expected in words.

use std::{ops::Range, time::Duration};

use super::{
    fault::{Complaint, excerpt, nearest},
    field_path,
    literal::{self, Dimension, Literal},
    token::{Token, TokenKind, tokens},
};
use crate::{
    engine::{observation::Health, rule::Op},
    signal::answer::{AnswerNumber, FieldPath},
};

/// Longest condition.
pub(super) const MAX_BYTES: usize = 2048;
/// Clauses in one condition.
pub(super) const MAX_CLAUSES: usize = 32;
/// Parentheses and `not`s inside one another.
const MAX_DEPTH: usize = 16;
/// What a function of the language is.
const EXPECTED_VALUE: &str = "a signal, `slope(...)` of a level, or `latency(...)` or \
                              `field(..., path)` of a health signal";
/// Consecutive failed probes that can be asked for.
const MAX_CHECKS: f64 = 1000.0;

/// A condition as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Clause(Clause),
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Not(Box<Tree>),
}

/// A clause as written; spans are bytes of the condition's text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Clause {
    pub(super) span: Range<usize>,
    pub(super) value: Value,
    /// Which number of a health answer is meant, when it is not the signal itself.
    pub(super) answer: Option<AnswerNumber>,
    pub(super) signal: String,
    pub(super) signal_span: Range<usize>,
    pub(super) ask: Ask,
    /// Where `on most instances` stands, when it does.
    pub(super) most_instances: Option<Range<usize>>,
    pub(super) hold: Option<Hold>,
}

/// What of a quantity is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Itself,
    Slope,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    Compare { op: Op, op_span: Range<usize>, bound: Bound, bound_span: Range<usize> },
    Is { status: Health, span: Range<usize> },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// A literal, negated when a minus stood before it.
    Constant(Literal),
    TimesBaseline(f64),
    /// Negated for minus.
    BaselinePlus(Literal),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hold {
    pub(super) span: Range<usize>,
    pub(super) length: Length,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    For(Duration),
    Checks(u32),
}

/// Reads a condition; stops at the first fault, whose span is relative to `text`.
pub(super) fn parse(text: &str) -> Result<Tree, Complaint> {
    if text.len() > MAX_BYTES {
        return Err(Complaint::new(
            0..text.len(),
            format!("a condition of {} bytes", text.len()),
            format!("at most {MAX_BYTES} bytes"),
        ));
    }
    let mut descent = Descent { text, tokens: tokens(text)?, at: 0, depth: 0, clauses: 0 };
    let tree = descent.any_of()?;
    match descent.peek() {
        None => Ok(tree),
        Some(token) => Err(descent.after_clause(token)),
    }
}

struct Descent<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    clauses: usize,
}

impl<'t> Descent<'t> {
    fn peek(&self) -> Option<Token> {
        self.tokens.get(self.at).cloned()
    }

    fn slice(&self, token: &Token) -> &'t str {
        &self.text[token.span.clone()]
    }

    fn peek_word(&self) -> Option<&'t str> {
        let token = self.tokens.get(self.at)?;
        (token.kind == TokenKind::Word).then(|| self.slice(token))
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek_word() == Some(word);
        self.at += usize::from(found);
        found
    }

    fn eat(&mut self, kind: TokenKind) -> Option<Token> {
        let token = self.peek().filter(|token| token.kind == kind)?;
        self.at += 1;
        Some(token)
    }

    /// Where the last token ended.
    fn end(&self) -> usize {
        self.at.checked_sub(1).and_then(|last| self.tokens.get(last)).map_or(0, |t| t.span.end)
    }

    fn complain(&self, expected: &str) -> Complaint {
        match self.tokens.get(self.at) {
            Some(token) => Complaint::new(
                token.span.clone(),
                format!("found `{}`", excerpt(self.slice(token))),
                expected,
            ),
            None => {
                let end = self.end();
                Complaint::new(end..end, "the condition ends here", expected)
            }
        }
    }

    fn any_of(&mut self) -> Result<Tree, Complaint> {
        let mut parts = vec![self.all_of()?];
        while self.eat_word("or") {
            parts.push(self.all_of()?);
        }
        Ok(joined(parts, Tree::Or))
    }

    fn all_of(&mut self) -> Result<Tree, Complaint> {
        let mut parts = vec![self.part()?];
        while self.eat_word("and") {
            parts.push(self.part()?);
        }
        Ok(joined(parts, Tree::And))
    }

    fn part(&mut self) -> Result<Tree, Complaint> {
        if self.depth == MAX_DEPTH {
            return Err(self.complain(&format!("at most {MAX_DEPTH} levels of parentheses")));
        }
        if self.eat_word("not") {
            self.depth += 1;
            let part = self.part()?;
            self.depth -= 1;
            return Ok(Tree::Not(Box::new(part)));
        }
        if let Some(open) = self.eat(TokenKind::Open) {
            self.depth += 1;
            let inner = self.any_of()?;
            self.depth -= 1;
            if self.eat(TokenKind::Close).is_none() {
                let found = match self.peek() {
                    Some(token) => self.after_clause(token),
                    None => Complaint::new(open.span, "this `(` is never closed", "a `)`"),
                };
                return Err(found);
            }
            return Ok(inner);
        }
        self.clause().map(Tree::Clause)
    }

    fn clause(&mut self) -> Result<Clause, Complaint> {
        let Some(first) = self.eat(TokenKind::Word) else {
            return Err(self.no_signal());
        };
        if self.clauses == MAX_CLAUSES {
            return Err(Complaint::new(
                first.span,
                format!("more than {MAX_CLAUSES} clauses in one condition"),
                "several rules",
            ));
        }
        self.clauses += 1;
        let (value, answer, named) = self.value(first.clone())?;
        let ask = if self.eat_word("is") { self.status()? } else { self.comparison()? };
        let most_instances = self.most_instances()?;
        let hold = self.hold()?;
        Ok(Clause {
            span: first.span.start..self.end(),
            value,
            answer,
            signal: self.slice(&named).to_owned(),
            signal_span: named.span,
            ask,
            most_instances,
            hold,
        })
    }

    /// A quantity or `slope(quantity)`, with the signal that it is of.
    fn value(&mut self, first: Token) -> Result<(Value, Option<AnswerNumber>, Token), Complaint> {
        if self.slice(&first) != "slope" || self.eat(TokenKind::Open).is_none() {
            let (answer, named) = self.quantity(first)?;
            return Ok((Value::Itself, answer, named));
        }
        let inner = self.named()?;
        let (answer, named) = self.quantity(inner)?;
        self.close("`)` after the name of the signal")?;
        Ok((Value::Slope, answer, named))
    }

    /// `signal`, `latency(signal)` or `field(signal, path)`.
    fn quantity(&mut self, first: Token) -> Result<(Option<AnswerNumber>, Token), Complaint> {
        if self.eat(TokenKind::Open).is_none() {
            return Ok((None, first));
        }
        let function = self.slice(&first);
        match function {
            "latency" => {
                let named = self.named()?;
                self.close("`)` after the name of the signal")?;
                Ok((Some(AnswerNumber::Latency), named))
            }
            "field" => {
                let named = self.named()?;
                let answer = AnswerNumber::Field(self.path()?);
                self.close("`)` after the path")?;
                Ok((Some(answer), named))
            }
            _ => {
                let complaint = Complaint::new(
                    first.span,
                    format!("unknown function `{}`", excerpt(function)),
                    EXPECTED_VALUE,
                );
                Err(match nearest(function, ["slope", "latency", "field"]) {
                    Some(near) => complaint.hint(format!("did you mean `{near}`?")),
                    None => complaint
                        .hint("what is measured is said under `signals:`; rules name signals only"),
                })
            }
        }
    }

    /// `, path`, which is cut by rules of its own.
    fn path(&mut self) -> Result<FieldPath, Complaint> {
        let Some(comma) = self.peek().filter(|token| self.slice(token) == ",") else {
            return Err(self.complain("`,` and a path, such as `field(app, active_connections)`"));
        };
        let start = comma.span.end;
        let (path, bytes) = field_path::read(&self.text[start..])
            .map_err(|complaint| complaint.moved(|part| part.start + start..part.end + start))?;
        let within = |token: &Token| token.span.start < start + bytes;
        self.at += self.tokens[self.at..].iter().take_while(|token| within(token)).count();
        Ok(path)
    }

    fn named(&mut self) -> Result<Token, Complaint> {
        self.eat(TokenKind::Word).ok_or_else(|| self.complain("the name of a signal"))
    }

    fn close(&mut self, expected: &str) -> Result<(), Complaint> {
        match self.eat(TokenKind::Close) {
            Some(_) => Ok(()),
            None => Err(self.complain(expected)),
        }
    }

    fn status(&mut self) -> Result<Ask, Complaint> {
        let expected = "`up`, `degraded` or `down`";
        let status = match self.peek_word() {
            Some("up") => Health::Up,
            Some("degraded") => Health::Degraded,
            Some("down") => Health::Down,
            Some("not") => {
                return Err(self.complain(expected).hint("`not` stands before the clause"));
            }
            Some(other) => {
                let near = nearest(other, ["up", "degraded", "down"]);
                let hint = near.map(|near| format!("did you mean `{near}`?"));
                return Err(self.complain(expected).hint_if(hint));
            }
            None => return Err(self.complain(expected)),
        };
        self.at += 1;
        let end = self.end();
        let start = self.tokens[self.at - 1].span.start;
        Ok(Ask::Is { status, span: start..end })
    }

    fn comparison(&mut self) -> Result<Ask, Complaint> {
        let Some(token) = self.peek() else {
            return Err(self.complain("`>`, `>=`, `<`, `<=` or `is`"));
        };
        let TokenKind::Op(op) = token.kind else {
            return Err(self.no_operator(&token));
        };
        self.at += 1;
        let start = self.peek().map_or(self.end(), |token| token.span.start);
        let bound = self.bound()?;
        Ok(Ask::Compare { op, op_span: token.span, bound, bound_span: start..self.end() })
    }

    fn bound(&mut self) -> Result<Bound, Complaint> {
        if self.eat_word("baseline") {
            let negative = if self.eat(TokenKind::Plus).is_some() {
                false
            } else if self.eat(TokenKind::Minus).is_some() {
                true
            } else {
                return Err(self
                    .complain("`+` or `-` and an amount after `baseline`")
                    .hint("a bare comparison is written `1x baseline`"));
            };
            return Ok(Bound::BaselinePlus(signed(self.literal()?, negative)));
        }
        let negative = self.eat(TokenKind::Minus).is_some();
        let start = self.peek().map_or(self.end(), |token| token.span.start);
        let literal = self.literal()?;
        let spelled_apart = literal.dimension == Dimension::Plain && self.eat_word("x");
        let factor = literal.dimension == Dimension::Factor || spelled_apart;
        if factor && self.eat_word("baseline") && !negative {
            return Ok(Bound::TimesBaseline(literal.value));
        }
        if factor {
            return Err(Complaint::new(
                start..self.end(),
                "a multiple of what?",
                "`baseline` after it, such as `1.5x baseline`",
            ));
        }
        if self.peek_word() == Some("baseline") {
            return Err(self
                .complain("a multiple before `baseline`")
                .hint("a multiple is written with an x: `1.5x baseline`"));
        }
        Ok(Bound::Constant(signed(literal, negative)))
    }

    fn literal(&mut self) -> Result<Literal, Complaint> {
        let Some(token) = self.eat(TokenKind::Number) else {
            return Err(
                self.complain("a number with its unit, such as `5%`, `200ms` or `1.5x baseline`")
            );
        };
        let mut span = token.span;
        // `5 %` and `10 / min`, as prose has it.
        while let Some(next) = self.peek() {
            let text = self.slice(&next);
            let goes_on = text == "%" && !self.text[span.clone()].contains('%')
                || text == "/" && !self.text[span.clone()].contains('/')
                || next.kind == TokenKind::Word && self.text[span.clone()].ends_with('/');
            if !goes_on {
                break;
            }
            span.end = next.span.end;
            self.at += 1;
        }
        let next_is_unit = self.peek_word().is_some_and(|word| {
            !["for", "on", "and", "or", "x", "baseline", "check", "checks"].contains(&word)
                && literal::parse(&format!("1{word}")).is_ok()
        });
        if next_is_unit {
            return Err(self
                .complain("the unit right after the number")
                .hint("no blank between a number and its unit"));
        }
        let start = span.start;
        literal::parse(&self.text[span])
            .map_err(|complaint| complaint.moved(|part| part.start + start..part.end + start))
    }

    /// `on most instances`, and where it stands.
    fn most_instances(&mut self) -> Result<Option<Range<usize>>, Complaint> {
        let start = self.peek().map_or(0, |token| token.span.start);
        if !self.eat_word("on") {
            return Ok(None);
        }
        if self.eat_word("most") && self.eat_word("instances") {
            return Ok(Some(start..self.end()));
        }
        Err(self.complain("`on most instances`"))
    }

    fn hold(&mut self) -> Result<Option<Hold>, Complaint> {
        let start = self.peek().map_or(0, |token| token.span.start);
        if !self.eat_word("for") {
            return Ok(None);
        }
        let Some(token) = self.peek().filter(|token| token.kind == TokenKind::Number) else {
            return Err(self.complain("a duration such as `5m`, or `3 checks`"));
        };
        self.at += 1;
        let text = self.slice(&token);
        let length = if self.eat_word("checks") || self.eat_word("check") {
            let count = literal::parse(text).ok().filter(|literal| {
                literal.dimension == Dimension::Plain
                    && (1.0..=MAX_CHECKS).contains(&literal.value)
                    && literal.value.fract() == 0.0
            });
            let Some(count) = count else {
                return Err(Complaint::new(
                    token.span,
                    format!("`{}` checks", excerpt(text)),
                    format!("a whole number from 1 to {MAX_CHECKS}"),
                ));
            };
            Length::Checks(count.value as u32)
        } else {
            let length = literal::duration(text).map_err(|complaint| {
                let plain = literal::parse(text).is_ok_and(|l| l.dimension == Dimension::Plain);
                let hint = plain.then(|| {
                    format!("write `{text}s`, `{text}m` or, of a health status, `{text} checks`")
                });
                complaint
                    .hint_if(hint)
                    .moved(|part| part.start + token.span.start..part.end + token.span.start)
            })?;
            if length.is_zero() {
                return Err(Complaint::new(
                    token.span,
                    "holding for no time at all",
                    "a duration above zero, or no `for`",
                ));
            }
            Length::For(length)
        };
        Ok(Some(Hold { span: start..self.end(), length }))
    }

    fn no_signal(&self) -> Complaint {
        let complaint = self.complain("the name of a signal");
        match self.tokens.get(self.at).map(|token| self.slice(token)) {
            Some("!") => complaint.hint("write `not`"),
            Some(number) if number.starts_with(|c: char| c.is_ascii_digit()) => {
                complaint.hint("the signal comes first: `error_rate > 5%`")
            }
            Some("{" | "[" | "\"" | "'") => {
                complaint.hint("selectors stand under `signals:`; rules name signals only")
            }
            Some(_) | None => complaint,
        }
    }

    fn no_operator(&self, token: &Token) -> Complaint {
        let complaint = self.complain("`>`, `>=`, `<`, `<=` or `is` after the signal");
        match self.slice(token) {
            "=" | "==" | "!=" | "<>" => {
                complaint.hint("equality is not asked of measured numbers: use `>=` or `<=`")
            }
            "=>" | "≥" => complaint.hint("write `>=`"),
            "=<" | "≤" => complaint.hint("write `<=`"),
            "=~" | "{" => {
                complaint.hint("selectors stand under `signals:`; rules name signals only")
            }
            "above" | "over" | "exceeds" => complaint.hint("write `>`"),
            "below" | "under" => complaint.hint("write `<`"),
            other if other.chars().all(|c| c.is_alphabetic() && !c.is_ascii()) => {
                complaint.hint("names are made of the letters a to z, digits and `_`")
            }
            _ if token.kind == TokenKind::Word => {
                complaint.hint("a signal's name is one word, with `_` instead of blanks")
            }
            _ => complaint,
        }
    }

    /// What stands after a whole clause and does not belong there.
    fn after_clause(&self, token: Token) -> Complaint {
        let complaint = Complaint::new(
            token.span.clone(),
            format!("found `{}`", excerpt(self.slice(&token))),
            "`and`, `or`, `for` or the end of the condition",
        );
        match self.slice(&token) {
            "AND" | "&&" | "&" | "," => complaint.hint("write `and`"),
            "OR" | "||" | "|" => complaint.hint("write `or`"),
            ")" => complaint.hint("this `)` closes nothing"),
            "*" | "×" => complaint.hint("a multiple is written with an x: `1.5x baseline`"),
            ">" | ">=" | "<" | "<=" => complaint.hint("one comparison a clause: `a > 1 and a < 2`"),
            "on" => complaint.hint("`on most instances` stands before `for`"),
            "during" | "within" | "over" => complaint.hint("write `for`, such as `for 5m`"),
            _ => complaint,
        }
    }
}

fn joined(mut parts: Vec<Tree>, join: fn(Vec<Tree>) -> Tree) -> Tree {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => join(parts),
    }
}

fn signed(literal: Literal, negative: bool) -> Literal {
    let value = if negative { -literal.value } else { literal.value };
    Literal { value, ..literal }
}
