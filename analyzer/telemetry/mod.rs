//! What rollgate says about itself: one method per fact, which writes the log line and moves the
//! metric together, so that the two cannot disagree.

pub mod secret;
pub mod source;

use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;

/// The handle every part reports facts to. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    registry: Arc<Mutex<Registry>>,
    source: source::SourceMetrics,
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::default();
        let source = source::SourceMetrics::register(&mut registry);
        Self { registry: Arc::new(Mutex::new(registry)), source }
    }
}

impl Telemetry {
    /// A fresh set of metrics at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Our own `/metrics` body, in OpenMetrics text.
    pub fn render(&self) -> String {
        let mut body = String::new();
        let registry = self.registry.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        prometheus_client::encoding::text::encode(&mut body, &registry)
            .expect("writing to a String cannot fail");
        body
    }
}
