//! Single requests to a named peer: a mechanism's receiver, an API server.
//!
//! A peer is not trusted: its answer is read up to a limit and for a limited time, redirects are
//! not followed (they would carry a token to a place nobody configured), and what it says is shown
//! on one short line without our secrets. Each request has a connection of its own; a verdict a
//! minute is not worth a pool, and a connection that died in between is one failure less. Proxies
//! of the environment are deliberately ignored.
//!
//! In a *rehearsal* nothing is changed: reads are really asked, writes are put down and taken for
//! done.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
    redirect::Policy,
};

use super::tls::{TlsError, TlsOptions};
use crate::telemetry::secret::Secret;

/// How long a body is read when its bytes are only for people: the status has already decided.
const WORDS_WAIT_MAX: Duration = Duration::from_secs(2);

/// Bytes that are read of an answer that is only for people.
pub const WORDS_BYTES_MAX: usize = 4 << 10;

/// Characters of an answer that are kept.
const WORDS_CHARS_MAX: usize = 300;

/// What stands for a secret.
const REDACTED: &str = "[redacted]";

/// How to reach a peer.
#[derive(Clone, Debug)]
pub struct ExchangeOptions {
    /// Headers of every request, such as `authorization`.
    pub headers: Vec<(String, Secret)>,
    /// Words that never show in an answer, besides the headers' values.
    pub secrets: Vec<Secret>,
    /// Trust and identity.
    pub tls: TlsOptions,
    /// Whether only `http://` is spoken.
    pub is_plain: bool,
    /// How long one request may take in all.
    pub timeout: Duration,
    /// Where writes are put down instead of being made.
    pub rehearsal: Option<Rehearsal>,
}

/// Why an exchange cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// A header cannot be sent.
    #[error("header {header} {why}")]
    Header {
        /// Which.
        header: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP client could not be made.
    #[error("the http client could not be set up")]
    Client(#[from] reqwest::Error),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Headers besides those of every request.
    pub headers: Vec<(HeaderName, String)>,
    /// Headers that a rehearsal does not show, such as a signature.
    pub secret_headers: Vec<(HeaderName, Secret)>,
    /// Its body; none where the method has none.
    pub body: Option<String>,
    /// Bytes of the answer that are read.
    pub answer_bytes_max: usize,
}

impl Call {
    /// A question whose answer is read whole.
    pub fn get(url: Url, answer_bytes_max: usize) -> Self {
        let (headers, secret_headers) = (Vec::new(), Vec::new());
        Self { method: Method::GET, url, headers, secret_headers, body: None, answer_bytes_max }
    }

    /// A request whose answer is only for people.
    pub fn new(method: Method, url: Url, body: String) -> Self {
        let (headers, secret_headers) = (Vec::new(), Vec::new());
        let (body, answer_bytes_max) = (Some(body), WORDS_BYTES_MAX);
        Self { method, url, headers, secret_headers, body, answer_bytes_max }
    }

    /// The same with another header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with another header that a rehearsal does not show.
    #[must_use]
    pub fn secret_header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.secret_headers.push((name, Secret::new(value)));
        self
    }
}

/// An answer of any status.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// `Retry-After` as it came.
    pub retry_after: Option<String>,
    /// Every header.
    pub headers: HeaderMap,
    /// Its body, up to the limit.
    pub body: Vec<u8>,
    /// Whether the body is whole.
    pub is_whole: bool,
    /// Whether the request was only put down.
    pub is_rehearsed: bool,
}

/// Requests of a rehearsal, in order. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Rehearsal(Arc<Mutex<Vec<Rehearsed>>>);

/// A request as it was, or would have been, sent. Free of secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// Its method.
    pub method: String,
    /// Where to.
    pub url: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Option<String>,
    /// What was answered; none of a write, which was not sent.
    pub answer: Option<String>,
}

impl Rehearsal {
    /// Everything put down so far.
    pub fn take(&self) -> Vec<Rehearsed> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_down(&self, rehearsed: Rehearsed) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(rehearsed);
    }
}

