//! Faults and warnings of YAML files that are no rule files, placed by the keys that they are about:
//! whoever reads `mechanisms.deploy.webhook.url is ...` is shown the line.
//!
//! What the file says is read elsewhere; this only finds places. Lines with a URL are not shown:
//! that of a chat is a secret.

use std::ops::Range;

use super::{
    Fault, Faults,
    fault::{Complaint, Complaints, Warning},
    tree::{self, Node},
};

/// Something to say about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Where.
    pub place: Place,
    /// What was found.
    pub message: String,
    /// What was expected instead.
    pub expected: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Of a warning, its lint and what comes of it.
    pub warning: Option<(&'static str, String)>,
}

/// Where in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Under these keys, with dots between them; the deepest that is there.
    Keys(String),
    /// At a line and a column, from 1.
    Position(usize, usize),
}

/// The remarks as faults.
pub fn faults(file: &str, text: &str, remarks: Vec<Remark>) -> Faults {
    complaints(text, remarks).into_faults(file, text)
}

/// The remarks as warnings with their places, and how many more there were than are kept.
pub fn warnings(file: &str, text: &str, remarks: Vec<Remark>) -> (Vec<Fault>, usize) {
    complaints(text, remarks).placed(file, text)
}

fn complaints(text: &str, remarks: Vec<Remark>) -> Complaints {
    // A file with anchors is no tree here; its remarks stand at its beginning then.
    let root = tree::parse(text).ok();
    let mut complaints = Complaints::default();
    for Remark { place, message, expected, hint, warning } in remarks {
        let span = match place {
            Place::Keys(keys) => root.as_ref().and_then(|root| span_of(root, &keys)),
            Place::Position(line, column) => Some(span_at(text, line, column)),
        };
        let span = span.unwrap_or(0..0);
        let mut complaint = Complaint::new(span.clone(), message, expected).hint_if(hint);
        complaint.warning = warning.map(|(lint, means)| Box::new(Warning { lint, means }));
        let is_secret = line_of(text, span.start).contains("://");
        complaints.push(if is_secret { complaint.secret() } else { complaint });
    }
    complaints
}

/// The deepest key that is there.
fn span_of(root: &Node, keys: &str) -> Option<Range<usize>> {
    let (mut node, mut rest, mut found) = (root, keys, None);
    while let tree::Kind::Map(entries) = &node.kind {
        // A name may hold dots itself, so that the longest that fits is meant.
        let fits = |key: &&str| {
            rest.strip_prefix(*key).is_some_and(|after| after.is_empty() || after.starts_with('.'))
        };
        let names = entries.iter().map(|(name, _)| name.text.as_str());
        let Some(key) = names.filter(fits).max_by_key(|key| key.len()) else { break };
        let Some((name, below)) = node.entry(key) else { break };
        found = Some(name.span.clone());
        rest = rest[key.len()..].trim_start_matches('.');
        node = below;
    }
    found
}

/// The character at a line and a column.
fn span_at(text: &str, line: usize, column: usize) -> Range<usize> {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = &text[start.min(text.len())..];
    let rest = rest.split('\n').next().unwrap_or_default();
    let before = rest.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum::<usize>();
    let at = (start + before).min(text.len());
    let width = text[at..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
    at..at + width
}

fn line_of(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    text[start..].split('\n').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "listen: 1\nmechanisms:\n  a.b: { webhook: { url: x } }\n  c:\n    slack:\n      url: https://h/secret\n";

    #[test]
    fn remarks_stand_where_their_keys_are() {
        let check = |place: Place, expected: (usize, usize, &str)| {
            let remark = Remark {
                place,
                message: "m".to_owned(),
                expected: "e".to_owned(),
                hint: None,
                warning: None,
            };
            let faults = faults("f", TEXT, vec![remark]);
            let fault = faults.iter().next().expect("one");
            let found = (fault.line, fault.column, &TEXT[fault.span.clone()]);
            assert_eq!(found, expected);
            assert!(!faults.render(false).contains("secret"), "{}", faults.render(false));
        };
        let keys = |keys: &str| Place::Keys(keys.to_owned());
        check(keys("listen"), (1, 1, "listen"));
        check(keys("mechanisms.a.b.webhook.url"), (3, 21, "url"));
        check(keys("mechanisms.a.b.webhook.headers.x"), (3, 10, "webhook"));
        check(keys("mechanisms.c.slack.url"), (6, 7, "url"));
        check(keys("nothing.of.it"), (1, 1, ""));
        check(Place::Position(4, 3), (4, 3, "c"));
        check(Place::Position(99, 9), (7, 1, ""));
    }
}
