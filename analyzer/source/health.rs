//! Health endpoints: one answer becomes up, degraded or down, or the reason why it says neither.
//!
//! Invariants: the worse of status code and body wins; an endpoint that refuses or stays silent is
//! down; an answer of somebody else (auth wall, rate limiter, redirect, login page), and a failure
//! on our own side, is *unclear*, never up and never down. It deliberately follows no redirect.

use std::time::Duration;

use reqwest::Url;

use super::{
    client::{Bound, Client, FetchError},
    health_body::{BodySays, read_body},
    health_number::{self, Heard},
    limits::SourceLimits,
    target::{authority, parse_url},
};
use crate::{
    engine::observation::{Health, Missing, Why},
    signal::{
        answer::AnswerNumber,
        sample::{Level, Probe, ProbeAnswer},
    },
    telemetry::Telemetry,
};

const ACCEPT_HEALTH: &str =
    "application/health+json, application/json, text/plain;q=0.9, */*;q=0.5";

/// A whole health answer, live or recorded.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// HTTP status code.
    pub status: u16,
    /// Content type, when given.
    pub content_type: Option<&'a str>,
    /// Decoded body.
    pub body: &'a [u8],
}

/// What is asked of an endpoint: its status, and numbers of its answer.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    /// Index of the health signal.
    pub signal: usize,
    /// Indices of the signals that are numbers of the answer.
    pub numbers: Vec<(usize, &'a AnswerNumber)>,
}

impl Question<'_> {
    /// Nothing could be asked.
    pub(super) fn unasked(&self, missing: &Missing) -> (Probe, Vec<Level>) {
        let probe = Probe { signal: self.signal, answer: Err(missing.clone()) };
        (probe, health_number::all_missing(&self.numbers, missing))
    }
}

/// Asks one endpoint.
pub(super) async fn probe(
    client: &Client,
    url: &Url,
    question: Question<'_>,
    (limits, timeout): (&SourceLimits, Duration),
    telemetry: &Telemetry,
) -> (Probe, Vec<Level>) {
    let endpoint = format!("{}{}", authority(url), url.path());
    let bound = Bound { time: timeout, bytes: limits.health_bytes_max };
    let (outcome, levels) = match client.bounded_get(url, ACCEPT_HEALTH, bound).await {
        Ok(answer) => {
            let content_type = answer.content_type.as_deref();
            let said = Said { status: answer.status, content_type, body: &answer.body };
            let latency_secs = Some(answer.elapsed.as_secs_f64());
            let outcome =
                judge(said).map(|(status, detail)| ProbeAnswer { status, latency_secs, detail });
            let heard = Heard { endpoint: &endpoint, said, latency_secs };
            (outcome, health_number::read(&question.numbers, heard))
        }
        Err(error) => {
            let missing = Missing::new(Why::ScrapeFailed, format!("{endpoint}: {error}"));
            (unanswered(&error), health_number::all_missing(&question.numbers, &missing))
        }
    };
    let outcome =
        outcome.map_err(|words| Missing::new(Why::UnclearHealth, format!("{endpoint}: {words}")));
    match &outcome {
        Ok(answer) => telemetry.probed(&endpoint, Ok((answer.status, &answer.detail))),
        Err(missing) => telemetry.probed(&endpoint, Err(missing)),
    }
    (Probe { signal: question.signal, answer: outcome }, levels)
}

/// Asks an endpoint given by its absolute URL.
pub(super) async fn probe_url(
    client: &Client,
    url: &str,
    question: Question<'_>,
    bounds: (&SourceLimits, Duration),
    telemetry: &Telemetry,
) -> (Probe, Vec<Level>) {
    match parse_url(url) {
        Ok(url) => probe(client, &url, question, bounds, telemetry).await,
        Err(error) => question.unasked(&Missing::new(Why::UnclearHealth, error.to_string())),
    }
}

/// What a failed exchange says of the endpoint.
fn unanswered(error: &FetchError) -> Result<ProbeAnswer, String> {
    let down =
        || ProbeAnswer { status: Health::Down, latency_secs: None, detail: error.to_string() };
    match error {
        FetchError::Refused { .. } | FetchError::Timeout { .. } | FetchError::Cut { .. } => {
            Ok(down())
        }
        // None of these is the endpoint's word about itself.
        FetchError::TooLarge { .. }
        | FetchError::Name { .. }
        | FetchError::Tls { .. }
        | FetchError::Forbidden { .. }
        | FetchError::Ours { .. } => Err(error.to_string()),
    }
}

/// The status of an answer and, when it is not up, why in a few words.
///
/// # Errors
/// In words, when the answer does not say.
pub fn judge(said: Said<'_>) -> Result<(Health, String), String> {
    if let Some(words) = of_somebody_else(said.status) {
        return Err(words);
    }
    let body = read_body(said.content_type, said.body);
    match said.status {
        200..=299 => match body {
            BodySays::Nothing => Ok((Health::Up, String::new())),
            BodySays::Status(status, detail) => Ok((status, detail)),
            BodySays::Unclear(words) => Err(format!("status {} and {words}", said.status)),
        },
        404 => Ok((Health::Down, "status 404: is there such a path?".to_owned())),
        status => Ok((
            Health::Down,
            match body {
                // "pass" beside a 503 explains nothing.
                BodySays::Status(Health::Down | Health::Degraded, detail) => {
                    format!("status {status}, {detail}")
                }
                BodySays::Status(Health::Up, _) | BodySays::Nothing | BodySays::Unclear(_) => {
                    format!("status {status}")
                }
            },
        )),
    }
}

