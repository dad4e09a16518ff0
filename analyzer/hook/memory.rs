//! What is remembered of events, over restarts: which came, which commands began, how they ended.
//!
//! A fold over the facts of one file; what is live is made by the same fold as what is read at the
//! start. Bounded by age and by number. Time is an argument. Beginnings and ends are on disk before
//! anything is done or said because of them; that an event came at all may be lost with the power,
//! and then its sender comes again.

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

pub use super::memory_file::MemoryError;
use super::{
    Answer, Outcome,
    event::Event,
    memory_file::{MemoryFile, io_fault},
};
use crate::engine::observation::Time;

/// How long an event is remembered after it was last heard of. The sender tries for a day; a
/// request that was captured is too old after five minutes.
pub const REMEMBERED: Duration = Duration::from_secs(48 * 60 * 60);

/// Events remembered at once. Beyond them the oldest are forgotten, if they are [`SETTLED`].
pub const EVENTS_MAX: usize = 10_000;

/// How long an event is remembered whatever the number: longer than any wait between two attempts
/// of its sender.
pub const SETTLED: Duration = Duration::from_secs(2 * 60 * 60);

/// Lines beyond what is remembered, at which the file is written anew.
const SPARE_LINES: usize = 1_000;

/// All events that are remembered.
pub struct Memory {
    file: MemoryFile,
    entries: BTreeMap<String, Entry>,
}

/// What is remembered of one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was last heard of, in unix milliseconds.
    pub at: i64,
    /// Its analysis.
    pub analysis: String,
    /// The step it asks to advance to; none of a final verdict.
    pub step: Option<usize>,
    /// How far it came.
    pub state: State,
    /// Failures since it was last refused.
    #[serde(default)]
    pub failures: u32,
    /// Whether a command of it ever began: the world may be half changed.
    #[serde(default)]
    pub has_begun: bool,
}

/// How far an event came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It came; no command runs.
    Taken,
    /// Its command began.
    Begun {
        /// The process, once it is known.
        process: Option<Process>,
    },
    /// It was answered.
    Ended(Answer),
}

/// A process, so that it can be told from a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number, which is that of its group.
    pub pid: u32,
    /// When it began, in the kernel's ticks since boot.
    pub ticks: u64,
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Fact {
    Entry { id: String, entry: Entry },
    Begun { id: String, at: i64 },
    Process { id: String, process: Process },
    Ended { id: String, at: i64, answer: Answer },
}

impl Memory {
    /// Reads what is remembered, and forgets what is old.
    ///
    /// # Errors
    /// When the file cannot be used, or holds what no hook wrote.
    pub fn open(path: &Path, now: Time) -> Result<Self, MemoryError> {
        let (file, facts) = MemoryFile::open(path)?;
        let mut memory = Self { file, entries: BTreeMap::new() };
        facts.into_iter().for_each(|fact| memory.apply(fact));
        memory.forget(now);
        memory.tidy().map_err(|error| io_fault(path, "cannot be written", error))?;
        Ok(memory)
    }

    /// What is known of an event.
    pub fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Events whose command began and has no known end, with their processes.
    pub fn begun(&self) -> impl Iterator<Item = (&str, &Entry, Option<Process>)> {
        self.entries.iter().filter_map(|(id, entry)| match entry.state {
            State::Begun { process } => Some((id.as_str(), entry, process)),
            State::Taken | State::Ended(_) => None,
        })
    }

    /// Why an advance comes too late, if it does: a final verdict of its analysis came, or a later
    /// step.
    pub fn overtaken(&self, event: &Event) -> Option<String> {
        let step = event.step()?;
        let of_analysis = self.entries.values().filter(|one| one.analysis == event.data.analysis);
        let mut later = of_analysis.filter(|one| one.step.is_none_or(|other| other > step));
        later.next().map(|one| match one.step {
            None => "a final verdict of this analysis came before".to_owned(),
            Some(other) => format!("step {other} of this analysis came before step {step}"),
        })
    }

