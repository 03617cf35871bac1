//! `RIVULET__SECTION__OPTION` in the environment overrides the configuration file.
//!
//! **Invariant:** the environment is read once, at start, and passed on as values.

use toml::{Table, Value};

/// Variables that begin so are options.
pub(crate) const PREFIX: &str = "RIVULET__";

/// A variable that names no option the file could have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("environment variable {name}: {problem}")]
pub(crate) struct Error {
    /// The variable.
    pub(crate) name: String,
    /// What is wrong.
    pub(crate) problem: &'static str,
}

/// Lays the variables over the table. A value is read as TOML when it is TOML (`8`, `true`, `["a"]`), as text otherwise.
pub(crate) fn overlay(
    table: &mut Table,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(), Error> {
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let fail = |problem| Error { name: name.clone(), problem };
        let parts: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        let Some((option, sections)) =
            parts.split_last().filter(|_| parts.iter().all(|part| !part.is_empty()))
        else {
            return Err(fail("has an empty part between `__`"));
        };
        let mut place = &mut *table;
        for section in sections {
            place = place
                .entry(section.clone())
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .ok_or_else(|| fail("a part of it names an option, not a section"))?;
        }
        place.insert(option.clone(), value(&text));
    }
    Ok(())
}

fn value(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(file: &str, variables: &[(&str, &str)]) -> Result<Table, Error> {
        let mut table = file.parse().unwrap();
        overlay(&mut table, variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())))?;
        Ok(table)
    }

    #[test]
    fn a_variable_wins_over_the_file_and_keeps_its_neighbours() {
        let table = overlaid(
            "listen = \"a\"\n[log]\npartitions = 8\nsegment_bytes = 1",
            &[("RIVULET__LISTEN", "127.0.0.1:1"), ("RIVULET__LOG__PARTITIONS", "4"), ("PATH", "x")],
        );
        let right =
            "listen = \"127.0.0.1:1\"\n[log]\npartitions = 4\nsegment_bytes = 1".parse::<Table>().unwrap();
        assert_eq!(table, Ok(right));
    }

    #[test]
    fn a_variable_that_cannot_be_placed_is_refused_by_name() {
        let error = overlaid("listen = \"a\"", &[("RIVULET__LISTEN__X", "1")]).unwrap_err();
        assert_eq!(error.name, "RIVULET__LISTEN__X");
        assert!(overlaid("", &[("RIVULET__", "1")]).is_err());
    }
}
