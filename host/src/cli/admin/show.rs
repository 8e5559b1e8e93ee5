//! `vespiary plugin list` and `plugin show`, for people.

use super::{or_nothing, utc_time};
use crate::plugins::deploy::{DeployReport, DryRunReport};
use crate::plugins::view::{Details, Summary, TrialView};

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
    let (summary, counts) = (&details.summary, &details.counts);
    println!("{} {} (revision {})", summary.name, summary.version, summary.revision);
    let reason = summary.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    println!("  status       {}{reason}", summary.status);
    if let Some(breaker) = &details.breaker {
        let until = breaker.until.map_or_else(String::new, |until| format!(", tried again at {}", utc_time(until)));
        println!("  breaker      {} since {}{until}", breaker.state, utc_time(breaker.since));
    }
    if let Some(trial) = &details.probation {
        print_trial("probation", trial, "goes back to");
    }
    if let Some(trial) = &details.canary {
        let share = summary.canary_percent.map_or_else(String::new, |percent| format!(", {percent} % of the keys"));
        print_trial("canary", trial, "runs beside");
        println!("               promote it with `vespiary plugin promote {}`, or abort{share}", summary.name);
    }
    if let Some(what) = &details.rolled_back {
        println!("  rolled back  {what}");
    }
    println!("  signed by    {}", details.signed_by.as_deref().unwrap_or("nobody"));
    print_rights(details);
    print_usage(details);
    println!(
        "  events       {} handled, {} put back, {} dead (after {} attempts), {} conflicts between lanes",
        counts.handled, counts.retried, counts.dead_lettered, details.limits.attempts, counts.conflicts
    );
    println!(
        "  calls        {} calls, {} failed, {:.0} us each",
        counts.calls,
        counts.failed_calls,
        counts.call_us as f64 / counts.calls.max(1) as f64
    );
    println!("  published    {} messages, {} uses denied", counts.published, counts.denied);
    if details.serves {
        println!("  service      {} requests, {} failed", counts.served, counts.failed_requests);
    }
    if let Some(failure) = &counts.last_failure {
        println!("  last failure {} {}", utc_time(failure.at), failure.reason);
    }
    println!("  revisions");
    for kept in &details.history {
        let digest = kept.digest.get(..16).unwrap_or(&kept.digest);
        println!("    {:>4}  {:10} {}  sha256:{digest}", kept.number, kept.version, utc_time(kept.activated_at));
    }
    if !details.dead_letters.is_empty() {
        println!("  dead letters (`vespiary plugin dead list {}` for all)", summary.name);
        for letter in &details.dead_letters {
            println!("    {} event {} on {}: {}", utc_time(letter.at), letter.event, letter.topic, letter.reason);
        }
    }
}

/// What it listens to and may do.
fn print_rights(details: &Details) {
    println!("  listens      {}", or_nothing(&details.subscribes));
    println!("  publishes    {}", or_nothing(&details.publishes));
    println!("  config       {}", or_nothing(&details.config));
    let secrets = details.secrets.iter().map(|(name, configured)| match configured {
        true => name.clone(),
        false => format!("{name} (not configured)"),
    });
    let schedules = details.schedules.iter().map(|(name, cron)| format!("{name} \"{cron}\""));
    for (what, list) in [
        ("secrets", secrets.collect::<Vec<_>>()),
        ("calls hosts", details.http_hosts.clone()),
        ("hooks", details.hooks.clone()),
        ("schedules", schedules.collect()),
    ] {
        if !list.is_empty() {
            println!("  {what:12} {}", list.join(", "));
        }
    }
    if details.disconnects {
        println!("  disconnects  it may disconnect clients");
    }
    if details.serves {
        println!("  serves       /services/{}/", details.summary.name);
    }
}

