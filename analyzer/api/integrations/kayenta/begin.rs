//! The same request begins one analysis, however often it is sent; and another one on another day.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::super::super::{
    Api,
    analyses::{ask, order_faults},
    desk::{AnalysisView, DeskError, OpenAnalysis},
    problem::Problem,
};
use crate::engine::observation::Time;

/// For so long after its end an analysis is still what a request is answered by: clients repeat what
/// failed within minutes, and nobody releases the same twice so soon.
const SETTLED_AFTER: Duration = Duration::from_secs(10 * 60);

/// Attempts at agreeing with others that send the same request at the same time.
const ATTEMPTS: usize = 4;

/// The analysis of a request, begun now if there is none that is running or fresh.
pub(super) async fn begin(
    api: &Api,
    mut order: OpenAnalysis,
    request: &impl Serialize,
) -> Result<AnalysisView, Problem> {
    let faults = order_faults(&order);
    if !faults.is_empty() {
        return Err(Problem::refused(faults));
    }
    if api.stop.is_cancelled() {
        return Err(Problem::unavailable("rollgate is shutting down"));
    }
    let name = format!("kayenta/{}", digest(request));
    for _ in 0..ATTEMPTS {
        let note = ask(api, api.desk.note(&name)).await?;
        let round: u64 = note.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
        let key = format!("{name}/{round}");
        match ask(api, api.desk.opened_by(&key)).await? {
            Some(view) if is_over(&view, api.desk.now()) => {
                let next = (round + 1).to_string();
                ask(api, api.desk.write_note(&name, note.as_deref(), &next)).await?;
            }
            Some(view) => return Ok(view),
            None => {
                order.idempotency_key = Some(key.clone());
                let opened = ask(api, async {
                    match api.desk.open(order.clone()).await {
                        // Somebody was quicker with the same request, and a moment that is a
                        // part of the order: until when it watches.
                        Err(DeskError::Conflict(_)) => api.desk.opened_by(&key).await,
                        opened => opened.map(|opened| Some(opened.view)),
                    }
                });
                if let Some(view) = opened.await? {
                    return Ok(view);
                }
            }
        }
    }
    Err(Problem::unavailable("the same request is being sent by others; try again"))
}

/// Whether an analysis has been over for so long that the same request means another release.
fn is_over(view: &AnalysisView, now: Time) -> bool {
    let report = view.report.as_ref();
    let last = report.and_then(|report| report.decided_at.or(Some(report.at)));
    let ended = Time::from_secs_f64(last.unwrap_or(view.started_at));
    view.state != "running" && now.since(ended) > SETTLED_AFTER
}

fn digest(request: &impl Serialize) -> String {
    let text = serde_json::to_vec(request).expect("strings, numbers and maps are always JSON");
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
