//! The SQLite store behind its trait: against a slow model in memory, against a second handle on
//! the same file, against files that are no store, and against a full disk.

mod history;
mod model;
mod notes;
mod rules;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::observation::{Arm, Observation, Pair, Time, Value},
    signal::{
        carry::{Carry, InstanceCarry},
        sample::Labels,
    },
    store::{
        AttemptRecord, Decision, DeliveryState, Look, NewAnalysis, NewDelivery, PAGE_MAX,
        PRUNE_MAX, Store, StoreError, StoredDelivery,
        sqlite::{SqliteOptions, SqliteStore},
    },
};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, SqliteOptions::default()).await.expect("opens")
}

fn new(id: &str) -> NewAnalysis {
    NewAnalysis {
        id: id.to_owned(),
        idempotency_key: None,
        service: "shop".to_owned(),
        started: Time(1000),
        order: "{}".to_owned(),
        rules_name: "shop".to_owned(),
        rules_text: "rules: []".to_owned(),
        calibration: None,
        past: None,
    }
}

fn look(id: &str, number: u64) -> Look {
    let level = Pair::new(Ok(Value::Level(0.1)), Ok(Value::Level(0.2)));
    Look {
        analysis: id.to_owned(),
        look: number,
        observation: Observation {
            at: Time(1000 + number as i64),
            signals: vec![level],
            canary_gap: None,
        },
        carry: Carry::default(),
        report: format!("{{\"look\":{number}}}"),
        verdict: "watching".to_owned(),
        decision: None,
    }
}

fn decided(id: &str, number: u64, at: i64, mechanisms: &[&str]) -> Look {
    let delivery = |mechanism: &&str| NewDelivery {
        key: format!("{id}.{mechanism}"),
        mechanism: (*mechanism).to_owned(),
        body: "{}".to_owned(),
    };
    let deliveries = mechanisms.iter().map(delivery).collect();
    let decision = Some(Decision { at: Time(at), advance_to: None, deliveries });
    Look { verdict: "rollback".to_owned(), decision, ..look(id, number) }
}

/// A look at which the release goes on to a step.
fn advanced(id: &str, number: u64, step: usize, mechanisms: &[&str]) -> Look {
    let delivery = |mechanism: &&str| NewDelivery {
        key: format!("{id}.step{step}.{mechanism}"),
        mechanism: (*mechanism).to_owned(),
        body: "{}".to_owned(),
    };
    let deliveries = mechanisms.iter().map(delivery).collect();
    let at = Time(number as i64);
    let decision = Some(Decision { at, advance_to: Some(step), deliveries });
    Look { verdict: "advance".to_owned(), decision, ..look(id, number) }
}

#[tokio::test]
async fn an_advance_is_told_and_the_analysis_goes_on() {
    let store = SqliteStore::in_memory().await.expect("opens");
    store.create(new("a")).await.expect("creates");
    store.commit(vec![look("a", 1), advanced("a", 2, 1, &["m", "n"])]).await.expect("commits");
    assert_eq!(store.running().await.expect("reads").len(), 1);
    let states = async || {
        let rows = store.deliveries("a").await.expect("reads");
        let said = |row: StoredDelivery| (row.new.key, row.state, row.last_answer);
        rows.into_iter().map(said).collect::<Vec<_>>()
    };
    let row =
        |key: &str, state, answer: Option<&str>| (key.to_owned(), state, answer.map(str::to_owned));
    let delivered =
        AttemptRecord { state: DeliveryState::Delivered, next_due: Time(9), answer: "200".into() };
    store.record_attempt("a.step1.m", delivered).await.expect("records");
    // What comes later takes back what has not arrived: nobody is told to go on after a rollback.
    store.commit(vec![look("a", 3), decided("a", 4, 9, &["m", "n"])]).await.expect("commits");
    let back = Some("taken back: a later decision stands");
    let expected = [
        row("a.step1.m", DeliveryState::Delivered, Some("200")),
        row("a.step1.n", DeliveryState::Dead, back),
        row("a.m", DeliveryState::Pending, None),
        row("a.n", DeliveryState::Pending, None),
    ];
    assert_eq!(states().await, expected);
    assert!(store.running().await.expect("reads").is_empty());
}

