//! Targets of an order that may not be asked, told to whoever orders.
//!
//! Names are looked up here for the sake of the answer only: what counts is where they lead when
//! they are asked, which the client judges each time. What cannot be looked up in time is no fault.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use crate::{
    api::desk::OpenAnalysis,
    source::{client::Client, target::Target},
};

/// Time for all names of an order together.
const LOOK_UPS_TIME_MAX: Duration = Duration::from_secs(2);

/// Names that are looked up at once.
const LOOK_UPS_MAX: usize = 64;

/// One fault for each target that may not be asked. Targets that are none are named elsewhere.
pub(super) async fn forbidden(client: &Client, order: &OpenAnalysis) -> Vec<String> {
    let end = Instant::now() + LOOK_UPS_TIME_MAX;
    let arms = [("canary", Some(&order.canary)), ("baseline", order.baseline.as_ref())];
    let mut targets = Vec::new();
    for (name, arm) in arms.into_iter().filter_map(|(name, arm)| Some((name, arm?))) {
        let parsed = arm.targets.iter().filter_map(|url| Target::parse(url).ok());
        targets.extend(parsed.map(|target| (name.to_owned(), target)));
    }
    let judged = stream::iter(targets).map(|(arm, target): (String, Target)| {
        let client = client.clone();
        async move {
            let why = timeout_at(end, client.forbids(target.metrics_url())).await.ok()??;
            Some(format!("{arm}: target {} may not be asked: {why}", target.name()))
        }
    });
    let faults: Vec<Option<String>> = judged.buffered(LOOK_UPS_MAX).collect().await;
    faults.into_iter().flatten().collect()
}