/// Why an answer of this status is not the endpoint's own word, when it is not.
pub(super) fn of_somebody_else(status: u16) -> Option<String> {
    match status {
        300..=399 => Some(format!(
            "found status {status} (a redirect), expected an answer; hint: give the final path"
        )),
        401 | 403 | 407 => Some(format!(
            "found status {status}: an auth wall answered; hint: let this host ask without \
             credentials"
        )),
        429 => Some("found status 429: a rate limiter answered; hint: look less often".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Expected {
        Is(Health),
        Unclear,
    }
    use Expected::{Is, Unclear};
    use Health::{Degraded, Down, Up};

    fn check(status: u16, body: &str, expected: Expected) {
        let content_type = if body.starts_with('{') { "application/json" } else { "text/plain" };
        check_typed(status, Some(content_type), body, expected);
    }

    fn check_typed(status: u16, content_type: Option<&str>, body: &str, expected: Expected) {
        let said = Said { status, content_type, body: body.as_bytes() };
        let found = judge(said);
        let seen = match &found {
            Ok((status, _)) => Is(*status),
            Err(_) => Unclear,
        };
        assert_eq!(seen, expected, "{status} {body:?} gave {found:?}");
        if let Ok((Degraded | Down, detail)) = &found {
            assert!(!detail.is_empty() && !detail.contains('\n'), "{detail:?}");
        }
    }

    #[test]
    fn the_code_decides_what_the_body_cannot_better() {
        check(200, "", Is(Up));
        check(204, "", Is(Up));
        check(503, "{\"status\":\"UP\"}", Is(Down));
        check(500, "", Is(Down));
        check(404, "not found", Is(Down));
        check(302, "", Unclear);
        for wall in [401, 403, 407, 429] {
            check(wall, "{\"status\":\"down\"}", Unclear);
        }
    }

    #[test]
    fn each_convention_is_understood() {
        check(200, "{\"status\":\"pass\"}", Is(Up));
        check(200, "{\"status\":\"Warn\",\"checks\":{}}", Is(Degraded));
        check(200, "{\"status\":\"fail\",\"output\":\"no db\"}", Is(Down));
        check(200, "{\"status\":\"OUT_OF_SERVICE\"}", Is(Down));
        check(200, "{\"status\":\"UNKNOWN\"}", Unclear);
        check(200, "Healthy", Is(Up));
        check(200, "Degraded", Is(Degraded));
        check(200, "Unhealthy", Is(Down));
        check(200, "[+]ping ok\n[-]db failed: reason withheld\nlivez check failed\n", Is(Down));
        check(200, "[+]ping ok\n[+]db excluded: ok\nlivez check passed\n", Is(Up));
        check(200, "{\"Database\":\"working\",\"Disk\":\"warning: nearly full\"}", Is(Degraded));
        check(200, "{\"health\":\"true\"}", Is(Up));
        check(200, "{\"healthy\":false}", Is(Down));
        check(200, "{\"status\":\"healthy\",\"checks\":{\"database\":\"ok\"}}", Is(Up));
        check(200, "\"ok\"", Is(Up));
        check(200, "true", Is(Up));
        check(200, "pong", Is(Up));
    }

    #[test]
    fn a_component_that_is_down_degrades_a_service_that_calls_itself_up() {
        check(200, "{\"status\":\"ok\",\"checks\":{\"database\":\"error\"}}", Is(Degraded));
        check(
            200,
            "{\"status\":\"UP\",\"checks\":[{\"name\":\"a\",\"status\":\"DOWN\"}]}",
            Is(Degraded),
        );
        let nested = "{\"status\":\"pass\",\"checks\":{\"db:time\":[{\"status\":\"warn\"}]}}";
        check(200, nested, Is(Degraded));
    }

    #[test]
    fn words_of_somebody_else_are_unclear() {
        check(200, "<html><title>Sign in</title><form>user ok</form>", Unclear);
        check(200, "Welcome to nginx!", Unclear);
        check(200, "{\"status\":\"UP\",\"compo", Unclear);
        check(200, "{\"version\":\"1.2\"}", Unclear);
        check(200, "[]", Unclear);
        check(200, &"ok ".repeat(100_000), Unclear);
        check_typed(200, None, "\u{0}\u{1}", Unclear);
        check(200, &format!("{}1{}", "[".repeat(9000), "]".repeat(9000)), Unclear);
    }

    #[test]
    fn negations_are_read() {
        check(200, "not ready", Is(Down));
        check(200, "ok, no errors", Is(Up));
        check(200, "ready: 0 failed", Is(Up));
        check(200, "not failing", Unclear);
    }

    #[test]
    fn our_own_faults_say_nothing_of_the_endpoint() {
        let why = || "x".to_owned();
        let check = |error: FetchError, down: bool| {
            let found = unanswered(&error);
            assert_eq!(found.is_ok(), down, "{error:?}");
            if let Ok(answer) = found {
                assert_eq!((answer.status, answer.latency_secs), (Down, None));
            }
        };
        check(FetchError::Refused { why: why() }, true);
        check(FetchError::Timeout { after: Duration::from_secs(1), got: why() }, true);
        check(FetchError::Cut { bytes: 1, why: why() }, true);
        check(FetchError::TooLarge { limit: 1 }, false);
        check(FetchError::Name { why: why() }, false);
        check(FetchError::Tls { why: why() }, false);
        check(FetchError::Forbidden { why: why() }, false);
        check(FetchError::Ours { why: why() }, false);
    }
}
