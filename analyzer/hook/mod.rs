//! The small receiver for hosts without an API: it checks a signed event and runs one command that
//! its own file names.
//!
//! Invariants: nothing of a request ever stands on a command line, and only checked words of it in
//! the environment; the event is on stdin. One command runs at a time. An event is remembered on
//! disk before its command begins, so that neither a repetition nor a restart runs it again; what a
//! crash left half done is refused, unless the configuration says that it may be run again.
//! Deliberately absent: plug-ins, templates of command lines, several commands for one decision.

use std::{collections::BTreeMap, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{
        self, ApiOptions,
        tls::{Certificates, LOOK_EVERY, TlsFault, TlsFiles},
    },
    deliver::{Clock, payload::DeployAction, sign::Keys},
    telemetry::{Telemetry, secret::Secret},
};

pub mod command;
pub mod environment;
pub mod event;
pub mod memory;
mod memory_file;
mod receiver;
mod runner;

use command::Setting;
use memory::{Memory, MemoryError};
use runner::Runner;

/// Connections served at once: there are few senders, and each request may hold a whole event.
const CONNECTIONS_MAX: usize = 64;

/// Events that wait for the command that runs; more are asked to come back.
pub const WAITING_MAX: usize = 256;

/// A program and its arguments, run as they are and never by a shell.
pub type Argv = Vec<String>;

/// What a hook is configured to do.
#[derive(Clone, Debug)]
pub struct HookOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// By which certificate it is served; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// Keys of the sender, any of which may have signed: several while one is replaced.
    pub secrets: Vec<Secret>,
    /// The only service whose events are taken; none takes those of all.
    pub service: Option<String>,
    /// The file that remembers events.
    pub memory: PathBuf,
    /// What is run on which decision.
    pub commands: Commands,
    /// What prints the version that runs now, asked before every command.
    pub check: Option<Argv>,
    /// How commands are run.
    pub setting: Setting,
    /// How long a sender is kept waiting for the end of a command.
    pub wait: Duration,
    /// Failures of one event's command after which it is refused.
    pub tries: u32,
    /// What becomes of an event whose command was cut off by the end of an earlier hook.
    pub interrupted: Interrupted,
}

/// What is run on each decision; none: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Go back to the old version.
    pub rollback: Option<Argv>,
    /// Go on to the new version.
    pub promote: Option<Argv>,
    /// Go on to the next step.
    pub advance: Option<Argv>,
    /// Leave everything as it is.
    pub hold: Option<Argv>,
}

impl Commands {
    /// The command for a decision.
    pub fn of(&self, action: DeployAction) -> Option<&Argv> {
        match action {
            DeployAction::Rollback => self.rollback.as_ref(),
            DeployAction::Promote => self.promote.as_ref(),
            DeployAction::Advance => self.advance.as_ref(),
            DeployAction::Hold => self.hold.as_ref(),
        }
    }
}

/// What becomes of an event whose command may have half run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interrupted {
    /// It is refused by name, and a person looks.
    #[default]
    Refuse,
    /// It is run again: the command may be run twice.
    Run,
}

/// What came of an event. The sender is told it as JSON, and repetitions are told the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What came of it.
    pub outcome: Outcome,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The command's exit code; absent when it did not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The end of what the command said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// What came of an event, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The command ended well.
    Done,
    /// There is nothing to do.
    Nothing,
    /// Never to be sent again.
    Refused,
    /// The command failed; to be sent again.
    Failed,
    /// Not now; to be sent again.
    Later,
}

impl Answer {
    fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: reason.into(), exit_code: None, output: String::new() }
    }
}

/// Why a hook cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Another program listens there, or the address is not ours.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// What was remembered cannot be used.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A hook that listens and does not serve yet.
pub struct Hook {
    /// Where it listens.
    pub addr: SocketAddr,
    listener: TcpListener,
    certificates: Option<Certificates>,
    options: HookOptions,
    keys: Keys,
    memory: Memory,
    now: Clock,
}

impl Hook {
    /// Listens and reads what is remembered. Nothing is run.
    ///
    /// # Errors
    /// When the address, the certificates or the memory cannot be had.
    pub async fn open(options: HookOptions, keys: Keys, now: Clock) -> Result<Self, HookError> {
        let memory = Memory::open(&options.memory, now())?;
        let certificates = options.tls.clone().map(|files| Certificates::open(files, LOOK_EVERY));
        let (certificates, listen) = (certificates.transpose()?, options.listen);
        let fault = |source| HookError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(fault)?;
        let addr = listener.local_addr().map_err(fault)?;
        Ok(Self { addr, listener, certificates, options, keys, memory, now })
    }

    /// Serves until `stop`; then takes nothing more, and ends with the command that runs.
    ///
    /// # Errors
    /// When connections can no longer be accepted.
    pub async fn serve(self, stop: CancellationToken) -> io::Result<()> {
        let Self { addr: _, listener, certificates, options, keys, memory, now } = self;
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        let options = Arc::new(options);
        let router = receiver::router(options.clone(), keys, asks, now.clone());
        let runner = Runner::new(options, memory, asked, now);
        let runner = tokio::spawn(runner.run(stop.clone()));
        let connections_max = CONNECTIONS_MAX;
        let limits = ApiOptions { connections_max, certificates, ..ApiOptions::default() };
        let served = api::serve(listener, router, Telemetry::new(), limits, stop).await;
        if let Err(panic) = runner.await.map_err(tokio::task::JoinError::try_into_panic) {
            // A bug of ours: a hook that runs nothing must not look alive.
            std::panic::resume_unwind(panic.unwrap_or_else(|_| Box::new("the runner is gone")));
        }
        served
    }
}

/// Environment variables that commands are given, by name.
pub type Environment = BTreeMap<String, String>;
