//! `hook.yaml` becomes checked options of `rollgate hook`.
//!
//! Whatever can be wrong with a command at rest is said here: a rollback is no time to find that
//! its script is not executable.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    ConfigError, Secrets,
    access::ListenerTls,
    file_text, malformed,
    reading::{Place, Reading},
    watch::duration,
};
use crate::{
    deliver::sign::Keys,
    hook::{Argv, Commands, HookOptions, Interrupted, command::Setting},
};

/// Time a command has when nothing else is configured.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// Longest time a command can be given.
const TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60);
/// Time a sender is kept waiting: less than the ten seconds that rollgate waits unless told otherwise.
const WAIT_DEFAULT: Duration = Duration::from_secs(8);
/// Longest time a sender can be kept waiting.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Failures after which an event is refused.
const TRIES_DEFAULT: u32 = 3;
/// Most failures that can be asked for.
const TRIES_MAX: u32 = 100;
/// Words of a command; variables that are passed on.
const WORDS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "default_listen")]
    listen: String,
    #[serde(default)]
    tls: Option<ListenerTls>,
    secrets: Vec<Place>,
    #[serde(default)]
    service: Option<String>,
    #[serde(default = "default_memory")]
    memory: PathBuf,
    #[serde(default)]
    directory: PathBuf,
    #[serde(default)]
    environment: Vec<String>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    wait: Option<String>,
    #[serde(default)]
    tries: Option<u32>,
    #[serde(default)]
    interrupted: Interrupted,
    #[serde(default)]
    check: Option<Argv>,
    on: On,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct On {
    #[serde(default)]
    rollback: Option<Argv>,
    #[serde(default)]
    promote: Option<Argv>,
    #[serde(default)]
    advance: Option<Argv>,
    #[serde(default)]
    hold: Option<Argv>,
}

fn default_listen() -> String {
    "127.0.0.1:8760".to_owned()
}

fn default_memory() -> PathBuf {
    PathBuf::from("hook.memory")
}

/// Reads the file of a hook. Relative paths in it are taken from where it lies. `env` looks up
/// environment variables.
///
/// # Errors
/// When it cannot be read, or with every value of it that cannot be used.
pub fn read(
    path: &Path,
    env: impl Fn(&str) -> Option<String>,
    secrets: Secrets,
) -> Result<(HookOptions, Keys), ConfigError> {
    let name = path.display().to_string();
    let text = file_text(path)?;
    let file: File = serde_saphyr::from_str(&text).map_err(|error| {
        malformed(&name, &error, "keys are listen, tls, secrets, service, memory, directory, environment, \
                                  timeout, wait, tries, interrupted, check, on; the README shows each")
    })?;
    // The parent of a bare name is the empty path, which is no directory.
    let base = path.parent().filter(|base| !base.as_os_str().is_empty());
    let base = base.unwrap_or(Path::new("."));
    let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
    let mut reading = Reading::new(&base, &env, secrets);
    let options = reading.hook(file);
    match options {
        Some(options) if reading.faults.is_empty() => Ok(options),
        Some(_) | None => Err(ConfigError::Refused { path: name, faults: reading.faults }),
    }
}

impl Reading<'_> {
    fn hook(&mut self, file: File) -> Option<(HookOptions, Keys)> {
        let listen: Option<SocketAddr> = file.listen.parse().ok();
        if listen.is_none() {
            let found = &file.listen;
            self.fault(format!("listen is {found:?}, expected an address such as 127.0.0.1:8760"));
        }
        let secrets: Vec<_> =
            file.secrets.iter().filter_map(|place| self.secret("secrets", place)).collect();
        let keys = match secrets.len() == file.secrets.len() {
            true => Keys::new(&secrets).map_err(|error| self.fault(format!("secrets: {error}"))),
            false => Err(()),
        };
        let directory = self.base.join(&file.directory);
        if !directory.is_dir() {
            self.fault(format!("directory is {}, expected a directory", directory.display()));
        }
        if file.environment.len() > WORDS_MAX {
            self.fault(format!("environment names more than {WORDS_MAX} variables"));
        }
        for name in file.environment.iter().filter(|name| !is_variable(name)) {
            self.fault(format!("environment names {name:?}, expected a variable of your own"));
        }
        let timeout = self.span("timeout", file.timeout, TIMEOUT_DEFAULT, TIMEOUT_MAX);
        let wait = self.span("wait", file.wait, WAIT_DEFAULT, WAIT_MAX);
        let tries = file.tries.unwrap_or(TRIES_DEFAULT);
        if !(1..=TRIES_MAX).contains(&tries) {
            self.fault(format!("tries is {tries}, expected 1 to {TRIES_MAX}"));
        }
        let commands = Commands {
            rollback: self.command("on.rollback", file.on.rollback),
            promote: self.command("on.promote", file.on.promote),
            advance: self.command("on.advance", file.on.advance),
            hold: self.command("on.hold", file.on.hold),
        };
        if commands == Commands::default() && self.faults.is_empty() {
            self.fault(
                "on says nothing, expected a command for rollback, promote, advance or hold",
            );
        }
        let check = self.command("check", file.check);
        let options = HookOptions {
            listen: listen?,
            tls: self.listener_tls(file.tls),
            secrets,
            service: file.service,
            memory: self.base.join(file.memory),
            commands,
            check,
            setting: Setting { directory, inherit: file.environment, timeout },
            wait,
            tries,
            interrupted: file.interrupted,
        };
        Some((options, keys.ok()?))
    }

    fn span(
        &mut self,
        at: &str,
        text: Option<String>,
        default: Duration,
        max: Duration,
    ) -> Duration {
        let Some(text) = text else { return default };
        let found = duration(&text).filter(|found| !found.is_zero() && *found <= max);
        found.unwrap_or_else(|| {
            let max = max.as_secs();
            self.fault(format!("{at} is {text:?}, expected 1s to {max}s, such as `30s` or `2m`"));
            default
        })
    }

    /// A command whose program is there and can be run; one with a slash is found beside the file,
    /// any other on the PATH.
    fn command(&mut self, at: &str, argv: Option<Argv>) -> Option<Argv> {
        let mut argv = argv?;
        if argv.is_empty() || argv.len() > WORDS_MAX || argv.iter().any(|word| word.contains('\0'))
        {
            self.fault(format!("{at} has {} words, expected 1 to {WORDS_MAX}", argv.len()));
            return None;
        }
        let program = argv[0].clone();
        let found = match program.contains('/') {
            true => Some(self.base.join(&program)).filter(|path| path.is_file()),
            false => {
                let path = (self.env)("PATH").unwrap_or_default();
                let folders = std::env::split_paths(&path).collect::<Vec<_>>();
                folders.iter().map(|folder| folder.join(&program)).find(|path| is_program(path))
            }
        };
        match found {
            Some(path) if !is_program(&path) => {
                let path = path.display();
                self.fault(format!("{at}: {path} is not executable\n    hint: chmod +x {path}"));
            }
            Some(path) if program.contains('/') => argv[0] = path.display().to_string(),
            Some(_) => {}
            None if program.contains('/') => {
                let path = self.base.join(&program);
                self.fault(format!("{at}: there is no file {}", path.display()));
            }
            None if program.contains(' ') => self.fault(format!(
                "{at}: there is no program {program:?}\n    hint: each word is an entry of its own: \
                 [docker, compose, up]"
            )),
            None => self.fault(format!("{at}: there is no program {program} on the PATH")),
        }
        Some(argv)
    }
}

