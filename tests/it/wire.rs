//! A server on a free port and a client that shows the bytes, for tests of the API.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rollgate::{
    api::{ApiOptions, router, serve},
    telemetry::Telemetry,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{contract, fake_desk::FakeDesk};

/// No answer in a test takes longer; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    pub address: SocketAddr,
    pub desk: Arc<FakeDesk>,
    pub telemetry: Telemetry,
    pub stop: CancellationToken,
    pub task: JoinHandle<std::io::Result<()>>,
}

/// One answer, taken apart.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Server {
    pub async fn start(options: ApiOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (desk, telemetry) = (Arc::new(FakeDesk::default()), Telemetry::new());
        let stop = CancellationToken::new();
        let routes = router(desk.clone(), telemetry.clone(), options.clone(), stop.clone());
        let serving = serve(listener, routes, telemetry.clone(), options, stop.clone());
        let task = tokio::spawn(serving);
        Self { address, desk, telemetry, stop, task }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(&request("GET", path, "", "")).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(&request("POST", path, "Content-Type: application/json\r\n", body)).await
    }

    pub async fn send(&self, bytes: &str) -> Answer {
        let answer = answer(&self.exchange(bytes.as_bytes()).await);
        contract::check(bytes, &answer);
        answer
    }

    /// Sends bytes and reads until the server closes.
    pub async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server that refuses early may close while the rest is still being sent.
        let _ = stream.write_all(bytes).await;
        let mut read = Vec::new();
        let reading = stream.read_to_end(&mut read);
        let _ = tokio::time::timeout(PATIENCE, reading).await.expect("the server did not answer");
        read
    }

    /// Opens an event stream.
    pub async fn events(&self, id: &str) -> Events {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let bytes = format!("GET /v1/analyses/{id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(bytes.as_bytes()).await.unwrap();
        Events { stream, text: String::new() }
    }
}

/// A request with `Connection: close`. `headers` are whole lines.
pub fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

fn answer(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An open event stream, read as text with its chunk framing.
pub struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    /// Reads until `wanted` has come; gives everything so far.
    pub async fn until(&mut self, wanted: &str) -> &str {
        let reading = async {
            while !self.text.contains(wanted) {
                if !self.more().await {
                    panic!("the stream ended without {wanted:?}:\n{}", self.text);
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the event did not come");
        &self.text
    }

    /// Reads until the server ends the stream; gives everything.
    pub async fn rest(mut self) -> String {
        let reading = async { while self.more().await {} };
        tokio::time::timeout(PATIENCE, reading).await.expect("the stream did not end");
        self.text
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer).await.unwrap_or(0);
        self.text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        // The last chunk of a body; the connection itself may live on.
        count > 0 && !self.text.ends_with("\r\n0\r\n\r\n")
    }
}

/// The start of an HTTP client for tests. Whichever test comes first has to choose how TLS is done;
/// the client panics when nobody has.
pub fn client_builder() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}
