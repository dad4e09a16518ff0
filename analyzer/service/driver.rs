//! The driver: takes every observation that is ready, steps the engine, commits one transaction,
//! and only then tells anybody.
//!
//! It owns the running engines. A store that fails is retried with the same looks, so nothing is
//! published that is not durable and nothing is lost; meanwhile watchers wait at the full queue.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    case::{Beside, Case},
    live::Board,
};
use crate::{
    api::desk::{OverrideAnalysis, OverrideVerdict},
    deliver::payload::{DeployAction, VerdictParts, action, delivery_key, verdict_event},
    engine::{
        analysis::Analysis,
        observation::{Observation, Time},
        verdict::{Step, Verdict},
    },
    report::{
        intervention::{self, Overridden},
        shape::Report,
    },
    signal::carry::Carry,
    store::{Decision, Look, NewDelivery, Override, Signed, Store, StoreError, StoredState},
    telemetry::{
        Telemetry,
        analysis::{EvidenceFact, LookFact, Opening, OverrideFact, Subject},
    },
};

/// Messages taken in one turn, and so looks in one transaction.
pub const TURN_MAX: usize = 256;

/// Messages that may wait for the driver.
pub const QUEUE_MAX: usize = 1024;

/// Wait between two tries of a failed commit; doubles up to the second value.
const COMMIT_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What the driver is told.
pub enum Message {
    /// An analysis runs from now on.
    Start(Box<Running>, Opening),
    /// A look was taken.
    Look {
        /// Of which analysis.
        id: String,
        /// What it saw.
        observation: Box<Observation>,
        /// Positions after it.
        carry: Box<Carry>,
    },
    /// A look could not be taken because of a defect of ours: the analysis ends inconclusive.
    Failed {
        /// Of which analysis.
        id: String,
        /// When.
        at: Time,
    },
    /// An analysis was cancelled in the store.
    Drop(String),
    /// A person decides.
    Override {
        /// Of which analysis.
        id: String,
        /// What, who and why.
        order: OverrideAnalysis,
        /// When.
        at: Time,
        /// Is told what came of it.
        answer: oneshot::Sender<Overruled>,
    },
}

/// What came of a person's verdict.
#[derive(Debug)]
pub enum Overruled {
    /// It stands.
    Stands,
    /// The analysis does not run.
    Over,
    /// The store did not take it; nothing has changed.
    Failed(StoreError),
}

/// A running analysis.
pub struct Running {
    /// What it began with.
    pub case: Case,
    /// The engine.
    pub analysis: Analysis,
    /// The newest report.
    pub report: Option<Report>,
    /// Ends its watcher.
    pub stop: CancellationToken,
}

/// The driver's parts.
pub struct Driver {
    /// Where looks become durable.
    pub store: Arc<dyn Store>,
    /// Where they are shown afterwards.
    pub board: Board,
    /// What happens is reported here.
    pub telemetry: Telemetry,
    /// Wakes the delivery worker.
    pub wake: Arc<Notify>,
}

/// A stepped look that waits for its commit.
struct Stepped {
    look: Look,
    step: Step,
    report: Report,
    begun: Instant,
}

impl Driver {
    /// Works until every sender is gone or `stop`; what is queued by then is still committed.
    pub async fn run(self, mut messages: mpsc::Receiver<Message>, stop: CancellationToken) {
        let mut running: HashMap<String, Running> = HashMap::new();
        let mut turn = Vec::with_capacity(TURN_MAX);
        loop {
            turn.clear();
            tokio::select! {
                biased;
                taken = messages.recv_many(&mut turn, TURN_MAX) => if taken == 0 { break },
                () = stop.cancelled() => {
                    messages.close();
                    if messages.recv_many(&mut turn, TURN_MAX).await == 0 { break }
                }
            }
            self.turn(&mut running, &mut turn).await;
        }
        for (id, running) in running {
            running.stop.cancel();
            self.telemetry.analysis().suspended(subject(&running.case));
            self.board.remove(&id);
        }
    }

    async fn turn(&self, running: &mut HashMap<String, Running>, turn: &mut Vec<Message>) {
        let mut stepped: Vec<Stepped> = Vec::new();
        for message in turn.drain(..) {
            match message {
                Message::Start(case, how) => self.start(running, *case, how),
                Message::Drop(id) => {
                    if let Some(running) = running.remove(&id) {
                        running.stop.cancel();
                    }
                    stepped.retain(|stepped| stepped.look.analysis != id);
                    self.board.remove(&id);
                }
                Message::Look { id, observation, carry } => {
                    if let Some(running) = judged_on(running, &stepped, &id) {
                        stepped.push(look(running, *observation, *carry));
                    }
                }
                Message::Override { id, order, at, answer } => {
                    // What was seen before it is judged before it.
                    self.conclude(running, &mut stepped).await;
                    let overruled = self.overrule(running, &id, &order, at).await;
                    // Whoever asked may be gone; what was decided stands.
                    let _ = answer.send(overruled);
                }
                Message::Failed { id, at } => {
                    if let Some(running) = judged_on(running, &stepped, &id) {
                        let next = running.analysis.looks() + 1;
                        stepped.push(failed_look(running, next, at));
                    }
                }
            }
        }
        self.conclude(running, &mut stepped).await;
    }

