//! The one outgoing HTTP client of the sources.
//!
//! Invariants: no proxy, no redirect, no credentials in URLs; every exchange ends within its time
//! and holds no more than its bytes, counted after decompression; every failure is typed by who
//! was at fault, because a refused connection may mean "down" and our own lack of file handles
//! may not. Where networks are given, no connection is made to an address outside of them: names
//! are judged by what they resolve to each time a connection is made, and a connection that is
//! used again was judged when it was made. It deliberately retries only a connection that the
//! other side had already closed.

use std::{
    error::Error as StdError,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{
    Url,
    dns::{Name, Resolve},
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION},
};
use tokio::{sync::Semaphore, time::timeout_at};

use super::excerpt::{excerpt, in_words};
use crate::{
    outward::{
        networks::{Forbidden, Guarded, Networks, SystemNames, literal},
        tls::{TlsError, TlsOptions},
    },
    telemetry::secret::Secret,
};

/// Exchanges in flight over all analyses of the process.
pub const EXCHANGES_MAX: usize = 1024;
/// Idle connections kept to one host.
pub const IDLE_PER_HOST_MAX: usize = 2;
const IDLE_TIME_MAX: Duration = Duration::from_secs(75);
/// A server that closes idle connections may do so while we send; one second try tells that from
/// a server that answers nobody.
const SENDS_MAX: u32 = 2;
/// What a client is given besides its bounds.
#[derive(Clone)]
pub struct ClientOptions {
    /// Exchanges in flight at once.
    pub slots: usize,
    /// Where connections may go; anywhere when none are given.
    pub networks: Option<Networks>,
    /// Trust and identity.
    pub tls: TlsOptions,
    /// Headers of every request, such as `authorization`.
    pub headers: Vec<(String, Secret)>,
    /// Who resolves names.
    pub names: Arc<dyn Resolve>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            slots: EXCHANGES_MAX,
            networks: None,
            tls: TlsOptions::default(),
            headers: Vec::new(),
            names: Arc::new(SystemNames),
        }
    }
}

/// How much of everything one exchange may take.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// From the wait for a free slot to the last byte.
    pub time: Duration,
    /// Decoded bytes of the body.
    pub bytes: usize,
}

/// A whole answer, of any status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// The content type, when given.
    pub content_type: Option<String>,
    /// Where a redirect points, without its query.
    pub location: Option<String>,
    /// Decoded body.
    pub body: Vec<u8>,
    /// From the request to the last byte.
    pub elapsed: Duration,
}

/// Why there is no whole answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The time ran out.
    #[error("no whole answer within {} ({}; expected all of it)", in_words(*.after), .got)]
    Timeout {
        /// The limit.
        after: Duration,
        /// What had come by then.
        got: String,
    },
    /// Nobody listens, or the connection was reset while it was made.
    #[error("connection refused: {why}")]
    Refused {
        /// The system's words.
        why: String,
    },
    /// The connection ended before the answer did.
    #[error("the answer broke off after {bytes} bytes: {why}")]
    Cut {
        /// Decoded bytes until then.
        bytes: usize,
        /// What the protocol says of it.
        why: String,
    },
    /// The body is larger than allowed.
    #[error("the body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Name resolution failed: this says nothing about the target.
    #[error("the host name could not be resolved: {why}")]
    Name {
        /// The resolver's words.
        why: String,
    },
    /// TLS could not be agreed on: certificates are as often our fault as theirs.
    #[error("TLS failed: {why}")]
    Tls {
        /// What rustls says.
        why: String,
    },
    /// It is not asked, because of where it is.
    #[error("it may not be asked: {why}")]
    Forbidden {
        /// Which address, and which rule is against it.
        why: String,
    },
    /// The fault is on our side of the wire.
    #[error("rollgate could not ask: {why}")]
    Ours {
        /// What went wrong.
        why: String,
    },
}

