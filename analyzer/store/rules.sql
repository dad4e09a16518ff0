-- The newest good text of each rule file, so that a restart beside a broken file does not lose it.
-- Times are milliseconds since the Unix epoch.

CREATE TABLE rule_file (
    name TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    loaded INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