#[tokio::test]
async fn a_cancelled_release_is_not_told_to_go_on() {
    let store = SqliteStore::in_memory().await.expect("opens");
    store.create(new("a")).await.expect("creates");
    store.commit(vec![advanced("a", 1, 1, &["m"])]).await.expect("commits");
    assert!(store.cancel("a", "{}", Time(7)).await.expect("cancels"));
    assert!(store.due(Time(1 << 40), 9).await.expect("reads").is_empty());
}

/// A store of the version before steps is brought up to date with everything in it.
#[tokio::test]
async fn a_store_of_the_first_version_keeps_its_deliveries() {
    let folder = folder();
    let path = folder.path().join("old.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let old = sqlx::SqlitePool::connect(&url).await.expect("connects");
    let schema = std::fs::read_to_string("analyzer/store/schema.sql").expect("reads");
    for sql in [
        &schema,
        "PRAGMA application_id = 1919377780; PRAGMA user_version = 1",
        "INSERT INTO analysis (n, id, service, started, order_json, rules_name, rules_text, state,          last_look, verdict, ended) VALUES (1, 'a', 's', 1, '{}', 'r', '', 1, 1, 'promote', 5)",
        "INSERT INTO final_verdict VALUES (1, 1, 'promote', 5)",
        "INSERT INTO delivery (key, analysis, mechanism, body, created, next_due)          VALUES ('a.m', 1, 'm', 'told', 5, 6)",
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&old).await.expect(sql);
    }
    old.close().await;
    let store = open(&path).await;
    let due = store.due(Time(6), 9).await.expect("reads");
    assert_eq!((due.len(), due[0].new.body.as_str()), (1, "told"));
    store.create(new("b")).await.expect("creates");
    store.commit(vec![advanced("b", 1, 1, &["m"])]).await.expect("commits");
    assert_eq!(store.due(Time(6), 9).await.expect("reads").len(), 2);
    store.close().await;
}

#[tokio::test]
async fn memory_is_a_store_too() {
    let store = SqliteStore::in_memory().await.expect("opens");
    store.create(new("a")).await.expect("creates");
    store.commit(vec![look("a", 1), decided("a", 2, 5, &["m"])]).await.expect("commits");
    store.ping().await.expect("answers");
    store.ping().await.expect("answers");
    assert_eq!(store.journal("a", 0, 9).await.expect("reads").len(), 2);
    assert_eq!(store.next_due().await.expect("reads"), Some(Time(5)));
}

#[tokio::test]
async fn of_racing_writers_one_writes_the_final_verdict() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let (one, two) = tokio::join!(open(&path), open(&path));
    for round in 0..20 {
        let id = format!("a{round}");
        one.create(new(&id)).await.expect("creates");
        let commit = |store: SqliteStore, verdict: &'static str| {
            let look = Look { verdict: verdict.to_owned(), ..decided(&id, 1, 9, &["m"]) };
            tokio::spawn(async move { store.commit(vec![look]).await.map(|()| verdict) })
        };
        let (a, b) = tokio::join!(commit(one.clone(), "rollback"), commit(two.clone(), "promote"));
        let won = match (a.expect("no panic"), b.expect("no panic")) {
            (Ok(won), Err(StoreError::OutOfOrder { .. }))
            | (Err(StoreError::OutOfOrder { .. }), Ok(won)) => won,
            other => panic!("{other:?}"),
        };
        for store in [&one, &two] {
            let stored = store.analysis(&id).await.expect("reads").expect("is there");
            assert_eq!(stored.verdict.as_deref(), Some(won));
            assert_eq!(store.deliveries(&id).await.expect("reads").len(), 1);
        }
    }
}

