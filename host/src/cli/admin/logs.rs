//! `vespiary logs NAME` and `plugin logs`: a plugin's log, and with `-f` for as long as it lasts.
//!
//! Who follows survives a restart of the broker: it asks again behind the last line that it printed.

use std::io::{BufRead as _, Write as _};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::client::Refusal;
use super::{AdminClient, utc_time};
use crate::cli::AdminAddress;
use crate::plugins::Entry;

/// How long to wait before a broker that is gone is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// What of the log is asked for.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LogsArgs {
    /// Its name
    name: String,
    /// How many of the last lines
    #[arg(short = 'n', long, default_value_t = 100)]
    tail: usize,
    /// Go on with the lines to come
    #[arg(short, long)]
    follow: bool,
}

/// Flags of `logs`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LogsCommand {
    #[command(flatten)]
    logs: LogsArgs,
    #[command(flatten)]
    address: AdminAddress,
    /// Print each line as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `logs`.
pub(in crate::cli) fn run(args: &LogsCommand) -> anyhow::Result<ExitCode> {
    print(&AdminClient::at(args.address.http), &args.logs, args.json)
}

/// Prints a log.
pub(super) fn print(api: &AdminClient, args: &LogsArgs, json: bool) -> anyhow::Result<ExitCode> {
    let path = format!("/api/v1/plugins/{}/logs?tail={}", args.name, args.tail);
    if args.follow {
        follow(
            api,
            &args.name,
            (args.tail, 0),
            |line, entry| {
                if json { print_line(line) } else { print_line(&readable(entry)) }
            },
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    super::print_answer(json, api.get(&path)?, |entries: Vec<Entry>| {
        for entry in &entries {
            println!("{}", readable(entry));
        }
    })
}

/// Hands on each line, as it came and understood, until `each` has enough or the plugin is gone: the last `tail` lines behind
/// the one of sequence `last`, and those to come. A broker that is gone is waited for.
pub(in crate::cli) fn follow(
    api: &AdminClient,
    name: &str,
    (mut tail, mut last): (usize, u64),
    mut each: impl FnMut(&str, &Entry) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let mut answered = false;
    loop {
        let path = format!("/api/v1/plugins/{name}/logs?follow=true&tail={tail}&after={last}");
        match api.stream(&path) {
            Ok(lines) => {
                answered = true;
                // What breaks off is taken up again.
                for line in lines.lines().map_while(Result::ok).filter(|line| !line.is_empty()) {
                    let entry: Entry = serde_json::from_str(&line)
                        .context("the broker's answer is not understood: broker and command line differ in version")?;
                    last = entry.sequence;
                    if each(&line, &entry).is_break() {
                        return Ok(());
                    }
                }
                // All that was missed.
                tail = usize::MAX;
            }
            // A broker that has just started may not know its plugins yet, but it says so only when it does.
            Err(error) if !answered || error.is::<Refusal>() => return Err(error),
            Err(_) => {}
        }
        std::thread::sleep(PAUSE);
    }
}

/// A line for people.
pub(in crate::cli) fn readable(entry: &Entry) -> String {
    format!("{} {:8} {}", utc_time(entry.at), entry.level, entry.message)
}

/// Whoever reads it sees it at once; when nobody does any more, it ends.
pub(in crate::cli) fn print_line(line: &str) -> ControlFlow<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}
