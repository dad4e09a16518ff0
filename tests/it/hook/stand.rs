//! A hook in a directory of its own, with commands that keep a diary, and a sender that signs.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rollgate::{
    deliver::sign::{ID_HEADER, Keys, SIGNATURE_HEADER, TIMESTAMP_HEADER},
    engine::observation::Time,
    telemetry::secret::Secret,
};
use serde_json::{Value, json};

use crate::house::Api;

/// The signing key of every stand; no secret.
pub const KEY: &str = "a-signing-key-for-the-tests-of-the-hook";

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a hook's file, its commands and its memory; it is the home of whoever runs it.
pub struct Stand {
    dir: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Stand {
    /// A stand with this file; secrets and a free port are put in.
    pub fn new(yaml: &str) -> Self {
        let stand = Self { dir: tempfile::tempdir().unwrap(), environment: Vec::new() };
        let head = "listen: 127.0.0.1:0\nsecrets: [{ env: HOOK_KEY }]\n";
        stand.write("hook.yaml", &format!("{head}{yaml}"));
        stand
    }

    /// A stand that runs this script on each decision.
    pub fn with_script(members: &str, script: &str) -> Self {
        let each = "[./act.sh, one, 'two words']";
        let on = format!("on: {{ rollback: {each}, promote: {each}, advance: {each} }}\n");
        let stand = Self::new(&format!("{members}{on}"));
        stand.script("act.sh", script);
        stand
    }

    /// A stand with the files of an example as they are, but for the port.
    pub fn of_example(name: &str) -> Self {
        let stand = Self { dir: tempfile::tempdir().unwrap(), environment: Vec::new() };
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/deploy").join(name);
        for file in std::fs::read_dir(example).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), stand.dir.path().join(file.file_name())).unwrap();
        }
        stand.replace("hook.yaml", &[("127.0.0.1:8760", "127.0.0.1:0")]);
        stand
    }

    /// Replaces what must be there in a file.
    pub fn replace(&self, file: &str, changes: &[(&str, &str)]) {
        let mut text = self.read(file);
        for (from, to) in changes {
            assert!(text.contains(from), "{file} lacks {from}");
            text = text.replace(from, to);
        }
        self.write(file, &text);
    }

    /// Sets a variable of whoever runs the hook.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Where everything lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A shell script that can be run.
    pub fn script(&self, name: &str, text: &str) {
        self.write(name, &format!("#!/bin/sh\nset -eu\n{text}\n"));
        executable(&self.path(name));
    }

    /// What a file holds; nothing when it is not there.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// How many lines the commands have written into their diary.
    pub fn runs(&self) -> usize {
        self.read("diary").lines().count()
    }

    /// Waits until a command has written this many lines.
    pub async fn until_runs(&self, runs: usize) {
        eventually("a command", async || (self.runs() >= runs).then_some(())).await;
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollgate"));
        let path = std::env::var("PATH").unwrap();
        command
            .args(["hook", "--config"])
            .arg(self.path("hook.yaml"))
            .env("HOOK_KEY", KEY)
            .env("ROLLGATE_WEBHOOK_SECRET", KEY)
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.dir.path())
            .env("NOT_FOR_COMMANDS", "1")
            .env("PASSED_ON", "yes")
            .envs(self.environment.iter().cloned())
            .env_remove("RUST_LOG");
        command
    }

    /// Runs the hook with more arguments to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// Starts the hook and waits until it listens.
    pub fn start(&self) -> Running {
        let log = self.path("stderr.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = self.command();
        let (child, url) = started(command.stderr(log), "rollgate hook listens on ");
        let url = url.unwrap_or_else(|| panic!("it ended: {}", self.read("stderr.log")));
        Running { child, sender: Sender::new(&url) }
    }

    /// Starts `rollgate serve` by the configuration beside the hook's.
    pub fn serve(&self) -> (Served, Api) {
        let log = std::fs::File::create(self.path("serve.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollgate"));
        command.args(["serve", "--config"]).arg(self.path("rollgate.yaml")).stderr(log);
        command.env("ROLLGATE_WEBHOOK_SECRET", KEY).env_remove("RUST_LOG");
        let (child, url) = started(&mut command, "rollgate serves ");
        let url = url.unwrap_or_else(|| panic!("it ended: {}", self.read("serve.log")));
        (Served(child), Api::new(&url))
    }
}

