//! Decides what becomes of each event, and runs commands one at a time, in the order of arrival.
//!
//! It owns the memory. Its writes are small and few, so they are made in place: nothing may happen
//! before they are on disk anyway. Whoever asks again while a command waits or runs is told the
//! same in the end; an end that nobody waited for is told to the next who asks.

use std::{
    collections::{BTreeSet, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Argv, HookOptions, Interrupted, Outcome, WAITING_MAX,
    command::{self, End, GRACE, Outputs, Ran},
    environment,
    event::Event,
    memory::{self, Memory, Process, State},
};
use crate::{
    deliver::{Clock, payload::DeployAction},
    engine::observation::Time,
};

/// Exit code of a command, or of a check, that asks to be run again later (`EX_TEMPFAIL`).
pub const EXIT_LATER: i32 = 75;

/// Exit code of a command that refuses for good (`EX_CONFIG`).
pub const EXIT_REFUSED: i32 = 78;

/// Characters of a command's output that are answered and remembered.
const OUTPUT_CHARS_MAX: usize = 1_000;

/// Characters of a version that are shown.
const VERSION_CHARS_MAX: usize = 80;

/// Time between two looks at commands that an earlier hook left running.
const LEFTOVER_POLL: Duration = Duration::from_millis(250);

/// An event and who waits for its end.
pub(super) struct Ask {
    pub(super) event: Event,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// Runs commands.
pub(super) struct Runner {
    options: Arc<HookOptions>,
    memory: Memory,
    asked: mpsc::Receiver<Ask>,
    now: Clock,
    waiting: VecDeque<Job>,
    current: Option<Current>,
    /// Events whose end nobody has heard yet.
    untold: BTreeSet<String>,
    leftovers: Vec<Leftover>,
}

/// An event whose command is to be run.
struct Job {
    event: Event,
    argv: Argv,
    replies: Vec<oneshot::Sender<Answer>>,
}

/// What runs now.
struct Current {
    job: Job,
    stage: Stage,
    end: Pin<Box<dyn Future<Output = Ran> + Send>>,
}

#[derive(Clone, Copy)]
enum Stage {
    Check,
    Command,
}

/// A command that an earlier hook began, and that still runs.
struct Leftover {
    id: String,
    process: Process,
    began: Time,
}

impl Leftover {
    fn lives(&self) -> bool {
        memory::process(self.process.pid) == Some(self.process)
    }
}

impl Runner {
    pub(super) fn new(
        options: Arc<HookOptions>,
        memory: Memory,
        asked: mpsc::Receiver<Ask>,
        now: Clock,
    ) -> Self {
        let begun = memory.begun().filter_map(|(id, entry, process)| {
            let (id, began) = (id.to_owned(), Time(entry.at));
            Some(Leftover { id, process: process?, began }).filter(Leftover::lives)
        });
        let leftovers: Vec<Leftover> = begun.collect();
        for Leftover { id, process, .. } in &leftovers {
            tracing::warn!(id, pid = process.pid, "a command of an earlier hook still runs");
        }
        let (waiting, untold) = (VecDeque::new(), BTreeSet::new());
        Self { options, memory, asked, now, waiting, current: None, untold, leftovers }
    }

    /// Runs until `stop`, and then to the end of the command that runs.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut is_stopping = false;
        loop {
            if !is_stopping {
                self.begin_next();
            } else if self.current.is_none() {
                return;
            }
            let is_held_up = !self.leftovers.is_empty() && !self.waiting.is_empty();
            tokio::select! {
                Some(ask) = self.asked.recv() => self.ask(ask, is_stopping),
                ran = end_of(&mut self.current) => self.ended(ran),
                () = tokio::time::sleep(LEFTOVER_POLL), if is_held_up => {}
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    for job in self.waiting.drain(..) {
                        job.tell(&stopping());
                    }
                    if let Some(current) = &self.current {
                        tracing::info!(id = current.job.event.id, "waiting for a command to end");
                    }
                }
            }
        }
    }

    fn ask(&mut self, Ask { event, reply }: Ask, is_stopping: bool) {
        let current = self.current.as_mut().map(|current| &mut current.job);
        let mut jobs = current.into_iter().chain(&mut self.waiting);
        if let Some(job) = jobs.find(|job| job.event.id == event.id) {
            // Those who gave up waiting make room, so that their number is that of connections.
            job.replies.retain(|reply| !reply.is_closed());
            job.replies.push(reply);
            return;
        }
        let admitted = if is_stopping { Err(stopping()) } else { self.admit(&event) };
        match admitted {
            Ok(argv) => self.waiting.push_back(Job { event, argv, replies: vec![reply] }),
            Err(answer) => {
                log(&event, &answer);
                let is_known = self.memory.entry(&event.id).is_some();
                // What nobody heard is told to the next who asks, and nothing is run for them.
                if reply.send(answer).is_err() && is_known {
                    self.untold.insert(event.id);
                }
            }
        }
    }

    /// The command for an event, or what it is answered without any.
    fn admit(&mut self, event: &Event) -> Result<Argv, Answer> {
        if let Some(answer) = self.remembered(&event.id) {
            return Err(answer);
        }
        if let Some(why) = self.memory.overtaken(event) {
            return Err(Answer::new(Outcome::Refused, why));
        }
        if self.waiting.len() >= WAITING_MAX {
            let reason = format!("{WAITING_MAX} events wait already");
            return Err(Answer::new(Outcome::Later, reason));
        }
        if let Err(error) = self.memory.take(event, (self.now)()) {
            return Err(unremembered(&error));
        }
        let action = event.data.action;
        let command = self.options.commands.of(action).cloned();
        command.ok_or_else(|| {
            let reason = format!("nothing is configured to run on {action}");
            self.remember(&event.id, Answer::new(Outcome::Nothing, reason))
        })
    }

    /// What an event is answered because of what came of it before.
    fn remembered(&mut self, id: &str) -> Option<Answer> {
        match &self.memory.entry(id)?.state {
            State::Taken => None,
            State::Ended(answer) => match answer.outcome {
                Outcome::Done => Some(answer.clone()),
                // Its sender comes again because it was asked to, or because somebody wants so.
                Outcome::Nothing | Outcome::Failed | Outcome::Refused | Outcome::Later => {
                    self.untold.remove(id).then(|| answer.clone())
                }
            },
            State::Begun { .. } => {
                self.leftovers.retain(Leftover::lives);
                if self.leftovers.iter().any(|leftover| leftover.id == id) {
                    let reason = "its command still runs, begun by an earlier hook";
                    return Some(Answer::new(Outcome::Later, reason));
                }
                match self.options.interrupted {
                    Interrupted::Run => None,
                    Interrupted::Refuse => {
                        let reason = "the hook ended while the command ran, which may be half \
                                      done; look at the host, then send it again";
                        Some(self.remember(id, Answer::new(Outcome::Refused, reason)))
                    }
                }
            }
        }
    }

    fn begin_next(&mut self) {
        while self.current.is_none() && !self.waiting.is_empty() {
            self.end_overdue();
            if !self.leftovers.is_empty() {
                return;
            }
            let Some(job) = self.waiting.pop_front() else { return };
            // A final verdict may have come while an advance waited.
            if let Some(why) = self.memory.overtaken(&job.event) {
                self.conclude(job, Answer::new(Outcome::Refused, why));
                continue;
            }
            match self.options.check.clone() {
                None => self.begin(job, Stage::Command),
                Some(_) if job.event.data.canary_version.is_empty() => {
                    let reason = "the event names no version to hold against what runs";
                    self.conclude(job, Answer::new(Outcome::Refused, reason));
                }
                Some(_) => self.begin(job, Stage::Check),
            }
        }
    }

    /// Commands of an earlier hook have the same time as ours.
    fn end_overdue(&mut self) {
        self.leftovers.retain(Leftover::lives);
        let limit = self.options.setting.timeout + GRACE;
        for leftover in &self.leftovers {
            if (self.now)().since(leftover.began) > limit {
                tracing::warn!(id = leftover.id, "a command of an earlier hook is out of time");
                command::end_leftover(leftover.process.pid);
            }
        }
    }

    fn begin(&mut self, job: Job, stage: Stage) {
        let (argv, outputs) = match (stage, &self.options.check) {
            (Stage::Check, Some(check)) => (check, Outputs::Apart),
            (Stage::Check, None) | (Stage::Command, _) => (&job.argv, Outputs::Together),
        };
        let id = &job.event.id;
        if matches!(stage, Stage::Command)
            && let Err(error) = self.memory.begin(id, (self.now)())
        {
            return self.conclude(job, unremembered(&error));
        }
        let environment = environment::of(&job.event);
        let input = job.event.body.clone();
        match command::start(argv, &self.options.setting, &environment, input, outputs) {
            Ok(running) => {
                // A crash between these lines leaves a process that nobody knows of; there is no
                // way to know its number before it is.
                let process = running.pid().and_then(memory::process);
                if let (Stage::Command, Some(process)) = (stage, process)
                    && let Err(error) = self.memory.running(id, process)
                {
                    tracing::error!(%error, "the process cannot be remembered");
                }
                let program = argv.first();
                tracing::debug!(id, program, pid = running.pid(), "running");
                self.current = Some(Current { job, stage, end: Box::pin(running.finish()) });
            }
            Err(error) => {
                let reason = format!("{} cannot be run: {error}", argv.join(" "));
                self.failed(job, Answer::new(Outcome::Failed, reason));
            }
        }
    }

    fn ended(&mut self, ran: Ran) {
        let Some(Current { job, stage, .. }) = self.current.take() else { return };
        match stage {
            Stage::Check => match self.checked(&job.event, &ran) {
                Ok(()) => self.begin(job, Stage::Command),
                Err(answer) if answer.outcome == Outcome::Failed => self.failed(job, answer),
                Err(answer) => self.conclude(job, answer),
            },
            Stage::Command => {
                let answer = self.judged(&ran);
                match answer.outcome {
                    Outcome::Failed => self.failed(job, answer),
                    Outcome::Done | Outcome::Nothing | Outcome::Refused | Outcome::Later => {
                        self.conclude(job, answer);
                    }
                }
            }
        }
    }

    /// Whether what runs is what was judged. A command of this event that began before may have
    /// brought the old version back already without coming to its end.
    fn checked(&self, event: &Event, ran: &Ran) -> Result<(), Answer> {
        let with_output = |answer: Answer| Answer { output: self.excerpt(&ran.said), ..answer };
        if ran.end != End::Exited(0) {
            let is_later = ran.end == End::Exited(EXIT_LATER);
            let outcome = if is_later { Outcome::Later } else { Outcome::Failed };
            let reason = format!("the check {}", words(ran.end, self.options.setting.timeout));
            return Err(with_output(Answer::new(outcome, reason)));
        }
        let now = ran.stdout.trim();
        let (judged, old) = (&event.data.canary_version, &event.data.baseline_version);
        let is_old = event.data.action == DeployAction::Rollback && now == old && !old.is_empty();
        let has_begun = self.memory.entry(&event.id).is_some_and(|entry| entry.has_begun);
        if now == judged || (is_old && has_begun) {
            return Ok(());
        }
        if is_old {
            let reason = format!("{} runs already", shown(now));
            return Err(Answer::new(Outcome::Nothing, reason));
        }
        let reason = format!("{} runs now; {} was judged", shown(now), shown(judged));
        Err(Answer::new(Outcome::Refused, reason))
    }

    fn judged(&self, ran: &Ran) -> Answer {
        let (outcome, reason) = match ran.end {
            End::Exited(0) => (Outcome::Done, String::new()),
            End::Exited(EXIT_LATER) => (Outcome::Later, "the command asks for later".to_owned()),
            End::Exited(EXIT_REFUSED) => (Outcome::Refused, "the command refused".to_owned()),
            end @ (End::Exited(_) | End::Signalled(_) | End::OutOfTime) => {
                let words = words(end, self.options.setting.timeout);
                (Outcome::Failed, format!("the command {words}"))
            }
        };
        let exit_code = match ran.end {
            End::Exited(code) => Some(code),
            End::Signalled(_) | End::OutOfTime => None,
        };
        tracing::info!(took_ms = ran.took.as_millis() as u64, ?outcome, "the command ended");
        for line in ran.said.lines() {
            tracing::info!(line = self.redacted(line), "said");
        }
        Answer { outcome, reason, exit_code, output: self.excerpt(&ran.said) }
    }

    /// A failure is tried again, so many times.
    fn failed(&mut self, job: Job, mut answer: Answer) {
        let failures = self.memory.entry(&job.event.id).map_or(0, |entry| entry.failures) + 1;
        if failures >= self.options.tries {
            answer.outcome = Outcome::Refused;
            answer.reason = format!("failure {failures} of {failures}: {}", answer.reason);
        }
        self.conclude(job, answer);
    }

    /// Remembers the end and tells it to whoever waits.
    fn conclude(&mut self, job: Job, answer: Answer) {
        log(&job.event, &answer);
        let answer = self.remember(&job.event.id, answer);
        let id = job.event.id.clone();
        if !job.tell(&answer) {
            self.untold.insert(id);
        }
    }

    /// An end that cannot be written holds as long as this process; after it, the event counts as
    /// interrupted.
    fn remember(&mut self, id: &str, answer: Answer) -> Answer {
        if let Err(error) = self.memory.end(id, answer.clone(), (self.now)()) {
            tracing::error!(id, %error, "an end cannot be remembered");
        }
        self.untold.retain(|id| self.memory.entry(id).is_some());
        answer
    }

    fn excerpt(&self, said: &str) -> String {
        let said = self.redacted(said.trim());
        let skipped = said.chars().count().saturating_sub(OUTPUT_CHARS_MAX);
        said.chars().skip(skipped).collect()
    }

    fn redacted(&self, text: &str) -> String {
        let keys = self.options.secrets.iter();
        keys.fold(text.to_owned(), |text, key| text.replace(key.expose(), "[redacted]"))
    }
}

