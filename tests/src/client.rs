//! A client over HTTP that says exactly what it was told and gets back exactly what was answered.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde_json::Value;

use crate::faults::{self, SOON};

/// The longest a request may take; the program's own deadlines are shorter.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// The longest a connection may take to open.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The longest a stream may be followed.
const STREAM_DEADLINE: Duration = Duration::from_mins(5);

/// A client with one key.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// An answer that goes on for as long as it is read, such as server-sent events.
#[derive(Debug)]
pub struct Stream {
    response: reqwest::Response,
    text: String,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub text: String,
    /// The body as JSON; null if it is none.
    pub json: Value,
}

impl Answer {
    /// The verdicts, in order; empty if there are none.
    pub fn verdicts(&self) -> &[Value] {
        self.json["events"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The statuses of the verdicts, in order.
    pub fn statuses(&self) -> Vec<&str> {
        self.verdicts().iter().map(|verdict| verdict["status"].as_str().unwrap_or("none")).collect()
    }

    /// The code of a whole-request error.
    pub fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or("none")
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

impl Stream {
    /// The next block of lines, up to the empty line behind it; nothing when the answer has ended.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block = self.text[..end].to_owned();
                self.text.drain(..end + 2);
                return Some(block);
            }
            let chunk =
                faults::bounded("a piece of the stream", SOON, self.response.chunk()).await.ok()??;
            self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }

    /// The data of the next server-sent event of this name.
    pub async fn event(&mut self, name: &str) -> Option<Value> {
        loop {
            let block = self.block().await?;
            let field = |field: &str| block.lines().find_map(|line| line.strip_prefix(field));
            if field("event: ") == Some(name) {
                let data = field("data: ").expect("an event with data");
                return Some(serde_json::from_str(data).expect("data is JSON"));
            }
        }
    }
}

impl Client {
    /// A client of `host:port` with a key.
    pub fn new(address: &str, key: &str) -> Self {
        Self::build(address, Some(key.to_owned()))
    }

    /// The same without a key.
    #[must_use]
    pub fn keyless(&self) -> Self {
        Self { key: None, ..self.clone() }
    }

    /// The same with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    fn build(address: &str, key: Option<String>) -> Self {
        let http =
            reqwest::Client::builder().timeout(REQUEST_DEADLINE).connect_timeout(CONNECT_DEADLINE).no_proxy();
        Self { http: http.build().expect("a client"), base: format!("http://{address}"), key }
    }

    /// `POST /v1/events` with JSON; panics if there is no answer.
    pub async fn send(&self, body: impl Into<Vec<u8>>) -> Answer {
        self.send_with(&[("content-type", "application/json")], body).await
    }

    /// `POST /v1/events` with these headers; panics if there is no answer.
    pub async fn send_with(&self, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        self.post("/v1/events", headers, body).await.expect("an answer")
    }

    /// `POST`, any path; fails if there is no answer.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answer, reqwest::Error> {
        self.request(reqwest::Method::POST, path, headers, Some(body.into())).await
    }

    /// `GET`, any path; fails if there is no answer.
    pub async fn get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        self.request(reqwest::Method::GET, path, &[], None).await
    }

    /// Any request; fails if there is no answer.
    pub async fn request(
        &self,
        method: reqwest::Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        Self::read(request.send().await?).await
    }

    /// `GET` of an answer without an end; the answer itself if it is not 200.
    pub async fn follow(&self, path: &str) -> Result<Stream, Answer> {
        // The client's own deadline is for the whole answer, and would end the stream.
        let request = self.http.get(format!("{}{path}", self.base)).timeout(STREAM_DEADLINE);
        let key = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let request = key.iter().fold(request, |request, key| request.header("authorization", key));
        let response = request.send().await.expect("an answer");
        if response.status() == reqwest::StatusCode::OK {
            return Ok(Stream { response, text: String::new() });
        }
        Err(Self::read(response).await.expect("an answer"))
    }

    async fn read(response: reqwest::Response) -> Result<Answer, reqwest::Error> {
        let status = response.status().as_u16();
        let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let headers = response.headers().iter().map(header).collect();
        let text = response.text().await?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, headers, text, json })
    }
}

/// One gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// Zlib, which is what HTTP calls `deflate`.
pub fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// Deflate without a frame, which some clients call `deflate`.
pub fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// Brotli.
pub fn brotli(bytes: &[u8]) -> Vec<u8> {
    // A quality that takes no time without optimisation, and the usual window.
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 3, 22);
    encoder.write_all(bytes).expect("memory");
    encoder.into_inner()
}

/// One Zstandard frame.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory")
}
