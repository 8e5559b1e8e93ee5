//! `vespiary plugin dead ...` and `vespiary replay NAME`: events that were given up, looked at, handed out again or dropped.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AdminClient, print_answer, utc_time};
use crate::cli::AdminAddress;
use crate::plugins::view::DeadLetterView;

/// Letters that one request asks for; a list is as long as it is.
const PAGE: usize = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// List a plugin's dead letters, oldest first
    List {
        /// Its name
        name: String,
        /// How many at most
        #[arg(short = 'n', long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one dead letter whole, with its payload
    Show {
        /// Its name
        name: String,
        /// The event
        event: u64,
    },
    /// Hand dead letters out again, as if they had just come
    Replay(Selection),
    /// Forget dead letters
    Drop(Selection),
}

/// Which dead letters.
#[derive(Debug, clap::Args)]
pub(super) struct Selection {
    /// Name of the plugin
    name: String,
    /// The events
    #[arg(value_name = "EVENT", required_unless_present = "all", conflicts_with = "all")]
    events: Vec<u64>,
    /// All that there are
    #[arg(long)]
    all: bool,
}

/// Flags of `replay`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ReplayCommand {
    /// Name of the plugin
    name: String,
    #[command(flatten)]
    address: AdminAddress,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// How many letters an action was done to.
#[derive(Deserialize)]
struct Done {
    letters: usize,
}

/// Runs `replay`.
pub(in crate::cli) fn replay(args: &ReplayCommand) -> anyhow::Result<ExitCode> {
    let all = Selection { name: args.name.clone(), events: Vec::new(), all: true };
    act(&AdminClient::at(args.address.http), "replay", &all, args.json)
}

/// Runs a `plugin dead` command.
pub(super) fn run(api: &AdminClient, command: &DeadCommand, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        DeadCommand::List { name, limit } => list(api, name, *limit, json),
        DeadCommand::Show { name, event } => {
            let answer = api.get(&format!("/api/v1/plugins/{name}/dead/{event}"))?;
            print_answer(json, answer, |letter: Value| print_letter(&letter))
        }
        DeadCommand::Replay(selection) => act(api, "replay", selection, json),
        DeadCommand::Drop(selection) => act(api, "drop", selection, json),
    }
}

fn list(api: &AdminClient, name: &str, limit: usize, json: bool) -> anyhow::Result<ExitCode> {
    let mut letters: Vec<Value> = Vec::new();
    while letters.len() < limit {
        let page = PAGE.min(limit - letters.len());
        let last = letters.last().and_then(|letter| letter["event"].as_u64());
        let after = last.map_or_else(String::new, |event| format!("&after={event}"));
        let answer = api.get(&format!("/api/v1/plugins/{name}/dead?limit={page}{after}"))?;
        let more: Vec<Value> = serde_json::from_str(&answer).context("the broker's answer is not understood")?;
        let full = more.len() == page;
        letters.extend(more);
        if !full {
            break;
        }
    }
    print_answer(json, Value::Array(letters).to_string(), |letters: Vec<DeadLetterView>| {
        if letters.is_empty() {
            println!("plugin {name} has no dead letters");
        }
        for letter in letters {
            println!(
                "{:>12}  {}  {:3} attempts  {}: {}",
                letter.event,
                utc_time(letter.at),
                letter.attempts,
                letter.topic,
                letter.reason
            );
        }
    })
}

fn print_letter(letter: &Value) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (key, value) in letter.as_object().into_iter().flatten() {
        match (&**key, value.as_u64()) {
            ("at" | "received_at", Some(at)) => println!("{key:12} {}", utc_time(at)),
            ("payload_base64", _) => {
                let bytes = BASE64.decode(text(value)).map_or(0, |bytes| bytes.len());
                println!("{:12} {bytes} bytes that are no text: {}", "payload", text(value));
            }
            _ => println!("{key:12} {}", text(value)),
        }
    }
}

fn act(api: &AdminClient, action: &str, selection: &Selection, json: bool) -> anyhow::Result<ExitCode> {
    let Selection { name, events, all } = selection;
    ensure!(*all || !events.is_empty(), "name events, or all of them with --all");
    let body = if *all { json!({ "all": true }) } else { json!({ "events": events }) };
    let answer = api.post_json(&format!("/api/v1/plugins/{name}/dead/{action}"), &body)?;
    print_answer(json, answer, |done: Done| {
        let what = if action == "replay" { "handed out again" } else { "dropped" };
        println!("{} dead letters of plugin {name} are {what}", done.letters);
    })
}
