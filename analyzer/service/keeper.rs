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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::watch::{WatchOptions, WatchedPlace},
        engine::observation::{Time, Value},
        signal::past::{PastLook, Side, SignalsKey},
        store::{KeepBounds, sqlite::SqliteStore},
    };

    #[tokio::test]
    async fn looks_are_kept_to_the_last_and_lost_ones_named() {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().await.unwrap());
        let (board, telemetry) = (StandingBoard::default(), Telemetry::new());
        let service = "shop".to_owned();
        let keep = Duration::from_secs(3600);
        let (rules, place) = (service.clone(), WatchedPlace::Targets(Vec::new()));
        let options = WatchOptions { service, rules, place, interval: None, keep };
        board.begin(&options, None);
        let look = |at: i64, level: f64| KeptLook {
            service: "shop".to_owned(),
            signals: SignalsKey::of(&[]),
            look: PastLook {
                at: Time(at),
                covers: Duration::ZERO,
                sides: vec![Side { reading: Ok(Value::Level(level)), parts: Vec::new() }],
            },
            bounds: KeepBounds { keep, looks_max: 9, bytes_max: 1 << 20 },
        };
        let kept = async |looks: &[KeptLook]| {
            let (queue, waiting) = mpsc::channel(QUEUE_MAX);
            for look in looks {
                queue.try_send(look.clone()).unwrap();
            }
            drop(queue);
            let stop = CancellationToken::new();
            stop.cancel();
            super::keep(waiting, store.clone(), board.clone(), telemetry.clone(), stop).await;
            board.services(&*store).await.unwrap().remove(0)
        };
        let (one, bad) = (look(1000, 1.0), look(2000, f64::NAN));
        let shown = kept(&[one.clone(), bad]).await;
        assert!(
            shown.last_fault.as_deref().is_some_and(|fault| fault.contains("NaN")),
            "{shown:?}"
        );
        let shown = kept(&[one, look(3000, 1.0)]).await;
        assert_eq!((shown.last_look_at, shown.last_fault), (Some(3.0), None));
        let stored = store.history("shop", &SignalsKey::of(&[])).await.unwrap();
        assert_eq!(stored.looks, 2);
    }
}
