//! The mechanism `webhook`: one signed POST per attempt.
//!
//! 2xx is acknowledged, 410 means never again, anything else is tried again later.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{
    Method, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderName},
};

use super::{
    Attempt, Clock, Mechanism, Parcel, Setting,
    mapping::Mapping,
    payload::DeployAction,
    retry,
    sign::{self, ID_HEADER, KeyError, Keys, SIGNATURE_HEADER, TIMESTAMP_HEADER},
};
use crate::{
    outward::{
        exchange::{Call, Exchange, ExchangeError, ExchangeOptions, Reply, checked_url},
        tls::TlsOptions,
    },
    telemetry::secret::Secret,
};

/// Headers that are ours or the connection's.
const RESERVED: [&str; 8] = [
    ID_HEADER,
    TIMESTAMP_HEADER,
    SIGNATURE_HEADER,
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "host",
];

/// What a webhook can do on a decision.
pub const ACTIONS: [&str; 1] = ["send"];

/// What it does unless it is told otherwise: whoever receives it decides.
pub const MAPPING: Mapping = Mapping {
    rollback: Some("send"),
    promote: Some("send"),
    advance: Some("send"),
    hold: Some("send"),
};

/// How to reach a receiver.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Name of the mechanism.
    pub name: String,
    /// Where to. May hold a token, and is therefore never shown.
    pub url: Secret,
    /// Signing secrets, each of which signs: several while one is being replaced.
    pub secrets: Vec<Secret>,
    /// More headers, such as `authorization`.
    pub headers: Vec<(String, Secret)>,
    /// How long one attempt may take in all.
    pub timeout: Duration,
    /// Trust and identity.
    pub tls: TlsOptions,
    /// What it does on which decision.
    pub mapping: Mapping,
}

/// Longest an attempt may take when nothing else is configured.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Why a webhook cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The URL is none that can be posted to.
    #[error("webhook {name}: the url {why}, expected http:// or https:// and a host")]
    Url {
        /// Which mechanism.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A secret cannot sign.
    #[error("webhook {name}: {fault}")]
    Key {
        /// Which mechanism.
        name: String,
        /// What is wrong with it.
        fault: KeyError,
    },
    /// The way to it cannot be set up.
    #[error("webhook {name}: {source}")]
    Exchange {
        /// Which mechanism.
        name: String,
        /// Why.
        source: ExchangeError,
    },
}

/// A receiver of signed verdicts.
pub struct Webhook {
    name: String,
    url: Url,
    keys: Keys,
    exchange: Exchange,
    mapping: Mapping,
    now: Clock,
}

impl Webhook {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the URL, a header, a secret or a certificate cannot be used.
    pub fn new(options: WebhookOptions, setting: &Setting) -> Result<Self, WebhookError> {
        let WebhookOptions { name, url, secrets, headers, timeout, tls, mapping } = options;
        let keys =
            Keys::new(&secrets).map_err(|fault| WebhookError::Key { name: name.clone(), fault })?;
        let url = checked_url(&url).map_err(|why| WebhookError::Url { name: name.clone(), why })?;
        let fault = |source| WebhookError::Exchange { name: name.clone(), source };
        let ours =
            |header: &&(String, Secret)| RESERVED.contains(&header.0.to_ascii_lowercase().as_str());
        if let Some((header, _)) = headers.iter().find(ours) {
            let (header, why) = (header.clone(), "is set by rollgate itself");
            return Err(fault(ExchangeError::Header { header, why }));
        }
        let is_plain = url.scheme() == "http";
        let Setting { now, rehearsal } = setting.clone();
        let options = ExchangeOptions { headers, secrets, tls, is_plain, timeout, rehearsal };
        let exchange = Exchange::new(options).map_err(fault)?.hiding(&url);
        Ok(Self { name, url, keys, exchange, mapping, now })
    }

    fn judge(&self, reply: &Reply) -> Attempt {
        let answer = self.exchange.words_of(reply);
        if reply.status.is_success() {
            Attempt::Delivered { answer }
        } else if reply.status == StatusCode::GONE {
            Attempt::Refused { answer }
        } else {
            let asked = reply.retry_after.as_deref();
            let retry_after = asked.and_then(|header| retry::retry_after(header, (self.now)()));
            Attempt::Failed { answer, retry_after }
        }
    }
}

#[async_trait]
impl Mechanism for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn does(&self, action: DeployAction) -> Option<String> {
        self.mapping.of(action).map(|_| "POST the signed event".to_owned())
    }

    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        let at = (self.now)();
        let signature = self.keys.sign(&parcel.key, at, parcel.body.as_bytes());
        let call = Call::new(Method::POST, self.url.clone(), parcel.body.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(HeaderName::from_static(ID_HEADER), &parcel.key)
            .header(HeaderName::from_static(TIMESTAMP_HEADER), sign::unix_secs(at).to_string())
            .header(HeaderName::from_static(SIGNATURE_HEADER), signature);
        match self.exchange.write(call).await {
            Ok(reply) => self.judge(&reply),
            Err(answer) => Attempt::Failed { answer, retry_after: None },
        }
    }
}
