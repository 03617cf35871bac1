//! `xtask tidy`: the rules of this repository that no compiler checks.
//!
//! **Invariant:** a rule is a function from the tracked files to what is wrong with them, so that each has a test with a sample
//! that fails; all rules run, and everything that is wrong is listed at once.

mod boundaries;
mod documents;
mod features;
mod source;
mod texts;

use anyhow::{Context as _, Result, bail};

use crate::{step, toolchain};

/// A file larger than this is no text that somebody wrote.
const LARGEST_TEXT_BYTES: u64 = 2 << 20;

/// The files of the repository, as git knows them.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: Vec<File>,
}

/// One text file.
#[derive(Debug)]
pub(crate) struct File {
    /// Its path from the root, with `/`.
    pub(crate) path: String,
    /// What it says.
    pub(crate) text: String,
}

impl Tree {
    fn load() -> Result<Self> {
        let listed = step::output(step::command("git").args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))
        .context("tidy reads what git tracks")?;
        let mut files = Vec::new();
        for path in listed.split('\0').filter(|path| !path.is_empty()) {
            let full = step::root().join(path);
            if std::fs::metadata(&full).is_ok_and(|data| data.is_file() && data.len() <= LARGEST_TEXT_BYTES)
                && let Ok(text) = std::fs::read_to_string(&full)
            {
                files.push(File { path: path.to_owned(), text });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// A tree for the tests of rules.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File { path: (*path).to_owned(), text: (*text).to_owned() };
        Self { files: files.iter().map(file).collect() }
    }

    /// Every file.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// Every file whose name ends so.
    pub(crate) fn ending(&self, ends: &'static [&'static str]) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| ends.iter().any(|end| file.path.ends_with(end)))
    }

    /// The text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }
}

impl File {
    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        std::path::Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }

    /// Whether the file holds tests only.
    pub(crate) fn is_test(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        let last = parts.last().copied().unwrap_or_default();
        parts.iter().any(|part| matches!(*part, "tests" | "test" | "benches"))
            || last == "tests.rs"
            || last.ends_with(".test.ts")
            || last.ends_with(".test.js")
    }

    /// The lines before the tests at the file's end, numbered from 1.
    pub(crate) fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = if self.is_test() { 0 } else { self.tests_begin() };
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line)).take(lines)
    }

    /// How many lines stand before the module of tests. Declaring one that is a file of its own, `mod tests;`, does not count.
    fn tests_begin(&self) -> usize {
        let mut lines = self.text.lines().enumerate().peekable();
        while let Some((at, line)) = lines.next() {
            if line.starts_with("#[cfg(test)]")
                && lines.peek().is_none_or(|(_, next)| !(next.contains("mod ") && next.ends_with(';')))
            {
                return at;
            }
        }
        usize::MAX
    }

    /// The production lines that are code, without what stands after `//`.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.production()
            .map(|(at, line)| (at, line.split_once("//").map_or(line, |(code, _)| code)))
            .filter(|(_, line)| !line.trim().is_empty())
    }

    /// Says where.
    pub(crate) fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// A rule: what it checks, and how.
type Rule = (&'static str, fn(&Tree) -> Vec<String>);

const RULES: &[Rule] = &[
    ("every source file opens with a module comment", source::module_comments),
    ("no source file is longer than 400 lines of code", source::lengths),
    ("crates depend only on what the design draws", boundaries::arrows),
    ("libraries of the edges are named only at the edges", boundaries::names),
    ("pure crates have no I/O, clock, threads or randomness", boundaries::purity),
    ("only few files ask the clock or the environment", boundaries::ambient),
    ("tests do not sleep", boundaries::sleeps),
    ("every ban of clippy.toml has a reason", documents::bans),
    ("every code has a page, and every page a code", documents::codes),
    ("ARCHITECTURE.md names every crate and module folder", documents::architecture),
    ("links between documents lead somewhere", documents::links),
    ("no path of a machine and no host of a registry stands in a text", texts::machine),
];

/// Runs everything.
pub(crate) fn run(_args: &[String]) -> Result<()> {
    texts()?;
    builds()
}

/// The rules about texts.
pub(crate) fn texts() -> Result<()> {
    let tree = Tree::load()?;
    let mut wrong = 0;
    for (name, rule) in RULES {
        let found = rule(&tree);
        if !found.is_empty() {
            println!("tidy: {name}:");
            for what in &found {
                println!("  {what}");
            }
            wrong += found.len();
        }
    }
    if wrong > 0 {
        bail!("tidy found {wrong} things, listed above");
    }
    println!("tidy: {} rules hold in {} files", RULES.len(), tree.files.len());
    Ok(())
}

/// The rules that need Cargo: features that must stay off, and crates that must build for the browser.
pub(crate) fn builds() -> Result<()> {
    let listed = step::output(step::cargo().args(features::LISTING))?;
    let found = features::forbidden(&listed);
    if !found.is_empty() {
        bail!("{}", found.join("\n"));
    }
    toolchain::ensure_wasm_target()?;
    step::step("check what must build for the browser", || {
        for package in ["schemas", "processor-core", "sdk-wasm"] {
            step::run(step::cargo().args([
                "check",
                "--quiet",
                "--target",
                toolchain::WASM_TARGET,
                "-p",
                package,
            ]))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_tests_are_not_production() {
        let tree = Tree::of(&[("a/src/b.rs", "//! B.\nlet a = 1; // one\n\n#[cfg(test)]\nmod tests {}\n")]);
        let file = tree.files().next().unwrap();
        assert_eq!(file.code().collect::<Vec<_>>(), [(2, "let a = 1; ")]);
    }

    #[test]
    fn a_declaration_of_tests_elsewhere_ends_nothing() {
        let tree = Tree::of(&[("a/src/b.rs", "#[cfg(test)]\nmod tests;\nlet a = 1;\n")]);
        assert_eq!(tree.files().next().unwrap().code().count(), 3);
    }

    #[test]
    fn files_of_tests_have_no_production() {
        let tree = Tree::of(&[("tests/it/a.rs", "let a = 1;"), ("b/src/tests.rs", "let a = 1;")]);
        assert!(tree.files().all(|file| file.code().count() == 0));
    }
}
