//! Where an explanation comes from: a service that runs, or the store of one.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use reqwest::Url;
use serde::de::DeserializeOwned;

use crate::{
    api::desk::{AnalysisPage, AnalysisView, DeskError, ListFilter},
    cli::{UsageError, token::Credentials},
    outward::tls::TlsOptions,
    report::timeline::Timeline,
    service::archive::Archive,
    source::client::{Bound, Client, ClientOptions},
    store::{StoreError, sqlite::SqliteStore},
    telemetry::secret::Secret,
};

/// What one answer of a service may take.
const BOUND: Bound = Bound { time: Duration::from_secs(30), bytes: 32 << 20 };

/// Where analyses are read from.
pub enum Source {
    /// A service that runs.
    Server {
        /// Asks it.
        client: Client,
        /// Its address.
        url: Url,
    },
    /// A file.
    Store(Archive),
}

impl Source {
    /// The service at an address.
    pub fn server(address: &str, credentials: &Credentials) -> anyhow::Result<Self> {
        let url = Url::parse(address)
            .ok()
            .filter(|url| url.has_host() && url.scheme().starts_with("http"));
        let url = url.ok_or_else(|| {
            UsageError(format!(
                "--server is {address:?}, expected a URL such as http://127.0.0.1:8750"
            ))
        })?;
        let bearer = |token: Secret| {
            let value = Secret::new(format!("Bearer {}", token.expose()));
            ("authorization".to_owned(), value)
        };
        let headers = credentials.token()?.map(bearer).into_iter().collect();
        let tls = TlsOptions { ca: credentials.ca()?, identity: None };
        let client = Client::with(ClientOptions { headers, tls, ..ClientOptions::default() });
        let client = client.map_err(|error| UsageError(error.to_string()))?;
        Ok(Self::Server { client, url })
    }

    /// The store in a file, which is only read.
    pub async fn store(path: &Path) -> anyhow::Result<Self> {
        let store = SqliteStore::open_to_read(path).await.map_err(|error| match error {
            StoreError::Unusable { .. } => UsageError(error.to_string()).into(),
            StoreError::Database { .. }
            | StoreError::Unreadable { .. }
            | StoreError::Unwritable { .. }
            | StoreError::OutOfOrder { .. } => anyhow::Error::from(error),
        })?;
        Ok(Self::Store(Archive { store: Arc::new(store) }))
    }

    /// Analyses, newest first.
    pub async fn list(&self, filter: &ListFilter) -> anyhow::Result<AnalysisPage> {
        match self {
            Self::Server { client, url } => {
                let limit = filter.limit.map(|limit| limit.to_string());
                let query = [
                    ("service", filter.service.as_deref()),
                    ("state", filter.state.as_deref()),
                    ("verdict", filter.verdict.as_deref()),
                    ("after", filter.after.as_deref()),
                    ("limit", limit.as_deref()),
                ];
                json((client, url), &["v1", "analyses"], &query).await
            }
            Self::Store(archive) => archive.list(filter.clone()).await.map_err(unread),
        }
    }

    /// One analysis.
    pub async fn analysis(&self, id: &str) -> anyhow::Result<AnalysisView> {
        match self {
            Self::Server { client, url } => json((client, url), &["v1", "analyses", id], &[]).await,
            Self::Store(archive) => archive.analysis(id).await.map_err(unread),
        }
    }

    /// What changed in the course of it.
    pub async fn timeline(&self, id: &str) -> anyhow::Result<Timeline> {
        match self {
            Self::Server { client, url } => {
                json((client, url), &["v1", "analyses", id, "timeline"], &[]).await
            }
            Self::Store(archive) => archive.timeline(id).await.map_err(unread),
        }
    }

    /// The text of the rule file that it began with.
    pub async fn rules(&self, id: &str) -> anyhow::Result<String> {
        match self {
            Self::Server { client, url } => {
                let path = ["v1", "analyses", id, "rules"];
                let body = get((client, url), &path, &[]).await?;
                String::from_utf8(body).context("the service's answer is no text")
            }
            Self::Store(archive) => Ok(archive.rules(id).await.map_err(unread)?.text),
        }
    }
}

async fn json<T: DeserializeOwned>(
    (client, server): (&Client, &Url),
    path: &[&str],
    query: &[(&str, Option<&str>)],
) -> anyhow::Result<T> {
    let body = get((client, server), path, query).await?;
    serde_json::from_slice(&body)
        .with_context(|| format!("{server} does not answer as a rollgate of this version does"))
}

async fn get(
    (client, server): (&Client, &Url),
    path: &[&str],
    query: &[(&str, Option<&str>)],
) -> anyhow::Result<Vec<u8>> {
    let mut url = server.clone();
    match url.path_segments_mut() {
        Ok(mut segments) => drop(segments.pop_if_empty().extend(path)),
        Err(()) => return Err(UsageError(format!("{server} cannot be asked")).into()),
    }
    for (name, value) in query {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    let answer = client.bounded_get(&url, "application/json", BOUND).await.map_err(|error| {
        anyhow!(
            "no rollgate answers at {server}: {error}\n  hint: give its address with --server, or \
             with --store the file of one that does not run"
        )
    })?;
    match answer.status {
        200 => Ok(answer.body),
        status => {
            let detail = serde_json::from_slice::<serde_json::Value>(&answer.body)
                .ok()
                .and_then(|problem| problem["detail"].as_str().map(str::to_owned));
            let hint = match status {
                401 => "\n  hint: say the token by ROLLGATE_TOKEN or --token-file",
                _ => "",
            };
            let detail = detail.unwrap_or_else(|| "is that the address of a rollgate?".to_owned());
            Err(anyhow!("{server} answers {status}: {detail}{hint}"))
        }
    }
}

/// What a store does not give.
fn unread(error: DeskError) -> anyhow::Error {
    match error {
        DeskError::Unknown(_) | DeskError::NoRules(_) | DeskError::Refused(_) => {
            UsageError(error.to_string()).into()
        }
        DeskError::Conflict(_) | DeskError::Full(_) | DeskError::Unavailable(_) => error.into(),
    }
}
