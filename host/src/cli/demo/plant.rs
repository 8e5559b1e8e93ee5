//! The simulated plant: twenty machines with vibration sensors, one of which has a bearing that slowly fails.
//!
//! A value without I/O, clock or hidden randomness: [`Plant::reading`] is a function of the seed, the machine and the tick, so
//! that readings can be made in any order, by many clients at once, and again. A tick is one reading of each machine; how
//! much time lies between two ticks is the caller's to say. Vibration is velocity in mm/s RMS, the quantity of ISO 20816-3.

use std::f64::consts::TAU;

use serde::Serialize;

/// Machines in the plant.
pub(crate) const MACHINES: usize = 20;

/// How the plant runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlantOptions {
    /// Two plants with the same seed and options are the same plant.
    pub(crate) seed: u64,
    /// When tick 0 is measured; milliseconds since the Unix epoch.
    pub(crate) start_ts: u64,
    /// Time between two readings of a machine.
    pub(crate) interval_ms: u64,
    /// The tick from which on the bearing fails. A service needs some 60 readings before it to learn what is normal.
    pub(crate) onset_tick: u64,
    /// The tick at which it has failed: vibration does not grow beyond.
    pub(crate) failed_tick: u64,
}

impl PlantOptions {
    /// A run of `ticks` readings a machine (at least 200), in which the bearing begins to fail after a third and has
    /// failed shortly before the end.
    pub(crate) fn for_run(seed: u64, start_ts: u64, interval_ms: u64, ticks: u64) -> Self {
        Self { seed, start_ts, interval_ms, onset_tick: ticks / 3, failed_tick: ticks - ticks / 12 }
    }
}

/// A plant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plant {
    options: PlantOptions,
    machines: Vec<Machine>,
    failing: usize,
}

/// A machine: what is told of it when it is registered, and what its readings are made from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Machine {
    /// Its name: a topic level, such as `PUMP-03`.
    pub(crate) asset: String,
    /// What it is.
    pub(crate) kind: MachineKind,
    /// Where it stands.
    pub(crate) location: String,
    /// What a technician must be able to do to work on it.
    pub(crate) skills: &'static [&'static str],
    /// What a technician has to bring.
    pub(crate) tools: &'static [&'static str],
    /// Its zone borders (A/B, B/C, C/D) in mm/s RMS.
    pub(crate) zone_borders_mm_s: [f64; 3],
    /// Vibration at full load when healthy, in mm/s RMS.
    #[serde(skip)]
    vibration_mm_s: f64,
    /// Temperature above ambient at full load.
    #[serde(skip)]
    rise_c: f64,
    /// Ticks of one load cycle.
    #[serde(skip)]
    cycle_ticks: f64,
    /// Where in its cycle it is at tick 0, as a part of the whole.
    #[serde(skip)]
    phase: f64,
}

/// What kinds of machines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MachineKind {
    /// A centrifugal pump.
    Pump,
    /// A fan.
    Fan,
    /// A screw compressor.
    Compressor,
    /// An electric motor.
    Motor,
}

/// One reading of one machine, as it is published.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Reading {
    /// The machine.
    pub(crate) asset: String,
    /// The sensor's own count: 1 at tick 0.
    pub(crate) seq: u64,
    /// When it was measured; milliseconds since the Unix epoch.
    pub(crate) ts: u64,
    /// Vibration velocity in mm/s RMS.
    pub(crate) mm_s: f64,
    /// Bearing temperature in degrees Celsius.
    pub(crate) temperature_c: f64,
    /// Shaft speed in revolutions a minute.
    pub(crate) rpm: f64,
    /// Load as a part of the nominal one.
    pub(crate) load: f64,
}

/// What of a reading a random number is for; keeps the numbers of one reading independent.
#[derive(Clone, Copy)]
enum Noise {
    Vibration = 1,
    Knock = 2,
    Temperature = 3,
    Speed = 4,
    Load = 5,
    Machine = 6,
}

impl Plant {
    /// A plant; which machine fails follows from the seed.
    pub(crate) fn new(options: PlantOptions) -> Self {
        let machines = (0..MACHINES).map(|index| machine(options.seed, index)).collect();
        let failing = (mixed(options.seed, 0, 0, 0) % MACHINES as u64) as usize;
        Self { options, machines, failing }
    }

