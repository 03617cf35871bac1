//! Asks a running program over plain HTTP, for the commands that look at one.
//!
//! **Invariant:** one request, one bounded answer, within a stated time; what the program says is escaped before it is shown.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::console::printable;

/// Longest answer, bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// From connecting to the last byte.
const DEADLINE: Duration = Duration::from_mins(1);

/// Where a running program is, and the key to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program<'a> {
    pub(super) url: &'a str,
    pub(super) key: &'a str,
}

impl Program<'_> {
    pub(super) async fn get(self, path: &str) -> anyhow::Result<Value> {
        self.request("GET", path, "").await
    }

    pub(super) async fn post(self, path: &str, body: &str) -> anyhow::Result<Value> {
        self.request("POST", path, body).await
    }

    pub(super) async fn delete(self, path: &str) -> anyhow::Result<Value> {
        self.request("DELETE", path, "").await
    }

    async fn request(self, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
        let Self { url, key } = self;
        let host =
            url.strip_prefix("http://").context("--url must begin with http://")?.trim_end_matches('/');
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = timeout(DEADLINE, exchange(host, &request)).await;
        let answer = answer.with_context(|| format!("{host} did not answer within {DEADLINE:?}"))??;
        let (head, body) = answer.split_once("\r\n\r\n").context("the program did not answer")?;
        let status = head.split_ascii_whitespace().nth(1).unwrap_or_default();
        anyhow::ensure!(status == "200", "the program answered {status}: {}", printable(body.trim()));
        serde_json::from_str(body.trim()).context("the program's answer cannot be read")
    }
}

async fn exchange(host: &str, request: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(host).await.with_context(|| format!("cannot connect to {host}"))?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
