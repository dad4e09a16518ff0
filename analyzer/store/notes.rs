//! Notes: small texts under a name, such as which release a controller is at. What a note says is its
//! writer's own business.
//!
//! A note is only written over the text that its writer has read, so that of two who write at once one
//! learns of the other and begins again.

use async_trait::async_trait;
use sqlx::Row as _;

use super::{StoreError, migrations::database, sqlite::SqliteStore};
use crate::engine::observation::Time;

/// Notes of one store, at most.
pub const NOTES_MAX: i64 = 10_000;

/// Bytes of one note, at most.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;

const WRITE_NEW: &str = "\
    INSERT INTO note (name, text, written) SELECT ?1, ?2, ?3 \
    WHERE (SELECT count(*) FROM note) < ?4 ON CONFLICT (name) DO NOTHING";

const WRITE_OVER: &str = "UPDATE note SET text = ?2, written = ?3 WHERE name = ?1 AND text = ?4";

/// The half of a store that keeps notes.
#[async_trait]
pub trait Notes: Send + Sync {
    /// The text under this name.
    async fn note(&self, name: &str) -> Result<Option<String>, StoreError>;
    /// Writes a note in the place of `before`, none being no note. False when something else is there
    /// by now, and nothing is written.
    async fn write_note(&self, name: &str, over: Over<'_>, at: Time) -> Result<bool, StoreError>;
    /// Forgets notes that were written before `older_than`; says how many they were.
    async fn prune_notes(&self, older_than: Time) -> Result<u64, StoreError>;
}

/// A text and what it takes the place of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Over<'a> {
    /// What was read; none where there was no note.
    pub before: Option<&'a str>,
    /// What is written.
    pub text: &'a str,
}

#[async_trait]
impl Notes for SqliteStore {
    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        let failed = |error| database(&format!("reading note {name}"), error);
        let row = sqlx::query("SELECT text FROM note WHERE name = ?1")
            .bind(name)
            .fetch_optional(&self.reader)
            .await
            .map_err(failed)?;
        row.map(|row| row.try_get(0)).transpose().map_err(failed)
    }

    async fn write_note(&self, name: &str, over: Over<'_>, at: Time) -> Result<bool, StoreError> {
        let failed = |error| database(&format!("writing note {name}"), error);
        let unwritable = |what: String| StoreError::Unwritable {
            analysis: name.to_owned(),
            what: "a note".to_owned(),
            why: what,
        };
        if over.text.len() > NOTE_BYTES_MAX {
            let found = over.text.len();
            return Err(unwritable(format!("{found} bytes, at most {NOTE_BYTES_MAX} are kept")));
        }
        let mut transaction = self.begin().await?;
        let query = match over.before {
            None => sqlx::query(WRITE_NEW).bind(name).bind(over.text).bind(at.0).bind(NOTES_MAX),
            Some(before) => {
                sqlx::query(WRITE_OVER).bind(name).bind(over.text).bind(at.0).bind(before)
            }
        };
        let written = query.execute(&mut *transaction).await.map_err(failed)?.rows_affected() > 0;
        if !written && over.before.is_none() {
            let query = "SELECT EXISTS (SELECT 1 FROM note WHERE name = ?1)";
            let row = sqlx::query(query).bind(name).fetch_one(&mut *transaction).await;
            let is_there: bool = row.and_then(|row| row.try_get(0)).map_err(failed)?;
            if !is_there {
                return Err(unwritable(format!("{NOTES_MAX} notes are kept already")));
            }
        }
        transaction.commit().await.map_err(failed)?;
        Ok(written)
    }

    async fn prune_notes(&self, older_than: Time) -> Result<u64, StoreError> {
        let failed = |error| database("forgetting old notes", error);
        let mut transaction = self.begin().await?;
        let pruned = sqlx::query("DELETE FROM note WHERE written < ?1")
            .bind(older_than.0)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(pruned.rows_affected())
    }
}
