//! An API server that behaves as Kubernetes' does, over a raw socket: every request is kept byte for
//! byte, and it can be told to answer as badly as servers and networks do.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub mod controllers;
pub mod templates;
pub mod world;

use world::{Refusal, World};

/// The token that is taken, unless a test says otherwise.
pub const TOKEN: &str = "a-token-of-a-service-account";

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `PATCH /apis/apps/v1/...`, as it stands in the request line.
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// What a server does with one request instead of answering it.
pub enum Mischief {
    /// Sends this and closes, also when it promised more.
    Says(String),
    /// Sends this and stays silent.
    Hangs(&'static str),
    /// Promises and sends 100 MB.
    Floods,
    /// Somebody else is faster: the world changes before the request is looked at.
    Outruns(Box<dyn FnOnce(&mut World) + Send>),
}

/// A running server.
pub struct KubeApi {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

struct Shared {
    world: World,
    tokens: BTreeSet<String>,
    /// Verb and resource that the role does not allow.
    forbidden: BTreeSet<(String, String)>,
    asked: Vec<Asked>,
    mischief: VecDeque<(&'static str, Mischief)>,
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl KubeApi {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Mutex::new(Shared {
            world: World::default(),
            tokens: BTreeSet::from([TOKEN.to_owned()]),
            forbidden: BTreeSet::new(),
            asked: Vec::new(),
            mischief: VecDeque::new(),
        }));
        let served = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Self { address, shared, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig for this server, in a directory that is made.
    pub fn kubeconfig(&self, dir: &std::path::Path, token: &str) -> PathBuf {
        std::fs::create_dir_all(dir).expect("a directory");
        let path = dir.join("config");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{ "name": "test", "context": {
                "cluster": "test", "user": "rollgate", "namespace": templates::NAMESPACE } }],
            "clusters": [{ "name": "test", "cluster": { "server": self.url() } }],
            "users": [{ "name": "rollgate", "user": { "token": token } }],
        });
        std::fs::write(&path, config.to_string()).expect("written");
        path
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no panic")
    }

    /// Looks at the world, or changes it as somebody else would.
    pub fn world<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.shared().world)
    }

    /// Which tokens are taken from now on.
    pub fn takes(&self, tokens: &[&str]) {
        self.shared().tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
    }

    /// What the role does not allow.
    pub fn forbids(&self, verb: &str, resource: &str) {
        self.shared().forbidden.insert((verb.to_owned(), resource.to_owned()));
    }

    /// What becomes of the next request of a method, instead of an answer.
    pub fn next(&self, method: &'static str, mischief: Mischief) {
        self.shared().mischief.push_back((method, mischief));
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared().asked.clone()
    }

    /// Requests that change something: line, content type, body.
    pub fn writes(&self) -> Vec<(String, String, Value)> {
        let asked = self.asked().into_iter().filter(|asked| !asked.line.starts_with("GET "));
        asked
            .map(|asked| {
                let body = serde_json::from_str(&asked.body).expect("JSON");
                (asked.line, asked.headers["content-type"].clone(), body)
            })
            .collect()
    }

    /// Verb, group and resource (with its part) of every request so far.
    pub fn rights_used(&self) -> BTreeSet<(String, String, String)> {
        let right = |asked: &Asked| {
            let (method, path) = asked.line.split_once(' ').expect("a request line");
            let path = Path::read(path.split('?').next().unwrap_or(path)).expect("a known path");
            (verb(method, &path).to_owned(), path.group().to_owned(), path.resource())
        };
        self.asked().iter().map(right).collect()
    }
}

/// `/apis/GROUP/VERSION/namespaces/NS/PLURAL[/NAME[/PART]]`, or `/api/v1/...`.
#[derive(Debug)]
struct Path {
    api: String,
    namespace: String,
    plural: String,
    name: Option<String>,
    part: Option<String>,
}

impl Path {
    fn read(path: &str) -> Option<Self> {
        let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let at = words.iter().position(|word| *word == "namespaces")?;
        let word = |index: usize| words.get(at + index).map(|word| (*word).to_owned());
        if words.len() > at + 5 {
            return None;
        }
        let api = words[..at].join("/");
        Some(Self { api, namespace: word(1)?, plural: word(2)?, name: word(3), part: word(4) })
    }

    fn group(&self) -> &str {
        let mut words = self.api.split('/').skip(1);
        if self.api == "api/v1" { "" } else { words.next().unwrap_or_default() }
    }

