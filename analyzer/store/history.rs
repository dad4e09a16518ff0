//! The history half of the SQLite store: what standing watches saw, bounded by age, looks and bytes.
//!
//! A look is kept and what is beyond the bounds is forgotten in one transaction, so that the file
//! is never larger than it may be. Rows are found by the service and by the key of their signals:
//! after a change of the rule file the old rows are no longer read, and age like the others.

use std::time::Duration;

use sqlx::{Row as _, sqlite::SqliteTransaction};

use super::{
    HistorySpan, KeepBounds, KeptLook, PAGE_MAX, StoreError, migrations::database, record,
    sqlite::SqliteStore,
};
use crate::{
    engine::observation::{Missing, Observation, Pair, Parts, Time, Why},
    signal::past::{PastLook, Side, SignalsKey, Stretch},
};

/// Looks forgotten at once because of their age: a shorter `keep` must not hold up everybody else's
/// writes while it takes effect.
pub const FORGET_MAX: u32 = 2000;

/// Looks forgotten at once because there are too many.
const SURPLUS_STEP: u32 = 64;

const WATCHED: &str = "\
    INSERT INTO watched (service, keep_ms) VALUES (?1, ?2) \
    ON CONFLICT (service) DO UPDATE SET keep_ms = excluded.keep_ms RETURNING n";

const KEEP: &str = "\
    INSERT INTO history (watched, at, signals, covers_ms, observation) \
    VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (watched, at) DO NOTHING";

const FORGET_OLD: &str = "\
    DELETE FROM history WHERE watched = ?1 AND at IN \
        (SELECT at FROM history WHERE watched = ?1 AND at <= ?2 ORDER BY at LIMIT ?3)";

const FORGET_OLDEST: &str = "\
    DELETE FROM history WHERE watched = ?1 AND at IN \
        (SELECT at FROM history WHERE watched = ?1 ORDER BY at LIMIT ?2)";

const SIZE: &str = "SELECT looks, bytes FROM watched WHERE n = ?1";

const KEPT: &str = "\
    SELECT at, covers_ms, observation FROM history \
    WHERE watched = (SELECT n FROM watched WHERE service = ?1) AND signals = ?2 \
        AND at > ?3 AND at <= ?4 \
    ORDER BY at LIMIT ?5";

const SPAN: &str = "\
    SELECT looks, bytes, \
        (SELECT at FROM history WHERE watched = n AND signals = ?2 ORDER BY at LIMIT 1), \
        (SELECT at FROM history WHERE watched = n AND signals = ?2 ORDER BY at DESC LIMIT 1) \
    FROM watched WHERE service = ?1";

/// Of services that nobody watches any more; the others are pruned as they grow.
const PRUNE: &str = "\
    DELETE FROM history WHERE (watched, at) IN ( \
        SELECT watched, at FROM watched JOIN history ON watched = n \
        WHERE at <= ?1 - keep_ms LIMIT ?2)";

