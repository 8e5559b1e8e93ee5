//! The repository's own rules, held by a test: floors, file heads, sizes, foreign libraries, reasons, conformance.
//!
//! A rule that needs an exception gets a line in a list here; the lists only shrink.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a source file.
const LINES: usize = 600;

/// Files that are longer than [`LINES`], and how long they may be.
const LONG_FILES: &[(&str, usize)] = &[];

/// Floors of the host, lowest first. A module uses only modules on floors below its own.
const HOST_FLOORS: &[&[&str]] = &[
    &["config", "clock", "schedule"],
    &["store"],
    &["wasm"],
    &["plugins"],
    &["driver"],
    &["mqtt", "http"],
    &["server"],
    &["cli", "fuzzing"],
    &["main", "lib"],
];

/// Floors of the core, lowest first.
const CORE_FLOORS: &[&[&str]] = &[
    &["topic", "limits", "key"],
    &["message"],
    &["event"],
    &["ledger", "session", "subscriptions", "retained"],
    &["broker"],
    &["fuzzing"],
    &["lib"],
];

/// Foreign libraries and the one folder that may use each.
const FOREIGN: &[(&str, &str)] = &[
    ("redb::", "host/src/store/"),
    ("wasmtime::", "host/src/wasm/"),
    ("wasmtime_wasi::", "host/src/wasm/"),
    ("wasmtime_wasi_http::", "host/src/wasm/"),
    ("hyper::", "host/src/wasm/"),
    ("croner::", "host/src/schedule.rs"),
    ("wasmparser::", "host/src/wasm/"),
    ("ntex_mqtt::", "host/src/mqtt/"),
    ("ntex_bytes::", "host/src/mqtt/"),
    ("axum::", "host/src/http/"),
    ("ureq::", "host/src/cli/"),
];

struct Source {
    /// Path from the root of the repository, with `/`.
    path: String,
    text: String,
}

