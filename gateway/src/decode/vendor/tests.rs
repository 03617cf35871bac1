//! What the vendors' own clients sent, as recorded, and what becomes of it.
//!
//! `recorded/<vendor>.jsonl` has a request a line with the events it becomes.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use schemas::id::{EventId, SourceName};
use serde_json::{Value, json};

use super::*;
use crate::config::IpPolicy;

/// Looks like what the adapters are asked.
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Asked {
    fn call(&self) -> Call<'_> {
        let limits = Limits { max_depth: 32 };
        let Self { method, uri, headers, body } = self;
        let cap = Cap { max_bytes: 1 << 20, max_ratio: 100 };
        Call { method, uri, headers, body, limits, cap, max_events: 2_500 }
    }

    fn read(line: &Value) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in line["headers"].as_object().unwrap() {
            let name = HeaderName::try_from(name.as_str()).unwrap();
            headers.insert(name, HeaderValue::from_str(value.as_str().unwrap()).unwrap());
        }
        Self {
            method: line["method"].as_str().unwrap().parse().unwrap(),
            uri: line["path"].as_str().unwrap().parse().unwrap(),
            headers,
            body: line["body"].as_str().unwrap().as_bytes().to_vec(),
        }
    }
}

fn events(items: Vec<Item>) -> Vec<Value> {
    let source = SourceName::new("web");
    let mut number = 0;
    let mut mint = || {
        number += 1;
        Some(EventId::v7(number, &[0; 10]))
    };
    let finish = |item| match item {
        Item::Event(draft) => {
            let (bytes, sent_at) = draft.finish(&source, IpPolicy::Truncate, &mut mint);
            json!({"event": serde_json::from_slice::<Value>(&bytes).unwrap(), "sent_at": format!("{sent_at:?}")})
        }
        Item::Broken(bytes) => json!({"broken": String::from_utf8_lossy(&bytes)}),
    };
    items.into_iter().map(finish).collect()
}

/// The first adapter that claims it, as the router asks them where they have the same path.
fn adapter_of(call: &Call<'_>, name: &str) -> &'static Adapter {
    let known = ADAPTERS.iter().find(|adapter| adapter.name == name).unwrap();
    let earlier = ADAPTERS.iter().take_while(|adapter| adapter.name != name);
    for adapter in earlier.filter(|adapter| adapter.endpoints.iter().any(|(_, path)| *path == call.path())) {
        assert!(!(adapter.claims)(call), "{} claims what is of {name}", adapter.name);
    }
    known
}

#[test]
fn recorded_requests_become_the_events_they_should() {
    let root = env!("CARGO_MANIFEST_DIR");
    for Adapter { name, .. } in ADAPTERS {
        let recorded =
            std::fs::read_to_string(format!("{root}/src/decode/vendor/recorded/{name}.jsonl")).unwrap();
        let mut found = Vec::new();
        for line in recorded.lines() {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let asked = Asked::read(&line);
            let call = asked.call();
            let events = match (adapter_of(&call, name).decode)(&call).unwrap() {
                Action::Take(batch) => events(batch.items),
                Action::Reply { .. } => Vec::new(),
            };
            line["events"] = json!(events);
            found.push(format!("{line}\n"));
        }
        let found = found.concat();
        if found != recorded {
            let beside = format!("{root}/../target/{name}.jsonl");
            std::fs::write(&beside, found).unwrap();
            panic!(
                "{name}: recorded requests become other events; compare with {beside}, and keep that if it is meant"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_panic_an_adapter(
        bytes: Vec<u8>,
        text in r#"[\[\]{}",:\\a1= &%+\n]{0,60}"#,
        event in r#"\{"(type|event|batch|userId|messageId|context|traits|sentAt)":("x"|null|1e5|\[\{\}\]|\{"ip":"::1","consent":\{\}\})(,"(properties|anonymousId|events|data)":("y"|\{"a":1\}|\[1\]|null))?\}"#,
        query in "[a-z=&%+/.]{0,30}",
    ) {
        for adapter in ADAPTERS {
            for (_, path) in adapter.endpoints {
                for body in [&bytes, &text.clone().into_bytes(), &event.clone().into_bytes()] {
                    let path = path.replace(['{', '}', '*'], "");
                    let Ok(uri) = format!("{path}?{query}").parse() else { continue };
                    let mut headers = HeaderMap::new();
                    if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                        headers.insert("anonymousid", value.clone());
                        headers.insert("x-write-key", value);
                    }
                    let asked = Asked { method: Method::POST, uri, headers, body: body.clone() };
                    let _ = (adapter.claims)(&asked.call());
                    if let Ok(Action::Take(batch)) = (adapter.decode)(&asked.call()) {
                        let _ = events(batch.items);
                    }
                }
            }
        }
    }
}