pub(super) async fn keep(store: &SqliteStore, looks: Vec<KeptLook>) -> Result<(), StoreError> {
    // Records are made before the file is locked.
    let rows = looks.into_iter().map(Row::new).collect::<Result<Vec<_>, _>>()?;
    let mut transaction = store.begin().await?;
    for row in rows {
        let failed = |error| database(&format!("keeping a look at {}", row.service), error);
        keep_one(&mut transaction, &row).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(|error| database("keeping looks", error))
}

/// A look as it is written.
struct Row {
    service: String,
    signals: SignalsKey,
    at: i64,
    covers_ms: i64,
    record: String,
    bounds: KeepBounds,
}

impl Row {
    fn new(look: KeptLook) -> Result<Self, StoreError> {
        let KeptLook { service, signals, look, bounds } = look;
        let (at, covers_ms) = (look.at.0, millis(look.covers));
        let record = record::write_observation(&observation(look)).map_err(|why| {
            let what = "a look of the standing watch".to_owned();
            StoreError::Unwritable { analysis: service.clone(), what, why }
        })?;
        Ok(Self { service, signals, at, covers_ms, record, bounds })
    }
}

async fn keep_one(
    transaction: &mut SqliteTransaction<'static>,
    row: &Row,
) -> Result<(), sqlx::Error> {
    let bounds = row.bounds;
    let watched: i64 = sqlx::query(WATCHED)
        .bind(&row.service)
        .bind(millis(bounds.keep))
        .fetch_one(&mut **transaction)
        .await?
        .try_get(0)?;
    sqlx::query(KEEP)
        .bind(watched)
        .bind(row.at)
        .bind(row.signals.as_str())
        .bind(row.covers_ms)
        .bind(&row.record)
        .execute(&mut **transaction)
        .await?;
    sqlx::query(FORGET_OLD)
        .bind(watched)
        .bind(row.at.saturating_sub(millis(bounds.keep)))
        .bind(FORGET_MAX)
        .execute(&mut **transaction)
        .await?;
    let looks_max = i64::try_from(bounds.looks_max).unwrap_or(i64::MAX);
    let bytes_max = i64::try_from(bounds.bytes_max).unwrap_or(i64::MAX);
    loop {
        let size = sqlx::query(SIZE).bind(watched).fetch_one(&mut **transaction).await?;
        let (looks, bytes): (i64, i64) = (size.try_get(0)?, size.try_get(1)?);
        if looks <= looks_max && bytes <= bytes_max {
            return Ok(());
        }
        let surplus = u32::try_from(looks - looks_max).unwrap_or(1).clamp(1, SURPLUS_STEP);
        sqlx::query(FORGET_OLDEST).bind(watched).bind(surplus).execute(&mut **transaction).await?;
    }
}

pub(super) async fn kept(
    store: &SqliteStore,
    (service, signals): (&str, &SignalsKey),
    stretch: Stretch,
    limit: u32,
) -> Result<Vec<PastLook>, StoreError> {
    let failed = |error| database(&format!("reading the history of {service}"), error);
    let rows = sqlx::query(KEPT)
        .bind(service)
        .bind(signals.as_str())
        .bind(stretch.after.0)
        .bind(stretch.until.0)
        .bind(limit.min(PAGE_MAX))
        .fetch_all(&store.reader)
        .await
        .map_err(failed)?;
    let mut looks = Vec::with_capacity(rows.len());
    for row in rows {
        let covers_ms: i64 = row.try_get(1).map_err(failed)?;
        let observation = record::read_observation(row.try_get(2).map_err(failed)?)
            .map_err(|why| StoreError::Unreadable { what: format!("a look at {service}"), why })?;
        let covers = Duration::from_millis(u64::try_from(covers_ms).unwrap_or(0));
        looks.push(PastLook::of(observation, covers));
    }
    Ok(looks)
}

pub(super) async fn span(
    store: &SqliteStore,
    service: &str,
    signals: &SignalsKey,
) -> Result<HistorySpan, StoreError> {
    let failed = |error| database(&format!("measuring the history of {service}"), error);
    let row = sqlx::query(SPAN)
        .bind(service)
        .bind(signals.as_str())
        .fetch_optional(&store.reader)
        .await
        .map_err(failed)?;
    let Some(row) = row else { return Ok(HistorySpan::default()) };
    let number = |index: usize| row.try_get::<i64, _>(index).map_err(failed);
    let time = |index: usize| row.try_get::<Option<i64>, _>(index).map_err(failed);
    Ok(HistorySpan {
        looks: u64::try_from(number(0)?).unwrap_or(0),
        bytes: u64::try_from(number(1)?).unwrap_or(0),
        first: time(2)?.map(Time),
        last: time(3)?.map(Time),
    })
}

pub(super) async fn prune(store: &SqliteStore, now: Time) -> Result<u64, StoreError> {
    let failed = |error| database("forgetting old history", error);
    let mut transaction = store.begin().await?;
    let pruned = sqlx::query(PRUNE)
        .bind(now.0)
        .bind(FORGET_MAX)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    sqlx::query("DELETE FROM watched WHERE looks = 0")
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(pruned.rows_affected())
}

/// A look as the journal writes it, with nobody on the canary's side.
fn observation(look: PastLook) -> Observation {
    let pair = |side: Side| {
        let nobody = Err(Missing::new(Why::NotObserved, ""));
        let parts = Parts { canary: Vec::new(), baseline: side.parts };
        Pair { parts, ..Pair::new(nobody, side.reading) }
    };
    Observation {
        at: look.at,
        signals: look.sides.into_iter().map(pair).collect(),
        canary_gap: None,
        instances: None,
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
