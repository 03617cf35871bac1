//! A way to a broker that can swallow everything: connections stay open, new ones are taken, and nothing comes through.
//!
//! **Invariant:** every byte arrives in order or not yet; nothing is lost on a connection that stays.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes passed on at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The proxy; gone when dropped.
#[derive(Debug)]
pub struct Hole {
    open: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Hole {
    /// Listens on a port of loopback and passes on to another one.
    pub async fn between(port: u16, target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the proxy's port is free");
        let (open, is_open) = watch::channel(true);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, SocketAddr::from(([127, 0, 0, 1], target)), is_open.clone()));
            }
        });
        Self { open, accepting }
    }

    /// From now on nothing comes through.
    pub fn swallow(&self) {
        self.open.send_replace(false);
    }

    /// Lets through what waits, and everything from now on.
    pub fn pass(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Hole {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one connection until either side or the proxy ends.
async fn carry(client: TcpStream, target: SocketAddr, mut open: watch::Receiver<bool>) {
    if open.wait_for(|open| *open).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pass(from_client, to_server, open.clone()) => {}
        () = pass(from_server, to_client, open) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut bytes = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
