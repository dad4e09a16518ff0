//! The part of PromQL that a verdict is asked for with: a metric name with label matchers, and
//! `vector(NUMBER)`, by which Flagger finds out whether anybody is there.
//!
//! Read here and not by a parser of all PromQL: such parsers compile a query's regular expressions
//! without a limit on their size, and queries come from outside.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

/// Bytes of a query.
pub(super) const QUERY_BYTES_MAX: usize = 8 * 1024;

/// Matchers of a query.
const MATCHERS_MAX: usize = 32;

/// Compiled size of one regular expression.
const REGEX_BYTES_MAX: usize = 64 * 1024;

/// The label that is the metric's name.
pub(super) const NAME: &str = "__name__";

/// What is asked.
#[derive(Debug)]
pub(super) enum Query {
    /// A number, as a vector of one series without labels.
    Number(f64),
    /// Series by their labels.
    Series(Vec<Matcher>),
}

/// One condition on one label; a label that is not there is empty.
#[derive(Debug)]
pub(super) struct Matcher {
    pub(super) label: String,
    pub(super) test: Test,
}

#[derive(Debug)]
pub(super) enum Test {
    Equal(String),
    NotEqual(String),
    Like(Regex),
    NotLike(Regex),
}

impl Matcher {
    /// Whether these labels fulfil it.
    pub(super) fn holds(&self, labels: &BTreeMap<&str, &str>) -> bool {
        let value = labels.get(self.label.as_str()).copied().unwrap_or("");
        match &self.test {
            Test::Equal(expected) => value == expected,
            Test::NotEqual(expected) => value != expected,
            Test::Like(regex) => regex.is_match(value),
            Test::NotLike(regex) => !regex.is_match(value),
        }
    }
}

/// The value that a label must have, where only one will do.
pub(super) fn only<'a>(matchers: &'a [Matcher], label: &str) -> Option<&'a str> {
    matchers.iter().find_map(|matcher| match &matcher.test {
        Test::Equal(value) if matcher.label == label && !value.is_empty() => Some(value.as_str()),
        Test::Equal(_) | Test::NotEqual(_) | Test::Like(_) | Test::NotLike(_) => None,
    })
}

/// Reads a query.
///
/// # Errors
/// In words, with the byte at which it went wrong.
pub(super) fn parse(text: &str) -> Result<Query, String> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(format!("{} bytes, at most {QUERY_BYTES_MAX} are read", text.len()));
    }
    if let Some(number) = number(text) {
        return Ok(Query::Number(number));
    }
    let mut reader = Reader { text, at: 0 };
    let mut matchers = Vec::new();
    let name = reader.word(|c| c == ':').to_owned();
    if !name.is_empty() {
        matchers.push(Matcher { label: NAME.to_owned(), test: Test::Equal(name) });
    }
    if reader.takes("{") {
        while !reader.takes("}") {
            if matchers.len() > MATCHERS_MAX {
                return Err(format!("more than {MATCHERS_MAX} matchers"));
            }
            matchers.push(reader.matcher()?);
            if !reader.takes(",") && !reader.is_at("}") {
                return Err(reader.fault("`,` or `}`"));
            }
        }
    }
    reader.space();
    if !reader.rest().is_empty() {
        return Err(reader.fault("the end: only a metric name with label matchers is answered"));
    }
    if matchers.is_empty() {
        return Err(reader.fault("a metric name"));
    }
    Ok(Query::Series(matchers))
}

/// The number of `vector(NUMBER)`.
fn number(text: &str) -> Option<f64> {
    let inner = text.trim().strip_prefix("vector")?.trim_start().strip_prefix('(')?;
    inner.strip_suffix(')')?.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn is_at(&mut self, mark: &str) -> bool {
        self.space();
        self.rest().starts_with(mark)
    }

    fn takes(&mut self, mark: &str) -> bool {
        let is_there = self.is_at(mark);
        if is_there {
            self.at += mark.len();
        }
        is_there
    }

    /// A name; empty where there is none.
    fn word(&mut self, more: fn(char) -> bool) -> &'a str {
        self.space();
        let rest = self.rest();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || more(c);
        let end = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            return "";
        }
        self.at += end;
        &rest[..end]
    }

    fn matcher(&mut self) -> Result<Matcher, String> {
        let label = self.word(|_| false).to_owned();
        if label.is_empty() {
            return Err(self.fault("a label"));
        }
        let operators = ["=~", "!~", "!=", "="];
        let Some(operator) = operators.into_iter().find(|operator| self.takes(operator)) else {
            return Err(self.fault("`=`, `!=`, `=~` or `!~`"));
        };
        let value = self.quoted()?;
        let test = match operator {
            "=~" => Test::Like(regex(&value)?),
            "!~" => Test::NotLike(regex(&value)?),
            "!=" => Test::NotEqual(value),
            _ => Test::Equal(value),
        };
        Ok(Matcher { label, test })
    }

    /// A text in quotes, with the escapes that matter; between backticks there are none.
    fn quoted(&mut self) -> Result<String, String> {
        self.space();
        let mut chars = self.rest().char_indices();
        let mark = chars.next().map(|(_, mark)| mark).filter(|mark| "\"'`".contains(*mark));
        let Some(mark) = mark else { return Err(self.fault("a text in quotes")) };
        let mut value = String::new();
        while let Some((at, c)) = chars.next() {
            if c == mark {
                self.at += at + c.len_utf8();
                return Ok(value);
            }
            if c != '\\' || mark == '`' {
                value.push(c);
                continue;
            }
            match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c)) if "\\\"'".contains(c) => value.push(c),
                Some(_) | None => {
                    return Err(self.fault("no other escape than \\\\, \\\", \\', \\n, \\t"));
                }
            }
        }
        Err(self.fault("the end of the quotes"))
    }

    fn fault(&self, expected: &str) -> String {
        let found: String = self.rest().chars().take(20).collect();
        format!("{}: parse error: {found:?} found, expected {expected}", self.at + 1)
    }
}