impl Job {
    /// Whether anybody heard it.
    fn tell(self, answer: &Answer) -> bool {
        let told = self.replies.into_iter().map(|reply| reply.send(answer.clone()).is_ok());
        told.fold(false, |any, heard| any | heard)
    }
}

/// The end of what runs; never, while nothing does.
async fn end_of(current: &mut Option<Current>) -> Ran {
    match current {
        Some(current) => current.end.as_mut().await,
        None => std::future::pending().await,
    }
}

fn words(end: End, timeout: Duration) -> String {
    match end {
        End::Exited(code) => format!("ended with exit code {code}"),
        End::Signalled(signal) => format!("was ended by signal {signal}"),
        End::OutOfTime => format!("was ended after {} s", timeout.as_secs_f64()),
    }
}

fn shown(version: &str) -> String {
    if version.is_empty() {
        return "nothing".to_owned();
    }
    version.escape_debug().take(VERSION_CHARS_MAX).collect()
}

fn stopping() -> Answer {
    Answer::new(Outcome::Later, "the hook is stopping")
}

fn unremembered(error: &std::io::Error) -> Answer {
    Answer::new(Outcome::Later, format!("not run, since it cannot be remembered: {error}"))
}

fn log(event: &Event, answer: &Answer) {
    let (id, action) = (event.id.as_str(), event.data.action);
    let (reason, exit_code) = (answer.reason.as_str(), answer.exit_code);
    match answer.outcome {
        Outcome::Done => tracing::info!(id, %action, exit_code, "done"),
        Outcome::Nothing => tracing::info!(id, %action, reason, "nothing to do"),
        Outcome::Later => tracing::info!(id, %action, reason, "later"),
        Outcome::Failed => tracing::warn!(id, %action, reason, exit_code, "failed"),
        Outcome::Refused => tracing::error!(id, %action, reason, exit_code, "refused"),
    }
}
