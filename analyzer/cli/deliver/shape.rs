//! What `deliver --json` says: one object, whose keys do not change their meaning.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::outward::exchange::Rehearsed;

/// The version of the shape.
pub const SCHEMA: &str = "rollgate.deliver.v1";

/// Everything that was rehearsed or tested.
#[derive(Serialize)]
pub struct Deliveries {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// `dry_run` or `test`.
    pub mode: &'static str,
    /// Whether the exit code is 0.
    pub good: bool,
    /// In the order of the mechanisms' names.
    pub deliveries: Vec<Delivery>,
}

/// One mechanism.
#[derive(Serialize)]
pub struct Delivery {
    /// Its name.
    pub mechanism: String,
    /// Its kind.
    pub kind: &'static str,
    /// The decision; `test` of a test event.
    pub action: String,
    /// What it does on it; null where that is nothing.
    pub does: Option<String>,
    /// In the order in which they are made.
    pub requests: Vec<Request>,
    /// What came, or would come, of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// One request.
#[derive(Serialize)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Where to, without secrets.
    pub url: String,
    /// Without secrets; those that the connection needs are not among them.
    pub headers: BTreeMap<String, String>,
    /// Its body, byte for byte but for secrets; null where there is none.
    pub body: Option<String>,
    /// What was answered to what was really asked; null of what would change something, which was
    /// not sent.
    pub answer: Option<String>,
}

/// What came, or would come, of a delivery.
#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// A dry run: everything would be sent.
    WouldBeSent,
    /// A dry run: what was read forbids it.
    WouldBeRefused {
        /// Why.
        answer: String,
    },
    /// The decision is mapped to nothing.
    Nothing,
    /// A test event has arrived.
    Delivered {
        /// What was said to it.
        answer: String,
    },
    /// A test event was refused.
    Refused {
        /// Why.
        answer: String,
    },
    /// No test event was sent, since it could be taken for a decision.
    OnlyRead {
        /// Why a decision would be refused in the world as it is.
        answer: Option<String>,
    },
    /// What has to be asked or sent did not arrive.
    Failed {
        /// Why.
        answer: String,
    },
}

impl Outcome {
    /// Whether it is as it should be.
    pub fn is_good(&self) -> bool {
        match self {
            Self::WouldBeSent | Self::Nothing | Self::Delivered { .. } | Self::OnlyRead { .. } => {
                true
            }
            Self::WouldBeRefused { .. } | Self::Refused { .. } | Self::Failed { .. } => false,
        }
    }
}

impl Request {
    /// Whether it would change something.
    pub fn is_write(&self) -> bool {
        self.answer.is_none()
    }
}

impl From<Rehearsed> for Request {
    fn from(rehearsed: Rehearsed) -> Self {
        let Rehearsed { method, url, headers, body, answer } = rehearsed;
        Self { method, url, headers: headers.into_iter().collect(), body, answer }
    }
}
