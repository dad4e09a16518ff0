//! Rule files: YAML text in, typed rules out, or every fault of the file with its place and a hint.
//!
//! The way of a file: `tree` reads YAML into nodes that know their place; `schema` reads the
//! top keys, `signals`, `selector` and `health_target` the signals, `release` when a release goes on,
//! `rules` the rules, whose conditions `token` cuts, `condition` parses (with `field_path` for paths
//! into a health answer) and `meaning` checks against the signals; `answers` makes signals of what is
//! asked of a health answer; `literal` holds numbers with units, `units` which of them fit which
//! signal, and `fault` what a person is told; `lint` warns of what can be judged and is hardly meant;
//! `json_schema` tells editors the shape. A form of the language that is not built is refused by
//! its name: nothing in a file is ever ignored.
//!
//! Invariants: text in, values out, no I/O; the time and memory a hostile file can cost are
//! bounded by the `MAX_*` limits of these modules; no input panics. Anchors, aliases, tags and
//! several documents in a file are deliberately not part of the language.

mod answers;
mod condition;
mod fault;
mod field_path;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod health_target;
pub mod json_schema;
pub mod lint;
mod literal;
mod meaning;
mod promql;
mod release;
pub mod remark;
mod rules;
mod schema;
mod selector;
mod signals;
mod table;
pub mod test_file;
mod token;
mod traffic;
mod tree;
mod units;

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use self::fault::{Complaint, Complaints};
pub use self::{
    fault::{Fault, Faults},
    literal::duration_text,
    traffic::{StatedTraffic, TRAFFIC_RPS_MAX},
};
use crate::{engine::rule::RuleSet, signal::spec::SignalSpec};

/// The largest rule file that is read. The five-page decision matrix of a real service is 4 KiB.
pub const MAX_FILE_BYTES: usize = 256 * 1024;

/// A rule file that has been read and checked.
#[derive(Clone, Debug)]
pub struct RuleFile {
    /// What the engine judges by.
    pub rules: RuleSet,
    /// What each signal is read from; same indices as `rules.signals`.
    pub specs: Vec<SignalSpec>,
    /// The file as it was.
    pub text: String,
    /// SHA-256 of the text, in lower-case hexadecimal: the version of the rules in a verdict.
    pub sha256: String,
    /// What the file says of the service's traffic.
    pub traffic: Option<StatedTraffic>,
    /// What should not stay as it is, though it can be judged: what the lints found and the file
    /// does not allow. In the order of places.
    pub warnings: Vec<Fault>,
    /// How many more warnings there were than are kept.
    pub warnings_unlisted: usize,
}

/// Reads a rule file. `file_name` only appears in faults.
///
/// # Errors
/// Every fault of the file at once, in the order of their places. A YAML syntax fault hides what
/// comes after it, since nothing behind it can be read with confidence.
pub fn load(file_name: &str, text: &str) -> Result<RuleFile, Faults> {
    load_at(file_name, text, None)
}

/// [`load`], with the lints told of this traffic in the place of what the file states.
///
/// # Errors
/// As [`load`].
pub fn load_at(
    file_name: &str,
    text: &str,
    traffic: Option<StatedTraffic>,
) -> Result<RuleFile, Faults> {
    let mut complaints = Complaints::default();
    if text.len() > MAX_FILE_BYTES {
        complaints.push(
            Complaint::new(
                0..0,
                format!("the file has {} bytes", text.len()),
                format!("a rule file of at most {} KiB", MAX_FILE_BYTES / 1024),
            )
            .hint("is this a recording or a manifest rather than a rule file?"),
        );
        return Err(complaints.into_faults(file_name, ""));
    }
    let root = complaints.keep(tree::parse(text));
    let read = root.as_ref().and_then(|root| schema::read(text, root, &mut complaints));
    let (Some(root), Some(read), true) = (root, read, complaints.is_empty()) else {
        return Err(complaints.into_faults(file_name, text));
    };
    let schema::Read { rules, specs, traffic: stated } = read;
    let subject = lint::Subject {
        source: text,
        root: &root,
        rules: &rules,
        specs: &specs,
        traffic: traffic.or(stated),
    };
    let (warnings, warnings_unlisted) = lint::run(&subject).placed(file_name, text);
    Ok(RuleFile {
        rules,
        specs,
        text: text.to_owned(),
        sha256: sha256_hex(text),
        traffic: stated,
        warnings,
        warnings_unlisted,
    })
}

/// SHA-256 of a rule file's text, in lower-case hexadecimal: its version, as verdicts name it.
pub fn sha256_hex(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
    }
    hex
}
