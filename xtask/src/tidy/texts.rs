//! Rules about what no text may say.

use super::Tree;

/// No path of somebody's machine, and no host of a registry: what is fetched goes through the ordinary clients, which know
/// where from.
pub(super) fn machine(tree: &Tree) -> Vec<String> {
    // Put together here, so that this file does not hold what it forbids.
    let paths = ["work", "root", "home"].map(|name| format!("/{name}/"));
    let hosts = [
        ["registry.npmjs", ".org"].concat(),
        ["repo.maven.apache", ".org"].concat(),
        ["repo1.maven", ".org"].concat(),
        ["index.crates", ".io"].concat(),
        ["static.crates", ".io"].concat(),
        ["files.pythonhosted", ".org"].concat(),
        ["\"resolved\": \"http"].concat(),
    ];
    let mut found = Vec::new();
    for file in tree.files().filter(|file| !file.path.starts_with("xtask/src/tidy/")) {
        for (at, line) in file.text.lines().enumerate() {
            if let Some(path) = paths.iter().find(|path| begins_a_path(line, path)) {
                found.push(file.at(at + 1, &format!("a path of one machine: {path}…")));
            }
            if let Some(host) = hosts.iter().find(|host| line.contains(host.as_str())) {
                found.push(file.at(at + 1, &format!("a registry's host: {host}")));
            }
        }
    }
    found
}

/// Whether the path stands there from the root of a file system on: `src/home/` and `example.com/home/` are none.
fn begins_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        before.is_none_or(|c| {
            !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-' | '/' | '}' | '*' | ')' | '~')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_path_is_found_and_a_path_within_the_repository_is_not() {
        let bad = ["see /", "root/", ".cargo"].concat();
        let good = ["see src/", "home/", "page"].concat();
        let found = machine(&Tree::of(&[("a.md", &bad), ("b.md", &good)]));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_registry_host_in_the_lock_file_is_found() {
        let lock = ["\"resolved\": \"http", "s://x\""].concat();
        assert_eq!(machine(&Tree::of(&[("package-lock.json", &lock)])).len(), 1);
    }
}
