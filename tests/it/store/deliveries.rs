//! Deliveries as the store keeps them: states, attempts, interventions, and what came of older ones.

use rollgate::{
    engine::observation::Time,
    store::{
        ATTEMPTS_KEPT, Deed, DeliveryState, INTERVENTIONS_MAX, Intervention, Override, Resent,
        Store, StoredState, sqlite::SqliteStore,
    },
};

use super::{advanced, ann, attempt, decided, folder, look, new, open};

async fn with_one() -> SqliteStore {
    let store = SqliteStore::in_memory().await.expect("opens");
    store.create(new("a")).await.expect("creates");
    store
}

fn overriding(at: i64) -> Override {
    let told = decided("a", 1, at, &["m"]).decision.expect("decides");
    Override {
        analysis: "a".to_owned(),
        verdict: "promote".to_owned(),
        by: ann(at),
        report: "{}".to_owned(),
        deliveries: told.deliveries,
    }
}

#[tokio::test]
async fn a_persons_verdict_is_final_like_any_other() {
    // Before the first look too.
    for looks in [0, 2] {
        let store = with_one().await;
        for number in 1..=looks {
            store.commit(vec![look("a", number)]).await.expect("commits");
        }
        assert!(store.override_verdict(overriding(9)).await.expect("overrides"));
        assert!(!store.override_verdict(overriding(10)).await.expect("asks"), "once");
        assert!(!store.cancel("a", "{}", &ann(11)).await.expect("asks"), "over is over");
        store.commit(vec![look("a", looks + 1)]).await.expect_err("no look comes after it");
        let stored = store.analysis("a").await.expect("reads").expect("is there");
        assert_eq!((stored.state, stored.last_look), (StoredState::Finished, looks));
        assert_eq!((stored.verdict.as_deref(), stored.ended), (Some("promote"), Some(Time(9))));
        assert_eq!(stored.report.as_deref(), Some("{}"));
        assert_eq!(store.due(Time(9), 9).await.expect("reads").len(), 1);
        let deed = Deed::Override { verdict: "promote".to_owned() };
        let expected = [Intervention { by: ann(9), deed }];
        assert_eq!(store.interventions("a").await.expect("reads"), expected);
        assert_eq!(store.journal("a", 0, 9).await.expect("reads").len() as u64, looks);
    }
}

#[tokio::test]
async fn an_override_takes_an_advance_back_and_an_attempt_under_way_may_still_arrive() {
    let store = with_one().await;
    store.commit(vec![advanced("a", 1, 1, &["m", "n"])]).await.expect("commits");
    assert!(store.override_verdict(overriding(9)).await.expect("overrides"));
    let state = async |key: &str| {
        let row = store.delivery(key).await.expect("reads").expect("is there");
        (row.state, row.attempts, row.delivered)
    };
    assert_eq!(state("a.step1.m").await, (DeliveryState::TakenBack, 0, None));
    // Both were on their way when they were taken back: one arrived, the other did not.
    let arrived = attempt("a.step1.m", DeliveryState::Delivered, Time(1500), "200 OK");
    let failed = attempt("a.step1.n", DeliveryState::Pending, Time(1500), "no answer");
    store.record_attempts(&[arrived, failed]).await.expect("records");
    assert_eq!(state("a.step1.m").await, (DeliveryState::Delivered, 1, Some(Time(507))));
    assert_eq!(state("a.step1.n").await, (DeliveryState::TakenBack, 1, None));
    let due = store.due(Time(1 << 40), 9).await.expect("reads");
    let keys: Vec<_> = due.iter().map(|row| row.new.key.as_str()).collect();
    assert_eq!(keys, ["a.m"], "neither is tried again");
}

