//! Writes what all standing watches see.
//!
//! Looks that came since the last turn are one transaction, and a turn comes at most once a second:
//! however many services are watched, and however often, the driver's own commits wait for no more
//! than that. Looks that cannot be written are lost and named; the next ones are as good.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{driver::chain, standing::StandingBoard};
use crate::{
    store::{KeptLook, Store},
    telemetry::Telemetry,
};

/// Looks that may wait to be kept; beyond that they are lost.
pub const QUEUE_MAX: usize = 1024;

/// Looks kept in one transaction.
const TURN_MAX: usize = 256;

/// Time between two transactions.
const TURN_PAUSE: Duration = Duration::from_secs(1);

/// Keeps looks until every watch is gone; what is queued by then is still kept. After `stop` there
/// are no more pauses.
pub async fn keep(
    mut queue: mpsc::Receiver<KeptLook>,
    store: Arc<dyn Store>,
    board: StandingBoard,
    telemetry: Telemetry,
    stop: CancellationToken,
) {
    let mut turn = Vec::with_capacity(TURN_MAX);
    while queue.recv_many(&mut turn, TURN_MAX).await > 0 {
        let looks: Vec<_> = turn.iter().map(|kept| (kept.service.clone(), kept.look.at)).collect();
        let kept = store.keep(std::mem::take(&mut turn)).await;
        for (service, at) in looks {
            match &kept {
                Ok(()) => {
                    telemetry.history().look_kept(&service);
                    board.seen(&service, at);
                }
                Err(error) => board.lost(&service, &chain(error), &telemetry),
            }
        }
        // Ends early when the service stops.
        let _ = timeout(TURN_PAUSE, stop.cancelled()).await;
    }
}
