//! The accept loop: connections are bounded, heads have a time limit, and shutdown has a deadline.
//!
//! HTTP/1.1 only; TLS and HTTP/2 are left to a proxy in front.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{ApiOptions, stall::Patience};
use crate::telemetry::Telemetry;

/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a request's head and of one read, at most.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Serves until `stop`; then accepts nothing more, lets open requests finish within
/// [`ApiOptions::shutdown_timeout`], and cuts off those that do not.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    telemetry: Telemetry,
    options: ApiOptions,
    stop: CancellationToken,
) -> io::Result<()> {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(options.connections_max));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                telemetry.http().accept_failed(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Events are small and must not wait for more to send; without it they are only later.
        let _ = stream.set_nodelay(true);
        let stream = Patience::new(stream, options.stall_timeout);
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let watched = graceful.watch(connection);
        let telemetry = telemetry.clone();
        connections.spawn(async move {
            let _counted = telemetry.http().connected();
            if let Err(error) = watched.await {
                telemetry.http().connection_failed(&error);
            }
            drop(slot);
        });
    }
    drop(listener);
    let limit = options.shutdown_timeout;
    if tokio::time::timeout(limit, graceful.shutdown()).await.is_err() {
        telemetry.http().cut_off(limit);
    }
    connections.shutdown().await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}
