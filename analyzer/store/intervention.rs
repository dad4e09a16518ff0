//! What people do to an analysis by hand: they cancel it, put their verdict in the place of the
//! engine's, or have a delivery sent again. Who, when and why is kept, and never changes.

use sqlx::{Row, sqlite::SqliteRow, sqlite::SqliteTransaction};

use super::{
    NewDelivery, StoreError, migrations::database, outbox, record, sql, sqlite::SqliteStore,
};
use crate::{engine::observation::Time, signal::carry::Carry};

/// Interventions that one analysis keeps; more are refused.
pub const INTERVENTIONS_MAX: u32 = 200;

const INSERT: &str = "\
    INSERT INTO intervention (analysis, at, who, why, what, about) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const OF_ANALYSIS: &str = "\
    SELECT * FROM intervention WHERE analysis = (SELECT n FROM analysis WHERE id = ?1) ORDER BY n";

const OVERRIDE: &str = "\
    UPDATE analysis SET verdict = ?2, ended = ?3, state = 1 WHERE id = ?1 AND state = 0 \
    RETURNING n, last_look";

const REPORT: &str = "\
    INSERT INTO newest (analysis, report, carry) VALUES (?1, ?2, ?3) \
    ON CONFLICT (analysis) DO UPDATE SET report = excluded.report";

/// Who did something, when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
    /// When.
    pub at: Time,
}

/// What a person did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Ended the analysis without a verdict.
    Cancel,
    /// Ended it with this verdict.
    Override {
        /// Its word.
        verdict: String,
    },
    /// Had a delivery sent again.
    Resend {
        /// Its key.
        delivery: String,
    },
}

/// One intervention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intervention {
    /// Who, when and why.
    pub by: Signed,
    /// What.
    pub deed: Deed,
}

/// A person's verdict in the place of the engine's.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// Which analysis.
    pub analysis: String,
    /// The verdict's word.
    pub verdict: String,
    /// Who, when and why.
    pub by: Signed,
    /// The last report as JSON: the newest look's, with this verdict.
    pub report: String,
    /// One row per mechanism.
    pub deliveries: Vec<NewDelivery>,
}

pub(super) async fn write(
    transaction: &mut SqliteTransaction<'static>,
    analysis: i64,
    by: &Signed,
    deed: &Deed,
) -> Result<(), sqlx::Error> {
    let (what, about) = match deed {
        Deed::Cancel => ("cancel", None),
        Deed::Override { verdict } => ("override", Some(verdict)),
        Deed::Resend { delivery } => ("resend", Some(delivery)),
    };
    let row = sqlx::query(INSERT).bind(analysis).bind(by.at.0).bind(&by.who).bind(&by.why);
    row.bind(what).bind(about).execute(&mut **transaction).await?;
    Ok(())
}

/// Whether an analysis has as many interventions as it keeps.
pub(super) async fn is_full(
    transaction: &mut SqliteTransaction<'static>,
    analysis: i64,
) -> Result<bool, sqlx::Error> {
    let count = sqlx::query("SELECT count(*) FROM intervention WHERE analysis = ?1").bind(analysis);
    let count: i64 = count.fetch_one(&mut **transaction).await?.try_get(0)?;
    Ok(count >= i64::from(INTERVENTIONS_MAX))
}

pub(super) async fn override_verdict(
    store: &SqliteStore,
    order: &Override,
) -> Result<bool, StoreError> {
    let id = &order.analysis;
    let failed = |error| database(&format!("overriding the verdict of analysis {id}"), error);
    // Before its first look an analysis has no carry yet.
    let carry = record::write_carry(&Carry::default()).map_err(|why| StoreError::Unwritable {
        analysis: id.clone(),
        what: format!("the carry of analysis {id}"),
        why,
    })?;
    let mut transaction = store.begin().await?;
    let ended = sqlx::query(OVERRIDE).bind(id).bind(&order.verdict).bind(order.by.at.0);
    let Some(row) = ended.fetch_optional(&mut *transaction).await.map_err(failed)? else {
        return Ok(false);
    };
    let n: i64 = row.try_get(0).map_err(failed)?;
    let last_look: i64 = row.try_get(1).map_err(failed)?;
    let report = sqlx::query(REPORT).bind(n).bind(&order.report).bind(carry);
    report.execute(&mut *transaction).await.map_err(failed)?;
    let verdict = sqlx::query(sql::FINAL).bind(n).bind(last_look).bind(&order.verdict);
    verdict.bind(order.by.at.0).execute(&mut *transaction).await.map_err(failed)?;
    let rows = (order.by.at, 0, order.deliveries.as_slice());
    outbox::write(&mut transaction, n, rows).await.map_err(failed)?;
    let deed = Deed::Override { verdict: order.verdict.clone() };
    write(&mut transaction, n, &order.by, &deed).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(true)
}

pub(super) async fn of_analysis(
    store: &SqliteStore,
    id: &str,
) -> Result<Vec<Intervention>, StoreError> {
    let failed = |error| database(&format!("reading interventions of analysis {id}"), error);
    let rows = sqlx::query(OF_ANALYSIS).bind(id).fetch_all(&store.reader).await.map_err(failed)?;
    rows.iter().map(intervention).collect::<Result<_, _>>().map_err(failed)
}

fn intervention(row: &SqliteRow) -> Result<Intervention, sqlx::Error> {
    let about = || row.try_get::<String, _>("about");
    let deed = match row.try_get("what")? {
        "cancel" => Deed::Cancel,
        "override" => Deed::Override { verdict: about()? },
        "resend" => Deed::Resend { delivery: about()? },
        found => {
            let expected = "expected cancel, override or resend";
            return Err(sqlx::Error::Decode(format!("found {found}, {expected}").into()));
        }
    };
    let at = Time(row.try_get("at")?);
    let by = Signed { who: row.try_get("who")?, why: row.try_get("why")?, at };
    Ok(Intervention { by, deed })
}
