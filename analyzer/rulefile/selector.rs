//! PromQL selectors, as far as signals are made of them: `EVENTS / TOTAL`, alternatives joined by
//! `or`, and single selectors.
//!
//! The division, the `or` and the parentheses are split here, so that every piece has its place;
//! each piece is read by `promql-parser` and must be a bare instant selector. Functions, ranges,
//! offsets and aggregations are refused with the reason: raw counters are differenced and summed
//! over instances by us. Costs are bounded: bytes, nesting, alternatives, and regexes per file.

use std::ops::Range;

use promql_parser::{
    label::MatchOp,
    parser::{self, Expr, VectorSelector},
};
use regex::{Regex, RegexBuilder};

use super::fault::{Complaint, excerpt};
use crate::signal::spec::{MatchTest, Matcher, Selection, Selector};

/// Longest text of a signal's selectors.
const MAX_BYTES: usize = 4096;
/// Deepest parentheses; two are needed for `(a or b) / (c or d)` inside a call.
const MAX_DEPTH: usize = 8;
/// Most alternatives in one selection.
const MAX_ALTERNATIVES: usize = 16;
/// Compiled size of one label regex: thousands of alternatives fit.
const REGEX_BYTES_MAX: usize = 256 * 1024;

const EXAMPLE: &str =
    "a metric name with label matchers, such as `http_requests_total{code=~\"5..\"}`";

/// What one file may still spend on selectors.
pub(super) struct Budget {
    regexes: usize,
    refused: usize,
}

impl Budget {
    /// Regexes in one file.
    const REGEXES: usize = 128;
    /// Refused texts with regexes before the rest is not tried: compiling a hostile one costs tens
    /// of milliseconds before its size is known.
    const REFUSED: usize = 4;

    pub(super) fn new() -> Self {
        Self { regexes: Self::REGEXES, refused: Self::REFUSED }
    }

    fn spend(&mut self, text: &str) -> Result<(), Complaint> {
        let wanted = text.matches("=~").count() + text.matches("!~").count();
        if wanted == 0 {
            return Ok(());
        }
        if wanted > self.regexes || self.refused == 0 {
            return Err(Complaint::new(
                0..text.len(),
                "not read: the file has too many or too many faulty regex matchers before it",
                format!(
                    "at most {} regex matchers in a file, at most {} of them faulty",
                    Self::REGEXES,
                    Self::REFUSED
                ),
            ));
        }
        self.regexes -= wanted;
        Ok(())
    }
}

/// A piece of the text and where it begins.
#[derive(Clone, Copy)]
struct Piece<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Piece<'t> {
    fn trimmed(self) -> Self {
        let lead = self.text.len() - self.text.trim_start().len();
        Self { text: self.text.trim(), at: self.at + lead }
    }

    fn cut(self, range: Range<usize>) -> Self {
        Self { text: &self.text[range.clone()], at: self.at + range.start }.trimmed()
    }

    fn span(self) -> Range<usize> {
        self.at..self.at + self.text.len()
    }
}

/// `EVENTS / TOTAL`
pub(super) fn quotient(
    text: &str,
    budget: &mut Budget,
) -> Result<(Selection, Selection), Complaint> {
    let parts = split_quotient(text)?;
    let [events, total] = parts[..] else {
        return Err(Complaint::new(
            0..text.len(),
            format!("a ratio needs one `/`, and there {}", count_slashes(parts.len() - 1)),
            "`EVENTS / TOTAL`, such as `http_requests_total{code=~\"5..\"} / http_requests_total`",
        ));
    };
    Ok((read(events, budget)?, read(total, budget)?))
}

/// A gauge: one selection, or the share that one is of another.
pub(super) fn level(
    text: &str,
    budget: &mut Budget,
) -> Result<(Selection, Option<Selection>), Complaint> {
    let parts = split_quotient(text)?;
    match parts[..] {
        [of] => Ok((read(of, budget)?, None)),
        [of, per] => Ok((read(of, budget)?, Some(read(per, budget)?))),
        _ => Err(Complaint::new(
            0..text.len(),
            format!("a gauge has at most one `/`, and there {}", count_slashes(parts.len() - 1)),
            "one selector, or `IN_USE / LIMIT`",
        )),
    }
}

/// One selection.
pub(super) fn selection(text: &str, budget: &mut Budget) -> Result<Selection, Complaint> {
    check_length(text)?;
    read(Piece { text, at: 0 }.trimmed(), budget)
}

