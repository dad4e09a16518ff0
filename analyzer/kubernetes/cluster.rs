//! Requests to one API server: read an object, list objects, patch an object or a part of it.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Method, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    credentials::{Credentials, Shown},
    error::ClusterError,
    object::{Kind, Name, Object, PODS, Patch},
    pod::{Pod, PodObject},
};
use crate::{
    outward::exchange::{
        Call, Exchange, ExchangeOptions, Rehearsal, Reply, WORDS_BYTES_MAX, checked_url,
    },
    telemetry::secret::Secret,
};

/// Largest object that is read. An API server stores none beyond 1.5 MiB, but shows who changed
/// which field besides.
const OBJECT_BYTES_MAX: usize = 4 << 20;

/// Largest page of a list.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// Objects asked for at once.
const PAGE_OBJECTS: usize = 250;

/// Objects of one list; more are refused, since half a list would be believed to be all of it.
const LIST_OBJECTS_MAX: usize = 10_000;

/// How often a list is begun again because its place in it had expired (410).
const LIST_BEGINS_MAX: u32 = 3;

/// How to reach an API server.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Its address, such as `https://10.0.0.1:6443`, perhaps with a path.
    pub server: String,
    /// As whom, and whom we trust.
    pub credentials: Credentials,
    /// The namespace where none is said.
    pub namespace: Option<String>,
    /// How long one request may take in all.
    pub timeout: Duration,
}

/// An API server.
pub struct Cluster {
    server: Url,
    credentials: Credentials,
    namespace: Option<String>,
    timeout: Duration,
    rehearsal: Option<Rehearsal>,
    /// The last way to it, made anew when the credentials have changed.
    kept: Mutex<Option<(Shown, Exchange)>>,
}

