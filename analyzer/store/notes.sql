-- What is remembered of others under a name, such as the newest release of a controller's object.
-- Times are milliseconds since the Unix epoch.

CREATE TABLE note (
    name TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    written INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX note_written ON note (written);