/// A whole expression for a metrics server, in which `$arm` stands for the arm's matchers.
pub(super) fn expression(text: &str, budget: &mut Budget) -> Result<String, Complaint> {
    check_length(text)?;
    let whole = Piece { text, at: 0 };
    top_level(whole)?;
    if !text.contains("$arm") {
        return Err(Complaint::new(
            0..text.len(),
            "the expression does not say where the arm's labels go",
            "`$arm` among the matchers, such as `avg(queue_depth{$arm})`",
        )
        .hint("without it, canary and baseline would be asked the same question"));
    }
    budget.spend(text)?;
    match parser::parse(&text.replace("$arm", "arm=\"x\"")) {
        Ok(Expr::MatrixSelector(_) | Expr::Subquery(_) | Expr::StringLiteral(_)) => {
            Err(Complaint::new(
                0..text.len(),
                "the expression gives a range or a text",
                "an expression that gives one number, such as `avg(queue_depth{$arm})`",
            ))
        }
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            budget.refused -= usize::from(text.contains('~') && budget.refused > 0);
            Err(Complaint::new(
                0..text.len(),
                format!("PromQL cannot be read: {}", excerpt(&error)),
                "a PromQL expression",
            ))
        }
    }
}

fn count_slashes(count: usize) -> String {
    match count {
        0 => "is none".to_owned(),
        count => format!("are {count}"),
    }
}

fn check_length(text: &str) -> Result<(), Complaint> {
    if text.len() <= MAX_BYTES {
        return Ok(());
    }
    Err(Complaint::new(
        0..text.len(),
        format!("a selector text of {} bytes", text.len()),
        format!("at most {MAX_BYTES} bytes"),
    ))
}

fn split_quotient(text: &str) -> Result<Vec<Piece<'_>>, Complaint> {
    check_length(text)?;
    // `(a / b)` as a whole means what `a / b` means.
    let whole = unwrap(Piece { text, at: 0 }.trimmed())?;
    let slashes: Vec<Range<usize>> = top_level(whole)?
        .into_iter()
        .filter(|at| whole.text.as_bytes()[*at] == b'/')
        .map(|at| at..at + 1)
        .collect();
    Ok(split(whole, &slashes))
}

fn split<'t>(piece: Piece<'t>, separators: &[Range<usize>]) -> Vec<Piece<'t>> {
    let mut parts = Vec::with_capacity(separators.len() + 1);
    let mut from = 0;
    for separator in separators {
        parts.push(piece.cut(from..separator.start));
        from = separator.end;
    }
    parts.push(piece.cut(from..piece.text.len()));
    parts
}

fn read(piece: Piece<'_>, budget: &mut Budget) -> Result<Selection, Complaint> {
    let mut any_of = Vec::new();
    alternatives(piece, budget, 0, &mut any_of)?;
    Ok(Selection { any_of })
}

fn alternatives(
    piece: Piece<'_>,
    budget: &mut Budget,
    depth: usize,
    any_of: &mut Vec<Selector>,
) -> Result<(), Complaint> {
    let piece = unwrap(piece)?;
    let ors = or_words(piece)?;
    if ors.is_empty() || depth > MAX_DEPTH {
        if any_of.len() == MAX_ALTERNATIVES {
            return Err(Complaint::new(
                piece.span(),
                format!("more than {MAX_ALTERNATIVES} alternatives"),
                "fewer selectors joined by `or`",
            ));
        }
        any_of.push(selector(piece, budget)?);
        return Ok(());
    }
    for part in split(piece, &ors) {
        alternatives(part, budget, depth + 1, any_of)?;
    }
    Ok(())
}

