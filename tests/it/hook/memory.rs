//! The memory of a hook as a state machine: whatever happens in whatever order, a reopened memory
//! knows the same, wherever a crash cut the file off.

use std::{collections::BTreeMap, path::Path};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::observation::Time,
    hook::{
        Answer, Outcome,
        event::{self, Body, Event},
        memory::{EVENTS_MAX, Entry, Memory, MemoryError, Process, REMEMBERED, SETTLED, State},
    },
};

use super::stand::{advance, verdict};

const HOUR_MS: i64 = 3_600_000;

fn event(id: &str, step: Option<usize>) -> Event {
    let body = match step {
        None => verdict(&id[..1], "rollback"),
        Some(step) => advance(&id[..1], step),
    };
    match event::read(id, body.to_string().into()).unwrap() {
        Body::Event(event) => *event,
        Body::Test => unreachable!("a verdict is no test"),
    }
}

fn open(path: &Path, now: i64) -> Memory {
    Memory::open(path, Time(now)).unwrap()
}

fn answer(outcome: Outcome) -> Answer {
    Answer {
        outcome,
        reason: "a \"reason\"\n".to_owned(),
        exit_code: Some(1),
        output: "é".to_owned(),
    }
}

/// What a memory knows, of the ids of a test.
fn known(memory: &Memory, ids: &[String]) -> BTreeMap<String, Entry> {
    let entry = |id: &String| Some((id.clone(), memory.entry(id)?.clone()));
    ids.iter().filter_map(entry).collect()
}

#[test]
fn a_reopened_memory_knows_what_the_one_before_knew() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory");
    let ids: Vec<String> = (0..40).map(|number| format!("{}{number}", number % 7)).collect();
    let mut now = 1_000_000_000_000;
    let mut memory = open(&path, now);
    for round in 0..6_000 {
        now += dice.random_range(0..REMEMBERED.as_millis() as i64 / 200);
        let id = &ids[dice.random_range(0..ids.len())];
        match dice.random_range(0..10) {
            0..=3 => {
                let step = dice.random_bool(0.5).then(|| dice.random_range(1..4));
                memory.take(&event(id, step), Time(now)).unwrap();
            }
            4..=5 => {
                // What is not known must not begin.
                let is_known = memory.entry(id).is_some();
                assert_eq!(memory.begin(id, Time(now)).is_ok(), is_known, "{id}");
            }
            6 => memory.running(id, Process { pid: dice.random(), ticks: dice.random() }).unwrap(),
            _ => {
                let outcomes = [
                    Outcome::Done,
                    Outcome::Nothing,
                    Outcome::Refused,
                    Outcome::Failed,
                    Outcome::Later,
                ];
                let outcome = outcomes[dice.random_range(0..outcomes.len())];
                memory.end(id, answer(outcome), Time(now)).unwrap();
            }
        }
        if round % 40 == 0 {
            let before = known(&memory, &ids);
            drop(memory);
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines < 1_200, "{lines} lines of {} events", before.len());
            memory = open(&path, now);
            let young = |entry: &Entry| now - entry.at <= REMEMBERED.as_millis() as i64;
            let expected: BTreeMap<_, _> =
                before.into_iter().filter(|(_, entry)| young(entry)).collect();
            assert_eq!(known(&memory, &ids), expected, "round {round}");
        }
    }
}

#[test]
fn wherever_a_crash_cuts_the_file_off_what_stands_before_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory");
    let mut memory = open(&path, 0);
    let ids: Vec<String> = ["a", "b"].map(str::to_owned).into();
    let mut stages = vec![(std::fs::read(&path).unwrap().len(), known(&memory, &ids))];
    let mut stage = |memory: &Memory| {
        stages.push((std::fs::read(&path).unwrap().len(), known(memory, &ids)));
    };
    memory.take(&event("a", None), Time(1)).unwrap();
    stage(&memory);
    memory.begin("a", Time(2)).unwrap();
    stage(&memory);
    memory.running("a", Process { pid: 7, ticks: 8 }).unwrap();
    stage(&memory);
    memory.take(&event("b", Some(1)), Time(3)).unwrap();
    stage(&memory);
    memory.end("a", answer(Outcome::Failed), Time(4)).unwrap();
    stage(&memory);
    drop(memory);
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let expected = stages.iter().rev().find(|(bytes, _)| *bytes <= cut);
        let expected = expected.map(|(_, known)| known.clone()).unwrap_or_default();
        let mut memory = open(&path, 5);
        assert_eq!(known(&memory, &ids), expected, "cut at {cut}");
        // And it can be gone on with.
        memory.take(&event("b", Some(2)), Time(6)).unwrap();
        drop(memory);
        assert_eq!(open(&path, 7).entry("b").map(|entry| entry.step), Some(Some(2)));
    }
}

#[test]
fn what_no_hook_wrote_is_named_and_a_memory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory");
    let mut memory = open(&path, 0);
    memory.take(&event("a", None), Time(1)).unwrap();
    memory.end("a", answer(Outcome::Done), Time(2)).unwrap();
    let second = Memory::open(&path, Time(3)).err();
    assert!(matches!(second, Some(MemoryError::InUse { .. })), "{second:?}");
    drop(memory);
    let text = std::fs::read_to_string(&path).unwrap();
    for (broken, line) in [
        (text.replacen("\"entry\"", "\"entr\"", 1), 2),
        (format!("hello\n{text}"), 1),
        (text.replacen("memory\":1", "memory\":2", 1), 1),
        (format!("{text}\n"), 4),
    ] {
        std::fs::write(&path, &broken).unwrap();
        match Memory::open(&path, Time(3)).err() {
            Some(MemoryError::Unreadable { line: found, .. }) => {
                assert_eq!(found, line, "{broken}")
            }
            other => panic!("{other:?}, expected line {line} of {broken}"),
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), broken, "it is left as it is");
    }
}

#[test]
fn the_number_of_events_is_bounded_and_young_ones_are_never_forgotten_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut memory = open(&dir.path().join("memory"), 0);
    for number in 0..EVENTS_MAX {
        let id = number.to_string();
        memory.take(&event(&id, None), Time(number as i64)).unwrap();
        // All but the first have ended.
        if number > 0 && number < 20 {
            memory.end(&id, answer(Outcome::Done), Time(number as i64)).unwrap();
        }
    }
    let young = memory.take(&event("young", None), Time(HOUR_MS)).unwrap_err();
    assert!(young.to_string().contains("10000 events"), "{young}");
    assert!(memory.take(&event("5", None), Time(HOUR_MS)).is_ok(), "it is one of them");
    let later = Time(SETTLED.as_millis() as i64 + HOUR_MS);
    memory.take(&event("later", None), later).unwrap();
    // The oldest that has ended made room; one whose end is not known did not.
    assert!(memory.entry("0").is_some() && memory.entry("1").is_none());
    assert!(matches!(memory.entry("2").map(|entry| &entry.state), Some(State::Ended(_))));
}
