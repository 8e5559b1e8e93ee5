//! What a plugin may do: what its manifest requests, as far as the operator's policy grants it.
//!
//! Nothing is granted by default. A request beyond the policy refuses the deploy; the right itself is checked again
//! at each use, by the wasm floor for what a call does and here, once, for subscriptions. The values of secrets are the
//! operator's under either policy: one that is requested and not configured is granted, and missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use vespiary_core::event::{Lanes, PluginName};
use vespiary_core::{Qos, TopicFilter};

use super::manifest::{HookDeclaration, Manifest, Schedule};
use crate::config::{self, GrantPolicy};
use crate::wasm::{HostPattern, Secret};

/// What an active revision may do and is configured with.
#[derive(Debug, Clone, PartialEq)]
pub struct Grants {
    /// What it listens to.
    pub subscribes: Vec<(TopicFilter, Qos)>,
    /// Where it may publish.
    pub publishes: Arc<[TopicFilter]>,
    /// What it reads through `wasi:config/store`.
    pub config: Arc<BTreeMap<String, String>>,
    /// The form of its state.
    pub state_version: u32,
    /// How its events are spread over calls at the same time.
    pub lanes: Lanes,
    /// Timers that fall due by themselves.
    pub schedules: Vec<Schedule>,
    /// Secrets that it may read, by name; `None` for one that is not configured.
    pub secrets: Arc<BTreeMap<String, Option<Secret>>>,
    /// Hosts that it may call.
    pub http_hosts: Arc<[HostPattern]>,
    /// Whether these hosts may have addresses that are not of the public internet.
    pub private_addresses: bool,
    /// Whether it may disconnect clients.
    pub disconnects: bool,
    /// Where it decides in the path of clients' packets.
    pub hooks: Vec<HookDeclaration>,
    /// Bytes of keys and values that its state may hold, where it is not the limit for all.
    pub state_bytes: Option<u64>,
}

/// The operator's policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Who decides.
    policy: GrantPolicy,
    /// What the configuration says of single plugins.
    plugins: BTreeMap<String, config::Plugin>,
}

/// A request that the policy does not grant, or that cannot be granted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotGranted {
    /// The policy does not grant it.
    #[error(
        "plugin {} asks to {action}, which is not granted: {remedy} under [plugin.{}] in the configuration, or deploy a \
         component that does not ask for it",
        plugin.0, plugin.0
    )]
    Refused {
        /// Who asks.
        plugin: PluginName,
        /// What for.
        action: String,
        /// What the operator would write.
        remedy: &'static str,
    },
    /// The configuration of a grant is of no use.
    #[error("[plugin.{}] of the configuration cannot be used: {reason}", plugin.0)]
    Unusable {
        /// Whose.
        plugin: PluginName,
        /// What is wrong with it.
        reason: String,
    },
}

impl Policy {
    /// The policy of a configuration.
    pub fn new(config: &config::Config) -> Self {
        Self { policy: config.grant_policy(), plugins: config.plugin.clone() }
    }

    /// What a component with this manifest gets.
    pub fn decide(&self, manifest: &Manifest) -> Result<Grants, NotGranted> {
        let settings = self.plugins.get(&*manifest.name.0).cloned().unwrap_or_default();
        match self.policy {
            GrantPolicy::AsRequested => {}
            GrantPolicy::Explicit => require_all(manifest, &settings)?,
        }
        Ok(Grants {
            subscribes: manifest.subscribes.clone(),
            publishes: manifest.publishes.clone().into(),
            state_version: manifest.state_version,
            lanes: manifest.lanes,
            schedules: manifest.schedules.clone(),
            secrets: Arc::new(secrets(manifest, &settings)?),
            http_hosts: manifest.http_hosts.clone().into(),
            private_addresses: settings.private_addresses,
            disconnects: manifest.disconnects,
            hooks: manifest.hooks.clone(),
            state_bytes: settings.state_bytes,
            config: Arc::new(settings.config),
        })
    }
}

impl Grants {
    /// Whether a call may wait for others, so that it must not keep a thread from those that do not.
    pub(super) fn may_wait(&self) -> bool {
        !self.http_hosts.is_empty()
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.policy.fmt(f)
    }
}

