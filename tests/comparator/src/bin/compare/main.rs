//! `compare`: the service in the broker and outside of it, side by side in one run.
//!
//! Each measurement starts its broker and service anew on free ports with data in a temporary directory, has `vespiary
//! bench service` load them, which also checks every alert and every record, and stops what it started and nothing else.
//! Subjects take turns and the order goes round from one repetition to the next, so that a noisy minute does not fall on
//! one of them. Prints medians with ratios to Vespiary; every single result is in the file of `--json`.

mod args;

mod subject;

mod process;

mod report;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail, ensure};
use clap::Parser as _;

use args::{Args, Scenario};
use report::{Report, Run};
use subject::Subject;

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    ensure_real_disk(&args.directory())?;
    let subjects = args.subjects()?;
    let mut report = Report::new(&args);
    for scenario in &args.scenarios {
        for repetition in 0..args.repetitions {
            for place in 0..subjects.len() {
                let subject = subjects[(place + repetition) % subjects.len()];
                eprint!("{scenario}, {} of {}: {}: ", repetition + 1, args.repetitions, subject.name());
                let run = Run { scenario: *scenario, subject, outcome: measure(&args, subject, *scenario) };
                eprintln!("{run}");
                report.add(run);
            }
        }
        println!("{}", report.table(*scenario, &subjects));
    }
    println!("{}", report::promises(&subjects));
    if let Some(file) = &args.json {
        std::fs::write(file, report.to_json()?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(if report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One measurement of one subject: the generator's JSON.
fn measure(args: &Args, subject: Subject, scenario: Scenario) -> anyhow::Result<serde_json::Value> {
    let directory = tempfile::Builder::new().prefix("vespiary-compare-").tempdir_in(args.directory())?;
    let mut running = subject.start(args, directory.path())?;
    let mut generator = Command::new(args.generator());
    generator.args(["bench", "service", "--json", "--expect-topic", "assets/+/alerts", "--expect-every", "16"]);
    generator.args(["--inspect", "assets/{id}/inspect", "--inspect-answers", "assets/+/record"]);
    generator.args(["--mqtt", &running.address.to_string(), "--assets", &args.assets.to_string()]);
    generator.args(["--seconds", &args.seconds.to_string(), "--warm-up", &args.warm_up.to_string()]);
    generator.args(["--broker-pid", &running.broker.id().to_string()]);
    if let Some(service) = &running.service {
        generator.args(["--service-pid", &service.id().to_string()]);
    }
    if args.random {
        // What comes at random at first makes new records, which is not what is to be measured.
        generator.args(["--random", "--fill"]);
    }
    if let Scenario::Paced(rate) = scenario {
        generator.args(["--rate", &rate.to_string()]);
    }
    let output = generator.stdin(Stdio::null()).output().with_context(|| format!("cannot run {generator:?}"))?;
    running.ensure_alive()?;
    if !output.status.success() {
        // The last line says why; those before it are of progress.
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.lines().last().unwrap_or("the generator failed and does not say why"));
    }
    serde_json::from_slice(&output.stdout).context("the generator's output")
}

/// Refuses a directory in memory, where a commit to disk costs nothing.
fn ensure_real_disk(directory: &Path) -> anyhow::Result<()> {
    let directory = directory.canonicalize().with_context(|| format!("there is no {}", directory.display()))?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot tell the kind of file system")?;
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(point, _)| directory.starts_with(point))
        .max_by_key(|(point, _)| point.len());
    let in_memory = mount.is_some_and(|(_, kind)| ["tmpfs", "ramfs"].contains(&kind));
    ensure!(!in_memory, "{} is in memory: name a directory on a disk with --directory", directory.display());
    Ok(())
}
