//! `vespiary plugin list` and `plugin show`, for people.

use super::{or_nothing, utc_time};
use crate::plugins::view::{Details, Summary};

/// Prints the list.
pub(super) fn print_list(plugins: &[Summary]) {
    if plugins.is_empty() {
        println!("no plugin is deployed: `vespiary deploy FILE.wasm` deploys one");
        return;
    }
    println!(
        "{:24} {:10} {:>8}  {:9} {:>8} {:>10} {:>6}",
        "NAME", "VERSION", "REVISION", "STATUS", "WAITING", "HANDLED", "DEAD"
    );
    for plugin in plugins {
        println!(
            "{:24} {:10} {:>8}  {:9} {:>8} {:>10} {:>6}",
            plugin.name,
            plugin.version,
            plugin.revision,
            plugin.status,
            plugin.inbox_events,
            plugin.handled,
            plugin.dead_lettered
        );
        if let Some(reason) = &plugin.reason {
            println!("{:24} {reason}", "");
        }
    }
}

/// Prints everything about one plugin.
pub(super) fn print_details(details: &Details) {
    let (summary, counts, limits) = (&details.summary, &details.counts, &details.limits);
    println!("{} {} (revision {})", summary.name, summary.version, summary.revision);
    println!(
        "  status       {}{}",
        summary.status,
        summary.reason.as_ref().map_or_else(String::new, |r| format!(": {r}"))
    );
    println!("  listens      {}", or_nothing(&details.subscribes));
    println!("  publishes    {}", or_nothing(&details.publishes));
    println!("  config       {}", or_nothing(&details.config));
    println!("  waiting      {} of {} events", summary.inbox_events, limits.inbox_events);
    println!(
        "  events       {} handled, {} put back, {} dead (after {} attempts)",
        counts.handled, counts.retried, counts.dead_lettered, limits.attempts
    );
    println!(
        "  calls        {} calls, {} failed, {:.0} us each (deadline {} ms, memory {} MiB)",
        counts.calls,
        counts.failed_calls,
        counts.call_us as f64 / counts.calls.max(1) as f64,
        limits.call_deadline_ms,
        limits.memory_bytes >> 20
    );
    println!("  published    {} messages, {} denied", counts.published, counts.denied);
    if let Some(failure) = &counts.last_failure {
        println!("  last failure {} {}", utc_time(failure.at), failure.reason);
    }
    println!("  revisions");
    for kept in &details.history {
        println!(
            "    {:>4}  {:10} {}  sha256:{}",
            kept.number,
            kept.version,
            utc_time(kept.activated_at),
            &kept.digest[..16]
        );
    }
    if !details.dead_letters.is_empty() {
        println!("  dead letters");
        for letter in &details.dead_letters {
            println!("    {} event {} on {}: {}", utc_time(letter.at), letter.event, letter.topic, letter.reason);
        }
    }
}