    /// The machines, in the order by which they are numbered.
    pub(crate) fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The number of the machine whose bearing fails.
    pub(crate) fn failing(&self) -> usize {
        self.failing
    }

    /// How far its bearing has failed at a tick: 0 before the onset, 1 from the end of it on.
    pub(crate) fn wear(&self, tick: u64) -> f64 {
        let PlantOptions { onset_tick, failed_tick, .. } = self.options;
        let span = failed_tick.saturating_sub(onset_tick).max(1) as f64;
        (tick.saturating_sub(onset_tick) as f64 / span).min(1.0)
    }

    /// What the sensor of `machine` measures at `tick`.
    ///
    /// # Panics
    /// If there is no such machine.
    pub(crate) fn reading(&self, machine: usize, tick: u64) -> Reading {
        let Machine { asset, kind, vibration_mm_s, rise_c, cycle_ticks, phase, .. } = &self.machines[machine];
        let noise = |noise: Noise| normal(self.options.seed, machine as u64, tick, noise);
        let cycle = |lag_ticks: f64| (TAU * ((tick as f64 - lag_ticks) / cycle_ticks + phase)).sin();
        let load = 0.72 + 0.22 * cycle(0.0) + 0.02 * noise(Noise::Load);
        // Iron is slow: temperature follows the load of some ticks ago.
        let warmth = 0.72 + 0.16 * cycle(4.0);
        let wear = if machine == self.failing { self.wear(tick) } else { 0.0 };
        let healthy = vibration_mm_s * (0.75 + 0.35 * load) * (1.0 + 0.04 * noise(Noise::Vibration));
        // A failing bearing worsens ever faster, and ever less evenly.
        let worn = 7.0 * (4.0 * wear).exp_m1() / 4.0_f64.exp_m1() * (1.0 + 0.06 * noise(Noise::Vibration));
        // Once in a while somebody knocks against the sensor.
        let knock = if mixed(self.options.seed, machine as u64, tick, Noise::Knock as u64).is_multiple_of(211) {
            1.8
        } else {
            1.0
        };
        Reading {
            asset: asset.clone(),
            seq: tick + 1,
            ts: self.options.start_ts + tick * self.options.interval_ms,
            mm_s: decimals(healthy * knock + worn, 3),
            temperature_c: decimals(22.0 + rise_c * warmth + 24.0 * wear * wear + 0.3 * noise(Noise::Temperature), 1),
            rpm: decimals(kind.rpm() * (1.0 - 0.015 * load) + 1.5 * noise(Noise::Speed), 0),
            load: decimals(load, 2),
        }
    }
}

impl MachineKind {
    /// Nominal speed.
    fn rpm(self) -> f64 {
        match self {
            Self::Pump | Self::Motor => 1_500.0,
            Self::Fan => 1_000.0,
            Self::Compressor => 3_000.0,
        }
    }

    /// Vibration at full load when healthy in mm/s RMS, and temperature above ambient.
    fn character(self) -> (f64, f64) {
        match self {
            Self::Pump => (1.3, 34.0),
            Self::Fan => (1.5, 26.0),
            Self::Compressor => (1.7, 48.0),
            Self::Motor => (0.9, 40.0),
        }
    }

    /// Zone borders in mm/s RMS: ISO 20816-3 group 2, on flexible foundations for fans, on rigid ones for the others.
    fn zone_borders_mm_s(self) -> [f64; 3] {
        match self {
            Self::Fan => [2.3, 4.5, 7.1],
            Self::Pump | Self::Compressor | Self::Motor => [1.4, 2.8, 4.5],
        }
    }
}

fn machine(seed: u64, index: usize) -> Machine {
    let (kind, name, skills, tools): (_, _, &[&str], &[&str]) = match index % 4 {
        0 => (MachineKind::Pump, "PUMP", &["bearings", "alignment"], &["vibration-analyser", "bearing-puller"]),
        1 => (MachineKind::Fan, "FAN", &["bearings", "fans"], &["vibration-analyser", "balancing-kit"]),
        2 => (MachineKind::Compressor, "COMP", &["bearings", "compressors"], &["vibration-analyser", "gas-detector"]),
        _ => (MachineKind::Motor, "MOTOR", &["bearings", "motors"], &["vibration-analyser", "insulation-tester"]),
    };
    let part = |salt: u64| mixed(seed, index as u64, salt, Noise::Machine as u64) as f64 / u64::MAX as f64;
    let (vibration_mm_s, rise_c) = kind.character();
    Machine {
        asset: format!("{name}-{:02}", index / 4 + 1),
        kind,
        location: format!("hall {}, bay {}", ["A", "B"][index / 4 % 2], index % 10 + 1),
        skills,
        tools,
        zone_borders_mm_s: kind.zone_borders_mm_s(),
        vibration_mm_s: vibration_mm_s * (0.85 + 0.3 * part(1)),
        rise_c: rise_c * (0.9 + 0.2 * part(2)),
        cycle_ticks: 18.0 + 22.0 * part(3),
        phase: part(4),
    }
}

