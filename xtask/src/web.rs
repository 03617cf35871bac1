//! `xtask web`: what npm installs, and the demo shop and console that the binary embeds.
//!
//! **Invariant:** npm installs exactly what `package-lock.json` names.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};

use crate::stamp::Stamp;
use crate::step;

const DEMO: Stamp = Stamp {
    name: "web-demo",
    inputs: &["web-demo", "package-lock.json", "sdk-wasm/dist/stub.js"],
    outputs: &["web-demo/dist/index.html", "web-demo/dist/console/index.html"],
};

/// Builds the demo and the console.
pub(crate) fn run(_args: &[String]) -> Result<()> {
    install()?;
    build()
}

/// `npm ci`, unless what is installed is what the lock file names.
pub(crate) fn install() -> Result<()> {
    if is_installed(step::root()) {
        step::skip("npm ci", "installed already");
        return Ok(());
    }
    step::step("npm ci", || {
        step::run(step::command("npm").args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]))?;
        println!("    {} in node_modules", step::size(step::folder_size(&step::root().join("node_modules"))));
        Ok(())
    })
}

/// Builds the demo if it changed.
pub(crate) fn build() -> Result<()> {
    if DEMO.is_fresh() {
        step::skip("build web-demo", "unchanged");
        return Ok(());
    }
    step::step("build web-demo", || {
        step::run(step::command("npm").args(["run", "build", "--silent", "--workspace", "web-demo"]))?;
        println!(
            "    {} in web-demo/dist",
            step::size(step::folder_size(&step::root().join("web-demo/dist")))
        );
        DEMO.renew()
    })
}

/// The README shows the snippet as it is: its stub is the one that was built.
pub(crate) fn check_snippet() -> Result<()> {
    let read = |path: &str| {
        std::fs::read_to_string(step::root().join(path)).with_context(|| format!("cannot read {path}"))
    };
    let shown = read("README.md")?.contains(read("sdk-wasm/dist/stub.js")?.trim());
    ensure!(
        shown,
        "the snippet in README.md has another stub than sdk-wasm/dist/stub.js: put the built one there"
    );
    Ok(())
}

/// npm leaves a lock file of its own in what it installed; it is newer than ours if nothing changed since.
fn is_installed(root: &Path) -> bool {
    let Some(installed) = modified(&root.join("node_modules/.package-lock.json")) else { return false };
    let manifests =
        ["package.json", "package-lock.json", "web-demo/package.json", "sdk-wasm/js/package.json"];
    let manifests = manifests.iter().chain(&["tests/browser/package.json"]).map(|path| root.join(path));
    manifests.filter_map(|path| modified(&path)).all(|changed| changed <= installed)
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_node_modules_is_not_installed() {
        assert!(!is_installed(Path::new("no-such-folder")));
    }
}
