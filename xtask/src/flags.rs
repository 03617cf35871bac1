//! Reads `--name value`, `--name=value` and plain words.
//!
//! **Invariant:** a flag that the command does not know is an error that names it, never ignored.

use anyhow::{Result, bail};

/// What stood on the command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    values: Vec<(String, String)>,
    /// What is no flag, in order.
    pub(crate) words: Vec<String>,
}

impl Flags {
    /// Reads `args`, knowing these flags.
    pub(crate) fn parse(args: &[String], known: &[&str]) -> Result<Self> {
        let mut flags = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--") else {
                flags.words.push(arg.clone());
                continue;
            };
            let (name, inline) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            if !known.contains(&name) {
                bail!("unknown flag --{name}");
            }
            let value = inline.map(str::to_owned).or_else(|| args.next().cloned());
            let Some(value) = value else { bail!("--{name} wants a value") };
            flags.values.push((name.to_owned(), value));
        }
        Ok(flags)
    }

    /// The flag's value; the last one if it was given more than once.
    pub(crate) fn value(&self, flag: &str) -> Option<&str> {
        self.values.iter().rev().find(|(name, _)| name == flag).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn values_and_words_are_told_apart() {
        let flags = Flags::parse(&words("start --dir=a --port 1 x"), &["dir", "port"]).unwrap();
        assert_eq!((flags.value("dir"), flags.value("port")), (Some("a"), Some("1")));
        assert_eq!(flags.words, ["start", "x"]);
    }

    #[test]
    fn an_unknown_flag_is_an_error() {
        let error = Flags::parse(&words("--prot 1"), &["port"]).unwrap_err();
        assert_eq!(error.to_string(), "unknown flag --prot");
    }

    #[test]
    fn a_value_that_is_missing_is_an_error() {
        assert!(Flags::parse(&words("--port"), &["port"]).is_err());
    }
}
