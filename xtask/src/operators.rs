//! What operators are given is checked by the tools that will read it: promtool on the alert rules and on every query of the
//! dashboard, the schemas of Kubernetes on the manifests.
//!
//! **Invariant:** the tools stay in `.components`: nothing is installed as a service.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::step;

/// Versions of Kubernetes whose schemas the manifests are held against.
const KUBERNETES: &[&str] = &["1.29", "1.32"];

/// Checks them all.
pub(crate) fn check() -> Result<()> {
    let grafana = step::root().join("integrations/grafana");
    let promtool = promtool()?;
    let told = |args: &[&str]| step::run(step::command(&promtool).current_dir(&grafana).args(args));
    step::step("alert rules", || {
        told(&["check", "rules", "rivulet-alerts.yaml"])?;
        told(&["test", "rules", "rivulet-alerts.test.yaml"])
    })?;
    step::step("queries of the dashboard", || {
        let rules = components("prometheus").join("dashboard-queries.yaml");
        fs::write(&rules, queries_as_rules(&fs::read_to_string(grafana.join("rivulet-dashboard.json"))?)?)?;
        step::run(step::command(&promtool).args(["check", "rules"]).arg(rules))
    })?;
    step::step("manifests for Kubernetes", kubernetes)
}

fn components(name: &str) -> PathBuf {
    step::root().join(".components").join(name)
}

/// From the path, or unpacked from Debian's package: installing that would start a server.
fn promtool() -> Result<PathBuf> {
    if step::exists("promtool") {
        return Ok("promtool".into());
    }
    let folder = components("prometheus");
    let program = folder.join("usr/bin/promtool");
    if program.exists() {
        return Ok(program);
    }
    step::step("fetch promtool", || {
        fs::create_dir_all(&folder)?;
        let by_hand = "put `promtool` of Prometheus on the path, then run this again";
        step::run(step::command("apt-get").current_dir(&folder).args(["-qq", "download", "prometheus"]))
            .context(by_hand)?;
        let package = package_in(&folder)?.context(by_hand)?;
        step::run(step::command("dpkg-deb").arg("-x").arg(&package).arg(&folder)).context(by_hand)?;
        fs::remove_file(package)?;
        ensure!(program.exists(), "the package has no promtool: {by_hand}");
        Ok(program.clone())
    })
}

fn package_in(folder: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// One recording rule a query, which promtool parses. The dashboard's variable becomes a regular expression.
fn queries_as_rules(dashboard: &str) -> Result<String> {
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    let mut count = 0;
    for line in dashboard.lines() {
        // The file is written one member a line; a JSON string is a YAML string.
        let Some(query) = line.trim().strip_prefix("\"expr\": ") else { continue };
        count += 1;
        let query = query.trim_end_matches(',').replace("$instance", ".*");
        write!(rules, "  - record: dashboard:query_{count}\n    expr: {query}\n")?;
    }
    ensure!(count > 0, "the dashboard has no query: is it written one member a line?");
    Ok(rules)
}

fn kubernetes() -> Result<()> {
    let folder = components("kubernetes-validate");
    if !folder.exists() {
        let by_hand = "install Python's pip (`apt-get install python3-pip`), then run this again";
        let mut pip = step::command("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&folder).arg("kubernetes-validate");
        step::run(&mut pip).context(by_hand)?;
    }
    for version in KUBERNETES {
        let mut python = step::command("python3");
        python.env("PYTHONPATH", &folder).args(["-m", "kubernetes_validate", "--strict", "-k", version]);
        step::run(python.arg("integrations/deploy/kubernetes/rivulet.yaml"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_query_becomes_a_rule_that_promtool_can_parse() {
        let rules = queries_as_rules("{\n \"expr\": \"up{a=~\\\"$instance\\\"}\",\n \"x\": 1\n}").unwrap();
        assert!(rules.ends_with("expr: \"up{a=~\\\".*\\\"}\"\n"), "{rules}");
        assert!(queries_as_rules("{}").is_err());
    }
}
