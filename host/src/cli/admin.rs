//! `vespiary deploy`, `logs`, `replay` and `plugin ...`: the admin API from the command line.

mod client;

mod dead;

mod deploy;

mod logs;

mod show;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use serde::de::DeserializeOwned;

pub(super) use self::client::{AdminClient, NoBroker};
pub(super) use self::dead::{ReplayCommand, replay};
pub(super) use self::deploy::{DeployArgs, deploy};
pub(super) use self::logs::{LogsCommand, follow, print_line, readable, run as logs};
use super::AdminAddress;
use crate::plugins::deploy::DeployReport;
use crate::plugins::view::{Details, Summary};

/// Flags of `plugin`.
#[derive(Debug, clap::Args)]
pub(super) struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
    #[command(flatten)]
    address: AdminAddress,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// List all plugins
    List,
    /// Show everything about one plugin
    Show {
        /// Its name
        name: String,
    },
    /// Print the last lines of a plugin's log, or follow it
    Logs(logs::LogsArgs),
    /// Make an earlier revision's code active again
    Rollback {
        /// Its name
        name: String,
        /// The revision; without it, the last one with other code than the active one
        #[arg(long, value_name = "REVISION")]
        to: Option<u32>,
    },
    /// See dead letters, hand them out again, or drop them
    Dead {
        #[command(subcommand)]
        command: dead::DeadCommand,
    },
    /// Make a canary the active revision
    Promote {
        /// Its name
        name: String,
    },
    /// End a canary; the active revision gets all events again
    Abort {
        /// Its name
        name: String,
    },
    /// Stop handing events to a plugin; they wait in its inbox
    Pause {
        /// Its name
        name: String,
    },
    /// Hand events to a paused or stopped plugin again
    Resume {
        /// Its name
        name: String,
    },
    /// Remove a plugin with its inbox, its dead letters and its state
    Remove {
        /// Its name
        name: String,
    },
}

/// Runs a `plugin` command.
pub(super) fn plugin(args: &PluginArgs) -> anyhow::Result<ExitCode> {
    let api = AdminClient::at(args.address.http);
    match &args.command {
        PluginCommand::List => {
            let answer = api.get("/api/v1/plugins")?;
            print_answer(args.json, answer, |plugins: Vec<Summary>| show::print_list(&plugins))
        }
        PluginCommand::Show { name } => {
            let answer = api.get(&format!("/api/v1/plugins/{name}"))?;
            print_answer(args.json, answer, |details: Details| show::print_details(&details))
        }
        PluginCommand::Logs(which) => logs::print(&api, which, args.json),
        PluginCommand::Rollback { name, to } => {
            let query = to.map_or_else(String::new, |to| format!("?to={to}"));
            let path = format!("/api/v1/plugins/{name}/rollback{query}");
            let answer = deploy::with_progress(&format!("roll {name} back"), || api.post(&path))?;
            print_deployed(args.json, answer)
        }
        PluginCommand::Dead { command } => dead::run(&api, command, args.json),
        PluginCommand::Promote { name } => {
            let step = format!("promote the canary of {name}");
            let answer = deploy::with_progress(&step, || api.post(&format!("/api/v1/plugins/{name}/promote")))?;
            print_deployed(args.json, answer)
        }
        PluginCommand::Abort { name } => {
            let answer = api.post(&format!("/api/v1/plugins/{name}/abort"))?;
            print_answer(args.json, answer, |_: serde_json::Value| println!("the canary of plugin {name} is ended"))
        }
        PluginCommand::Pause { name } => {
            let answer = api.post(&format!("/api/v1/plugins/{name}/pause"))?;
            print_answer(args.json, answer, |_: serde_json::Value| println!("plugin {name} is paused"))
        }
        PluginCommand::Resume { name } => {
            let answer = api.post(&format!("/api/v1/plugins/{name}/resume"))?;
            print_answer(args.json, answer, |_: serde_json::Value| println!("plugin {name} is resumed"))
        }
        PluginCommand::Remove { name } => {
            let answer = api.delete(&format!("/api/v1/plugins/{name}"))?;
            print_answer(args.json, answer, |_: serde_json::Value| println!("plugin {name} is removed"))
        }
    }
}

fn print_deployed(json: bool, answer: String) -> anyhow::Result<ExitCode> {
    print_answer(json, answer, |deployed: DeployReport| show::print_deployed(&deployed))
}

fn print_answer<T: DeserializeOwned>(json: bool, answer: String, print: impl FnOnce(T)) -> anyhow::Result<ExitCode> {
    if json {
        println!("{answer}");
    } else {
        let value = serde_json::from_str(&answer)
            .context("the broker's answer is not understood: broker and command line differ in version")?;
        print(value);
    }
    Ok(ExitCode::SUCCESS)
}

fn or_nothing(list: &[String]) -> String {
    if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
}

/// A timestamp for people: UTC, to the second.
fn utc_time(at_ms: u64) -> String {
    let (days, seconds) = (at_ms / 86_400_000, at_ms / 1_000 % 86_400);
    let (year, month, day) = civil_date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Year, month and day of a number of days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_read_as_dates() {
        assert_eq!(utc_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc_time(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(utc_time(1_795_406_645_123), "2026-11-23T04:04:05Z");
    }
}
