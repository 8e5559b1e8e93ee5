//! Both versions against the simulated plant of `vespiary demo`: exactly the failing machine is found, once, and none of the
//! others; over many seeds and at all rates of readings that the demo may run at.

#[path = "../../../host/src/cli/demo/plant.rs"]
mod plant;

use asset_health::alert::Alert;
use asset_health::deviation::Deviation;
use asset_health::health::{Detector, Health, Settings};
use asset_health::reading::Reading;
use asset_health::trend::Trend;
use plant::{MACHINES, Plant, PlantOptions};

const START_TS: u64 = 1_790_000_000_000;

/// The ticks at which the alerts about one machine came.
fn alerts<D: Detector>(plant: &Plant, machine: usize, ticks: u64) -> Vec<(u64, Alert)> {
    let mut health = Health::<D>::default();
    (0..ticks)
        .filter_map(|tick| {
            let reading = plant.reading(machine, tick);
            let understood = Reading { seq: reading.seq, ts: reading.ts, mm_s: reading.mm_s };
            Some((tick, health.observe(&reading.asset, understood, b"", &Settings::default())?))
        })
        .collect()
}

/// Runs plants of `ticks` readings a machine, and gives for each when the failing machine was found, as a part of the run.
fn found<D: Detector>(seeds: u64, ticks: u64) -> Vec<f64> {
    (0..seeds)
        .map(|seed| {
            let plant = Plant::new(PlantOptions::for_run(seed, START_TS, 50, ticks));
            let mut found = None;
            for machine in 0..MACHINES {
                let alerts = alerts::<D>(&plant, machine, ticks);
                if machine != plant.failing() {
                    assert_eq!(alerts, [], "{} seed {seed} ticks {ticks}: false alarm", D::NAME);
                    continue;
                }
                let detected: Vec<u64> = alerts
                    .iter()
                    .filter(|(_, alert)| matches!(alert, Alert::AnomalyDetected(_)))
                    .map(|(tick, _)| *tick)
                    .collect();
                assert_eq!(detected.len(), 1, "{} seed {seed} ticks {ticks}: {alerts:?}", D::NAME);
                found = detected.first().map(|tick| *tick as f64 / ticks as f64);
            }
            found.expect("there is a failing machine")
        })
        .collect()
}

fn check(seeds: u64, ticks: u64) {
    let (deviation, trend) = (found::<Deviation>(seeds, ticks), found::<Trend>(seeds, ticks));
    for (seed, (deviation, trend)) in deviation.iter().zip(&trend).enumerate() {
        assert!((0.40..0.85).contains(deviation), "seed {seed} ticks {ticks}: version 1 at {deviation}");
        assert!((0.35..0.75).contains(trend), "seed {seed} ticks {ticks}: version 2 at {trend}");
        assert!(trend < deviation, "seed {seed} ticks {ticks}: version 2 is not earlier: {trend} {deviation}");
    }
}

#[test]
fn both_versions_find_exactly_the_failing_machine_in_a_short_run() {
    check(20, 200);
}

#[test]
fn both_versions_find_exactly_the_failing_machine_in_a_usual_run() {
    check(12, 500);
}

#[test]
fn both_versions_find_exactly_the_failing_machine_in_a_fast_run() {
    check(3, 1_500);
}

#[test]
fn both_versions_find_a_bearing_that_fails_over_thousands_of_readings() {
    check(1, 6_000);
}
