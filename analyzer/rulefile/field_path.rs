//! Paths into the JSON body of a health answer: `active_connections`, `checks."disk space".free`,
//! `nodes[0].load`.
//!
//! ```text
//! path = ( name | index ) { "." name | index }
//! name = letter, digit, "_" or "-" { the same } | '"' text '"'
//! index = "[" digits "]"
//! ```
//!
//! In quotes a name may be anything; a quote in it is written `\"` and a backslash `\\`. It is
//! deliberately no query language: one path leads to one number.

use std::ops::Range;

use super::fault::{Complaint, excerpt};
use crate::signal::answer::{FieldPath, FieldStep, is_plain};

/// Longest path: it is part of every finding.
const MAX_BYTES: usize = 200;
/// Steps of one path; health answers are a few levels deep.
const MAX_STEPS: usize = 16;
/// Digits of an index.
const MAX_INDEX_DIGITS: usize = 4;

const EXPECTED: &str = "a path such as `active_connections` or `checks.\"disk space\".free`";

/// Reads the path that `text` begins with, and how many bytes it has, blanks before it included.
///
/// # Errors
/// At the first character that cannot belong to a path, with a place in `text`.
pub(super) fn read(text: &str) -> Result<(FieldPath, usize), Complaint> {
    let mut reader = Reader { text, at: text.len() - text.trim_start().len() };
    let begin = reader.at;
    let mut steps = vec![match reader.peek() {
        Some('[') => reader.index()?,
        _ => reader.name()?,
    }];
    loop {
        match reader.peek() {
            Some('.') => {
                reader.at += 1;
                steps.push(reader.name()?);
            }
            Some('[') => steps.push(reader.index()?),
            _ => break,
        }
        if steps.len() > MAX_STEPS || reader.at - begin > MAX_BYTES {
            break;
        }
    }
    if steps.len() > MAX_STEPS || reader.at - begin > MAX_BYTES {
        return Err(Complaint::new(
            begin..reader.at,
            "a very long path",
            format!("at most {MAX_STEPS} names and {MAX_BYTES} bytes"),
        ));
    }
    let path = FieldPath::new(steps).expect("the first step is always there");
    Ok((path, reader.at))
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// Where the next character is; after the end of the text, nothing.
    fn here(&self) -> Range<usize> {
        self.at..self.at + self.peek().map_or(0, char::len_utf8)
    }

    fn complain(&self, expected: &str) -> Complaint {
        let found = match self.peek() {
            Some(c) => format!("found `{}`", excerpt(&c.to_string())),
            None => "the condition ends here".to_owned(),
        };
        Complaint::new(self.here(), found, expected)
    }

    fn name(&mut self) -> Result<FieldStep, Complaint> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let rest = &self.text[self.at..];
        let name: String = rest.chars().take_while(|c| is_plain(*c)).collect();
        if name.is_empty() {
            let hint = match self.peek() {
                Some('$') => Some("a path begins with a name, without `$`"),
                Some('.') => Some("a path begins with a name, without a point before it"),
                Some('/') => Some("names are joined by points: `checks.db.latency_ms`"),
                Some('\'') => Some("odd names stand in double quotes: `\"disk space\"`"),
                Some(')') => Some("after the comma: where in the answer's JSON the number stands"),
                Some(_) | None => None,
            };
            return Err(self.complain(EXPECTED).hint_if(hint.map(str::to_owned)));
        }
        let begin = self.at;
        self.at += name.len();
        let ends = |c: char| c.is_whitespace() || matches!(c, '.' | '[' | ')');
        if self.peek().is_none_or(ends) {
            return Ok(FieldStep::Name(name));
        }
        let until = self.text[begin..].find([')', '[', '"', ' ']);
        let word = &self.text[begin..until.map_or(self.text.len(), |until| begin + until)];
        let complaint = self.complain("a name of letters, digits, `_` and `-`, or one in quotes");
        let hint = match self.peek() {
            Some('/') => "names are joined by points: `checks.db.latency_ms`".to_owned(),
            _ => format!("an odd name stands in double quotes: `\"{}\"`", excerpt(word)),
        };
        Err(complaint.hint(hint))
    }

    fn quoted(&mut self) -> Result<FieldStep, Complaint> {
        let open = self.at;
        let mut name = String::new();
        let mut chars = self.text[open + 1..].char_indices();
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' if name.is_empty() => {
                    let span = open..open + 2;
                    return Err(Complaint::new(span, "a name without a letter", EXPECTED));
                }
                '"' => {
                    self.at = open + 1 + offset + 1;
                    return Ok(FieldStep::Name(name));
                }
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => name.push(escaped),
                    Some((_, other)) => {
                        let start = open + 1 + offset;
                        return Err(Complaint::new(
                            start..start + 1 + other.len_utf8(),
                            "a backslash before what needs none",
                            "`\\\"` for a quote and `\\\\` for a backslash in a quoted name",
                        ));
                    }
                    None => break,
                },
                c => name.push(c),
            }
            if name.len() > MAX_BYTES {
                break;
            }
        }
        let span = open..open + 1;
        Err(Complaint::new(span, "this quote is never closed", "a `\"` after the name"))
    }

    fn index(&mut self) -> Result<FieldStep, Complaint> {
        let inside = &self.text[self.at + 1..];
        let digits = inside.len() - inside.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let closed = inside[digits..].starts_with(']');
        let index = inside[..digits].parse().ok().filter(|_| digits <= MAX_INDEX_DIGITS && closed);
        let Some(index) = index else {
            let end = inside.find(']').map_or(self.at + 1, |end| self.at + 1 + end + 1);
            let complaint = Complaint::new(
                self.at..end,
                "the place in a list",
                "a number from 0 in brackets, such as `[0]`",
            );
            let hint = inside.starts_with(['"', '\'']).then(|| {
                "a name stands after a point, without brackets: `checks.\"disk space\"`".to_owned()
            });
            return Err(complaint.hint_if(hint));
        };
        self.at += 1 + digits + 1;
        Ok(FieldStep::Index(index))
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn name(name: &str) -> FieldStep {
        FieldStep::Name(name.to_owned())
    }

    #[test]
    fn paths_are_read_as_far_as_they_go() {
        let check = |text: &str, steps: &[FieldStep], rest: &str| {
            let (path, end) = read(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
            assert_eq!((path.steps(), &text[end..]), (steps, rest), "{text}");
        };
        check("active_connections)", &[name("active_connections")], ")");
        check("  a.b-2 )", &[name("a"), name("b-2")], " )");
        check(
            "a[0].b[12])",
            &[name("a"), FieldStep::Index(0), name("b"), FieldStep::Index(12)],
            ")",
        );
        check("[3].x", &[FieldStep::Index(3), name("x")], "");
        check(r#"checks."disk space".v)"#, &[name("checks"), name("disk space"), name("v")], ")");
        check(r#""a\"b\\c)" > 5"#, &[name(r#"a"b\c)"#)], " > 5");
        check("5xx) > 5", &[name("5xx")], ") > 5");
    }

    #[test]
    fn what_is_no_path_is_refused_at_its_place() {
        let check = |text: &str, place: Range<usize>, part: &str| {
            let fault = read(text).expect_err(text);
            assert_eq!(fault.span, place, "{text}: {fault:?}");
            let words = format!("{} {} {:?}", fault.message, fault.expected, fault.hint);
            assert!(words.contains(part), "{text}: {words}");
        };
        check("", 0..0, "ends here");
        check(" )", 1..2, "after the comma");
        check(".a)", 0..1, "without a point");
        check("$.a)", 0..1, "without `$`");
        check("'a b')", 0..1, "double quotes");
        check("a.)", 2..3, "such as");
        check("a/b)", 1..2, "joined by points");
        check("cpu:load[0])", 3..4, "`\"cpu:load\"`");
        check("a,b)", 1..2, "odd name");
        check("\"a)", 0..1, "never closed");
        check("a.\"\")", 2..4, "without a letter");
        check(r#""a\n")"#, 2..4, "backslash");
        check("a[x])", 1..4, "from 0");
        check("a[-1])", 1..5, "from 0");
        check("a[12345])", 1..8, "from 0");
        check("a[\"b\"])", 1..6, "after a point");
        check("a[0", 1..2, "from 0");
        check("größe)", 2..4, "odd name");
        check(&format!("a{})", ".b".repeat(MAX_STEPS)), 0..1 + 2 * MAX_STEPS, "very long");
        check(&format!("{}.b)", "a".repeat(MAX_BYTES)), 0..MAX_BYTES + 2, "very long");
    }

    #[test]
    fn random_paths_are_read_as_they_are_written() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        const LETTERS: [char; 14] =
            ['a', 'Z', '0', '_', '-', '.', '"', '\\', ' ', '[', ']', ')', 'ß', '\u{1f600}'];
        for _ in 0..20_000 {
            let steps: Vec<FieldStep> = (0..rng.random_range(1..6))
                .map(|_| match rng.random_range(0..4) {
                    0 => FieldStep::Index(rng.random_range(0..10_000)),
                    _ => FieldStep::Name(
                        (0..rng.random_range(1..8))
                            .map(|_| LETTERS[rng.random_range(0..LETTERS.len())])
                            .collect(),
                    ),
                })
                .collect();
            let path = FieldPath::new(steps).expect("there are steps");
            let written = path.to_string();
            assert_eq!(read(&format!("{written}) > 5")), Ok((path, written.len())), "{written}");
            // What is broken is read or refused, and its place lies in the text.
            let mut broken: Vec<char> = written.chars().collect();
            let at = rng.random_range(0..broken.len());
            broken[at] = LETTERS[rng.random_range(0..LETTERS.len())];
            broken.truncate(rng.random_range(0..=broken.len()));
            let broken: String = broken.into_iter().collect();
            match read(&broken) {
                Ok((_, end)) => assert!(broken.is_char_boundary(end)),
                Err(fault) => assert!(broken.get(fault.span.clone()).is_some(), "{broken:?}"),
            }
        }
    }
}
