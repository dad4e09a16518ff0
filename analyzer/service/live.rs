//! The board of running analyses: the newest view of each, for whoever follows it.
//!
//! The driver is its only writer; the desk reads. Views appear here only after they are durable.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use tokio::sync::watch;

use crate::api::desk::AnalysisView;

/// Newest views by analysis id.
#[derive(Clone, Default)]
pub struct Board {
    views: Arc<RwLock<HashMap<String, watch::Sender<Arc<AnalysisView>>>>>,
}

impl Board {
    /// Shows a view, replacing the one before.
    pub fn show(&self, view: AnalysisView) {
        let mut views = self.views.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        match views.get(&view.id) {
            Some(sender) => {
                sender.send_replace(Arc::new(view));
            }
            None => {
                views.insert(view.id.clone(), watch::Sender::new(Arc::new(view)));
            }
        }
    }

    /// Takes an analysis off; followers see the last view and then the end.
    pub fn remove(&self, id: &str) {
        self.views.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(id);
    }

    /// Follows an analysis; none when it is not running.
    pub fn follow(&self, id: &str) -> Option<watch::Receiver<Arc<AnalysisView>>> {
        let views = self.views.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        views.get(id).map(watch::Sender::subscribe)
    }

    /// Analyses that run now.
    pub fn len(&self) -> usize {
        self.views.read().unwrap_or_else(|poisoned| poisoned.into_inner()).len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
