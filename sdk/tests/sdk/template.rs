//! What `vespiary new` writes: the files of `sdk/template` and a vendored copy of the SDK.
//!
//! The generated crate leaves the workspace behind, so its manifests repeat what the workspace says; here that cannot
//! drift apart. The generating itself is the command line's: it copies each file of the template without `.template`, with
//! `{{name}}` and `{{crate_name}}` put in, and beside the vendored manifests `sdk/src`, `sdk/macros/src` and `wit`.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

fn sdk() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn table(path: impl AsRef<Path>) -> Table {
    fs::read_to_string(sdk().join(path)).unwrap().parse().unwrap()
}

/// Checks that a vendored manifest says what the crate's own does, with everything that the workspace gives put in.
fn check_manifest(vendored: &str, own: &str) {
    let workspace = table("../Cargo.toml")["workspace"].clone();
    let inherited = |value: &Value, from: &Value, key: &str| match value.get("workspace") {
        Some(_) => from[key].clone(),
        None => value.clone(),
    };
    let mut expected = table(own);
    expected.retain(|key, _| !["lints", "example", "test", "dev-dependencies"].contains(&key));
    let package = expected["package"].as_table_mut().unwrap();
    for (key, value) in package.iter_mut() {
        *value = inherited(value, &workspace["package"], key);
    }
    let mut tables = vec![expected.get_mut("dependencies").cloned().unwrap()];
    if let Some(target) = expected.get("target") {
        tables.extend(target.as_table().unwrap().values().map(|target| target["dependencies"].clone()));
    }
    let mut dependencies: Vec<(String, Value)> = Vec::new();
    for (name, value) in tables.iter().flat_map(|table| table.as_table().unwrap()) {
        let value = match name.as_str() {
            "vespiary-sdk-macros" => "path = \"macros\"".parse::<Table>().unwrap().into(),
            _ => inherited(value, &workspace["dependencies"], name),
        };
        dependencies.push((name.clone(), value));
    }
    let vendored_table = table(vendored);
    assert_eq!(vendored_table["package"], expected["package"], "{vendored}");
    assert_eq!(vendored_table.get("lib"), expected.get("lib"), "{vendored}");
    let text = fs::read_to_string(sdk().join(vendored)).unwrap();
    let mut found = vendored_table["dependencies"].as_table().unwrap().clone();
    for target in vendored_table.get("target").into_iter().flat_map(|target| target.as_table().unwrap().values()) {
        found.extend(target["dependencies"].as_table().unwrap().clone());
    }
    assert_eq!(found, dependencies.into_iter().collect::<Table>(), "{vendored}:\n{text}");
}

#[test]
fn vendored_manifests_say_what_the_workspace_says() {
    check_manifest("template/vendor/vespiary-sdk/Cargo.toml.template", "Cargo.toml");
    check_manifest("template/vendor/vespiary-sdk/macros/Cargo.toml.template", "macros/Cargo.toml");
    let workspace = &table("../Cargo.toml")["workspace"];
    let generated = table("template/Cargo.toml.template");
    assert_eq!(generated["dependencies"]["serde"], workspace["dependencies"]["serde"]);
    assert_eq!(generated["package"]["edition"], workspace["package"]["edition"]);
}

#[test]
fn the_generated_crate_is_built_as_the_workspaces_plugins_are() {
    let component = table("../Cargo.toml")["profile"]["component"].as_table().unwrap().clone();
    let release = table("template/Cargo.toml.template")["profile"]["release"].clone();
    for (key, value) in release.as_table().unwrap() {
        assert_eq!(component.get(key), Some(value), "{key}");
    }
}

#[test]
fn the_wit_of_the_sdk_is_the_contract() {
    let mut files = Vec::new();
    list(&sdk().join("../wit"), &mut files);
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let relative = file.strip_prefix(sdk().join("../wit")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), fs::read(sdk().join("wit").join(relative)).unwrap(), "{relative:?}");
    }
}

#[test]
fn the_generated_code_is_what_is_compiled_and_tested_here() {
    for (kind, tested) in [
        ("event", include_str!("night_watch.rs")),
        ("hook", include_str!("night_watch_hook.rs")),
        ("http", include_str!("night_watch_http.rs")),
    ] {
        let template = fs::read_to_string(sdk().join(format!("template-{kind}/src/lib.rs.template"))).unwrap();
        assert_eq!(template.replace("{{name}}", "night-watch"), tested, "{kind}");
    }
}

#[test]
fn no_placeholder_is_left_in_what_is_generated() {
    let mut files = Vec::new();
    for directory in ["template", "template-event", "template-hook", "template-http"] {
        list(&sdk().join(directory), &mut files);
    }
    assert_eq!(files.len(), 10, "{files:?}");
    for file in files {
        assert!(file.to_str().unwrap().ends_with(".template"), "{file:?}");
        let text = fs::read_to_string(&file).unwrap();
        let text = text.replace("{{name}}", "night-watch").replace("{{crate_name}}", "night_watch");
        assert!(!text.replace("{{description}}", "").contains("{{"), "{file:?}");
    }
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else {
            files.push(path);
        }
    }
}
