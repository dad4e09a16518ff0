//! The history of standing watches in the store: its bounds against a slow model, and files from
//! before there was one.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::observation::{Time, Value},
    signal::{
        past::{PastLook, Side, SignalsKey, Stretch},
        spec::{HealthTarget, Reads, SignalSpec},
    },
    store::{
        FORGET_MAX, HistorySpan, KeepBounds, KeptLook, PAGE_MAX, Store, StoredState,
        sqlite::SqliteStore,
    },
};

use super::{folder, look, new, open};

fn key(name: &str) -> SignalsKey {
    let reads = Reads::Health(HealthTarget::Path("/health".to_owned()));
    SignalsKey::of(&[SignalSpec { name: name.to_owned(), reads }])
}

fn past(at: i64, level: f64) -> PastLook {
    let side = Side { reading: Ok(Value::Level(level)), parts: Vec::new() };
    PastLook { at: Time(at), covers: Duration::from_millis(5000), sides: vec![side] }
}

fn kept(service: &str, signals: &SignalsKey, look: PastLook, bounds: KeepBounds) -> KeptLook {
    KeptLook { service: service.to_owned(), signals: signals.clone(), look, bounds }
}

const BOUNDS: KeepBounds =
    KeepBounds { keep: Duration::from_secs(3600), looks_max: 50, bytes_max: 1 << 20 };

async fn all(store: &SqliteStore, service: &str, signals: &SignalsKey) -> Vec<PastLook> {
    let ever = Stretch { after: Time(i64::MIN), until: Time(i64::MAX) };
    store.kept(service, signals, ever, PAGE_MAX).await.expect("reads")
}

/// Every row there is, in the most obvious way.
#[derive(Default)]
struct Model(Vec<(String, SignalsKey, PastLook, u64)>);

impl Model {
    fn keep(&mut self, service: &str, signals: &SignalsKey, look: PastLook, bounds: KeepBounds) {
        let keep_ms = bounds.keep.as_millis() as i64;
        let at = look.at.0;
        if !self.0.iter().any(|(of, _, old, _)| of == service && old.at == look.at) {
            // As a record: nobody on the canary's side, the level on the other.
            let Ok(Value::Level(level)) = look.sides[0].reading else { panic!("a level") };
            let nobody = r#"{"m":["not_observed",""]}"#;
            let record = format!(r#"{{"v":1,"at":{at},"s":[[{nobody},{{"l":{level}}}]]}}"#);
            self.0.push((service.to_owned(), signals.clone(), look, record.len() as u64));
        }
        self.0.retain(|(of, _, old, _)| of != service || old.at.0 > at - keep_ms);
        self.0.sort_by_key(|(_, _, look, _)| look.at);
        loop {
            let (looks, bytes) = self.size(service);
            if looks <= bounds.looks_max && bytes <= bounds.bytes_max {
                return;
            }
            let oldest = self.0.iter().position(|(of, ..)| of == service).expect("some are there");
            self.0.remove(oldest);
        }
    }

    fn size(&self, service: &str) -> (u64, u64) {
        let of = || self.0.iter().filter(|(of, ..)| of == service);
        (of().count() as u64, of().map(|(.., bytes)| bytes).sum())
    }

    fn all(&self, service: &str, signals: &SignalsKey) -> Vec<PastLook> {
        let of = self.0.iter().filter(|(of, key, ..)| of == service && key == signals);
        of.map(|(_, _, look, _)| look.clone()).collect()
    }
}

#[tokio::test]
async fn history_stays_within_its_bounds_and_is_what_the_model_says() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = folder();
    let path = folder.path().join("store.db");
    let mut store = open(&path).await;
    let mut model = Model::default();
    let keys = [key("a"), key("b")];
    let mut clock = 1_000_000_i64;
    for step in 0..700 {
        // Mostly onwards; a clock that jumps back meets moments that are taken.
        clock += match rng.random_range(0..20) {
            0 => -rng.random_range(0..20_000),
            1 => rng.random_range(0..4_000_000),
            _ => rng.random_range(0..6000),
        };
        let service = if rng.random_bool(0.7) { "shop" } else { "till" };
        let signals = &keys[usize::from(rng.random_bool(0.2))];
        let bounds = KeepBounds {
            keep: Duration::from_secs(if rng.random_bool(0.1) { 60 } else { 3600 }),
            looks_max: if rng.random_bool(0.1) { 10 } else { 50 },
            bytes_max: if rng.random_bool(0.1) { 600 } else { 1 << 20 },
        };
        let look = past(clock, f64::from(rng.random_range(0..1000)));
        // Now and then several in one transaction.
        let mut looks = vec![(service, signals, look)];
        if rng.random_bool(0.1) {
            looks.push(("till", &keys[0], past(clock + 1, 7.0)));
            looks.push((service, signals, past(clock + 2, 8.0)));
        }
        let keep = |(service, signals, look): &(&str, &SignalsKey, PastLook)| {
            kept(service, signals, look.clone(), bounds)
        };
        store.keep(looks.iter().map(keep).collect()).await.expect("keeps");
        for (service, signals, look) in looks {
            model.keep(service, signals, look, bounds);
        }
        if rng.random_bool(0.02) {
            store = open(&path).await;
        }
        for signals in &keys {
            let found = all(&store, service, signals).await;
            assert_eq!(found, model.all(service, signals), "step {step}");
            let span = store.history(service, signals).await.expect("measures");
            let (looks, bytes) = model.size(service);
            let (first, last) =
                (found.first().map(|look| look.at), found.last().map(|look| look.at));
            assert_eq!(span, HistorySpan { looks, bytes, first, last }, "step {step}");
            assert!(looks <= bounds.looks_max && bytes <= bounds.bytes_max);
        }
    }
}