/// What it uses, beside what it may.
fn print_usage(details: &Details) {
    let (usage, limits, lanes) = (&details.usage, &details.limits, &details.lanes);
    println!("  lanes        {} by {}, {} busy", lanes.lanes, lanes.key, lanes.busy);
    println!("  state        version {}", details.state_version);
    println!("  use          {:>14} of {:<14}", "now", "at most");
    for (what, now, most) in [
        ("inbox", usage.inbox_events as u64, limits.inbox_events as u64),
        ("inbox KiB", usage.inbox_bytes as u64 >> 10, limits.inbox_bytes as u64 >> 10),
        ("state KiB", usage.state_bytes >> 10, limits.state_bytes >> 10),
        ("timers", usage.timers as u64, limits.timers as u64),
        ("dead letters", usage.dead_letters as u64, limits.dead_letters as u64),
        ("memory KiB", usage.memory_bytes >> 10, limits.memory_bytes as u64 >> 10),
        ("publishes", usage.most_publishes, limits.publishes_per_call as u64),
    ] {
        println!("    {what:12} {now:>12} of {most:<12}");
    }
    println!(
        "    one call may take {} ms, an instance log {} lines a second, {} HTTP requests run at a time",
        limits.call_deadline_ms, limits.log_lines_per_s, limits.http_requests
    );
}

fn print_trial(what: &str, trial: &TrialView, beside: &str) {
    let of = trial.of_events.map_or_else(String::new, |events| format!(" of {events}"));
    let until = trial.until.map_or_else(String::new, |until| format!(", until {}", utc_time(until)));
    println!(
        "  {what:12} version {}, {beside} revision {}: {}{of} events, {} failed, since {}{until}",
        trial.version,
        trial.beside,
        trial.events,
        trial.failures,
        utc_time(trial.since)
    );
}

/// Prints what a deploy came to.
pub(super) fn print_deployed(deployed: &DeployReport) {
    let (plugin, version) = (&deployed.plugin, &deployed.version);
    if let Some(found) = &deployed.dry_run {
        return print_dry_run(deployed, found);
    }
    match (deployed.replaced, deployed.canary_percent) {
        (Some(beside), Some(percent)) => println!(
            "plugin {plugin} runs revision {} (version {version}) as a canary for {percent} % of the keys, beside {beside}",
            deployed.revision
        ),
        (None, _) => println!("plugin {plugin} is deployed as revision {} (version {version})", deployed.revision),
        (Some(replaced), None) => {
            println!(
                "plugin {plugin} went from revision {replaced} to revision {} (version {version})",
                deployed.revision
            );
        }
    }
    println!("  digest    sha256:{}", deployed.digest);
    if let Some(key) = &deployed.signed_by {
        println!("  signed by {key}");
    }
    println!("  listens   {}", or_nothing(&deployed.subscribes));
    println!("  publishes {} (grants: {})", or_nothing(&deployed.publishes), deployed.grants);
    for (what, list) in [("secrets", &deployed.secrets), ("hosts", &deployed.http_hosts), ("hooks", &deployed.hooks)] {
        if !list.is_empty() {
            println!("  {what:9} {}", list.join(", "));
        }
    }
    println!("  compiled  {:.1} ms, warmed {:.1} ms", deployed.compile_ms, deployed.warm_ms);
    if let Some(migrated) = &deployed.migrated {
        let (from, to, entries, ms) = (migrated.from, migrated.to, migrated.entries, migrated.ms);
        println!("  migrated  {entries} entries from state version {from} to {to} in {ms:.1} ms");
    }
    println!("  pause     {:.2} ms without dispatch; publishes were accepted throughout", deployed.pause_ms);
    if let Some(probation) = &deployed.probation {
        println!("  probation {} events or {} s; it goes back if it fails", probation.events, probation.seconds);
    }
}

fn print_dry_run(deployed: &DeployReport, found: &DryRunReport) {
    println!(
        "plugin {} version {}: tried on the last {} events, {} of them came to the same; nothing was changed",
        deployed.plugin, deployed.version, found.events, found.same
    );
    for difference in &found.differences {
        println!("  event {} on {}", difference.event, difference.topic);
        for (what, made) in [("active", &difference.active), ("new", &difference.new)] {
            println!("    {what:7} {}", made.outcome);
            for publish in &made.publishes {
                println!("            {publish}");
            }
        }
    }
}
