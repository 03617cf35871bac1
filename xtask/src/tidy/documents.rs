//! Rules about documents that must match the code.

use super::Tree;

/// Each ban says why.
pub(super) fn bans(tree: &Tree) -> Vec<String> {
    let text = tree.text("clippy.toml").unwrap_or_default();
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.contains("path =") && !line.contains("reason = \""))
        .map(|(at, _)| format!("clippy.toml:{}: a ban without a reason", at + 1))
        .collect()
}

/// The codes of `schemas::verdict` and the pages of `docs/errors`.
pub(super) fn codes(tree: &Tree) -> Vec<String> {
    let codes = declared(tree.text("schemas/src/verdict.rs").unwrap_or_default());
    let page = |code: &str| format!("docs/errors/{code}.md");
    let missing = codes.iter().filter(|code| tree.text(&page(code)).is_none());
    let mut found: Vec<String> =
        missing.map(|code| format!("{}: the page of this code is missing", page(code))).collect();
    for file in tree.files() {
        let Some(name) = file.path.strip_prefix("docs/errors/").and_then(|name| name.strip_suffix(".md"))
        else {
            continue;
        };
        if name != "README" && !codes.contains(&name) {
            found.push(file.at(1, "no code has this name"));
        }
    }
    found
}

/// The map names what there is.
pub(super) fn architecture(tree: &Tree) -> Vec<String> {
    let map = tree.text("ARCHITECTURE.md").unwrap_or_default();
    let mut folders: Vec<&str> = Vec::new();
    for file in tree.ending(&["Cargo.toml"]).filter(|file| file.text.contains("[package]")) {
        folders.extend(file.path.strip_suffix("/Cargo.toml"));
    }
    folders.extend(
        tree.ending(&["/mod.rs"])
            .filter(|file| !file.is_test())
            .filter_map(|file| file.path.strip_suffix("/mod.rs")),
    );
    folders.sort_unstable();
    folders.dedup();
    let unnamed = folders.into_iter().filter(|folder| !map.contains(folder));
    unnamed.map(|folder| format!("ARCHITECTURE.md: does not name `{folder}`")).collect()
}

/// Relative links of Markdown pages.
pub(super) fn links(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for file in tree.ending(&[".md"]) {
        for (at, line) in file.text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let path = target.split(['#', '?']).next().unwrap_or_default();
                if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                    continue;
                }
                let full = resolve(&file.path, path);
                let there =
                    tree.files().any(|file| file.path == full || file.path.starts_with(&format!("{full}/")));
                if !there {
                    found.push(file.at(at + 1, &format!("the link to {path} leads nowhere")));
                }
            }
        }
    }
    found
}

/// The texts of the codes: what stands between quotes in the match of `as_str`.
fn declared(source: &str) -> Vec<&str> {
    let body = source
        .split("impl Code {")
        .nth(1)
        .and_then(|rest| rest.split("fn as_str").nth(1))
        .unwrap_or_default();
    let body = body.split("\n    }").next().unwrap_or_default();
    body.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next()).collect()
}

fn resolve(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERDICT: &str = "impl Code {\n    pub const fn as_str(self) -> &'static str {\n        match self {
            Self::A => \"a.one\",\n            Self::B => \"b.two\",\n        }\n    }\n}\n";

    #[test]
    fn a_ban_without_a_reason_is_found() {
        let text = "disallowed-methods = [\n  { path = \"a\", reason = \"b\" },\n  { path = \"c\" },\n]\n";
        assert_eq!(bans(&Tree::of(&[("clippy.toml", text)])), ["clippy.toml:3: a ban without a reason"]);
    }

    #[test]
    fn a_code_without_a_page_and_a_page_without_a_code_are_found() {
        let tree = Tree::of(&[
            ("schemas/src/verdict.rs", VERDICT),
            ("docs/errors/a.one.md", "# a.one"),
            ("docs/errors/c.three.md", "# c.three"),
        ]);
        let found = codes(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("b.two") && found[1].contains("c.three"));
    }

    #[test]
    fn a_folder_that_the_map_does_not_name_is_found() {
        let tree = Tree::of(&[
            ("ARCHITECTURE.md", "see `broker`"),
            ("broker/Cargo.toml", "[package]"),
            ("broker/src/kafka/mod.rs", ""),
        ]);
        assert_eq!(architecture(&tree), ["ARCHITECTURE.md: does not name `broker/src/kafka`"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let page = "[a](../README.md) [b](gone.md) [c](https://example.com) [d](#here) [e](errors/)";
        let tree = Tree::of(&[("README.md", ""), ("docs/errors/x.md", ""), ("docs/page.md", page)]);
        assert_eq!(links(&tree), ["docs/page.md:1: the link to gone.md leads nowhere"]);
    }
}