/// The way to one peer.
#[derive(Clone, Debug)]
pub struct Exchange {
    client: Client,
    headers: HeaderMap,
    words: Vec<Secret>,
    rehearsal: Option<Rehearsal>,
}

impl Exchange {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When a header or a certificate cannot be used.
    pub fn new(options: ExchangeOptions) -> Result<Self, ExchangeError> {
        let ExchangeOptions { headers, secrets, tls, is_plain, timeout, rehearsal } = options;
        let mut words = secrets;
        words.extend(headers.iter().map(|(_, value)| value.clone()));
        words.extend(headers.iter().filter_map(|(_, value)| credentials(value)));
        let escaped: Vec<Secret> = words.iter().filter_map(in_json).collect();
        words.extend(escaped);
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .pool_max_idle_per_host(0)
            .timeout(timeout);
        let client = tls.apply(client, is_plain)?.build()?;
        Ok(Self { client, headers: checked(&headers)?, words, rehearsal })
    }

    /// Adds what must not show of a URL: it may hold a token.
    #[must_use]
    pub fn hiding(mut self, url: &Url) -> Self {
        self.words.extend(url_words(url));
        self
    }

    /// Asks something that changes nothing.
    ///
    /// # Errors
    /// In words without secrets, when no answer came.
    pub async fn read(&self, call: Call) -> Result<Reply, String> {
        let shown = self.rehearsal.is_some().then(|| self.shown(&call));
        let reply = self.send(call).await;
        if let (Some(rehearsal), Some(mut shown)) = (&self.rehearsal, shown) {
            shown.answer = Some(match &reply {
                Ok(reply) => self.words_of(reply),
                Err(words) => words.clone(),
            });
            rehearsal.put_down(shown);
        }
        reply
    }

    /// Sends something that is to change the world; in a rehearsal it is put down and taken for done.
    ///
    /// # Errors
    /// In words without secrets, when no answer came: it may or may not have arrived.
    pub async fn write(&self, call: Call) -> Result<Reply, String> {
        let Some(rehearsal) = &self.rehearsal else { return self.send(call).await };
        rehearsal.put_down(self.shown(&call));
        let (status, body) = (StatusCode::OK, b"{}".to_vec());
        let (retry_after, headers) = (None, HeaderMap::new());
        Ok(Reply { status, retry_after, headers, body, is_whole: true, is_rehearsed: true })
    }

    /// Status and beginning of an answer in words.
    pub fn words_of(&self, reply: &Reply) -> String {
        if reply.is_rehearsed {
            return "not sent: a rehearsal".to_owned();
        }
        let end = reply.body.len().min(WORDS_BYTES_MAX);
        let text = String::from_utf8_lossy(&reply.body[..end]);
        self.clean(&format!("{}: {text}", reply.status))
    }

    /// One short line without our secrets.
    pub fn clean(&self, words: &str) -> String {
        let words = self.redacted(words);
        let plain = words.chars().map(|c| if c.is_control() { ' ' } else { c });
        let line: String = plain.take(WORDS_CHARS_MAX).collect();
        line.trim_end_matches([' ', ':']).to_owned()
    }

    fn redacted(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for word in self.words.iter().map(Secret::expose).filter(|word| !word.is_empty()) {
            text = text.replace(word, REDACTED);
        }
        text
    }

    fn shown(&self, call: &Call) -> Rehearsed {
        let ours = self.headers.iter().map(|(name, value)| match value.is_sensitive() {
            true => (name.to_string(), REDACTED.to_owned()),
            false => (name.to_string(), self.redacted(&String::from_utf8_lossy(value.as_bytes()))),
        });
        let more =
            call.headers.iter().map(|(name, value)| (name.to_string(), self.redacted(value)));
        let hidden =
            call.secret_headers.iter().map(|(name, _)| (name.to_string(), REDACTED.to_owned()));
        Rehearsed {
            method: call.method.to_string(),
            url: self.redacted(call.url.as_str()),
            headers: ours.chain(more).chain(hidden).collect(),
            body: call.body.as_deref().map(|body| self.redacted(body)),
            answer: None,
        }
    }

