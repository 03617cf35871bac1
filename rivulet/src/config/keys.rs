//! The keys file: `[[keys]]` in a file of their own, which is read again when it changes.
//!
//! **Invariant:** all entries of a file are taken, or none: a broken file leaves the keys in force as they are, and log and metric
//! say so. What is logged of a broken file never repeats its text.

use std::path::PathBuf;
use std::sync::Weak;

use gateway::{Gateway, KeyConfig};
use schemas::token::Secrets;
use serde::Deserialize;

use super::watch::{Watch, text};

/// Why a keys file cannot be used. Says where, and repeats nothing: the file is full of secrets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not there, or not readable.
    #[error("the keys file cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is not TOML, or not `[[keys]]`.
    #[error("line {line}: {problem}")]
    Form {
        /// Counted from 1; 0 where the fault has no place.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    keys: Vec<KeyConfig>,
}

/// Reads the file.
pub(crate) fn read(path: &PathBuf) -> Result<Vec<KeyConfig>, Error> {
    parse(&text(path)?)
}

fn parse(text: &str) -> Result<Vec<KeyConfig>, Error> {
    let file: File = toml::from_str(text).map_err(|error| {
        let start = error.span().map(|span| span.start);
        let line =
            start.and_then(|start| text.get(..start)).map_or(0, |before| before.matches('\n').count() + 1);
        // Only these messages are sure to name no value.
        let message = error.message();
        let harmless = ["unknown field", "missing field"].iter().any(|begin| message.starts_with(begin));
        let problem =
            if harmless { message } else { "not TOML with `[[keys]]`, or a value of the wrong kind" };
        Error::Form { line, problem: problem.to_owned() }
    })?;
    Ok(file.keys)
}

/// Takes over what changes in the file, as long as the gateway lives.
pub(crate) async fn follow(path: PathBuf, gateway: Option<Weak<Gateway>>, secrets: Secrets) {
    let mut watch = Watch::new(vec![path]);
    loop {
        let found = watch.changed().await;
        let gateway = match gateway.as_ref().map(Weak::upgrade) {
            Some(None) => return,
            Some(gateway) => gateway,
            None => None,
        };
        match found.map_err(Error::from).and_then(|texts| parse(&texts.concat())) {
            Ok(keys) => take(&keys, gateway.as_deref(), &secrets),
            Err(error) => {
                if let Some(gateway) = &gateway {
                    gateway.note_broken_keys();
                }
                tracing::error!(%error, "the keys file is broken; the keys stay as they were");
            }
        }
    }
}

fn take(keys: &[KeyConfig], gateway: Option<&Gateway>, secrets: &Secrets) {
    if let Some(Err(error)) = gateway.map(|gateway| gateway.set_keys(keys)) {
        tracing::error!(%error, "the keys file is broken; the keys stay as they were");
        return;
    }
    secrets.replace(gateway::authenticate::secrets(keys));
    tracing::info!(sources = keys.len(), "keys taken from the changed keys file");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_named_by_line_and_never_repeats_a_key() {
        let good = "[[keys]]\nname = \"web\"\nkey = \"hush\"\nkind = \"public\"\n";
        assert_eq!(parse(good).unwrap().len(), 1);
        for (text, line) in [
            (format!("{good}[[keys]]\nname = \"x\"\nkind = \"hush\"\nkey = \"hush\"\n"), 7),
            (format!("{good}[[keys]]\nname = \"x\nkey = \"hush\"\n"), 6),
            (format!("{good}lane = \"hush\"\n"), 5),
            (format!("{good}orgins = [\"hush\"]\n"), 5),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("line {line}:")) && !error.contains("hush"),
                "{error}\n{text}"
            );
        }
        assert!(parse("").is_err());
    }
}
