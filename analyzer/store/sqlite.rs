//! The embedded store: one SQLite file, or memory for tests and replays.
//!
//! One connection writes, and every write begins with `BEGIN IMMEDIATE`: a transaction that reads
//! first and writes later may find that another process wrote in between, and then it can only
//! fail. Reads have their own connections and never wait for the writer (WAL). `synchronous = FULL`
//! makes a write durable before its call returns.
//!
//! Deliberately absent: caching. What is asked for is read.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, Row, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
        SqliteTransaction,
    },
};

use super::{
    AttemptRecord, Created, Deed, DeliveryFilter, DeliveryPage, DeliveryTally, Filter, HistorySpan,
    Intervention, KeptLook, Look, NewAnalysis, Override, PAGE_MAX, PRUNE_MAX, Resent, Signed,
    Store, StoreError, StoredAnalysis, StoredAttempt, StoredDelivery, StoredRules, StoredState,
    history, intervention,
    migrations::{self, database},
    outbox::{self, TakenBack},
    record, rule_files, sql,
};
use crate::{
    engine::observation::{Observation, Time},
    signal::{
        carry::Carry,
        past::{PastLook, SignalsKey, Stretch},
    },
};

/// How long one call waits for a connection of ours before it fails.
const ACQUIRE_WAIT: Duration = Duration::from_secs(10);

/// How long to wait before a file that another program holds is opened again.
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// Takes the file for writing at once: a transaction that read first could not be made to wait.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Bytes the write-ahead log is cut back to after a checkpoint.
const WAL_BYTES_MAX: u32 = 64 << 20;

/// How the file is used. The defaults are right for one machine.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Connections for reading.
    pub readers: u32,
    /// How long a write waits for another process that holds the file.
    pub busy_wait: Duration,
    /// Pages (of 4 KiB) the file may grow to; none leaves it to the disk.
    pub pages_max: Option<u32>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { readers: 4, busy_wait: Duration::from_secs(5), pages_max: None }
    }
}

/// The store in one SQLite file. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pub(super) writer: SqlitePool,
    pub(super) reader: SqlitePool,
}

impl SqliteStore {
    /// Opens or creates the file at `path`. What is there and is not a store of this version or an
    /// older one is left untouched and refused.
    pub async fn open(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let began = Instant::now();
        loop {
            match Self::open_once(path, &options).await {
                // Two that open a new file at once both switch its journal mode, for which SQLite
                // does not wait by itself.
                Err(error)
                    if migrations::is_busy(&error) && began.elapsed() < options.busy_wait =>
                {
                    tokio::time::sleep(OPEN_PAUSE).await;
                }
                opened => return opened,
            }
        }
    }

    async fn open_once(path: &Path, options: &SqliteOptions) -> Result<Self, StoreError> {
        migrations::inspect(path).await?;
        let connect = connect_options(options).filename(path);
        let writing = match options.pages_max {
            Some(pages) => connect.clone().pragma("max_page_count", pages.to_string()),
            None => connect.clone(),
        };
        let writer = pool(1)
            .connect_with(writing.create_if_missing(true))
            .await
            .map_err(|error| migrations::refusal(path, error))?;
        migrated(path, &writer).await?;
        let reader = pool(options.readers.max(1))
            .connect_with(connect.pragma("query_only", "ON"))
            .await
            .map_err(|error| migrations::refusal(path, error))?;
        Ok(Self { writer, reader })
    }

    /// Opens the file at `path` for reading only: nothing of it is changed, created or brought up to
    /// date, and a service that uses it goes on. Writes fail.
    ///
    /// # Errors
    /// When there is no store of this version at `path`, or it cannot be read.
    pub async fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteOptions::default();
        let connect =
            SqliteConnectOptions::new().busy_timeout(options.busy_wait).disable_statement_logging();
        let reader = migrations::open_to_read(path, connect, pool(1)).await?;
        Ok(Self { writer: reader.clone(), reader })
    }

    /// A store in memory, gone when it is dropped. It reads and writes by the same connection.
    pub async fn in_memory() -> Result<Self, StoreError> {
        let path = Path::new(":memory:");
        let connect = connect_options(&SqliteOptions::default()).in_memory(true);
        let writer = pool(1)
            .connect_with(connect)
            .await
            .map_err(|error| migrations::refusal(path, error))?;
        migrated(path, &writer).await?;
        Ok(Self { reader: writer.clone(), writer })
    }

    pub(super) async fn begin(&self) -> Result<SqliteTransaction<'static>, StoreError> {
        let failed = |error| database("beginning to write", error);
        match self.writer.begin_with(BEGIN).await {
            // On a full disk SQLite rolls back by itself, which the driver of the connection does
            // not notice: it would refuse every write from then on. A new connection knows better.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                let confused = self.writer.acquire().await.map_err(failed)?;
                confused.close().await.map_err(failed)?;
                self.writer.begin_with(BEGIN).await.map_err(failed)
            }
            begun => begun.map_err(failed),
        }
    }
}

