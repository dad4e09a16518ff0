//! The accept loop: connections are bounded, handshakes and heads have a time limit, and shutdown
//! has a deadline.
//!
//! HTTP/1.1 only, plain or by TLS. It serves any router; nothing here knows what is asked.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{ApiOptions, stall::Patience};
use crate::telemetry::Telemetry;

/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a request's head and of one read, at most.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Time for a client that speaks no TLS to take our word on it.
const WORD_TIMEOUT: Duration = Duration::from_secs(1);
/// What such a client is told. Most of them speak HTTP.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 40\r\n\r\nthis port speaks TLS, ask it by https://";

/// What every connection is given.
#[derive(Clone)]
struct Connections {
    router: Router,
    telemetry: Telemetry,
    options: Arc<ApiOptions>,
}

/// Serves until `stop`; then accepts nothing more, lets open requests finish within
/// [`ApiOptions::shutdown_timeout`], and cuts off those that do not. Of the options it uses the
/// certificates and the limits of connections.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    telemetry: Telemetry,
    options: ApiOptions,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut upkeep = JoinSet::new();
    if let Some(certificates) = &options.certificates {
        upkeep.spawn(certificates.clone().keep_fresh(telemetry.clone()));
    }
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(options.connections_max));
    let mut open = JoinSet::new();
    let limit = options.shutdown_timeout;
    let options = Arc::new(options);
    let connections = Connections { router, telemetry, options };
    loop {
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                connections.telemetry.http().accept_failed(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (connections, watcher) = (connections.clone(), graceful.watcher());
        let stopped = stop.clone();
        open.spawn(async move {
            let _counted = connections.telemetry.http().connected();
            connections.hold(stream, watcher, stopped).await;
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(limit, graceful.shutdown()).await.is_err() {
        connections.telemetry.http().cut_off(limit);
    }
    open.shutdown().await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

impl Connections {
    /// One connection, from its first byte to its last.
    async fn hold(&self, stream: TcpStream, watcher: Watcher, stop: CancellationToken) {
        // Events are small and must not wait for more to send; without it they are only later.
        let _ = stream.set_nodelay(true);
        let stream = Patience::new(stream, self.options.stall_timeout);
        let Some(certificates) = &self.options.certificates else {
            return self.converse(stream, watcher).await;
        };
        let acceptor = TlsAcceptor::from(certificates.config());
        let limit = self.options.header_timeout;
        let shaking = tokio::time::timeout(limit, acceptor.accept(stream).into_fallible());
        // Nothing was asked yet, so nothing is owed at the end.
        let shaken = tokio::select! {
            shaken = shaking => shaken,
            () = stop.cancelled() => return,
        };
        let tls = self.telemetry.http().tls();
        match shaken {
            Ok(Ok(stream)) => self.converse(stream, watcher).await,
            Ok(Err((error, mut stream))) => {
                let what = said_of(&error);
                tls.handshake_failed(what, &error.to_string());
                if what == NO_TLS {
                    let word = async {
                        let _ = stream.write_all(NOT_TLS).await;
                        let _ = stream.shutdown().await;
                    };
                    // Who does not take it knows anyway that it failed.
                    let _ = tokio::time::timeout(WORD_TIMEOUT, word).await;
                }
            }
            Err(_) => tls.handshake_failed("slow", "the handshake did not end in time"),
        }
    }

    async fn converse<S>(&self, stream: S, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            self.telemetry.http().connection_failed(&error);
        }
    }
}

const NO_TLS: &str = "no_tls";

/// What was wrong with a handshake, in one of a few words.
fn said_of(error: &io::Error) -> &'static str {
    use rustls::{Error, InvalidMessage};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => NO_TLS,
        Some(Error::NoCertificatesPresented) => "no_client_certificate",
        Some(Error::InvalidCertificate(_)) => "client_certificate",
        Some(Error::AlertReceived(_)) => "client_refused",
        Some(_) => "protocol",
        None => "cut",
    }
}
