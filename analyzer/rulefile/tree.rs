//! YAML text as a tree whose nodes know their place.
//!
//! Scalars stay text: whether `5m` is a duration is for the reader of that key to say, so YAML's
//! own guesses (`no`, `1e3`, `0x10`, `1:30`) never reach a rule. Anchors, aliases, tags and further
//! documents are refused. Depth and node count are bounded before anything is kept.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::fault::{Complaint, excerpt};

/// Rule files are at most four levels deep.
const MAX_DEPTH: usize = 12;
/// Far above what the limits on signals and rules allow.
const MAX_NODES: usize = 20_000;

/// What a condition or selector that YAML would not leave alone needs.
pub(super) const QUOTE_HINT: &str = "put conditions and selectors in single quotes when they hold \
     `{`, `: ` or `#`, or begin with one of `>`, `%`, `[`, `*`, `&`, `!`, `@` or a quote: '...'";

/// A node and the bytes it covers; a block collection covers the rest of its first line.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Map(Vec<(Scalar, Node)>),
    List(Vec<Node>),
    Scalar(Scalar),
}

impl Node {
    /// The entry of a mapping under this key.
    pub(super) fn entry(&self, key: &str) -> Option<(&Scalar, &Node)> {
        let Kind::Map(entries) = &self.kind else { return None };
        entries.iter().find(|(name, _)| name.text == key).map(|(name, node)| (name, node))
    }

    /// The text, where the node is one piece of it.
    pub(super) fn scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            Kind::Map(_) | Kind::List(_) => None,
        }
    }
}

/// A scalar: its text, and where it stands with its quotes.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) span: Range<usize>,
}

impl Scalar {
    /// Where in the file a part of this scalar's text stands. Exact for everything that is
    /// written on one line; for folded and block text it is the place the characters line up with.
    pub(super) fn place(&self, source: &str, part: Range<usize>) -> Range<usize> {
        let raw = &source[self.span.clone()];
        let mut starts = Vec::with_capacity(self.text.len() + 1);
        let mut at = if raw.starts_with(['"', '\'']) { 1 } else { 0 };
        for wanted in self.text.chars() {
            let step = raw_step(raw, &mut at, wanted);
            starts.extend(std::iter::repeat_n(at, wanted.len_utf8()));
            at += step;
        }
        starts.push(at.min(raw.len()));
        let at = |offset: usize| self.span.start + starts[offset.min(starts.len() - 1)];
        let (start, end) = (at(part.start), at(part.end));
        start..end.max(start)
    }
}

/// Moves `at` to where `wanted` is written and says how many bytes it takes there.
fn raw_step(raw: &str, at: &mut usize, wanted: char) -> usize {
    let quoted_double = raw.starts_with('"');
    while let Some(found) = raw.get(*at..).and_then(|rest| rest.chars().next()) {
        if found == '\\' && quoted_double {
            let rest = &raw[*at + 1..];
            let extra = match rest.chars().next() {
                Some('x') => 2,
                Some('u') => 4,
                Some('U') => 8,
                Some(_) | None => 0,
            };
            let escaped = rest.chars().next().map_or(0, char::len_utf8);
            return (1 + escaped + extra).min(raw.len() - *at);
        }
        if found == wanted {
            let doubled =
                found == '\'' && raw.starts_with('\'') && raw[*at + 1..].starts_with('\'');
            return if doubled { 2 } else { found.len_utf8() };
        }
        if !found.is_whitespace() {
            return 0;
        }
        if wanted.is_whitespace() {
            // A folded line break: the whole run of blanks is one blank.
            let run = raw[*at..].len() - raw[*at..].trim_start().len();
            return run;
        }
        *at += found.len_utf8();
    }
    0
}

/// Reads one document.
pub(super) fn parse(source: &str) -> Result<Node, Complaint> {
    let mut builder = Builder { source, events: Parser::new_from_str(source), nodes: 0 };
    builder.document()
}

struct Builder<'s> {
    source: &'s str,
    events: Parser<'s, StrInput<'s>>,
    nodes: usize,
}