impl FetchError {
    /// Whether the same may well succeed in a moment.
    pub fn may_pass(&self) -> bool {
        match self {
            FetchError::Timeout { .. } | FetchError::Refused { .. } | FetchError::Cut { .. } => {
                true
            }
            FetchError::TooLarge { .. }
            | FetchError::Name { .. }
            | FetchError::Tls { .. }
            | FetchError::Forbidden { .. }
            | FetchError::Ours { .. } => false,
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The machine's TLS roots cannot be read.
    #[error("cannot set up the HTTP client")]
    Build(#[from] reqwest::Error),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A header cannot be sent. Its value is not shown.
    #[error("header {0:?} cannot be sent, is there a line break at its end?")]
    Header(String),
}

/// The client. Cheap to clone; clones share connections and slots.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    slots: Arc<Semaphore>,
    networks: Option<Networks>,
    names: Arc<dyn Resolve>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("networks", &self.networks).finish_non_exhaustive()
    }
}

impl Client {
    /// Sets the client up, with the ring provider as the process's TLS.
    ///
    /// # Errors
    /// When the TLS roots of the machine cannot be read.
    pub fn new() -> Result<Self, ClientError> {
        Self::with(ClientOptions::default())
    }

    /// The same with another number of exchanges in flight.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_slots(slots: usize) -> Result<Self, ClientError> {
        Self::with(ClientOptions { slots, ..ClientOptions::default() })
    }

