//! Numbers of a health endpoint's answer: how long it took, and what its JSON body says at a path.

use std::fmt::{self, Write as _};

/// Which number of a health answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerNumber {
    /// Seconds to its end.
    Latency,
    /// A number of its JSON body.
    Field(FieldPath),
}

/// Where in a JSON document a number stands: the names and places to go through, outermost first.
///
/// Written as in a rule file: `checks."disk space".free`, `nodes[0].load`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    steps: Vec<FieldStep>,
}

/// One step into a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldStep {
    /// The member of an object.
    Name(String),
    /// The element of a list, from 0.
    Index(usize),
}

impl FieldPath {
    /// A path of these steps; none when there are none.
    pub fn new(steps: Vec<FieldStep>) -> Option<Self> {
        (!steps.is_empty()).then_some(Self { steps })
    }

    /// The steps, outermost first; at least one.
    pub fn steps(&self) -> &[FieldStep] {
        &self.steps
    }

    /// The innermost name, from which the unit is read; none when there are only places in lists.
    pub fn last_name(&self) -> Option<&str> {
        self.steps.iter().rev().find_map(|step| match step {
            FieldStep::Name(name) => Some(name.as_str()),
            FieldStep::Index(_) => None,
        })
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                FieldStep::Index(at) => write!(f, "[{at}]")?,
                FieldStep::Name(name) => {
                    if index > 0 {
                        f.write_char('.')?;
                    }
                    write_name(f, name)?;
                }
            }
        }
        Ok(())
    }
}

fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    if !name.is_empty() && name.chars().all(is_plain) {
        return f.write_str(name);
    }
    f.write_char('"')?;
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char('"')
}

/// Whether a name may hold this character without quotes.
pub fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}
