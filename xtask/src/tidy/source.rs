//! Rules about the form of source files.

use super::Tree;

const MOST_LINES: usize = 400;

/// Each file says at its top what it is for.
pub(super) fn module_comments(tree: &Tree) -> Vec<String> {
    tree.ending(&[".rs", ".ts"])
        .filter(|file| !file.path.ends_with(".d.ts") && !is_generated(&file.path))
        .filter(|file| {
            let first = file
                .text
                .lines()
                .find(|line| !line.trim().is_empty() && !line.starts_with("#!"))
                .unwrap_or_default();
            let opening = if file.is_rust() { first.starts_with("//!") } else { opens_a_comment(first) };
            !opening
        })
        .map(|file| file.at(1, "say first what the file is for"))
        .collect()
}

/// No file grows past what can be read in one go; tests do not count.
pub(super) fn lengths(tree: &Tree) -> Vec<String> {
    tree.ending(&[".rs", ".ts"])
        .map(|file| (file, file.code().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(file, lines)| file.at(1, &format!("{lines} lines of code, at most {MOST_LINES}: split it")))
        .collect()
}

fn opens_a_comment(line: &str) -> bool {
    line.starts_with("//") || line.starts_with("/*")
}

fn is_generated(path: &str) -> bool {
    path.contains("/dist/") || path.contains("/node_modules/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_module_comment_is_found() {
        let tree = Tree::of(&[
            ("a.rs", "//! A.\nfn a() {}\n"),
            ("b.rs", "// B.\nfn b() {}\n"),
            ("c.ts", "export {}\n"),
            ("d.ts", "/** D. */\nexport {}\n"),
            ("e.d.ts", "export {}\n"),
        ]);
        let found = module_comments(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("b.rs:1") && found[1].starts_with("c.ts:1"));
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_and_comments_do_not_count() {
        let line = "let a = 1;\n";
        let comments = "// why\n".repeat(500);
        let short = format!("{}{comments}#[cfg(test)]\n{}", line.repeat(400), line.repeat(400));
        let long = line.repeat(401);
        let found = lengths(&Tree::of(&[("short.rs", &short), ("long.rs", &long)]));
        assert_eq!(found, ["long.rs:1: 401 lines of code, at most 400: split it"]);
    }
}
