//! Replays the kept inputs of `corpus/` through everything that reads bytes of strangers. An input that once broke something
//! is added there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::Path;

use schemas::event::LoggedEvent;
use schemas::json::{self, Body, DEEPEST, Limits};
use schemas::wire::Frame;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.display().to_string(), std::fs::read(path).unwrap())).collect()
}

fn scan(name: &str, bytes: &[u8]) {
    for limits in [Limits::default(), Limits { max_depth: DEEPEST }, Limits { max_depth: 0 }] {
        match json::object(bytes, limits) {
            Ok(members) => {
                let tree: serde_json::Value =
                    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(tree.as_object().map(serde_json::Map::len), Some(members.len()), "{name}");
            }
            Err(error) => assert!(error.at <= bytes.len(), "{name}: {error}"),
        }
        let _ = LoggedEvent::read(bytes, limits);
    }
}

fn read_frame(bytes: &[u8]) {
    if let Some(frame) = std::str::from_utf8(bytes).ok().and_then(Frame::read) {
        let _ = frame.verdicts().count();
    }
}

#[test]
fn no_kept_input_breaks_a_reader() {
    let corpus = corpus();
    assert!(corpus.len() > 40);
    for (name, bytes) in &corpus {
        // Cut at every byte too: that is what a broken line makes of it.
        for cut in (0..=bytes.len()).rev().take(600) {
            let bytes = bytes.get(..cut).unwrap();
            scan(name, bytes);
            read_frame(bytes);
            json::lines(bytes).for_each(|line| scan(name, line));
            match json::split(bytes, 2_500) {
                Ok(Body::One(event)) => scan(name, event),
                Ok(Body::Many { events, .. }) => events.into_iter().for_each(|event| scan(name, event)),
                Err(_) => {}
            }
        }
    }
}
