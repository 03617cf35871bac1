//! One connection, to its end or to its upgrade.
//!
//! **Invariant:** a peer that shows no request within `header_timeout_ms` is gone, over TLS and HTTP/2 too; after the shutdown signal a
//! connection ends within `drain_timeout_ms`.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::tls::{HTTP_2, Tls};
use super::{Peer, ServerConfig};

/// Hyper takes no smaller buffer.
const SMALLEST_BUFFER: usize = 8 << 10;
/// Requests at once on one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 128;

/// What every connection is served with.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) router: Router,
    pub(super) config: ServerConfig,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) ending: watch::Receiver<bool>,
}

/// Whether requests are under way, and when one last was.
#[derive(Debug)]
struct Activity {
    under_way: AtomicUsize,
    last: Mutex<Instant>,
}

impl Activity {
    fn new() -> Self {
        Self { under_way: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until nothing was under way for so long.
    async fn idle(&self, limit: Duration) {
        loop {
            let end = self.last() + limit;
            if self.under_way.load(Ordering::Acquire) > 0 {
                self.touch();
            } else if end <= Instant::now() {
                return;
            }
            sleep_until(end.max(Instant::now() + limit / 8)).await;
        }
    }
}

impl Service {
    /// Serves a connection that was just accepted.
    pub(super) async fn serve(self, stream: TcpStream, peer: Peer) {
        // Answers are small and must not wait for more.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.http1(stream, peer).await;
        };
        let handshake = TlsAcceptor::from(tls.config()).accept(stream);
        match timeout(self.headers_within(), handshake).await {
            Ok(Ok(stream)) => {
                if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) {
                    self.http2(stream, peer).await;
                } else {
                    self.http1(stream, peer).await;
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
            Err(_) => tracing::debug!("TLS was not agreed in time"),
        }
    }

    fn headers_within(&self) -> Duration {
        Duration::from_millis(self.config.header_timeout_ms.max(1))
    }

    async fn answer(
        router: Router,
        peer: Peer,
        mut request: hyper::Request<Incoming>,
    ) -> Result<Response, Infallible> {
        request.extensions_mut().insert(peer);
        router.oneshot(request).await
    }

    async fn http1(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Peer) {
        let router = self.router.clone();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.headers_within())
            .max_buf_size(self.config.buffer_bytes.max(SMALLEST_BUFFER))
            .serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| Self::answer(router.clone(), peer, request)),
            )
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.ended() => {
                connection.as_mut().graceful_shutdown();
                let limit = Duration::from_millis(self.config.drain_timeout_ms);
                timeout(limit, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
    }

    async fn http2(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Peer) {
        let activity = Arc::new(Activity::new());
        let (router, watched) = (self.router.clone(), Arc::clone(&activity));
        let limit = self.headers_within();
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS)
            .max_header_list_size(u32::try_from(self.config.buffer_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(limit)
            .keep_alive_timeout(limit)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| {
                    let (router, activity) = (router.clone(), Arc::clone(&watched));
                    async move {
                        activity.under_way.fetch_add(1, Ordering::AcqRel);
                        let answer = Self::answer(router, peer, request).await;
                        activity.touch();
                        activity.under_way.fetch_sub(1, Ordering::AcqRel);
                        answer
                    }
                }),
            );
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = activity.idle(limit) => {
                // Answers that are still being written are written.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.ended() => Ok(()),
                }
            }
            () = self.ended() => {
                connection.as_mut().graceful_shutdown();
                let limit = Duration::from_millis(self.config.drain_timeout_ms);
                timeout(limit, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
    }

    /// Waits for the shutdown signal.
    async fn ended(&self) {
        let mut ending = self.ending.clone();
        drop(ending.wait_for(|ending| *ending).await);
    }
}
