//! What a process used, from the kernel: processor seconds and resident memory.

use std::fs;

/// Processor time and memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::commands) struct Usage {
    /// User and system time, seconds.
    pub(in crate::commands) cpu_seconds: f64,
    /// Resident memory, MiB.
    pub(in crate::commands) resident_mib: f64,
}

/// `USER_HZ`: a constant of the Linux ABI on every architecture that Rust's std supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads `/proc`; `None` when the process is gone or this is not Linux.
pub(in crate::commands) fn of(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; fields are counted from behind it (proc(5): utime is 14, stime 15).
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib = resident.split_ascii_whitespace().next()?.parse::<f64>().ok()?;
    Some(Usage { cpu_seconds: ticks / TICKS_PER_SECOND, resident_mib: kib / 1024.0 })
}