/// Takes off parentheses that enclose the whole piece.
fn unwrap(mut piece: Piece<'_>) -> Result<Piece<'_>, Complaint> {
    loop {
        let top = top_level(piece)?;
        let enclosed = piece.text.starts_with('(')
            && piece.text.ends_with(')')
            && top == [0, piece.text.len() - 1];
        if !enclosed {
            return Ok(piece);
        }
        piece = piece.cut(1..piece.text.len() - 1);
    }
}

/// The places of the word `or` outside parentheses, braces and quotes.
fn or_words(piece: Piece<'_>) -> Result<Vec<Range<usize>>, Complaint> {
    let bytes = piece.text.as_bytes();
    let is_word = |at: Option<&u8>| at.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let words = top_level(piece)?.into_iter().filter(|at| {
        bytes[*at..].len() >= 2
            && bytes[*at..*at + 2].eq_ignore_ascii_case(b"or")
            && !is_word(at.checked_sub(1).and_then(|before| bytes.get(before)))
            && !is_word(bytes.get(at + 2))
    });
    Ok(words.map(|at| at..at + 2).collect())
}

/// Byte offsets of what stands outside parentheses, braces, brackets and quotes; the outermost
/// parentheses themselves count as outside.
fn top_level(piece: Piece<'_>) -> Result<Vec<usize>, Complaint> {
    let mut open: Vec<(char, usize)> = Vec::new();
    let mut quote: Option<(char, usize)> = None;
    let mut escaped = false;
    let mut outside = Vec::new();
    for (at, c) in piece.text.char_indices() {
        if let Some((mark, _)) = quote {
            if escaped {
                escaped = false;
            } else if c == '\\' && mark != '`' {
                escaped = true;
            } else if c == mark {
                quote = None;
            }
            continue;
        }
        match c {
            '"' | '\'' | '`' => quote = Some((c, at)),
            '(' | '{' | '[' => {
                if open.is_empty() && c == '(' {
                    outside.push(at);
                }
                open.push((c, at));
                if open.len() > MAX_DEPTH {
                    return Err(unbalanced(piece, at, "brackets are nested too deeply"));
                }
            }
            ')' | '}' | ']' => {
                let opened = open.pop().map(|(bracket, _)| bracket);
                let fits =
                    matches!((opened, c), (Some('('), ')') | (Some('{'), '}') | (Some('['), ']'));
                if !fits {
                    return Err(unbalanced(piece, at, &format!("`{c}` closes nothing")));
                }
                if open.is_empty() && c == ')' {
                    outside.push(at);
                }
            }
            _ if open.is_empty() => outside.push(at),
            _ => {}
        }
    }
    if let Some((mark, at)) = quote {
        return Err(unbalanced(piece, at, &format!("the quote {mark} is never closed")));
    }
    if let Some((bracket, at)) = open.last() {
        return Err(unbalanced(piece, *at, &format!("`{bracket}` is never closed")));
    }
    Ok(outside)
}

fn unbalanced(piece: Piece<'_>, at: usize, message: &str) -> Complaint {
    let at = piece.at + at;
    Complaint::new(at..at + 1, message, "brackets and quotes in pairs")
}

fn selector(piece: Piece<'_>, budget: &mut Budget) -> Result<Selector, Complaint> {
    let complain = |message: String| Complaint::new(piece.span(), message, EXAMPLE);
    if piece.text.is_empty() {
        return Err(complain("a selector is missing here".to_owned()));
    }
    budget.spend(piece.text).map_err(|complaint| complaint.moved(|_| piece.span()))?;
    let parsed = parser::parse(piece.text).map_err(|error| {
        budget.refused -= usize::from(piece.text.contains('~') && budget.refused > 0);
        let hint = if error.contains("regex") {
            "brackets in a label regex come in pairs, or with a backslash"
        } else {
            "label values stand in double quotes: `{code=\"500\"}`"
        };
        complain(format!("the selector cannot be read: {}", excerpt(&error))).hint(hint)
    })?;
    let refuse = |found: String, hint: &str| Err(complain(found).hint(hint));
    match parsed {
        Expr::VectorSelector(vector) => bare(vector, piece, budget),
        Expr::MatrixSelector(_) | Expr::Subquery(_) => refuse(
            "a range such as `[5m]` is not wanted here".to_owned(),
            "leave it out: counters are differenced between looks, over the file's `window`",
        ),
        Expr::Call(call) => refuse(
            format!("the function `{}` is not wanted here", excerpt(call.func.name)),
            "name the counter itself: rates are taken for you; a whole expression goes under \
             `promql:`",
        ),
        Expr::Aggregate(_) => refuse(
            "an aggregation is not wanted here".to_owned(),
            "name the series themselves: they are summed for you; a whole expression goes under \
             `promql:`",
        ),
        Expr::Binary(binary) => refuse(
            format!("the operator `{}` is not built between selectors", binary.op),
            "selectors are joined by `or`, and a ratio by one `/`; a whole expression goes under \
             `promql:`",
        ),
        Expr::Unary(_)
        | Expr::Paren(_)
        | Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::Extension(_) => Err(complain("this is not a selector".to_owned())),
    }
}

fn bare(
    vector: VectorSelector,
    piece: Piece<'_>,
    budget: &mut Budget,
) -> Result<Selector, Complaint> {
    let complain = |message: &str| Complaint::new(piece.span(), message, EXAMPLE);
    if vector.offset.is_some() || vector.at.is_some() {
        return Err(complain("`offset` and `@` are not wanted here")
            .hint("canary and baseline are read at the same moment"));
    }
    if !vector.matchers.or_matchers.is_empty() {
        return Err(complain("`or` inside braces is not built")
            .hint("write two selectors: `a{x=\"1\"} or a{y=\"2\"}`"));
    }
    let named = vector.matchers.matchers.iter().any(|matcher| matcher.name == "__name__");
    let Some(name) = vector.name.filter(|_| !named) else {
        return Err(complain("a selector needs a metric name, exactly")
            .hint("several names are joined by `or`: `a or b`; `__name__` is not matched"));
    };
    let mut matchers = Vec::with_capacity(vector.matchers.matchers.len());
    for matcher in vector.matchers.matchers {
        let text = matcher.value;
        let test = match matcher.op {
            MatchOp::Equal => MatchTest::Equal(text),
            MatchOp::NotEqual => MatchTest::NotEqual(text),
            MatchOp::Re(regex) => {
                let regex = anchored(&regex, piece, budget)?;
                MatchTest::Regex(text, regex)
            }
            MatchOp::NotRe(regex) => {
                let regex = anchored(&regex, piece, budget)?;
                MatchTest::NotRegex(text, regex)
            }
        };
        matchers.push(Matcher { label: matcher.name, test });
    }
    Ok(Selector { name, matchers })
}

/// The parser's regex is anchored already, and may be as large as it likes; ours may not.
fn anchored(regex: &Regex, piece: Piece<'_>, budget: &mut Budget) -> Result<Regex, Complaint> {
    let built = RegexBuilder::new(regex.as_str())
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build();
    built.map_err(|_| {
        budget.refused = budget.refused.saturating_sub(1);
        Complaint::new(
            piece.span(),
            "a label regex is too large",
            format!("a regex that compiles to at most {} KiB", REGEX_BYTES_MAX / 1024),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::signal::sample::Labels;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))).collect())
    }

    #[test]
    fn a_quotient_is_two_selections() {
        let text = r#"(a{x=~"5.."} or b{y="2"}) / (a or b)"#;
        let (events, total) = quotient(text, &mut Budget::new()).expect("it is well formed");
        assert_eq!(events.names(), ["a", "b"]);
        assert_eq!(total.names(), ["a", "b"]);
        assert!(events.matches("a", &labels(&[("x", "503")])));
        assert!(!events.matches("a", &labels(&[("x", "5033")])), "anchored at the end");
        assert!(!events.matches("a", &labels(&[("x", "1503")])), "anchored at the start");
        assert!(events.matches("b", &labels(&[("y", "2")])));
        assert!(!events.matches("b", &labels(&[("x", "503")])));
        assert!(total.matches("b", &labels(&[])));
    }

    #[test]
    fn separators_inside_quotes_and_braces_are_text() {
        let text = r#"a{path="/x or /y", q='1 / 2'} / a{path=~"/(x|y)"}"#;
        let (events, _) = quotient(text, &mut Budget::new()).expect("it is well formed");
        assert_eq!(events.any_of.len(), 1);
        let path = labels(&[("path", "/x or /y"), ("q", "1 / 2")]);
        assert!(events.matches("a", &path));
    }

    #[test]
    fn what_is_not_a_selector_is_refused_at_its_place() {
        let check = |text: &str, place: &str, words: &str| {
            let complaint = selection(text, &mut Budget::new()).expect_err(text);
            assert_eq!(&text[complaint.span.clone()], place, "{text}: {complaint:?}");
            let said = format!("{} {:?}", complaint.message, complaint.hint);
            assert!(said.contains(words), "{text}: {said}");
        };
        check("a or rate(b[5m])", "rate(b[5m])", "function `rate`");
        check("a or sum(b)", "sum(b)", "aggregation");
        check("(a or b[5m])", "b[5m]", "range");
        check("a or b offset 5m", "b offset 5m", "offset");
        check(r#"a or {__name__="b"}"#, r#"{__name__="b"}"#, "metric name");
        check(r#"a or {x="1"}"#, r#"{x="1"}"#, "metric name");
        check("a or ", "", "missing");
        check("a + b", "a + b", "operator `+`");
        check("a or (b", "(", "never closed");
        check("a or b)", ")", "closes nothing");
        check(r#"a or b{x="1}"#, "\"", "never closed");
        check(r#"a{x=~"("}"#, r#"a{x=~"("}"#, "cannot be read");
        check(&"(".repeat(100), "(", "too deeply");
        check(r#"a{x=~".{900}{900}"}"#, r#"a{x=~".{900}{900}"}"#, "");
    }

    #[test]
    fn the_limits_on_alternatives_and_regexes_are_reached() {
        let join = |n: usize, one: &str| vec![one; n].join(" or ");
        let mut budget = Budget::new();
        assert!(selection(&join(MAX_ALTERNATIVES, "a"), &mut budget).is_ok());
        assert!(selection(&join(MAX_ALTERNATIVES + 1, "a"), &mut budget).is_err());
        assert!(selection(&"a".repeat(MAX_BYTES + 1), &mut budget).is_err());
        for _ in 0..Budget::REGEXES {
            assert!(selection(r#"a{x=~"1"}"#, &mut budget).is_ok());
        }
        assert!(selection(r#"a{x=~"1"}"#, &mut budget).is_err());
        let mut budget = Budget::new();
        for _ in 0..Budget::REFUSED {
            assert!(selection(r#"a{x=~"("}"#, &mut budget).is_err());
        }
        let complaint = selection(r#"a{x=~"1"}"#, &mut budget).expect_err("none is left");
        assert!(complaint.message.contains("faulty"));
    }
}
