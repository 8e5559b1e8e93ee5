//! What a component says of itself: its name, its version, and what it asks for.
//!
//! The manifest is JSON in the custom section `vespiary:manifest` of the component; the SDK derives it from the code.
//! A [`Manifest`] that exists is valid: names, filters, schedules and hosts were checked here, each with an error that
//! names the field and the entry. What of it is granted is decided elsewhere.

mod hook;
mod raw;

use vespiary_core::event::{
    CLIENT_TOPICS, DEAD_LETTER_TOPICS, EventKey, Lanes, PluginName, REPLY_TOPICS, REQUEST_TIMER, TIMER_TOPICS,
};
use vespiary_core::{Qos, Topic, TopicFilter};

pub use self::hook::{Action, Hook, HookDeclaration, OnFailure};
use self::raw::{AnyForm, RawKey, RawManifest, RawSchedule, RawSubscription};
use crate::schedule;
use crate::wasm::HostPattern;

/// The version of the manifest's form that this broker reads.
const FORM: u32 = 1;
/// Longest name of a plugin or a secret, in bytes.
const NAME_BYTES: usize = 64;
/// Longest version and description, in bytes.
const TEXT_BYTES: usize = 1_024;
/// Most entries of a list.
const ENTRIES: usize = 256;
/// Most lanes.
const LANES: u16 = 256;
/// Deepest level of a topic that can be a key.
const LEVEL: u16 = 127;
/// Longest name of a schedule, in bytes.
const TIMER_NAME_BYTES: usize = 256;
/// Longest payload of a schedule, in bytes.
const SCHEDULE_PAYLOAD_BYTES: usize = 64 << 10;

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
    /// The form of its state, from 1: a revision of another form migrates.
    pub state_version: u32,
    /// How its events may be spread over calls at the same time.
    pub lanes: Lanes,
    /// Timers that fall due by themselves.
    pub schedules: Vec<Schedule>,
    /// Names of secrets that it asks to read.
    pub secrets: Vec<String>,
    /// Hosts that it asks to call.
    pub http_hosts: Vec<HostPattern>,
    /// Whether it asks to disconnect clients.
    pub disconnects: bool,
    /// Where in the path of clients' packets it asks to decide.
    pub hooks: Vec<HookDeclaration>,
}

/// A timer that the manifest declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Name of the timer.
    pub name: String,
    /// When it falls due, as a cron expression.
    pub cron: String,
    /// Payload of its events.
    pub payload: Vec<u8>,
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
                let reason = format!("it is longer than {TEXT_BYTES} bytes or holds control characters");
                return Err(refused(field, reason));
            }
        }
        if raw.state_version == 0 {
            return Err(refused("state_version", "it is 0: state versions count from 1"));
        }
        let manifest = Self {
            name: parse_name(&raw.name).map_err(|reason| refused("name", reason))?,
            version: raw.version,
            description: raw.description,
            subscribes: each("subscribes", &raw.subscribes, parse_subscription)?,
            publishes: each("publishes", &raw.publishes, |filter| parse_publish(filter))?,
            state_version: raw.state_version,
            lanes: parse_lanes(raw.concurrency.lanes, &raw.concurrency.key)?,
            schedules: each("schedules", &raw.schedules, parse_schedule)?,
            secrets: each("secrets", &raw.secrets, |name| parse_secret(name))?,
            http_hosts: each("http_hosts", &raw.http_hosts, |host| HostPattern::parse(host))?,
            disconnects: raw.disconnects,
            hooks: each("hooks", &raw.hooks, HookDeclaration::parse)?,
        };
        once("schedules", manifest.schedules.iter().map(|schedule| schedule.name.as_str()))?;
        once("secrets", manifest.secrets.iter().map(String::as_str))?;
        Ok(manifest)
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

/// Understands each entry of a list.
fn each<T, U>(
    field: &str,
    list: &[T],
    mut parse: impl FnMut(&T) -> Result<U, String>,
) -> Result<Vec<U>, ManifestError> {
    if list.len() > ENTRIES {
        return Err(refused(field, format!("it has {} entries, and {ENTRIES} is the most", list.len())));
    }
    let entries = list.iter().enumerate();
    entries.map(|(index, raw)| parse(raw).map_err(|reason| refused(format!("{field}[{index}]"), reason))).collect()
}

