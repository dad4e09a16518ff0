//! Mappings with known keys: what every level of a rule file is.
//!
//! Unknown keys, keys given twice and keys whose meaning is not built yet are complained about
//! here, once, for all levels.

use std::{ops::Range, time::Duration};

use super::{
    fault::{Complaint, Complaints, did_you_mean, excerpt, nearest},
    literal,
    tree::{Kind, Node, QUOTE_HINT, Scalar},
};

/// What a level of the file may hold.
pub(super) struct Shape {
    /// What it is, with its article: "a rule".
    pub(super) what: &'static str,
    /// Its keys.
    pub(super) keys: &'static [&'static str],
    /// Keys that the rule language has and this program does not: key, and what to do instead.
    pub(super) unbuilt: &'static [(&'static str, &'static str)],
}

/// The entries of one mapping.
pub(super) struct Table<'t> {
    shape: &'static Shape,
    span: Range<usize>,
    entries: Vec<Entry<'t>>,
    /// Whether a key was refused that has no near neighbour among the known ones.
    refused: bool,
}

/// One entry under the name it is read by: a misspelt key is complained about and then read as
/// what it was meant to be, so that the faults beneath it are found too.
struct Entry<'t> {
    name: &'static str,
    key: &'t Scalar,
    value: &'t Node,
}

impl<'t> Table<'t> {
    /// Reads a mapping; none when the node is something else.
    pub(super) fn read(
        node: &'t Node,
        shape: &'static Shape,
        out: &mut Complaints,
    ) -> Option<Self> {
        let Kind::Map(pairs) = &node.kind else {
            out.push(
                Complaint::new(
                    node.span.clone(),
                    format!("{} was given as {}", shape.what, describe(node)),
                    format!("a mapping with the keys {}", list(shape.keys)),
                )
                .hint_if(colon_hint(node)),
            );
            return None;
        };
        let mut entries: Vec<Entry<'_>> = Vec::new();
        let mut refused = false;
        for (key, value) in pairs {
            if let Some((_, instead)) = shape.unbuilt.iter().find(|(name, _)| *name == key.text) {
                out.push(not_built(key, instead));
                refused = true;
                continue;
            }
            let known = shape.keys.iter().find(|known| **known == key.text);
            if known.is_none() {
                out.push(unknown_key(key, value, shape));
            }
            // What has no value is rather the rest of a text with a comma than a misspelt key.
            let near = || nearest(&key.text, shape.keys.iter().copied());
            let near = || near().filter(|_| !is_valueless(value));
            match known.copied().or_else(near) {
                Some(name) if entries.iter().all(|earlier| earlier.name != name) => {
                    entries.push(Entry { name, key, value });
                }
                Some(_) if known.is_some() => out.push(twice(key)),
                Some(_) => {}
                None => refused = true,
            }
        }
        Some(Self { shape, span: node.span.clone(), entries, refused })
    }

    /// Whether keys were refused that may have said what is now missing.
    pub(super) fn has_refused(&self) -> bool {
        self.refused
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'t Node> {
        self.entries.iter().find(|entry| entry.name == key).map(|entry| entry.value)
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, key: &str, example: &str, out: &mut Complaints) -> Option<&'t Node> {
        let found = self.get(key);
        if found.is_none() {
            out.push(Complaint::new(
                self.span.clone(),
                format!("{} has no `{key}`", self.shape.what),
                format!("`{example}`"),
            ));
        }
        found
    }

    /// The bytes of the mapping's first line.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The keys that are there, in file order: the name each is read by, and where it stands.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'static str, &'t Scalar)> {
        self.entries.iter().map(|entry| (entry.name, entry.key))
    }
}

/// The complaint about a key whose meaning is not built.
pub(super) fn not_built(key: &Scalar, instead: &str) -> Complaint {
    Complaint::new(
        key.span.clone(),
        format!("`{}` is not built yet", key.text),
        "a file without it",
    )
    .hint(instead)
}

/// The complaint about a key given twice.
pub(super) fn twice(key: &Scalar) -> Complaint {
    Complaint::new(
        key.span.clone(),
        format!("`{}` is given twice", excerpt(&key.text)),
        "each key once",
    )
    .hint("keep the one that is meant: which of two would win is nobody's guess")
}

