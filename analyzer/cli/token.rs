//! `rollgate token`: a new token, shown once, and the line of the configuration that lets it in.

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, anyhow};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::{Args, ValueEnum};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Output, PROMOTE, UsageError, print_json};
use crate::{api::access::policy::Scope, telemetry::secret::Secret};

/// What every token begins with, so that scanners for leaked secrets know it.
pub const PREFIX: &str = "rgt_";

/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;

/// Longest token file.
const TOKEN_FILE_BYTES_MAX: usize = 4096;

/// The environment variable that holds a token for commands that ask a service.
const VARIABLE: &str = "ROLLGATE_TOKEN";

/// Arguments of `token`.
#[derive(Args)]
#[command(after_help = "\
The token is shown once and kept nowhere; rollgate.yaml holds only its SHA-256. Put the printed line
under `access:`, and send the service a SIGHUP.

  rollgate token --name argo --scope control
  rollgate token --name flagger --scope control --path     # may stand in a URL: /t/TOKEN/v1/...
  rollgate token --name ann --scope operate --expires 2027-01-31")]
pub struct TokenArgs {
    /// What it is called, in the log and on record.
    #[arg(long)]
    name: String,
    /// What it may do; each includes those before it.
    #[arg(long, value_enum)]
    scope: ScopeArg,
    /// Let it stand in the path of a URL, for controllers that cannot send headers.
    #[arg(long)]
    path: bool,
    /// Date from which on it is none any more.
    #[arg(long, value_name = "DATE")]
    expires: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScopeArg {
    /// See everything.
    Read,
    /// Open analyses too.
    Control,
    /// Cancel, override and send again too.
    Operate,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Read => Scope::Read,
            ScopeArg::Control => Scope::Control,
            ScopeArg::Operate => Scope::Operate,
        }
    }
}

/// A token as `--json` prints it.
#[derive(Serialize)]
struct Made {
    token: String,
    access: Access,
}

#[derive(Serialize)]
struct Access {
    tokens: [Entry; 1],
}

#[derive(Serialize)]
struct Entry {
    name: String,
    scope: &'static str,
    sha256: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    path: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

/// Runs the command.
pub fn main(args: &TokenArgs) -> anyhow::Result<u8> {
    let mut random = [0; RANDOM_BYTES];
    let source = rustls::crypto::ring::default_provider().secure_random;
    source.fill(&mut random).map_err(|_| anyhow!("the system gives no random numbers"))?;
    let token = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    let digest = Sha256::digest(&token);
    let entry = Entry {
        name: args.name.clone(),
        scope: Scope::from(args.scope).word(),
        sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        path: args.path,
        expires: args.expires.clone(),
    };
    let line = entry.line();
    // As it is meant, and as it is printed.
    check(&serde_json::to_string(&entry)?)?;
    check(&line)?;
    let mut out = io::stdout().lock();
    if args.output.json {
        print_json(&mut out, &Made { token, access: Access { tokens: [entry] } })?;
    } else {
        writeln!(out, "The token, which is shown only now:\n\n  {token}\n")?;
        writeln!(out, "For rollgate.yaml, which holds only what it hashes to:\n")?;
        writeln!(out, "access:\n  tokens:\n    - {line}")?;
        if args.path {
            writeln!(out, "\nIn a URL: https://HOST:PORT/t/{token}/v1/integrations/...")?;
        }
    }
    out.flush()?;
    Ok(PROMOTE)
}

impl Entry {
    fn line(&self) -> String {
        let Self { name, scope, sha256, path, expires } = self;
        let path = if *path { ", path: true" } else { "" };
        let expires = expires.as_ref().map(|date| format!(", expires: {date}")).unwrap_or_default();
        format!("{{ name: {name}, scope: {scope}, sha256: {sha256}{path}{expires} }}")
    }
}

/// What is printed has to be taken by the configuration. JSON is YAML too.
fn check(line: &str) -> Result<(), UsageError> {
    let faults = crate::config::access::faults(line);
    // The place is not the reader's: there is no list yet.
    let words: Vec<String> =
        faults.iter().map(|fault| fault.replace("access.tokens[0].", "")).collect();
    if words.is_empty() { Ok(()) } else { Err(UsageError(words.join("\n  "))) }
}

/// How a command shows a service who asks, and knows the service.
#[derive(Args)]
pub struct Credentials {
    /// File with the token; else $ROLLGATE_TOKEN is sent, where it is set.
    #[arg(long, value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,
    /// Authorities that the service's certificate has to come from, PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<std::path::PathBuf>,
}

impl Credentials {
    /// The token to be sent, if any.
    pub fn token(&self) -> Result<Option<Secret>, UsageError> {
        let token = match &self.token_file {
            Some(path) => Some(text(path, "--token-file")?),
            None => std::env::var(VARIABLE).ok(),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Ok(token.map(Secret::new))
    }

    /// The authorities as PEM, if any.
    pub fn ca(&self) -> Result<Option<String>, UsageError> {
        let text = |path: &std::path::PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|error| UsageError(format!("--ca {}: {error}", path.display())))
        };
        self.ca.as_ref().map(text).transpose()
    }
}

fn text(path: &Path, option: &str) -> Result<String, UsageError> {
    let text = std::fs::read_to_string(path).context("cannot be read");
    match text {
        Ok(text) if text.len() > TOKEN_FILE_BYTES_MAX => {
            Err(UsageError(format!("{option} {}: that is no token", path.display())))
        }
        Ok(text) => Ok(text),
        Err(error) => Err(UsageError(format!("{option} {}: {error:#}", path.display()))),
    }
}
