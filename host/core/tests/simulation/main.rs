//! Clients, plugins, lost links and crashes, by seed.
//!
//! Each seed is a small world: a broker whose changes become durable some time after they arise, links that lose what is
//! under way, clients that follow the protocol, and plugins that fail. At the end everything heals, and then: no
//! acknowledged message is lost, QoS 2 arrives exactly once, and the order per publisher, topic and QoS holds.
//!
//! `VESPIARY_SEED=N` runs one seed, `VESPIARY_ROUNDS=N` that many.

#![expect(unreachable_pub, reason = "a test has no public interface")]

mod client;
mod plugin;
mod totals;
mod world;

use world::World;

#[test]
fn nothing_acknowledged_is_lost_doubled_or_reordered() {
    let seed = variable("VESPIARY_SEED");
    let rounds = variable("VESPIARY_ROUNDS").unwrap_or(300);
    let seeds = seed.map_or(0..rounds, |seed| seed..seed + 1);
    let mut totals = totals::Totals::default();
    for seed in seeds {
        // The panic of a failing check comes after this on standard error.
        let guard = PrintOnPanic(seed);
        totals.add(&World::new(seed).run());
        drop(guard);
    }
    println!("{totals:?}");
    if rounds >= 100 && seed.is_none() {
        totals.check_that_something_happened();
    }
}

/// Says which seed failed.
struct PrintOnPanic(u64);

impl Drop for PrintOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with VESPIARY_SEED={}", self.0);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is told its seed by the environment; the core is not")]
fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}
