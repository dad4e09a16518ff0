//! Flagger's webhooks: `pre-rollout` (or `confirm-rollout`) opens the analysis of a release, the other
//! hooks ask how it stands, and `post-rollout` ends it.
//!
//! A hook passes with 200 and is denied with 403 and one line of words, which Flagger shows. It never
//! gets a status that makes its client try again and lose the words. What cannot be
//! read as a hook at all is a problem, as everywhere.

use std::collections::BTreeMap;

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    super::{
        Api,
        analyses::order_faults,
        caller::Caller,
        desk::{AnalysisView, CancelAnalysis, DeskError, OpenAnalysis},
        input::{NoParameters, json, query},
        openapi::{Bodies, PROBLEM},
        problem::Problem,
    },
    PATIENCE,
    fields::Fields,
    flagger_answer::Answer,
    flagger_release::{About, Called, Hook, Judging, Release, about},
    one_line,
};
use crate::telemetry::controllers::Asked;

/// Its name in logs and metrics.
const FLAGGER: &str = "flagger";

/// Times that a hook begins again when another one of the same canary was faster.
const TRIES_MAX: u32 = 5;
/// Bytes of a canary's name, and of its namespace.
const NAME_BYTES_MAX: usize = 253;
/// Bytes of a checksum.
const CHECKSUM_BYTES_MAX: usize = 128;
/// Entries of a hook's metadata.
const METADATA_MAX: usize = 64;
/// Characters of an event that are logged.
const EVENT_CHARS_MAX: usize = 300;
/// What answers in words are sent as.
const TEXT: &str = "text/plain; charset=utf-8";

/// What Flagger sends. Members that later versions of it add are not looked at.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct FlaggerCall {
    /// Of the canary.
    name: String,
    /// Of the canary.
    namespace: String,
    /// `Initialized`, `Waiting`, `Progressing`, `WaitingPromotion`, `Promoting`, `Finalising`, `Succeeded` or `Failed`.
    #[serde(default)]
    phase: String,
    /// Of the revision that was applied last.
    #[serde(default)]
    checksum: String,
    /// As the canary says for this hook: an order in strings.
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

/// Answers one of Flagger's eight hooks.
#[utoipa::path(
    post, path = "/v1/integrations/flagger/{hook}", tag = "controllers",
    params(("hook" = String, Path, example = "rollout", description = "`confirm-rollout`, `pre-rollout`, `rollout`, \
            `confirm-traffic-increase`, `confirm-promotion`, `rollback`, `post-rollout` or `event`")),
    request_body = FlaggerCall,
    responses(
        (status = 200, description = "It passes; why, on one line", content_type = TEXT,
         body = String),
        (status = 403, description = "It is denied, with the reason on one line; or the token's \
         scope does not reach so far",
         content((String = TEXT), (Problem = PROBLEM))),
        (status = 404, description = "Flagger has no such hook", body = Problem,
         content_type = PROBLEM),
        Bodies,
    )
)]
pub(super) async fn hook(
    State(api): State<Api>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    request: Request,
) -> Result<Response, Problem> {
    let NoParameters {} = query(&uri)?;
    let Path(name) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let Some(hook) = Hook::named(&name) else {
        let known: Vec<&str> = Hook::ALL.iter().map(|(name, _)| *name).collect();
        let name = one_line(&name, 40);
        let known = known.join(", ");
        return Err(Problem::unknown_path(format!("no hook {name:?}, known are: {known}")));
    };
    let call: FlaggerCall = json(&api, request).await?;
    let faults = call_faults(&call);
    if !faults.is_empty() {
        return Err(Problem::refused(faults));
    }
    let canary = Canary { api: &api, call: &call, who: caller.on_record("flagger") };
    let answer = match hook {
        Hook::Event => canary.event(),
        _ if call.checksum.is_empty() => {
            Answer::deny("checksum is missing: Flagger before 1.34 does not tell releases apart")
        }
        _ => canary.answer(hook).await,
    };
    api.telemetry.controllers().answered(Asked {
        controller: FLAGGER,
        hook: hook.name(),
        object: &call.object(),
        answer: if answer.passes { "pass" } else { "deny" },
        words: &answer.words,
    });
    let status = if answer.passes { StatusCode::OK } else { StatusCode::FORBIDDEN };
    Ok((status, [(header::CONTENT_TYPE, TEXT)], answer.words).into_response())
}

