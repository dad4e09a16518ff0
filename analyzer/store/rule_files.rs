//! The rule files' half of the SQLite store: the newest text of each that loaded.

use sqlx::Row as _;

use super::{StoreError, StoredRules, migrations::database, sqlite::SqliteStore};
use crate::engine::observation::Time;

const KEEP: &str = "\
    INSERT INTO rule_file (name, text, loaded) VALUES (?1, ?2, ?3) \
    ON CONFLICT (name) DO UPDATE SET text = excluded.text, loaded = excluded.loaded";

pub(super) async fn keep(store: &SqliteStore, rules: StoredRules) -> Result<(), StoreError> {
    let failed = |error| database(&format!("keeping rule file {}", rules.name), error);
    let mut transaction = store.begin().await?;
    sqlx::query(KEEP)
        .bind(&rules.name)
        .bind(&rules.text)
        .bind(rules.loaded.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

pub(super) async fn kept(store: &SqliteStore) -> Result<Vec<StoredRules>, StoreError> {
    let failed = |error| database("reading the rule files", error);
    let rows = sqlx::query("SELECT name, text, loaded FROM rule_file ORDER BY name")
        .fetch_all(&store.reader)
        .await
        .map_err(failed)?;
    let rules = rows.iter().map(|row| {
        Ok(StoredRules {
            name: row.try_get(0)?,
            text: row.try_get(1)?,
            loaded: Time(row.try_get(2)?),
        })
    });
    rules.collect::<Result<_, _>>().map_err(failed)
}

pub(super) async fn forget(store: &SqliteStore, name: &str) -> Result<(), StoreError> {
    let failed = |error| database(&format!("forgetting rule file {name}"), error);
    let mut transaction = store.begin().await?;
    sqlx::query("DELETE FROM rule_file WHERE name = ?1")
        .bind(name)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}
