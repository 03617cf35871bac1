//! Rules about who may know whom: between crates, of libraries, of the clock.

use super::{File, Tree};

/// Our crates, and which of ours each may name in its manifest.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("schemas/Cargo.toml", "schemas", &[]),
    ("broker/Cargo.toml", "broker", &["schemas"]),
    ("gateway/Cargo.toml", "gateway", &["schemas", "broker"]),
    ("processor/core/Cargo.toml", "processor-core", &["schemas"]),
    ("processor/Cargo.toml", "processor", &["schemas", "broker", "processor-core"]),
    ("sdk-wasm/Cargo.toml", "sdk-wasm", &["schemas"]),
    (
        "rivulet/Cargo.toml",
        "rivulet",
        &["schemas", "broker", "gateway", "processor", "processor-core", "tests"],
    ),
    ("tests/Cargo.toml", "tests", &["broker"]),
    ("xtask/Cargo.toml", "xtask", &[]),
    ("xtask/bindgen/Cargo.toml", "xtask-bindgen", &[]),
];

/// A word that only some files may hold.
struct Only {
    words: &'static [&'static str],
    within: &'static [&'static str],
    why: &'static str,
}

const NAMES: &[Only] = &[
    Only {
        words: &["rdkafka::", "use rdkafka"],
        within: &["broker/src/kafka/"],
        why: "rdkafka is named only in broker/src/kafka",
    },
    Only {
        words: &["axum::", "use axum"],
        within: &[
            "gateway/src/authenticate/",
            "gateway/src/server",
            "gateway/src/transport/",
            "gateway/src/lib.rs",
            "processor/src/processor.rs",
            "processor/src/serve",
            "rivulet/src/",
        ],
        why: "axum is named only where HTTP is served",
    },
    Only {
        words: &["fjall::", "use fjall"],
        within: &["processor/src/store"],
        why: "fjall is named only in the store",
    },
    Only {
        words: &["web_sys", "js_sys", "wasm_bindgen"],
        within: &["sdk-wasm/src/facade.rs", "sdk-wasm/src/gloo", "xtask/bindgen/"],
        why: "the browser is known only to its façade",
    },
    Only {
        words: &["anyhow"],
        within: &["rivulet/", "xtask/", "tests/"],
        why: "libraries have typed errors",
    },
];

/// What the pure crates must not name, and where they are.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "SystemTime",
    "Instant::",
    "getrandom",
    "rand::",
    "tokio",
    "println!",
    "eprintln!",
];
const PURE: &[&str] = &["schemas/src/", "processor/core/src/", "sdk-wasm/src/"];
/// Hosts of the engine, which are no part of it.
const HOSTS: &[&str] = &["sdk-wasm/src/facade.rs", "sdk-wasm/src/gloo", "sdk-wasm/src/native"];
/// Reads the documents of event types once, at start; only with the feature `validator`, which the pure builds leave off.
const READS_DOCUMENTS: &str = "schemas/src/registry/";

/// Words that ask what depends on when and where the program runs. (`Instant::now` is clippy's: it may be expected, with a
/// reason, where the machine itself is measured.)
const AMBIENT: &[&str] = &["SystemTime::now", "env::var"];
/// The clock itself, configuration and tools. Everybody else is told.
const MAY_ASK: &[&str] = &["broker/src/clock.rs", "rivulet/src/", "tests/", "xtask/"];

/// The arrows between crates.
pub(super) fn arrows(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, name, allowed) in ARROWS {
        for (line, dependency) in dependencies(tree.text(path).unwrap_or_default()) {
            let ours = ARROWS.iter().any(|(_, other, _)| *other == dependency);
            if ours && !allowed.contains(&dependency) {
                found.push(format!("{path}:{line}: {name} must not depend on {dependency}"));
            }
        }
    }
    for file in tree.ending(&["Cargo.toml"]).filter(|file| file.text.contains("[package]")) {
        if !ARROWS.iter().any(|(path, ..)| *path == file.path) {
            found.push(
                file.at(1, "a crate that xtask/src/tidy/boundaries.rs does not know: draw its arrows there"),
            );
        }
    }
    found
}

/// Libraries that only one part may know.
pub(super) fn names(tree: &Tree) -> Vec<String> {
    NAMES.iter().flat_map(|only| outside(tree, only.words, only.within, only.why)).collect()
}

/// Crates that get everything from outside.
pub(super) fn purity(tree: &Tree) -> Vec<String> {
    tree.ending(&[".rs"])
        .filter(|file| begins(file, PURE) && !begins(file, HOSTS) && !file.path.starts_with(READS_DOCUMENTS))
        .flat_map(|file| hits(file, IMPURE, "is not for a pure crate: let the caller pass it in"))
        .collect()
}

/// Clock and environment.
pub(super) fn ambient(tree: &Tree) -> Vec<String> {
    tree.ending(&[".rs"])
        .filter(|file| !begins(file, MAY_ASK))
        .flat_map(|file| {
            hits(file, AMBIENT, "only the clock and the configuration ask: let the caller pass it in")
        })
        .collect()
}