/// Over the whole value, as Prometheus has it.
fn regex(pattern: &str) -> Result<Regex, String> {
    let whole = format!("^(?s:{pattern})$");
    let built = RegexBuilder::new(&whole).size_limit(REGEX_BYTES_MAX).build();
    built.map_err(|_| format!("{pattern:.60?} is no regular expression that is read here"))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn holds(text: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
        match parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}")) {
            Query::Series(matchers) => matchers.iter().all(|matcher| matcher.holds(&labels)),
            Query::Number(number) => panic!("{text}: {number}"),
        }
    }

    #[test]
    fn series_are_matched_as_prometheus_does() {
        let shop = [(NAME, "rollgate_verdict"), ("service", "shop"), ("canary_version", "v2.1")];
        for text in [
            "rollgate_verdict",
            " rollgate_verdict { service = \"shop\" , } ",
            "rollgate_verdict{service=~\"sh.p|till\"}",
            "rollgate_verdict{canary_version='v2.1',service!='till'}",
            "{__name__=`rollgate_verdict`}",
            "{__name__=~\"rollgate_.*\",other=\"\"}",
            "rollgate_verdict{service!~\"op\"}",
            "rollgate_verdict{service=\"\\u\"}".trim_end_matches("{service=\"\\u\"}"),
        ] {
            assert!(holds(text, &shop), "{text}");
        }
        for text in [
            "rollgate_verdict_final",
            "rollgate_verdict{service=\"sho\"}",
            "rollgate_verdict{service=~\"sho\"}",
            "rollgate_verdict{canary_version=~\"v2\"}",
            "rollgate_verdict{other!=\"\"}",
        ] {
            assert!(!holds(text, &shop), "{text}");
        }
    }

    #[test]
    fn numbers_answer_who_asks_whether_we_are_there() {
        for (text, expected) in [("vector(1)", 1.0), (" vector ( -2.5 ) ", -2.5)] {
            match parse(text) {
                Ok(Query::Number(number)) => assert_eq!(number, expected, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_place() {
        let check = |text: &str, expected: &str| {
            let fault = parse(text).expect_err(text);
            assert!(fault.contains(expected), "{text}: {fault}");
        };
        check("", "expected a metric name");
        check("{}", "expected a metric name");
        check("rollgate_verdict[5m]", "17: parse error: \"[5m]\" found, expected the end");
        check("rollgate_verdict offset 1e300", "only a metric name");
        check("sum(rollgate_verdict)", "only a metric name");
        check("rollgate_verdict > 0", "only a metric name");
        check("rollgate_verdict{service}", "expected `=`");
        check("rollgate_verdict{service=shop}", "a text in quotes");
        check("rollgate_verdict{service=\"shop}", "the end of the quotes");
        check("rollgate_verdict{service=\"\\x\"}", "no other escape");
        check("rollgate_verdict{service=\"a\" b=\"c\"}", "`,` or `}`");
        check("rollgate_verdict{,}", "a label");
        check("rollgate_verdict{service=~\"(\"}", "no regular expression");
        check("rollgate_verdict{service=~\"(a{1000}){1000}\"}", "no regular expression");
        check("vector(NaN)", "only a metric name");
        check(&"x".repeat(QUERY_BYTES_MAX + 1), "bytes");
        check(&format!("m{{{}}}", "a=\"\",".repeat(100)), "matchers");
    }

    #[test]
    fn no_text_makes_it_panic() {
        let seed = 20_261_121;
        let mut random = StdRng::seed_from_u64(seed);
        let pieces = [
            "rollgate_verdict",
            "{",
            "}",
            "=",
            "!",
            "~",
            "\"",
            "'",
            "`",
            "\\",
            ",",
            " ",
            "a",
            "0",
            "é",
            "\n",
            "vector(",
            ")",
            "1",
            "[",
            "(",
            ".*",
            "\u{0}",
        ];
        for _ in 0..20_000 {
            let length = random.random_range(0..12);
            let text: String =
                (0..length).map(|_| pieces[random.random_range(0..pieces.len())]).collect();
            if let Err(fault) = parse(&text) {
                assert!(!fault.is_empty(), "seed {seed}: {text}");
            }
        }
    }
}
