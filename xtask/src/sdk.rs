//! `xtask sdk [--json]`: builds the browser SDK into `sdk-wasm/dist` and holds it to its size.
//!
//! The engine is compiled for wasm32, wasm-bindgen (as a library of the exact version) writes the glue, and `js/build.mjs`
//! lets npm's binaryen and esbuild make the files.
//!
//! **Invariant:** a build over its budget fails, so that no commit makes pages slower unnoticed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// Most bytes over the wire (brotli): the snippet's stub, the shell with the engine, the shell with the fallback. The last two are
/// today's sizes, so that nothing grows; the goals are 12,000 and 14,000 (`docs/benchmarks.md`).
const BUDGETS: [(&str, u64); 3] = [("stub", 400), ("core", 14_400), ("fallback", 17_800)];
/// The engine hands texts over and keeps no references to host objects: the glue is smaller, and wasm2js knows one table only.
const WASM_FLAGS: &str = "-C target-feature=-reference-types,-multivalue";
const TARGET: &str = "wasm32-unknown-unknown";

/// Builds the SDK; with `--json` prints the sizes in bytes and nothing else.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let json = match args {
        [] => false,
        [flag] if flag == "--json" => true,
        _ => bail!("usage: cargo xtask sdk [--json]"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's folder is missing")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let sizes = build(root, &target)?;
    let field = |name: &str, unit: &str| {
        number(&sizes, name, unit)
            .with_context(|| format!("build.mjs did not tell the size of {name}: {sizes}"))
    };
    let (stub, core, fallback) =
        (field("stub", "brotli")?, field("core", "brotli")?, field("fallback", "brotli")?);
    if json {
        println!(r#"{{"stub":{stub},"core":{core},"fallback":{fallback},"all":{}}}"#, stub + core);
    } else {
        println!("{:<28} {:>8} {:>8} {:>8} {:>8}", "bytes", "raw", "gzip", "brotli", "budget");
        for (name, title) in [
            ("stub", "stub (inline)"),
            ("core", "shell + engine"),
            ("fallback", "shell + fallback"),
            ("shell", "  shell"),
            ("module", "  engine"),
        ] {
            let budget = BUDGETS.iter().find(|(other, _)| *other == name).map(|(_, most)| most.to_string());
            println!(
                "{title:<28} {:>8} {:>8} {:>8} {:>8}",
                field(name, "raw")?,
                field(name, "gzip")?,
                field(name, "brotli")?,
                budget.unwrap_or_default()
            );
        }
    }
    for (name, most) in BUDGETS {
        let size = field(name, "brotli")?;
        ensure!(
            size <= most,
            "the browser SDK's {name} has {size} bytes (brotli), over its budget of {most}"
        );
    }
    Ok(())
}

/// Runs the steps; returns what `build.mjs` prints.
fn build(root: &Path, target: &Path) -> Result<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let bindgen = target.join("sdk-bindgen");
    let module = target.join(TARGET).join("wasm").join("sdk_wasm.wasm");
    let mut engine = Command::new(&cargo);
    engine.args([
        "build",
        "--quiet",
        "-p",
        "sdk-wasm",
        "--profile",
        "wasm",
        "--target",
        TARGET,
        "--features",
        "browser",
    ]);
    engine.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", WASM_FLAGS);
    step(
        root,
        &mut engine,
        &format!("compiling the engine (is the target there? `rustup target add {TARGET}`)"),
    )?;
    let mut glue = Command::new(&cargo);
    glue.args(["run", "--quiet", "-p", "xtask-bindgen", "--"]).arg(&module).arg(&bindgen).arg("core");
    step(root, &mut glue, "making the glue")?;
    let mut files = Command::new("node");
    files.arg("sdk-wasm/js/build.mjs").arg(&bindgen).arg("sdk-wasm/dist").arg(env!("CARGO_PKG_VERSION"));
    step(root, &mut files, "making the files (are Node and the npm packages there? `npm ci`)")
}

fn step(root: &Path, command: &mut Command, doing: &str) -> Result<String> {
    let output = command
        .current_dir(root)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("{doing}: cannot start {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{doing} failed: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A number of build.mjs's line, such as `"core":{"raw":1,"gzip":2,"brotli":3}`.
fn number(json: &str, name: &str, unit: &str) -> Option<u64> {
    let (_, after) = json.split_once(&format!("\"{name}\":{{"))?;
    let (_, after) = after.split_once(&format!("\"{unit}\":"))?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_the_line() {
        let line = r#"{"stub":{"raw":3,"gzip":2,"brotli":1},"core":{"raw":30,"gzip":20,"brotli":10}}"#;
        assert_eq!(number(line, "core", "brotli"), Some(10));
        assert_eq!(number(line, "stub", "gzip"), Some(2));
        assert_eq!(number(line, "shell", "raw"), None);
    }
}
