//! Texts with names in braces that are filled in for each release: `{service}-green`.
//!
//! What may stand in the braces is said when a pattern is read, so that a misspelt name is a fault
//! of the configuration and not of a release.

/// A text with names to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A name that is not known here.
    #[error("{{{found}}} is not known, expected one of {known}")]
    Unknown {
        /// The name.
        found: String,
        /// What could stand there.
        known: String,
    },
    /// An opening brace without its closing one.
    #[error("`{{` without `}}`")]
    Open,
}

impl Pattern {
    /// Reads a pattern whose names are all among `known`. A doubled brace stands for itself.
    ///
    /// # Errors
    /// When a name is not known, or a brace is not closed.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, PatternError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
            } else if brace == "}" {
                plain.push('}');
            } else {
                let (name, after) = rest.split_once('}').ok_or(PatternError::Open)?;
                if !known.contains(&name) {
                    let known: Vec<String> =
                        known.iter().map(|name| format!("{{{name}}}")).collect();
                    let (found, known) = (name.to_owned(), known.join(", "));
                    return Err(PatternError::Unknown { found, known });
                }
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Name(name.to_owned()));
                rest = after;
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// A pattern that is always filled in with nothing.
    pub fn empty() -> Self {
        Self { text: String::new(), parts: Vec::new() }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a name stands in it.
    pub fn names(&self, name: &str) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Name(found) if found == name))
    }

    /// Every name in it, as often as it stands there.
    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Name(name) => Some(name.as_str()),
        })
    }

    /// Fills the names in.
    pub fn fill<'a>(&self, value: impl Fn(&str) -> &'a str) -> String {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Name(name) => filled.push_str(value(name)),
            }
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["service", "version"];

    #[test]
    fn names_are_filled_in() {
        let check = |text: &str, expected: &str| {
            let pattern = Pattern::parse(text, &KNOWN).expect("a pattern");
            let value = |name: &str| if name == "service" { "shop" } else { "v2" };
            assert_eq!((pattern.fill(value).as_str(), pattern.as_str()), (expected, text));
        };
        check("", "");
        check("plain", "plain");
        check("{service}", "shop");
        check("a-{service}-{version}{service}-z", "a-shop-v2shop-z");
        check("{{service}} }", "{service} }");
    }

    #[test]
    fn what_is_not_known_is_named() {
        let check = |text: &str, expected: &str| {
            let error = Pattern::parse(text, &KNOWN).expect_err("no pattern").to_string();
            assert_eq!(error, expected, "{text}");
        };
        check("{sevice}", "{sevice} is not known, expected one of {service}, {version}");
        check("{}", "{} is not known, expected one of {service}, {version}");
        check("a{service", "`{` without `}`");
    }
}