fn is_program(path: &Path) -> bool {
    let metadata = std::fs::metadata(path);
    metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Names that shells can read, and that are not set by us.
fn is_variable(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(is_inner)
        && !name.starts_with("ROLLGATE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expected: Result<fn(&HookOptions) -> bool, &[&str]>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text);
        write("back.sh", "#!/bin/sh\n").expect("a script");
        write("plain.txt", "").expect("a file");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path().join("back.sh"), mode).expect("a program");
        write("hook.yaml", yaml).expect("the file");
        let env = |name: &str| match name {
            "KEY" => Some("a-signing-key-of-some-length".to_owned()),
            "PATH" => Some(dir.path().display().to_string()),
            _ => None,
        };
        match (read(&dir.path().join("hook.yaml"), env, Secrets::Read), expected) {
            (Ok((options, _)), Ok(holds)) => assert!(holds(&options), "{yaml}\n{options:?}"),
            (Err(error), Err(words)) => {
                let text = error.to_string();
                for word in words {
                    assert!(text.contains(word), "{yaml}\n{text}\nlacks {word:?}");
                }
                assert!(!text.contains("a-signing-key"), "a secret is shown: {text}");
            }
            (Ok(_), Err(words)) => panic!("{yaml}\nwas taken, expected {words:?}"),
            (Err(error), Ok(_)) => panic!("{yaml}\n{error}"),
        }
    }

    #[test]
    fn good_files_are_taken_and_every_fault_is_named() {
        let head = "secrets: [{ env: KEY }]\n";
        check(
            &format!("{head}on: {{ rollback: [./back.sh, now] }}"),
            Ok(|options| {
                let argv = options.commands.rollback.as_ref().expect("a command");
                argv[0].starts_with('/')
                    && argv[0].ends_with("back.sh")
                    && argv[1] == "now"
                    && options.listen.ip().is_loopback()
                    && options.commands.promote.is_none()
                    && options.interrupted == Interrupted::Refuse
                    && (options.wait.as_secs(), options.setting.timeout.as_secs()) == (8, 300)
            }),
        );
        check(
            &format!("{head}timeout: 2m\ninterrupted: run\non: {{ hold: [back.sh] }}"),
            Ok(|options| {
                options.setting.timeout.as_secs() == 120
                    && options.interrupted == Interrupted::Run
                    && options.commands.hold == Some(vec!["back.sh".to_owned()])
            }),
        );
        check(&format!("{head}on: {{}}"), Err(&["on says nothing"]));
        check("on: { rollback: [back.sh] }\nsecrets: []", Err(&["no signing secret"]));
        check("on: { rollback: [back.sh] }", Err(&["secrets"]));
        check(&format!("{head}on: {{ demote: [back.sh] }}"), Err(&["demote", "line 2"]));
        check(
            &format!(
                "{head}listen: here\nwait: 2m\ntries: 0\ndirectory: no\nenvironment: [A-B, ROLLGATE_X]\n\
                 check: []\non: {{ rollback: [./plain.txt], promote: [docker], hold: ['docker up'], \
                 advance: [./no.sh] }}"
            ),
            Err(&[
                "listen is",
                "wait is",
                "tries is",
                "directory is",
                "A-B",
                "ROLLGATE_X",
                "check has 0 words",
                "plain.txt is not executable",
                "no program docker on",
                "each word is an entry",
                "there is no file",
            ]),
        );
        check("secrets: [{ env: NO }]\non: { hold: [back.sh] }", Err(&["NO is not set"]));
    }
}