    fn resource(&self) -> String {
        match &self.part {
            Some(part) => format!("{}/{part}", self.plural),
            None => self.plural.clone(),
        }
    }
}

fn verb(method: &str, path: &Path) -> &'static str {
    match (method, &path.name) {
        ("GET", Some(_)) => "get",
        ("GET", None) => "list",
        ("PATCH", _) => "patch",
        _ => "other",
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Mutex<Shared>>) -> std::io::Result<()> {
    let asked = read(&mut stream).await?;
    let method = asked.line.split(' ').next().unwrap_or_default().to_owned();
    let mischief = {
        let mut shared = shared.lock().expect("no panic");
        shared.asked.push(asked.clone());
        let at = shared.mischief.iter().position(|(of, _)| *of == method);
        at.and_then(|at| shared.mischief.remove(at)).map(|(_, mischief)| mischief)
    };
    match mischief {
        Some(Mischief::Says(text)) => stream.write_all(text.as_bytes()).await?,
        Some(Mischief::Hangs(text)) => {
            stream.write_all(text.as_bytes()).await?;
            std::future::pending::<()>().await;
        }
        Some(Mischief::Floods) => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
            stream.write_all(head).await?;
            for _ in 0..1000 {
                stream.write_all(&[b' '; 100_000]).await?;
            }
        }
        Some(Mischief::Outruns(change)) => {
            let answer = {
                let mut shared = shared.lock().expect("no panic");
                change(&mut shared.world);
                answer(&mut shared, &asked)
            };
            stream.write_all(answer.as_bytes()).await?;
        }
        None => {
            let answer = answer(&mut shared.lock().expect("no panic"), &asked);
            stream.write_all(answer.as_bytes()).await?;
        }
    }
    stream.shutdown().await
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Asked> {
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
    let mut lines = text.lines();
    let line = lines.next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let pairs = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<String, String> =
        pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let length = headers.get("content-length").map_or(0, |text| text.parse().expect("a number"));
    while bytes.len() < head + 4 + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let body = String::from_utf8_lossy(&bytes[head + 4..]).into_owned();
    Ok(Asked { line, headers, body })
}

fn answer(shared: &mut Shared, asked: &Asked) -> String {
    let (code, body) = match answered(shared, asked) {
        Ok(body) => (200, body),
        Err(Refusal { code, reason, message }) => (
            code,
            json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": message, "reason": reason, "code": code }),
        ),
    };
    http(code, &body.to_string())
}

/// A whole answer.
pub fn http(code: u16, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {code} Said\r\ncontent-type: application/json\r\ncontent-length: \
         {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn answered(shared: &mut Shared, asked: &Asked) -> Result<Value, Refusal> {
    let token = asked.headers.get("authorization").and_then(|it| it.strip_prefix("Bearer "));
    if !token.is_some_and(|token| shared.tokens.contains(token)) {
        return Err(Refusal::new(401, "Unauthorized", "Unauthorized"));
    }
    let (method, target) = asked.line.split_once(' ').unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let lost = || Refusal::new(404, "NotFound", "the server could not find the requested resource");
    let path = Path::read(path).ok_or_else(lost)?;
    let verb = verb(method, &path);
    if shared.forbidden.contains(&(verb.to_owned(), path.resource())) {
        let message = format!(
            "{}.{} is forbidden: User \"system:serviceaccount:ci:rollgate\" cannot {verb} resource \
             \"{}\" in API group \"{}\" in the namespace \"{}\"",
            path.plural,
            path.group(),
            path.resource(),
            path.group(),
            path.namespace
        );
        return Err(Refusal::new(403, "Forbidden", message));
    }
    let world = &mut shared.world;
    match (verb, &path.name) {
        ("list", None) => world.list(&path.api, &path.namespace, &path.plural, &pairs(query)),
        ("get", Some(name)) if path.part.is_none() => {
            world.get(&path.api, &path.namespace, &path.plural, name).cloned()
        }
        ("patch", Some(name)) => {
            let content_type = asked.headers.get("content-type").map_or("", String::as_str);
            let body = serde_json::from_str(&asked.body)
                .map_err(|error| Refusal::new(400, "BadRequest", error.to_string()))?;
            let key = world::key(&path.api, &path.namespace, &path.plural, name);
            world.patch(&key, path.part.as_deref(), content_type, &body)
        }
        _ => Err(Refusal::new(405, "MethodNotAllowed", "the server does not allow this method")),
    }
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    let url = reqwest::Url::parse(&format!("http://h/?{query}")).expect("a query");
    url.query_pairs().into_owned().collect()
}
