//! Bytes on a connection that no decent client would send: HTTP without a library, frames without rules.
//!
//! **Invariant:** reads to the end or to the deadline; never sends more than it was told.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::faults::{self, SOON};
use crate::socket::PROTOCOL;

/// Longest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Sends the bytes and gives the status of each answer, `[0]` if the connection ended without one. With `cut`, nothing more is
/// sent and all is read to the end; without, the first answer is enough.
pub async fn exchange(address: &str, bytes: &[u8], cut: bool) -> (Vec<u16>, String) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // Whether it is read to the end is the program's choice.
    let _ = stream.write_all(bytes).await;
    if cut {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let mut buffer = vec![0; 4096];
    while answer.len() < MAX_ANSWER_BYTES && (cut || !answer.windows(4).any(|end| end == b"\r\n\r\n")) {
        match faults::bounded("the answer, or the end", SOON, stream.read(&mut buffer)).await {
            Ok(read) if read > 0 => answer.extend_from_slice(&buffer[..read]),
            _ => break,
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let statuses = answer.split("HTTP/1.1 ").skip(1).filter_map(|text| text.get(..3)?.parse().ok());
    let statuses: Vec<u16> = statuses.collect();
    (if statuses.is_empty() { vec![0] } else { statuses }, answer)
}

/// A WebSocket of which only the upgrade is done.
#[derive(Debug)]
pub struct RawSocket(TcpStream);

impl RawSocket {
    /// Upgrades.
    pub async fn open(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let request = format!(
            "GET /v1/stream HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             sec-websocket-protocol: {PROTOCOL}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("open");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(faults::bounded("the upgrade", SOON, stream.read_u8()).await.expect("an answer"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    /// Sends bytes; false if the connection is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// The next frame: its first byte and payload; nothing at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        faults::bounded("a frame, or the end", SOON, self.read()).await
    }

    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.0.read_u8().await.ok()?;
        let length = match self.0.read_u8().await.ok()? {
            126 => u64::from(self.0.read_u16().await.ok()?),
            127 => self.0.read_u64().await.ok()?,
            length => u64::from(length),
        };
        let mut payload = vec![0; usize::try_from(length).ok()?];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((first, payload))
    }

    /// The next text; nothing at the end or a close.
    pub async fn text(&mut self) -> Option<String> {
        loop {
            match self.frame().await? {
                (0x81, payload) => return Some(String::from_utf8(payload).expect("UTF-8")),
                (0x88, _) => return None,
                _ => {}
            }
        }
    }

    /// Reads to the close frame; its code, 1005 if it names none.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            if let (0x88, payload) = self.frame().await? {
                return payload.first_chunk().map_or(Some(1005), |code| Some(u16::from_be_bytes(*code)));
            }
        }
    }
}

/// A frame as clients send it; its mask is zero, so that the payload stands as it is.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).expect("small")),
        length @ 126..0x1_0000 => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&u16::try_from(length).expect("small").to_be_bytes());
        }
        length => {
            bytes.push(0xff);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}
