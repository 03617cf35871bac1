//! Log lines on standard error. They hold counts, places and codes, never what a customer sent.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::cli::{LogFormat, LogOptions};

/// Libraries that tell of their own housekeeping; an option for one of them comes later and wins.
const QUIET: &str = "fjall=warn,lsm_tree=warn";

/// Libraries that log what peers sent: held back whatever is asked for.
const SILENT: &str = "tungstenite=warn,tokio_tungstenite=warn";

/// Starts logging for the process. A filter that cannot be read becomes `info`, with a warning.
pub(crate) fn init(options: &LogOptions) {
    let parsed = EnvFilter::try_new(format!("{QUIET},{},{SILENT}", options.log));
    let complaint = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match options.log_format {
        LogFormat::Text => builder.with_target(false).compact().init(),
        LogFormat::Json => builder.json().init(),
    }
    if let Some(complaint) = complaint {
        tracing::warn!(%complaint, "the log filter cannot be read, using `info`");
    }
}
