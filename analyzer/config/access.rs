//! `access:` and `tls:` of the configuration: who may ask, and by which certificate we answer.
//!
//! Tokens themselves never stand here, only what they hash to: whoever reads the file can let nobody
//! in.

use std::{collections::BTreeSet, path::PathBuf};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Secrets, reading::Reading};
use crate::{
    api::{
        access::policy::{Policy, Scope, TOKENS_MAX, Token},
        tls::TlsFiles,
    },
    engine::observation::Time,
};

/// Longest name of a token.
const NAME_CHARS_MAX: usize = 64;

/// Names under which browsers may reach us without tokens.
const HOSTS_MAX: usize = 32;

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Access {
    #[serde(default)]
    tokens: Vec<Entry>,
    /// What needs no token.
    #[serde(default)]
    open: Vec<String>,
    /// Names that a proxy in front gives us.
    #[serde(default)]
    hosts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    scope: String,
    sha256: String,
    /// Whether it may stand in a path.
    #[serde(default)]
    path: bool,
    #[serde(default)]
    expires: Option<String>,
}

/// The listener's certificates as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerTls {
    cert: PathBuf,
    key: PathBuf,
    #[serde(default)]
    client_ca: Option<PathBuf>,
}

/// What is wrong with one entry of `access.tokens`, written as YAML.
pub fn faults(entry: &str) -> Vec<String> {
    let mut reading = Reading::new(std::path::Path::new("."), &|_| None, Secrets::Read);
    match serde_saphyr::from_str(entry) {
        Ok(entry) => drop(reading.token("access.tokens[0]", entry)),
        Err(error) => {
            let error: serde_saphyr::Error = error;
            reading.fault(error.to_string());
        }
    }
    reading.faults
}

impl Reading<'_> {
    pub(super) fn access(&mut self, access: Access) -> Policy {
        let Access { tokens, open, hosts } = access;
        if tokens.len() > TOKENS_MAX {
            let count = tokens.len();
            self.fault(format!("access.tokens names {count} tokens, at most {TOKENS_MAX}"));
        }
        let (mut names, mut digests) = (BTreeSet::new(), BTreeSet::new());
        let mut read = Vec::new();
        for (index, entry) in tokens.into_iter().enumerate() {
            let at = format!("access.tokens[{index}]");
            if !names.insert(entry.name.clone()) {
                self.fault(format!("{at}.name is {:?}, which another token has", entry.name));
            }
            let Some(token) = self.token(&at, entry) else { continue };
            if !digests.insert(token.sha256) {
                self.fault(format!(
                    "{at}.sha256 is that of another token; hint: `rollgate token` makes a new one"
                ));
            }
            read.push(token);
        }
        for word in &open {
            if word != "metrics" {
                self.fault(format!("access.open has {word:?}, expected metrics"));
            }
        }
        if hosts.len() > HOSTS_MAX {
            self.fault(format!("access.hosts has {} names, at most {HOSTS_MAX}", hosts.len()));
        }
        for host in &hosts {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            if host.is_empty() || !host.chars().all(plain) {
                self.fault(format!(
                    "access.hosts has {host:?}, expected a name without scheme and port such as \
                     rollgate.example.org"
                ));
            }
        }
        Policy { tokens: read, open_metrics: !open.is_empty(), hosts }
    }

    fn token(&mut self, at: &str, entry: Entry) -> Option<Token> {
        let Entry { name, scope, sha256, path, expires } = entry;
        let faults = self.faults.len();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(plain) {
            self.fault(format!(
                "{at}.name is {name:?}, expected 1 to {NAME_CHARS_MAX} letters, digits, - . and _"
            ));
        }
        let known = Scope::ALL.into_iter().find(|known| known.word() == scope);
        if known.is_none() {
            let words = Scope::ALL.map(Scope::word).join(", ");
            self.fault(format!("{at}.scope is {scope:?}, expected one of {words}"));
        }
        let digest = digest(&sha256);
        match digest {
            // What stands there may be the token itself: it is not repeated.
            None => self.fault(format!(
                "{at}.sha256 has {} characters, expected the 64 hex digits that `rollgate token` \
                 prints, and never the token itself",
                sha256.chars().count()
            )),
            Some(digest) if digest[..] == Sha256::digest(b"")[..] => {
                self.fault(format!("{at}.sha256 is the hash of an empty token"));
            }
            Some(_) => {}
        }
        let end = expires.as_deref().map(|text| (text, moment(text)));
        if let Some((text, None)) = end {
            self.fault(format!(
                "{at}.expires is {text:?}, expected a date such as 2027-01-31 (its first moment in \
                 UTC) or a time such as 2027-01-31T12:00:00Z"
            ));
        }
        let expires = end.and_then(|(_, end)| end);
        let token = Token { name, scope: known?, sha256: digest?, in_path: path, expires };
        (self.faults.len() == faults).then_some(token)
    }

    pub(super) fn listener_tls(&self, tls: Option<ListenerTls>) -> Option<TlsFiles> {
        let ListenerTls { cert, key, client_ca } = tls?;
        Some(TlsFiles {
            cert: self.base.join(cert),
            key: self.base.join(key),
            client_ca: client_ca.map(|path| self.base.join(path)),
        })
    }
}

