//! `xtask setup`: installs what the tests need, beyond what a build needs.
//!
//! **Invariant:** each thing is looked for first; what cannot be had fails with a sentence that says how to get it by hand.

use anyhow::{Context as _, Result, bail};

use crate::{kafka, step, toolchain, web};

/// What the tests run, the programs any of which will do, and the Debian packages that bring one.
const PROGRAMS: &[(&str, &[&str], &[&str])] = &[
    ("a C compiler and make", &["make"], &["build-essential"]),
    ("Chromium", &["chromium", "chromium-browser", "google-chrome"], &["chromium", "chromium-driver"]),
    ("Redis", &["redis-server"], &["redis-server"]),
    ("a JDK", &["java"], &["default-jdk-headless"]),
    ("Maven", &["mvn"], &["maven"]),
    ("Python", &["python3"], &["python3", "python3-venv"]),
];

/// The version that holds the program against its own description.
const SCHEMATHESIS: &str = "4.32.5";

/// Headers that librdkafka is compiled with, and the Debian packages that bring them.
const HEADERS: &[(&str, &str)] = &[("openssl/ssl.h", "libssl-dev"), ("zlib.h", "zlib1g-dev")];

/// Installs what is missing.
pub(crate) fn run(_args: &[String]) -> Result<()> {
    toolchain::ensure_wasm_target()?;
    install_packages()?;
    toolchain::need_build_tools()?;
    web::install()?;
    toolchain::need_java()?;
    let libs = kafka::fetch()?;
    step::skip("jars of Kafka", &format!("{} in {}", step::size(step::folder_size(&libs)), libs.display()));
    install_schemathesis()?;
    Ok(())
}

/// Schemathesis, with everything that it needs, in a folder of its own.
fn install_schemathesis() -> Result<()> {
    let folder = step::root().join(".components/schemathesis");
    let python = folder.join("bin/python");
    let version = format!("schemathesis=={SCHEMATHESIS}");
    let stamp = folder.join("version");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == version) {
        step::skip("Schemathesis", &format!("{SCHEMATHESIS} is there"));
        return Ok(());
    }
    step::step("install Schemathesis", || {
        let by_hand = "Python 3.10 or newer with `venv` is needed, and a package index that pip can reach";
        step::run(step::command("python3").args(["-m", "venv", "--clear"]).arg(&folder)).context(by_hand)?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &version];
        step::run(step::command(&python).args(pip)).context(by_hand)?;
        Ok(std::fs::write(&stamp, &version)?)
    })
}

fn install_packages() -> Result<()> {
    let (names, packages) = missing();
    if packages.is_empty() {
        step::skip("programs of the tests", "all there");
        return Ok(());
    }
    let by_hand = format!("install {} by hand, then run this again", names.join(", "));
    if !step::exists("apt-get") {
        bail!("{} missing and there is no apt-get: {by_hand}", names.join(", "));
    }
    let mut prefix = Vec::new();
    if step::output(step::command("id").arg("-u"))?.trim() != "0" {
        if !step::exists("sudo") {
            bail!("{} missing, and installing wants root or sudo: {by_hand}", names.join(", "));
        }
        prefix.push("sudo");
    }
    step::step(&format!("install {} by apt-get", packages.join(" ")), || {
        let apt = |args: &[&str]| {
            let words: Vec<&str> =
                prefix.iter().copied().chain(["apt-get", "-qq"]).chain(args.iter().copied()).collect();
            let (program, rest) = words.split_first().context("a command")?;
            step::run(step::command(program).args(rest).env("DEBIAN_FRONTEND", "noninteractive"))
        };
        apt(&["update"]).with_context(|| by_hand.clone())?;
        let install =
            ["install", "-y", "--no-install-recommends"].into_iter().chain(packages.iter().copied());
        apt(&install.collect::<Vec<_>>()).with_context(|| by_hand.clone())
    })
}

fn missing() -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut names, mut packages) = (Vec::new(), Vec::new());
    for (name, programs, debian) in PROGRAMS {
        if !programs.iter().any(|program| step::exists(program)) {
            names.push(*name);
            packages.extend_from_slice(debian);
        }
    }
    for (header, debian) in HEADERS {
        if !toolchain::has_header(header) {
            names.push(*header);
            packages.push(*debian);
        }
    }
    (names, packages)
}
