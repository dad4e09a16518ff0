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
/// What a client is told that speaks no TLS where it should.
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
        let stall = self.options.stall_timeout;
        let Some(certificates) = &self.options.certificates else {
            return self.converse(Patience::new(stream, stall), watcher).await;
        };
        let tls = self.telemetry.http().tls();
        let shaking = async {
            if !begins_tls(&stream).await? {
                tls.handshake_failed("no_tls", "it began with something else");
                return refuse(stream).await.map(|()| None);
            }
            let acceptor = TlsAcceptor::from(certificates.config());
            acceptor.accept(Patience::new(stream, stall)).await.map(Some)
        };
        // Nothing was asked yet, so nothing is owed at the end.
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(self.options.header_timeout, shaking) => shaken,
            () = stop.cancelled() => return,
        };
        match shaken {
            Ok(Ok(Some(stream))) => self.converse(stream, watcher).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tls.handshake_failed(said_of(&error), &error.to_string()),
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

/// Whether the first byte that comes is that of a TLS handshake (RFC 8446, 5.1).
async fn begins_tls(stream: &TcpStream) -> io::Result<bool> {
    const HANDSHAKE: u8 = 22;
    let mut first = [0; 1];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first == [HANDSHAKE]),
    }
}

/// Says that TLS is spoken here, to a client that most likely speaks HTTP.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    // Closing with bytes unread would take the answer back.
    let _ = stream.try_read(&mut [0; HEAD_BYTES_MAX]);
    stream.write_all(NOT_TLS).await?;
    stream.shutdown().await
}

/// What was wrong with a handshake, in one of a few words.
fn said_of(error: &io::Error) -> &'static str {
    use rustls::Error;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => "no_client_certificate",
        Some(Error::InvalidCertificate(_)) => "client_certificate",
        Some(Error::AlertReceived(_)) => "client_refused",
        Some(_) => "protocol",
        None => "cut",
    }
}