#[tokio::test]
async fn a_resend_begins_anew_unless_a_later_decision_stands() {
    let store = with_one().await;
    let advance = |number: u64| advanced("a", number, number as usize, &["m"]);
    store.commit(vec![advance(1)]).await.expect("commits");
    let dead = attempt("a.step1.m", DeliveryState::Dead, Time(5000), "500");
    store.record_attempts(&[dead]).await.expect("records");
    let resend = async |key: &str, at: i64| store.resend(key, &ann(at)).await.expect("answers");
    assert_eq!(resend("a.step1.m", 6000).await, Resent::Again);
    let row = store.delivery("a.step1.m").await.expect("reads").expect("is there");
    assert_eq!((row.state, row.attempts, row.tries), (DeliveryState::Pending, 1, 0));
    assert_eq!((row.tried_since, row.next_due), (Time(6000), Time(6000)));
    assert_eq!(row.created, Time(1), "when it was decided stays");
    // One that waits is due at once.
    let waits = attempt("a.step1.m", DeliveryState::Pending, Time(900_000), "500");
    store.record_attempts(&[waits]).await.expect("records");
    assert_eq!(resend("a.step1.m", 7000).await, Resent::Again);
    assert_eq!(store.next_due().await.expect("reads"), Some(Time(7000)));
    // A later step, and then a verdict, stand in its way.
    store.commit(vec![advance(2)]).await.expect("commits");
    let later = |why: &str| Resent::Superseded(why.to_owned());
    assert_eq!(resend("a.step1.m", 8000).await, later("a later step was gone to"));
    store.commit(vec![decided("a", 3, 9000, &["m"])]).await.expect("commits");
    assert_eq!(resend("a.step2.m", 9001).await, later("the verdict rollback stands"));
    let delivered = attempt("a.m", DeliveryState::Delivered, Time(9100), "200");
    store.record_attempts(&[delivered]).await.expect("records");
    assert_eq!(resend("a.m", 9200).await, Resent::Again, "a receiver may have lost it");
    assert_eq!(resend("nobody", 9200).await, Resent::Unknown);
    // Every one that was carried out is on record, and no other.
    assert_eq!(store.interventions("a").await.expect("reads").len(), 3);
    for at in 3..i64::from(INTERVENTIONS_MAX) {
        assert_eq!(resend("a.m", 9200 + at).await, Resent::Again);
    }
    assert_eq!(resend("a.m", 9999).await, Resent::Full);
}

#[tokio::test]
async fn nothing_of_a_cancelled_release_is_sent_again() {
    let store = with_one().await;
    store.commit(vec![advanced("a", 1, 1, &["m"])]).await.expect("commits");
    assert!(store.cancel("a", "{}", &ann(7)).await.expect("cancels"));
    let row = store.delivery("a.step1.m").await.expect("reads").expect("is there");
    let words = "taken back: the analysis was cancelled";
    assert_eq!((row.state, row.last_answer.as_deref()), (DeliveryState::TakenBack, Some(words)));
    let resent = store.resend("a.step1.m", &ann(8)).await.expect("answers");
    assert_eq!(resent, Resent::Superseded("the analysis was cancelled".to_owned()));
}

#[tokio::test]
async fn the_last_attempts_are_kept() {
    let store = with_one().await;
    store.commit(vec![decided("a", 1, 5, &["m"])]).await.expect("commits");
    for number in 1..=i64::from(ATTEMPTS_KEPT) + 7 {
        let failed = attempt("a.m", DeliveryState::Pending, Time(number * 1000), "500");
        store.record_attempts(&[failed]).await.expect("records");
    }
    let kept = store.attempts("a.m").await.expect("reads");
    let numbers: Vec<u32> = kept.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, (8..=ATTEMPTS_KEPT + 7).collect::<Vec<_>>());
    assert_eq!((kept[0].began, kept[0].took_ms), (Time(7000), 7));
}

