//! What `check --format github` says: workflow commands, which a GitHub job shows as annotations
//! beside the lines of a pull request.
//!
//! Source: GitHub Actions, "Workflow commands", with the escapes of its toolkit.

use super::{Checked, Outcome};
use crate::rulefile::Fault;

/// One command a line.
pub fn render(checked: &[Checked]) -> String {
    let mut out = String::new();
    for Checked { name, outcome, .. } in checked {
        match outcome {
            Outcome::Good(file) => file.warnings.iter().for_each(|fault| out += &command(fault)),
            Outcome::Config(picture) => {
                picture.warnings.iter().for_each(|fault| out += &command(fault));
            }
            Outcome::Hook(_) | Outcome::Tests { .. } => {}
            Outcome::Faulty(faults) => faults.iter().for_each(|fault| out += &command(fault)),
            Outcome::Unreadable(error) => {
                let (file, error) = (property(name), data(error));
                out += &format!("::error file={file},title=rule file::{error}\n");
            }
        }
        let unlisted = outcome.unlisted();
        if unlisted > 0 {
            let file = property(name);
            out +=
                &format!("::notice file={file},title=rule file::and {unlisted} more after these\n");
        }
    }
    out
}

fn command(fault: &Fault) -> String {
    let (level, title) = match fault.lint {
        None => ("error", "rule file".to_owned()),
        Some(lint) => ("warning", format!("rule file ({lint})")),
    };
    // Columns are taken only where both are on one line.
    let columns = match fault.line == fault.end_line {
        true => format!(",col={},endColumn={}", fault.column, fault.end_column),
        false => String::new(),
    };
    format!(
        "::{level} file={},line={},endLine={}{columns},title={}::{}\n",
        property(&fault.file),
        fault.line,
        fault.end_line,
        property(&title),
        data(&super::paragraph(fault)),
    )
}

/// What stands behind the `::`.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// What stands between commas.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_command_is_escaped() {
        for (text, in_data, in_property) in [
            ("5% of a,b: c", "5%25 of a,b: c", "5%25 of a%2Cb%3A c"),
            ("a\r\nb", "a%0D%0Ab", "a%0D%0Ab"),
            ("::error ::%0A", "::error ::%250A", "%3A%3Aerror %3A%3A%250A"),
        ] {
            assert_eq!((data(text).as_str(), property(text).as_str()), (in_data, in_property));
        }
    }
}
