//! `vespiary deploy` and `vespiary plugin ...`: the admin API from the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Subcommand;
use serde::de::DeserializeOwned;

use super::AdminAddress;
use crate::plugins::deploy::Deployed;
use crate::plugins::view::{Details, Summary};

/// How long one request may take; a deploy compiles and waits for a call to end.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Flags of `deploy`.
#[derive(Debug, clap::Args)]
pub(super) struct DeployArgs {
    /// The component
    #[arg(value_name = "FILE.wasm")]
    component: PathBuf,
    #[command(flatten)]
    address: AdminAddress,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

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
    /// Print the last lines of a plugin's log
    Logs {
        /// Its name
        name: String,
        /// How many lines
        #[arg(short = 'n', long, default_value_t = 100)]
        tail: usize,
    },
    /// Make an earlier revision's code active again
    Rollback {
        /// Its name
        name: String,
        /// The revision; without it, the last one with other code than the active one
        #[arg(long, value_name = "REVISION")]
        to: Option<u32>,
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

/// Deploys a component.
pub(super) fn deploy(args: &DeployArgs) -> anyhow::Result<ExitCode> {
    let component = std::fs::read(&args.component)
        .with_context(|| format!("cannot read the component {}", args.component.display()))?;
    let api = AdminClient::at(args.address.http);
    let answer = api.post_component(&component)?;
    print_deployed(args.json, answer)
}

/// Runs a `plugin` command.
pub(super) fn plugin(args: &PluginArgs) -> anyhow::Result<ExitCode> {
    let api = AdminClient::at(args.address.http);
    match &args.command {
        PluginCommand::List => {
            let answer = api.get("/api/v1/plugins")?;
            print_answer(args.json, answer, |plugins: Vec<Summary>| print_list(&plugins))
        }
        PluginCommand::Show { name } => {
            let answer = api.get(&format!("/api/v1/plugins/{name}"))?;
            print_answer(args.json, answer, |details: Details| print_details(&details))
        }
        PluginCommand::Logs { name, tail } => {
            let answer = api.get(&format!("/api/v1/plugins/{name}/logs?tail={tail}"))?;
            print_answer(args.json, answer, |lines: Vec<LogEntry>| {
                for line in lines {
                    println!("{} {:8} {}", utc_time(line.at), line.level, line.message);
                }
            })
        }
        PluginCommand::Rollback { name, to } => {
            let query = to.map_or_else(String::new, |to| format!("?to={to}"));
            let answer = api.post(&format!("/api/v1/plugins/{name}/rollback{query}"))?;
            print_deployed(args.json, answer)
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

/// A client of the admin API.
pub(super) struct AdminClient {
    agent: ureq::Agent,
    base: String,
}

#[derive(serde::Deserialize)]
struct LogEntry {
    at: u64,
    level: String,
    message: String,
}

#[derive(serde::Deserialize)]
struct ErrorAnswer {
    error: String,
}

impl AdminClient {
    /// A client of the API at an address.
    pub(super) fn at(address: SocketAddr) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        Self { agent, base: format!("http://{address}") }
    }

    /// Deploys a component.
    pub(super) fn post_component(&self, component: &[u8]) -> anyhow::Result<String> {
        let request = self.agent.post(format!("{}/api/v1/plugins", self.base));
        self.answer(request.header("content-type", "application/wasm").send(component))
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        self.answer(self.agent.get(format!("{}{path}", self.base)).call())
    }

    fn post(&self, path: &str) -> anyhow::Result<String> {
        self.answer(self.agent.post(format!("{}{path}", self.base)).send_empty())
    }

    fn delete(&self, path: &str) -> anyhow::Result<String> {
        self.answer(self.agent.delete(format!("{}{path}", self.base)).call())
    }

    /// The body of a good answer, or the error that a bad one carries.
    fn answer(&self, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<String> {
        let mut response = response.map_err(|error| {
            anyhow!(
                "no broker answers at {} ({error}): start one with `vespiary serve` or name it with --http",
                self.base
            )
        })?;
        let body = response.body_mut().read_to_string().context("the broker's answer broke off")?;
        if response.status().is_success() {
            return Ok(body);
        }
        match serde_json::from_str::<ErrorAnswer>(&body) {
            Ok(answer) => bail!("{}", answer.error),
            Err(_) => bail!("{} answered with status {}: is it a Vespiary broker?", self.base, response.status()),
        }
    }
}

fn print_deployed(json: bool, answer: String) -> anyhow::Result<ExitCode> {
    print_answer(json, answer, |deployed: Deployed| {
        match deployed.replaced {
            None => println!("plugin {} is deployed as revision 1 (version {})", deployed.plugin, deployed.version),
            Some(replaced) => println!(
                "plugin {} went from revision {replaced} to revision {} (version {})",
                deployed.plugin, deployed.revision, deployed.version
            ),
        }
        println!("  digest    sha256:{}", deployed.digest);
        println!("  listens   {}", or_nothing(&deployed.subscribes));
        println!("  publishes {} (grants: {})", or_nothing(&deployed.publishes), deployed.grants);
        println!("  compiled  {:.1} ms, warmed {:.1} ms", deployed.compile_ms, deployed.warm_ms);
        println!("  pause     {:.2} ms without dispatch; publishes were accepted throughout", deployed.pause_ms);
    })
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

fn print_list(plugins: &[Summary]) {
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

fn print_details(details: &Details) {
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
