//! Seeded random operations on the store and on a slow model of it, which must agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rollgate::{
    engine::observation::{
        Arm, Health, Histogram, Missing, Observation, Pair, Part, PartKind, Parts, Reading, Time,
        Value, Why,
    },
    signal::{
        carry::{Carry, InstanceCarry},
        sample::Labels,
    },
    store::{
        AttemptRecord, Created, Decision, DeliveryCounts, DeliveryState, Filter, Look, NewAnalysis,
        PAGE_MAX, Store, StoreError, StoredAnalysis, StoredDelivery, StoredState,
        sqlite::SqliteStore,
    },
};

use super::{advanced, decided, folder, look, new, open};

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
            *entry = (look.look, look.decision.as_ref().is_some_and(Decision::is_final));
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
            if decision.is_final() {
                analysis.state = StoredState::Finished;
                analysis.verdict = Some(look.verdict);
                analysis.ended = Some(decision.at);
            }
            take_back(&mut self.deliveries, &id);
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
                take_back(&mut self.deliveries, id);
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
            .map(|_| {
                let pair = Pair::new(self.reading(&edges), self.reading(&edges));
                let parts = Parts { canary: self.parts(&edges), baseline: self.parts(&edges) };
                Pair { parts, ..pair }
            })
            .collect();
        let at = Time(self.0.random_range(-5..i64::MAX / 2));
        Observation { at, signals, canary_gap: self.reading(&edges).err(), instances: None }
    }

    fn parts(&mut self, edges: &Arc<[f64]>) -> Vec<Part> {
        let mut parts = Vec::new();
        for _ in 0..self.0.random_range(0..4) {
            let Ok(value) = self.reading(edges) else { continue };
            let kind = [PartKind::Instance, PartKind::Route][self.0.random_range(0..2usize)];
            let name = format!("GET /\u{e4} \"{}\"", self.0.random_range(0..3)).into();
            let started = self.0.random::<bool>().then(|| Time(self.0.random()));
            parts.push(Part { kind, name, started, value });
        }
        parts
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
                life_began: self.0.random::<bool>().then(|| Time(self.0.random())),
                been_up: vec![1, 4],
                counters,
                natives: BTreeMap::new(),
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
            match self.0.random_bool(0.5) {
                true => decided(id, number, at, mechanisms),
                // Looks only go up, so that each advance is to another step.
                false => advanced(id, number, number as usize, mechanisms),
            }
        } else {
            look(id, number)
        };
        Look { observation: self.observation(), carry: self.carry(), ..base }
    }
}

/// Ends what is pending of an analysis.
fn take_back(deliveries: &mut [StoredDelivery], id: &str) {
    for row in deliveries {
        if row.analysis == id && row.state == DeliveryState::Pending {
            row.state = DeliveryState::Dead;
            row.last_answer = Some("taken back: a later decision stands".to_owned());
        }
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
            // Mostly analyses that still run, or hardly any commit would be accepted.
            let is_over = |id: &String| model.analyses[id].state != StoredState::Running;
            looks.retain(|look| {
                random.0.random_bool(0.05)
                    || !ids.iter().any(|id| *id == look.analysis && is_over(id))
            });
            if let Some(other) = ids.iter().find(|id| **id != some_id && !is_over(id)) {
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
    let looks: usize = model.journal.values().map(Vec::len).sum();
    assert!(looks > 50 && model.deliveries.len() > 10, "{looks} looks say too little");
}