    /// Commits what was stepped, and only then tells of it.
    async fn conclude(&self, running: &mut HashMap<String, Running>, stepped: &mut Vec<Stepped>) {
        self.commit(running, stepped).await;
        for stepped in stepped.drain(..) {
            self.publish(running, stepped);
        }
    }

    /// Ends an analysis with a person's verdict. It is tried once: the person is there to try again.
    async fn overrule(
        &self,
        running: &mut HashMap<String, Running>,
        id: &str,
        order: &OverrideAnalysis,
        at: Time,
    ) -> Overruled {
        let Some(case) = running.get(id) else { return Overruled::Over };
        let (report, row) = overridden(case, order, at);
        match self.store.override_verdict(row).await {
            Ok(true) => {}
            Ok(false) => return Overruled::Over,
            Err(error) => return Overruled::Failed(error),
        }
        let Some(case) = running.remove(id) else { return Overruled::Over };
        case.stop.cancel();
        let elapsed = at.since(case.case.started);
        let (verdict, who, why) = (order.verdict.word(), &order.who, &order.why);
        let fact = OverrideFact { verdict, elapsed, who, why };
        self.telemetry.analysis().overridden(subject(&case.case), &fact);
        self.board.show(case.case.view(StoredState::Finished, Some(report), Beside::default()));
        self.board.remove(id);
        self.wake.notify_one();
        Overruled::Stands
    }

    fn start(&self, running: &mut HashMap<String, Running>, case: Running, how: Opening) {
        self.telemetry.analysis().opened(subject(&case.case), how);
        let view = case.case.view(StoredState::Running, case.report.clone(), Beside::default());
        self.board.show(view);
        running.insert(case.case.id.clone(), case);
    }

    /// Commits until it is durable. Looks of an analysis that ended meanwhile are dropped.
    async fn commit(&self, running: &mut HashMap<String, Running>, stepped: &mut Vec<Stepped>) {
        let mut wait = COMMIT_WAIT.0;
        while !stepped.is_empty() {
            let looks = stepped.iter().map(|stepped| stepped.look.clone()).collect();
            match self.store.commit(looks).await {
                Ok(()) => return,
                Err(StoreError::OutOfOrder { analysis, look, why }) => {
                    tracing::warn!(analysis, look, why, "a look was refused and is dropped");
                    stepped.retain(|stepped| stepped.look.analysis != analysis);
                    if let Some(running) = running.remove(&analysis) {
                        running.stop.cancel();
                    }
                    self.board.remove(&analysis);
                }
                // It would be refused for ever, and everybody else's looks with it.
                Err(StoreError::Unwritable { analysis, what, why }) => {
                    tracing::error!(what, why, "a look cannot be kept, its analysis ends");
                    fail_all_of(&analysis, running, stepped);
                }
                Err(
                    error @ (StoreError::Database { .. }
                    | StoreError::Unreadable { .. }
                    | StoreError::Unusable { .. }),
                ) => {
                    tracing::error!(error = %chain(&error), "looks could not be committed, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(COMMIT_WAIT.1);
                }
            }
        }
    }

    fn publish(&self, running: &mut HashMap<String, Running>, stepped: Stepped) {
        let Stepped { look, step, report, begun } = stepped;
        let Some(case) = running.get_mut(&look.analysis) else { return };
        case.report = Some(report.clone());
        let fact = LookFact {
            look: step.look,
            verdict: step.verdict,
            reason: &report.reason,
            took: begun.elapsed(),
            elapsed: step.elapsed,
            evidence: evidence_facts(&report),
        };
        self.telemetry.analysis().looked(subject(&case.case), &fact);
        let is_final = step.verdict.is_final();
        let state = if is_final { StoredState::Finished } else { StoredState::Running };
        self.board.show(case.case.view(state, Some(report), Beside::default()));
        if is_final {
            case.stop.cancel();
            running.remove(&look.analysis);
            self.board.remove(&look.analysis);
        }
        if look.decision.is_some() {
            self.wake.notify_one();
        }
    }
}

/// The analysis that a look is for. A final verdict never changes: what comes after it in the same
/// turn is nobody's.
fn judged_on<'a>(
    running: &'a mut HashMap<String, Running>,
    stepped: &[Stepped],
    id: &str,
) -> Option<&'a mut Running> {
    let over = |stepped: &Stepped| {
        stepped.look.analysis == id
            && stepped.look.decision.as_ref().is_some_and(Decision::is_final)
    };
    if stepped.iter().any(over) { None } else { running.get_mut(id) }
}

fn look(running: &mut Running, observation: Observation, carry: Carry) -> Stepped {
    let begun = Instant::now();
    let step = judge(running, &observation);
    concluded(running, (observation, carry), step, begun)
}

