//! What a component says of itself before anything of it is compiled: its manifest, imports and exports.

use wasmparser::{Encoding, Parser, Payload};

use super::error::ComponentError;

/// Name of the custom section that holds the manifest.
pub const MANIFEST_SECTION: &str = "vespiary:manifest";

/// The interface that every plugin exports.
pub(super) const LIFECYCLE: &str = "vespiary:plugin/lifecycle@0.1.0";
/// Interfaces of which a plugin exports one at the least: otherwise nothing would ever call it.
pub(super) const HANDLER: &str = "vespiary:plugin/handler@0.1.0";
pub(super) const HOOKS: &str = "vespiary:plugin/hooks@0.1.0";
pub(super) const INCOMING_HANDLER: &str = "wasi:http/incoming-handler@0.2.0";
/// The interface of a plugin that changes the form of its state.
pub(super) const MIGRATION: &str = "vespiary:plugin/migration@0.1.0";

/// Interfaces that the host offers, up to `@`, with the versions that fit.
const OFFERED: [(&str, &str); 10] = [
    ("vespiary:plugin/", "0.1."),
    ("wasi:logging/logging", "0.1.0-draft"),
    ("wasi:config/store", "0.2.0-rc.1"),
    // The empty virtual WASI, which Rust's standard library imports whether it is used or not.
    ("wasi:cli/", "0.2."),
    ("wasi:clocks/", "0.2."),
    ("wasi:filesystem/", "0.2."),
    ("wasi:io/", "0.2."),
    ("wasi:random/", "0.2."),
    ("wasi:sockets/", "0.2."),
    // Requests go to granted hosts only; without a grant each is denied.
    ("wasi:http/", "0.2."),
];

/// Interfaces of `vespiary:plugin` that are exported by plugins or not there at all are not offered as imports.
const OFFERED_OF_PLUGIN: [&str; 7] = ["broker", "metrics", "secrets", "state", "timers", "transaction", "types"];
/// The same of `wasi:http`.
const OFFERED_OF_HTTP: [&str; 2] = ["outgoing-handler", "types"];

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The bytes of its manifest, if it has one.
    pub manifest: Option<Vec<u8>>,
    /// The names that it imports, in order.
    pub imports: Vec<String>,
    /// The names that it exports, in order.
    pub exports: Vec<String>,
}

impl Inspection {
    /// Whether it handles events.
    pub fn has_handler(&self) -> bool {
        self.has(HANDLER)
    }

    /// Whether it decides in the path of packets.
    pub fn has_hooks(&self) -> bool {
        self.has(HOOKS)
    }

    /// Whether it can change the form of its state.
    pub fn has_migration(&self) -> bool {
        self.has(MIGRATION)
    }

    /// Whether it answers HTTP requests.
    pub fn has_http(&self) -> bool {
        self.has(INCOMING_HANDLER)
    }

    fn has(&self, name: &str) -> bool {
        self.exports.iter().any(|export| fits(export, name))
    }
}

/// Reads a component's own words. Refuses what is no component, is made for another version of the contract, lacks a
/// required export, or imports what the host lacks.
pub(super) fn inspect(bytes: &[u8]) -> Result<Inspection, ComponentError> {
    let inspection = read(bytes)?;
    let names = || inspection.exports.iter().chain(&inspection.imports);
    if let Some(name) = names().find(|name| name.starts_with("vespiary:plugin/") && !is_of_this_contract(name)) {
        return Err(ComponentError::OtherContract { name: super::error::bounded(name, 256) });
    }
    if !inspection.has(LIFECYCLE) {
        return Err(ComponentError::MissingExport { name: LIFECYCLE.to_owned() });
    }
    if !inspection.has_handler() && !inspection.has_hooks() && !inspection.has_http() {
        return Err(ComponentError::NothingToCall);
    }
    match inspection.imports.iter().find(|import| !is_offered(import)) {
        Some(name) => Err(ComponentError::UnknownImport { name: super::error::bounded(name, 256) }),
        None => Ok(inspection),
    }
}

fn read(bytes: &[u8]) -> Result<Inspection, ComponentError> {
    let malformed = |error: wasmparser::BinaryReaderError| {
        // The parser prints bytes one a line.
        let reason = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        ComponentError::Malformed { reason }
    };
    let mut manifests = Vec::new();
    let mut inspection = Inspection { manifest: None, imports: Vec::new(), exports: Vec::new() };
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding, .. } => {
                if depth == 0 && encoding == Encoding::Module {
                    return Err(ComponentError::CoreModule);
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                manifests.push(section.data().to_vec());
            }
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    inspection.imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    inspection.exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    if manifests.len() > 1 {
        return Err(ComponentError::ManyManifests { count: manifests.len() });
    }
    inspection.manifest = manifests.pop();
    Ok(inspection)
}

/// Whether an interface has the name that is asked for, in a version that fits: before 1.0, the same minor version.
fn fits(name: &str, required: &str) -> bool {
    let minor = |name: &str| name.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    name == required || minor(name) == minor(required)
}

/// Whether an interface of the contract is of a version that fits.
fn is_of_this_contract(name: &str) -> bool {
    name.split_once('@').is_some_and(|(_, version)| version.starts_with(OFFERED[0].1))
}

fn is_offered(import: &str) -> bool {
    let (interface, version) = import.split_once('@').unwrap_or((import, ""));
    let offered_of = [("vespiary:plugin/", &OFFERED_OF_PLUGIN[..]), ("wasi:http/", &OFFERED_OF_HTTP)];
    for (package, offered) in offered_of {
        if interface.strip_prefix(package).is_some_and(|interface| !offered.contains(&interface)) {
            return false;
        }
    }
    OFFERED.iter().any(|(offered, versions)| interface.starts_with(offered) && version.starts_with(versions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_host_has_is_offered() {
        for (import, expected) in [
            ("vespiary:plugin/broker@0.1.0", true),
            ("vespiary:plugin/broker@0.2.0", false),
            ("vespiary:plugin/timers@0.1.0", true),
            ("vespiary:plugin/hooks@0.1.0", false),
            ("vespiary:plugin/handler@0.1.0", false),
            ("wasi:cli/environment@0.2.6", true),
            ("wasi:cli/environment@0.3.0", false),
            ("wasi:http/outgoing-handler@0.2.0", true),
            ("wasi:http/incoming-handler@0.2.0", false),
            ("wasi:sockets/tcp@0.2.0", true),
            ("wasi:logging/logging@0.1.0-draft", true),
            ("gpio", false),
        ] {
            assert_eq!(is_offered(import), expected, "{import}");
        }
    }

    #[test]
    fn what_is_no_component_is_refused_with_the_reason() {
        let module = b"\0asm\x01\0\0\0";
        assert_eq!(inspect(module), Err(ComponentError::CoreModule));
        let empty = b"\0asm\x0d\0\x01\0";
        let missing = ComponentError::MissingExport { name: LIFECYCLE.to_owned() };
        assert_eq!(inspect(empty), Err(missing));
        for bytes in [&b""[..], b"#!/bin/sh\n", &empty[..6]] {
            assert!(matches!(inspect(bytes), Err(ComponentError::Malformed { .. })), "{bytes:?}");
        }
    }
}