pub fn executable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Asks again and again until there is something; fails after [`PATIENCE`].
pub async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    crate::house::eventually(what, ask).await
}

/// A process and the address that its first line tells; none when it ended instead.
fn started(command: &mut Command, before: &str) -> (Child, Option<String>) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().strip_prefix(before).map(str::to_owned))
}

/// A running service; killed when dropped.
pub struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running hook; killed when dropped.
pub struct Running {
    pub child: Child,
    pub sender: Sender,
}

impl Running {
    /// `kill -9`, of the hook alone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        eventually("the hook ends", async || self.child.try_wait().unwrap()).await
    }

    /// The most memory it ever had, in MiB.
    pub fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends signed events.
#[derive(Clone)]
pub struct Sender {
    client: reqwest::Client,
    pub url: String,
    keys: Keys,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Said {
    pub status: u16,
    pub retry_after: Option<String>,
    pub body: Value,
}

impl Said {
    /// Status and outcome.
    pub fn outcome(&self) -> (u16, &str) {
        (self.status, self.body["outcome"].as_str().unwrap_or_default())
    }

    /// Whether the reason has these words.
    pub fn because(&self, words: &str) -> bool {
        self.body["reason"].as_str().is_some_and(|reason| reason.contains(words))
    }
}

impl Sender {
    fn new(url: &str) -> Self {
        let client = crate::wire::client_builder().timeout(PATIENCE).build().unwrap();
        let keys = Keys::new(&[Secret::new(KEY)]).unwrap();
        Self { client, url: url.to_owned(), keys }
    }

    /// The three headers of an event that is signed by these keys, so many seconds from now.
    pub fn headers(&self, id: &str, body: &[u8], keys: &Keys, secs: i64) -> [(String, String); 3] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + secs;
        [
            (ID_HEADER.to_owned(), id.to_owned()),
            (TIMESTAMP_HEADER.to_owned(), now.to_string()),
            (SIGNATURE_HEADER.to_owned(), keys.sign(id, Time(now * 1000), body)),
        ]
    }

    /// Sends a body as it is.
    pub async fn raw(&self, headers: &[(String, String)], body: impl Into<reqwest::Body>) -> Said {
        let mut request = self.client.post(&self.url).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.map(|value| value.to_str().unwrap().to_owned());
        Said { status, retry_after, body: answer.json().await.unwrap() }
    }

    /// Sends a signed event.
    pub async fn send(&self, id: &str, event: &Value) -> Said {
        let body = event.to_string();
        self.raw(&self.headers(id, body.as_bytes(), &self.keys, 0), body).await
    }

    /// Sends again and again, as long as it is told "later".
    pub async fn until_told(&self, id: &str, event: &Value) -> Said {
        let begun = Instant::now();
        loop {
            let said = self.send(id, event).await;
            if said.status != 503 {
                return said;
            }
            assert!(begun.elapsed() < PATIENCE, "{said:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks for a path.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let url = self.url.replace("/hook", path);
        let answer = self.client.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

/// A final verdict.
pub fn verdict(analysis: &str, action: &str) -> Value {
    json!({
        "type": "rollgate.verdict.v1", "timestamp": "2026-11-21T00:00:00.000Z",
        "data": {
            "analysis": analysis, "service": "shop", "canary_version": "v2",
            "baseline_version": "v1", "verdict": action, "action": action,
            "reason": "error_rate > 3x baseline", "rule": null, "decided_at": 1.0,
            "elapsed_secs": 1.0, "rules": { "name": "shop", "sha256": "00" }, "findings": [],
        },
    })
}

/// The next step of a progressive release.
pub fn advance(analysis: &str, step: usize) -> Value {
    let mut event = verdict(analysis, "advance");
    event["type"] = "rollgate.advance.v1".into();
    event["data"]["step"] = json!({ "index": step, "of": 3, "weight": 0.5 });
    event
}
