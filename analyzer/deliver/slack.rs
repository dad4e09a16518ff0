//! The mechanism `slack`: a message to a chat, by an incoming webhook as Slack has them.
//!
//! Others speak the same (Mattermost, Rocket.Chat, Discord under `/slack`) and read only `text`, so
//! that everything stands in it too. 2xx is acknowledged, unless the answer is JSON that says
//! `"ok": false`. Any other 4xx than 408, 425 and 429 is refused (`no_service`, `invalid_token`,
//! `channel_is_archived`): news of an old decision are worth nothing once somebody has mended it.

use async_trait::async_trait;
use reqwest::{Method, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    About, Attempt, Checks, Mechanism, Parcel, Setting,
    mapping::Mapping,
    names::{fill, headline},
    payload::{DeployAction, TEST_EVENT, VerdictEvent},
    peer::{Hide, Peer, PeerOptions, SetupError, no_event},
};
use crate::outward::{exchange::Call, pattern::Pattern};

/// Its kind.
pub const KIND: &str = "slack";

/// What it can do on a decision.
pub const ACTIONS: [&str; 1] = ["notify"];

/// What it does unless it is told otherwise: people read everything.
pub const MAPPING: Mapping = Mapping {
    rollback: Some("notify"),
    promote: Some("notify"),
    advance: Some("notify"),
    hold: Some("notify"),
};

/// Longest text of one block, in characters; Slack refuses more than 3,000.
const BLOCK_CHARS_MAX: usize = 2_900;

/// Longest text of a message, in characters; Slack cuts at 40,000 and advises 4,000.
const TEXT_CHARS_MAX: usize = 3_900;

/// How to reach a chat.
#[derive(Clone, Debug)]
pub struct SlackOptions {
    /// The way to it. Its URL is a secret: whoever has it can post.
    pub peer: PeerOptions,
    /// Where people read more.
    pub link: Option<Pattern>,
    /// What it does on which decision.
    pub mapping: Mapping,
}

/// A chat.
pub struct Slack {
    name: String,
    peer: Peer,
    link: Option<Pattern>,
    mapping: Mapping,
}

impl Slack {
    /// Checks the options. Nothing is sent.
    ///
    /// # Errors
    /// When the URL, a header or a certificate cannot be used.
    pub fn new(options: SlackOptions, setting: &Setting) -> Result<Self, SetupError> {
        let SlackOptions { peer, link, mapping } = options;
        let name = peer.name.clone();
        let fault = |fault| SetupError { kind: KIND, name: name.clone(), fault };
        let peer = Peer::open(peer, Hide::Tokens, Vec::new(), setting).map_err(fault)?;
        Ok(Self { name, peer, link, mapping })
    }

    fn message(&self, event: &VerdictEvent, key: &str) -> Value {
        let data = &event.data;
        let title = format!("*{}*", escaped(&headline(event), 300));
        let link = self.link.as_ref().map(|link| fill(link, event, key));
        // A bar would begin the words of a link, and a bracket end it.
        let link = link.map(|link| link.replace('|', "%7C").replace(['<', '>'], ""));
        let mut facts = Vec::new();
        if let Some(rule) = &data.rule {
            facts.push(format!("Rule: {}", escaped(rule, 500)));
        }
        if !data.baseline_version.is_empty() && event.kind != TEST_EVENT {
            facts.push(format!("Compared with {}", escaped(&data.baseline_version, 200)));
        }
        facts.push(format!("Analysis {}", escaped(&data.analysis, 100)));
        facts.extend(link.map(|link| format!("<{}|Read more>", escaped(&link, 1000))));
        let facts = facts.join(" · ");
        let reason = escaped(&data.reason, BLOCK_CHARS_MAX - title.chars().count() - 1);
        let whole = format!("{title}\n{reason}\n{facts}");
        let text = match whole.chars().count() <= TEXT_CHARS_MAX {
            true => whole,
            false => format!("{title}\n{}\n{facts}", escaped(&data.reason, 1000)),
        };
        json!({
            "text": text,
            "blocks": [
                { "type": "section", "text": { "type": "mrkdwn", "text": format!("{title}\n{reason}") } },
                { "type": "context", "elements": [{ "type": "mrkdwn", "text": facts }] },
            ],
        })
    }
}

/// A text with `&`, `<` and `>` escaped, of at most so many characters; no entity is cut in two.
fn escaped(text: &str, chars_max: usize) -> String {
    let (mut out, mut left) = (String::new(), chars_max);
    for c in text.chars() {
        let entity = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            c if c.is_control() && c != '\n' => " ",
            _ => "",
        };
        let chars = if entity.is_empty() { 1 } else { entity.len() };
        if chars >= left {
            out.push('…');
            return out;
        }
        left -= chars;
        match entity {
            "" => out.push(c),
            entity => out.push_str(entity),
        }
    }
    out
}

fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429)
}

/// An answer as Slack's other API gives it, which says 200 to everything.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
}

#[async_trait]
impl Mechanism for Slack {
    fn name(&self) -> &str {
        &self.name
    }

    fn does(&self, action: DeployAction) -> Option<String> {
        self.mapping.of(action)?;
        Some("post a message".to_owned())
    }

    async fn deliver(&self, parcel: &Parcel) -> Attempt {
        let event = match parcel.event() {
            Ok(event) => event,
            Err(error) => return no_event(&error),
        };
        let body = self.message(&event, &parcel.key).to_string();
        let call = Call::new(Method::POST, self.peer.url.clone(), body)
            .header(CONTENT_TYPE, "application/json; charset=utf-8");
        let reply = match self.peer.exchange.write(call).await {
            Ok(reply) => reply,
            Err(answer) => return Attempt::Failed { answer, retry_after: None },
        };
        match serde_json::from_slice(&reply.body) {
            Ok(Answer { ok: false }) if reply.status.is_success() => {
                Attempt::Refused { answer: self.peer.exchange.words_of(&reply) }
            }
            _ => self.peer.judge(&reply, is_refusal),
        }
    }

    fn about(&self) -> About {
        About {
            kind: KIND,
            to: self.peer.place(),
            checks: Checks::People,
            takes_tests: true,
            carries_token: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_cut_between_characters() {
        let check = |text: &str, chars_max: usize, expected: &str| {
            assert_eq!(escaped(text, chars_max), expected);
        };
        check("p95 > 2s & <!channel>", 99, "p95 &gt; 2s &amp; &lt;!channel&gt;");
        check("größer", 7, "größer");
        check("größer", 6, "größe…");
        check("a&b", 5, "a…");
        check("a\tb\nc\u{7}", 9, "a b\nc ");
        let long = "<".repeat(10_000);
        for chars_max in [1, 5, 300, BLOCK_CHARS_MAX] {
            assert!(escaped(&long, chars_max).chars().count() <= chars_max);
        }
    }
}
