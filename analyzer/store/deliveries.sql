-- What becomes of deliveries, told apart: `nothing` was to be done, and `taken back` is not given up.
-- The last attempts of each, a tally by mechanism and state, and what people did by hand.

CREATE TABLE delivery_told (
    n INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    analysis INTEGER NOT NULL REFERENCES analysis (n) ON DELETE CASCADE,
    mechanism TEXT NOT NULL,
    -- 0 the final verdict, else the step that was gone to
    step INTEGER NOT NULL DEFAULT 0,
    -- rollback, promote, hold or advance
    action TEXT NOT NULL DEFAULT '',
    body TEXT NOT NULL,
    -- 0 pending, 1 delivered, 2 refused, 3 dead, 4 nothing, 5 taken back
    state INTEGER NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 5),
    -- of all time
    attempts INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    -- since when it is tried, and how often since then: a re-send begins anew
    tried_since INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    next_due INTEGER NOT NULL,
    last_attempt INTEGER,
    delivered INTEGER,
    last_answer TEXT,
    UNIQUE (analysis, mechanism, step)
) STRICT;

INSERT INTO delivery_told (n, key, analysis, mechanism, step, action, body, state, attempts, created,
    tried_since, tries, next_due, last_answer)
    SELECT n, key, analysis, mechanism, step,
        CASE WHEN json_valid(body)
            THEN coalesce(CAST(json_extract(body, '$.data.action') AS TEXT), '') ELSE '' END,
        body,
        CASE WHEN state = 3 AND last_answer LIKE 'taken back:%' THEN 5 ELSE state END,
        attempts, created, created, attempts, next_due, last_answer
    FROM delivery;
DROP TABLE delivery;
ALTER TABLE delivery_told RENAME TO delivery;

CREATE INDEX delivery_pending ON delivery (mechanism, next_due, n) WHERE state = 0;
CREATE INDEX delivery_next_due ON delivery (next_due) WHERE state = 0;
CREATE INDEX delivery_oldest ON delivery (mechanism, created) WHERE state = 0;
CREATE INDEX delivery_by_state ON delivery (state, n);
-- Of one analysis and mechanism one event is on its way at a time: order needs no more than that.
CREATE UNIQUE INDEX delivery_one_pending ON delivery (analysis, mechanism) WHERE state = 0;

CREATE TRIGGER delivery_of_a_decision BEFORE INSERT ON delivery
WHEN CASE new.step
    WHEN 0 THEN NOT EXISTS (SELECT 1 FROM final_verdict WHERE analysis = new.analysis)
    ELSE NOT EXISTS (SELECT 1 FROM advance WHERE analysis = new.analysis AND step = new.step)
END
BEGIN
    SELECT raise(ABORT, 'a delivery belongs to a decision');
END;

-- How many are where: counting the rows themselves would cost more with every release.
CREATE TABLE delivery_tally (
    mechanism TEXT NOT NULL,
    state INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    PRIMARY KEY (mechanism, state)
) STRICT, WITHOUT ROWID;

INSERT INTO delivery_tally SELECT mechanism, state, count(*) FROM delivery GROUP BY mechanism, state;

CREATE TRIGGER delivery_counted AFTER INSERT ON delivery
BEGIN
    INSERT INTO delivery_tally VALUES (new.mechanism, new.state, 1)
    ON CONFLICT DO UPDATE SET deliveries = deliveries + 1;
END;

CREATE TRIGGER delivery_moved AFTER UPDATE OF state ON delivery WHEN old.state <> new.state
BEGIN
    UPDATE delivery_tally SET deliveries = deliveries - 1
    WHERE mechanism = old.mechanism AND state = old.state;
    INSERT INTO delivery_tally VALUES (new.mechanism, new.state, 1)
    ON CONFLICT DO UPDATE SET deliveries = deliveries + 1;
END;

CREATE TRIGGER delivery_forgotten AFTER DELETE ON delivery
BEGIN
    UPDATE delivery_tally SET deliveries = deliveries - 1
    WHERE mechanism = old.mechanism AND state = old.state;
    DELETE FROM delivery_tally WHERE mechanism = old.mechanism AND deliveries = 0;
END;

CREATE TABLE attempt (
    delivery INTEGER NOT NULL REFERENCES delivery (n) ON DELETE CASCADE,
    -- from 1
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    took_ms INTEGER NOT NULL,
    -- what the delivery was to become: 0 to be tried again, 1 delivered, 2 refused, 3 given up
    outcome INTEGER NOT NULL CHECK (outcome BETWEEN 0 AND 3),
    answer TEXT NOT NULL,
    PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE intervention (
    n INTEGER PRIMARY KEY,
    analysis INTEGER NOT NULL REFERENCES analysis (n) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    why TEXT NOT NULL,
    what TEXT NOT NULL CHECK (what IN ('cancel', 'override', 'resend')),
    -- of an override the verdict, of a re-send the delivery's key
    about TEXT,
    CHECK ((what = 'cancel') = (about IS NULL))
) STRICT;
CREATE INDEX intervention_of ON intervention (analysis, n);

INSERT INTO intervention (analysis, at, who, why, what)
    SELECT n, ended, coalesce(CAST(json_extract(cancel_note, '$.who') AS TEXT), ''),
        coalesce(CAST(json_extract(cancel_note, '$.why') AS TEXT), ''), 'cancel'
    FROM analysis WHERE state = 2 AND json_valid(cancel_note);

CREATE TRIGGER intervention_stands BEFORE UPDATE ON intervention
BEGIN
    SELECT raise(ABORT, 'an intervention does not change');
END;

-- They go with their analysis and not before it.
CREATE TRIGGER intervention_stays BEFORE DELETE ON intervention
WHEN EXISTS (SELECT 1 FROM analysis WHERE n = old.analysis)
BEGIN
    SELECT raise(ABORT, 'an intervention does not change');
END;