#[tokio::test]
async fn looks_are_found_by_stretch_page_by_page() {
    let store = SqliteStore::in_memory().await.expect("opens");
    let signals = key("a");
    for at in 1..=30 {
        store.keep(vec![kept("shop", &signals, past(at, 1.0), BOUNDS)]).await.expect("keeps");
    }
    let ats = async |after, until, limit| {
        let stretch = Stretch { after: Time(after), until: Time(until) };
        let looks = store.kept("shop", &signals, stretch, limit).await.expect("reads");
        looks.iter().map(|look| look.at.0).collect::<Vec<_>>()
    };
    assert_eq!(ats(10, 13, 9).await, [11, 12, 13]);
    assert_eq!(ats(10, 99, 2).await, [11, 12]);
    assert_eq!(ats(13, 10, 9).await, [0; 0]);
    let nobody = store.history("till", &signals).await.expect("measures");
    assert_eq!(nobody, HistorySpan::default());
    // A look that was kept once is not kept again as something else.
    store.keep(vec![kept("shop", &signals, past(30, 7.0), BOUNDS)]).await.expect("keeps");
    assert_eq!(all(&store, "shop", &signals).await.last(), Some(&past(30, 1.0)));
}

#[tokio::test]
async fn what_nobody_watches_any_more_is_forgotten_in_time() {
    let store = SqliteStore::in_memory().await.expect("opens");
    let (signals, many) = (key("a"), i64::from(FORGET_MAX) + 20);
    let bounds = KeepBounds { looks_max: 1 << 20, ..BOUNDS };
    for at in 1..=many {
        store.keep(vec![kept("shop", &signals, past(at, 1.0), bounds)]).await.expect("keeps");
    }
    let hour = 3_600_000;
    assert_eq!(store.prune_history(Time(hour)).await.expect("prunes"), 0);
    let pruned = store.prune_history(Time(hour + many)).await.expect("prunes");
    assert_eq!(pruned, u64::from(FORGET_MAX), "no more at once");
    assert_eq!(store.prune_history(Time(hour + many)).await.expect("prunes"), 20);
    let span = store.history("shop", &signals).await.expect("measures");
    assert_eq!(span, HistorySpan::default());
}

#[tokio::test]
async fn a_store_from_before_there_was_history_opens_with_what_it_holds() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let old = sqlx::SqlitePool::connect(&url).await.expect("connects");
    let schema = include_str!("../../../analyzer/store/schema.sql");
    let mark = "PRAGMA application_id = 0x72676174; PRAGMA user_version = 1;";
    let row = "INSERT INTO analysis (id, service, started, order_json, rules_name, rules_text) \
               VALUES ('a', 'shop', 1000, '{}', 'shop', 'rules: []');";
    for sql in [schema, mark, row] {
        sqlx::raw_sql(sql).execute(&old).await.expect(sql);
    }
    old.close().await;
    let store = open(&path).await;
    let stored = store.running().await.expect("lists").remove(0);
    assert_eq!((stored.new, stored.state), (new("a"), StoredState::Running));
    store.commit(vec![look("a", 1)]).await.expect("commits");
    store.keep(vec![kept("shop", &key("a"), past(5, 1.0), BOUNDS)]).await.expect("keeps");
    store.close().await;
    assert_eq!(all(&open(&path).await, "shop", &key("a")).await, [past(5, 1.0)]);
}

#[tokio::test]
async fn what_cannot_be_read_back_is_not_kept() {
    let store = SqliteStore::in_memory().await.expect("opens");
    let error = store
        .keep(vec![
            kept("shop", &key("a"), past(0, 1.0), BOUNDS),
            kept("shop", &key("a"), past(1, f64::NAN), BOUNDS),
        ])
        .await;
    assert!(error.expect_err("no number").to_string().contains("NaN"));
    assert_eq!(all(&store, "shop", &key("a")).await, []);
}