#[test]
fn modules_use_only_floors_below_them() {
    let mut wrong = Vec::new();
    for (folder, floors) in [("host/src/", HOST_FLOORS), ("host/core/src/", CORE_FLOORS)] {
        for source in sources().iter().filter(|source| source.path.starts_with(folder)) {
            let module = source.path[folder.len()..].split(['/', '.']).next().unwrap_or_default();
            let Some(floor) = floor_of(floors, module) else {
                wrong.push(format!("{}: module {module} stands on no floor", source.path));
                continue;
            };
            for (number, line) in code_lines(&source.text) {
                for used in modules_named(line) {
                    let below = floor_of(floors, used).is_none_or(|other| other < floor);
                    if used != module && !below {
                        wrong.push(format!("{}:{number}: {module} uses {used}, which is not below it", source.path));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_foreign_library_stays_in_its_folder() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("host/")) {
        for (number, line) in code_lines(&source.text) {
            for (library, folder) in FOREIGN {
                let named = line.match_indices(library).any(|(at, _)| {
                    !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
                });
                if named && !source.path.starts_with(folder) {
                    wrong.push(format!("{}:{number}: {library} belongs into {folder}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_begin_with_what_they_are_and_fit_a_reading() {
    let mut wrong = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            wrong.push(format!("{}: it does not begin with `//!`", source.path));
        }
        let lines = source.text.lines().count();
        let most = LONG_FILES.iter().find(|(path, _)| *path == source.path).map_or(LINES, |(_, most)| *most);
        if lines > most {
            wrong.push(format!("{}: {lines} lines, {most} is the most", source.path));
        }
    }
    for (path, _) in LONG_FILES {
        let lines = fs::read_to_string(root().join(path)).map_or(0, |text| text.lines().count());
        if lines <= LINES {
            wrong.push(format!("{path}: it fits now, or is gone; take it off the list"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_to_do_in_the_code() {
    // Put together here, so that this file does not find itself.
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat(), ["#[ign", "ore"].concat()];
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                wrong.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_dependency_says_why() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut in_dependencies = false;
    let mut explained = false;
    let mut wrong = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line == "[workspace.dependencies]";
        } else if line.is_empty() {
            explained = false;
        } else if line.starts_with('#') {
            explained = true;
        } else if in_dependencies
            && line.contains('=')
            && !line.starts_with(' ')
            && !line.contains("path =")
            && !explained
        {
            wrong.push(line.to_owned());
        }
    }
    assert!(wrong.is_empty(), "dependencies without a reason above them:\n{}", wrong.join("\n"));
}

#[test]
fn architecture_fits_a_sitting() {
    let lines = fs::read_to_string(root().join("docs/architecture.md")).unwrap().lines().count();
    assert!(lines <= 250, "docs/architecture.md has {lines} lines, 250 is the most");
}

#[test]
fn every_conformance_statement_has_a_test_that_there_is_or_a_reason() {
    let page = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let sources = sources();
    let mut wrong = Vec::new();
    for specification in page.split("\n## ").skip(1) {
        let (title, text) = specification.split_once('\n').unwrap_or_default();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("| MQTT-"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let mut seen = HashSet::new();
        let mut with_tests = 0;
        for row in &rows {
            let [statement, gist, shown_by] = row[..] else {
                wrong.push(format!("{title}: not three cells: {row:?}"));
                continue;
            };
            if !seen.insert(statement) {
                wrong.push(format!("{title}: {statement} is there twice"));
            }
            if gist.is_empty() || shown_by.is_empty() {
                wrong.push(format!("{title}: {statement} has an empty cell"));
            }
            with_tests += usize::from(shown_by.starts_with('`'));
            let missing = shown_by.split('`').skip(1).step_by(2).filter(|name| !is_a_test(&sources, name));
            wrong.extend(missing.map(|name| format!("{title}: {statement}: there is no test {name}")));
        }
        let reasons = rows.len() - with_tests;
        let count = format!("{} statements: {with_tests} with tests, {reasons} that ask nothing", rows.len());
        if !text.contains(&count) {
            wrong.push(format!("{title}: it does not say {count:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in ["host", "sdk", "plugins", "tests", "fuzz"] {
        collect(&root().join(folder), &mut found);
    }
    assert!(found.len() > 30, "the sources are not where this test looks for them");
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "node_modules", "template"].contains(&name.as_str()) {
            collect(&path, found);
        } else if name.ends_with(".rs") {
            let relative = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            found.push(Source { path: relative, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

/// Whether a path like `mqtt::tests::opening::a_name` is that of a test function in the file of its module.
fn is_a_test(sources: &[Source], path: &str) -> bool {
    let Some((module, function)) = path.rsplit_once("::") else { return false };
    let file = module.replace("::", "/");
    // A module of tests may stand at the end of the file that it tests.
    let within = file.strip_suffix("/tests").unwrap_or(&file);
    let definition = format!("fn {function}()");
    ["tests/e2e", "host/src", "host/core/tests"].iter().any(|folder| {
        let files = [&file[..], within].map(|file| [format!("{folder}/{file}.rs"), format!("{folder}/{file}/mod.rs")]);
        sources.iter().filter(|source| files.concat().contains(&source.path)).any(|source| {
            let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
            lines.windows(2).any(|pair| pair[0] == "#[test]" && pair[1].starts_with(&definition))
        })
    })
}

fn floor_of(floors: &[&[&str]], module: &str) -> Option<usize> {
    floors.iter().position(|floor| floor.contains(&module))
}

/// Lines of code with their numbers from 1; comments are left out, and so are test modules at the end of a file.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| *line != "mod tests {")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line))
}

/// Modules that a line names after `crate::`, also in a braced list.
fn modules_named(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            found.extend(list.split([',', '}']).map(|item| word(item.trim())));
        } else {
            found.push(word(rest));
        }
    }
    found
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}
