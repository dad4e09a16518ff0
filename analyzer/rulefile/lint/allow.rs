//! `allow:`: the lints that a file, or one rule, does without; and the lint of those that are needless.

use std::ops::Range;

use super::{ALL, Finding, Lint, Subject};
use crate::rulefile::{
    fault::{Complaint, Complaints, did_you_mean, excerpt},
    table,
    tree::{Kind, Node},
};

pub(super) static LINT: Lint = Lint {
    name: "unused-allow",
    what: "an `allow` of a lint that does not warn",
    why: "What it once allowed is mended; it would hide the next one of its kind.",
    needs_traffic: false,
    // Found by `sift`, when all the others have been asked.
    look: |_, _| {},
};

/// One name under an `allow`, and where it stands.
pub(in crate::rulefile) struct Allowed {
    lint: &'static Lint,
    span: Range<usize>,
}

/// Reads an `allow`: a name, or a list of names.
pub(in crate::rulefile) fn read(node: &Node, out: &mut Complaints) -> Vec<Allowed> {
    let one = std::slice::from_ref(node);
    let names = match &node.kind {
        Kind::List(items) => items.as_slice(),
        Kind::Scalar(_) | Kind::Map(_) => one,
    };
    names.iter().filter_map(|node| out.keep(read_name(node))).collect()
}

fn read_name(node: &Node) -> Result<Allowed, Complaint> {
    let scalar = table::text(node, "the name of a lint")
        .map_err(|complaint| complaint.hint("`allow: NAME`, or `allow: [NAME, NAME]`"))?;
    let name = scalar.text.trim();
    if let Some(lint) = ALL.iter().find(|lint| lint.name == name) {
        return Ok(Allowed { lint, span: scalar.span.clone() });
    }
    Err(Complaint::new(
        scalar.span.clone(),
        format!("there is no lint `{}`", excerpt(name)),
        "the name in the brackets of a warning; `rollgate check --list-lints` names all",
    )
    .hint_if(did_you_mean(name, ALL.iter().map(|lint| lint.name))))
}

/// Leaves out what is allowed, and adds what is allowed for nothing.
pub(super) fn sift(subject: &Subject, findings: Vec<Finding>) -> Complaints {
    let read = |node: Option<&Node>| {
        let list = node.map(|node| read(node, &mut Complaints::default())).unwrap_or_default();
        list.into_iter().map(|allowed| (allowed, false)).collect::<Vec<(Allowed, bool)>>()
    };
    let mut of_file = read(subject.value("allow"));
    let mut of_rules: Vec<_> = (0..subject.rules.rules.len())
        .map(|rule| read(subject.rule_value(rule, "allow")))
        .collect();
    let mut out = Complaints::default();
    let mut sift = |finding: Finding, of_rules: &mut Vec<Vec<(Allowed, bool)>>| {
        let of_rule = finding.rule.and_then(|rule| of_rules.get_mut(rule));
        let mut lists = of_rule.into_iter().flatten().chain(&mut of_file);
        match lists.find(|(allowed, _)| allowed.lint.name == finding.lint.name) {
            Some((_, used)) => *used = true,
            None => out.push(finding.complaint),
        }
    };
    findings.into_iter().for_each(|finding| sift(finding, &mut of_rules));
    // What only stated traffic can show may be allowed without it.
    let is_needless = |(allowed, used): &&(Allowed, bool)| {
        let unasked = allowed.lint.needs_traffic && subject.traffic.is_none();
        !used && !unasked && allowed.lint.name != LINT.name
    };
    let mut needless = Vec::new();
    for (rule, list) in of_rules.iter().enumerate() {
        needless.extend(list.iter().filter(is_needless).map(|(a, _)| unused(Some(rule), a)));
    }
    needless.into_iter().for_each(|finding| sift(finding, &mut of_rules));
    let needless: Vec<Finding> =
        of_file.iter().filter(is_needless).map(|(allowed, _)| unused(None, allowed)).collect();
    let allowed = of_file.iter().any(|(allowed, _)| allowed.lint.name == LINT.name);
    if !allowed {
        needless.into_iter().for_each(|finding| out.push(finding.complaint));
    }
    out
}

fn unused(rule: Option<usize>, allowed: &Allowed) -> Finding {
    let name = allowed.lint.name;
    Finding::new(
        &LINT,
        rule,
        allowed.span.clone(),
        format!("`{name}` is allowed, and nothing here would be warned of by it"),
        "it hides the next mistake of that kind".to_owned(),
        "no `allow` that is not needed".to_owned(),
    )
}
