//! The other end of a webhook: an HTTP server that checks signatures and keeps what it was sent.
//!
//! It follows the advice given to receivers: refuse what does not verify with 401, act once per
//! `webhook-id`, answer 2xx to repetitions. How a signature is checked is passed in, so that a
//! reader sees an independent receiver and not the sender checking itself.

use std::{
    collections::{HashSet, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Method, Request, StatusCode, body::Incoming};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    server::{Answer, answer, serve_until},
    unix_secs,
};

/// Largest body that is read; larger ones are answered with 413.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// Deliveries waiting to be looked at; when it is full the sender is told 503 and comes back.
pub const WAITING_MAX: usize = 64;

/// Ids remembered for telling repetitions; the oldest is forgotten first.
pub const IDS_MAX: usize = 1024;

/// A webhook that verified, seen for the first time.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its `webhook-id`.
    pub id: String,
    /// When it arrived, in unix seconds.
    pub at_unix_secs: f64,
    /// Its body, as signed.
    pub body: Bytes,
}

/// How many requests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounts {
    /// Verified and new.
    pub verified: u64,
    /// Verified and already seen.
    pub duplicates: u64,
    /// Refused: the signature did not verify.
    pub refused: u64,
    /// Refused for another reason: not a POST, no id, too large, no room.
    pub unusable: u64,
}

/// A running receiver. Dropping it ends it too, without waiting.
#[derive(Debug)]
pub struct Receiver {
    /// Where it listens.
    pub addr: SocketAddr,
    deliveries: mpsc::Receiver<Delivery>,
    inbox: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Starts a receiver on a free port of loopback. `verify` is given the headers and the raw
    /// body, and says why a signature is not good.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start<V>(verify: V) -> io::Result<Self>
    where
        V: Fn(&HeaderMap, &[u8]) -> Result<(), String> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let (sender, deliveries) = mpsc::channel(WAITING_MAX);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let inbox = Arc::new(Inbox { verify, seen: Arc::clone(&seen), sender });
        let stop = CancellationToken::new();
        let end = stop.clone().cancelled_owned();
        let handler = move |request| {
            let inbox = Arc::clone(&inbox);
            async move { inbox.take(request).await }
        };
        let task = tokio::spawn(serve_until(listener, handler, end));
        Ok(Self { addr, deliveries, inbox: seen, stop, task })
    }

    /// Where to send webhooks.
    pub fn url(&self) -> String {
        format!("http://{}/hooks/rollgate", self.addr)
    }

    /// The next verified delivery, in order of arrival; `None` when none came `within` this time.
    pub async fn next(&mut self, within: Duration) -> Option<Delivery> {
        tokio::time::timeout(within, self.deliveries.recv()).await.ok().flatten()
    }

    /// How requests ended so far.
    pub fn counts(&self) -> ReceiverCounts {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    /// Ends the receiver: its port is closed when this returns.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Which ids came before, oldest first, and how requests ended.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
    counts: ReceiverCounts,
}

impl Seen {
    fn remember(&mut self, id: &str) {
        if self.order.len() == IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        self.ids.insert(id.to_owned());
        self.order.push_back(id.to_owned());
    }
}

struct Inbox<V> {
    verify: V,
    seen: Arc<Mutex<Seen>>,
    sender: mpsc::Sender<Delivery>,
}

impl<V> Inbox<V>
where
    V: Fn(&HeaderMap, &[u8]) -> Result<(), String>,
{
    async fn take(&self, request: Request<Incoming>) -> Answer {
        if request.method() != Method::POST {
            return self.unusable(StatusCode::METHOD_NOT_ALLOWED, "webhooks are POSTed");
        }
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
            return self.unusable(StatusCode::PAYLOAD_TOO_LARGE, "the body is over 256 KiB");
        };
        self.judge(&head.headers, body.to_bytes())
    }

    fn judge(&self, headers: &HeaderMap, body: Bytes) -> Answer {
        let Some(id) = headers.get("webhook-id").and_then(|id| id.to_str().ok()) else {
            return self.unusable(StatusCode::BAD_REQUEST, "there is no webhook-id header");
        };
        if let Err(why) = (self.verify)(headers, &body) {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).counts.refused += 1;
            return say(StatusCode::UNAUTHORIZED, &why);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.ids.contains(id) {
            seen.counts.duplicates += 1;
            return say(StatusCode::OK, "seen before");
        }
        let delivery = Delivery { id: id.to_owned(), at_unix_secs: unix_secs(), body };
        if self.sender.try_send(delivery).is_err() {
            seen.counts.unusable += 1;
            return say(StatusCode::SERVICE_UNAVAILABLE, "too many deliveries are waiting");
        }
        // Remembered only once it is kept, so that a repetition of what was turned away is new.
        seen.remember(id);
        seen.counts.verified += 1;
        say(StatusCode::OK, "thank you")
    }

    fn unusable(&self, status: StatusCode, why: &str) -> Answer {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).counts.unusable += 1;
        say(status, why)
    }
}

fn say(status: StatusCode, line: &str) -> Answer {
    answer(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_id_is_forgotten_at_the_limit() {
        let mut seen = Seen::default();
        for number in 0..=IDS_MAX {
            seen.remember(&number.to_string());
        }
        assert_eq!((seen.ids.len(), seen.order.len()), (IDS_MAX, IDS_MAX));
        assert!(!seen.ids.contains("0") && seen.ids.contains("1"));
    }
}