/// What makes a call unreadable, all at once.
fn call_faults(call: &FlaggerCall) -> Vec<String> {
    let mut faults = Vec::new();
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    for (field, value) in [("name", &call.name), ("namespace", &call.namespace)] {
        if value.is_empty() || value.len() > NAME_BYTES_MAX || !value.chars().all(is_name) {
            let found = one_line(value, 60);
            faults.push(format!("{field}: {found:?} found, expected the name of an object"));
        }
    }
    let is_graphic = call.checksum.bytes().all(|byte| byte.is_ascii_graphic());
    if call.checksum.len() > CHECKSUM_BYTES_MAX || !is_graphic {
        let found = one_line(&call.checksum, 60);
        faults.push(format!("checksum: {found:?} found, expected letters and digits"));
    }
    let entries = call.metadata.as_ref().map_or(0, BTreeMap::len);
    if entries > METADATA_MAX {
        faults.push(format!("metadata: {entries} entries found, at most {METADATA_MAX} allowed"));
    }
    faults
}

impl FlaggerCall {
    /// The canary, as people name it.
    fn object(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// One call, on its way to an answer.
struct Canary<'a> {
    api: &'a Api,
    call: &'a FlaggerCall,
    /// Who is put on record for what the hooks do.
    who: String,
}

/// The kept release as it was read.
struct Kept {
    /// The note's text; none when there is no note.
    text: Option<String>,
    release: Option<Release>,
    /// The release's analysis, where it was opened.
    view: Option<AnalysisView>,
}

impl Kept {
    fn judging(&self) -> Judging {
        match &self.view {
            None => Judging::NotYet,
            Some(view) if view.state == "running" => Judging::Runs,
            Some(_) => Judging::Over,
        }
    }
}

impl Canary<'_> {
    /// Everything that Flagger reports is in the log.
    fn event(&self) -> Answer {
        let field = |name: &str| self.call.metadata.as_ref().and_then(|fields| fields.get(name));
        let message = field("eventMessage").map_or("", |message| message);
        let (phase, message) = (one_line(&self.call.phase, 40), one_line(message, EVENT_CHARS_MAX));
        let object = self.call.object();
        self.api.telemetry.controllers().reported(FLAGGER, &object, &phase, &message);
        Answer::pass("recorded")
    }

    /// The answer, in less time than Flagger waits for it.
    async fn answer(&self, hook: Hook) -> Answer {
        let patience = (2 * PATIENCE).min(self.api.options.desk_timeout);
        let late = || Answer::unknown(hook, "no answer from the store in time");
        tokio::time::timeout(patience, self.tries(hook)).await.unwrap_or_else(|_| late())
    }

    async fn tries(&self, hook: Hook) -> Answer {
        for _ in 0..TRIES_MAX {
            match self.attempt(hook).await {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(DeskError::Unavailable(why)) => return Answer::unknown(hook, &why),
                Err(error) => return Answer::deny(format!("rollgate refuses the order: {error}")),
            }
        }
        Answer::unknown(hook, "other hooks of this canary are being answered")
    }

    /// One attempt; none when another hook of this canary wrote meanwhile.
    async fn attempt(&self, hook: Hook) -> Result<Option<Answer>, DeskError> {
        let kept = self.kept().await?;
        let is_progressing = self.call.phase == "Progressing";
        let called = Called { hook, checksum: &self.call.checksum, is_progressing };
        let known = kept.release.as_ref().map(|release| (release, kept.judging()));
        match about(called, known, || format!("flagger/{}", uuid::Uuid::now_v7().simple())) {
            About::Nothing => Ok(Some(nothing_known(hook, kept.release.as_ref()))),
            About::New(release) => {
                self.give_up(kept.view.as_ref(), &self.superseded()).await?;
                if !self.keep(&kept, &release).await? {
                    return Ok(None);
                }
                let view = self.open(&release).await?;
                Ok(Some(Answer::of(hook, &release, &view)))
            }
            About::Kept(release) if release.is_over && hook == Hook::PostRollout => {
                self.give_up(kept.view.as_ref(), &self.ended()).await?;
                Ok(self.keep(&kept, &release).await?.then(|| Answer::pass("recorded")))
            }
            About::Kept(release) => self.stands(hook, kept, release).await,
        }
    }

