//! Verdicts on their way out: the outbox worker, signing, the retry schedule, and one file per
//! deploy mechanism.
//!
//! Delivery is at least once with a key that never changes. Nothing here decides what is sent;
//! `service/` writes outbox rows with the verdict, and adapts its store to [`Outbox`].

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{engine::observation::Time, outward::exchange::Rehearsal};

pub mod alertmanager;
pub mod argo_rollouts;
pub mod cloudevents;
mod deployed;
pub mod flagger;
pub mod github;
pub mod gitlab;
pub mod kubernetes_service;
pub mod kubernetes_undo;
pub mod mapping;
pub mod names;
pub mod payload;
pub mod peer;
pub mod retry;
pub mod revision;
pub mod sample;
pub mod sign;
pub mod slack;
pub mod template;
mod undo;
pub mod webhook;
pub mod worker;
pub mod workload;

use payload::{DeployAction, VerdictEvent};

/// Tells the time. `service/` holds the only clock; tests pass their own.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// What every mechanism is set up with.
#[derive(Clone)]
pub struct Setting {
    /// Tells the time.
    pub now: Clock,
    /// Where requests that would change something are put down instead of being sent.
    pub rehearsal: Option<Rehearsal>,
}

impl Setting {
    /// Requests are sent.
    pub fn live(now: Clock) -> Self {
        Self { now, rehearsal: None }
    }
}

/// One way to tell a deploy system a verdict.
#[async_trait]
pub trait Mechanism: Send + Sync + 'static {
    /// Its name in the configuration.
    fn name(&self) -> &str;
    /// What it does on a decision, in words; none when it does nothing, and then it is not asked to
    /// deliver.
    fn does(&self, action: DeployAction) -> Option<String>;
    /// Tries once. Comes to an end by itself, with a time-out of its own.
    async fn deliver(&self, parcel: &Parcel) -> Attempt;
    /// What it is, for people who check a configuration. Unless it says otherwise nothing is known
    /// of it, and no test event may be sent to it.
    fn about(&self) -> About {
        About::default()
    }
}

/// What a mechanism is, in words without secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its kind, as a configuration writes it.
    pub kind: &'static str,
    /// Whom it tells: scheme and host.
    pub to: String,
    /// Who makes sure that what is changed is still what was judged.
    pub checks: Checks,
    /// Whether a marked test event may be sent: whoever receives it takes it for none of its
    /// decisions.
    pub takes_tests: bool,
    /// Whether its requests carry a token that a listener on the way could use.
    pub carries_token: bool,
}

/// Who makes sure that the world is still the one that was judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Checks {
    /// Nobody.
    #[default]
    Nobody,
    /// The receiver, which is told the version.
    Receiver,
    /// Nobody needs to: people are told.
    People,
    /// The mechanism, before it sends anything; by what, in words.
    Itself(String),
}

/// What came of one attempt. Answers are in words, one line, free of secrets.
#[derive(Clone, Debug, PartialEq)]
pub enum Attempt {
    /// The receiver has it.
    Delivered {
        /// What it said.
        answer: String,
    },
    /// The receiver never wants it again.
    Refused {
        /// What it said.
        answer: String,
    },
    /// It may or may not have arrived; to be tried again.
    Failed {
        /// What went wrong.
        answer: String,
        /// How long the receiver asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// There is nothing to do: the mechanism maps this decision to nothing.
    Nothing {
        /// Why.
        answer: String,
    },
}

/// The rows this worker drains. Implemented by `service/` over its store.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Rows that are due, oldest first.
    async fn due(&self, now: Time, limit: u32) -> anyhow::Result<Vec<Parcel>>;
    /// When the next row is due.
    async fn next_due(&self) -> anyhow::Result<Option<Time>>;
    /// Records what came of an attempt.
    async fn record(&self, key: &str, outcome: Outcome, answer: &str) -> anyhow::Result<()>;
}

/// One verdict for one mechanism.
#[derive(Clone, Debug, PartialEq)]
pub struct Parcel {
    /// The idempotency key (`webhook-id`).
    pub key: String,
    /// Id of the analysis.
    pub analysis: String,
    /// Name of the mechanism.
    pub mechanism: String,
    /// The event, byte for byte what is signed and sent.
    pub body: String,
    /// Attempts before this one.
    pub attempts: u32,
    /// When the row was written.
    pub created: Time,
}

impl Parcel {
    /// The event that the body is.
    ///
    /// # Errors
    /// When the body is none: it was written by another program.
    pub fn event(&self) -> Result<VerdictEvent, serde_json::Error> {
        serde_json::from_str(&self.body)
    }
}

/// What is to become of a parcel after an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Acknowledged.
    Delivered,
    /// Never to be sent again: the receiver said so.
    Refused,
    /// To be tried again then.
    Retry(Time),
    /// Given up.
    Dead,
}
