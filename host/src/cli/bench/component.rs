//! Components that differ from a given one only in their manifest: under other names or in other versions.
//!
//! A component is a preamble of 8 bytes and sections: an id, a length (LEB128) and as many bytes. The manifest is a custom
//! section of the component itself or of a core module within, so the sections around it change their length too. What is
//! in any other section does not matter here.

use anyhow::{Context as _, anyhow, ensure};
use serde_json::Value;

/// Bytes before the first section.
const PREAMBLE: usize = 8;
/// Ids of sections.
const CUSTOM: u8 = 0;
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// The fifth and sixth byte of a component: its version; those of a core module are 1 and 0.
const COMPONENT_VERSION: [u8; 2] = [0x0d, 0];
/// The seventh and eighth byte: 1 for a component.
const LAYER: [u8; 2] = [1, 0];
/// How deep components lie in components.
const DEPTH: usize = 8;
/// Name of the manifest's section.
const MANIFEST: &[u8] = b"vespiary:manifest";

/// A component's text for `name` or `version` and so on, replaced.
pub(super) fn with_manifest(component: &[u8], fields: &[(&str, &str)]) -> anyhow::Result<Vec<u8>> {
    let is_component = component.len() >= PREAMBLE
        && component.starts_with(b"\0asm")
        && component[4..6] == COMPONENT_VERSION
        && component[6..8] == LAYER;
    ensure!(is_component, "it is not a WebAssembly component");
    let mut replaced = 0;
    let mut output = Vec::with_capacity(component.len() + 64);
    rewrite(component, fields, DEPTH, &mut replaced, &mut output).context("it cannot get another manifest")?;
    ensure!(replaced == 1, "it has {replaced} manifests where one is expected");
    Ok(output)
}

/// Copies a component or a core module, with fields of the manifest replaced.
fn rewrite(
    input: &[u8],
    fields: &[(&str, &str)],
    depth: usize,
    replaced: &mut usize,
    output: &mut Vec<u8>,
) -> anyhow::Result<()> {
    let malformed = || anyhow!("its sections are malformed");
    let depth = depth.checked_sub(1).ok_or_else(malformed)?;
    let is_module = input.get(6..8) != Some(&LAYER);
    output.extend_from_slice(input.get(..PREAMBLE).ok_or_else(malformed)?);
    let mut rest = &input[PREAMBLE..];
    while let Some((&id, after)) = rest.split_first() {
        let (body, after) = sized(after).ok_or_else(malformed)?;
        let mut content = Vec::new();
        let content = match id {
            CUSTOM if sized(body).is_some_and(|(name, _)| name == MANIFEST) => {
                let (_, manifest) = sized(body).ok_or_else(malformed)?;
                *replaced += 1;
                put_length(&mut content, MANIFEST.len());
                content.extend_from_slice(MANIFEST);
                content.extend_from_slice(&replace(manifest, fields)?);
                &content
            }
            CORE_MODULE | COMPONENT if !is_module => {
                rewrite(body, fields, depth, replaced, &mut content)?;
                &content
            }
            _ => body,
        };
        output.push(id);
        put_length(output, content.len());
        output.extend_from_slice(content);
        rest = after;
    }
    Ok(())
}

fn replace(manifest: &[u8], fields: &[(&str, &str)]) -> anyhow::Result<Vec<u8>> {
    let mut manifest: Value = serde_json::from_slice(manifest).context("its manifest is no JSON")?;
    let object = manifest.as_object_mut().context("its manifest is no object")?;
    for (field, text) in fields {
        object.insert((*field).to_owned(), Value::from(*text));
    }
    Ok(serde_json::to_vec(&manifest)?)
}

/// A length and as many bytes; and what follows.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_u64;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes[index + 1..].split_at_checked(usize::try_from(length).ok()?);
        }
    }
    None
}

fn put_length(output: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        output.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    output.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![id];
        put_length(&mut bytes, content.len());
        bytes.extend_from_slice(content);
        bytes
    }

    fn custom(name: &[u8], data: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        put_length(&mut content, name.len());
        content.extend_from_slice(name);
        content.extend_from_slice(data);
        section(CUSTOM, &content)
    }

    #[test]
    fn a_manifest_is_replaced_wherever_it_lies() {
        let old = custom(MANIFEST, br#"{"manifest":1,"name":"a"}"#);
        let long = "b".repeat(200);
        let new = custom(MANIFEST, format!(r#"{{"manifest":1,"name":"{long}"}}"#).as_bytes());
        // A core module's first section has the id that core modules have in components.
        let types = section(1, b"\0");
        let other = custom(b"producers", b"x");
        for (around, inner) in [
            (&(|inner: Vec<u8>| inner) as &dyn Fn(Vec<u8>) -> Vec<u8>, (&old, &new)),
            (&|inner| section(CORE_MODULE, &[EMPTY_MODULE, &types, &inner, &other].concat()), (&old, &new)),
            (
                &|inner| {
                    let module = section(CORE_MODULE, &[EMPTY_MODULE, &inner].concat());
                    section(COMPONENT, &[EMPTY_COMPONENT, &other, &module].concat())
                },
                (&old, &new),
            ),
        ] {
            let whole = |inner: &Vec<u8>| [EMPTY_COMPONENT, &other, &around(inner.clone())].concat();
            assert_eq!(with_manifest(&whole(inner.0), &[("name", &long)]).unwrap(), whole(inner.1));
        }
    }

    #[test]
    fn what_has_not_one_manifest_is_refused() {
        let manifest = custom(MANIFEST, b"{}");
        for (component, expected) in [
            (EMPTY_MODULE.to_vec(), "not a WebAssembly component"),
            (b"#!/bin/sh".to_vec(), "not a WebAssembly component"),
            (EMPTY_COMPONENT.to_vec(), "0 manifests"),
            ([EMPTY_COMPONENT, &manifest, &manifest].concat(), "2 manifests"),
            ([EMPTY_COMPONENT, &custom(MANIFEST, b"{")].concat(), "no JSON"),
            ([EMPTY_COMPONENT, &manifest[..5]].concat(), "malformed"),
        ] {
            let error = format!("{:#}", with_manifest(&component, &[]).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