    /// How the kept release stands.
    async fn stands(
        &self,
        hook: Hook,
        mut kept: Kept,
        release: Release,
    ) -> Result<Option<Answer>, DeskError> {
        let view = match kept.view.take() {
            Some(view) => view,
            // A crash or a refused order came between: whoever may open it does.
            None => match hook {
                Hook::ConfirmRollout | Hook::PreRollout | Hook::Rollout => {
                    self.open(&release).await?
                }
                Hook::ConfirmTrafficIncrease
                | Hook::ConfirmPromotion
                | Hook::Rollback
                | Hook::PostRollout
                | Hook::Event => return Ok(Some(nothing_known(hook, None))),
            },
        };
        let answer = Answer::of(hook, &release, &view);
        let increases = release.increases + usize::from(answer.is_increase);
        let release = Release { increases, ..release };
        Ok(self.keep(&kept, &release).await?.then_some(answer))
    }

    fn note(&self) -> String {
        format!("flagger/{}", self.call.object())
    }

    async fn kept(&self) -> Result<Kept, DeskError> {
        let desk = &self.api.desk;
        let text = desk.note(&self.note()).await?;
        // One that cannot be read any more is of another version: the next release is a new one.
        let release: Option<Release> =
            text.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let view = match &release {
            Some(release) => desk.opened_by(&release.key).await?,
            None => None,
        };
        Ok(Kept { text, release, view })
    }

    /// Keeps a release where it differs from what is kept. False when another hook was faster.
    async fn keep(&self, kept: &Kept, release: &Release) -> Result<bool, DeskError> {
        if kept.release.as_ref() == Some(release) {
            return Ok(true);
        }
        let text = serde_json::to_string(release).expect("strings and numbers are always JSON");
        let before = kept.text.as_deref();
        self.api.desk.write_note(&self.note(), before, &text).await
    }

    /// Opens the analysis of a release, or finds it opened.
    async fn open(&self, release: &Release) -> Result<AnalysisView, DeskError> {
        let desk = &self.api.desk;
        if let Some(view) = desk.opened_by(&release.key).await? {
            return Ok(view);
        }
        if self.api.stop.is_cancelled() {
            return Err(DeskError::Unavailable("it is shutting down".to_owned()));
        }
        let order = self.order(release).map_err(DeskError::Refused)?;
        let opened = desk.open(order).await?;
        if opened.is_new {
            let object = self.call.object();
            self.api.telemetry.controllers().began(FLAGGER, &object, &opened.view.id);
        }
        Ok(opened.view)
    }

    /// The order that the hook's metadata make, completed by what Flagger says itself.
    fn order(&self, release: &Release) -> Result<OpenAnalysis, Vec<String>> {
        let call = self.call;
        let nothing = BTreeMap::new();
        let fields = Fields::named(call.metadata.as_ref().unwrap_or(&nothing));
        let fields = fields.map_err(|error| vec![format!("metadata: {error}")])?;
        let mut order = fields.order(&call.name)?;
        order.idempotency_key = Some(release.key.clone());
        if order.canary.version.is_empty() {
            order.canary.version = release.revision.clone().unwrap_or_default();
        }
        let revision = release.revision.as_ref().unwrap_or(&call.checksum);
        for (name, value) in
            [("name", &call.name), ("namespace", &call.namespace), ("checksum", revision)]
        {
            order.parameters.entry(name.to_owned()).or_insert_with(|| value.clone());
        }
        let faults = order_faults(&order);
        if faults.is_empty() { Ok(order) } else { Err(faults) }
    }

    /// Ends an analysis that goes on although its release does not.
    async fn give_up(&self, view: Option<&AnalysisView>, why: &str) -> Result<(), DeskError> {
        let Some(view) = view.filter(|view| view.state == "running") else { return Ok(()) };
        let note = CancelAnalysis { who: self.who.clone(), why: why.to_owned() };
        match self.api.desk.cancel(&view.id, note).await {
            // It was decided, or cancelled, in between.
            Ok(_) | Err(DeskError::Conflict(_) | DeskError::Unknown(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn superseded(&self) -> String {
        format!("Flagger began a newer release of {}", self.call.object())
    }

    fn ended(&self) -> String {
        let (phase, object) = (one_line(&self.call.phase, 40), self.call.object());
        format!("Flagger ended the release of {object} as {phase} before there was a verdict")
    }
}

/// What is said when no release is known that a hook could be about.
fn nothing_known(hook: Hook, kept: Option<&Release>) -> Answer {
    let words = match kept {
        Some(_) => "another release of this canary is judged, not this one",
        None => "no release of this canary is judged: the hook pre-rollout begins it",
    };
    match hook {
        Hook::PostRollout | Hook::Event => Answer::pass("recorded"),
        Hook::ConfirmRollout
        | Hook::PreRollout
        | Hook::Rollout
        | Hook::ConfirmTrafficIncrease
        | Hook::ConfirmPromotion
        | Hook::Rollback => Answer::deny(words),
    }
}
