//! One command: no shell, a bare environment, bounded time and output, and an end of its whole
//! process group.
//!
//! What a command leaves in the background on purpose lives on; only a command that is out of time
//! takes its group with it.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use super::{Argv, Environment};

/// Bytes of a command's output that are kept: its end.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Time between SIGTERM and SIGKILL of a command that is out of time.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long output is still read after a command's end: what it left in the background may hold
/// the pipe open for ever.
const DRAIN: Duration = Duration::from_millis(500);

/// Variables of our own environment that every command is given.
const INHERITED: [&str; 2] = ["PATH", "HOME"];

/// How commands are run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Where.
    pub directory: PathBuf,
    /// Names of variables that are passed on from our own environment, besides PATH and HOME.
    pub inherit: Vec<String>,
    /// How long one may take.
    pub timeout: Duration,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, which was not ours.
    Signalled(i32),
    /// By us: it was out of time.
    OutOfTime,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// The end of its stdout.
    pub stdout: String,
    /// The end of all it said, stdout and stderr as they came.
    pub said: String,
    /// How long it took.
    pub took: Duration,
}

/// A command that runs.
pub struct Running {
    child: Child,
    input: Bytes,
    timeout: Duration,
    began: Instant,
}

/// Starts a command with `input` on its stdin.
///
/// # Errors
/// When there is no such program, or it cannot be run.
pub fn start(
    argv: &Argv,
    setting: &Setting,
    environment: &Environment,
    input: Bytes,
) -> io::Result<Running> {
    let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let inherited = INHERITED.into_iter().chain(setting.inherit.iter().map(String::as_str));
    let inherited = inherited.filter_map(|name| Some((name, std::env::var_os(name)?)));
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(inherited)
        .envs(environment)
        .current_dir(&setting.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok(Running { child, input, timeout: setting.timeout, began: Instant::now() })
}

impl Running {
    /// Its process, which leads its group.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end, which comes in time.
    pub async fn finish(mut self) -> Ran {
        let group = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        let mut heard = Heard::default();
        let pipes = (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let end = {
            let talk = talk(pipes, &self.input, &mut heard);
            tokio::pin!(talk);
            let mut is_silent = false;
            let mut ended = None;
            for (limit, then) in [(self.timeout, Signal::TERM), (GRACE, Signal::KILL)] {
                let ending = async {
                    loop {
                        tokio::select! {
                            status = self.child.wait() => return status,
                            () = &mut talk, if !is_silent => is_silent = true,
                        }
                    }
                };
                match timeout(limit, ending).await {
                    Ok(status) => {
                        ended.get_or_insert(end(status));
                        break;
                    }
                    Err(_) => {
                        ended = Some(End::OutOfTime);
                        signal(group, then);
                    }
                }
            }
            if ended == Some(End::OutOfTime) {
                // Its children may be deaf to SIGTERM where it was not.
                signal(group, Signal::KILL);
                let _ = timeout(GRACE, self.child.wait()).await;
            }
            if !is_silent {
                let _ = timeout(DRAIN, &mut talk).await;
            }
            ended.unwrap_or(End::OutOfTime)
        };
        let took = self.began.elapsed();
        Ran { end, stdout: heard.stdout.text(), said: heard.all.text(), took }
    }
}

fn end(status: io::Result<ExitStatus>) -> End {
    use std::os::unix::process::ExitStatusExt;
    match status.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => End::Exited(code),
        Ok((None, Some(signal))) => End::Signalled(signal),
        // Nobody else waits for our children: that one cannot be waited for does not happen.
        Ok((None, None)) | Err(_) => End::Signalled(0),
    }
}

/// Ends a command that an earlier hook began, with its group.
pub fn end_leftover(pid: u32) {
    signal(Pid::from_raw(pid as i32), Signal::KILL);
}

/// A group that is gone already is what is wanted.
fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = kill_process_group(group, signal);
    }
}

type Pipes = (
    Option<tokio::process::ChildStdin>,
    Option<tokio::process::ChildStdout>,
    Option<tokio::process::ChildStderr>,
);

/// Writes the input and reads both outputs until nobody holds their other ends.
async fn talk((stdin, stdout, stderr): Pipes, input: &[u8], heard: &mut Heard) {
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read its input is free to.
            let _ = stdin.write_all(input).await;
        }
    };
    let read = async {
        let (mut out, mut err) = (stdout, stderr);
        let (mut out_buffer, mut err_buffer) = (vec![0; 8 << 10], vec![0; 8 << 10]);
        while out.is_some() || err.is_some() {
            tokio::select! {
                read = some(&mut out, &mut out_buffer) => {
                    if heard.hear(&out_buffer[..read], true) { out = None; }
                }
                read = some(&mut err, &mut err_buffer) => {
                    if heard.hear(&err_buffer[..read], false) { err = None; }
                }
            }
        }
    };
    tokio::join!(write, read);
}

/// Bytes read, none at the end; for ever where there is no pipe any more.
async fn some(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

#[derive(Default)]
struct Heard {
    all: Tail,
    stdout: Tail,
}

impl Heard {
    /// Takes what was read, and says whether that was the end.
    fn hear(&mut self, bytes: &[u8], is_stdout: bool) -> bool {
        self.all.push(bytes);
        if is_stdout {
            self.stdout.push(bytes);
        }
        bytes.is_empty()
    }
}

/// The last [`OUTPUT_BYTES_MAX`] bytes.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(OUTPUT_BYTES_MAX)..];
        let too_many = (self.0.len() + bytes.len()).saturating_sub(OUTPUT_BYTES_MAX);
        self.0.drain(..too_many);
        self.0.extend(bytes);
    }

    fn text(&self) -> String {
        let (front, back) = self.0.as_slices();
        String::from_utf8_lossy(&[front, back].concat()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_output_is_kept() {
        let mut tail = Tail::default();
        tail.push(&vec![b'a'; OUTPUT_BYTES_MAX - 1]);
        tail.push(b"bc");
        assert_eq!((tail.0.len(), tail.text().ends_with("abc")), (OUTPUT_BYTES_MAX, true));
        tail.push(&vec![b'd'; 3 * OUTPUT_BYTES_MAX]);
        assert_eq!(tail.text(), "d".repeat(OUTPUT_BYTES_MAX));
    }
}
