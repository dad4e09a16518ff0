//! The longer statements on analyses, looks and verdicts.

pub(super) const CREATE: &str = "\
    INSERT INTO analysis \
        (id, idempotency_key, service, started, order_json, rules_name, rules_text, \
        calibration, past) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

pub(super) const BY_ID: &str = "\
    SELECT analysis.*, report FROM analysis LEFT JOIN newest ON newest.analysis = n \
    WHERE id = ?1";

pub(super) const BY_KEY: &str = "\
    SELECT analysis.*, report FROM analysis LEFT JOIN newest ON newest.analysis = n \
    WHERE idempotency_key = ?1";

pub(super) const RUNNING: &str = "\
    SELECT analysis.*, report FROM analysis LEFT JOIN newest ON newest.analysis = n \
    WHERE state = 0 ORDER BY id";

pub(super) const LIST: &str = "\
    SELECT analysis.*, report FROM analysis LEFT JOIN newest ON newest.analysis = n \
    WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR state = ?2) \
        AND (?3 IS NULL OR verdict = ?3) AND (?4 IS NULL OR id < ?4) \
    ORDER BY id DESC LIMIT ?5";

pub(super) const JOURNAL: &str = "\
    SELECT look, observation FROM look \
    WHERE analysis = (SELECT n FROM analysis WHERE id = ?1) AND look > ?2 \
    ORDER BY look LIMIT ?3";

pub(super) const CARRY: &str = "\
    SELECT carry FROM newest WHERE analysis = (SELECT n FROM analysis WHERE id = ?1)";

pub(super) const NEWEST: &str = "\
    INSERT INTO newest (analysis, report, carry) VALUES (?1, ?2, ?3) \
    ON CONFLICT (analysis) DO UPDATE SET report = excluded.report, carry = excluded.carry";

pub(super) const STEP: &str = "\
    UPDATE analysis SET last_look = ?2, verdict = ?3, ended = ?4, state = (?4 IS NOT NULL) \
    WHERE id = ?1 AND state = 0 AND last_look = ?2 - 1 RETURNING n";

pub(super) const FINAL: &str = "\
    INSERT INTO final_verdict (analysis, look, verdict, at) VALUES (?1, ?2, ?3, ?4)";

pub(super) const ADVANCE: &str = "\
    INSERT INTO advance (analysis, look, step, at) VALUES (?1, ?2, ?3, ?4)";

pub(super) const CANCEL: &str = "\
    UPDATE analysis SET state = 2, cancel_note = ?2, ended = ?3 WHERE id = ?1 AND state = 0 RETURNING n";

pub(super) const PRUNE: &str = "\
    DELETE FROM analysis WHERE n IN ( \
        SELECT n FROM analysis AS old WHERE state > 0 AND ended < ?1 AND NOT EXISTS \
            (SELECT 1 FROM delivery WHERE delivery.analysis = old.n AND delivery.state = 0) \
        ORDER BY ended, id LIMIT ?2)";

pub(super) const PING: &str = "\
    INSERT INTO probe (one, beats) VALUES (1, 1) \
    ON CONFLICT (one) DO UPDATE SET beats = beats + 1 RETURNING beats";
