//! A real HTTP service on loopback: three routes with log-normal service times, `/metrics`,
//! `/health`, and a fault on a switch.
//!
//! What is simulated is the work behind a route (a timer) and the memory reported; requests,
//! answers, connections, refusals and counters are real. A crash closes the listening socket, cuts
//! every connection and forgets every counter, but keeps the port, as a restarted process would.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode, body::Incoming, header};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    chance::log_normal,
    exposition::{Counters, Format, Page, Route},
    fault::{Fault, FaultSwitch},
    server::{self, Answer, answer, serve_until},
    unix_secs,
};

/// Share of requests that fail in a healthy service too.
pub const NATURAL_ERROR_SHARE: f64 = 0.002;

/// Waits before a crashed process comes back; the last one repeats.
pub const RESTART_BACKOFF_SECS: [u64; 3] = [1, 2, 4];

/// Largest request body that is read.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Connections served at once; more wait until one ends.
pub const CONNECTIONS_MAX: usize = server::CONNECTIONS_MAX;

/// Spread of the service times: deviation of their logarithm.
const SERVICE_SIGMA: f64 = 0.45;

/// What a small service holds before it leaks anything.
const RESIDENT_BYTES: u64 = 48 * 1024 * 1024;

/// Connections waiting to be accepted.
const BACKLOG: u32 = 1024;

/// The routes with the median of their service time, in seconds.
const ROUTES: [(Route, f64); 3] = [
    (("GET", "/api/items"), 0.020),
    (("POST", "/api/orders"), 0.040),
    (("GET", "/api/search"), 0.060),
];

/// What to start.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Name in `/health` and `app_build_info`.
    pub name: String,
    /// Version in the same places.
    pub version: String,
    /// Seed of its service times and errors.
    pub seed: u64,
}

/// A running service. Dropping it ends it too, without waiting.
#[derive(Debug)]
pub struct Service {
    /// Where it listens, over all its lives.
    pub addr: SocketAddr,
    /// What is wrong with it.
    pub fault: FaultSwitch,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Service {
    /// Starts a healthy service on a free port of loopback.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(options: ServiceOptions) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let (fault, stop) = (FaultSwitch::new(), CancellationToken::new());
        let task = tokio::spawn(live(listener, addr, options, fault.clone(), stop.clone()));
        Ok(Self { addr, fault, stop, task })
    }

    /// Ends the service: its port is closed when this returns.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One life after the other, until stopped.
async fn live(
    mut listener: TcpListener,
    addr: SocketAddr,
    options: ServiceOptions,
    fault: FaultSwitch,
    stop: CancellationToken,
) {
    // One generator over all lives: a restarted process must not repeat the same luck.
    let chance = Arc::new(Mutex::new(StdRng::seed_from_u64(options.seed)));
    let options = Arc::new(options);
    let mut crashes = 0;
    loop {
        let process = Arc::new(Process::begin(&options, &fault, &chance));
        let handler = move |request| respond(Arc::clone(&process), request);
        let end = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = crash(fault.watch()) => fault.mark_bad(),
            }
        };
        serve_until(listener, handler, end).await;
        if stop.is_cancelled() {
            return;
        }
        // Bound but not listening: connections are refused, and nobody else is given the port.
        let Ok(reserved) = reserve(addr) else { return };
        let wait = RESTART_BACKOFF_SECS[crashes.min(RESTART_BACKOFF_SECS.len() - 1)];
        crashes += 1;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(wait)) => {}
        }
        let Ok(again) = reserved.listen(BACKLOG) else { return };
        listener = again;
    }
}

