//! The outbox half of the SQLite store: rows that a final verdict or an advance leaves behind.
//!
//! Rows are written only inside the transaction of their decision. A row that is over (delivered,
//! refused, dead, nothing) changes no more, unless a person has it sent again. Of one analysis and
//! mechanism one row is pending at most: a decision takes back what earlier ones left.

use std::collections::BTreeMap;

use sqlx::{
    QueryBuilder, Row, Sqlite,
    sqlite::{SqliteRow, SqliteTransaction},
};

use super::{
    ATTEMPTS_KEPT, AttemptRecord, Deed, DeliveryFilter, DeliveryPage, DeliveryState, DeliveryTally,
    NewDelivery, PAGE_MAX, Resent, Signed, StoreError, StoredAttempt, StoredDelivery, intervention,
    migrations::database, sqlite::SqliteStore,
};
use crate::engine::observation::Time;

const INSERT: &str = "\
    INSERT INTO delivery (key, analysis, mechanism, action, body, created, tried_since, next_due, \
        step) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?6, ?7)";

/// What was decided before and has not arrived is not told any more.
const TAKE_BACK: &str = "\
    UPDATE delivery SET state = 5, last_answer = ?2 WHERE analysis = ?1 AND state = 0";

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
    SELECT delivery.*, analysis.id, analysis.service FROM first \
    JOIN delivery ON delivery.n = due JOIN analysis ON analysis.n = delivery.analysis \
    ORDER BY turn, next_due, delivery.n LIMIT ?2";

const OF_ANALYSIS: &str = "\
    SELECT delivery.*, analysis.id, analysis.service \
    FROM delivery JOIN analysis ON analysis.n = delivery.analysis \
    WHERE analysis.id = ?1 ORDER BY delivery.n";

const BY_KEY: &str = "\
    SELECT delivery.*, analysis.id, analysis.service \
    FROM delivery JOIN analysis ON analysis.n = delivery.analysis WHERE key = ?1";

/// One that is over stays as it is. One that was taken back while it was on its way is not tried
/// again, and is delivered when it arrived after all.
const ATTEMPT: &str = "\
    UPDATE delivery SET attempts = attempts + (?2 <> 4), tries = tries + (?2 <> 4), \
        last_attempt = CASE WHEN ?2 = 4 THEN last_attempt ELSE ?5 END, \
        next_due = ?3, \
        delivered = CASE WHEN ?2 = 1 THEN ?6 ELSE delivered END, \
        last_answer = CASE WHEN state = 0 OR ?2 = 1 THEN ?4 ELSE last_answer END, \
        state = CASE WHEN state = 0 OR ?2 = 1 THEN ?2 ELSE state END \
    WHERE key = ?1 AND state IN (0, 5) RETURNING n, attempts";

const KEEP_ATTEMPT: &str = "\
    INSERT INTO attempt (delivery, number, at, took_ms, outcome, answer) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const ATTEMPTS: &str = "\
    SELECT number, at, took_ms, outcome, answer FROM attempt \
    WHERE delivery = (SELECT n FROM delivery WHERE key = ?1) ORDER BY number";

/// What stands later than a delivery: a final verdict than any advance, an advance to a later step,
/// a cancellation than anything.
const RESENT: &str = "\
    SELECT delivery.n, delivery.analysis, CASE \
        WHEN analysis.state = 2 THEN 'the analysis was cancelled' \
        WHEN step > 0 AND analysis.state = 1 THEN 'the verdict ' || analysis.verdict || ' stands' \
        WHEN step > 0 AND EXISTS (SELECT 1 FROM advance AS later \
            WHERE later.analysis = delivery.analysis AND later.step > delivery.step) \
            THEN 'a later step was gone to' \
        END \
    FROM delivery JOIN analysis ON analysis.n = delivery.analysis WHERE key = ?1";

const AGAIN: &str = "\
    UPDATE delivery SET state = 0, next_due = ?2, tried_since = ?2, tries = 0 WHERE n = ?1";

const TALLY: &str = "\
    SELECT mechanism, state, deliveries FROM delivery_tally WHERE deliveries > 0 \
    ORDER BY mechanism, state";

const OLDEST: &str = "\
    SELECT mechanism, min(created) FROM delivery INDEXED BY delivery_oldest WHERE state = 0 \
    GROUP BY mechanism";

/// Why a delivery is not told any more.
#[derive(Clone, Copy)]
pub(super) enum TakenBack {
    /// There is a later decision.
    Decided,
    /// There will be none.
    Cancelled,
}

