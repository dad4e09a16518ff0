//! What a request says, once its signature is good: an event of ours, or in words why it is none.
//!
//! A good signature says who sent it, not that it makes sense: another program may hold the key.

use serde::Deserialize;

use crate::deliver::payload::{
    ADVANCE_EVENT, DeployAction, VERDICT_EVENT, VerdictData, VerdictEvent,
};

/// Type of the event that only tries the way.
pub const TEST_EVENT: &str = "rollgate.test.v1";

/// Longest `webhook-id`, and longest id of an analysis.
pub const ID_BYTES_MAX: usize = 256;

/// An event that a command may be run for.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its `webhook-id`: the same for every repetition.
    pub id: String,
    /// What it says.
    pub data: VerdictData,
    /// The body as it came.
    pub body: bytes::Bytes,
}

impl Event {
    /// The step to advance to; none of a final verdict.
    pub fn step(&self) -> Option<usize> {
        match self.data.action {
            DeployAction::Advance => self.data.step.map(|step| step.index),
            DeployAction::Rollback | DeployAction::Promote | DeployAction::Hold => None,
        }
    }
}

/// What a body is.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// An event of ours.
    Event(Box<Event>),
    /// One that only tries the way.
    Test,
}

/// Only the type: what other fields mean depends on it.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

/// Reads a body whose signature is good.
///
/// # Errors
/// In words, when it is no event of ours: sending it again will not help.
pub fn read(id: &str, body: bytes::Bytes) -> Result<Body, String> {
    let Kind { kind } =
        serde_json::from_slice(&body).map_err(|error| format!("the body is no event: {error}"))?;
    if kind == TEST_EVENT {
        return Ok(Body::Test);
    }
    if kind != VERDICT_EVENT && kind != ADVANCE_EVENT {
        let kind: String = kind.escape_debug().take(80).collect();
        return Err(format!("events of type {kind} are not for this hook"));
    }
    let event: VerdictEvent =
        serde_json::from_slice(&body).map_err(|error| format!("the body is no {kind}: {error}"))?;
    let data = event.data;
    let is_advance = data.action == DeployAction::Advance;
    if is_advance != (kind == ADVANCE_EVENT) || is_advance != data.step.is_some() {
        return Err(format!("a {kind} cannot ask to {}", data.action));
    }
    if data.analysis.is_empty() || data.analysis.len() > ID_BYTES_MAX {
        return Err(format!("an analysis' id has 1 to {ID_BYTES_MAX} bytes"));
    }
    Ok(Body::Event(Box::new(Event { id: id.to_owned(), data, body })))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(change: impl FnOnce(&mut Value)) -> bytes::Bytes {
        let mut event = json!({
            "type": VERDICT_EVENT, "timestamp": "2026-11-21T00:00:00.000Z",
            "data": {
                "analysis": "a1", "service": "shop", "canary_version": "v2",
                "baseline_version": "v1", "verdict": "rollback", "action": "rollback",
                "reason": "it fails", "rule": null, "decided_at": 1.0, "elapsed_secs": 1.0,
                "rules": { "name": "shop", "sha256": "00" }, "findings": [],
                "a_member_of_later": 1,
            },
        });
        change(&mut event);
        event.to_string().into()
    }

    #[test]
    fn events_are_told_from_what_is_none() {
        let check = |change: fn(&mut Value), expected: Result<Option<usize>, &str>| {
            let found = match read("k", event(change)) {
                Ok(Body::Event(event)) => Ok(event.step()),
                Ok(Body::Test) => Err("a test".to_owned()),
                Err(words) => Err(words),
            };
            match (&found, expected) {
                (Ok(step), Ok(expected)) => assert_eq!(*step, expected),
                (Err(words), Err(part)) => assert!(words.contains(part), "{words}"),
                _ => panic!("{found:?}, expected {expected:?}"),
            }
        };
        let advance = |event: &mut Value| {
            event["type"] = ADVANCE_EVENT.into();
            event["data"]["action"] = "advance".into();
            event["data"]["step"] = json!({ "index": 2, "of": 3, "weight": 1.0 });
        };
        check(|_| {}, Ok(None));
        check(advance, Ok(Some(2)));
        check(|event| event["type"] = TEST_EVENT.into(), Err("a test"));
        check(|event| event["type"] = "invoice.paid".into(), Err("invoice.paid"));
        check(|event| event["type"] = ADVANCE_EVENT.into(), Err("cannot ask to rollback"));
        check(|event| event["data"]["action"] = "advance".into(), Err("cannot ask to advance"));
        check(|event| event["data"]["action"] = "destroy".into(), Err("destroy"));
        check(|event| event["data"]["analysis"] = "".into(), Err("1 to 256 bytes"));
        check(|event| *event = json!([]), Err("no event"));
        assert!(read("k", "{\"type\":".into()).is_err());
    }
}
