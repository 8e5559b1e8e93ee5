//! What a plugin may do: what its manifest requests, as far as the operator's policy grants it.
//!
//! Nothing is granted by default. A request beyond the policy refuses the deploy; the right itself is checked again
//! at each use, by the wasm floor for publishes and here, once, for subscriptions.

use std::collections::BTreeMap;
use std::sync::Arc;

use vespiary_core::event::PluginName;
use vespiary_core::{Qos, TopicFilter};

use super::manifest::Manifest;
use crate::config::{self, GrantPolicy};

/// What an active revision may do and is configured with.
#[derive(Debug, Clone, PartialEq)]
pub struct Grants {
    /// What it listens to.
    pub subscribes: Vec<(TopicFilter, Qos)>,
    /// Where it may publish.
    pub publishes: Arc<[TopicFilter]>,
    /// What it reads through `wasi:config/store`.
    pub config: Arc<BTreeMap<String, String>>,
}

/// The operator's policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Who decides.
    policy: GrantPolicy,
    /// What the configuration says of single plugins.
    plugins: BTreeMap<String, config::Plugin>,
}

/// A request that the policy does not grant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "plugin {} asks to {action} \"{filter}\", which is not granted: add it to {list} under [plugin.{}] in the \
     configuration, or deploy a component that does not ask for it",
    plugin.0, plugin.0
)]
pub struct NotGranted {
    /// Who asks.
    pub plugin: PluginName,
    /// `subscribe to` or `publish to`.
    pub action: &'static str,
    /// The key of the configuration where grants of this kind stand.
    pub list: &'static str,
    /// What for.
    pub filter: TopicFilter,
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
            GrantPolicy::Explicit => {
                let subscribes = manifest.subscribes.iter().map(|(filter, _)| filter);
                require(manifest, "subscribe to", "subscribes", &settings.subscribes, subscribes)?;
                require(manifest, "publish to", "publishes", &settings.publishes, manifest.publishes.iter())?;
            }
        }
        Ok(Grants {
            subscribes: manifest.subscribes.clone(),
            publishes: manifest.publishes.clone().into(),
            config: Arc::new(settings.config),
        })
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.policy.fmt(f)
    }
}

fn require<'a>(
    manifest: &Manifest,
    action: &'static str,
    list: &'static str,
    granted: &[config::Filter],
    requested: impl Iterator<Item = &'a TopicFilter>,
) -> Result<(), NotGranted> {
    for filter in requested {
        if !granted.iter().any(|grant| grant.covers(filter)) {
            return Err(NotGranted { plugin: manifest.name.clone(), action, list, filter: filter.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_request_beyond_the_policy_is_refused_by_name() {
        let config = config::Config::parse(
            "[plugins]\ngrants = \"explicit\"\n[plugin.p]\nsubscribes = [\"in/#\"]\npublishes = [\"out/+\"]\n",
            Path::new("x"),
        )
        .unwrap();
        let policy = Policy::new(&config);
        let manifest = |publishes: &str| {
            let text = format!(
                r#"{{"manifest":1,"name":"p","version":"1","subscribes":[{{"filter":"in/a","qos":1}}],"publishes":["{publishes}"]}}"#
            );
            Manifest::parse(text.as_bytes()).unwrap()
        };
        policy.decide(&manifest("out/a")).unwrap();
        let error = policy.decide(&manifest("elsewhere/a")).unwrap_err().to_string();
        assert!(error.contains("plugin p asks to publish to \"elsewhere/a\""), "{error}");
        assert!(error.contains("publishes under [plugin.p]"), "{error}");
    }
}