#[tokio::test]
async fn the_database_itself_forbids_a_second_verdict_and_a_second_delivery() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    store.create(new("a")).await.expect("creates");
    store.commit(vec![decided("a", 1, 5, &["m"])]).await.expect("commits");
    store.close().await;
    let url = format!("sqlite://{}", path.display());
    let stranger = sqlx::SqlitePool::connect(&url).await.expect("connects");
    for (sql, expected) in [
        ("UPDATE analysis SET verdict = 'promote'", "an analysis that is over does not change"),
        ("UPDATE final_verdict SET verdict = 'promote'", "a final verdict does not change"),
        ("INSERT INTO final_verdict VALUES (1, 2, 'promote', 6)", "final_verdict.analysis"),
        (
            "INSERT INTO delivery (key, analysis, mechanism, body, created, next_due) \
             VALUES ('other', 1, 'm', '', 0, 0)",
            "delivery.analysis, delivery.mechanism, delivery.step",
        ),
        (
            "INSERT INTO delivery (key, analysis, mechanism, body, created, next_due) \
             VALUES ('a.m', 1, 'other', '', 0, 0)",
            "delivery.key",
        ),
        (
            "INSERT INTO delivery (key, analysis, mechanism, body, created, next_due, step) \
             VALUES ('a.step2.m', 1, 'm', '', 0, 0, 2)",
            "a delivery belongs to a decision",
        ),
        ("INSERT INTO look VALUES (1, 1, '')", "look.analysis, look.look"),
        ("INSERT INTO look VALUES (77, 1, '')", "FOREIGN KEY"),
    ] {
        let error = sqlx::query(sql).execute(&stranger).await.expect_err(sql);
        assert!(error.to_string().contains(expected), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_refused_look_takes_its_whole_commit_with_it() {
    let store = SqliteStore::in_memory().await.expect("opens");
    for id in ["a", "b"] {
        store.create(new(id)).await.expect("creates");
    }
    store.commit(vec![look("b", 1)]).await.expect("commits");
    let check = async |looks: Vec<Look>, expected: &str| {
        let error = store.commit(looks).await.expect_err("refused");
        assert_eq!(error.to_string(), expected);
        assert_eq!(store.journal("a", 0, 9).await.expect("reads"), []);
        assert_eq!(store.journal("b", 0, 9).await.expect("reads").len(), 1);
    };
    let refused = |id: &str, look: u64, why: &str| {
        format!("store: analysis {id}: look {look} refused: {why}")
    };
    check(vec![look("a", 1), look("b", 3)], &refused("b", 3, "the next look is 2")).await;
    check(vec![look("a", 1), look("b", 1)], &refused("b", 1, "the next look is 2")).await;
    let missing = refused("c", 1, "there is no such analysis");
    check(vec![look("a", 1), look("c", 1)], &missing).await;
    let twice = vec![decided("a", 1, 5, &["m"]), look("a", 2)];
    check(twice, &refused("a", 2, "it has a final verdict")).await;
    let mut infinite = look("b", 2);
    infinite.observation.signals[0].baseline = Ok(Value::Level(f64::INFINITY));
    let why = "store: the observation of analysis b at look 2 is not written: \
               found inf in signal 0 of the baseline";
    check(vec![look("a", 1), infinite], why).await;
    assert!(store.cancel("b", "{}", Time(7)).await.expect("cancels"));
    check(vec![look("a", 1), look("b", 2)], &refused("b", 2, "it was cancelled")).await;
}

#[tokio::test]
async fn a_write_that_is_dropped_midway_leaves_nothing_or_everything() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let mut store = open(&path).await;
    store.create(new("a")).await.expect("creates");
    let mut next = 1;
    for polls in 0..60 {
        let looks: Vec<Look> = (0..5).map(|ahead| look("a", next + ahead)).collect();
        let mut commit = Box::pin(store.commit(looks));
        for _ in 0..polls {
            if futures_util::poll!(&mut commit).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(commit);
        if polls % 10 == 0 {
            store = open(&path).await;
        }
        // The next write waits for whatever the dropped one still does.
        store.ping().await.expect("answers");
        let written = store.journal("a", 0, PAGE_MAX).await.expect("reads").len() as u64;
        assert!(written == next - 1 || written == next + 4, "{written} after {next}");
        assert_eq!(store.analysis("a").await.expect("reads").expect("is there").last_look, written);
        next = written + 1;
    }
}

/// Set in the process that is to be killed: the file it writes to.
const VICTIM: &str = "ROLLGATE_TEST_VICTIM";

/// Writes looks for ever and says after each commit how many there are.
async fn write_for_ever(path: &Path) {
    let store = open(path).await;
    let last = store.analysis("a").await.expect("reads").expect("is there").last_look;
    for next in (last + 1..).step_by(3) {
        let looks = (next..next + 3).map(|number| carrying(look("a", number))).collect();
        store.commit(looks).await.expect("commits");
        println!("committed {}", next + 2);
    }
}

/// The look with its own number as a counter in the carry.
fn carrying(look: Look) -> Look {
    let counters = BTreeMap::from([(("n".into(), Labels::default()), look.look as f64)]);
    let instance = InstanceCarry {
        first_seen: Time(0),
        last_read: None,
        process_start_secs: None,
        life_began: None,
        been_up: vec![],
        counters,
        natives: BTreeMap::new(),
    };
    let instances = BTreeMap::from([((Arm::Canary, "i".into()), instance)]);
    Look { carry: Carry { instances }, ..look }
}

#[tokio::test]
async fn what_was_committed_survives_kill_9_and_nothing_is_half_there() {
    if let Some(path) = std::env::var_os(VICTIM) {
        return write_for_ever(Path::new(&path)).await;
    }
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = folder();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    store.create(new("a")).await.expect("creates");
    store.close().await;
    for _ in 0..15 {
        let mut victim = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "--nocapture"])
            .arg("store::what_was_committed_survives_kill_9_and_nothing_is_half_there")
            .env(VICTIM, &path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
        let mut committed = 0;
        for _ in 0..random.random_range(5..60) {
            let line = lines.next().expect("it does not end by itself").expect("text");
            committed =
                line.strip_prefix("committed ").map_or(committed, |n| n.parse().expect(&line));
        }
        victim.kill().expect("was alive");
        victim.wait().expect("is dead");
        for line in lines.map_while(Result::ok) {
            // The last line may be cut off.
            let number = line.strip_prefix("committed ").and_then(|n| n.parse().ok());
            committed = number.unwrap_or(0).max(committed);
        }
        let store = open(&path).await;
        let last = store.analysis("a").await.expect("reads").expect("is there").last_look;
        assert!(last >= committed && last.is_multiple_of(3), "{last} of {committed}");
        let carry = store.carry("a").await.expect("reads");
        assert_eq!(carry, carrying(look("a", last)).carry);
        let mut journal = vec![];
        while let page = store.journal("a", journal.len() as u64, PAGE_MAX).await.expect("reads")
            && !page.is_empty()
        {
            journal.extend(page.into_iter().map(|(number, _)| number));
        }
        assert_eq!(journal, (1..=last).collect::<Vec<_>>());
        store.close().await;
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_loses_nothing() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let options = SqliteOptions { pages_max: Some(60), ..SqliteOptions::default() };
    let store = SqliteStore::open(&path, options).await.expect("opens");
    store.create(new("a")).await.expect("creates");
    let big = |number| Look { report: "r".repeat(10_000), ..decided("a", number, 5, &["m"]) };
    let mut written = 0;
    let error = loop {
        let look = Look { report: "r".repeat(1000 * written as usize), ..look("a", written + 1) };
        match store.commit(vec![look]).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the limit was never reached");
    };
    let StoreError::Database { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("full"), "{source}");
    // The same store refuses it again for the same reason, and goes on writing what fits.
    let look = Look { report: "r".repeat(1000 * written as usize), ..look("a", written + 1) };
    let again = store.commit(vec![look]).await.expect_err("still full");
    let StoreError::Database { source, .. } = &again else { panic!("{again:?}") };
    assert!(source.to_string().contains("full"), "{source}");
    store.ping().await.expect("writes what needs no room");
    assert_eq!(store.journal("a", 0, PAGE_MAX).await.expect("reads").len() as u64, written);
    store.close().await;
    let store = open(&path).await;
    store.commit(vec![big(written + 1)]).await.expect("there is room again");
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_alone() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let refuse = async |name: &str, expected: &str| {
        let path = path(name);
        let before = std::fs::read(&path).ok();
        let error = SqliteStore::open(&path, SqliteOptions::default()).await.expect_err(name);
        let text = error.to_string();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
        assert!(text.contains(expected) && text.contains("\n  hint: "), "{text}");
        assert_eq!(std::fs::read(&path).ok(), before);
    };
    refuse("none/store.db", "no directory").await;
    std::fs::create_dir(path("folder")).expect("writes");
    refuse("folder", "a directory").await;
    std::fs::write(path("notes.txt"), "dear diary ".repeat(1000)).expect("writes");
    refuse("notes.txt", "not a SQLite database").await;

    let url = |name: &str| format!("sqlite://{}?mode=rwc", path(name).display());
    let stranger = sqlx::SqlitePool::connect(&url("stranger.db")).await.expect("creates");
    sqlx::query("CREATE TABLE diary (dear TEXT)").execute(&stranger).await.expect("writes");
    stranger.close().await;
    refuse("stranger.db", "a SQLite database of another program").await;

    open(&path("newer.db")).await.close().await;
    let newer = sqlx::SqlitePool::connect(&url("newer.db")).await.expect("opens");
    sqlx::query("PRAGMA user_version = 99").execute(&newer).await.expect("writes");
    newer.close().await;
    refuse("newer.db", "a store of version 99 (this program knows ").await;

    open(&path("damaged.db")).await.close().await;
    let mut bytes = std::fs::read(path("damaged.db")).expect("reads");
    bytes[100..4000].fill(0xA5);
    std::fs::write(path("damaged.db"), bytes).expect("writes");
    refuse("damaged.db", "a damaged SQLite database").await;

    std::fs::write(path("empty.db"), "").expect("writes");
    open(&path("empty.db")).await.ping().await.expect("an empty file becomes a store");
}

#[tokio::test]
async fn a_record_of_a_later_version_is_unreadable_and_nothing_else() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    store.create(new("a")).await.expect("creates");
    store.commit(vec![look("a", 1)]).await.expect("commits");
    let other = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await;
    let other = other.expect("connects");
    for sql in
        ["UPDATE look SET observation = '{\"v\":9}'", "UPDATE newest SET carry = '{\"v\":9}'"]
    {
        sqlx::query(sql).execute(&other).await.expect("writes");
    }
    let why = "cannot be read: the record has version 9, this program reads version 1";
    let journal = store.journal("a", 0, 9).await.expect_err("unreadable");
    assert_eq!(journal.to_string(), format!("store: look 1 of analysis a {why}"));
    let carry = store.carry("a").await.expect_err("unreadable");
    assert_eq!(carry.to_string(), format!("store: the carry of analysis a {why}"));
    assert!(store.analysis("a").await.expect("reads").is_some());
}

#[tokio::test]
async fn pages_and_pruning_have_limits() {
    let store = SqliteStore::in_memory().await.expect("opens");
    let ids: Vec<String> = (0..PRUNE_MAX + 5).map(|n| format!("{n:04}")).collect();
    for id in &ids {
        store.create(new(id)).await.expect("creates");
    }
    store.create(new("long")).await.expect("creates");
    let looks = (1..=u64::from(PAGE_MAX) + 1).map(|n| look("long", n)).collect();
    store.commit(looks).await.expect("commits");
    let page = store.journal("long", 0, u32::MAX).await.expect("reads");
    assert_eq!(page.len() as u32, PAGE_MAX);
    let ended = ids.iter().map(|id| decided(id, 1, 5, &[])).collect();
    store.commit(ended).await.expect("commits");
    assert_eq!(store.prune(Time(5)).await.expect("prunes"), 0, "none ended before its own end");
    assert_eq!(store.prune(Time(6)).await.expect("prunes"), u64::from(PRUNE_MAX));
    assert_eq!(store.prune(Time(6)).await.expect("prunes"), 5);
    assert_eq!(store.prune(Time(i64::MAX)).await.expect("prunes"), 0, "the running one stays");
}

#[tokio::test]
async fn an_unknown_delivery_is_an_error_and_a_late_answer_is_not() {
    let store = SqliteStore::in_memory().await.expect("opens");
    store.create(new("a")).await.expect("creates");
    store.commit(vec![decided("a", 1, 5, &["m"])]).await.expect("commits");
    let record = async |key: &str, state| {
        let attempt = AttemptRecord { state, next_due: Time(9), answer: "said".to_owned() };
        store.record_attempt(key, attempt).await
    };
    let error = record("nobody", DeliveryState::Dead).await.expect_err("unknown");
    assert_eq!(error.to_string(), "store: delivery nobody cannot be read: there is none");
    record("a.m", DeliveryState::Delivered).await.expect("records");
    record("a.m", DeliveryState::Pending).await.expect("is late");
    let rows = store.deliveries("a").await.expect("reads");
    assert_eq!((rows[0].state, rows[0].attempts), (DeliveryState::Delivered, 1));
}
