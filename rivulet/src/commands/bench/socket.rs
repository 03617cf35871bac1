//! The little of `rivulet.v1` that a load generator needs (`docs/protocol.md`): open a socket, send a batch, read its ack.
//!
//! **Invariant:** an ack that does not accept every event of its batch fails the run.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Places for a batch's number, so that it can be written anew.
pub(super) const SEQUENCE_BYTES: usize = 10;
/// The largest message that is read, bytes.
const MESSAGE_MAX: usize = 4 << 20;
/// The largest answer to the upgrade, bytes.
const UPGRADE_MAX: usize = 16 << 10;
/// A whole text message from a client, and the mark of a masked length (RFC 6455).
const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
/// A length of this says that the real one follows, in two bytes or eight.
const IN_TWO: u8 = 0x7e;
const IN_EIGHT: u8 = 0x7f;
/// A mask that leaves bytes as they are: masks protect proxies, of which there is none.
const MASK: [u8; 4] = [0; 4];

/// Upgrades a connection and says hello.
pub(super) async fn greet(stream: &mut TcpStream, address: SocketAddr) -> anyhow::Result<()> {
    let upgrade = format!(
        "GET /v1/stream HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: rivulet.v1\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < UPGRADE_MAX, "the answer to the upgrade has no end");
        head.push(stream.read_u8().await.context("the server closed the connection")?);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101"), "no upgrade: {}", String::from_utf8_lossy(&head));
    stream.write_all(&message(r#"{"type":"hello","key":"sk_dev","sdk":"bench/1.0"}"#)).await?;
    let mut answer = Vec::new();
    read_message(stream, &mut answer).await?;
    ensure!(answer.starts_with(br#"{"type":"hello""#), "no hello: {}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// A batch as a message, and where its number stands. `events` is a JSON array.
pub(super) fn batch(ack: &str, events: &str) -> (Vec<u8>, usize) {
    let begin = r#"{"type":"batch","seq":"#;
    let text = format!(r#"{begin}{},"ack":"{ack}","events":{events}}}"#, sequence(0));
    let at = text.len();
    let bytes = message(&text);
    let at = bytes.len() - at + begin.len();
    (bytes, at)
}

/// A batch's number in [`SEQUENCE_BYTES`] places; JSON allows white space before it.
pub(super) fn sequence(number: u64) -> String {
    format!("{number:SEQUENCE_BYTES$}")
}

/// Reads up to the next ack.
pub(super) async fn read_ack(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    loop {
        read_message(stream, buffer).await?;
        if !buffer.starts_with(br#"{"type":"ack""#) {
            continue;
        }
        let text = std::str::from_utf8(buffer)?;
        ensure!(text.contains(r#""status":"accepted""#) && !text.contains(r#""reason""#), "refused: {text}");
        return Ok(());
    }
}

fn message(text: &str) -> Vec<u8> {
    let mut bytes = vec![TEXT];
    match u16::try_from(text.len()) {
        Ok(length) if length < u16::from(IN_TWO) => {
            bytes.push(MASKED | u8::try_from(length).unwrap_or_default());
        }
        Ok(length) => {
            bytes.push(MASKED | IN_TWO);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(MASKED | IN_EIGHT);
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Reads one whole message of text; pings and the like are passed over.
async fn read_message(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    loop {
        let [kind, length] = stream.read_u16().await.context("the server closed the socket")?.to_be_bytes();
        let length = match length {
            IN_TWO => u64::from(stream.read_u16().await?),
            IN_EIGHT => stream.read_u64().await?,
            length => u64::from(length),
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= MESSAGE_MAX);
        buffer.clear();
        buffer.resize(length.context("a message too long")?, 0);
        stream.read_exact(buffer).await?;
        match kind {
            TEXT => return Ok(()),
            0x88 => bail!("the server closed the socket: {}", String::from_utf8_lossy(buffer)),
            _ => {}
        }
    }
}