/// Refuses a name that stands in a list twice.
fn once<'a>(field: &str, names: impl Iterator<Item = &'a str>) -> Result<(), ManifestError> {
    let mut seen = std::collections::BTreeSet::new();
    for (index, name) in names.enumerate() {
        if !seen.insert(name) {
            return Err(refused(format!("{field}[{index}]"), format!("{name:?} stands there twice")));
        }
    }
    Ok(())
}

fn parse_subscription(raw: &RawSubscription) -> Result<(TopicFilter, Qos), String> {
    let filter = parse_filter(&raw.filter)?;
    let first = first_level(&raw.filter);
    if first == TIMER_TOPICS || first == REPLY_TOPICS {
        return Err(format!("{:?} cannot be subscribed to: timers and replies come to their plugin alone", raw.filter));
    }
    let qos = Qos::from_u8(raw.qos).ok_or_else(|| format!("QoS {} does not exist", raw.qos))?;
    Ok((filter, qos))
}

fn parse_publish(text: &str) -> Result<TopicFilter, String> {
    let filter = parse_filter(text)?;
    if [TIMER_TOPICS, CLIENT_TOPICS, DEAD_LETTER_TOPICS].contains(&first_level(text)) {
        return Err(format!("{text:?} cannot be published to: only the broker does"));
    }
    Ok(filter)
}

fn parse_filter(text: &str) -> Result<TopicFilter, String> {
    if text.starts_with("$share/") {
        return Err(format!("{text:?} is a shared subscription, which plugins do not need"));
    }
    TopicFilter::parse(text).map_err(|reason| format!("{text:?} is not a topic filter: {reason}"))
}

fn first_level(text: &str) -> &str {
    text.split('/').next().unwrap_or_default()
}

fn parse_lanes(count: u16, key: &RawKey) -> Result<Lanes, ManifestError> {
    if count == 0 || count > LANES {
        return Err(refused("concurrency.lanes", format!("{count} lanes are not possible: use 1 to {LANES}")));
    }
    let key = match key {
        RawKey::Name(name) if name == "topic" => EventKey::Topic,
        RawKey::Name(name) if name == "client" => EventKey::Publisher,
        RawKey::Level { level } if *level <= LEVEL => EventKey::Level(*level),
        RawKey::Name(_) | RawKey::Level { .. } => {
            let reason = format!(
                "it is none of \"topic\", \"client\" and {{\"level\": N}} with N, counted from 0, up to {LEVEL}"
            );
            return Err(refused("concurrency.key", reason));
        }
    };
    Ok(Lanes { count, key, canary_percent: 0 })
}

fn parse_schedule(raw: &RawSchedule) -> Result<Schedule, String> {
    let name = &raw.name;
    let topic = Topic::parse(&format!("{TIMER_TOPICS}/{name}"));
    if name.is_empty() || name.len() > TIMER_NAME_BYTES || topic.is_err() || name.starts_with(REQUEST_TIMER) {
        return Err(format!(
            "{name:?} cannot be a timer's name: use 1 to {TIMER_NAME_BYTES} bytes without '+' and '#', not beginning \
             with {REQUEST_TIMER:?}"
        ));
    }
    if raw.payload.len() > SCHEDULE_PAYLOAD_BYTES {
        let bytes = raw.payload.len();
        return Err(format!("its payload has {bytes} bytes, and {SCHEDULE_PAYLOAD_BYTES} is the most"));
    }
    schedule::Schedule::parse(&raw.cron)?;
    Ok(Schedule { name: name.clone(), cron: raw.cron.clone(), payload: raw.payload.clone().into_bytes() })
}

