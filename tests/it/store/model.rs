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
        ATTEMPTS_KEPT, AttemptRecord, Created, Decision, Deed, DeliveryFilter, DeliveryState,
        DeliveryTally, Filter, Intervention, Look, NewAnalysis, NewDelivery, Override, PAGE_MAX,
        Resent, Signed, Store, StoreError, StoredAnalysis, StoredAttempt, StoredDelivery,
        StoredState, sqlite::SqliteStore,
    },
};

use super::{advanced, ann, attempt, decided, folder, look, new, open};

/// What a store is, in the slowest and most obvious way.
#[derive(Default)]
struct Model {
    analyses: BTreeMap<String, StoredAnalysis>,
    newest_verdict: BTreeMap<String, String>,
    journal: BTreeMap<String, Vec<(u64, Observation)>>,
    carry: BTreeMap<String, Carry>,
    deliveries: Vec<StoredDelivery>,
    /// The step that was gone to last.
    steps: BTreeMap<String, usize>,
    attempts: BTreeMap<String, Vec<StoredAttempt>>,
    interventions: BTreeMap<String, Vec<Intervention>>,
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
            self.steps.extend(decision.advance_to.map(|step| (id.clone(), step)));
            if decision.is_final() {
                analysis.state = StoredState::Finished;
                analysis.verdict = Some(look.verdict);
                analysis.ended = Some(decision.at);
            }
            self.tell(&id, decision.at, decision.deliveries);
        }
    }

    fn tell(&mut self, id: &str, at: Time, deliveries: Vec<NewDelivery>) {
        take_back(&mut self.deliveries, id, "a later decision stands");
        let service = self.analyses[id].new.service.clone();
        self.deliveries.extend(deliveries.into_iter().map(|new| StoredDelivery {
            analysis: id.to_owned(),
            service: service.clone(),
            new,
            state: DeliveryState::Pending,
            attempts: 0,
            created: at,
            tried_since: at,
            tries: 0,
            next_due: at,
            last_attempt: None,
            delivered: None,
            last_answer: None,
        }));
    }

    fn cancel(&mut self, id: &str, note: &str, by: &Signed) -> bool {
        match self.analyses.get_mut(id) {
            Some(analysis) if analysis.state == StoredState::Running => {
                take_back(&mut self.deliveries, id, "the analysis was cancelled");
                analysis.state = StoredState::Cancelled;
                analysis.cancel_note = Some(note.to_owned());
                analysis.ended = Some(by.at);
                self.stepped_in(id, by, Deed::Cancel);
                true
            }
            _ => false,
        }
    }

    fn override_verdict(&mut self, order: Override) -> bool {
        match self.analyses.get_mut(&order.analysis) {
            Some(analysis) if analysis.state == StoredState::Running => {
                analysis.state = StoredState::Finished;
                analysis.verdict = Some(order.verdict.clone());
                analysis.report = Some(order.report);
                analysis.ended = Some(order.by.at);
                let id = order.analysis;
                self.newest_verdict.insert(id.clone(), order.verdict.clone());
                self.tell(&id, order.by.at, order.deliveries);
                self.stepped_in(&id, &order.by, Deed::Override { verdict: order.verdict });
                true
            }
            _ => false,
        }
    }

    fn stepped_in(&mut self, id: &str, by: &Signed, deed: Deed) {
        let all = self.interventions.entry(id.to_owned()).or_default();
        all.push(Intervention { by: by.clone(), deed });
    }

    fn record_attempt(&mut self, attempt: AttemptRecord) {
        let mut rows = self.deliveries.iter_mut();
        let row = rows.find(|row| row.new.key == attempt.key).expect("known");
        let (pending, delivered) = (DeliveryState::Pending, DeliveryState::Delivered);
        if row.state != pending && row.state != DeliveryState::TakenBack {
            return;
        }
        row.next_due = attempt.next_due;
        // One that was taken back on its way is delivered when it arrived after all, and else stays.
        if row.state == pending || attempt.state == delivered {
            row.state = attempt.state;
            row.last_answer = Some(attempt.answer.clone());
        }
        if attempt.state == DeliveryState::Nothing {
            return;
        }
        row.attempts += 1;
        row.tries += 1;
        row.last_attempt = Some(attempt.began);
        if attempt.state == delivered {
            row.delivered = Some(Time(attempt.began.0 + attempt.took_ms as i64));
        }
        let kept = self.attempts.entry(attempt.key).or_default();
        kept.push(StoredAttempt {
            number: row.attempts,
            began: attempt.began,
            took_ms: attempt.took_ms,
            outcome: attempt.state,
            answer: attempt.answer,
        });
        if kept.len() > ATTEMPTS_KEPT as usize {
            kept.remove(0);
        }
    }

    fn resend(&mut self, key: &str, by: &Signed) -> Resent {
        let Some(place) = self.deliveries.iter().position(|row| row.new.key == key) else {
            return Resent::Unknown;
        };
        let row = &self.deliveries[place];
        let analysis = &self.analyses[&row.analysis];
        let is_advance = row.new.action == "advance";
        match analysis.state {
            StoredState::Cancelled => {
                return Resent::Superseded("the analysis was cancelled".to_owned());
            }
            StoredState::Finished if is_advance => {
                let verdict = analysis.verdict.as_deref().expect("it is over");
                return Resent::Superseded(format!("the verdict {verdict} stands"));
            }
            StoredState::Running if self.gone_beyond(row) => {
                return Resent::Superseded("a later step was gone to".to_owned());
            }
            StoredState::Running | StoredState::Finished => {}
        }
        let row = &mut self.deliveries[place];
        (row.state, row.tries) = (DeliveryState::Pending, 0);
        (row.next_due, row.tried_since) = (by.at, by.at);
        let id = row.analysis.clone();
        self.stepped_in(&id, by, Deed::Resend { delivery: key.to_owned() });
        Resent::Again
    }

    fn gone_beyond(&self, row: &StoredDelivery) -> bool {
        let step = self.steps.get(&row.analysis).copied().unwrap_or(0);
        !row.new.key.contains(&format!(".step{step}."))
    }

    fn list_deliveries(&self, filter: &DeliveryFilter) -> Vec<StoredDelivery> {
        let wanted = |row: &&StoredDelivery| {
            filter.state.is_none_or(|state| row.state == state)
                && filter.mechanism.as_ref().is_none_or(|name| row.new.mechanism == *name)
                && filter.analysis.as_ref().is_none_or(|id| row.analysis == *id)
        };
        let bare = |row: &StoredDelivery| {
            let mut row = row.clone();
            row.new.body.clear();
            row
        };
        self.deliveries.iter().rev().filter(wanted).map(bare).collect()
    }

    fn tally(&self) -> Vec<DeliveryTally> {
        let mut tallies: BTreeMap<String, DeliveryTally> = BTreeMap::new();
        for row in &self.deliveries {
            let mechanism = row.new.mechanism.clone();
            let tally = tallies.entry(mechanism.clone()).or_default();
            tally.mechanism = mechanism;
            *tally.by_state.entry(row.state).or_default() += 1;
            if row.state == DeliveryState::Pending {
                let oldest = tally.oldest_pending.unwrap_or(row.created);
                tally.oldest_pending = Some(oldest.min(row.created));
            }
        }
        tallies.into_values().collect()
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
            self.interventions.remove(id);
            for row in self.deliveries.iter().filter(|row| row.analysis == *id) {
                self.attempts.remove(&row.new.key);
            }
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
        Observation { at, signals, canary_gap: self.reading(&edges).err() }
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
fn take_back(deliveries: &mut [StoredDelivery], id: &str, why: &str) {
    for row in deliveries {
        if row.analysis == id && row.state == DeliveryState::Pending {
            row.state = DeliveryState::TakenBack;
            row.last_answer = Some(format!("taken back: {why}"));
        }
    }
}

/// One random operation on both; they must agree on what came of it.
async fn operate(random: &mut Random, store: &SqliteStore, model: &mut Model, step: i64) {
    let ids: Vec<String> = model.analyses.keys().cloned().collect();
    let some_id = ids.choose(&mut random.0).cloned().unwrap_or_else(|| "none".to_owned());
    match random.0.random_range(0..22) {
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
            let cancelled = store.cancel(&some_id, "{}", &ann(step)).await.expect("cancels");
            assert_eq!(cancelled, model.cancel(&some_id, "{}", &ann(step)));
        }
        20 => {
            let verdict = decided(&some_id, 1, step, &["b", "a"]).decision.expect("decides");
            let order = Override {
                analysis: some_id,
                verdict: if random.0.random() { "promote" } else { "rollback" }.to_owned(),
                by: ann(step),
                report: format!("{{\"overridden\":{step}}}"),
                deliveries: verdict.deliveries,
            };
            let stands = store.override_verdict(order.clone()).await.expect("overrides");
            assert_eq!(stands, model.override_verdict(order));
        }
        21 => {
            let keys: Vec<String> =
                model.deliveries.iter().map(|row| row.new.key.clone()).collect();
            let key = keys.choose(&mut random.0).map_or("nobody", |key| key);
            let resent = store.resend(key, &ann(step)).await.expect("sends again");
            assert_eq!(resent, model.resend(key, &ann(step)), "{key}");
        }
        14..=16 => {
            let keys: Vec<String> =
                model.deliveries.iter().map(|row| row.new.key.clone()).collect();
            // The same delivery again and again, so that more attempts are made than are kept.
            let often = if step % 3 == 0 { keys.first() } else { keys.choose(&mut random.0) };
            let Some(key) = often else { return };
            let mut attempts = Vec::new();
            for nth in 0..random.0.random_range(1..4) {
                let state = match random.0.random_range(0..8) {
                    0 => DeliveryState::Delivered,
                    1 => DeliveryState::Dead,
                    2 => DeliveryState::Refused,
                    3 => DeliveryState::Nothing,
                    _ => DeliveryState::Pending,
                };
                let next_due = Time(step + random.0.random_range(0..50));
                let answer = format!("answer {step} {nth}");
                let key = if nth == 0 { key } else { keys.last().expect("one at least") };
                attempts.push(attempt(key, state, next_due, &answer));
            }
            let unknown = store.record_attempts(&attempts).await.expect("records");
            assert_eq!(unknown, [""; 0]);
            attempts.into_iter().for_each(|attempt| model.record_attempt(attempt));
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
        let interventions = model.interventions.get(id).cloned().unwrap_or_default();
        assert_eq!(store.interventions(id).await.expect("reads"), interventions);
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
    assert_eq!(store.tally().await.expect("counts"), model.tally());
    for row in &model.deliveries {
        let key = &row.new.key;
        assert_eq!(store.delivery(key).await.expect("reads").as_ref(), Some(row));
        let attempts = model.attempts.get(key).cloned().unwrap_or_default();
        assert_eq!(store.attempts(key).await.expect("reads"), attempts);
    }
    let some = model.deliveries.first().map(|row| row.analysis.clone());
    for filter in [
        DeliveryFilter::default(),
        DeliveryFilter { state: Some(DeliveryState::Pending), ..DeliveryFilter::default() },
        DeliveryFilter { mechanism: Some("b".to_owned()), ..DeliveryFilter::default() },
        DeliveryFilter {
            state: Some(DeliveryState::TakenBack),
            mechanism: Some("a".to_owned()),
            analysis: some,
            ..DeliveryFilter::default()
        },
    ] {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let filter = DeliveryFilter { after, limit: 7, ..filter.clone() };
            let page = store.list_deliveries(filter).await.expect("lists");
            rows.extend(page.rows);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(rows, model.list_deliveries(&filter));
    }
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