    /// Remembers that an event came, which may have come before.
    ///
    /// # Errors
    /// When it cannot be written, or too many came of late.
    pub fn take(&mut self, event: &Event, now: Time) -> io::Result<()> {
        self.forget(now);
        let known = self.entries.get(&event.id);
        if known.is_none() && self.entries.len() >= EVENTS_MAX {
            return Err(io::Error::other(format!("{EVENTS_MAX} events came within two hours")));
        }
        let entry = Entry {
            at: now.0,
            analysis: event.data.analysis.clone(),
            step: event.step(),
            state: State::Taken,
            failures: known.map_or(0, |entry| entry.failures),
            has_begun: known.is_some_and(|entry| entry.has_begun),
        };
        self.tidy()?;
        self.add(Fact::Entry { id: event.id.clone(), entry })
    }

    /// Remembers that the command of an event is about to begin.
    ///
    /// # Errors
    /// When it cannot be written: then it must not begin.
    pub fn begin(&mut self, id: &str, now: Time) -> io::Result<()> {
        if !self.entries.contains_key(id) {
            return Err(io::Error::other(format!("event {id} is not remembered any more")));
        }
        self.add(Fact::Begun { id: id.to_owned(), at: now.0 })?;
        self.file.sync()
    }

    /// Remembers the process of a command that began.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn running(&mut self, id: &str, process: Process) -> io::Result<()> {
        // In the file a fact about what was forgotten would stand behind what is still there of it.
        if !self.entries.contains_key(id) {
            return Ok(());
        }
        self.add(Fact::Process { id: id.to_owned(), process })
    }

    /// Remembers how an event was answered. It holds in this process even if it cannot be written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(&mut self, id: &str, answer: Answer, now: Time) -> io::Result<()> {
        if !self.entries.contains_key(id) {
            return Ok(());
        }
        let fact = Fact::Ended { id: id.to_owned(), at: now.0, answer };
        let written = self.file.add(&fact).and_then(|()| self.file.sync());
        self.apply(fact);
        written
    }

    fn add(&mut self, fact: Fact) -> io::Result<()> {
        self.file.add(&fact)?;
        self.apply(fact);
        Ok(())
    }

    fn apply(&mut self, fact: Fact) {
        let (id, at, state) = match fact {
            Fact::Entry { id, entry } => {
                self.entries.insert(id, entry);
                return;
            }
            Fact::Begun { id, at } => (id, Some(at), State::Begun { process: None }),
            Fact::Process { id, process } => (id, None, State::Begun { process: Some(process) }),
            Fact::Ended { id, at, answer } => (id, Some(at), State::Ended(answer)),
        };
        // A fact about an event that was forgotten in between says nothing any more.
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.at = at.unwrap_or(entry.at);
        match &state {
            State::Taken => {}
            State::Begun { .. } => entry.has_begun = true,
            State::Ended(answer) => match answer.outcome {
                Outcome::Failed => entry.failures += 1,
                Outcome::Later => {}
                Outcome::Done | Outcome::Nothing | Outcome::Refused => entry.failures = 0,
            },
        }
        entry.state = state;
    }

    fn forget(&mut self, now: Time) {
        let age = |entry: &Entry| now.since(Time(entry.at));
        self.entries.retain(|_, entry| age(entry) <= REMEMBERED);
        while self.entries.len() >= EVENTS_MAX {
            let is_settled =
                |entry: &Entry| matches!(entry.state, State::Ended(_)) && age(entry) > SETTLED;
            let settled = self.entries.iter().filter(|(_, entry)| is_settled(entry));
            let Some(oldest) = settled.min_by_key(|(_, entry)| entry.at) else { return };
            let oldest = oldest.0.clone();
            self.entries.remove(&oldest);
        }
    }

    /// Writes the file anew when most of its lines are of no use any more.
    fn tidy(&mut self) -> io::Result<()> {
        if self.file.lines() < 2 * self.entries.len() + SPARE_LINES {
            return Ok(());
        }
        let entries = self.entries.iter();
        let facts: Vec<Fact> = entries
            .map(|(id, entry)| Fact::Entry { id: id.clone(), entry: entry.clone() })
            .collect();
        self.file.replace(&facts)
    }
}

/// The process of this number, if there is one now. None where the system does not tell.
pub fn process(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; after it come the state and further numbers.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X");
    let ticks = fields.nth(18)?.parse().ok()?;
    (!is_dead).then_some(Process { pid, ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_beginning() {
        let ours = process(std::process::id()).expect("this process runs");
        assert_eq!(process(ours.pid), Some(ours));
        assert_eq!(process(u32::MAX), None);
    }
}
