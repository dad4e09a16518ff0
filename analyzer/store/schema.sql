-- Version 1. Times are milliseconds since the Unix epoch. What must never happen is forbidden here
-- and not only in the program: a second final verdict, a second delivery of it to one mechanism, a
-- look taken twice.

CREATE TABLE analysis (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    idempotency_key TEXT UNIQUE,
    service TEXT NOT NULL,
    started INTEGER NOT NULL,
    order_json TEXT NOT NULL,
    rules_name TEXT NOT NULL,
    rules_text TEXT NOT NULL,
    -- 0 running, 1 finished, 2 cancelled
    state INTEGER NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),
    last_look INTEGER NOT NULL DEFAULT 0,
    -- of the newest look, final or not
    verdict TEXT,
    ended INTEGER,
    cancel_note TEXT,
    CHECK ((state = 0) = (ended IS NULL))
) STRICT;
CREATE INDEX analysis_running ON analysis (id) WHERE state = 0;
CREATE INDEX analysis_ended ON analysis (ended) WHERE state > 0;
CREATE INDEX analysis_service ON analysis (service, id);

CREATE TRIGGER analysis_over BEFORE UPDATE ON analysis WHEN old.state > 0
BEGIN
    SELECT raise(ABORT, 'an analysis that is over does not change');
END;

-- The newest look's leftovers, apart from the analysis so that listing does not drag them along.
CREATE TABLE newest (
    analysis INTEGER PRIMARY KEY REFERENCES analysis (n) ON DELETE CASCADE,
    report TEXT NOT NULL,
    carry TEXT NOT NULL
) STRICT;

CREATE TABLE look (
    analysis INTEGER NOT NULL REFERENCES analysis (n) ON DELETE CASCADE,
    look INTEGER NOT NULL,
    observation TEXT NOT NULL,
    PRIMARY KEY (analysis, look)
) STRICT, WITHOUT ROWID;

CREATE TABLE final_verdict (
    analysis INTEGER PRIMARY KEY REFERENCES analysis (n) ON DELETE CASCADE,
    look INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER final_verdict_stands BEFORE UPDATE ON final_verdict
BEGIN
    SELECT raise(ABORT, 'a final verdict does not change');
END;

CREATE TABLE delivery (
    n INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    analysis INTEGER NOT NULL REFERENCES final_verdict (analysis) ON DELETE CASCADE,
    mechanism TEXT NOT NULL,
    body TEXT NOT NULL,
    -- 0 pending, 1 delivered, 2 refused, 3 dead
    state INTEGER NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2, 3)),
    attempts INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    next_due INTEGER NOT NULL,
    last_answer TEXT,
    UNIQUE (analysis, mechanism)
) STRICT;
CREATE INDEX delivery_pending ON delivery (mechanism, next_due, n) WHERE state = 0;
CREATE INDEX delivery_next_due ON delivery (next_due) WHERE state = 0;
CREATE INDEX delivery_dead ON delivery (n) WHERE state = 3;

CREATE TABLE probe (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    beats INTEGER NOT NULL
) STRICT;