/// Tests that sleep are slow and still fail at times: they wait for a condition, in a loop that asserts its deadline just before
/// it lets a moment pass.
pub(super) fn sleeps(tree: &Tree) -> Vec<String> {
    const DEADLINE_WITHIN_LINES: usize = 3;
    let words = [["thread::", "sleep("].concat(), ["time::", "sleep("].concat()];
    let mut found = Vec::new();
    for file in tree
        .ending(&[".rs"])
        .filter(|file| file.path != "tests/src/faults.rs" && !file.path.starts_with("xtask/"))
    {
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, line) in lines.iter().enumerate().skip(file.production().count()) {
            let before = lines.get(at.saturating_sub(DEADLINE_WITHIN_LINES)..at).unwrap_or_default();
            let bounded = before.iter().any(|line| line.contains("assert!("));
            if !bounded && words.iter().any(|word| line.contains(word.as_str())) {
                found.push(
                    file.at(at + 1, "a test does not sleep: wait for a condition, asserting a deadline"),
                );
            }
        }
    }
    found
}

fn outside(tree: &Tree, words: &'static [&'static str], within: &[&str], why: &str) -> Vec<String> {
    tree.ending(&[".rs"])
        .filter(|file| !begins(file, within) && file.path != "xtask/src/tidy/boundaries.rs")
        .flat_map(|file| hits(file, words, why))
        .collect()
}

fn hits(file: &File, words: &[&str], why: &str) -> Vec<String> {
    file.code()
        .filter_map(|(at, line)| words.iter().find(|word| line.contains(**word)).map(|word| (at, *word)))
        .map(|(at, word)| file.at(at, &format!("`{}`: {why}", word.trim_end_matches("::"))))
        .collect()
}

fn begins(file: &File, folders: &[&str]) -> bool {
    folders.iter().any(|folder| file.path.starts_with(folder))
}

/// The names under `[dependencies]`, `[dev-dependencies]` and their kin, with their lines.
fn dependencies(manifest: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut within = false;
    manifest.lines().enumerate().filter_map(move |(at, line)| {
        if line.starts_with('[') {
            within = line.trim_end().ends_with("dependencies]");
            return None;
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        (within && !name.is_empty() && !name.starts_with('#')).then_some((at + 1, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_knows_the_processor_is_found() {
        let manifest = "[package]\nname = \"gateway\"\n[dependencies]\nbroker.workspace = true\nprocessor = { workspace = true }\n";
        let found = arrows(&Tree::of(&[("gateway/Cargo.toml", manifest)]));
        assert_eq!(found, ["gateway/Cargo.toml:5: gateway must not depend on processor"]);
    }

    #[test]
    fn an_arrow_in_the_tests_of_a_crate_is_found() {
        let manifest = "[package]\n[dev-dependencies]\nbroker.workspace = true\n";
        assert_eq!(arrows(&Tree::of(&[("schemas/Cargo.toml", manifest)])).len(), 1);
    }

    #[test]
    fn a_new_crate_without_arrows_is_found() {
        assert_eq!(arrows(&Tree::of(&[("new/Cargo.toml", "[package]\n")])).len(), 1);
    }

    #[test]
    fn a_library_outside_its_place_is_found_and_a_comment_is_not() {
        let tree = Tree::of(&[
            ("gateway/src/sink.rs", "use rdkafka::Producer;"),
            ("gateway/src/other.rs", "// like rdkafka"),
            ("broker/src/kafka/mod.rs", "use rdkafka::Producer;"),
            ("gateway/src/ledger.rs", "use axum::Router;"),
        ]);
        let found = names(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn input_and_output_in_a_pure_crate_is_found() {
        let tree = Tree::of(&[
            ("processor/core/src/step.rs", "std::fs::read(path)"),
            ("sdk-wasm/src/gloo.rs", "std::thread::spawn()"),
        ]);
        assert_eq!(purity(&tree).len(), 1);
    }

    #[test]
    fn a_question_to_the_clock_is_found_outside_tests() {
        let tree = Tree::of(&[
            ("gateway/src/a.rs", "let now = SystemTime::now();\n#[cfg(test)]\nSystemTime::now()"),
            ("broker/src/clock.rs", "SystemTime::now()"),
        ]);
        assert_eq!(ambient(&tree).len(), 1);
    }

    #[test]
    fn a_sleeping_test_is_found() {
        let sleep = ["std::thread::", "sleep(x)"].concat();
        let inline = format!("#[cfg(test)]\n{sleep}");
        let production = format!("{sleep}\n#[cfg(test)]\n");
        let tree =
            Tree::of(&[("tests/it/a.rs", &sleep), ("a/src/b.rs", &inline), ("a/src/c.rs", &production)]);
        assert_eq!(sleeps(&tree).len(), 2);
    }
}
