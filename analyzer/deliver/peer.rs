//! What mechanisms over HTTP have in common: how a receiver is reached, and what its answer means.
//!
//! *Refused* is what sending the same again cannot change. What a person can mend in the meantime (a
//! token that expired, a permission, a name) has *failed*, and is tried again for as long as the
//! schedule has patience.

use std::time::Duration;

use reqwest::{StatusCode, Url};

use super::{Attempt, Clock, Setting, retry, sign::KeyError, template::TemplateError};
use crate::{
    outward::{
        exchange::{Call, Exchange, ExchangeError, ExchangeOptions, Reply, checked_url},
        tls::TlsOptions,
    },
    telemetry::secret::Secret,
};

/// Bytes of an answer that is read and not only shown.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How to reach a receiver.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// Name of the mechanism.
    pub name: String,
    /// Where to. May hold a token, and is therefore never shown whole.
    pub url: Secret,
    /// More headers, such as `authorization`.
    pub headers: Vec<(String, Secret)>,
    /// How long one request may take in all.
    pub timeout: Duration,
    /// Trust and identity.
    pub tls: TlsOptions,
}

/// Why a mechanism cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}: {fault}")]
pub struct SetupError {
    /// Its kind.
    pub kind: &'static str,
    /// Which mechanism.
    pub name: String,
    /// What is wrong.
    pub fault: SetupFault,
}

/// What is wrong with a mechanism's options.
#[derive(Debug, thiserror::Error)]
pub enum SetupFault {
    /// The URL is none that can be asked.
    #[error("the url {0}, expected http:// or https:// and a host")]
    Url(String),
    /// A secret cannot sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The way to it cannot be set up.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// Options that do not go together, or cannot be sent.
    #[error("{0}")]
    Options(String),
}

/// How much of a URL is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hide {
    /// Whatever in it is long enough to be a token, such as the URL of a chat.
    Tokens,
    /// A password in front of the host only: paths are names.
    Password,
}

/// The way to one receiver.
pub(super) struct Peer {
    pub(super) url: Url,
    pub(super) exchange: Exchange,
    now: Clock,
    carries_token: bool,
}

impl Peer {
    /// Checks the options; `secrets` never show in an answer, besides the headers' values.
    pub(super) fn open(
        options: PeerOptions,
        hide: Hide,
        mut secrets: Vec<Secret>,
        setting: &Setting,
    ) -> Result<Self, SetupFault> {
        let PeerOptions { name: _, url, headers, timeout, tls } = options;
        let url = checked_url(&url).map_err(SetupFault::Url)?;
        let is_plain = url.scheme() == "http";
        let password = url.password().map(Secret::new);
        let carries_token = password.is_some() || !headers.is_empty() || !secrets.is_empty();
        secrets.extend(password);
        let rehearsal = setting.rehearsal.clone();
        let options = ExchangeOptions { headers, secrets, tls, is_plain, timeout, rehearsal };
        let exchange = Exchange::new(options)?;
        let exchange = match hide {
            Hide::Tokens => exchange.hiding(&url),
            Hide::Password => exchange,
        };
        Ok(Self { url, exchange, now: setting.now.clone(), carries_token })
    }

    /// Scheme and host, without what may be a secret.
    pub(super) fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Whether requests carry something that a listener on the way could use.
    pub(super) fn carries_token(&self) -> bool {
        self.carries_token
    }

    /// The URL with more segments, each of which stays one, whatever is in it.
    pub(super) fn at<'s>(&self, segments: impl IntoIterator<Item = &'s str>) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Sends what is to change the world, and says what came of it.
    pub(super) async fn write(&self, call: Call, is_refusal: fn(StatusCode) -> bool) -> Attempt {
        match self.exchange.write(call).await {
            Ok(reply) => self.judge(&reply, is_refusal),
            Err(answer) => Attempt::Failed { answer, retry_after: None },
        }
    }

    /// What an answer means.
    pub(super) fn judge(&self, reply: &Reply, is_refusal: fn(StatusCode) -> bool) -> Attempt {
        let answer = self.exchange.words_of(reply);
        if reply.status.is_success() {
            Attempt::Delivered { answer }
        } else if is_refusal(reply.status) {
            Attempt::Refused { answer }
        } else {
            let asked = reply.retry_after.as_deref();
            let retry_after = asked.and_then(|header| retry::retry_after(header, self.now()));
            Attempt::Failed { answer, retry_after }
        }
    }

    pub(super) fn now(&self) -> crate::engine::observation::Time {
        (self.now)()
    }
}

/// Answers of an API to a request that it will never take: it is wrong in itself, or too large, or
/// what it was for is gone.
pub(super) fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 410 | 413 | 415 | 422)
}

/// A parcel whose body is no event of ours: it was written by another program.
pub(super) fn no_event(error: &serde_json::Error) -> Attempt {
    Attempt::Refused { answer: format!("the stored event cannot be read: {error}") }
}
