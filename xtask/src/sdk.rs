//! `xtask sdk`: builds the browser SDK.

/// Says what is missing.
pub(crate) fn run(_args: &[String]) -> anyhow::Result<()> {
    anyhow::bail!("the browser SDK has no build yet")
}
