//! Texts of the configuration that each release fills in: `version="{canary_version}"`.
//!
//! What an order says ends up in label matchers, host names and paths, so a value has to be of plain
//! characters, fewer of them where it becomes part of a name, and in a regular expression it stands
//! for itself. A name that cannot be known is a fault of the configuration; a value that is missing
//! or odd is one of the order, and says where it was to go.

use std::collections::BTreeMap;

use crate::outward::pattern::Pattern;

/// What every release has: the service, both versions, and the version of the arm that is filled in.
pub const NAMES: [&str; 4] = ["service", "version", "canary_version", "baseline_version"];

/// Characters a value may have.
const VALUE_CHARS_MAX: usize = 200;

/// Marks a name that stands in a regular expression; no name has a colon.
const REGEX: &str = ":regex";

/// Where a value goes, which decides what it may be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Part of a host, a path or a label selector.
    Name,
    /// A label's value, held against others.
    Label,
    /// Between the quotes of PromQL label matchers.
    Matchers,
}

/// A text to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pattern: Pattern,
    purpose: Purpose,
    /// Where it is in the configuration.
    at: String,
}

/// What names stand for in one release.
pub type Values = BTreeMap<String, String>;

impl Template {
    /// Reads a text whose names are all among `known`.
    ///
    /// # Errors
    /// In words that begin with the place, when a name is not known or stands where it cannot.
    pub fn parse(at: &str, text: &str, known: &[&str], purpose: Purpose) -> Result<Self, String> {
        let mut known: Vec<String> = known.iter().map(|name| (*name).to_owned()).collect();
        let marked = match purpose {
            Purpose::Name | Purpose::Label => text.to_owned(),
            Purpose::Matchers => {
                known.extend(known.clone().iter().map(|name| format!("{name}{REGEX}")));
                marked(text).map_err(|fault| format!("{at}: {fault}"))?
            }
        };
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let pattern = Pattern::parse(&marked, &names);
        // The marks are ours and nobody else's.
        let pattern = pattern.map_err(|fault| format!("{at}: {}", unmarked(&fault.to_string())))?;
        Ok(Self { pattern, purpose, at: at.to_owned() })
    }

    /// Fills the names in.
    ///
    /// # Errors
    /// When a value is missing, or has characters that cannot stand there.
    pub fn fill(&self, values: &Values) -> Result<String, String> {
        let mut filled = Values::new();
        for marked in self.pattern.all_names() {
            let name = unmarked(marked);
            let value = self.checked(&name, values.get(&name).map_or("", String::as_str))?;
            let is_regex = marked.len() > name.len();
            let value = if is_regex { in_regex(value) } else { value.to_owned() };
            filled.insert(marked.to_owned(), value);
        }
        Ok(self.pattern.fill(|name| filled.get(name).map_or("", String::as_str)))
    }

    fn checked<'a>(&self, name: &str, value: &'a str) -> Result<&'a str, String> {
        if value.is_empty() {
            return Err(self.empty(name));
        }
        let at = &self.at;
        let more = match self.purpose {
            Purpose::Name => "",
            Purpose::Label | Purpose::Matchers => "+:/@",
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c) || more.contains(c);
        if !value.chars().all(is_plain) || value.len() > VALUE_CHARS_MAX {
            return Err(format!(
                "{name} is {value:?}, expected at most {VALUE_CHARS_MAX} letters, digits and \
                 `._-{more}`, because {at} has it in its text"
            ));
        }
        // Neither `..` nor a name that is taken for an option.
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let is_name = ends(value.chars().next()) && ends(value.chars().last());
        if self.purpose == Purpose::Name && (!is_name || value.contains("..")) {
            return Err(format!(
                "{name} is {value:?}, expected a letter or a digit at both ends and no `..`, \
                 because {at} has it in its text"
            ));
        }
        Ok(value)
    }

    fn empty(&self, name: &str) -> String {
        let at = &self.at;
        let place = match name {
            "canary_version" => "canary.version".to_owned(),
            "baseline_version" => "baseline.version".to_owned(),
            "version" | "service" => name.to_owned(),
            _ => format!("parameters.{name}"),
        };
        format!("{place} is not given, and {at} has it in its text")
    }
}

