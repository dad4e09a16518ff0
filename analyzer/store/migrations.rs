//! From whatever is at a path to a database of the present version, or a refusal that says what is
//! there instead.
//!
//! A file is looked at read-only before anything is changed, because switching a stranger's file to
//! our journal mode would already be damage. Versions only go up; a newer file is left alone.

use std::path::Path;

use sqlx::{
    ConnectOptions, Connection, Row, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteTransaction},
};

use super::StoreError;

/// What brings a database from version `index` to `index + 1`.
const STEPS: [&str; 5] = [
    include_str!("schema.sql"),
    include_str!("steps.sql"),
    include_str!("history.sql"),
    include_str!("rules.sql"),
    include_str!("notes.sql"),
];

/// The version this program reads and writes.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// "rgat", in the header of every file of ours: other programs' databases are told apart by it.
const APPLICATION: i64 = 0x7267_6174;

/// Result codes of SQLite that name a cause people can act on.
const BUSY: u32 = 5;
const READ_ONLY: u32 = 8;
const CORRUPT: u32 = 11;
const CANNOT_OPEN: u32 = 14;
const NOT_A_DATABASE: u32 = 26;

/// Looks at what is at a path, without changing it.
pub(super) async fn inspect(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        let found = format!("no directory {}", parent.display());
        return Err(unusable(path, &found, "create the directory, or give another path", None));
    }
    if path.is_dir() {
        return Err(unusable(path, "a directory", "give the path of a file in it", None));
    }
    match std::fs::metadata(path) {
        Ok(file) if file.len() > 0 => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let hint = "check its permissions";
            return Err(unusable(path, "a file that cannot be read", hint, Some(error.into())));
        }
    }
    let options =
        SqliteConnectOptions::new().filename(path).read_only(true).disable_statement_logging();
    let mut connection = options.connect().await.map_err(|error| refusal(path, error))?;
    let checked = check(path, &mut connection).await;
    connection.close().await.map_err(|error| refusal(path, error))?;
    checked.map(|_| ())
}

/// Opens a store of exactly this version for reading, without changing it.
pub(super) async fn open_to_read(
    path: &Path,
    options: SqliteConnectOptions,
    pool: SqlitePoolOptions,
) -> Result<SqlitePool, StoreError> {
    inspect(path).await?;
    if !path.exists() {
        let hint = "give the path of a store that `rollgate serve` keeps";
        return Err(unusable(path, "no file", hint, None));
    }
    let connect = options.filename(path).read_only(true);
    let pool = pool.connect_with(connect).await.map_err(|error| refusal(path, error))?;
    let mut connection = pool.acquire().await.map_err(|error| refusal(path, error))?;
    match check(path, &mut connection).await? {
        VERSION => {}
        0 => {
            let hint = "give the path of a store that `rollgate serve` keeps";
            return Err(unusable(path, "an empty file", hint, None));
        }
        older => {
            let found = format!("a store of version {older} (this program reads {VERSION})");
            let hint = "start `rollgate serve` of this version on it, which brings it up to date";
            return Err(unusable(path, &found, hint, None));
        }
    }
    drop(connection);
    Ok(pool)
}

/// Brings a database to the present version, in the transaction of the caller: of two programs that
/// open a new file at once, one creates it and the other finds it made.
pub(super) async fn migrate(
    path: &Path,
    transaction: &mut SqliteTransaction<'static>,
) -> Result<(), StoreError> {
    let version = check(path, transaction).await?;
    for (step, target) in STEPS.iter().zip(1..).skip(version as usize) {
        sqlx::raw_sql(*step)
            .execute(&mut **transaction)
            .await
            .map_err(|error| database(&format!("migrating to version {target}"), error))?;
    }
    if version < VERSION {
        let mark = sqlx::AssertSqlSafe(format!(
            "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}"
        ));
        sqlx::raw_sql(mark)
            .execute(&mut **transaction)
            .await
            .map_err(|error| database("marking the file's version", error))?;
    }
    Ok(())
}

/// The version of a database that is ours, 0 when it is empty.
async fn check(path: &Path, connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let facts = sqlx::query(
        "SELECT (SELECT application_id FROM pragma_application_id), \
         (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)",
    );
    let row = facts.fetch_one(connection).await.map_err(|error| refusal(path, error))?;
    let fact = |index: usize| row.try_get::<i64, _>(index).map_err(|error| refusal(path, error));
    let (application, version, tables) = (fact(0)?, fact(1)?, fact(2)?);
    match (application, version, tables) {
        (0, 0, 0) => Ok(0),
        (APPLICATION, 1..=VERSION, _) => Ok(version),
        (APPLICATION, newer, _) => {
            let found = format!("a store of version {newer} (this program knows {VERSION})");
            let hint = "start the rollgate that wrote it, or a newer one, or give another path";
            Err(unusable(path, &found, hint, None))
        }
        _ => {
            let found = "a SQLite database of another program";
            Err(unusable(path, found, "give another path", None))
        }
    }
}

/// What SQLite's refusal of a whole file means to the one who gave its path.
pub(super) fn refusal(path: &Path, error: sqlx::Error) -> StoreError {
    let (found, hint) = match primary_code(&error) {
        NOT_A_DATABASE => ("a file that is not a SQLite database", "give another path"),
        CORRUPT => ("a damaged SQLite database", "restore it from a backup, or move it away"),
        CANNOT_OPEN => (
            "a path that cannot be opened",
            "check that it is a file and that this user may read and write it",
        ),
        READ_ONLY => (
            "a file that cannot be written",
            "check the permissions of the file and of its directory, and that the disk is writable",
        ),
        _ => return database(&format!("opening {}", path.display()), error),
    };
    unusable(path, found, hint, Some(error.into()))
}

/// Whether somebody else holds the file just now.
pub(super) fn is_busy(error: &StoreError) -> bool {
    let StoreError::Database { source, .. } = error else { return false };
    source.downcast_ref().is_some_and(|error| primary_code(error) == BUSY)
}

/// SQLite's result code without its extension, 0 when the error is not SQLite's.
fn primary_code(error: &sqlx::Error) -> u32 {
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
    // Extended codes keep the primary one in the low byte.
    code.parse::<u32>().unwrap_or_default() & 255
}

/// Something the database did not do.
pub(super) fn database(context: &str, error: sqlx::Error) -> StoreError {
    StoreError::Database { context: context.to_owned(), source: Box::new(error) }
}

fn unusable(
    path: &Path,
    found: &str,
    hint: &str,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Unusable {
        path: path.display().to_string(),
        found: found.to_owned(),
        hint: hint.to_owned(),
        source,
    }
}
