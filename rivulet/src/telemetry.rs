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
    std::panic::set_hook(Box::new(report_panic));
    if let Some(complaint) = complaint {
        tracing::warn!(%complaint, "the log filter cannot be read, using `info`");
    }
}

/// Says where a panic was. A message that was put together may hold what a customer sent; one that stands in the code cannot.
fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message withheld)");
    tracing::error!(%place, message, "panicked");
}
