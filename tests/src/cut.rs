//! A way to the program that breaks: a proxy that passes a stated number of bytes on, then cuts the connection on both sides.
//!
//! **Invariant:** the peer behind it sees exactly the bytes allowed and then the end; nothing is delayed or changed.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

/// Which way is counted; the other one flows until the cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// What the client says.
    Up,
    /// What the server says.
    Down,
}

/// Listens for one connection, and cuts it after `bytes` in the direction of `way`. Gives the address to connect to.
pub async fn after(target: &str, way: Way, bytes: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its own address");
    let target = target.to_owned();
    tokio::spawn(async move {
        let Ok((client, _)) = listener.accept().await else { return };
        let Ok(server) = TcpStream::connect(target).await else { return };
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        // Whoever ends first drops all four halves.
        match way {
            Way::Up => tokio::select! {
                () = pass(from_client, to_server, bytes) => {}
                () = pass(from_server, to_client, u64::MAX) => {}
            },
            Way::Down => tokio::select! {
                () = pass(from_client, to_server, u64::MAX) => {}
                () = pass(from_server, to_client, bytes) => {}
            },
        }
    });
    address
}

async fn pass(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, bytes: u64) {
    let _ = copy(&mut from.take(bytes), &mut to).await;
    let _ = to.flush().await;
}