/// Of a text that a comma cut in two.
const COMMA_HINT: &str = "inside `{ }` a comma ends a text: put the text in single quotes, '...'";

fn unknown_key(key: &Scalar, value: &Node, shape: &Shape) -> Complaint {
    let complaint = Complaint::new(
        key.span.clone(),
        format!("unknown key `{}` in {}", excerpt(&key.text), shape.what),
        format!("one of {}", list(shape.keys)),
    )
    .hint_if(did_you_mean(&key.text, shape.keys.iter().copied()));
    if key.text == "<<" {
        return complaint
            .hint("YAML's merge keys are not read: write every value where it is used");
    }
    let is_word = key.text.chars().all(|c| c.is_alphanumeric() || c == '_');
    match (&complaint.hint, is_valueless(value) && !key.text.contains(':')) {
        (Some(near), true) => {
            let hint = format!("{near} If not: {COMMA_HINT}");
            complaint.hint(hint)
        }
        (None, true) => complaint.hint(COMMA_HINT),
        (None, false) if !is_word => complaint.hint(QUOTE_HINT),
        (None | Some(_), false) => complaint,
    }
}

/// Whether a key has nothing behind it: what a comma in a text leaves behind.
fn is_valueless(value: &Node) -> bool {
    matches!(&value.kind, Kind::Scalar(empty) if matches!(&*empty.text, "" | "~"))
}

/// A value that must be one piece of text.
pub(super) fn text<'t>(node: &'t Node, what: &str) -> Result<&'t Scalar, Complaint> {
    match &node.kind {
        Kind::Scalar(scalar) if !scalar.text.trim().is_empty() => Ok(scalar),
        Kind::Scalar(_) => Err(Complaint::new(
            node.span.clone(),
            format!("{what} is empty"),
            format!("{what} as text"),
        )),
        Kind::Map(_) | Kind::List(_) => Err(Complaint::new(
            node.span.clone(),
            format!("{what} was given as {}", describe(node)),
            format!("{what} as text"),
        )
        .hint(QUOTE_HINT)),
    }
}

/// A duration within limits.
pub(super) fn duration(
    source: &str,
    node: &Node,
    what: &str,
    limits: std::ops::RangeInclusive<Duration>,
) -> Result<Duration, Complaint> {
    let scalar = text(node, what)?;
    let value = literal::duration(&scalar.text)
        .map_err(|complaint| complaint.moved(|span| scalar.place(source, span)))?;
    if limits.contains(&value) {
        return Ok(value);
    }
    Err(Complaint::new(
        scalar.span.clone(),
        format!("{what} is {}", literal::duration_text(value)),
        format!(
            "a duration from {} to {}",
            literal::duration_text(*limits.start()),
            literal::duration_text(*limits.end())
        ),
    ))
}

/// One word of a list, with the value it stands for.
pub(super) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    choices: &[(&'static str, T)],
) -> Result<T, Complaint> {
    let scalar = text(node, what)?;
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == scalar.text) {
        return Ok(*value);
    }
    let words: Vec<&'static str> = choices.iter().map(|(word, _)| *word).collect();
    Err(Complaint::new(
        scalar.span.clone(),
        format!("{what} is `{}`", excerpt(&scalar.text)),
        format!("one of {}", list(&words)),
    )
    .hint_if(did_you_mean(&scalar.text, words.iter().copied())))
}

/// What a node is, in words.
pub(super) fn describe(node: &Node) -> String {
    match &node.kind {
        Kind::Map(_) => "a mapping".to_owned(),
        Kind::List(_) => "a list".to_owned(),
        Kind::Scalar(scalar) if scalar.text.trim().is_empty() => "nothing".to_owned(),
        Kind::Scalar(scalar) => format!("the text `{}`", excerpt(&scalar.text)),
    }
}

/// `a`, `b`, `c`
pub(super) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn colon_hint(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.text.contains(':') => {
            Some("a colon needs a blank after it: `key: value`".to_owned())
        }
        Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) => None,
    }
}
