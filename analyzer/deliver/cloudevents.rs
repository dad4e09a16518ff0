//! The mechanism `cloudevents`: one CloudEvent per attempt, in binary or structured mode.
//!
//! Source: CloudEvents 1.0.2, its HTTP protocol binding and its JSON format. `source` and `id`
//! together are the same for every attempt, so that a receiver tells a repetition. Any 2xx is
//! acknowledged; 410 and 415 mean never again; anything else is tried again later.

use async_trait::async_trait;
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_TYPE, HeaderName},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    About, Attempt, Checks, Mechanism, Parcel, Setting,
    mapping::Mapping,
    names,
    payload::{DeployAction, VerdictEvent},
    peer::{self, Hide, Peer, PeerOptions, SetupError, SetupFault},
};
use crate::outward::exchange::Call;

/// Its kind.
pub const KIND: &str = "cloudevents";

/// What it can do on a decision.
pub const ACTIONS: [&str; 1] = ["send"];

/// What it does unless it is told otherwise: whoever subscribes decides.
pub const MAPPING: Mapping = Mapping {
    rollback: Some("send"),
    promote: Some("send"),
    advance: Some("send"),
    hold: Some("send"),
};

/// Where events come from, when nothing else is configured.
pub const SOURCE_DEFAULT: &str = "/rollgate";

/// Longest source, in bytes: many receivers limit a header.
pub const SOURCE_BYTES_MAX: usize = 1024;

/// The version of the specification that is spoken.
const SPECVERSION: &str = "1.0";

/// Where the attributes of an event stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In headers; the body is the data.
    Binary,
    /// With the data in one JSON object.
    Structured,
}

/// How to reach a receiver of events.
#[derive(Clone, Debug)]
pub struct CloudEventsOptions {
    /// The way to it.
    pub peer: PeerOptions,
    /// Where the attributes stand.
    pub mode: Mode,
    /// The context in which events happen: a URI or a reference.
    pub source: String,
    /// What it does on which decision.
    pub mapping: Mapping,
}

/// A receiver of CloudEvents.
pub struct CloudEvents {
    name: String,
    peer: Peer,
    mode: Mode,
    source: String,
    mapping: Mapping,
}

/// The attributes of an event; `action` and `analysis` are extensions, for brokers that route by
/// attributes only.
#[derive(Serialize)]
struct Attributes<'a> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    time: &'a str,
    action: &'a str,
    analysis: &'a str,
}

/// An event of the structured mode.
#[derive(Serialize)]
struct Structured<'a> {
    #[serde(flatten)]
    attributes: Attributes<'a>,
    datacontenttype: &'a str,
    data: &'a Value,
}

impl CloudEvents {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the URL, a header, the source or a certificate cannot be used.
    pub fn new(options: CloudEventsOptions, setting: &Setting) -> Result<Self, SetupError> {
        let CloudEventsOptions { peer, mode, source, mapping } = options;
        let name = peer.name.clone();
        let fault = |fault| SetupError { kind: KIND, name: name.clone(), fault };
        let is_plain = |byte: u8| byte.is_ascii_graphic();
        if source.is_empty() || source.len() > SOURCE_BYTES_MAX || !source.bytes().all(is_plain) {
            let words = format!("source is {source:?}, expected a URI such as {SOURCE_DEFAULT}");
            return Err(fault(SetupFault::Options(words)));
        }
        let peer = Peer::open(peer, Hide::Tokens, Vec::new(), setting).map_err(fault)?;
        Ok(Self { name, peer, mode, source, mapping })
    }

    fn call(&self, parcel: &Parcel) -> Result<Call, serde_json::Error> {
        let event: VerdictEvent = parcel.event()?;
        // As it was stored, so that what another version added is sent too.
        let body: Value = serde_json::from_str(&parcel.body)?;
        let data = &body["data"];
        let action = names::action(&event);
        let attributes = Attributes {
            specversion: SPECVERSION,
            id: &parcel.key,
            source: &self.source,
            kind: &event.kind,
            subject: &event.data.service,
            time: &event.timestamp,
            action: &action,
            analysis: &event.data.analysis,
        };
        let url = self.peer.url.clone();
        Ok(match self.mode {
            Mode::Structured => {
                let datacontenttype = "application/json";
                let event = Structured { attributes, datacontenttype, data };
                Call::new(Method::POST, url, serde_json::to_string(&event)?)
                    .header(CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")
            }
            Mode::Binary => {
                let Attributes { specversion, id, source, kind, subject, time, action, analysis } =
                    attributes;
                let pairs = [
                    ("ce-specversion", specversion),
                    ("ce-id", id),
                    ("ce-source", source),
                    ("ce-type", kind),
                    ("ce-subject", subject),
                    ("ce-time", time),
                    ("ce-action", action),
                    ("ce-analysis", analysis),
                ];
                let call = Call::new(Method::POST, url, serde_json::to_string(data)?)
                    .header(CONTENT_TYPE, "application/json");
                pairs.into_iter().fold(call, |call, (name, value)| {
                    call.header(HeaderName::from_static(name), header_text(value))
                })
            }
        })
    }
}

/// A text as the HTTP binding writes it into a header: what is not printable ASCII, and blanks,
/// quotes and percent signs, are percent-encoded (section 3.1.3.2).
fn header_text(text: &str) -> String {
    let mut header = String::new();
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' => header.push_str(&format!("%{byte:02X}")),
            0x21..=0x7e => header.push(char::from(byte)),
            _ => header.push_str(&format!("%{byte:02X}")),
        }
    }
    header
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::GONE | StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

#[async_trait]
impl Mechanism for CloudEvents {
    fn name(&self) -> &str {
        &self.name
    }

    fn does(&self, action: DeployAction) -> Option<String> {
        self.mapping.of(action)?;
        Some(match self.mode {
            Mode::Binary => "POST a CloudEvent (binary mode)".to_owned(),
            Mode::Structured => "POST a CloudEvent (structured mode)".to_owned(),
        })
    }

    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        match self.call(parcel) {
            Ok(call) => self.peer.write(call, is_refusal).await,
            Err(error) => peer::no_event(&error),
        }
    }

    fn about(&self) -> About {
        About {
            kind: KIND,
            to: self.peer.place(),
            checks: Checks::Receiver,
            takes_tests: true,
            carries_token: self.peer.carries_token(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::header_text;

    #[test]
    fn headers_are_written_as_the_binding_says() {
        // The example of the HTTP binding, section 3.1.3.2.
        assert_eq!(header_text("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(header_text("a\"b%c\r\nd~!"), "a%22b%25c%0D%0Ad~!");
    }
}
