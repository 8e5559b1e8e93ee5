//! The one place where the wall clock is read; the core gets time as an argument.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use vespiary_core::Timestamp;

/// The latest time given out.
static LATEST_MS: AtomicU64 = AtomicU64::new(0);

/// Milliseconds since the Unix epoch. Never goes back while the process lives, also where the system's clock does.
pub fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    let latest_ms = LATEST_MS.load(Ordering::Relaxed);
    if now_ms <= latest_ms {
        return Timestamp(latest_ms);
    }
    Timestamp(LATEST_MS.fetch_max(now_ms, Ordering::Relaxed).max(now_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_step_back() {
        let future = wall_clock().after_ms(60_000);
        LATEST_MS.store(future.0, Ordering::Relaxed);
        assert_eq!(wall_clock(), future);
    }
}
