//! A list of targets over HTTP, in the shape of Prometheus' `http_sd_configs`.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{
    Url,
    header::{ACCEPT, HeaderName},
};

use super::{Ask, HttpList, LIST_BYTES_MAX, Listed, groups};
use crate::outward::exchange::{Call, Exchange, ExchangeError, ExchangeOptions};

/// Tells the list's server how often it is asked.
const REFRESH_HEADER: HeaderName = HeaderName::from_static("x-prometheus-refresh-interval-seconds");

/// Asks a list's server.
pub struct HttpAsk {
    exchange: Exchange,
    url: Url,
    refresh: Duration,
}

impl HttpAsk {
    /// Checks headers and certificates; nothing is sent.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn new(
        list: HttpList,
        refresh: Duration,
        timeout: Duration,
    ) -> Result<Self, ExchangeError> {
        let HttpList { url, headers, tls } = list;
        let is_plain = url.scheme() == "http";
        let (secrets, rehearsal) = (Vec::new(), None);
        let options = ExchangeOptions { headers, secrets, tls, is_plain, timeout, rehearsal };
        let exchange = Exchange::new(options)?.hiding(&url);
        Ok(Self { exchange, url, refresh })
    }
}

#[async_trait]
impl Ask for HttpAsk {
    async fn ask(&mut self) -> Result<Vec<Listed>, String> {
        let call = Call::get(self.url.clone(), LIST_BYTES_MAX)
            .header(ACCEPT, "application/json")
            .header(REFRESH_HEADER, self.refresh.as_secs().to_string());
        let reply = self.exchange.read(call).await?;
        // As Prometheus has it: a list is a 200, and nothing else is.
        if reply.status != reqwest::StatusCode::OK {
            return Err(format!("found {}, expected 200", self.exchange.words_of(&reply)));
        }
        if !reply.is_whole {
            return Err(format!("no whole answer came within its time and {LIST_BYTES_MAX} bytes"));
        }
        let place = self.url.host_str().unwrap_or_default();
        let found = groups::of_json(&reply.body)
            .and_then(|all| groups::listed(all, &[("__meta_url", place)]));
        found.map_err(|fault| self.exchange.clean(&fault))
    }
}