fn unmarked(text: &str) -> String {
    text.replace(REGEX, "")
}

/// Marks the names that stand in the quotes of a regular expression.
fn marked(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut quote: Option<(char, bool)> = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match (c, quote) {
            ('{', _) if after.starts_with('{') => {
                out.push_str("{{");
                rest = &after[1..];
                continue;
            }
            ('{', None) => {
                return Err("found `{` outside quotes, expected label matchers without braces \
                            around them, such as `job=\"shop\",version=\"{canary_version}\"`"
                    .to_owned());
            }
            ('{', Some((_, true))) => {
                let Some((name, after)) = after.split_once('}') else {
                    return Err("`{` without `}`".to_owned());
                };
                out.push_str(&format!("{{{name}{REGEX}}}"));
                rest = after;
                continue;
            }
            ('\\', Some(('"' | '\'', _))) => {
                out.push(c);
                let escaped: String = after.chars().take(1).collect();
                out.push_str(&escaped);
                rest = &after[escaped.len()..];
                continue;
            }
            ('"' | '\'' | '`', None) => quote = Some((c, out.trim_end().ends_with('~'))),
            (c, Some((open, _))) if c == open => quote = None,
            _ => {}
        }
        out.push(c);
        rest = after;
    }
    match quote {
        None => Ok(out),
        Some((open, _)) => Err(format!("a quote {open} is not closed")),
    }
}

/// A value that stands for itself in a regular expression within quotes. The characters that mean
/// something there and may be in a value are the dot and the plus; a class needs no backslash, which
/// the quotes would want doubled.
fn in_regex(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '.' | '+' => text.extend(['[', c, ']']),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn filled(text: &str, purpose: Purpose, pairs: &[(&str, &str)]) -> Result<String, String> {
        let known = ["service", "canary_version", "namespace"];
        Template::parse("services.shop.x", text, &known, purpose)?.fill(&values(pairs))
    }

    #[test]
    fn values_stand_for_themselves() {
        let check = |text: &str, value: &str, expected: &str| {
            let found = filled(text, Purpose::Matchers, &[("canary_version", value)]);
            assert_eq!(found.as_deref(), Ok(expected));
        };
        check("", "v2", "");
        check("version=\"{canary_version}\"", "1.2.3+b", "version=\"1.2.3+b\"");
        check("version=~\"{canary_version}\"", "1.2.3+b", "version=~\"1[.]2[.]3[+]b\"");
        check("version!~ `a{{2}}|{canary_version}`", "v.2", "version!~ `a{2}|v[.]2`");
        check("a=~\"\\\"x\",v='{canary_version}'", "v.2", "a=~\"\\\"x\",v='v.2'");
    }

    #[test]
    fn what_cannot_stand_there_is_named() {
        let check = |text: &str, purpose, pairs: &[(&str, &str)], expected: &str| {
            let fault = filled(text, purpose, pairs).expect_err("a fault");
            assert!(fault.contains(expected), "{fault}\nlacks {expected}");
            assert!(fault.contains("services.shop.x") && !fault.contains(REGEX), "{fault}");
        };
        let name = Purpose::Name;
        check("{sevice}", name, &[], "{sevice} is not known, expected one of {service}");
        check("{job=\"a\"}", Purpose::Matchers, &[], "outside quotes");
        check("job=\"a", Purpose::Matchers, &[], "not closed");
        check("v=~\"{nope}\"", Purpose::Matchers, &[], "{nope} is not known");
        check("{canary_version}", name, &[], "canary.version is not given");
        check("v=~\"{namespace}\"", Purpose::Matchers, &[], "parameters.namespace is not given");
        for odd in ["a b", "a\"b", "a\\b", "a{b", "a/b", "..", "a..b", "-a", "a-", "ä"] {
            check("{service}", name, &[("service", odd)], "service is \"");
        }
        for odd in ["a b", "a\"b", "a\\b", "a{b", "a,b", "a\n", "$x", "a|b"] {
            check("v=\"{service}\"", Purpose::Matchers, &[("service", odd)], "service is \"");
        }
        check("{service}", Purpose::Label, &[("service", &"x".repeat(201))], "at most 200");
    }
}
