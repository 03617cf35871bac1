//! Runs wasm-bindgen of the workspace's exact version: `xtask-bindgen MODULE.wasm OUT_DIR NAME`.
//!
//! **Invariant:** the version is the one that the engine is compiled against, because both come from one lockfile; a
//! separately installed command-line tool could differ.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [module, out, name] = arguments.as_slice() else {
        bail!("usage: xtask-bindgen MODULE.wasm OUT_DIR NAME");
    };
    let mut bindgen = Bindgen::new();
    // The bundler's form is the smallest: functions and one hook that takes the instance, without a loader of its own.
    bindgen
        .input_path(PathBuf::from(module))
        .out_name(name)
        .typescript(false)
        .remove_name_section(true)
        .remove_producers_section(true)
        .bundler(true)
        .context("the output mode was refused")?
        .generate(PathBuf::from(out))
        .with_context(|| format!("wasm-bindgen could not read {module}"))
}