fn connect_options(options: &SqliteOptions) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(options.busy_wait)
        .pragma("journal_size_limit", WAL_BYTES_MAX.to_string())
        .disable_statement_logging()
}

/// Connections that stay: a database in memory lives no longer than its only connection.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

async fn migrated(path: &Path, writer: &SqlitePool) -> Result<(), StoreError> {
    let mut transaction =
        writer.begin_with(BEGIN).await.map_err(|error| migrations::refusal(path, error))?;
    migrations::migrate(path, &mut transaction).await?;
    transaction.commit().await.map_err(|error| migrations::refusal(path, error))
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, new: NewAnalysis) -> Result<Created, StoreError> {
        let failed = |error| database(&format!("creating analysis {}", new.id), error);
        let mut transaction = self.begin().await?;
        if let Some(key) = &new.idempotency_key {
            let found = sqlx::query(sql::BY_KEY).bind(key).fetch_optional(&mut *transaction);
            if let Some(row) = found.await.map_err(failed)? {
                return Ok(Created::Existing(Box::new(stored_analysis(&row).map_err(failed)?)));
            }
        }
        sqlx::query(sql::CREATE)
            .bind(&new.id)
            .bind(&new.idempotency_key)
            .bind(&new.service)
            .bind(new.started.0)
            .bind(&new.order)
            .bind(&new.rules_name)
            .bind(&new.rules_text)
            .bind(&new.calibration)
            .bind(&new.past)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Created::New)
    }

    async fn with_key(&self, key: &str) -> Result<Option<StoredAnalysis>, StoreError> {
        let failed = |error| database("reading an analysis by its key", error);
        let row = sqlx::query(sql::BY_KEY).bind(key).fetch_optional(&self.reader).await;
        row.map_err(failed)?.as_ref().map(stored_analysis).transpose().map_err(failed)
    }

    async fn commit(&self, looks: Vec<Look>) -> Result<(), StoreError> {
        // Records are made before the file is locked: the writer is what everybody waits for.
        let records = looks.iter().map(LookRecord::new).collect::<Result<Vec<_>, _>>()?;
        let mut transaction = self.begin().await?;
        for (look, record) in looks.iter().zip(records) {
            write_look(&mut transaction, look, record).await?;
        }
        transaction.commit().await.map_err(|error| database("committing looks", error))
    }

    async fn running(&self) -> Result<Vec<StoredAnalysis>, StoreError> {
        let failed = |error| database("listing running analyses", error);
        let rows = sqlx::query(sql::RUNNING).fetch_all(&self.reader).await.map_err(failed)?;
        rows.iter().map(stored_analysis).collect::<Result<_, _>>().map_err(failed)
    }

    async fn journal(
        &self,
        id: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<(u64, Observation)>, StoreError> {
        let failed = |error| database(&format!("reading the journal of analysis {id}"), error);
        let page = sqlx::query(sql::JOURNAL)
            .bind(id)
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .bind(limit.min(PAGE_MAX));
        let rows = page.fetch_all(&self.reader).await.map_err(failed)?;
        let mut journal = Vec::with_capacity(rows.len());
        for row in rows {
            let look: i64 = row.try_get(0).map_err(failed)?;
            let observation = record::read_observation(row.try_get(1).map_err(failed)?)
                .map_err(|why| unreadable(format!("look {look} of analysis {id}"), why))?;
            journal.push((look as u64, observation));
        }
        Ok(journal)
    }

    async fn carry(&self, id: &str) -> Result<Carry, StoreError> {
        let failed = |error| database(&format!("reading the carry of analysis {id}"), error);
        let row = sqlx::query(sql::CARRY).bind(id).fetch_optional(&self.reader).await;
        match row.map_err(failed)? {
            None => Ok(Carry::default()),
            Some(row) => record::read_carry(row.try_get(0).map_err(failed)?)
                .map_err(|why| unreadable(format!("the carry of analysis {id}"), why)),
        }
    }

    async fn analysis(&self, id: &str) -> Result<Option<StoredAnalysis>, StoreError> {
        let failed = |error| database(&format!("reading analysis {id}"), error);
        let row = sqlx::query(sql::BY_ID).bind(id).fetch_optional(&self.reader).await;
        row.map_err(failed)?.as_ref().map(stored_analysis).transpose().map_err(failed)
    }

    async fn list(&self, filter: Filter) -> Result<Vec<StoredAnalysis>, StoreError> {
        let failed = |error| database("listing analyses", error);
        let page = sqlx::query(sql::LIST)
            .bind(filter.service)
            .bind(filter.state.map(state_number))
            .bind(filter.verdict)
            .bind(filter.after)
            .bind(filter.limit.min(PAGE_MAX));
        let rows = page.fetch_all(&self.reader).await.map_err(failed)?;
        rows.iter().map(stored_analysis).collect::<Result<_, _>>().map_err(failed)
    }

    async fn cancel(&self, id: &str, note: &str, by: &Signed) -> Result<bool, StoreError> {
        let failed = |error| database(&format!("cancelling analysis {id}"), error);
        let mut transaction = self.begin().await?;
        let cancelled = sqlx::query(sql::CANCEL)
            .bind(id)
            .bind(note)
            .bind(by.at.0)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed)?;
        let Some(row) = cancelled else { return Ok(false) };
        let n = row.try_get(0).map_err(failed)?;
        outbox::take_back(&mut transaction, n, TakenBack::Cancelled).await.map_err(failed)?;
        intervention::write(&mut transaction, n, by, &Deed::Cancel).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(true)
    }

    async fn override_verdict(&self, order: Override) -> Result<bool, StoreError> {
        intervention::override_verdict(self, &order).await
    }

    async fn interventions(&self, id: &str) -> Result<Vec<Intervention>, StoreError> {
        intervention::of_analysis(self, id).await
    }

    async fn due(&self, now: Time, limit: u32) -> Result<Vec<StoredDelivery>, StoreError> {
        outbox::due(self, now, limit).await
    }

    async fn record_attempts(&self, attempts: &[AttemptRecord]) -> Result<Vec<String>, StoreError> {
        outbox::record_attempts(self, attempts).await
    }

    async fn resend(&self, key: &str, by: &Signed) -> Result<Resent, StoreError> {
        outbox::resend(self, key, by).await
    }

    async fn deliveries(&self, id: &str) -> Result<Vec<StoredDelivery>, StoreError> {
        outbox::deliveries(self, id).await
    }

    async fn delivery(&self, key: &str) -> Result<Option<StoredDelivery>, StoreError> {
        outbox::delivery(self, key).await
    }

    async fn attempts(&self, key: &str) -> Result<Vec<StoredAttempt>, StoreError> {
        outbox::attempts(self, key).await
    }

    async fn list_deliveries(&self, filter: DeliveryFilter) -> Result<DeliveryPage, StoreError> {
        outbox::list(self, &filter).await
    }

    async fn next_due(&self) -> Result<Option<Time>, StoreError> {
        outbox::next_due(self).await
    }

    async fn tally(&self) -> Result<Vec<DeliveryTally>, StoreError> {
        outbox::tally(self).await
    }

    async fn prune(&self, older_than: Time) -> Result<u64, StoreError> {
        let failed = |error| database("forgetting old analyses", error);
        let mut transaction = self.begin().await?;
        let pruned = sqlx::query(sql::PRUNE)
            .bind(older_than.0)
            .bind(PRUNE_MAX)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(pruned.rows_affected())
    }

    async fn keep(&self, looks: Vec<KeptLook>) -> Result<(), StoreError> {
        history::keep(self, looks).await
    }

    async fn kept(
        &self,
        service: &str,
        signals: &SignalsKey,
        stretch: Stretch,
        limit: u32,
    ) -> Result<Vec<PastLook>, StoreError> {
        history::kept(self, (service, signals), stretch, limit).await
    }

    async fn history(
        &self,
        service: &str,
        signals: &SignalsKey,
    ) -> Result<HistorySpan, StoreError> {
        history::span(self, service, signals).await
    }

    async fn prune_history(&self, now: Time) -> Result<u64, StoreError> {
        history::prune(self, now).await
    }

    async fn keep_rules(&self, rules: StoredRules) -> Result<(), StoreError> {
        rule_files::keep(self, rules).await
    }

    async fn kept_rules(&self) -> Result<Vec<StoredRules>, StoreError> {
        rule_files::kept(self).await
    }

    async fn forget_rules(&self, name: &str) -> Result<(), StoreError> {
        rule_files::forget(self, name).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let failed = |error| database("writing the readiness row", error);
        let mut transaction = self.begin().await?;
        let beat = sqlx::query(sql::PING).fetch_one(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        let wrote: i64 = beat.try_get(0).map_err(failed)?;
        let failed = |error| database("reading the readiness row", error);
        let read = sqlx::query("SELECT beats FROM probe").fetch_one(&self.reader).await;
        let read: i64 = read.and_then(|row| row.try_get(0)).map_err(failed)?;
        if read >= wrote {
            return Ok(());
        }
        Err(unreadable("the readiness row".to_owned(), format!("wrote {wrote}, read {read}")))
    }

    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

struct LookRecord {
    observation: String,
    carry: String,
}

impl LookRecord {
    fn new(look: &Look) -> Result<Self, StoreError> {
        let unwritable = |what: &str, why| StoreError::Unwritable {
            analysis: look.analysis.clone(),
            what: format!("{what} of analysis {} at look {}", look.analysis, look.look),
            why,
        };
        Ok(Self {
            observation: record::write_observation(&look.observation)
                .map_err(|why| unwritable("the observation", why))?,
            carry: record::write_carry(&look.carry).map_err(|why| unwritable("the carry", why))?,
        })
    }
}

async fn write_look(
    transaction: &mut SqliteTransaction<'static>,
    look: &Look,
    record: LookRecord,
) -> Result<(), StoreError> {
    let failed =
        |error| database(&format!("writing look {} of {}", look.look, look.analysis), error);
    // A number beyond the column's range is never the next; it is refused like any other.
    let number = i64::try_from(look.look).unwrap_or(i64::MAX);
    let stepped = sqlx::query(sql::STEP)
        .bind(&look.analysis)
        .bind(number)
        .bind(&look.verdict)
        .bind(look.decision.as_ref().filter(|it| it.is_final()).map(|decision| decision.at.0))
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    let n: i64 = match stepped {
        Some(row) => row.try_get(0).map_err(failed)?,
        None => return Err(refusal(transaction, look).await?),
    };
    sqlx::query("INSERT INTO look (analysis, look, observation) VALUES (?1, ?2, ?3)")
        .bind(n)
        .bind(number)
        .bind(record.observation)
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
    sqlx::query(sql::NEWEST)
        .bind(n)
        .bind(&look.report)
        .bind(record.carry)
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
    let Some(decision) = &look.decision else { return Ok(()) };
    let row = match decision.advance_to {
        None => sqlx::query(sql::FINAL).bind(n).bind(number).bind(&look.verdict),
        Some(step) => {
            let step = i64::try_from(step).unwrap_or(i64::MAX);
            sqlx::query(sql::ADVANCE).bind(n).bind(number).bind(step)
        }
    };
    row.bind(decision.at.0).execute(&mut **transaction).await.map_err(failed)?;
    let rows = (decision.at, decision.advance_to.unwrap_or(0), decision.deliveries.as_slice());
    outbox::write(transaction, n, rows).await.map_err(failed)
}

/// Why this look is not the next of its analysis.
async fn refusal(
    transaction: &mut SqliteTransaction<'static>,
    look: &Look,
) -> Result<StoreError, StoreError> {
    let failed = |error| database(&format!("reading analysis {}", look.analysis), error);
    let row = sqlx::query("SELECT state, last_look FROM analysis WHERE id = ?1")
        .bind(&look.analysis)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    let why = match row {
        None => "there is no such analysis".to_owned(),
        Some(row) => match state_of(row.try_get(0).map_err(failed)?).map_err(failed)? {
            StoredState::Running => {
                format!("the next look is {}", row.try_get::<i64, _>(1).map_err(failed)? + 1)
            }
            StoredState::Finished => "it has a final verdict".to_owned(),
            StoredState::Cancelled => "it was cancelled".to_owned(),
        },
    };
    Ok(StoreError::OutOfOrder { analysis: look.analysis.clone(), look: look.look, why })
}

fn stored_analysis(row: &SqliteRow) -> Result<StoredAnalysis, sqlx::Error> {
    let state = state_of(row.try_get("state")?)?;
    let verdict: Option<String> = row.try_get("verdict")?;
    Ok(StoredAnalysis {
        new: NewAnalysis {
            id: row.try_get("id")?,
            idempotency_key: row.try_get("idempotency_key")?,
            service: row.try_get("service")?,
            started: Time(row.try_get("started")?),
            order: row.try_get("order_json")?,
            rules_name: row.try_get("rules_name")?,
            rules_text: row.try_get("rules_text")?,
            calibration: row.try_get("calibration")?,
            past: row.try_get("past")?,
        },
        state,
        last_look: row.try_get::<i64, _>("last_look")? as u64,
        report: row.try_get("report")?,
        verdict: verdict.filter(|_| state == StoredState::Finished),
        ended: row.try_get::<Option<i64>, _>("ended")?.map(Time),
        cancel_note: row.try_get("cancel_note")?,
    })
}

fn state_number(state: StoredState) -> i64 {
    match state {
        StoredState::Running => 0,
        StoredState::Finished => 1,
        StoredState::Cancelled => 2,
    }
}

fn state_of(number: i64) -> Result<StoredState, sqlx::Error> {
    match number {
        0 => Ok(StoredState::Running),
        1 => Ok(StoredState::Finished),
        2 => Ok(StoredState::Cancelled),
        found => Err(sqlx::Error::Decode(format!("state {found}, expected 0, 1 or 2").into())),
    }
}

fn unreadable(what: String, why: String) -> StoreError {
    StoreError::Unreadable { what, why }
}
