//! Receivers over raw sockets, so that they can answer what no HTTP server would.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rollgate::{
    deliver::{
        Clock, Setting,
        webhook::{self, Shape, Webhook, WebhookOptions},
    },
    engine::observation::Time,
    outward::tls::TlsOptions,
    telemetry::secret::Secret,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const TOKEN: &str = "Bearer a-very-secret-token";
/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn real_clock() -> Clock {
    Arc::new(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        Time(now.as_millis() as i64)
    })
}

/// What a receiver does with a request.
#[derive(Clone)]
pub(crate) enum Reply {
    Says(&'static str),
    /// Sends this and keeps the connection open for ever.
    Hangs(&'static str),
    /// Sends this and closes although more was promised.
    Breaks(&'static str),
    /// Promises and sends 100 MB.
    Floods,
    /// Repeats the request's secrets.
    Echoes,
}

pub(crate) const OK: Reply = Reply::Says("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nthanks");
pub(crate) const ERROR: Reply = Reply::Says("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n");

/// One received request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// A receiver on a free port; the last reply is repeated.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    /// Bytes of a flood that were taken.
    pub(crate) flooded: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub(crate) async fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener, replies)
    }

    pub(crate) fn on(listener: TcpListener, replies: &[Reply]) -> Self {
        let address = listener.local_addr().expect("bound");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let flooded = Arc::new(AtomicU64::new(0));
        let taken = Arc::clone(&flooded);
        let (seen, mut replies) = (Arc::clone(&requests), VecDeque::from(replies.to_vec()));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let reply = replies[0].clone();
                if replies.len() > 1 {
                    replies.pop_front();
                }
                let (seen, taken) = (Arc::clone(&seen), Arc::clone(&taken));
                open.spawn(async move {
                    let request = read_request(&mut stream).await?;
                    seen.lock().expect("no panic").push(request.clone());
                    answer(stream, reply, &request, &taken).await
                });
            }
        });
        Self { address, requests, flooded, task }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }

    pub(crate) fn webhook(&self, name: &str) -> Webhook {
        webhook(name, self.address, Duration::from_secs(5))
    }
}

async fn read_request(stream: &mut TcpStream) -> std::io::Result<Request> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let headers: BTreeMap<String, String> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers["content-length"].parse().expect("a number");
    while bytes.len() < head + 4 + length {
        stream.read_buf(&mut bytes).await?;
    }
    Ok(Request { headers, body: String::from_utf8_lossy(&bytes[head + 4..]).into_owned() })
}

async fn answer(
    mut stream: TcpStream,
    reply: Reply,
    request: &Request,
    flooded: &AtomicU64,
) -> std::io::Result<()> {
    match reply {
        Reply::Says(text) | Reply::Breaks(text) => stream.write_all(text.as_bytes()).await?,
        Reply::Hangs(text) => {
            stream.write_all(text.as_bytes()).await?;
            std::future::pending::<()>().await;
        }
        Reply::Floods => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
            stream.write_all(head).await?;
            for _ in 0..1000 {
                stream.write_all(&[b'x'; 100_000]).await?;
                flooded.fetch_add(100_000, Ordering::SeqCst);
            }
        }
        Reply::Echoes => {
            let body = format!("{:?} {SECRET} /hook/token-in-the-path", request.headers);
            let head = format!("HTTP/1.1 400 Bad\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await?;
        }
    }
    stream.shutdown().await
}

pub(crate) fn options(name: &str, address: SocketAddr, timeout: Duration) -> WebhookOptions {
    WebhookOptions {
        name: name.to_owned(),
        url: Secret::new(format!("http://{address}/hook/token-in-the-path")),
        secrets: vec![Secret::new(SECRET)],
        headers: vec![("authorization".to_owned(), Secret::new(TOKEN))],
        timeout,
        tls: TlsOptions::default(),
        shape: Shape::default(),
        mapping: webhook::MAPPING,
    }
}

pub(crate) fn webhook(name: &str, address: SocketAddr, timeout: Duration) -> Webhook {
    Webhook::new(options(name, address, timeout), &Setting::live(real_clock()))
        .expect("good options")
}
