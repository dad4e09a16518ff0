//! The outbox half of the SQLite store: rows that a final verdict or an advance leaves behind.
//!
//! Rows are written only inside the transaction of their decision. A row that is over (delivered,
//! refused, dead) is never touched again.

use sqlx::{
    Row,
    sqlite::{SqliteRow, SqliteTransaction},
};

use super::{
    AttemptRecord, Decision, DeliveryCounts, DeliveryState, NewDelivery, PAGE_MAX, StoreError,
    StoredDelivery, migrations::database, sqlite::SqliteStore,
};
use crate::engine::observation::Time;

const INSERT: &str = "\
    INSERT INTO delivery (key, analysis, mechanism, body, created, next_due, step) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)";

/// What was decided before and has not arrived is not told any more.
const TAKE_BACK: &str = "\
    UPDATE delivery SET state = 3, last_answer = 'taken back: a later decision stands' \
    WHERE analysis = ?1 AND state = 0";

/// Of each mechanism the first rows by the index, then the mechanisms in turn: the cost is that of
/// the page and not of the backlog.
const DUE: &str = "\
    WITH RECURSIVE waiting (name) AS ( \
        SELECT min(mechanism) FROM delivery WHERE state = 0 \
        UNION ALL \
        SELECT (SELECT min(mechanism) FROM delivery WHERE state = 0 AND mechanism > name) \
        FROM waiting WHERE name IS NOT NULL), \
    first (due, turn) AS ( \
        SELECT n, row_number() OVER (PARTITION BY mechanism ORDER BY next_due, n) \
        FROM waiting CROSS JOIN delivery ON n IN ( \
            SELECT row.n FROM delivery AS row \
            WHERE row.state = 0 AND row.mechanism = waiting.name AND row.next_due <= ?1 \
            ORDER BY row.next_due, row.n LIMIT ?2)) \
    SELECT delivery.*, analysis.id FROM first \
    JOIN delivery ON delivery.n = due JOIN analysis ON analysis.n = delivery.analysis \
    ORDER BY turn, next_due, delivery.n LIMIT ?2";

const OF_ANALYSIS: &str = "\
    SELECT delivery.*, analysis.id FROM delivery JOIN analysis ON analysis.n = delivery.analysis \
    WHERE analysis.id = ?1 ORDER BY delivery.n";

const ATTEMPT: &str = "\
    UPDATE delivery SET state = ?2, attempts = attempts + 1, next_due = ?3, last_answer = ?4 \
    WHERE key = ?1 AND state = 0";

const COUNTS: &str = "\
    SELECT (SELECT count(*) FROM delivery WHERE state = 0), \
        (SELECT count(*) FROM delivery WHERE state = 3)";

pub(super) async fn write(
    transaction: &mut SqliteTransaction<'static>,
    analysis: i64,
    decision: &Decision,
) -> Result<(), sqlx::Error> {
    take_back(transaction, analysis).await?;
    let step = decision.advance_to.map_or(0, |step| i64::try_from(step).unwrap_or(i64::MAX));
    for delivery in &decision.deliveries {
        sqlx::query(INSERT)
            .bind(&delivery.key)
            .bind(analysis)
            .bind(&delivery.mechanism)
            .bind(&delivery.body)
            .bind(decision.at.0)
            .bind(step)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

/// Ends what is pending of an analysis.
pub(super) async fn take_back(
    transaction: &mut SqliteTransaction<'static>,
    analysis: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(TAKE_BACK).bind(analysis).execute(&mut **transaction).await?;
    Ok(())
}

pub(super) async fn due(
    store: &SqliteStore,
    now: Time,
    limit: u32,
) -> Result<Vec<StoredDelivery>, StoreError> {
    let failed = |error| database("reading due deliveries", error);
    let page = sqlx::query(DUE).bind(now.0).bind(limit.min(PAGE_MAX));
    let rows = page.fetch_all(&store.reader).await.map_err(failed)?;
    rows.iter().map(stored_delivery).collect::<Result<_, _>>().map_err(failed)
}

pub(super) async fn record_attempt(
    store: &SqliteStore,
    key: &str,
    attempt: AttemptRecord,
) -> Result<(), StoreError> {
    let failed = |error| database(&format!("recording an attempt of delivery {key}"), error);
    let mut transaction = store.begin().await?;
    let updated = sqlx::query(ATTEMPT)
        .bind(key)
        .bind(state_number(attempt.state))
        .bind(attempt.next_due.0)
        .bind(attempt.answer)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    let known = sqlx::query("SELECT 1 FROM delivery WHERE key = ?1").bind(key);
    let is_known = updated.rows_affected() == 1
        || known.fetch_optional(&mut *transaction).await.map_err(failed)?.is_some();
    transaction.commit().await.map_err(failed)?;
    if is_known {
        return Ok(());
    }
    let why = "there is none".to_owned();
    Err(StoreError::Unreadable { what: format!("delivery {key}"), why })
}

pub(super) async fn deliveries(
    store: &SqliteStore,
    id: &str,
) -> Result<Vec<StoredDelivery>, StoreError> {
    let failed = |error| database(&format!("reading deliveries of analysis {id}"), error);
    let rows = sqlx::query(OF_ANALYSIS).bind(id).fetch_all(&store.reader).await.map_err(failed)?;
    rows.iter().map(stored_delivery).collect::<Result<_, _>>().map_err(failed)
}

pub(super) async fn next_due(store: &SqliteStore) -> Result<Option<Time>, StoreError> {
    let failed = |error| database("reading when the next delivery is due", error);
    let row = sqlx::query("SELECT min(next_due) FROM delivery WHERE state = 0");
    let row = row.fetch_one(&store.reader).await.map_err(failed)?;
    Ok(row.try_get::<Option<i64>, _>(0).map_err(failed)?.map(Time))
}

pub(super) async fn counts(store: &SqliteStore) -> Result<DeliveryCounts, StoreError> {
    let failed = |error| database("counting deliveries", error);
    let row = sqlx::query(COUNTS).fetch_one(&store.reader).await.map_err(failed)?;
    let count = |index: usize| row.try_get::<i64, _>(index).map_err(failed);
    Ok(DeliveryCounts { pending: count(0)? as u64, dead: count(1)? as u64 })
}

fn stored_delivery(row: &SqliteRow) -> Result<StoredDelivery, sqlx::Error> {
    Ok(StoredDelivery {
        analysis: row.try_get("id")?,
        new: NewDelivery {
            key: row.try_get("key")?,
            mechanism: row.try_get("mechanism")?,
            body: row.try_get("body")?,
        },
        state: state_of(row.try_get("state")?)?,
        attempts: row.try_get("attempts")?,
        created: Time(row.try_get("created")?),
        next_due: Time(row.try_get("next_due")?),
        last_answer: row.try_get("last_answer")?,
    })
}

fn state_number(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Pending => 0,
        DeliveryState::Delivered => 1,
        DeliveryState::Refused => 2,
        DeliveryState::Dead => 3,
    }
}

fn state_of(number: i64) -> Result<DeliveryState, sqlx::Error> {
    match number {
        0 => Ok(DeliveryState::Pending),
        1 => Ok(DeliveryState::Delivered),
        2 => Ok(DeliveryState::Refused),
        3 => Ok(DeliveryState::Dead),
        found => Err(sqlx::Error::Decode(format!("state {found}, expected 0 to 3").into())),
    }
}
