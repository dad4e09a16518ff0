-- Steps of progressive releases. An advance to a step is taken once, and leaves deliveries behind as
-- a final verdict does; what is delivered belongs to a decision that stands.

CREATE TABLE advance (
    analysis INTEGER NOT NULL REFERENCES analysis (n) ON DELETE CASCADE,
    -- the step that was gone to, by index
    step INTEGER NOT NULL CHECK (step > 0),
    look INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (analysis, step)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER advance_stands BEFORE UPDATE ON advance
BEGIN
    SELECT raise(ABORT, 'an advance does not change');
END;

CREATE TABLE delivery_of_step (
    n INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    analysis INTEGER NOT NULL REFERENCES analysis (n) ON DELETE CASCADE,
    mechanism TEXT NOT NULL,
    body TEXT NOT NULL,
    -- 0 pending, 1 delivered, 2 refused, 3 dead
    state INTEGER NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2, 3)),
    attempts INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    next_due INTEGER NOT NULL,
    last_answer TEXT,
    -- 0 the final verdict, else the step that was gone to
    step INTEGER NOT NULL DEFAULT 0,
    UNIQUE (analysis, mechanism, step)
) STRICT;

INSERT INTO delivery_of_step
    SELECT n, key, analysis, mechanism, body, state, attempts, created, next_due, last_answer, 0
    FROM delivery;
DROP TABLE delivery;
ALTER TABLE delivery_of_step RENAME TO delivery;

CREATE INDEX delivery_pending ON delivery (mechanism, next_due, n) WHERE state = 0;
CREATE INDEX delivery_next_due ON delivery (next_due) WHERE state = 0;
CREATE INDEX delivery_dead ON delivery (n) WHERE state = 3;

CREATE TRIGGER delivery_of_a_decision BEFORE INSERT ON delivery
WHEN CASE new.step
    WHEN 0 THEN NOT EXISTS (SELECT 1 FROM final_verdict WHERE analysis = new.analysis)
    ELSE NOT EXISTS (SELECT 1 FROM advance WHERE analysis = new.analysis AND step = new.step)
END
BEGIN
    SELECT raise(ABORT, 'a delivery belongs to a decision');
END;