/// One request, which may have to be made again with another token.
struct Asked<'a> {
    method: Method,
    path: String,
    query: Vec<(&'a str, String)>,
    body: Option<(Patch, String)>,
    answer_bytes_max: usize,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMetadata,
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageMetadata {
    #[serde(rename = "continue")]
    next: String,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("server", &self.server.as_str()).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Checks the options and reads the credentials once. Nothing is sent. In a rehearsal patches
    /// are put down instead of being made.
    ///
    /// # Errors
    /// In words, when the address or the credentials cannot be used.
    pub fn new(options: ClusterOptions, rehearsal: Option<Rehearsal>) -> Result<Self, String> {
        let ClusterOptions { server, credentials, namespace, timeout } = options;
        let server = checked_url(&Secret::new(&*server))
            .map_err(|why| format!("the server {why}, expected https:// and a host"))?;
        let is_here = server.host_str().is_some_and(|host| {
            let host = host.trim_matches(['[', ']']);
            host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        });
        if server.scheme() == "http" && credentials.token.is_some() && !is_here {
            return Err("the server begins with http:, and a token would travel in the clear; \
                        expected https:// beyond loopback"
                .to_owned());
        }
        if let Some(namespace) = &namespace {
            Name::new(namespace).map_err(|why| format!("the namespace {why}"))?;
        }
        let kept = Mutex::new(None);
        let cluster = Self { server, credentials, namespace, timeout, rehearsal, kept };
        cluster.exchange().map_err(|error| error.to_string())?;
        Ok(cluster)
    }

    /// The namespace where none is said.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The server's host, for people.
    pub fn host(&self) -> &str {
        self.server.host_str().unwrap_or_default()
    }

    /// Reads an object.
    ///
    /// # Errors
    /// When there is none, it may not be seen, or no whole answer came.
    pub async fn read(&self, object: &Object) -> Result<Value, ClusterError> {
        let asked = Asked {
            method: Method::GET,
            path: object.path(None),
            query: Vec::new(),
            body: None,
            answer_bytes_max: OBJECT_BYTES_MAX,
        };
        let found: Value = self.asked_json(&asked).await?;
        match found.is_object() {
            true => Ok(found),
            false => Err(ClusterError::Malformed(format!("the answer is no {}", object.kind.word))),
        }
    }

    /// Lists the objects of a namespace whose labels match, as a label selector writes it
    /// (`app=shop,version in (v1,v2)`); all of them when it is empty.
    ///
    /// # Errors
    /// When they may not be seen, are more than 10,000, or no whole answer came.
    pub async fn list<T: DeserializeOwned>(
        &self,
        kind: Kind,
        namespace: &Name,
        label_selector: &str,
    ) -> Result<Vec<T>, ClusterError> {
        let mut begins = 1;
        loop {
            match self.listed(kind, namespace, label_selector).await {
                Err(error)
                    if error.code() == Some(StatusCode::GONE) && begins < LIST_BEGINS_MAX =>
                {
                    begins += 1;
                }
                found => return found,
            }
        }
    }

    /// Lists pods, whatever their phase.
    ///
    /// # Errors
    /// As [`Cluster::list`].
    pub async fn list_pods(
        &self,
        namespace: &Name,
        label_selector: &str,
    ) -> Result<Vec<Pod>, ClusterError> {
        let found: Vec<PodObject> = self.list(PODS, namespace, label_selector).await?;
        Ok(found.into_iter().map(Pod::from).collect())
    }

    /// Changes an object, or a part of it such as `status` or `scale`.
    ///
    /// # Errors
    /// When it was refused, or no answer came and it may or may not have been done.
    pub async fn patch(
        &self,
        object: &Object,
        part: Option<&str>,
        patch: Patch,
        body: &Value,
    ) -> Result<(), ClusterError> {
        let asked = Asked {
            method: Method::PATCH,
            path: object.path(part),
            query: Vec::new(),
            body: Some((patch, body.to_string())),
            answer_bytes_max: WORDS_BYTES_MAX,
        };
        self.ask(&asked).await.map(|_| ())
    }

    async fn listed<T: DeserializeOwned>(
        &self,
        kind: Kind,
        namespace: &Name,
        label_selector: &str,
    ) -> Result<Vec<T>, ClusterError> {
        let mut found = Vec::new();
        let mut next = String::new();
        loop {
            let mut query = vec![("limit", PAGE_OBJECTS.to_string())];
            if !label_selector.is_empty() {
                query.push(("labelSelector", label_selector.to_owned()));
            }
            if !next.is_empty() {
                query.push(("continue", next));
            }
            let path = kind.path(namespace);
            let (method, body, answer_bytes_max) = (Method::GET, None, PAGE_BYTES_MAX);
            let asked = Asked { method, path, query, body, answer_bytes_max };
            let page: Page<T> = self.asked_json(&asked).await?;
            found.extend(page.items.unwrap_or_default());
            if found.len() > LIST_OBJECTS_MAX {
                let words = format!("more than {LIST_OBJECTS_MAX} {} match", kind.plural);
                return Err(ClusterError::Malformed(words));
            }
            next = page.metadata.next;
            if next.is_empty() {
                return Ok(found);
            }
        }
    }

    async fn asked_json<T: DeserializeOwned>(&self, asked: &Asked<'_>) -> Result<T, ClusterError> {
        let reply = self.ask(asked).await?;
        if !reply.is_whole {
            let bytes_max = asked.answer_bytes_max;
            return Err(ClusterError::Malformed(match reply.body.len() >= bytes_max {
                true => format!("the answer has more than {bytes_max} bytes"),
                false => "the answer breaks off".to_owned(),
            }));
        }
        serde_json::from_slice(&reply.body)
            .map_err(|error| ClusterError::Malformed(format!("the answer cannot be read: {error}")))
    }

    /// A 2xx answer. A token that is refused is looked at once more: it may just have been renewed.
    async fn ask(&self, asked: &Asked<'_>) -> Result<Reply, ClusterError> {
        let (token, exchange) = self.exchange()?;
        let found = self.answer(&exchange, token.as_ref(), asked).await;
        match found {
            Err(error) if error.code() == Some(StatusCode::UNAUTHORIZED) => {
                match self.exchange()? {
                    (renewed, exchange) if renewed != token => {
                        self.answer(&exchange, renewed.as_ref(), asked).await
                    }
                    _ => Err(error),
                }
            }
            found => found,
        }
    }

    async fn answer(
        &self,
        exchange: &Exchange,
        token: Option<&Secret>,
        asked: &Asked<'_>,
    ) -> Result<Reply, ClusterError> {
        let mut call = Call::get(self.url(asked), asked.answer_bytes_max);
        call.method = asked.method.clone();
        call = call.header(ACCEPT, "application/json");
        if let Some(token) = token {
            call = call.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let sent = match &asked.body {
            Some((patch, body)) => {
                call.body = Some(body.clone());
                exchange.write(call.header(CONTENT_TYPE, patch.content_type())).await
            }
            None => exchange.read(call).await,
        };
        let reply = sent.map_err(ClusterError::Unreachable)?;
        if reply.status.is_success() {
            return Ok(reply);
        }
        let fallback = exchange
            .clean(&String::from_utf8_lossy(&reply.body[..reply.body.len().min(WORDS_BYTES_MAX)]));
        let clean = |text: &str| exchange.clean(text);
        let Reply { status, retry_after, body, .. } = reply;
        Err(ClusterError::refusal(status, &body, retry_after, fallback, clean))
    }

    fn url(&self, asked: &Asked<'_>) -> Url {
        let mut url = self.server.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{}", asked.path));
        url.set_query(None);
        if !asked.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&asked.query);
        }
        url
    }

    /// The way to the server with the credentials as they are now.
    fn exchange(&self) -> Result<(Option<Secret>, Exchange), ClusterError> {
        let shown = self.credentials.read()?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, exchange)) = &*kept
            && *before == shown
        {
            return Ok((shown.token, exchange.clone()));
        }
        let options = ExchangeOptions {
            headers: Vec::new(),
            secrets: shown.token.iter().cloned().collect(),
            tls: shown.tls(),
            is_plain: self.server.scheme() == "http",
            timeout: self.timeout,
            rehearsal: self.rehearsal.clone(),
        };
        let exchange =
            Exchange::new(options).map_err(|error| ClusterError::Credentials(error.to_string()))?;
        let token = shown.token.clone();
        *kept = Some((shown, exchange.clone()));
        Ok((token, exchange))
    }
}
