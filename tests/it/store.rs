//! The SQLite store behind its trait: against a slow model in memory, against a second handle on
//! the same file, against files that are no store, and against a full disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::Path,
    sync::Arc,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rollgate::{
    engine::observation::{
        Arm, Health, Histogram, Missing, Observation, Pair, Reading, Time, Value, Why,
    },
    signal::{
        carry::{Carry, InstanceCarry},
        sample::Labels,
    },
    store::{
        AttemptRecord, Created, Decision, DeliveryCounts, DeliveryState, Filter, Look, NewAnalysis,
        NewDelivery, PAGE_MAX, PRUNE_MAX, Store, StoreError, StoredAnalysis, StoredDelivery,
        StoredState,
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
    }
}

fn look(id: &str, number: u64) -> Look {
    let level = Pair { canary: Ok(Value::Level(0.1)), baseline: Ok(Value::Level(0.2)) };
    Look {
        analysis: id.to_owned(),
        look: number,
        observation: Observation { at: Time(1000 + number as i64), signals: vec![level] },
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
    let decision = Some(Decision { at: Time(at), deliveries });
    Look { verdict: "rollback".to_owned(), decision, ..look(id, number) }
}

/// What a store is, in the slowest and most obvious way.
#[derive(Default)]
struct Model {
    analyses: BTreeMap<String, StoredAnalysis>,
    newest_verdict: BTreeMap<String, String>,
    journal: BTreeMap<String, Vec<(u64, Observation)>>,
    carry: BTreeMap<String, Carry>,
    deliveries: Vec<StoredDelivery>,
}

impl Model {
    fn create(&mut self, new: NewAnalysis) -> Created {
        let key = &new.idempotency_key;
        let same_key = |old: &&StoredAnalysis| key.is_some() && old.new.idempotency_key == *key;
        if let Some(old) = self.analyses.values().find(same_key) {
            return Created::Existing(Box::new(old.clone()));
        }
        let stored = StoredAnalysis {
            state: StoredState::Running,
            last_look: 0,
            report: None,
            verdict: None,
            ended: None,
            cancel_note: None,
            new,
        };
        self.analyses.insert(stored.new.id.clone(), stored);
        Created::New
    }

    fn accepts(&self, looks: &[Look]) -> bool {
        let mut last: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
        looks.iter().all(|look| {
            let Some(analysis) = self.analyses.get(&look.analysis) else { return false };
            let is_over = analysis.state != StoredState::Running;
            let entry = last.entry(&look.analysis).or_insert((analysis.last_look, is_over));
            let accepted = !entry.1 && look.look == entry.0 + 1;
            *entry = (look.look, look.decision.is_some());
            accepted
        })
    }

    fn commit(&mut self, looks: Vec<Look>) {
        for look in looks {
            let id = look.analysis.clone();
            let analysis = self.analyses.get_mut(&id).expect("accepted");
            analysis.last_look = look.look;
            analysis.report = Some(look.report);
            self.newest_verdict.insert(id.clone(), look.verdict.clone());
            self.journal.entry(id.clone()).or_default().push((look.look, look.observation));
            self.carry.insert(id.clone(), look.carry);
            let Some(decision) = look.decision else { continue };
            analysis.state = StoredState::Finished;
            analysis.verdict = Some(look.verdict);
            analysis.ended = Some(decision.at);
            self.deliveries.extend(decision.deliveries.into_iter().map(|new| StoredDelivery {
                analysis: id.clone(),
                new,
                state: DeliveryState::Pending,
                attempts: 0,
                created: decision.at,
                next_due: decision.at,
                last_answer: None,
            }));
        }
    }

    fn cancel(&mut self, id: &str, note: &str, at: Time) -> bool {
        match self.analyses.get_mut(id) {
            Some(analysis) if analysis.state == StoredState::Running => {
                analysis.state = StoredState::Cancelled;
                analysis.cancel_note = Some(note.to_owned());
                analysis.ended = Some(at);
                true
            }
            _ => false,
        }
    }

    fn record_attempt(&mut self, key: &str, attempt: AttemptRecord) {
        let row = self.deliveries.iter_mut().find(|row| row.new.key == key).expect("known");
        if row.state == DeliveryState::Pending {
            row.state = attempt.state;
            row.attempts += 1;
            row.next_due = attempt.next_due;
            row.last_answer = Some(attempt.answer);
        }
    }

    fn due(&self, now: Time, limit: usize) -> Vec<StoredDelivery> {
        let mut by_mechanism: BTreeMap<&str, Vec<(Time, usize)>> = BTreeMap::new();
        for (n, row) in self.deliveries.iter().enumerate() {
            if row.state == DeliveryState::Pending && row.next_due <= now {
                by_mechanism.entry(&row.new.mechanism).or_default().push((row.next_due, n));
            }
        }
        let mut rows = Vec::new();
        for waiting in by_mechanism.values_mut() {
            waiting.sort();
            rows.extend(waiting.iter().enumerate().map(|(turn, row)| (turn, *row)));
        }
        rows.sort();
        rows.iter().take(limit).map(|(_, (_, n))| self.deliveries[*n].clone()).collect()
    }

    fn prune(&mut self, older_than: Time) -> u64 {
        let pending: BTreeSet<String> = self
            .deliveries
            .iter()
            .filter(|row| row.state == DeliveryState::Pending)
            .map(|row| row.analysis.clone())
            .collect();
        let is_old = |analysis: &&StoredAnalysis| {
            analysis.ended.is_some_and(|ended| ended < older_than)
                && !pending.contains(&analysis.new.id)
        };
        let old: Vec<String> =
            self.analyses.values().filter(is_old).map(|old| old.new.id.clone()).collect();
        for id in &old {
            self.analyses.remove(id);
            self.journal.remove(id);
            self.carry.remove(id);
            self.newest_verdict.remove(id);
            self.deliveries.retain(|row| row.analysis != *id);
        }
        old.len() as u64
    }

    fn list(&self, filter: &Filter) -> Vec<StoredAnalysis> {
        let wanted = |analysis: &&StoredAnalysis| {
            let id = &analysis.new.id;
            filter.service.as_ref().is_none_or(|service| analysis.new.service == *service)
                && filter.state.is_none_or(|state| analysis.state == state)
                && filter.after.as_ref().is_none_or(|after| id < after)
                && (filter.verdict.is_none()
                    || self.newest_verdict.get(id) == filter.verdict.as_ref())
        };
        let newest_first = self.analyses.values().rev().filter(wanted);
        newest_first.take(filter.limit as usize).cloned().collect()
    }
}

struct Random(StdRng);

impl Random {
    fn number(&mut self) -> f64 {
        match self.0.random_range(0..4) {
            0 => self.0.random_range(0..1_000_000) as f64,
            1 => self.0.random::<f64>(),
            2 => f64::from_bits(self.0.random::<u64>() & !(1 << 62)),
            _ => 0.0,
        }
    }

    fn reading(&mut self, edges: &Arc<[f64]>) -> Reading {
        Ok(match self.0.random_range(0..7) {
            0 => Value::Share { events: self.number(), total: self.number() },
            1 => {
                let (events, instance_secs) = (self.number(), self.number());
                Value::Events { events, instance_secs, instances: self.0.random() }
            }
            2 => {
                let counts = (0..=edges.len()).map(|_| self.number()).collect();
                Value::Histogram(Histogram { edges: Arc::clone(edges), counts })
            }
            3 => Value::Level(self.number()),
            4 => Value::Health { status: Health::Degraded, latency_secs: Some(self.number()) },
            5 => Value::Restarts(self.0.random()),
            _ => {
                let why = Why::ALL.choose(&mut self.0).copied().expect("not empty");
                return Err(Missing::new(why, "10.0.0.7: \"no\" \u{0} answer"));
            }
        })
    }

    fn observation(&mut self) -> Observation {
        let edges: Arc<[f64]> = (0..self.0.random_range(0..5)).map(f64::from).collect();
        let signals = (0..self.0.random_range(0..4))
            .map(|_| Pair { canary: self.reading(&edges), baseline: self.reading(&edges) })
            .collect();
        Observation { at: Time(self.0.random_range(-5..i64::MAX / 2)), signals }
    }

    fn carry(&mut self) -> Carry {
        let mut carry = Carry::default();
        for arm in Arm::BOTH {
            let counters = (0..self.0.random_range(0..4))
                .map(|n| {
                    let labels = Labels::new(vec![("le".into(), format!("{n}").into())]);
                    (("requests_bucket".into(), labels), self.number())
                })
                .collect();
            let instance = InstanceCarry {
                first_seen: Time(self.0.random()),
                last_read: self.0.random::<bool>().then_some(Time(7)),
                process_start_secs: self.0.random::<bool>().then(|| self.number()),
                been_up: vec![1, 4],
                counters,
            };
            carry.instances.insert((arm, "10.0.0.7:8080".into()), instance);
        }
        carry
    }

    fn look(&mut self, model: &Model, id: &str, ahead: u64, at: i64) -> Look {
        let last = model.analyses.get(id).map_or(0, |analysis| analysis.last_look);
        let is_wrong = self.0.random_bool(0.03);
        let number = last + 1 + ahead + u64::from(is_wrong);
        let base = if self.0.random_bool(0.15) {
            let mechanisms: &[&str] = [&["a"][..], &["a", "b"], &["b", "c", "a"], &[]]
                .choose(&mut self.0)
                .copied()
                .expect("not empty");
            decided(id, number, at, mechanisms)
        } else {
            look(id, number)
        };
        Look { observation: self.observation(), carry: self.carry(), ..base }
    }
}

/// One random operation on both; they must agree on what came of it.
async fn operate(random: &mut Random, store: &SqliteStore, model: &mut Model, step: i64) {
    let ids: Vec<String> = model.analyses.keys().cloned().collect();
    let some_id = ids.choose(&mut random.0).cloned().unwrap_or_else(|| "none".to_owned());
    match random.0.random_range(0..20) {
        0..=2 => {
            let key = random.0.random_bool(0.3).then(|| format!("key {}", step % 7));
            let service = if random.0.random() { "shop" } else { "cart" }.to_owned();
            let new = NewAnalysis { idempotency_key: key, service, ..new(&format!("{step:06}")) };
            let created = store.create(new.clone()).await.expect("creates");
            assert_eq!(created, model.create(new));
        }
        3..=12 => {
            let mut looks = vec![random.look(model, &some_id, 0, step)];
            if random.0.random_bool(0.3) {
                looks.push(random.look(model, &some_id, 1, step));
            }
            if let Some(other) = ids.iter().find(|id| **id != some_id) {
                looks.push(random.look(model, other, 0, step));
            }
            match store.commit(looks.clone()).await {
                Ok(()) => {
                    assert!(model.accepts(&looks), "{looks:?}");
                    model.commit(looks);
                }
                Err(StoreError::OutOfOrder { .. }) => assert!(!model.accepts(&looks), "{looks:?}"),
                Err(error) => panic!("{error:?}"),
            }
        }
        13 => {
            let cancelled = store.cancel(&some_id, "{}", Time(step)).await.expect("cancels");
            assert_eq!(cancelled, model.cancel(&some_id, "{}", Time(step)));
        }
        14..=16 => {
            let keys: Vec<String> =
                model.deliveries.iter().map(|row| row.new.key.clone()).collect();
            let Some(key) = keys.choose(&mut random.0) else { return };
            let state = match random.0.random_range(0..5) {
                0 => DeliveryState::Delivered,
                1 => DeliveryState::Dead,
                2 => DeliveryState::Refused,
                _ => DeliveryState::Pending,
            };
            let next_due = Time(step + random.0.random_range(0..50));
            let attempt = AttemptRecord { state, next_due, answer: format!("answer {step}") };
            store.record_attempt(key, attempt.clone()).await.expect("records");
            model.record_attempt(key, attempt);
        }
        17 => {
            let older_than = Time(step - 150);
            assert_eq!(store.prune(older_than).await.expect("prunes"), model.prune(older_than));
        }
        _ => {
            let filter = Filter {
                service: random.0.random_bool(0.5).then(|| "cart".to_owned()),
                state: random.0.random_bool(0.5).then_some(StoredState::Finished),
                verdict: random.0.random_bool(0.3).then(|| "watching".to_owned()),
                after: random.0.random_bool(0.5).then(|| some_id.clone()),
                limit: random.0.random_range(0..9),
            };
            assert_eq!(store.list(filter.clone()).await.expect("lists"), model.list(&filter));
        }
    }
}

async fn agree(store: &SqliteStore, model: &Model, now: Time) {
    let all = Filter { limit: PAGE_MAX, ..Filter::default() };
    assert_eq!(store.list(all.clone()).await.expect("lists"), model.list(&all));
    let is_running = |analysis: &&StoredAnalysis| analysis.state == StoredState::Running;
    let running: Vec<_> = model.analyses.values().filter(is_running).cloned().collect();
    assert_eq!(store.running().await.expect("lists"), running);
    for (id, analysis) in &model.analyses {
        assert_eq!(store.analysis(id).await.expect("reads").as_ref(), Some(analysis));
        let carry = model.carry.get(id).cloned().unwrap_or_default();
        assert_eq!(store.carry(id).await.expect("reads"), carry);
        let journal = model.journal.get(id).cloned().unwrap_or_default();
        let mut pages = Vec::new();
        while let page =
            store.journal(id, pages.last().map_or(0, |(look, _)| *look), 3).await.expect("reads")
            && !page.is_empty()
        {
            assert!(page.len() <= 3);
            pages.extend(page);
        }
        assert_eq!(pages, journal);
        let rows: Vec<_> =
            model.deliveries.iter().filter(|row| row.analysis == *id).cloned().collect();
        assert_eq!(store.deliveries(id).await.expect("reads"), rows);
    }
    for limit in [1, 4, PAGE_MAX] {
        let due = store.due(now, limit).await.expect("reads");
        assert_eq!(due, model.due(now, limit as usize));
    }
    let pending = model.deliveries.iter().filter(|row| row.state == DeliveryState::Pending);
    assert_eq!(
        store.next_due().await.expect("reads"),
        pending.clone().map(|row| row.next_due).min()
    );
    let dead = model.deliveries.iter().filter(|row| row.state == DeliveryState::Dead);
    let counts = DeliveryCounts { pending: pending.count() as u64, dead: dead.count() as u64 };
    assert_eq!(store.delivery_counts().await.expect("counts"), counts);
}

#[tokio::test]
async fn does_what_the_model_does_also_after_being_opened_again() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = Random(StdRng::seed_from_u64(seed));
    let folder = folder();
    let path = folder.path().join("store.db");
    let (mut store, mut model) = (open(&path).await, Model::default());
    for step in 0..600 {
        operate(&mut random, &store, &mut model, step).await;
        if random.0.random_bool(0.02) {
            // Half of the time nobody says goodbye.
            if random.0.random() {
                store.close().await;
            }
            store = open(&path).await;
        }
        if step % 40 == 0 {
            agree(&store, &model, Time(step)).await;
        }
    }
    agree(&store, &model, Time(600)).await;
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
            "delivery.analysis, delivery.mechanism",
        ),
        (
            "INSERT INTO delivery (key, analysis, mechanism, body, created, next_due) \
             VALUES ('a.m', 1, 'other', '', 0, 0)",
            "delivery.key",
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
        been_up: vec![],
        counters,
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
    sqlx::query("PRAGMA user_version = 2").execute(&newer).await.expect("writes");
    newer.close().await;
    refuse("newer.db", "a store of version 2 (this program knows 1)").await;

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
