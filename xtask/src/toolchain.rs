//! Checks that a program is there, in a version that will do.
//!
//! **Invariant:** what is missing is named in one sentence together with what to do about it.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Result, bail, ensure};

use crate::step;

/// The browser module's target.
pub(crate) const WASM_TARGET: &str = "wasm32-unknown-unknown";

const NODE_AT_LEAST: u32 = 20;
const JAVA_AT_LEAST: u32 = 17;

/// What every build needs.
pub(crate) fn need_build_tools() -> Result<()> {
    need_node()?;
    ensure!(
        step::exists("cc"),
        "no C compiler: `apt-get install build-essential` (librdkafka is built from source)"
    );
    ensure!(
        step::exists("make"),
        "no make: `apt-get install build-essential` (librdkafka is built from source)"
    );
    for (header, package) in [("openssl/ssl.h", "libssl-dev"), ("zlib.h", "zlib1g-dev")] {
        ensure!(
            has_header(header),
            "the C header {header} is missing: `apt-get install {package}` (for librdkafka)"
        );
    }
    Ok(())
}

/// Node and npm.
pub(crate) fn need_node() -> Result<()> {
    let Ok(version) = step::output(step::command("node").arg("--version")) else {
        bail!(
            "Node is missing: install Node {NODE_AT_LEAST} or newer, it builds the demo and the browser SDK"
        );
    };
    let major = leading_number(version.trim().trim_start_matches('v'));
    ensure!(major >= NODE_AT_LEAST, "Node {} is too old: install {NODE_AT_LEAST} or newer", version.trim());
    ensure!(
        step::exists("npm"),
        "npm is missing: it comes with Node from nodejs.org, or `apt-get install npm`"
    );
    Ok(())
}

/// Java, for Kafka.
pub(crate) fn need_java() -> Result<()> {
    // Java tells its version on standard error.
    let Ok(output) = step::command("java").arg("-version").output() else {
        bail!(
            "Java is missing: install a JDK {JAVA_AT_LEAST} or newer (`apt-get install default-jdk-headless`), Kafka runs on it"
        );
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let major = java_major(&text);
    ensure!(
        major >= JAVA_AT_LEAST,
        "Java {major} is too old for Kafka: install a JDK {JAVA_AT_LEAST} or newer"
    );
    Ok(())
}

/// Maven, for Kafka's jars.
pub(crate) fn need_maven() -> Result<()> {
    ensure!(
        step::exists("mvn"),
        "Maven is missing: `cargo xtask setup` installs it (or `apt-get install maven`)"
    );
    Ok(())
}

/// The target of the browser module; added if rustup is there.
pub(crate) fn ensure_wasm_target() -> Result<()> {
    let Ok(sysroot) = step::output(step::command("rustc").args(["--print", "sysroot"])) else {
        bail!("rustc is missing: install Rust by rustup");
    };
    if std::path::Path::new(sysroot.trim()).join("lib/rustlib").join(WASM_TARGET).is_dir() {
        return Ok(());
    }
    ensure!(
        step::exists("rustup"),
        "the target {WASM_TARGET} is missing and there is no rustup: add the target by the package manager Rust came with"
    );
    step::step(&format!("add the target {WASM_TARGET}"), || {
        step::run(step::command("rustup").args(["target", "add", WASM_TARGET]))
    })
}

/// Whether the C compiler finds a header.
pub(crate) fn has_header(header: &str) -> bool {
    let probe = || -> std::io::Result<bool> {
        let mut cc = step::command("cc");
        cc.args(["-E", "-x", "c", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = cc.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            writeln!(stdin, "#include <{header}>")?;
        }
        Ok(child.wait()?.success())
    };
    probe().unwrap_or(false)
}

fn java_major(text: &str) -> u32 {
    text.split('"').nth(1).map_or(0, leading_number)
}

fn leading_number(text: &str) -> u32 {
    text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(leading_number("20.20.2"), 20);
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15"), 17);
        assert_eq!(java_major("openjdk version \"25\" 2025-09-16"), 25);
        assert_eq!(java_major("no such thing"), 0);
    }
}