/// A look of which nothing is known but that it failed.
fn failed_look(running: &Running, look: u64, at: Time) -> Stepped {
    let step = failed_step(running, look, at);
    let observation = Observation { at, signals: Vec::new(), canary_gap: None };
    concluded(running, (observation, Carry::default()), step, Instant::now())
}

/// Puts one failed look in the place of all looks of an analysis.
fn fail_all_of(analysis: &str, running: &HashMap<String, Running>, stepped: &mut Vec<Stepped>) {
    let first = stepped.iter().position(|stepped| stepped.look.analysis == analysis);
    let failed = first.zip(running.get(analysis)).map(|(first, running)| {
        failed_look(running, stepped[first].look.look, stepped[first].step.at)
    });
    stepped.retain(|stepped| stepped.look.analysis != analysis);
    stepped.extend(failed);
}

fn concluded(
    running: &Running,
    (observation, carry): (Observation, Carry),
    step: Step,
    begun: Instant,
) -> Stepped {
    let report = running.case.report(&step);
    let advance_to = step.verdict.advance_to();
    let decision = (step.verdict.is_final() || advance_to.is_some()).then(|| {
        let deliveries = match action(step.verdict) {
            Some(action) => deliveries(&running.case, (action, advance_to), step.at, &report),
            None => Vec::new(),
        };
        Decision { at: step.at, advance_to, deliveries }
    });
    let look = Look {
        analysis: running.case.id.clone(),
        look: step.look,
        observation,
        carry,
        report: serde_json::to_string(&report).expect("strings and numbers are always JSON"),
        verdict: report.verdict.clone(),
        decision,
    };
    Stepped { look, step, report, begun }
}

/// One step. A panic while judging one analysis ends that analysis inconclusive, never as a pass,
/// and never ends the process.
fn judge(running: &mut Running, observation: &Observation) -> Step {
    let next = running.analysis.looks() + 1;
    catch_unwind(AssertUnwindSafe(|| running.analysis.step(observation)))
        .unwrap_or_else(|_| failed_step(running, next, observation.at))
}

fn failed_step(running: &Running, look: u64, at: Time) -> Step {
    Step {
        look,
        at,
        elapsed: at.since(running.case.started),
        findings: Vec::new(),
        estimates: Vec::new(),
        canary_gap: None,
        verdict: Verdict::Inconclusive { otherwise: running.case.rules.promote.otherwise },
        release_step: running.analysis.release_step(),
        hold_left: Duration::ZERO,
    }
}

/// A person's verdict over a running analysis: what is said of it, and what is stored.
fn overridden(running: &Running, order: &OverrideAnalysis, at: Time) -> (Report, Override) {
    let case = &running.case;
    let report = intervention::overridden(
        running.report.clone(),
        Overridden {
            verdict: order.verdict.to_string(),
            who: order.who.clone(),
            why: order.why.clone(),
            at: at.as_secs_f64(),
            elapsed_secs: at.since(case.started).as_secs_f64(),
            rules: case.rules_ref.clone(),
        },
    );
    let action = match order.verdict {
        OverrideVerdict::Rollback => DeployAction::Rollback,
        OverrideVerdict::Promote => DeployAction::Promote,
    };
    let row = Override {
        analysis: case.id.clone(),
        verdict: order.verdict.to_string(),
        by: Signed { who: order.who.clone(), why: order.why.clone(), at },
        report: serde_json::to_string(&report).expect("strings and numbers are always JSON"),
        deliveries: deliveries(case, (action, None), at, &report),
    };
    (report, row)
}

fn deliveries(
    case: &Case,
    (action, advance_to): (DeployAction, Option<usize>),
    decided: Time,
    report: &Report,
) -> Vec<NewDelivery> {
    let body = verdict_event(VerdictParts {
        analysis: &case.id,
        service: &case.order.service,
        canary_version: &case.order.canary.version,
        baseline_version: case.baseline_version(),
        action,
        advance_to,
        steps: &case.rules.steps,
        decided,
        report,
        rules: case.rules_ref.clone(),
    });
    case.order
        .mechanisms
        .iter()
        .map(|mechanism| NewDelivery {
            key: delivery_key(&case.id, advance_to, mechanism),
            mechanism: mechanism.clone(),
            action: action.to_string(),
            body: body.clone(),
        })
        .collect()
}

fn evidence_facts(report: &Report) -> Vec<EvidenceFact<'_>> {
    report
        .findings
        .iter()
        .flat_map(|finding| &finding.clauses)
        .filter(|clause| clause.progress.kind == "evidence_decades")
        .map(|clause| EvidenceFact {
            clause: &clause.clause,
            decades: clause.progress.value,
            needed: clause.progress.needed,
            noise_factor: clause.progress.noise_factor.unwrap_or(1.0),
        })
        .collect()
}

/// Whom a fact is about.
pub fn subject(case: &Case) -> Subject<'_> {
    Subject {
        id: &case.id,
        service: &case.order.service,
        canary_version: &case.order.canary.version,
    }
}

/// An error with everything that caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some libraries print their cause themselves.
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(&format!(": {words}"));
        }
        cause = error.source();
    }
    text
}
