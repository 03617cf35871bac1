//! Asks a running program over plain HTTP, for the commands that look at one.
//!
//! **Invariant:** one request, one bounded answer, within a stated time; what the program says is escaped before it is shown.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::console::printable;

/// Longest answer, bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// Longest line of an answer that is followed, bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;
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

    /// Takes an answer line by line for as long as it comes, or as `take` wants more.
    pub(super) async fn follow(
        self,
        path: &str,
        mut take: impl FnMut(&str) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        let Self { url, key } = self;
        let host = self.host()?;
        let stream = TcpStream::connect(host).await.with_context(|| format!("cannot connect to {url}"))?;
        let mut stream = BufReader::new(stream);
        // By HTTP/1.0 the answer comes as it is, without chunks.
        let request = format!("GET {path} HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = timeout(DEADLINE, (&mut stream).take(MAX_LINE_BYTES).read_line(&mut head)).await;
            let read = read.with_context(|| format!("{host} did not answer within {DEADLINE:?}"))??;
            anyhow::ensure!(read > 0 && head.len() as u64 <= MAX_LINE_BYTES, "the program did not answer");
        }
        let status = head.split_ascii_whitespace().nth(1).unwrap_or_default();
        if status != "200" {
            let mut body = String::new();
            stream.take(MAX_LINE_BYTES).read_to_string(&mut body).await?;
            anyhow::bail!("the program answered {status}: {}", printable(body.trim()));
        }
        let mut line = String::new();
        while (&mut stream).take(MAX_LINE_BYTES).read_line(&mut line).await? > 0 {
            if take(line.trim_end()).is_break() {
                return Ok(());
            }
            line.clear();
        }
        Ok(())
    }

    fn host(&self) -> anyhow::Result<&str> {
        let host = self.url.strip_prefix("http://").context("--url must begin with http://")?;
        Ok(host.trim_end_matches('/'))
    }

    async fn request(self, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
        let key = self.key;
        let host = self.host()?;
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
