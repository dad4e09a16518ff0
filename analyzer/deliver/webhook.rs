//! The mechanism `webhook`: one signed POST of the event per attempt, or a request of the receiver's
//! own shape, made by a template.
//!
//! 2xx is acknowledged, 410 means never again, anything else is tried again later.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_TYPE, HeaderName},
};

use super::{
    About, Attempt, Checks, Mechanism, Parcel, Setting,
    mapping::Mapping,
    payload::DeployAction,
    peer::{Hide, Peer, PeerOptions, SetupError, SetupFault},
    sign::{self, ID_HEADER, Keys, SIGNATURE_HEADER, TIMESTAMP_HEADER},
    template::Template,
};
use crate::{
    outward::{
        exchange::{Call, ExchangeError},
        tls::TlsOptions,
    },
    telemetry::secret::Secret,
};

/// Its kind.
pub const KIND: &str = "webhook";

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
    /// What is sent.
    pub shape: Shape,
    /// What it does on which decision.
    pub mapping: Mapping,
}

/// What is sent: the signed event, unless it is told otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// POST or PUT.
    pub method: Method,
    /// Type of the body.
    pub content_type: String,
    /// Template of the body; the event itself when none.
    pub body: Option<String>,
    /// Whether it is signed. A receiver that cannot verify takes what anybody sends.
    pub sign: bool,
}

impl Default for Shape {
    fn default() -> Self {
        let content_type = "application/json".to_owned();
        Self { method: Method::POST, content_type, body: None, sign: true }
    }
}

/// Longest an attempt may take when nothing else is configured.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// A receiver of verdicts.
pub struct Webhook {
    name: String,
    peer: Peer,
    keys: Option<Keys>,
    template: Option<Template>,
    method: Method,
    content_type: String,
    mapping: Mapping,
}

impl Webhook {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the URL, a header, a secret, a template or a certificate cannot be used.
    pub fn new(options: WebhookOptions, setting: &Setting) -> Result<Self, SetupError> {
        let name = options.name.clone();
        let fault = |fault| SetupError { kind: KIND, name: name.clone(), fault };
        Self::checked(options, setting).map_err(fault)
    }

    fn checked(options: WebhookOptions, setting: &Setting) -> Result<Self, SetupFault> {
        let WebhookOptions { name, url, secrets, headers, timeout, tls, shape, mapping } = options;
        let keys = match (shape.sign, secrets.is_empty()) {
            (true, _) => Some(Keys::new(&secrets)?),
            (false, true) => None,
            (false, false) => {
                let words = "there are signing secrets, expected none with `sign: false`";
                return Err(SetupFault::Options(words.to_owned()));
            }
        };
        let ours =
            |header: &&(String, Secret)| RESERVED.contains(&header.0.to_ascii_lowercase().as_str());
        if let Some((header, _)) = headers.iter().find(ours) {
            let (header, why) = (header.clone(), "is set by rollgate itself");
            return Err(ExchangeError::Header { header, why }.into());
        }
        let sent = mapping.actions();
        let template = shape.body.as_deref();
        let template = template.map(|body| Template::new(body, &shape.content_type, sent));
        let template = template.transpose()?;
        let options = PeerOptions { name: name.clone(), url, headers, timeout, tls };
        let peer = Peer::open(options, Hide::Tokens, secrets, setting)?;
        let Shape { method, content_type, body: _, sign: _ } = shape;
        Ok(Self { name, peer, keys, template, method, content_type, mapping })
    }
}

/// Whether the receiver never wants it again.
fn is_refusal(status: StatusCode) -> bool {
    status == StatusCode::GONE
}

#[async_trait]
impl Mechanism for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn does(&self, action: DeployAction) -> Option<String> {
        self.mapping.of(action)?;
        let signed = if self.keys.is_some() { "the signed" } else { "the unsigned" };
        let what = if self.template.is_some() { "templated body" } else { "event" };
        Some(format!("{} {signed} {what}", self.method))
    }

    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        let at = self.peer.now();
        let body = match &self.template {
            None => parcel.body.clone(),
            Some(template) => match template.render(&parcel.body, &parcel.key) {
                Ok(body) => body,
                Err(why) => return Attempt::Refused { answer: format!("the body fails: {why}") },
            },
        };
        let signature = self.keys.as_ref().map(|keys| keys.sign(&parcel.key, at, body.as_bytes()));
        let mut call = Call::new(self.method.clone(), self.peer.url.clone(), body)
            .header(CONTENT_TYPE, &self.content_type)
            .header(HeaderName::from_static(ID_HEADER), &parcel.key)
            .header(HeaderName::from_static(TIMESTAMP_HEADER), sign::unix_secs(at).to_string());
        if let Some(signature) = signature {
            // Whoever reads a rehearsal could send it on for as long as it is fresh.
            call = call.secret_header(HeaderName::from_static(SIGNATURE_HEADER), signature);
        }
        self.peer.write(call, is_refusal).await
    }

    fn about(&self) -> About {
        About {
            kind: KIND,
            to: self.peer.place(),
            checks: Checks::Receiver,
            // A receiver of its own shape does not know our event types: it might act.
            takes_tests: self.template.is_none(),
            carries_token: self.peer.carries_token(),
        }
    }
}
