//! Components that differ from a given one only in their manifest: under other names or in other versions.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::plugins::sections::with_changed_sections;
use crate::wasm::MANIFEST_SECTION;

/// A component's text for `name` or `version` and so on, replaced.
pub(super) fn with_manifest(component: &[u8], fields: &[(&str, &str)]) -> anyhow::Result<Vec<u8>> {
    let mut replaced = Vec::new();
    let output = with_changed_sections(component, MANIFEST_SECTION, &mut |manifest| {
        replaced.push(replace(manifest, fields));
        replaced.last().and_then(|manifest| manifest.as_ref().ok()).cloned()
    });
    let output = output.context("it is not a WebAssembly component")?;
    let count = replaced.len();
    replaced.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(count == 1, "it has {count} manifests where one is expected");
    Ok(output)
}

fn replace(manifest: &[u8], fields: &[(&str, &str)]) -> anyhow::Result<Vec<u8>> {
    let mut manifest: Value = serde_json::from_slice(manifest).context("its manifest is no JSON")?;
    let object = manifest.as_object_mut().context("its manifest is no object")?;
    for (field, text) in fields {
        object.insert((*field).to_owned(), Value::from(*text));
    }
    Ok(serde_json::to_vec(&manifest)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::sections::with_custom_section;

    const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    fn with(manifest: &str) -> Vec<u8> {
        with_custom_section(EMPTY_COMPONENT, MANIFEST_SECTION, manifest.as_bytes())
    }

    #[test]
    fn fields_of_the_manifest_are_replaced() {
        let changed = with_manifest(&with(r#"{"manifest":1,"name":"a"}"#), &[("name", "b"), ("version", "2")]).unwrap();
        assert_eq!(changed, with(r#"{"manifest":1,"name":"b","version":"2"}"#));
    }

    #[test]
    fn what_has_not_one_manifest_is_refused() {
        for (component, expected) in [
            (b"#!/bin/sh".to_vec(), "not a WebAssembly component"),
            (EMPTY_COMPONENT.to_vec(), "0 manifests"),
            (with_custom_section(&with("{}"), MANIFEST_SECTION, b"{}"), "2 manifests"),
            (with("{"), "no JSON"),
            (with("[]"), "no object"),
        ] {
            let error = format!("{:#}", with_manifest(&component, &[]).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
