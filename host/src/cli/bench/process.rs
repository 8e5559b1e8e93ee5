//! What Linux says about a process in `/proc`: CPU time and resident memory. Elsewhere, or where the process is gone,
//! nothing. And the one limit that a generator of many connections meets.

use std::time::Duration;

/// `/proc` counts CPU time in these; the kernel's interface fixes it at a hundredth of a second.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of all threads of a process, in user and in kernel mode.
pub(super) fn cpu_time(process: &str) -> Option<Duration> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// Resident memory now and at its highest, in bytes.
pub(super) fn resident_bytes(process: &str) -> Option<(u64, u64)> {
    parse_status(&std::fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

fn parse_stat(stat: &str) -> Option<Duration> {
    // The second field, the name, may hold spaces and brackets; it ends at the last bracket.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

fn parse_status(status: &str) -> Option<(u64, u64)> {
    let kibibytes = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some((kibibytes("VmRSS:")? * 1024, kibibytes("VmHWM:")? * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 3 0 100 1 1";
        assert_eq!(parse_stat(stat), Some(Duration::from_millis(1750)));
        assert_eq!(parse_stat("nonsense"), None);
        let status = "Name:\ta\nVmHWM:\t    300 kB\nVmRSS:\t    200 kB\n";
        assert_eq!(parse_status(status), Some((200 * 1024, 300 * 1024)));
    }
}
