//! Open-loop load over HTTP: requests leave when they are due, whether or not earlier ones have
//! been answered, so a slow service does not slow its clients down and hide its slowness.
//!
//! Arrivals are a seeded Poisson process. What is in flight is bounded; an arrival beyond the bound
//! is counted as shed, never queued. No request is repeated.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{Client, Method};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{chance::waiting_secs, unix_secs};

/// Requests in flight at once: twenty times what the demo's busier arm has when all is well, and
/// fewer than the connections a demo service takes.
pub const IN_FLIGHT_MAX: usize = 128;

/// How long a client waits for an answer.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);

/// Method, path and share of the traffic, summing to one.
const MIX: [(&str, &str, f64); 3] =
    [("GET", "/api/items", 0.6), ("POST", "/api/orders", 0.2), ("GET", "/api/search", 0.2)];

/// What clients saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadCounts {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered, by method, path and status code.
    pub answered: BTreeMap<(&'static str, &'static str, u16), u64>,
    /// Requests refused or cut off.
    pub failed: u64,
    /// Requests not answered in time.
    pub timed_out: u64,
    /// Arrivals that found [`IN_FLIGHT_MAX`] requests in flight and were not sent.
    pub shed: u64,
    /// Unix time, in seconds, at which the first request without an answer had been sent.
    pub first_unanswered_unix_secs: Option<f64>,
}

impl LoadCounts {
    /// Requests that were answered, whatever the code.
    pub fn answered_total(&self) -> u64 {
        self.answered.values().sum()
    }

    /// Requests answered with a 5xx.
    pub fn errors(&self) -> u64 {
        self.answered.iter().filter(|((_, _, code), _)| *code >= 500).map(|(_, count)| count).sum()
    }
}

/// A running load. Dropping it ends it too, without waiting for answers.
#[derive(Debug)]
pub struct Load {
    counts: Arc<Mutex<LoadCounts>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Load {
    /// Starts `rps` requests a second, on average, against the service at `addr`. Zero is allowed,
    /// and sends nothing.
    ///
    /// # Errors
    /// When no HTTP client can be made, or `rps` is not a rate.
    pub fn start(addr: SocketAddr, rps: f64, seed: u64) -> io::Result<Self> {
        Self::start_after(Duration::ZERO, addr, rps, seed)
    }

    /// The same, with the first request due after `wait`.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub fn start_after(wait: Duration, addr: SocketAddr, rps: f64, seed: u64) -> io::Result<Self> {
        if !(rps.is_finite() && rps >= 0.0) {
            return Err(io::Error::other(format!("{rps} requests a second is not a rate")));
        }
        let client = client()?;
        let (counts, stop) = (Arc::default(), CancellationToken::new());
        let arrivals = Arrivals { client, addr, rps, wait, counts: Arc::clone(&counts) };
        let task = tokio::spawn(arrivals.run(StdRng::seed_from_u64(seed), stop.clone()));
        Ok(Self { counts, stop, task })
    }

    /// What clients have seen so far.
    pub fn counts(&self) -> LoadCounts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends nothing more, waits for the answers under way (at most [`CLIENT_TIMEOUT`]) and gives
    /// the final counts: every request sent is answered, failed or timed out in them.
    pub async fn stop(mut self) -> LoadCounts {
        self.stop.cancel();
        let _ = (&mut self.task).await;
        self.counts()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn client() -> io::Result<Client> {
    // The client wants a TLS provider even where nothing speaks TLS; a second install is refused,
    // and the first one serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .no_proxy()
        .timeout(CLIENT_TIMEOUT)
        .retry(reqwest::retry::never())
        .build()
        .map_err(io::Error::other)
}

struct Arrivals {
    client: Client,
    addr: SocketAddr,
    rps: f64,
    wait: Duration,
    counts: Arc<Mutex<LoadCounts>>,
}

impl Arrivals {
    async fn run(self, mut rng: StdRng, stop: CancellationToken) {
        if self.rps == 0.0 {
            return stop.cancelled().await;
        }
        let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut in_flight = JoinSet::new();
        let mut due = Instant::now() + self.wait;
        loop {
            due += Duration::from_secs_f64(waiting_secs(&mut rng, self.rps));
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(due) => {}
            }
            while in_flight.try_join_next().is_some() {}
            let (method, path) = pick(rng.random());
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                self.count(|counts| counts.shed += 1);
                continue;
            };
            self.count(|counts| counts.sent += 1);
            let (client, addr) = (self.client.clone(), self.addr);
            let counts = Arc::clone(&self.counts);
            in_flight.spawn(async move {
                send(&client, addr, method, path, &counts).await;
                drop(place);
            });
        }
        while in_flight.join_next().await.is_some() {}
    }

    fn count(&self, change: impl FnOnce(&mut LoadCounts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The route of a uniform draw in [0, 1).
fn pick(draw: f64) -> (&'static str, &'static str) {
    let mut below = 0.0;
    for (method, path, share) in MIX {
        below += share;
        if draw < below {
            return (method, path);
        }
    }
    (MIX[0].0, MIX[0].1)
}

async fn send(
    client: &Client,
    addr: SocketAddr,
    method: &'static str,
    path: &'static str,
    counts: &Mutex<LoadCounts>,
) {
    let sent_unix_secs = unix_secs();
    let url = format!("http://{addr}{path}");
    let request = match method {
        "POST" => client.request(Method::POST, url).body("{\"item\":7,\"count\":1}"),
        _ => client.request(Method::GET, url),
    };
    // The body is read to its end: only then can the connection be used again.
    let outcome = async {
        let response = request.send().await?;
        let code = response.status().as_u16();
        response.bytes().await.map(|_| code)
    }
    .await;
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    match outcome {
        Ok(code) => {
            *counts.answered.entry((method, path, code)).or_default() += 1;
            return;
        }
        Err(error) if error.is_timeout() => counts.timed_out += 1,
        Err(_) => counts.failed += 1,
    }
    let first = counts.first_unanswered_unix_secs.get_or_insert(sent_unix_secs);
    *first = first.min(sent_unix_secs);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_covers_every_draw() {
        for (draw, expected) in [
            (0.0, "/api/items"),
            (0.59, "/api/items"),
            (0.61, "/api/orders"),
            (0.81, "/api/search"),
            (0.999_999_999_999_999_9, "/api/search"),
        ] {
            assert_eq!(pick(draw).1, expected, "{draw}");
        }
    }
}
