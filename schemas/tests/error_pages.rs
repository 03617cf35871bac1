//! Each code has a page that says what to do, and no page is left over.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use schemas::verdict::Code;

#[test]
fn each_code_has_its_page_and_each_page_its_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
    let names =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages: BTreeSet<String> =
        names.filter_map(|name| name.strip_suffix(".md").map(str::to_owned)).collect();
    let codes: BTreeSet<String> = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(codes.difference(&pages).collect::<Vec<_>>(), Vec::<&String>::new(), "codes without a page");
    let extra: Vec<_> = pages.difference(&codes).filter(|page| *page != "README").collect();
    assert_eq!(extra, Vec::<&String>::new(), "pages without a code");
    for code in &codes {
        let text = std::fs::read_to_string(folder.join(format!("{code}.md"))).unwrap();
        assert!(text.starts_with(&format!("# `{code}`\n")), "{code}");
        for part in ["**Seen in:**", "## Cause", "## What to do", "## Example"] {
            assert!(text.contains(part), "{code} lacks {part}");
        }
        // Links between pages lead somewhere.
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let file = link.0.split('#').next().unwrap_or_default();
            assert!(folder.join(file).is_file(), "{code}: {}", link.0);
        }
    }
}
