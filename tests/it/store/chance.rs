//! Random looks, as odd as a record may hold them, for the store's model test.

use std::{collections::BTreeMap, sync::Arc};

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use rollgate::{
    engine::observation::{
        Arm, Health, Histogram, Missing, Observation, Pair, Part, PartKind, Parts, Reading, Time,
        Value, Why,
    },
    signal::{
        carry::{Carry, InstanceCarry},
        sample::Labels,
    },
    store::Look,
};

use super::{advanced, decided, look};

/// What the model and the store are given.
pub(super) struct Random(pub(super) StdRng);

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

    /// A look of an analysis, mostly the next after `last` and those ahead of it.
    pub(super) fn look(&mut self, id: &str, last: u64, ahead: u64, at: i64) -> Look {
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
