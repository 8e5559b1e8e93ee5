//! A manifest as it is written: the shapes and the defaults, nothing checked.

use serde::Deserialize;

/// What is read first: the form says how to read the rest.
#[derive(Deserialize)]
pub(super) struct AnyForm {
    pub manifest: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawManifest {
    #[serde(rename = "manifest")]
    _form: u32,
    pub name: String,
    pub version: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub subscribes: Vec<RawSubscription>,
    #[serde(default)]
    pub publishes: Vec<String>,
    #[serde(default = "first_state_version")]
    pub state_version: u32,
    #[serde(default)]
    pub concurrency: RawConcurrency,
    #[serde(default)]
    pub schedules: Vec<RawSchedule>,
    #[serde(default)]
    pub secrets: Vec<String>,
    #[serde(default)]
    pub http_hosts: Vec<String>,
    #[serde(default)]
    pub disconnects: bool,
    #[serde(default)]
    pub hooks: Vec<RawHook>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSubscription {
    pub filter: String,
    pub qos: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConcurrency {
    pub lanes: u16,
    pub key: RawKey,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum RawKey {
    Name(String),
    Level { level: u16 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSchedule {
    pub name: String,
    pub cron: String,
    #[serde(default)]
    pub payload: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHook {
    pub hook: String,
    pub filters: Option<Vec<String>>,
    pub methods: Option<Vec<String>>,
    pub actions: Option<Vec<String>>,
    #[serde(default)]
    pub priority: i32,
    #[serde(default = "hook_deadline_ms")]
    pub deadline_ms: u64,
    #[serde(default = "deny")]
    pub on_failure: String,
}

impl Default for RawConcurrency {
    fn default() -> Self {
        Self { lanes: 1, key: RawKey::Name("topic".to_owned()) }
    }
}

fn first_state_version() -> u32 {
    1
}

fn hook_deadline_ms() -> u64 {
    100
}

fn deny() -> String {
    "deny".to_owned()
}
