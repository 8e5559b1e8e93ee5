//! Checks what `docs/guide/` and `README.md` show of commands, configuration files and manifests: that it is understood.
//!
//! Rust blocks are compiled by `tests/guide`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::Parser as _;
use clap::error::ErrorKind;

use super::Cli;
use crate::config::{Config, Plugins};
use crate::plugins::manifest::Manifest;
use crate::wasm::WasmLimits;

/// A fenced block of a page.
struct Block {
    /// Page and line, for messages.
    at: String,
    /// What the fence says.
    language: String,
    text: String,
}

fn pages() -> Vec<(String, String)> {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
    let mut pages = Vec::new();
    for entry in fs::read_dir(guide).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            pages.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    // Apart from the guide's own README by its name.
    pages.push(("../README.md".to_owned(), fs::read_to_string(readme).unwrap()));
    pages.sort();
    pages
}

fn page(name: &str) -> String {
    pages().into_iter().find(|(other, _)| other == name).unwrap().1
}

fn blocks(language: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (name, text) in pages() {
        let mut open: Option<Block> = None;
        for (number, line) in text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), open.take()) {
                (Some(language), None) => {
                    let (at, language) = (format!("{name}:{}", number + 1), language.to_owned());
                    open = Some(Block { at, language, text: String::new() });
                }
                (Some(_), Some(block)) => blocks.push(block),
                (None, Some(mut block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                    open = Some(block);
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{name}: a block does not end");
    }
    blocks.retain(|block| block.language == language);
    blocks
}

/// What the guide writes between single backticks, outside blocks.
fn spans() -> Vec<(String, String)> {
    let mut spans = Vec::new();
    for (name, text) in pages() {
        let mut in_block = false;
        // A span may go over the end of a line; an empty line ends a paragraph.
        let mut prose = String::new();
        for line in text.lines() {
            let fence = line.trim_start().starts_with("```");
            in_block ^= fence;
            prose.push_str(if fence || in_block { "" } else { line });
            prose.push('\n');
        }
        for paragraph in prose.replace("``", "").split("\n\n") {
            let inside = paragraph.split('`').skip(1).step_by(2);
            spans.extend(inside.map(|span| (name.clone(), span.replace('\n', " "))));
        }
    }
    spans
}

/// The words of a line, as a shell takes them apart; a comment, a pipe, a redirection or another command ends it.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(characters.next()),
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '#' | '|' | ';' | '>' | '&') if word.is_none() => break,
            (None, ';') => break,
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// Every `vespiary ...` in a line of shell, also behind `;`, `do` and the like.
fn commands(line: &str) -> Vec<Vec<String>> {
    let starts = line.match_indices("vespiary ").map(|(at, _)| at);
    let begins = |at: &usize| *at == 0 || ["; ", "do ", "&& ", "| "].iter().any(|before| line[..*at].ends_with(before));
    starts.filter(begins).map(|at| words(&line[at..])).collect()
}

#[test]
fn every_command_of_the_guide_exists_with_its_flags() {
    let mut checked = 0;
    for block in blocks("sh") {
        for line in block.text.replace("\\\n", " ").lines() {
            for command in commands(line.trim()) {
                if let Err(error) = Cli::try_parse_from(&command) {
                    panic!("{}: {command:?}: {error}", block.at);
                }
                checked += 1;
            }
        }
    }
    assert!(checked >= 30, "{checked} commands were found");
}

#[test]
fn every_command_that_the_guide_mentions_exists() {
    let mut checked = 0;
    for (page, span) in spans().into_iter().filter(|(_, span)| span.starts_with("vespiary ")) {
        match Cli::try_parse_from(words(&span)).map_err(|error| error.kind()) {
            // To be mentioned, a command need not be complete.
            Ok(_) | Err(ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) => {
                checked += 1
            }
            Err(kind) => panic!("{page}: `{span}`: {kind:?}"),
        }
    }
    assert!(checked >= 20, "{checked} commands were found");
}

#[test]
fn every_configuration_of_the_guide_is_understood() {
    let blocks = blocks("toml");
    assert!(blocks.len() >= 5);
    for block in blocks {
        let config = Config::parse(&block.text, Path::new(&block.at)).unwrap_or_else(|error| panic!("{error}"));
        config.check().unwrap_or_else(|error| panic!("{}: {error}", block.at));
    }
}

#[test]
fn every_manifest_of_the_guide_is_understood_and_the_rest_is_json() {
    let mut manifests = 0;
    for block in blocks("json") {
        let value: serde_json::Value =
            serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.at));
        if value.get("manifest").is_some() {
            Manifest::parse(block.text.as_bytes()).unwrap_or_else(|error| panic!("{}: {error}", block.at));
            manifests += 1;
        }
    }
    assert!(manifests >= 3, "{manifests} manifests were found");
}