/// Refuses the first request that the configuration does not list.
fn require_all(manifest: &Manifest, settings: &config::Plugin) -> Result<(), NotGranted> {
    let refuse = |action: String, remedy| {
        let plugin = manifest.name.clone();
        Err(NotGranted::Refused { plugin, action, remedy })
    };
    let covered = |grants: &[config::Filter], filter| grants.iter().any(|grant| grant.covers(filter));
    for (filter, _) in &manifest.subscribes {
        if !covered(&settings.subscribes, filter) {
            return refuse(format!("subscribe to \"{filter}\""), "add it to subscribes");
        }
    }
    for filter in &manifest.publishes {
        if !covered(&settings.publishes, filter) {
            return refuse(format!("publish to \"{filter}\""), "add it to publishes");
        }
    }
    for name in &manifest.secrets {
        if !settings.secrets.contains_key(name) {
            return refuse(format!("read the secret \"{name}\""), "add it to secrets");
        }
    }
    let mut hosts = Vec::new();
    for text in &settings.http_hosts {
        let unusable = |reason| NotGranted::Unusable { plugin: manifest.name.clone(), reason };
        hosts.push(HostPattern::parse(text).map_err(|reason| unusable(format!("http_hosts: {reason}")))?);
    }
    for host in &manifest.http_hosts {
        if !hosts.iter().any(|grant| grant.covers(host)) {
            return refuse(format!("call \"{host}\""), "add it to http_hosts");
        }
    }
    if manifest.disconnects && !settings.disconnects {
        return refuse("disconnect clients".to_owned(), "set disconnects = true");
    }
    match manifest.hooks.first() {
        Some(declaration) if !settings.hooks => {
            refuse(format!("decide as the hook {}", declaration.hook), "set hooks = true")
        }
        Some(_) | None => Ok(()),
    }
}

/// The values of the secrets that are requested.
fn secrets(manifest: &Manifest, settings: &config::Plugin) -> Result<BTreeMap<String, Option<Secret>>, NotGranted> {
    let mut secrets = BTreeMap::new();
    for name in &manifest.secrets {
        let value = settings.secrets.get(name).map(config::SecretSource::read).transpose();
        let value = value.map_err(|error| NotGranted::Unusable {
            plugin: manifest.name.clone(),
            reason: format!("the secret \"{name}\" cannot be read: {error}"),
        })?;
        secrets.insert(name.clone(), value.map(Secret::new));
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CONFIG: &str = r#"
        [plugins]
        grants = "explicit"
        [plugin.p]
        subscribes = ["in/#"]
        publishes = ["out/+"]
        secrets = { token = "hunter2" }
        http_hosts = ["https://*.example.com"]
        [plugin.q]
        secrets = { token = { file = "/nowhere/token" } }
        disconnects = true
        hooks = true
    "#;

    fn decide(config: &str, name: &str, requests: &str) -> Result<Grants, String> {
        let config = config::Config::parse(config, Path::new("x")).unwrap();
        let text = format!(r#"{{"manifest":1,"name":"{name}","version":"1",{requests}}}"#);
        Policy::new(&config).decide(&Manifest::parse(text.as_bytes()).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_request_beyond_the_policy_is_refused_by_name() {
        for (name, requests, expected) in [
            ("p", r#""subscribes":[{"filter":"in/a","qos":1}],"publishes":["out/a"]"#, None),
            ("p", r#""secrets":["token"],"http_hosts":["https://a.example.com"]"#, None),
            ("q", r#""disconnects":true,"hooks":[{"hook":"authorize"}]"#, None),
            (
                "p",
                r#""publishes":["elsewhere/a"]"#,
                Some(
                    "plugin p asks to publish to \"elsewhere/a\", which is not granted: add it to publishes under [plugin.p]",
                ),
            ),
            ("p", r##""subscribes":[{"filter":"#","qos":1}]"##, Some("plugin p asks to subscribe to \"#\"")),
            ("p", r#""secrets":["other"]"#, Some("asks to read the secret \"other\"")),
            ("p", r#""http_hosts":["http://a.example.com"]"#, Some("asks to call \"http://a.example.com\"")),
            ("p", r#""disconnects":true"#, Some("asks to disconnect clients, which is not granted: set disconnects")),
            ("p", r#""hooks":[{"hook":"authorize"}]"#, Some("asks to decide as the hook authorize")),
            ("q", r#""secrets":["token"]"#, Some("the secret \"token\" cannot be read")),
        ] {
            match (decide(CONFIG, name, requests), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => assert!(error.contains(expected), "{requests}: {error}"),
                (result, _) => panic!("{requests}: {result:?}"),
            }
        }
    }

    #[test]
    fn secrets_have_the_operators_values_under_either_policy_and_are_not_shown() {
        let grants = decide(CONFIG, "p", r#""secrets":["token"]"#).unwrap();
        assert_eq!(grants.secrets["token"], Some(Secret::new("hunter2")));
        assert!(!format!("{grants:?}").contains("hunter2"));
        let grants = decide("", "p", r#""secrets":["token"],"disconnects":true"#).unwrap();
        assert_eq!(grants.secrets["token"], None);
        assert!(grants.disconnects);
    }
}