fn reserve(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// Resolves when the process has to die: at once when the switch is moved to a crash, and after
/// its time when the process began under one.
async fn crash(mut fault: watch::Receiver<Fault>) {
    let at_birth = *fault.borrow_and_update();
    if let Fault::Crash { every } = at_birth {
        tokio::select! {
            () = tokio::time::sleep(every) => return,
            _ = fault.changed() => {}
        }
    }
    // The switch outlives the service's task, so waiting ends by the fault only.
    if fault.wait_for(|fault| matches!(fault, Fault::Crash { .. })).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One life of the service: what a restart forgets.
struct Process {
    options: Arc<ServiceOptions>,
    fault: FaultSwitch,
    chance: Arc<Mutex<StdRng>>,
    counters: Mutex<Counters>,
    leaked_bytes: AtomicU64,
    started_unix_secs: f64,
}

impl Process {
    fn begin(
        options: &Arc<ServiceOptions>,
        fault: &FaultSwitch,
        chance: &Arc<Mutex<StdRng>>,
    ) -> Self {
        Self {
            options: Arc::clone(options),
            fault: fault.clone(),
            chance: Arc::clone(chance),
            counters: Mutex::new(Counters::at_zero(ROUTES.map(|(route, _)| route))),
            leaked_bytes: AtomicU64::new(0),
            started_unix_secs: unix_secs(),
        }
    }

    /// How this request will go: seconds of work, and whether it fails.
    fn fate(&self, median_secs: f64) -> (f64, bool) {
        let mut rng = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        let secs = log_normal(&mut rng, median_secs, SERVICE_SIGMA);
        let natural = rng.random_bool(NATURAL_ERROR_SHARE);
        match self.fault.current() {
            Fault::None | Fault::Crash { .. } | Fault::Hang | Fault::Stall => (secs, natural),
            Fault::Errors { share } => {
                let injected = rng.random_bool(share.clamp(0.0, 1.0));
                if injected {
                    self.fault.mark_bad();
                }
                (secs, natural || injected)
            }
            Fault::Latency { factor } => {
                self.fault.mark_bad();
                (secs * factor, natural)
            }
            Fault::Leak { bytes_per_request } => {
                self.fault.mark_bad();
                self.leaked_bytes.fetch_add(bytes_per_request, Ordering::Relaxed);
                (secs, natural)
            }
            Fault::SawTooth { bytes_per_request, keep_bytes } => {
                let held = self.leaked_bytes.fetch_add(bytes_per_request, Ordering::Relaxed);
                if held >= keep_bytes {
                    self.leaked_bytes.store(0, Ordering::Relaxed);
                }
                (secs, natural)
            }
        }
    }

    fn record(&self, route: Route, code: StatusCode, since: Instant) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.record(route, code.as_u16(), since.elapsed().as_secs_f64());
    }

    fn metrics(&self, format: Format) -> String {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Page {
            counters: &counters,
            started_unix_secs: self.started_unix_secs,
            resident_bytes: RESIDENT_BYTES + self.leaked_bytes.load(Ordering::Relaxed),
            name: &self.options.name,
            version: &self.options.version,
        }
        .render(format)
    }
}

async fn respond(process: Arc<Process>, request: Request<Incoming>) -> Answer {
    let arrived = Instant::now();
    let route = ROUTES.into_iter().find(|((method, path), _)| {
        request.method().as_str() == *method && request.uri().path() == *path
    });
    let hangs = |fault: &Fault| match fault {
        Fault::Hang => true,
        Fault::Stall => route.is_some(),
        Fault::None
        | Fault::Errors { .. }
        | Fault::Latency { .. }
        | Fault::Crash { .. }
        | Fault::Leak { .. }
        | Fault::SawTooth { .. } => false,
    };
    if hangs(&process.fault.current()) {
        // Only clients' requests count as served badly; a probe that hangs harms nobody.
        if route.is_some() {
            process.fault.mark_bad();
        }
        let _ = process.fault.watch().wait_for(|fault| !hangs(fault)).await;
    }
    match (route, request.method(), request.uri().path()) {
        (Some((route, median_secs)), _, _) => work(&process, route, median_secs, request).await,
        (None, &Method::GET, "/metrics") => metrics(&process, &request),
        (None, &Method::GET, "/health") => health(&process),
        (None, _, _) => {
            process.record(("other", "other"), StatusCode::NOT_FOUND, arrived);
            answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "no such route\n")
        }
    }
}

async fn work(
    process: &Process,
    route: Route,
    median_secs: f64,
    request: Request<Incoming>,
) -> Answer {
    let arrived = Instant::now();
    let (secs, fails) = process.fate(median_secs);
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let (code, body) = if body.is_err() {
        (StatusCode::PAYLOAD_TOO_LARGE, json!({"error": "the body is over 64 KiB"}))
    } else {
        tokio::time::sleep(Duration::from_secs_f64(secs)).await;
        if fails {
            (StatusCode::INTERNAL_SERVER_ERROR, json!({"error": "something went wrong"}))
        } else {
            (StatusCode::OK, json!({"ok": true}))
        }
    };
    process.record(route, code, arrived);
    answer(code, "application/json", body.to_string())
}

fn metrics(process: &Process, request: &Request<Incoming>) -> Answer {
    let asked = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let format = Format::accepted(asked(header::ACCEPT).unwrap_or_default());
    let text = process.metrics(format);
    if !asked(header::ACCEPT_ENCODING).is_some_and(|codings| codings.contains("gzip")) {
        return answer(StatusCode::OK, format.content_type(), text);
    }
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = io::Write::write_all(&mut packer, text.as_bytes()).and_then(|()| packer.finish());
    let mut packed = match packed {
        Ok(bytes) => answer(StatusCode::OK, format.content_type(), bytes),
        Err(_) => return answer(StatusCode::OK, format.content_type(), text),
    };
    let gzip = header::HeaderValue::from_static("gzip");
    packed.headers_mut().insert(header::CONTENT_ENCODING, gzip);
    packed
}

fn health(process: &Process) -> Answer {
    let uptime_secs = unix_secs() - process.started_unix_secs;
    let body = json!({
        "status": "pass",
        "serviceId": process.options.name,
        "version": process.options.version,
        "checks": {"uptime": [{
            "componentType": "system",
            "observedValue": uptime_secs,
            "observedUnit": "s",
            "status": "pass",
        }]},
    });
    answer(StatusCode::OK, "application/health+json", body.to_string())
}
