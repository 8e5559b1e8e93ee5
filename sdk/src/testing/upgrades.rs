//! Other versions of the plugin take over: schedules change, and state is migrated.

use std::collections::BTreeMap;

use serde::Serialize;

use super::world::Stored;
use super::{TestHost, component};
use crate::handler::Trigger;
use crate::migration::Entry;
use crate::plugin::Plugin;

/// Entries that are handed in at a time.
const CHUNK: usize = 3;

impl TestHost {
    /// A host in which a version of the plugin takes over from one that left this state, of this state version.
    ///
    /// ```
    /// use vespiary_sdk::prelude::*;
    /// use vespiary_sdk::testing::TestHost;
    ///
    /// plugin! { name: "gates", handlers: [passed], state_version: 2, migrations: [counts] }
    ///
    /// #[derive(Default, Serialize, Deserialize)]
    /// struct Gate { count: u64 }
    ///
    /// /// In version 1, the count was all that was kept, and without a prefix.
    /// #[migrate("{gate}", from = 1)]
    /// fn counts(gate: &str, Json(count): Json<u64>) -> Result<Entry> {
    ///     Entry::json(format!("gate/{gate}"), &Gate { count })
    /// }
    ///
    /// #[on("gates/{gate}/passed")]
    /// fn passed(cx: &mut Context, gate: &str) -> Result<()> {
    ///     cx.state().update(format!("gate/{gate}"), |gate: &mut Gate| gate.count += 1)?;
    ///     Ok(())
    /// }
    ///
    /// let mut host = TestHost::upgrade_from(plugin(), 1, [("north", 41)]);
    /// host.publish_bytes("gates/north/passed", "");
    /// host.assert_state("gate/north", json!({ "count": 42 }));
    /// ```
    ///
    /// # Panics
    /// If the migration fails.
    #[track_caller]
    pub fn upgrade_from<K, V>(plugin: Plugin, version: u32, entries: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Serialize,
    {
        let mut host = Self::new(plugin);
        for (key, value) in entries {
            host.set_state(key, value);
        }
        if let Err(reason) = host.migrate(plugin, version) {
            panic!("the migration of {plugin:?} from state version {version} failed: {reason}");
        }
        host
    }

    /// Lets another version of the plugin take over: state, timers, waiting events and dead letters stay; the state is migrated.
    ///
    /// # Panics
    /// If it is not the same plugin, or if the migration fails.
    #[track_caller]
    pub fn upgrade(&mut self, plugin: Plugin) {
        if let Err(reason) = self.try_upgrade(plugin) {
            panic!("the upgrade to {plugin:?} failed: {reason}");
        }
    }

    /// As [`upgrade`](Self::upgrade); the error is why a deploy would be refused, and then nothing has changed.
    ///
    /// # Panics
    /// If it is not the same plugin.
    #[track_caller]
    pub fn try_upgrade(&mut self, plugin: Plugin) -> Result<(), String> {
        assert_eq!(plugin.name(), self.plugin.name(), "an upgrade has the same name");
        let from = self.plugin.state_version();
        if plugin.state_version() < from {
            return Err(format!("its state version is {}, and that of the state {from}", plugin.state_version()));
        }
        self.migrate(plugin, from)?;
        let schedules: Vec<&str> = self
            .plugin
            .declaration()
            .handlers
            .iter()
            .filter_map(|handler| match handler.trigger {
                Trigger::Schedule { name, .. } => Some(name),
                Trigger::Topic { .. } | Trigger::Timer { .. } | Trigger::Response { .. } => None,
            })
            .collect();
        self.world.inner.borrow_mut().plugin = plugin;
        self.plugin = plugin;
        self.install_schedules(&schedules);
        self.started = false;
        Ok(())
    }

    /// Brings the state to the form that a plugin wants.
    fn migrate(&mut self, plugin: Plugin, from: u32) -> Result<(), String> {
        if plugin.state_version() == from {
            return Ok(());
        }
        let state = self.world.inner.borrow().state.clone();
        let old: Vec<(String, Stored)> = state.into_iter().collect();
        let mut new = BTreeMap::new();
        for chunk in old.chunks(CHUNK) {
            let entries = chunk.iter().map(|(key, stored)| Entry { key: key.clone(), value: stored.value.clone() });
            let entries: Vec<Entry> = entries.collect();
            let world = self.world.clone();
            let migrated = if component::stands_for(plugin) {
                self.call(|| component::migrate(&world, from, entries))
            } else {
                self.call(|| plugin.migrate(from, entries))
            };
            let migrated = migrated.and_then(|result| result)?;
            for ((_, stored), entries) in chunk.iter().zip(migrated) {
                for Entry { key, value } in entries {
                    let stored = Stored { value, expires: stored.expires };
                    if new.insert(key.clone(), stored).is_some() {
                        return Err(format!("two entries of the old state give `{key}`"));
                    }
                }
            }
        }
        self.world.inner.borrow_mut().state = new;
        Ok(())
    }
}