    async fn send(&self, call: Call) -> Result<Reply, String> {
        let mut request = self.client.request(call.method, call.url).headers(self.headers.clone());
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        for (name, value) in call.secret_headers {
            request = request.header(name, value.expose());
        }
        if let Some(body) = call.body {
            request = request.body(body);
        }
        let sent = request.send().await;
        let response = sent.map_err(|error| self.clean(&chain(error.without_url())))?;
        let status = response.status();
        let headers = response.headers().clone();
        let retry_after = headers.get(RETRY_AFTER).and_then(|header| header.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        let (body, is_whole) = body(response, call.answer_bytes_max).await;
        Ok(Reply { status, retry_after, headers, body, is_whole, is_rehearsed: false })
    }
}

/// Reads a URL that can be posted to.
///
/// # Errors
/// In words that go on from "the url", when it is not for HTTP or has no host.
pub fn checked_url(url: &Secret) -> Result<Url, String> {
    let url = Url::parse(url.expose()).map_err(|error| format!("is not one ({error})"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        "http" | "https" => Err("has no host".to_owned()),
        scheme => Err(format!("begins with {scheme}:")),
    }
}

/// How a secret stands in a JSON text, where that is not as it is.
fn in_json(word: &Secret) -> Option<Secret> {
    let quoted = serde_json::to_string(word.expose()).ok()?;
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    (inner != word.expose()).then(|| Secret::new(inner))
}

/// The part of `Bearer TOKEN` that is the secret.
fn credentials(header: &Secret) -> Option<Secret> {
    let (_, token) = header.expose().split_once(' ')?;
    (!token.trim().is_empty()).then(|| Secret::new(token.trim()))
}

/// Parts of a URL long enough to be a token: shorter ones are words that answers may well use. Scheme
/// and host are none of them, since whoever reads what went wrong has to know where.
fn url_words(url: &Url) -> impl Iterator<Item = Secret> {
    const TOKEN_CHARS_MIN: usize = 12;
    let path = url.path().trim_start_matches('/');
    let parts = [path, url.query().unwrap_or_default(), url.username()].into_iter();
    let parts = parts.chain(url.path_segments().into_iter().flatten());
    let parts = parts.chain(url.password()).filter(|part| part.len() >= TOKEN_CHARS_MIN);
    parts.map(Secret::new)
}

fn checked(headers: &[(String, Secret)]) -> Result<HeaderMap, ExchangeError> {
    let agent = concat!("rollgate/", env!("CARGO_PKG_VERSION"));
    let mut map = HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(agent))]);
    for (header, value) in headers {
        let fault = |why| ExchangeError::Header { header: header.clone(), why };
        let key = HeaderName::try_from(header).map_err(|_| fault("is not a header name"))?;
        let mut value = HeaderValue::try_from(value.expose())
            .map_err(|_| fault("has a value with a control character"))?;
        value.set_sensitive(true);
        map.insert(key, value);
    }
    Ok(map)
}

/// A body up to a limit, and whether that is all of it. What goes wrong in it leaves what was read.
async fn body(mut response: Response, bytes_max: usize) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    let mut is_whole = false;
    let reading = async {
        loop {
            match response.chunk().await {
                Err(_) => return,
                Ok(None) => {
                    is_whole = true;
                    return;
                }
                Ok(Some(chunk)) => {
                    let room = bytes_max - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    if chunk.len() > room {
                        return;
                    }
                }
            }
        }
    };
    if bytes_max > WORDS_BYTES_MAX {
        reading.await; // within the time of the whole request
    } else {
        // A time-out leaves what was read so far, which is all that is wanted.
        let _ = tokio::time::timeout(WORDS_WAIT_MAX, reading).await;
    }
    (body, is_whole)
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
