-- What an analysis knew of the past when it began, and what standing watches saw between
-- releases. Times are milliseconds since the Unix epoch.

ALTER TABLE analysis ADD COLUMN calibration TEXT;
ALTER TABLE analysis ADD COLUMN past TEXT;

CREATE TABLE watched (
    n INTEGER PRIMARY KEY,
    service TEXT NOT NULL UNIQUE,
    -- looks that are older than this are forgotten
    keep_ms INTEGER NOT NULL,
    -- of the rows below, kept by the triggers
    looks INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE history (
    watched INTEGER NOT NULL REFERENCES watched (n) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    -- which signals the readings are of
    signals TEXT NOT NULL,
    covers_ms INTEGER NOT NULL,
    observation TEXT NOT NULL,
    PRIMARY KEY (watched, at)
) STRICT, WITHOUT ROWID;
-- Where the history of the present signals begins, however much there is of older ones.
CREATE INDEX history_of_signals ON history (watched, signals, at);

CREATE TRIGGER history_grows AFTER INSERT ON history
BEGIN
    UPDATE watched SET looks = looks + 1, bytes = bytes + octet_length(new.observation)
    WHERE n = new.watched;
END;

CREATE TRIGGER history_shrinks AFTER DELETE ON history
BEGIN
    UPDATE watched SET looks = looks - 1, bytes = bytes - octet_length(old.observation)
    WHERE n = old.watched;
END;
