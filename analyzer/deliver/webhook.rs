//! The mechanism `webhook`: one signed POST per attempt.
//!
//! A receiver is not trusted: its answer is read up to a limit and for a limited time, and redirects
//! are not followed (they would carry a signed request to a place nobody configured). Each attempt
//! has a connection of its own; a verdict a minute is not worth a pool, and a connection that died
//! in between is one failure less. Proxies of the environment are deliberately ignored.

use std::{error::Error, sync::Once, time::Duration};

use async_trait::async_trait;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
    redirect::Policy,
};

use super::{
    Attempt, Clock, Mechanism, Parcel, retry,
    sign::{self, ID_HEADER, KeyError, Keys, SIGNATURE_HEADER, TIMESTAMP_HEADER},
};
use crate::telemetry::secret::Secret;

/// Bytes of an answer that are read; the rest is not waited for.
pub const ANSWER_BYTES_MAX: usize = 4 << 10;

/// How long a body is read once the status has arrived: the status has already decided.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);

/// Characters of an answer that are kept.
const ANSWER_CHARS_MAX: usize = 300;

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
    /// A header cannot be sent.
    #[error("webhook {name}: header {header} {why}")]
    Header {
        /// Which mechanism.
        name: String,
        /// Which header.
        header: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A secret cannot sign.
    #[error("webhook {name}: {fault}")]
    Key {
        /// Which mechanism.
        name: String,
        /// What is wrong with it.
        fault: KeyError,
    },
    /// The HTTP client could not be made.
    #[error("webhook {name}: the http client could not be set up")]
    Client {
        /// Which mechanism.
        name: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

/// A receiver of signed verdicts.
pub struct Webhook {
    name: String,
    url: Url,
    keys: Keys,
    headers: HeaderMap,
    client: Client,
    now: Clock,
    /// Words that a receiver may echo and that are struck from its answers.
    words: Vec<Secret>,
}

impl Webhook {
    /// Checks the options. Nothing is sent.
    pub fn new(options: WebhookOptions, now: Clock) -> Result<Self, WebhookError> {
        let WebhookOptions { name, url, secrets, headers, timeout } = options;
        let mut words: Vec<Secret> =
            secrets.iter().chain(headers.iter().map(|(_, value)| value)).cloned().collect();
        let keys =
            Keys::new(&secrets).map_err(|fault| WebhookError::Key { name: name.clone(), fault })?;
        let url = checked_url(&name, &url)?;
        let headers = checked_headers(&name, &headers)?;
        words.extend(url_words(&url));
        install_tls();
        let mut client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(timeout);
        if url.scheme() == "http" {
            // Without redirects it never needs the system's certificates, which a bare container
            // image does not have, and without which the client could not be made.
            client = client.tls_certs_only([]);
        }
        let client =
            client.build().map_err(|source| WebhookError::Client { name: name.clone(), source })?;
        Ok(Self { name, url, keys, headers, client, now, words })
    }

    async fn judge(&self, response: Response) -> Attempt {
        let status = response.status();
        let asked = response.headers().get(RETRY_AFTER).and_then(|header| header.to_str().ok());
        let retry_after = asked.and_then(|header| retry::retry_after(header, (self.now)()));
        let answer = self.clean(&format!("{status}: {}", beginning(response).await));
        if status.is_success() {
            Attempt::Delivered { answer }
        } else if status == StatusCode::GONE {
            Attempt::Refused { answer }
        } else {
            Attempt::Failed { answer, retry_after }
        }
    }

    /// One short line without our secrets.
    fn clean(&self, answer: &str) -> String {
        let mut answer = answer.to_owned();
        for word in self.words.iter().map(Secret::expose).filter(|word| !word.is_empty()) {
            answer = answer.replace(word, "[redacted]");
        }
        let line: String = answer
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(ANSWER_CHARS_MAX)
            .collect();
        line.trim_end_matches([' ', ':']).to_owned()
    }
}

#[async_trait]
impl Mechanism for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        let at = (self.now)();
        let sent = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ID_HEADER, &parcel.key)
            .header(TIMESTAMP_HEADER, sign::unix_secs(at))
            .header(SIGNATURE_HEADER, self.keys.sign(&parcel.key, at, parcel.body.as_bytes()))
            .body(parcel.body.clone())
            .send()
            .await;
        match sent {
            Ok(response) => self.judge(response).await,
            Err(error) => {
                let answer = self.clean(&chain(error.without_url()));
                Attempt::Failed { answer, retry_after: None }
            }
        }
    }
}

fn checked_url(name: &str, url: &Secret) -> Result<Url, WebhookError> {
    let fault = |why: String| WebhookError::Url { name: name.to_owned(), why };
    let url = Url::parse(url.expose()).map_err(|error| fault(format!("is not one ({error})")))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        "http" | "https" => Err(fault("has no host".to_owned())),
        scheme => Err(fault(format!("begins with {scheme}:"))),
    }
}

/// Parts of a URL long enough to be a token: shorter ones are words that answers may well use.
fn url_words(url: &Url) -> impl Iterator<Item = Secret> {
    const TOKEN_CHARS_MIN: usize = 12;
    let parts = [url.as_str(), url.path(), url.query().unwrap_or_default()];
    let parts = parts.into_iter().chain(url.path_segments().into_iter().flatten());
    let parts = parts.chain(url.password()).filter(|part| part.len() >= TOKEN_CHARS_MIN);
    parts.map(Secret::new)
}

fn checked_headers(name: &str, headers: &[(String, Secret)]) -> Result<HeaderMap, WebhookError> {
    let agent = concat!("rollgate/", env!("CARGO_PKG_VERSION"));
    let mut map = HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(agent))]);
    for (header, value) in headers {
        let fault =
            |why| WebhookError::Header { name: name.to_owned(), header: header.clone(), why };
        let key = HeaderName::try_from(header).map_err(|_| fault("is not a header name"))?;
        if RESERVED.contains(&key.as_str()) {
            return Err(fault("is set by rollgate itself"));
        }
        let mut value = HeaderValue::try_from(value.expose())
            .map_err(|_| fault("has a value with a control character"))?;
        value.set_sensitive(true);
        map.insert(key, value);
    }
    Ok(map)
}

/// The beginning of a body as text. What goes wrong in it changes nothing any more.
async fn beginning(mut response: Response) -> String {
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = ANSWER_BYTES_MAX - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == ANSWER_BYTES_MAX {
                break;
            }
        }
    };
    // A time-out leaves what was read so far, which is all that is wanted.
    let _ = tokio::time::timeout(ANSWER_WAIT_MAX, reading).await;
    String::from_utf8_lossy(&body).into_owned()
}

fn chain(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that another part of the process already chose a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