fn parse_secret(name: &str) -> Result<String, String> {
    let made_well = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if made_well && !name.is_empty() && name.len() <= NAME_BYTES {
        return Ok(name.to_owned());
    }
    Err(format!("{name:?} is not a secret's name: use 1 to {NAME_BYTES} of a-z, A-Z, 0-9, '-', '_' and '.'"))
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
                 "subscribes":[{"filter":"assets/+/vibration","qos":1},{"filter":"$clients/#","qos":0}],
                 "publishes":["assets/+/alerts"],
                 "state_version":2,
                 "concurrency":{"lanes":4,"key":{"level":1}},
                 "schedules":[{"name":"nightly","cron":"0 3 * * *","payload":"x"}],
                 "secrets":["cmdb-token"],
                 "http_hosts":["https://cmdb.example.com","http://10.0.0.7:8080"],
                 "disconnects":true,
                 "hooks":[{"hook":"authorize","priority":-1},
                          {"hook":"auth-step","methods":["SCRAM-SHA-256"],"deadline_ms":200},
                          {"hook":"intercept-publish","filters":["raw/#"],"on_failure":"allow"}]}"#,
        )
        .unwrap();
        assert_eq!(&*manifest.name.0, "asset-health");
        assert_eq!(manifest.subscribes[0], (TopicFilter::parse("assets/+/vibration").unwrap(), Qos::AtLeastOnce));
        assert_eq!(manifest.publishes, [TopicFilter::parse("assets/+/alerts").unwrap()]);
        assert_eq!(manifest.state_version, 2);
        assert_eq!(manifest.lanes, Lanes { count: 4, key: EventKey::Level(1), canary_percent: 0 });
        let [schedule] = &manifest.schedules[..] else { panic!("{:?}", manifest.schedules) };
        assert_eq!((&*schedule.name, &*schedule.cron, &*schedule.payload), ("nightly", "0 3 * * *", &b"x"[..]));
        assert_eq!(manifest.secrets, ["cmdb-token"]);
        let hosts: Vec<String> = manifest.http_hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["https://cmdb.example.com", "http://10.0.0.7:8080"]);
        assert!(manifest.disconnects);
        let [authorize, step, intercept] = &manifest.hooks[..] else { panic!("{:?}", manifest.hooks) };
        assert_eq!((authorize.hook, authorize.filters[0].as_str(), authorize.priority), (Hook::Authorize, "#", -1));
        assert_eq!((authorize.actions.len(), authorize.deadline_ms, authorize.on_failure), (3, 100, OnFailure::Deny));
        assert_eq!((step.hook, &*step.methods[0], step.deadline_ms), (Hook::AuthStep, "SCRAM-SHA-256", 200));
        assert_eq!((intercept.hook, intercept.on_failure), (Hook::InterceptPublish, OnFailure::Allow));
    }

    #[test]
    fn what_a_manifest_does_not_say_is_the_least() {
        let manifest = Manifest::parse(br#"{"manifest":1,"name":"a","version":"1"}"#).unwrap();
        assert_eq!((manifest.state_version, manifest.lanes), (1, Lanes::default()));
        assert!(manifest.subscribes.is_empty() && manifest.publishes.is_empty() && manifest.schedules.is_empty());
        assert!(manifest.secrets.is_empty() && manifest.http_hosts.is_empty() && manifest.hooks.is_empty());
        assert!(!manifest.disconnects);
    }

    #[test]
    fn a_bad_manifest_is_refused_with_what_and_where() {
        for (text, expected) in [
            ("", "malformed at line 1, column 0"),
            ("{\"manifest\":1,\n\"nam\":1}", "malformed at line 2, column 5: unknown field `nam`"),
            (r#"{"manifest":1,"a\n at line 9\u001b[2J":1}"#, r"unknown field `a\n at line 9\u{1b}[2J`"),
            (r#"{"manifest":2,"other":true}"#, "form 2, and this broker reads form 1"),
            (r#"{"manifest":1,"name":"Bad","version":"1"}"#, "name is refused: \"Bad\" is not a plugin name"),
            (r#"{"manifest":1,"name":"a","version":"1\u0007"}"#, "version is refused"),
        ] {
            let error = Manifest::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_bad_field_is_refused_by_its_name_and_entry() {
        let twice = r#""schedules":[{"name":"n","cron":"* * * * *"},{"name":"n","cron":"0 * * * *"}]"#;
        for (field, expected) in [
            (
                r##""subscribes":[{"filter":"a","qos":1},{"filter":"a/#/b","qos":1}]"##,
                "subscribes[1] is refused: \"a/#/b\" is not a topic filter: '#' must be the whole last level",
            ),
            (r#""subscribes":[{"filter":"a","qos":3}]"#, "subscribes[0] is refused: QoS 3 does not exist"),
            (r##""subscribes":[{"filter":"$timer/#","qos":1}]"##, "subscribes[0] is refused: \"$timer/#\" cannot be"),
            (r#""subscribes":[{"filter":"$share/g/a","qos":1}]"#, "which plugins do not need"),
            (r#""publishes":["a","+b"]"#, "publishes[1] is refused"),
            (r#""publishes":["$clients/a/connected"]"#, "publishes[0] is refused"),
            (r#""state_version":0"#, "state_version is refused: it is 0"),
            (r#""concurrency":{"lanes":0}"#, "concurrency.lanes is refused: 0 lanes"),
            (r#""concurrency":{"lanes":257}"#, "concurrency.lanes is refused: 257 lanes"),
            (r#""concurrency":{"key":"payload"}"#, "concurrency.key is refused"),
            (r#""schedules":[{"name":"a/+","cron":"* * * * *"}]"#, "schedules[0] is refused: \"a/+\" cannot be"),
            (r#""schedules":[{"name":"$request/7","cron":"* * * * *"}]"#, "schedules[0] is refused"),
            (
                r#""schedules":[{"name":"n","cron":"often"}]"#,
                "schedules[0] is refused: the schedule \"often\" is not a cron",
            ),
            (twice, "schedules[1] is refused: \"n\" stands there twice"),
            (r#""secrets":["a b"]"#, "secrets[0] is refused: \"a b\" is not a secret's name"),
            (r#""secrets":["a","a"]"#, "secrets[1] is refused: \"a\" stands there twice"),
            (r#""http_hosts":["https://a","example.com"]"#, "http_hosts[1] is refused: \"example.com\" is not a host"),
            (r#""http_hosts":["https://a/path"]"#, "http_hosts[0] is refused"),
            (r#""http_hosts":["http://a:99999"]"#, "its port does not exist"),
            (r#""hooks":[{"hook":"listen"}]"#, "hooks[0] is refused: hook \"listen\" does not exist"),
            (r#""hooks":[{"hook":"intercept-publish"}]"#, "intercept-publish needs filters"),
            (r#""hooks":[{"hook":"authenticate","filters":["a"]}]"#, "authenticate takes no filters"),
            (r#""hooks":[{"hook":"auth-step"}]"#, "auth-step needs methods"),
            (r#""hooks":[{"hook":"authorize","actions":["listen"]}]"#, "action \"listen\" is none of"),
            (r#""hooks":[{"hook":"authorize","deadline_ms":0}]"#, "deadline_ms 0 is not possible"),
            (r#""hooks":[{"hook":"authorize","on_failure":"shrug"}]"#, "on_failure \"shrug\" is neither"),
        ] {
            let text = format!(r#"{{"manifest":1,"name":"a","version":"1",{field}}}"#);
            let error = Manifest::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_host_covers_what_is_as_narrow() {
        for (grant, request, expected) in [
            ("https://a.example.com", "https://a.example.com:443", true),
            ("https://a.example.com", "http://a.example.com", false),
            ("https://a.example.com", "https://A.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://badexample.com", false),
            ("https://*.example.com", "https://*.a.example.com", true),
            ("https://a.example.com", "https://*.example.com", false),
            ("http://10.0.0.7:8080", "http://10.0.0.7", false),
            ("http://[::1]:8080", "http://[::1]:8080", true),
        ] {
            let pattern = |text| HostPattern::parse(text).unwrap();
            assert_eq!(pattern(grant).covers(&pattern(request)), expected, "{grant} {request}");
        }
    }
}
