//! `vespiary deploy`: a component goes into a running broker, as its active revision, as a canary, or as a rehearsal.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::cli::AdminAddress;
use crate::cli::embed::read_component;

use super::{AdminClient, print_deployed};

/// After how long it is said that a step still runs, and how often then.
const STILL: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];

/// Flags of `deploy`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DeployArgs {
    /// The component
    #[arg(value_name = "FILE.wasm")]
    component: PathBuf,
    /// Hand it this share of the events beside the active revision: `10%`
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, conflicts_with = "dry_run")]
    canary: Option<u8>,
    /// Change nothing: print what it would have published otherwise on the last events
    #[arg(long)]
    dry_run: bool,
    /// Take it for good at once: no rollback by itself where it fails soon
    #[arg(long, conflicts_with_all = ["canary", "dry_run"])]
    no_probation: bool,
    #[command(flatten)]
    address: AdminAddress,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Deploys a component.
pub(in crate::cli) fn deploy(args: &DeployArgs) -> anyhow::Result<ExitCode> {
    let component = read_component(&args.component)?;
    let api = AdminClient::at(args.address.http);
    let query = match (args.canary, args.dry_run, args.no_probation) {
        (Some(percent), _, _) => format!("?canary={percent}"),
        (None, true, _) => "?dry_run=true".to_owned(),
        (None, false, true) => "?probation=off".to_owned(),
        (None, false, false) => String::new(),
    };
    let step = format!("deploy {} ({} KiB)", args.component.display(), component.len().div_ceil(1024));
    let answer = with_progress(&step, || api.post_component(&component, &query))?;
    print_deployed(args.json, answer)
}

/// Says on stderr that a step still runs, once it has for a while.
pub(in crate::cli) fn with_progress<T>(step: &str, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let began = Instant::now();
            let mut pause = STILL[0];
            while let Err(mpsc::RecvTimeoutError::Timeout) = waiting.recv_timeout(pause) {
                eprintln!("vespiary: {step}: under way for {} s", began.elapsed().as_secs());
                pause = STILL[1];
            }
        });
        let result = work();
        drop(done);
        result
    })
}

fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse() {
        Ok(percent @ 1..=99) => Ok(percent),
        Ok(_) | Err(_) => Err("a share from 1% to 99%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_between_nothing_and_all() {
        for (text, expected) in
            [("10%", Some(10)), ("99", Some(99)), ("0%", None), ("100%", None), ("", None), ("x", None)]
        {
            assert_eq!(parse_percent(text).ok(), expected, "{text:?}");
        }
    }
}
