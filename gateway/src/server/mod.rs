//! Takes connections and serves any router on them: HTTP/1.1, and HTTP/2 over TLS, with a time-out for headers, a cap on connections,
//! and a graceful end.
//!
//! `axum::serve` has neither time-out nor cap, so that one idle script could hold every file descriptor; hence hyper's own builder.
//!
//! **Invariant:** at most `connections` sockets are open; a peer that sends nothing is gone after `header_timeout_ms`; after the
//! shutdown signal no connection outlives `drain_timeout_ms`.

mod connection;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use self::connection::Service;
pub use self::tls::{Tls, TlsError, TlsFiles};

/// Bounds of the HTTP server; part of `[gateway]` or a section of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Connections open at once; further ones wait in the system's backlog.
    pub connections: u32,
    /// A request's headers must arrive within this time, and a kept connection may idle for as long, milliseconds.
    pub header_timeout_ms: u64,
    /// Largest read buffer of a connection, bytes; bounds the size of headers.
    pub buffer_bytes: usize,
    /// After the shutdown signal, connections end within this time, milliseconds.
    pub drain_timeout_ms: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_timeout_ms: 30_000,
            buffer_bytes: 64 << 10,
            drain_timeout_ms: 10_000,
        }
    }
}

/// The other end of the connection; an extension of every request that [`serve`] hands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer(pub SocketAddr);

/// When the system has no descriptors left, accepting again at once would burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown` is done and the connections have ended.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) {
    serve_tls(listener, router, config, None, shutdown).await;
}

/// The same with TLS and HTTP/2, if there is a certificate.
pub async fn serve_tls(
    listener: TcpListener,
    router: Router,
    config: ServerConfig,
    tls: Option<Arc<Tls>>,
    shutdown: impl Future<Output = ()>,
) {
    let connections = config.connections.max(1);
    let slots = Arc::new(Semaphore::new(connections as usize));
    let (ending, ended) = watch::channel(false);
    let service = Service { router, config, tls, ending: ended };
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = service.clone().serve(stream, Peer(peer));
                tokio::spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    ending.send_replace(true);
    let all_ended = slots.acquire_many(connections);
    if tokio::time::timeout(Duration::from_millis(config.drain_timeout_ms), all_ended).await.is_err() {
        tracing::warn!("connections were cut at the end of the drain time");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn start(config: ServerConfig) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route(
            "/peer",
            axum::routing::get(|request: axum::extract::Request| async move {
                request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string()).unwrap_or_default()
            }),
        );
        let (stop, mut stopped) = watch::channel(false);
        let shutdown = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        (address, stop, tokio::spawn(serve(listener, router, config, shutdown)))
    }

    async fn read_all(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn a_request_knows_its_peer_and_a_stop_ends_kept_connections() {
        let (address, stop, server) = start(ServerConfig::default()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /peer HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        stop.send_replace(true);
        assert!(read_all(&mut stream).await.ends_with("127.0.0.1"));
        tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_never_ends_its_headers_is_cut() {
        let (address, _stop, _server) =
            start(ServerConfig { header_timeout_ms: 50, ..ServerConfig::default() }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /peer HTTP/1.1\r\nx-slow: ").await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }

    #[tokio::test]
    async fn beyond_the_cap_a_connection_waits_until_another_ends() {
        let (address, _stop, _server) =
            start(ServerConfig { connections: 1, ..ServerConfig::default() }).await;
        let first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(b"GET /peer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut byte)).await;
        drop(first);
        if early.is_err() {
            assert!(read_all(&mut second).await.starts_with("HTTP/1.1 200"));
        } else {
            // The system may have accepted the second first; then the first waits, which shows the cap as well.
            assert_eq!(byte, *b"H");
        }
    }
}