#[test]
fn the_configuration_page_shows_every_key_with_its_default() {
    let text = page("configuration.md");
    let block = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let shown = Config::parse(block, Path::new("configuration.md")).unwrap();
    let default = Config::default();
    assert_eq!(shown.limits.resolve(), default.limits.resolve());
    let plugins = Plugins { grants: default.plugins.grants, ..shown.plugins.clone() };
    assert_eq!(Config { plugin: default.plugin.clone(), limits: default.limits.clone(), plugins, ..shown }, default);
    for table in ["", "[mqtt]", "[http]", "[store]", "[limits]", "[plugins]", "[plugin.x]"] {
        let begin = table.trim_end_matches("x]");
        let section = if table.is_empty() { block } else { block.split(begin).nth(1).unwrap() };
        for key in keys(table) {
            let shown = section.lines().any(|line| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} =")) || line.starts_with(&format!("[{key}"))
            });
            assert!(shown, "configuration.md does not show {key} of {table}");
        }
    }
}

/// The keys that a table may have, by what is said of one that it may not have.
fn keys(table: &str) -> BTreeSet<String> {
    let error = Config::parse(&format!("{table}\nno_such_key = 1"), Path::new("x")).unwrap_err().to_string();
    let (_, keys) = error.split_once("expected ").unwrap();
    let keys: BTreeSet<String> = keys.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(!keys.is_empty(), "{error}");
    keys
}

#[test]
fn the_page_on_limits_tells_what_holds() {
    let text = page("limits-and-grants.md");
    let (limits, config) = (WasmLimits::default(), Config::default());
    let (core, plugins) = (config.limits.resolve(), &config.plugins);
    for (name, value) in [
        ("plugins.memory_bytes", plugins.memory_bytes as u64),
        ("plugins.component_bytes", plugins.component_bytes as u64),
        ("plugins.call_deadline_ms", plugins.call_deadline_ms),
        ("plugins.http_call_deadline_ms", plugins.http_call_deadline_ms),
        ("plugins.publishes_per_call", plugins.publishes_per_call as u64),
        ("plugins.publish_bytes_per_call", plugins.publish_bytes_per_call as u64),
        ("plugins.write_bytes_per_call", plugins.write_bytes_per_call as u64),
        ("plugins.state_bytes", plugins.state_bytes),
        ("plugins.http_body_bytes", plugins.http_body_bytes as u64),
        ("plugins.http_requests", plugins.http_requests as u64),
        ("plugins.log_lines_per_s", plugins.log_lines_per_s.into()),
        ("plugins.metric_series", plugins.metric_series as u64),
        ("plugins.batch_events", plugins.batch_events as u64),
        ("plugins.attempts", plugins.attempts.into()),
        ("plugins.breaker_failures", plugins.breaker_failures.into()),
        ("plugins.quiesce_ms", plugins.quiesce_ms),
        ("plugins.probation_events", plugins.probation_events.into()),
        ("plugins.probation_s", plugins.probation_s.into()),
        ("plugins.dry_run_events", plugins.dry_run_events as u64),
        ("plugins.dry_run_bytes", plugins.dry_run_bytes as u64),
        ("limits.plugins", core.plugins as u64),
        ("limits.inbox_events", core.inbox_events as u64),
        ("limits.inbox_bytes", core.inbox_bytes as u64),
        ("limits.batch_bytes", core.batch_bytes as u64),
        ("limits.dead_letters", core.dead_letters as u64),
        ("timers of one plugin", core.timers as u64),
        ("table elements of one instance", limits.table_elements as u64),
        ("bytes of stack", limits.stack_bytes as u64),
        ("timers set or cancelled in one call", limits.timers_per_call as u64),
        ("bytes of a timer's payload", limits.timer_payload_bytes as u64),
        ("clients disconnected in one call", limits.disconnects_per_call as u64),
        ("measurements in one call", limits.measurements_per_call.into()),
        ("bytes of one state value", limits.state_value_bytes as u64),
        ("bytes that one scan gives", limits.state_scan_bytes as u64),
        ("HTTP requests sent in one call", limits.http_requests_per_call.into()),
        ("bytes of one log line", limits.log_line_bytes as u64),
    ] {
        let row =
            text.lines().find(|line| line.starts_with("| ") && line.replace('`', "").contains(&format!("| {name} |")));
        let row = row.unwrap_or_else(|| panic!("limits-and-grants.md has no row of {name}"));
        let shown = row.split('|').any(|cell| amount(cell.trim()) == Some(value));
        assert!(shown, "limits-and-grants.md: {row}: it is {value}");
    }
}

/// A number as tables write it: `1,000`, `64 KiB`, `5 MiB`, `1 GiB`.
fn amount(cell: &str) -> Option<u64> {
    let (number, unit) = cell.split_once(' ').unwrap_or((cell, ""));
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.replace(',', "").parse::<u64>().ok().map(|number| number << shift)
}

#[test]
fn the_reference_lists_every_command() {
    use clap::CommandFactory as _;
    fn list(command: &clap::Command, path: &str, names: &mut Vec<String>) {
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
            let path = format!("{path} {}", inner.get_name());
            // What the benchmark measures is a page of its own.
            if inner.has_subcommands() && inner.get_name() != "bench" {
                list(inner, &path, names)
            } else {
                names.push(path)
            }
        }
    }
    let mut names = Vec::new();
    list(&Cli::command(), "vespiary", &mut names);
    assert!(names.len() >= 25, "{names:?}");
    let text = page("reference.md");
    for name in names {
        assert!(text.contains(&format!("`{name}")), "reference.md does not list `{name}`");
    }
}
