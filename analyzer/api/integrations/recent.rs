//! What controllers were told lately, for when the store does not answer: a verdict that was final
//! stays final, and a running analysis is known by its id.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

use super::super::verdict::SmallVerdict;

/// Analyses that are remembered; the oldest are forgotten first.
const RECENT_MAX: usize = 2_000;

/// Answers by the key of their analysis.
#[derive(Default)]
pub(in crate::api) struct Recent {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    told: BTreeMap<String, SmallVerdict>,
    order: VecDeque<String>,
}

impl Recent {
    /// Remembers what was told of the analysis with this key.
    pub(super) fn remember(&self, key: &str, told: &SmallVerdict) {
        let Ok(mut inner) = self.inner.lock() else { return };
        if inner.told.insert(key.to_owned(), told.clone()).is_some() {
            return;
        }
        inner.order.push_back(key.to_owned());
        if inner.order.len() > RECENT_MAX
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.told.remove(&oldest);
        }
    }

    /// What was told last.
    pub(super) fn told(&self, key: &str) -> Option<SmallVerdict> {
        self.inner.lock().ok()?.told.get(key).cloned()
    }
}