impl<'s> Builder<'s> {
    fn document(&mut self) -> Result<Node, Complaint> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_none() => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span, 0)?);
                }
                Event::DocumentStart(..) => {
                    return Err(Complaint::new(
                        self.first_line(self.range(span)),
                        "a second document begins here",
                        "one rule file, one document",
                    )
                    .hint("put each service's rules into a file of its own"));
                }
                Event::StreamEnd => break,
                _ => {}
            }
        }
        root.ok_or_else(|| empty_file(0..0))
    }

    fn next(&mut self) -> Result<(Event<'s>, Span), Complaint> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => {
                let end = self.source.len();
                Err(Complaint::new(end..end, "the file ends too early", "more YAML"))
            }
        }
    }

    fn node(&mut self, event: Event<'s>, span: Span, depth: usize) -> Result<Node, Complaint> {
        let range = self.range(span);
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err(Complaint::new(
                self.first_line(range),
                "the file is nested too deeply or has too many entries",
                format!("at most {MAX_DEPTH} levels and {MAX_NODES} entries"),
            ));
        }
        if event.anchor_id().is_some_and(|id| id > 0) || event.is_alias() {
            return Err(Complaint::new(
                self.first_line(range),
                "YAML anchors and aliases are not part of rule files",
                "every value written where it is used",
            )
            .hint("a value that begins with `*` or `&` must be quoted"));
        }
        if let Some(tag) = event.tag() {
            return Err(Complaint::new(
                self.first_line(range),
                format!("the YAML tag `{}` has no meaning here", excerpt(&tag.original())),
                "a plain value",
            ));
        }
        match event {
            Event::Scalar(text, style, ..) => {
                let span = self.scalar_range(range, style);
                let scalar = Scalar { text: text.into_owned(), span: span.clone() };
                Ok(Node { span, kind: Kind::Scalar(scalar) })
            }
            Event::SequenceStart(..) => self.list(range.start, depth),
            Event::MappingStart(..) => self.map(range.start, depth),
            _ => Err(Complaint::new(range, "unexpected YAML", "a value")),
        }
    }

    fn list(&mut self, start: usize, depth: usize) -> Result<Node, Complaint> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                let span = self.first_line(start..self.range(span).end);
                return Ok(Node { span, kind: Kind::List(items) });
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn map(&mut self, start: usize, depth: usize) -> Result<Node, Complaint> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                let span = self.first_line(start..self.range(span).end);
                return Ok(Node { span, kind: Kind::Map(entries) });
            }
            let key = self.node(event, span, depth + 1)?;
            let Kind::Scalar(key) = key.kind else {
                return Err(Complaint::new(key.span, "a key that is not a word", "`key: value`")
                    .hint(QUOTE_HINT));
            };
            let (event, span) = self.next()?;
            entries.push((key, self.node(event, span, depth + 1)?));
        }
    }

    fn range(&self, span: Span) -> Range<usize> {
        let range = span.byte_range().unwrap_or(0..0);
        let end = range.end.min(self.source.len());
        range.start.min(end)..end
    }

    /// The parser's span of a plain scalar may run on over blanks; of a block scalar it is kept.
    fn scalar_range(&self, range: Range<usize>, style: ScalarStyle) -> Range<usize> {
        match style {
            ScalarStyle::Plain => {
                let end = range.start + self.source[range.clone()].trim_end().len();
                range.start..end
            }
            _ => range,
        }
    }

    fn first_line(&self, range: Range<usize>) -> Range<usize> {
        let line = self.source[range.start..].find('\n').unwrap_or(self.source.len() - range.start);
        let end = range.end.min(range.start + line).max(range.start);
        range.start..range.start + self.source[range.start..end].trim_end().len()
    }

    fn syntax(&self, error: &granit_parser::ScanError) -> Complaint {
        let marker = error.marker();
        let at = marker.byte_offset().unwrap_or(0).min(self.source.len());
        let rest = self.source[at..].chars().next().map_or(0, char::len_utf8);
        let line_start = self.source[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = self.source[at..].find('\n').map_or(self.source.len(), |n| at + n);
        let line = &self.source[line_start..line_end];
        let hint = if line[..line.len() - line.trim_start().len()].contains('\t') {
            "indent with spaces: YAML does not allow tabs".to_owned()
        } else if error.info().contains("flow") {
            format!("is a `{{` or `[` before this never closed? if not: {QUOTE_HINT}")
        } else {
            QUOTE_HINT.to_owned()
        };
        Complaint::new(
            at..at + rest,
            format!("YAML cannot be read: {}", error.info()),
            "valid YAML",
        )
        .hint(hint)
    }
}

/// The complaint about a file without content.
pub(super) fn empty_file(span: Range<usize>) -> Complaint {
    Complaint::new(
        span,
        "the file is empty",
        "a rule file: version, service, signals, rules, promote",
    )
    .hint("start from rules/recommended.yaml")
}
