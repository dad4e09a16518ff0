//! What can be wrong with a demo service, and the switch that makes it so while it runs.
//!
//! The switch also remembers when the first request was served badly because of it, so that the
//! demo can say how long the verdict took. The natural 0.2 % of errors never counts.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::watch;

use super::unix_secs;

/// What is wrong with a service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// This share of requests, 0..1, is answered with a 500.
    Errors {
        /// Share of requests.
        share: f64,
    },
    /// Every request takes this many times as long.
    Latency {
        /// The multiple.
        factor: f64,
    },
    /// The process dies at once, comes back after a back-off, and dies again after `every`.
    Crash {
        /// How long each restarted process lives.
        every: Duration,
    },
    /// Every request leaves this much memory behind.
    Leak {
        /// Bytes a request.
        bytes_per_request: u64,
    },
    /// Every request leaves this much memory behind until there is `keep_bytes` of it, and then all
    /// of it is given back at once: what a garbage collector's heap looks like. No harm is done.
    SawTooth {
        /// Bytes a request.
        bytes_per_request: u64,
        /// Where it is given back.
        keep_bytes: u64,
    },
    /// Connections are accepted and nothing is ever answered.
    Hang,
    /// Clients' requests are never answered, while metrics and health are: no counter moves.
    Stall,
}

/// Sets the fault of a running service. Cheap to clone; all clones move the same switch.
#[derive(Clone, Debug)]
pub struct FaultSwitch {
    fault: watch::Sender<Fault>,
    first_bad: Arc<OnceLock<f64>>,
}

impl FaultSwitch {
    /// A switch in the position [`Fault::None`].
    pub fn new() -> Self {
        Self { fault: watch::Sender::new(Fault::None), first_bad: Arc::default() }
    }

    /// Makes `fault` so, from the next request on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// The fault now.
    pub fn current(&self) -> Fault {
        *self.fault.borrow()
    }

    /// Unix time, in seconds, of the first request that was served badly because of a fault: its
    /// arrival, or for [`Fault::Crash`] the moment from which connections were cut and refused.
    pub fn first_bad_unix_secs(&self) -> Option<f64> {
        self.first_bad.get().copied()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Fault> {
        self.fault.subscribe()
    }

    pub(super) fn mark_bad(&self) {
        self.first_bad.get_or_init(unix_secs);
    }
}

impl Default for FaultSwitch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bad_request_is_remembered_and_never_replaced() {
        let switch = FaultSwitch::new();
        assert_eq!(switch.first_bad_unix_secs(), None);
        switch.mark_bad();
        let first = switch.first_bad_unix_secs();
        assert!(first.is_some());
        switch.clone().mark_bad();
        assert_eq!(switch.first_bad_unix_secs(), first);
    }
}
