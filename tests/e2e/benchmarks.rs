//! Benchmarks that start brokers of their own from the shipped binary: that they run and count, not what they measure.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::harness::{binary, measured, run_limited};

const LIMIT: Duration = Duration::from_secs(300);

/// A short `bench hooks`.
fn bench_hooks(component: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary());
    command.args(["bench", "hooks", "--json", "--rate", "500", "--seconds", "0.2", "--warm-up", "0.1"]);
    run_limited(command.args(arguments).arg(component), LIMIT)
}

#[test]
fn a_hook_is_asked_about_each_publish_of_its_turn_and_about_no_other() -> Result<()> {
    let output = bench_hooks(&measured("keeps"), &["--rounds", "2"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Value = serde_json::from_slice(&output.stdout)?;
    let of_qos = results["qos"].as_array().context("qos")?;
    assert_eq!(of_qos.iter().map(|one| one["qos"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1)]);
    for one in of_qos {
        for (turn, asked) in [("without_plugin", false), ("asked", true), ("not_asked", false)] {
            let runs = one[turn]["runs"].as_array().context("runs")?;
            let sent: u64 = runs.iter().filter_map(|run| run["sent"].as_u64()).sum();
            ensure!(runs.len() == 2 && sent > 0, "{turn}: {one}");
            for (outcome, count) in one[turn]["questions"].as_object().context("questions")? {
                let expected = if asked && outcome == "answered" { sent } else { 0 };
                ensure!(*count == expected, "{turn}, {outcome}: {count} instead of {expected}");
            }
        }
        let median = |turn: &str| one[turn]["figures"]["p50_us"]["median"].as_f64().context("median");
        let added = one["added_where_asked"]["p50_us"]["difference"].as_f64().context("difference")?;
        ensure!((median("asked")? - median("without_plugin")? - added).abs() < 0.01, "{added}: {one}");
    }
    Ok(())
}

#[test]
fn a_hook_that_is_asked_other_things_than_the_benchmark_says_ends_it() -> Result<()> {
    let keeps = measured("keeps");
    for (component, arguments, expected) in [
        (&*keeps, ["--topic", "elsewhere"], "no question about a topic below elsewhere"),
        (&*keeps, ["--other-topic", "asked/too"], "one is below the other"),
        (Path::new("Cargo.toml"), ["--rounds", "1"], "not a WebAssembly component"),
        (Path::new("none.wasm"), ["--rounds", "1"], "cannot read the component none.wasm"),
    ] {
        let output = bench_hooks(component, &arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{arguments:?}: {}: {stderr}", output.status);
        // Lines of progress may be before it.
        let last = stderr.trim_end().lines().next_back().unwrap_or_default();
        ensure!(last.starts_with("vespiary: ") && last.contains(expected), "{arguments:?}: {stderr}");
    }
    Ok(())
}