/// Writes a decision's rows: of the final verdict (step 0) or of the step that was gone to.
pub(super) async fn write(
    transaction: &mut SqliteTransaction<'static>,
    analysis: i64,
    (at, step, deliveries): (Time, usize, &[NewDelivery]),
) -> Result<(), sqlx::Error> {
    take_back(transaction, analysis, TakenBack::Decided).await?;
    let step = i64::try_from(step).unwrap_or(i64::MAX);
    for delivery in deliveries {
        sqlx::query(INSERT)
            .bind(&delivery.key)
            .bind(analysis)
            .bind(&delivery.mechanism)
            .bind(&delivery.action)
            .bind(&delivery.body)
            .bind(at.0)
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
    why: TakenBack,
) -> Result<(), sqlx::Error> {
    let why = match why {
        TakenBack::Decided => "taken back: a later decision stands",
        TakenBack::Cancelled => "taken back: the analysis was cancelled",
    };
    sqlx::query(TAKE_BACK).bind(analysis).bind(why).execute(&mut **transaction).await?;
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

pub(super) async fn record_attempts(
    store: &SqliteStore,
    attempts: &[AttemptRecord],
) -> Result<Vec<String>, StoreError> {
    let failed = |error| database("recording attempts to deliver", error);
    let mut transaction = store.begin().await?;
    let mut unknown = Vec::new();
    for attempt in attempts {
        if !record_attempt(&mut transaction, attempt).await.map_err(failed)? {
            unknown.push(attempt.key.clone());
        }
    }
    transaction.commit().await.map_err(failed)?;
    Ok(unknown)
}

/// False when there is no such delivery.
async fn record_attempt(
    transaction: &mut SqliteTransaction<'static>,
    attempt: &AttemptRecord,
) -> Result<bool, sqlx::Error> {
    let took_ms = i64::try_from(attempt.took_ms).unwrap_or(i64::MAX);
    let state = state_number(attempt.state);
    let updated = sqlx::query(ATTEMPT)
        .bind(&attempt.key)
        .bind(state)
        .bind(attempt.next_due.0)
        .bind(&attempt.answer)
        .bind(attempt.began.0)
        .bind(attempt.began.0.saturating_add(took_ms))
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(row) = updated else {
        let known = sqlx::query("SELECT 1 FROM delivery WHERE key = ?1").bind(&attempt.key);
        return Ok(known.fetch_optional(&mut **transaction).await?.is_some());
    };
    let (n, number): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    if attempt.state == DeliveryState::Nothing {
        return Ok(true);
    }
    sqlx::query(KEEP_ATTEMPT)
        .bind(n)
        .bind(number)
        .bind(attempt.began.0)
        .bind(took_ms)
        .bind(state)
        .bind(&attempt.answer)
        .execute(&mut **transaction)
        .await?;
    let last_forgotten = number - i64::from(ATTEMPTS_KEPT);
    if last_forgotten > 0 {
        let old = sqlx::query("DELETE FROM attempt WHERE delivery = ?1 AND number <= ?2");
        old.bind(n).bind(last_forgotten).execute(&mut **transaction).await?;
    }
    Ok(true)
}

pub(super) async fn resend(
    store: &SqliteStore,
    key: &str,
    by: &Signed,
) -> Result<Resent, StoreError> {
    let failed = |error| database(&format!("sending delivery {key} again"), error);
    let mut transaction = store.begin().await?;
    let found = sqlx::query(RESENT).bind(key).fetch_optional(&mut *transaction).await;
    let Some(row) = found.map_err(failed)? else { return Ok(Resent::Unknown) };
    let (n, analysis): (i64, i64) =
        (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    if let Some(later) = row.try_get::<Option<String>, _>(2).map_err(failed)? {
        return Ok(Resent::Superseded(later));
    }
    if intervention::is_full(&mut transaction, analysis).await.map_err(failed)? {
        return Ok(Resent::Full);
    }
    let again = sqlx::query(AGAIN).bind(n).bind(by.at.0).execute(&mut *transaction).await;
    again.map_err(failed)?;
    let deed = Deed::Resend { delivery: key.to_owned() };
    intervention::write(&mut transaction, analysis, by, &deed).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(Resent::Again)
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

pub(super) async fn delivery(
    store: &SqliteStore,
    key: &str,
) -> Result<Option<StoredDelivery>, StoreError> {
    let failed = |error| database(&format!("reading delivery {key}"), error);
    let row = sqlx::query(BY_KEY).bind(key).fetch_optional(&store.reader).await;
    row.map_err(failed)?.as_ref().map(stored_delivery).transpose().map_err(failed)
}

pub(super) async fn attempts(
    store: &SqliteStore,
    key: &str,
) -> Result<Vec<StoredAttempt>, StoreError> {
    let failed = |error| database(&format!("reading attempts of delivery {key}"), error);
    let rows = sqlx::query(ATTEMPTS).bind(key).fetch_all(&store.reader).await.map_err(failed)?;
    let attempt = |row: &SqliteRow| {
        Ok(StoredAttempt {
            number: row.try_get("number")?,
            began: Time(row.try_get("at")?),
            took_ms: row.try_get::<i64, _>("took_ms")? as u64,
            outcome: state_of(row.try_get("outcome")?)?,
            answer: row.try_get("answer")?,
        })
    };
    rows.iter().map(attempt).collect::<Result<_, _>>().map_err(failed)
}

pub(super) async fn list(
    store: &SqliteStore,
    filter: &DeliveryFilter,
) -> Result<DeliveryPage, StoreError> {
    let failed = |error| database("listing deliveries", error);
    let limit = filter.limit.clamp(1, PAGE_MAX);
    // Bodies are large, and nobody reads them in a list. The conditions are put together, because a
    // condition that may be absent keeps SQLite from its indexes.
    let mut page = QueryBuilder::<Sqlite>::new(
        "SELECT delivery.n, key, mechanism, action, '' AS body, delivery.state, attempts, created, \
         tried_since, tries, next_due, last_attempt, delivered, last_answer, id, service \
         FROM delivery JOIN analysis ON analysis.n = delivery.analysis WHERE delivery.n < ",
    );
    page.push_bind(filter.after.unwrap_or(i64::MAX));
    if let Some(state) = filter.state {
        page.push(" AND delivery.state = ").push_bind(state_number(state));
    }
    if let Some(mechanism) = &filter.mechanism {
        page.push(" AND mechanism = ").push_bind(mechanism);
    }
    if let Some(analysis) = &filter.analysis {
        page.push(" AND id = ").push_bind(analysis);
    }
    page.push(" ORDER BY delivery.n DESC LIMIT ").push_bind(i64::from(limit) + 1);
    let rows = page.build().fetch_all(&store.reader).await.map_err(failed)?;
    let shown = rows.len().min(limit as usize);
    let next = match rows.get(shown.saturating_sub(1)) {
        Some(last) if rows.len() > shown => Some(last.try_get("n").map_err(failed)?),
        Some(_) | None => None,
    };
    let rows = rows[..shown].iter().map(stored_delivery).collect::<Result<_, _>>();
    Ok(DeliveryPage { rows: rows.map_err(failed)?, next })
}

pub(super) async fn tally(store: &SqliteStore) -> Result<Vec<DeliveryTally>, StoreError> {
    let failed = |error| database("counting deliveries", error);
    let counted = sqlx::query(TALLY).fetch_all(&store.reader).await.map_err(failed)?;
    let oldest = sqlx::query(OLDEST).fetch_all(&store.reader).await.map_err(failed)?;
    let mut tallies: BTreeMap<String, DeliveryTally> = BTreeMap::new();
    let read = |tallies: &mut BTreeMap<String, DeliveryTally>| {
        for row in &counted {
            let mechanism: String = row.try_get(0)?;
            let tally = tallies.entry(mechanism.clone()).or_default();
            tally.mechanism = mechanism;
            let count = row.try_get::<i64, _>(2)?;
            tally.by_state.insert(state_of(row.try_get(1)?)?, count as u64);
        }
        for row in &oldest {
            if let Some(tally) = tallies.get_mut(row.try_get::<&str, _>(0)?) {
                tally.oldest_pending = Some(Time(row.try_get(1)?));
            }
        }
        Ok(())
    };
    read(&mut tallies).map_err(failed)?;
    Ok(tallies.into_values().collect())
}

fn stored_delivery(row: &SqliteRow) -> Result<StoredDelivery, sqlx::Error> {
    let time =
        |column: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(Time));
    Ok(StoredDelivery {
        analysis: row.try_get("id")?,
        service: row.try_get("service")?,
        new: NewDelivery {
            key: row.try_get("key")?,
            mechanism: row.try_get("mechanism")?,
            action: row.try_get("action")?,
            body: row.try_get("body")?,
        },
        state: state_of(row.try_get("state")?)?,
        attempts: row.try_get("attempts")?,
        created: Time(row.try_get("created")?),
        tried_since: Time(row.try_get("tried_since")?),
        tries: row.try_get("tries")?,
        next_due: Time(row.try_get("next_due")?),
        last_attempt: time("last_attempt")?,
        delivered: time("delivered")?,
        last_answer: row.try_get("last_answer")?,
    })
}

fn state_number(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Pending => 0,
        DeliveryState::Delivered => 1,
        DeliveryState::Refused => 2,
        DeliveryState::Dead => 3,
        DeliveryState::Nothing => 4,
        DeliveryState::TakenBack => 5,
    }
}

fn state_of(number: i64) -> Result<DeliveryState, sqlx::Error> {
    let known = DeliveryState::ALL.into_iter().find(|state| state_number(*state) == number);
    let why = || sqlx::Error::Decode(format!("state {number}, expected 0 to 5").into());
    known.ok_or_else(why)
}
