//! What `vespiary new` writes: the files of `sdk/template` and a vendored copy of the SDK.
//!
//! The generated crate leaves the workspace behind, so its manifests repeat what the workspace says; here that cannot
//! drift apart. The generating itself is the command line's; this does the same in a few lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
#[ignore = "compiles a crate of its own, natively and to a component: half a minute"]
fn the_generated_crate_passes_its_test_and_is_a_component_with_a_manifest() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
    let _ = fs::remove_dir_all(&directory);
    generate(&sdk().join("template"), &directory, "night-watch");
    for (from, to) in [("src", "src"), ("macros/src", "macros/src"), ("wit", "wit")] {
        generate(&sdk().join(from), &directory.join("vendor/vespiary-sdk").join(to), "night-watch");
    }
    fs::copy(sdk().join("../Cargo.lock"), directory.join("Cargo.lock")).unwrap();
    for arguments in [&["test"][..], &["build", "--target", "wasm32-wasip2", "--profile", "component"]] {
        let mut cargo = Command::new(env!("CARGO"));
        let status =
            cargo.args(arguments).arg("--offline").current_dir(&directory).env_remove("CARGO_TARGET_DIR").status();
        assert!(status.unwrap().success(), "{arguments:?}");
    }
    let component = fs::read(directory.join("target/wasm32-wasip2/component/night_watch.wasm")).unwrap();
    let manifest = br#"{"manifest":1,"name":"night-watch","version":"0.1.0","#;
    assert!(component.windows(manifest.len()).any(|window| window == manifest));
}

/// Copies a directory, without `.template` in names and with the placeholders put in.
fn generate(from: &Path, to: &Path, name: &str) {
    let mut files = Vec::new();
    list(from, &mut files);
    for file in files {
        let relative = file.strip_prefix(from).unwrap().to_str().unwrap();
        let target = to.join(relative.strip_suffix(".template").unwrap_or(relative));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let text = match relative.ends_with(".template") {
            true => text.replace("{{name}}", name).replace("{{crate_name}}", &name.replace('-', "_")),
            false => text,
        };
        fs::write(target, text).unwrap();
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