    /// A client that only goes where it may, trusts whom it is told, or shows who it is.
    ///
    /// # Errors
    /// When a certificate or a header cannot be used, or the machine's TLS roots cannot be read.
    pub fn with(options: ClientOptions) -> Result<Self, ClientError> {
        let ClientOptions { slots, networks, tls, headers, names } = options;
        let http = reqwest::Client::builder()
            .user_agent(concat!("rollgate/", env!("CARGO_PKG_VERSION")))
            .default_headers(sendable(&headers)?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .gzip(true)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .pool_idle_timeout(IDLE_TIME_MAX);
        let http = match &networks {
            Some(networks) => http.dns_resolver(Guarded::new(networks.clone(), names.clone())),
            None => http,
        };
        let http = tls.apply(http, false)?.build()?;
        Ok(Self { http, slots: Arc::new(Semaphore::new(slots)), networks, names })
    }

    /// Why a URL may not be asked, as far as that can be told now: a name that cannot be resolved
    /// now is no reason, and is judged again when a connection is made.
    pub async fn forbids(&self, url: &Url) -> Option<Forbidden> {
        let networks = self.networks.as_ref()?;
        if literal(url).is_some() {
            return networks.check_url(url).err();
        }
        let name: Name = url.host_str()?.parse().ok()?;
        let found = self.names.resolve(name).await.ok()?;
        networks.permitted(found).err()
    }

    /// GETs a URL within bounds.
    ///
    /// # Errors
    /// When no whole answer came; a status that is not 2xx is an answer.
    pub async fn bounded_get(
        &self,
        url: &Url,
        accept: &'static str,
        bound: Bound,
    ) -> Result<Answer, FetchError> {
        self.exchange(url, self.http.get(url.clone()).header(ACCEPT, accept), bound).await
    }

    /// POSTs a form within bounds. Only for questions: it may be sent twice.
    ///
    /// # Errors
    /// When no whole answer came; a status that is not 2xx is an answer.
    pub async fn bounded_form(
        &self,
        url: &Url,
        headers: &HeaderMap,
        form: String,
        bound: Bound,
    ) -> Result<Answer, FetchError> {
        let request = self
            .http
            .post(url.clone())
            .headers(headers.clone())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        self.exchange(url, request, bound).await
    }

    async fn exchange(
        &self,
        url: &Url,
        request: reqwest::RequestBuilder,
        bound: Bound,
    ) -> Result<Answer, FetchError> {
        // An address in the URL itself is connected to without asking the resolver.
        if let Some(networks) = &self.networks {
            networks
                .check_url(url)
                .map_err(|why| FetchError::Forbidden { why: why.to_string() })?;
        }
        let asked = tokio::time::Instant::now();
        let deadline = asked + bound.time;
        // Half of the time is kept for the exchange itself: a target that never had a fair chance
        // to answer must not be called slow.
        let slot = timeout_at(asked + bound.time / 2, self.slots.acquire()).await;
        let _slot = slot
            .map_err(|_| FetchError::Ours { why: "too many requests in flight".into() })?
            .map_err(|closed| FetchError::Ours { why: closed.to_string() })?;
        let begun = Instant::now();
        let response = send(request, deadline, bound).await?;
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let content_type = header(CONTENT_TYPE).map(excerpt);
        // The query of a redirect may carry a token, and its authority a password.
        let location = header(LOCATION).map(|to| excerpt(without_secrets(to)));
        let body = body_within(response, deadline, bound).await?;
        Ok(Answer { status, content_type, location, body, elapsed: begun.elapsed() })
    }
}

async fn send(
    request: reqwest::RequestBuilder,
    deadline: tokio::time::Instant,
    bound: Bound,
) -> Result<reqwest::Response, FetchError> {
    let mut sends = 1;
    loop {
        let request = request.try_clone().expect("bodies of ours are texts, which can be cloned");
        match timeout_at(deadline, request.send()).await {
            Err(_) => {
                return Err(FetchError::Timeout { after: bound.time, got: "nothing came".into() });
            }
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => {
                let failure = failure(&error);
                let gone = matches!(failure, FetchError::Cut { .. });
                if !gone || sends == SENDS_MAX {
                    return Err(failure);
                }
                sends += 1;
            }
        }
    }
}

async fn body_within(
    mut response: reqwest::Response,
    deadline: tokio::time::Instant,
    bound: Bound,
) -> Result<Vec<u8>, FetchError> {
    let too_large = || FetchError::TooLarge { limit: bound.bytes };
    // Of a compressed body the length is not known here; it is counted below.
    if response.content_length().is_some_and(|length| length > bound.bytes as u64) {
        return Err(too_large());
    }
    // Grown by what came, never by what was announced.
    let mut body = Vec::new();
    loop {
        match timeout_at(deadline, response.chunk()).await {
            Err(_) => {
                let got = format!("{} bytes came", body.len());
                return Err(FetchError::Timeout { after: bound.time, got });
            }
            Ok(Err(error)) => {
                return Err(FetchError::Cut { bytes: body.len(), why: innermost(&error) });
            }
            Ok(Ok(None)) => return Ok(body),
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() > bound.bytes => {
                return Err(too_large());
            }
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
        }
    }
}

/// Who was at fault, from the chain of causes.
fn failure(error: &reqwest::Error) -> FetchError {
    let why = innermost(error);
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    let mut named = false;
    while let Some(error) = cause {
        // The resolver's error has no public type; its words are all there is.
        named |= error.to_string().starts_with("dns error");
        if let Some(forbidden) = error.downcast_ref::<Forbidden>() {
            return FetchError::Forbidden { why: forbidden.to_string() };
        }
        if error.is::<rustls::Error>() {
            return FetchError::Tls { why };
        }
        if let Some(mut error) = error.downcast_ref::<io::Error>() {
            // An I/O error inside another is not a source of it.
            while let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
                error = inner;
            }
            if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                return FetchError::Tls { why };
            }
            match error.kind() {
                io::ErrorKind::ConnectionRefused => return FetchError::Refused { why },
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => return FetchError::Cut { bytes: 0, why },
                // Among the rest are "no route" and "too many open files": not the target's word.
                _ => {}
            }
        }
        cause = error.source();
    }
    if named {
        FetchError::Name { why }
    } else if error.is_connect() || error.is_builder() {
        FetchError::Ours { why }
    } else {
        FetchError::Cut { bytes: 0, why }
    }
}

fn sendable(headers: &[(String, Secret)]) -> Result<HeaderMap, ClientError> {
    let mut sendable = HeaderMap::new();
    for (name, value) in headers {
        let fault = || ClientError::Header(name.clone());
        let key: HeaderName = name.parse().map_err(|_| fault())?;
        let mut value: HeaderValue = value.expose().parse().map_err(|_| fault())?;
        value.set_sensitive(true);
        sendable.append(key, value);
    }
    Ok(sendable)
}

fn without_secrets(location: &str) -> &str {
    let location = location.split(['?', '#']).next().unwrap_or("");
    location.rsplit_once('@').map_or(location, |(_, rest)| rest)
}

/// The innermost cause: the outer ones repeat the URL.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    let mut depth = 0;
    while let Some(inner) = cause.source() {
        cause = inner;
        depth += 1;
    }
    if depth == 0 { "the request failed".to_owned() } else { excerpt(&cause.to_string()) }
}