/// 64 hex digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

fn moment(text: &str) -> Option<Time> {
    let day = |text: &str| {
        let date: Date = text.parse().ok()?;
        Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    let plain = text.len() == "2027-01-31".len();
    let found = if plain { day(text) } else { text.parse::<Timestamp>().ok() };
    Some(Time(found?.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(yaml: &str) -> (Policy, String) {
        let mut reading = Reading::new(Path::new("."), &|_| None, Secrets::Read);
        let policy = reading.access(serde_saphyr::from_str(yaml).expect("the shape"));
        (policy, reading.faults.join("\n"))
    }

    #[test]
    fn tokens_are_read() {
        let hash = "ab".repeat(32);
        let digits = "1".repeat(64);
        let (policy, faults) = read(&format!(
            "{{ tokens: [ {{ name: argo, scope: control, sha256: {hash}, path: true }}, \
             {{ name: ann, scope: operate, sha256: {digits}, expires: 2027-01-31 }}, \
             {{ name: bob, scope: read, sha256: {}, expires: '2027-01-31T12:00:00Z' }} ], \
             open: [metrics], hosts: [gate.example.org] }}",
            "CD".repeat(32)
        ));
        assert_eq!(faults, "");
        let [argo, ann, bob] = policy.tokens.as_slice() else { panic!("{policy:?}") };
        assert_eq!((argo.scope, argo.sha256, argo.in_path), (Scope::Control, [0xab; 32], true));
        // python3 -c "import datetime as d; print(d.datetime(2027, 1, 31,
        //     tzinfo=d.timezone.utc).timestamp())"
        assert_eq!((ann.sha256, ann.expires), ([0x11; 32], Some(Time(1_801_353_600_000))));
        assert_eq!(bob.expires, Some(Time(1_801_396_800_000)));
        assert_eq!((policy.open_metrics, policy.hosts.len()), (true, 1));
    }

    #[test]
    fn every_fault_is_named_and_no_token_is_repeated() {
        let hash = "ab".repeat(32);
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let secret = "rgt_hunter2hunter2hunter2hunter2hunter2hunter2hun";
        let (_, faults) = read(&format!(
            "{{ tokens: [ {{ name: a, scope: read, sha256: {hash} }}, \
             {{ name: a, scope: root, sha256: {secret} }}, \
             {{ name: 'x y', scope: read, sha256: {hash}, expires: 31.1.2027 }}, \
             {{ name: c, scope: read, sha256: {hash} }}, \
             {{ name: d, scope: read, sha256: {nothing} }}, \
             {{ name: e, scope: read, sha256: {}, expires: 2027-02-30 }} ], \
             open: [everything], hosts: ['https://gate.example.org'] }}",
            "z".repeat(64)
        ));
        for word in [
            "access.tokens[1].name is \"a\", which another token has",
            "access.tokens[1].scope is \"root\", expected one of read, control, operate",
            "access.tokens[1].sha256 has 49 characters, expected the 64 hex digits",
            "access.tokens[2].name is \"x y\"",
            "access.tokens[2].expires is \"31.1.2027\"",
            "access.tokens[3].sha256 is that of another token",
            "access.tokens[4].sha256 is the hash of an empty token",
            "access.tokens[5].sha256 has 64 characters",
            "access.tokens[5].expires is \"2027-02-30\"",
            "access.open has \"everything\", expected metrics",
            "access.hosts has \"https://gate.example.org\"",
        ] {
            assert!(faults.contains(word), "{faults}\nlacks {word:?}");
        }
        assert!(!faults.contains("hunter2"), "{faults}");
    }

    #[test]
    fn no_more_tokens_are_taken_than_may_be() {
        let entry = |n: usize| format!("{{ name: t{n}, scope: read, sha256: {n:064x} }}");
        let all: Vec<String> = (0..=TOKENS_MAX).map(entry).collect();
        let (_, faults) = read(&format!("{{ tokens: [{}] }}", all.join(", ")));
        assert_eq!(faults, "access.tokens names 257 tokens, at most 256");
    }
}
