//! What a component says of itself: its name, its version, and what it asks for.
//!
//! The manifest is JSON in the custom section `vespiary:manifest` of the component; the SDK derives it from the code.
//! A [`Manifest`] that exists is valid: names, filters and QoS were checked here.

use serde::Deserialize;
use vespiary_core::event::PluginName;
use vespiary_core::{Qos, TopicFilter};

/// The version of the manifest's form that this broker reads.
const FORM: u32 = 1;
/// Longest plugin name, in bytes.
const NAME_BYTES: usize = 64;
/// Longest version and description, in bytes.
const TEXT_BYTES: usize = 1_024;
/// Most filters of one kind.
const FILTERS: usize = 256;

/// A manifest, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The plugin's name, under which it is deployed, swapped and removed.
    pub name: PluginName,
    /// Its version, for people.
    pub version: String,
    /// What it is for, in one sentence; may be empty.
    pub description: String,
    /// What it asks to listen to.
    pub subscribes: Vec<(TopicFilter, Qos)>,
    /// Where it asks to publish.
    pub publishes: Vec<TopicFilter>,
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// The component carries none.
    #[error(
        "the component has no manifest: its custom section \"vespiary:manifest\" is missing; build it with the \
         Vespiary SDK's `plugin!`"
    )]
    Missing,
    /// It is not JSON of the right shape.
    #[error("the manifest is malformed at line {line}, column {column}: {message}")]
    Malformed {
        /// Line in the section, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// It is of a form that this broker does not read.
    #[error("the manifest is of form {0}, and this broker reads form {FORM}: deploy it to a newer broker")]
    Form(u32),
    /// A field holds what it may not.
    #[error("the manifest's {field} is refused: {reason}")]
    Field {
        /// The field and, in lists, which entry.
        field: String,
        /// Why.
        reason: String,
    },
}

#[derive(Deserialize)]
struct AnyForm {
    manifest: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    #[serde(rename = "manifest")]
    _form: u32,
    name: String,
    version: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    subscribes: Vec<RawSubscription>,
    #[serde(default)]
    publishes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSubscription {
    filter: String,
    qos: u8,
}

impl Manifest {
    /// Understands the bytes of the custom section.
    pub fn parse(section: &[u8]) -> Result<Self, ManifestError> {
        let form: AnyForm = serde_json::from_slice(section).map_err(malformed)?;
        if form.manifest != FORM {
            return Err(ManifestError::Form(form.manifest));
        }
        let raw: RawManifest = serde_json::from_slice(section).map_err(malformed)?;
        for (field, text) in [("version", &raw.version), ("description", &raw.description)] {
            if text.len() > TEXT_BYTES || text.chars().any(char::is_control) {
                return Err(refused(
                    field,
                    format!("it is longer than {TEXT_BYTES} bytes or holds control characters"),
                ));
            }
        }
        for (field, length) in [("subscribes", raw.subscribes.len()), ("publishes", raw.publishes.len())] {
            if length > FILTERS {
                return Err(refused(field, format!("it lists {length} filters, and {FILTERS} is the most")));
            }
        }
        Ok(Self {
            name: parse_name(&raw.name).map_err(|reason| refused("name", reason))?,
            version: raw.version,
            description: raw.description,
            subscribes: (raw.subscribes.iter().enumerate()).map(parse_subscription).collect::<Result<_, _>>()?,
            publishes: (raw.publishes.iter().enumerate())
                .map(|(index, filter)| parse_filter(&format!("publishes[{index}]"), filter))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Understands a plugin's name, also where a person types it.
pub fn parse_name(name: &str) -> Result<PluginName, String> {
    let begins_well = name.starts_with(|first: char| first.is_ascii_lowercase());
    let made_well = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if begins_well && made_well && name.len() <= NAME_BYTES {
        return Ok(PluginName(name.into()));
    }
    Err(format!("{name:?} is not a plugin name: use 1 to {NAME_BYTES} of a-z, 0-9 and '-', beginning with a letter"))
}

fn parse_subscription((index, raw): (usize, &RawSubscription)) -> Result<(TopicFilter, Qos), ManifestError> {
    let field = format!("subscribes[{index}]");
    let filter = parse_filter(&field, &raw.filter)?;
    let qos = Qos::from_u8(raw.qos).ok_or_else(|| refused(&field, format!("QoS {} does not exist", raw.qos)))?;
    Ok((filter, qos))
}

fn parse_filter(field: &str, filter: &str) -> Result<TopicFilter, ManifestError> {
    if filter.starts_with("$share/") {
        return Err(refused(field, format!("{filter:?} is a shared subscription, which plugins do not need")));
    }
    TopicFilter::parse(filter).map_err(|reason| refused(field, format!("{filter:?} is not a topic filter: {reason}")))
}

fn malformed(error: serde_json::Error) -> ManifestError {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(&*text, |(message, _)| message);
    // It repeats names from the manifest, which may hold anything, and is to stay one line.
    let mut message = message.to_owned();
    while let Some(control) = message.chars().find(|c| c.is_control()) {
        message = message.replace(control, &control.escape_default().to_string());
    }
    ManifestError::Malformed { line: error.line(), column: error.column(), message }
}

fn refused(field: impl Into<String>, reason: impl Into<String>) -> ManifestError {
    ManifestError::Field { field: field.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_understood() {
        let manifest = Manifest::parse(
            br#"{"manifest":1,"name":"asset-health","version":"0.1.0","description":"d",
                 "subscribes":[{"filter":"assets/+/vibration","qos":1}],"publishes":["assets/+/alerts"]}"#,
        )
        .unwrap();
        assert_eq!(&*manifest.name.0, "asset-health");
        assert_eq!(manifest.subscribes, [(TopicFilter::parse("assets/+/vibration").unwrap(), Qos::AtLeastOnce)]);
        assert_eq!(manifest.publishes, [TopicFilter::parse("assets/+/alerts").unwrap()]);
    }

    #[test]
    fn a_bad_manifest_is_refused_with_what_and_where() {
        for (text, expected) in [
            ("", "malformed at line 1, column 0"),
            ("{\"manifest\":1,\n\"nam\":1}", "malformed at line 2, column 5: unknown field `nam`"),
            (r#"{"manifest":1,"a\n at line 9\u001b[2J":1}"#, r"unknown field `a\n at line 9\u{1b}[2J`"),
            (r#"{"manifest":2,"other":true}"#, "form 2, and this broker reads form 1"),
            (r#"{"manifest":1,"name":"Bad","version":"1"}"#, "name is refused: \"Bad\" is not a plugin name"),
            (
                r#"{"manifest":1,"name":"a","version":"1","subscribes":[{"filter":"a","qos":1},{"filter":"a/#/b","qos":1}]}"#,
                "subscribes[1] is refused: \"a/#/b\" is not a topic filter: '#' must be the whole last level",
            ),
            (
                r#"{"manifest":1,"name":"a","version":"1","subscribes":[{"filter":"a","qos":3}]}"#,
                "QoS 3 does not exist",
            ),
            (r#"{"manifest":1,"name":"a","version":"1","publishes":["a","+b"]}"#, "publishes[1] is refused"),
            (r#"{"manifest":1,"name":"a","version":"1\u0007"}"#, "version is refused"),
        ] {
            let error = Manifest::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
