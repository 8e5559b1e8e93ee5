//! `vespiary embed`: puts a manifest into a component, which other languages' tools make without one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, ensure};

use crate::plugins::manifest::Manifest;
use crate::plugins::sections::{custom_sections, with_changed_sections, with_custom_section};
use crate::plugins::signature::SIGNATURE_SECTION;
use crate::wasm::{MANIFEST_SECTION, Runtime};

/// Flags of `embed`.
#[derive(Debug, clap::Args)]
pub(super) struct EmbedArgs {
    /// The manifest
    #[arg(long, value_name = "FILE.json")]
    manifest: PathBuf,
    /// The component
    #[arg(value_name = "COMPONENT")]
    component: PathBuf,
    /// Write the result here; without it, in the place of the component
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Checks both and puts the one into the other.
pub(super) fn run(args: &EmbedArgs) -> anyhow::Result<ExitCode> {
    let manifest = std::fs::read(&args.manifest)
        .with_context(|| format!("cannot read the manifest {}", args.manifest.display()))?;
    let understood = Manifest::parse(&manifest).map_err(|error| anyhow!("{}: {error}", args.manifest.display()))?;
    let component = read_component(&args.component)?;
    let result = embed(&component, &manifest).with_context(|| args.component.display().to_string())?;
    let output = args.output.as_ref().unwrap_or(&args.component);
    replace(output, &result)?;
    eprintln!("plugin {} {}, {} KiB", understood.name.0, understood.version, result.len().div_ceil(1024));
    println!("{}", output.display());
    Ok(ExitCode::SUCCESS)
}

/// The component with this manifest in the place of any that it had, in itself or in a core module within.
fn embed(component: &[u8], manifest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let sections = custom_sections(component).context("it is not a WebAssembly component")?;
    let signed = sections.iter().any(|section| section.name == SIGNATURE_SECTION.as_bytes());
    ensure!(!signed, "it is signed already: embed the manifest first and sign then");
    let bare = with_changed_sections(component, MANIFEST_SECTION, &mut |_| None);
    let bare = bare.context("it is not a WebAssembly component")?;
    let result = with_custom_section(&bare, MANIFEST_SECTION, manifest);
    // What a broker would say of it is better said now.
    Runtime::inspect(&result)?;
    Ok(result)
}

/// Reads a component's file.
pub(super) fn read_component(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read the component {}", path.display()))
}

/// Writes a file beside and moves it into its place, so that nobody sees half of it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    std::fs::write(&beside, bytes)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::tests::guest;

    #[test]
    fn a_manifest_takes_the_place_of_the_one_that_the_compiler_left_in_the_core_module() {
        let component = guest("obeys");
        let outermost = custom_sections(&component).unwrap();
        assert!(outermost.iter().all(|section| section.name != MANIFEST_SECTION.as_bytes()), "it is further within");
        assert!(Runtime::inspect(&component).unwrap().manifest.is_some());
        let mut result = component;
        for manifest in [&b"{\"name\":\"first\"}"[..], b"{}"] {
            result = embed(&result, manifest).unwrap();
            assert_eq!(Runtime::inspect(&result).unwrap().manifest.as_deref(), Some(manifest));
        }
    }

    #[test]
    fn what_cannot_take_a_manifest_is_refused_with_the_reason() {
        let empty = b"\0asm\x0d\0\x01\0";
        let signed = with_custom_section(empty, SIGNATURE_SECTION, b"");
        for (component, expected) in [
            (&b"#!/bin/sh"[..], "is not a WebAssembly component"),
            (&signed, "sign then"),
            (empty, "lifecycle"),
            (b"\0asm\x01\0\0\0", "core WebAssembly module"),
        ] {
            let error = format!("{:#}", embed(component, b"{}").unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