#[tokio::test]
async fn the_database_itself_keeps_interventions_and_one_delivery_on_its_way() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    store.create(new("a")).await.expect("creates");
    store.commit(vec![advanced("a", 1, 1, &["m"])]).await.expect("commits");
    assert!(store.override_verdict(overriding(9)).await.expect("overrides"));
    store.close().await;
    let url = format!("sqlite://{}", path.display());
    let stranger = sqlx::SqlitePool::connect(&url).await.expect("connects");
    for (sql, expected) in [
        ("UPDATE intervention SET who = 'bob'", "an intervention does not change"),
        ("DELETE FROM intervention", "an intervention does not change"),
        ("UPDATE analysis SET verdict = 'rollback'", "an analysis that is over does not change"),
        (
            "UPDATE delivery SET state = 0 WHERE key = 'a.step1.m'",
            "delivery.analysis, delivery.mechanism",
        ),
        ("UPDATE delivery SET state = 6", "CHECK constraint failed"),
    ] {
        let error = sqlx::query(sql).execute(&stranger).await.expect_err(sql);
        assert!(error.to_string().contains(expected), "{sql}: {error}");
    }
    stranger.close().await;
    // With its analysis an intervention goes.
    let store = open(&path).await;
    let told = attempt("a.m", DeliveryState::Delivered, Time(10), "200");
    store.record_attempts(&[told]).await.expect("records");
    assert_eq!(store.prune(Time(1 << 40)).await.expect("prunes"), 1);
    assert!(store.interventions("a").await.expect("reads").is_empty());
    assert!(store.tally().await.expect("counts").is_empty());
}

/// A store of the version before tells what was taken back from what was given up on.
#[tokio::test]
async fn an_older_store_keeps_its_deliveries_and_cancellations() {
    let folder = folder();
    let path = folder.path().join("old.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let old = sqlx::SqlitePool::connect(&url).await.expect("connects");
    let mut script = String::new();
    for step in ["schema", "steps", "history", "rules"] {
        let text = std::fs::read_to_string(format!("analyzer/store/{step}.sql"));
        script.push_str(&text.expect("reads"));
    }
    script.push_str(
        "PRAGMA application_id = 1919377780; PRAGMA user_version = 4;
         INSERT INTO analysis (n, id, service, started, order_json, rules_name, rules_text, state,
             last_look, verdict, ended, cancel_note)
         VALUES (1, 'a', 's', 1, '{}', 'r', '', 1, 1, 'rollback', 5, NULL),
             (2, 'b', 's', 1, '{}', 'r', '', 2, 1, 'watching', 6, '{\"who\":\"ann\",\"why\":\"no\"}'),
             (3, 'c', 's', 1, '{}', 'r', '', 2, 1, 'watching', 7, 'no JSON');
         INSERT INTO final_verdict VALUES (1, 1, 'rollback', 5);
         INSERT INTO advance VALUES (1, 1, 1, 4);
         INSERT INTO delivery (key, analysis, mechanism, body, state, created, next_due,
             last_answer, attempts, step)
         VALUES ('a.step1.m', 1, 'm', '{\"data\":{\"action\":\"advance\"}}', 3, 4, 4,
                 'taken back: a later decision stands', 2, 1),
             ('a.m', 1, 'm', '{\"data\":{\"action\":\"rollback\"}}', 0, 5, 6, '500', 3, 0),
             ('a.n', 1, 'n', 'no JSON', 3, 5, 6, '500', 9, 0);",
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&old).await.expect("an old store");
    old.close().await;
    let store = open(&path).await;
    let rows = store.deliveries("a").await.expect("reads");
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.new.key.as_str(), row.new.action.as_str(), row.state, row.tries))
        .collect();
    let expected = [
        ("a.step1.m", "advance", DeliveryState::TakenBack, 2),
        ("a.m", "rollback", DeliveryState::Pending, 3),
        ("a.n", "", DeliveryState::Dead, 9),
    ];
    assert_eq!(told, expected);
    let tallies = store.tally().await.expect("counts");
    assert_eq!((tallies.len(), tallies[0].oldest_pending), (2, Some(Time(5))));
    let by_hand = store.interventions("b").await.expect("reads");
    assert_eq!((by_hand[0].by.who.as_str(), &by_hand[0].deed), ("ann", &Deed::Cancel));
    assert!(store.interventions("c").await.expect("reads").is_empty());
}