/// A normally distributed number with mean 0 and standard deviation 1: the sum of twelve uniform ones. It ends at 6, as
/// every sensor's range does.
fn normal(seed: u64, machine: u64, tick: u64, noise: Noise) -> f64 {
    let mut random = fastrand::Rng::with_seed(mixed(seed, machine, tick, noise as u64));
    (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
}

/// A number that depends on each bit of its arguments (the finaliser of SplitMix64 over each).
fn mixed(seed: u64, machine: u64, tick: u64, salt: u64) -> u64 {
    [machine, tick, salt].into_iter().fold(seed, |state, value| {
        let mut bits = (state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    })
}

fn decimals(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plant(seed: u64) -> Plant {
        Plant::new(PlantOptions::for_run(seed, 1_700_000_000_000, 50, 500))
    }

    #[test]
    fn the_same_seed_gives_the_same_plant_in_any_order() {
        let forwards: Vec<Reading> = (0..100).map(|tick| plant(7).reading(3, tick)).collect();
        let mut backwards: Vec<Reading> = (0..100).rev().map(|tick| plant(7).reading(3, tick)).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        assert_ne!(forwards, (0..100).map(|tick| plant(8).reading(3, tick)).collect::<Vec<_>>());
    }

    #[test]
    fn there_are_twenty_machines_with_names_of_their_own() {
        let plant = plant(1);
        let names: std::collections::BTreeSet<&str> =
            plant.machines().iter().map(|machine| machine.asset.as_str()).collect();
        assert_eq!(names.len(), MACHINES);
        assert!(names.iter().all(|name| !name.contains(['/', '+', '#'])));
    }

    #[test]
    fn a_sensor_counts_without_a_gap_and_its_clock_advances() {
        let plant = plant(1);
        for tick in 0..10 {
            let reading = plant.reading(0, tick);
            assert_eq!((reading.seq, reading.ts), (tick + 1, 1_700_000_000_000 + tick * 50));
        }
    }

    #[test]
    fn healthy_machines_stay_in_the_good_zones() {
        for seed in 0..20 {
            let plant = plant(seed);
            for index in (0..MACHINES).filter(|index| *index != plant.failing()) {
                let [_, b_c, _] = plant.machines()[index].zone_borders_mm_s;
                let mean = (0..500).map(|tick| plant.reading(index, tick).mm_s).sum::<f64>() / 500.0;
                assert!((0.4..b_c).contains(&mean), "seed {seed} machine {index}: {mean}");
            }
        }
    }

    #[test]
    fn one_bearing_fails_through_all_zones_and_grows_hot() {
        for seed in 0..20 {
            let plant = plant(seed);
            let failing = plant.failing();
            let mean = |ticks: std::ops::Range<u64>| {
                let count = ticks.clone().count() as f64;
                ticks.map(|tick| plant.reading(failing, tick).mm_s).sum::<f64>() / count
            };
            let [_, b_c, c_d] = plant.machines()[failing].zone_borders_mm_s;
            assert!(mean(0..160) < b_c, "seed {seed}");
            assert!(mean(470..500) > c_d, "seed {seed}");
            let heat = plant.reading(failing, 499).temperature_c - plant.reading(failing, 100).temperature_c;
            assert!(heat > 10.0, "seed {seed}: {heat}");
        }
    }

    #[test]
    fn over_many_seeds_each_machine_is_the_one_that_fails() {
        let failing: std::collections::BTreeSet<usize> = (0..500).map(|seed| plant(seed).failing()).collect();
        assert_eq!(failing.len(), MACHINES);
    }

    #[test]
    fn noise_is_normal() {
        let values: Vec<f64> = (0..20_000).map(|tick| normal(5, 1, tick, Noise::Vibration)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
