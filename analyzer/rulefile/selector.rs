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

use super::{
    fault::{Complaint, excerpt},
    promql,
};
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

/// What one file may still spend on label regexes.
pub(super) struct Budget {
    regexes: usize,
}

impl Budget {
    /// Regexes in one file.
    const REGEXES: usize = 128;

    pub(super) fn new() -> Self {
        Self { regexes: Self::REGEXES }
    }

    /// Compiles every regex of a piece under our limit on size, once its numbers are such that the
    /// parser can read them. This comes before the selector is
    /// parsed because the parser compiles them too, and knows no limit: a hostile one costs it a
    /// tenth of a second, and 128 of them a quarter of a minute.
    fn spend(&mut self, piece: Piece<'_>) -> Result<(), Complaint> {
        if let Some(at) = promql::unreadable_number(piece.text) {
            return Err(Complaint::new(
                piece.at + at.start..piece.at + at.end,
                format!("the number `{}`", excerpt(&piece.text[at])),
                "a finite number of modest size",
            ));
        }
        for (at, regex) in regexes(piece)? {
            let span = piece.at + at.start..piece.at + at.end;
            let complain = |message: &str| {
                let (count, kib) = (Self::REGEXES, REGEX_BYTES_MAX / 1024);
                let expected =
                    format!("at most {count} regexes in a file, each at most {kib} KiB compiled");
                Complaint::new(span.clone(), message, expected)
            };
            if self.regexes == 0 {
                return Err(complain("too many label regexes"));
            }
            self.regexes -= 1;
            match compile(&regex) {
                Ok(_) => {}
                Err(regex::Error::CompiledTooBig(_)) => {
                    return Err(complain("a label regex is too large"));
                }
                Err(_) => {
                    let message = format!("`{}` is not a regex", excerpt(&regex));
                    return Err(Complaint::new(
                        span,
                        message,
                        "a regex, such as `5..` or `4.*|5.*`",
                    )
                    .hint("brackets and braces come in pairs, or with two backslashes: `\\\\(`"));
                }
            }
        }
        Ok(())
    }
}

/// The texts that a piece asks to be matched as regexes, and where they stand.
fn regexes(piece: Piece<'_>) -> Result<Vec<(Range<usize>, String)>, Complaint> {
    let mut found = Vec::new();
    let mut rest = 0;
    while let Some(open) = piece.text[rest..].find(['"', '\'', '`']).map(|at| rest + at) {
        let before = piece.text[..open].trim_end();
        let is_regex = before.ends_with("=~") || before.ends_with("!~");
        let mark = piece.text[open..].chars().next().unwrap_or('"');
        let mut value = String::new();
        let mut end = piece.text.len();
        let mut inside = piece.text[open + 1..].char_indices();
        while let Some((at, c)) = inside.next() {
            if c == mark {
                end = open + 1 + at + 1;
                break;
            }
            let escape = (c == '\\').then(|| inside.next().map(|(_, c)| c));
            match escape {
                None => value.push(c),
                // In backticks a backslash stands for itself, which the parser does not honour.
                Some(Some(kept @ ('\\' | '"' | '\''))) if mark != '`' => value.push(kept),
                Some(_) if !is_regex => {}
                Some(_) => {
                    let at = piece.at + open + 1 + at;
                    return Err(Complaint::new(
                        at..at + 1,
                        "a single backslash, or one in backticks, in a label regex",
                        "two, in double quotes: PromQL takes one away and the regex gets the other",
                    )
                    .hint("`code=~\"5\\\\d\\\\d\"`, or `code=~\"5[0-9][0-9]\"`"));
                }
            }
        }
        if is_regex {
            found.push((open..end, value));
        }
        rest = end;
    }
    Ok(found)
}

/// A regex as PromQL means it, anchored at both ends, and bounded in size.
fn compile(regex: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{regex})$"))
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .build()
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
    budget.spend(whole)?;
    match parser::parse(&text.replace("$arm", "arm=\"x\"")) {
        Ok(Expr::MatrixSelector(_) | Expr::Subquery(_) | Expr::StringLiteral(_)) => {
            Err(Complaint::new(
                0..text.len(),
                "the expression gives a range or a text",
                "an expression that gives one number, such as `avg(queue_depth{$arm})`",
            ))
        }
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Complaint::new(
            0..text.len(),
            format!("PromQL cannot be read: {}", excerpt(&error)),
            "a PromQL expression",
        )),
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
    budget.spend(piece)?;
    let parsed = parser::parse(piece.text).map_err(|error| {
        complain(format!("the selector cannot be read: {}", excerpt(&error)))
            .hint("label values stand in double quotes: `{code=\"500\"}`")
    })?;
    let refuse = |found: String, hint: &str| Err(complain(found).hint(hint));
    match parsed {
        Expr::VectorSelector(vector) => bare(vector, piece),
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

fn bare(vector: VectorSelector, piece: Piece<'_>) -> Result<Selector, Complaint> {
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
            MatchOp::Re(_) => {
                let regex = anchored(&text, piece)?;
                MatchTest::Regex(text, regex)
            }
            MatchOp::NotRe(_) => {
                let regex = anchored(&text, piece)?;
                MatchTest::NotRegex(text, regex)
            }
        };
        matchers.push(Matcher { label: matcher.name, test });
    }
    Ok(Selector { name, matchers })
}

fn anchored(text: &str, piece: Piece<'_>) -> Result<Regex, Complaint> {
    compile(text).map_err(|_| {
        Complaint::new(piece.span(), "a label regex that cannot be read", "a regex of modest size")
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
    fn a_regex_is_what_promql_means_by_it() {
        let check = |text: &str, value: &str, expected: bool| {
            let read = selection(text, &mut Budget::new()).expect(text);
            assert_eq!(read.matches("a", &labels(&[("x", value)])), expected, "{text} {value}");
        };
        check(r#"a{x=~"5\\d+"}"#, "503", true);
        check(r#"a{x=~"5\\d+"}"#, "5x", false);
        check(r#"a{x=~'/it\'s'}"#, "/it's", true);
        check(r#"a{x=~`5.`}"#, "53", true);
        check(r#"a{x!~"4..|5.."}"#, "200", true);
        check(r#"a{x!~"4..|5.."}"#, "500", false);
        check(r#"a{x=~""}"#, "", true);
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
        check(r#"a{x=~"("}"#, r#""(""#, "not a regex");
        check(r#"a{x=~"\d"}"#, "\\", "backslash");
        check(r#"a{x=~`\\d`}"#, "\\", "backtick");
        check(&"(".repeat(100), "(", "too deeply");
        check(r#"a{x=~"(\\pL{900}){900}"}"#, r#""(\\pL{900}){900}""#, "too large");
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
    }
}
