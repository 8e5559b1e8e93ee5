//! The manifest, put together at compile time from the declaration and from the handlers and hooks that it lists.
//!
//! Subscriptions to one filter become one, with the highest QoS of theirs: to the broker they are one. Hooks of one kind
//! become one too: a component has one function for each kind, and the SDK finds out which of the plugin's are meant.

use crate::handler::{Handler, Trigger};
use crate::hooks::Hook;

/// What the manifest is put together from.
#[doc(hidden)]
pub struct Parts {
    /// What comes before the subscriptions, up to their `[`.
    pub head: &'static str,
    /// Subscriptions and schedules.
    pub handlers: &'static [Handler],
    /// What comes behind the subscriptions, from their `]`.
    pub middle: &'static str,
    /// Hooks.
    pub hooks: &'static [Hook],
}

/// Length of the manifest.
#[doc(hidden)]
pub const fn manifest_length(parts: &Parts) -> usize {
    let mut writer = Writer::<0> { bytes: [], length: 0 };
    writer.manifest(parts);
    writer.length
}

/// The manifest: JSON, `LENGTH` bytes.
#[doc(hidden)]
pub const fn manifest<const LENGTH: usize>(parts: &Parts) -> [u8; LENGTH] {
    let mut writer = Writer::<LENGTH> { bytes: [0; LENGTH], length: 0 };
    writer.manifest(parts);
    assert!(writer.length == LENGTH);
    writer.bytes
}

/// Writes to an array as far as there is one, and counts.
struct Writer<const LENGTH: usize> {
    /// What is written.
    bytes: [u8; LENGTH],
    /// How much was written, or would have been.
    length: usize,
}

impl<const LENGTH: usize> Writer<LENGTH> {
    const fn manifest(&mut self, parts: &Parts) {
        self.text(parts.head);
        self.subscriptions(parts.handlers);
        self.text(parts.middle);
        self.schedules(parts.handlers);
        self.hooks(parts.hooks);
        self.text("}");
    }

    const fn subscriptions(&mut self, handlers: &[Handler]) {
        let mut index = 0;
        let mut separator = "";
        while index < handlers.len() {
            if let Trigger::Topic { filter, filter_json, .. } = handlers[index].trigger
                && is_first(handlers, index, filter)
            {
                self.text(separator);
                separator = ",";
                self.text("{\"filter\":");
                self.text(filter_json);
                self.text(match highest_qos(handlers, filter) {
                    0 => ",\"qos\":0}",
                    1 => ",\"qos\":1}",
                    _ => ",\"qos\":2}",
                });
            }
            index += 1;
        }
    }

    const fn schedules(&mut self, handlers: &[Handler]) {
        let mut index = 0;
        let mut before = ",\"schedules\":[";
        while index < handlers.len() {
            if let Trigger::Schedule { name, json, .. } = handlers[index].trigger {
                let mut other = 0;
                while other < index {
                    if let Trigger::Schedule { name: earlier, .. } = handlers[other].trigger {
                        assert!(!equal(earlier, name), "two schedules have the same name");
                    }
                    other += 1;
                }
                self.text(before);
                before = ",";
                self.text(json);
            }
            index += 1;
        }
        if equal(before, ",") {
            self.text("]");
        }
    }

    const fn hooks(&mut self, hooks: &[Hook]) {
        let mut index = 0;
        let mut before = ",\"hooks\":[";
        while index < hooks.len() {
            if is_first_of_kind(hooks, index) {
                self.text(before);
                before = ",";
                self.text("{\"hook\":\"");
                self.text(hooks[index].kind);
                self.text("\"");
                self.filters(hooks, hooks[index].kind);
                self.union(hooks, hooks[index].kind, true);
                self.union(hooks, hooks[index].kind, false);
                self.text(settings(hooks, hooks[index].kind));
                self.text("}");
            }
            index += 1;
        }
        if equal(before, ",") {
            self.text("]");
        }
    }

    /// The filters of all hooks of a kind, each once.
    const fn filters(&mut self, hooks: &[Hook], kind: &str) {
        let mut index = 0;
        let mut before = ",\"filters\":[";
        while index < hooks.len() {
            let filter = hooks[index].filter_json;
            let mut fresh = equal(hooks[index].kind, kind) && !filter.is_empty();
            let mut other = 0;
            while other < index {
                fresh = fresh && !(equal(hooks[other].kind, kind) && equal(hooks[other].filter_json, filter));
                other += 1;
            }
            if fresh {
                self.text(before);
                before = ",";
                self.text(filter);
            }
            index += 1;
        }
        if equal(before, ",") {
            self.text("]");
        }
    }

    /// The methods or the actions of all hooks of a kind, each once. A hook without actions wants all.
    const fn union(&mut self, hooks: &[Hook], kind: &str, methods: bool) {
        let mut written: [&str; 16] = [""; 16];
        let mut count = 0;
        let mut index = 0;
        while index < hooks.len() {
            if equal(hooks[index].kind, kind) {
                let values = if methods { hooks[index].methods } else { hooks[index].actions };
                if values.is_empty() {
                    return;
                }
                let mut value = 0;
                while value < values.len() {
                    let mut seen = 0;
                    while seen < count && !equal(written[seen], values[value]) {
                        seen += 1;
                    }
                    if seen == count {
                        assert!(count < 16, "a plugin declares at most 16 authentication methods");
                        written[count] = values[value];
                        count += 1;
                    }
                    value += 1;
                }
            }
            index += 1;
        }
        self.text(if methods { ",\"methods\":[" } else { ",\"actions\":[" });
        let mut index = 0;
        while index < count {
            if index > 0 {
                self.text(",");
            }
            self.text(written[index]);
            index += 1;
        }
        self.text("]");
    }

    const fn text(&mut self, text: &str) {
        let text = text.as_bytes();
        let mut index = 0;
        while index < text.len() {
            if self.length < LENGTH {
                self.bytes[self.length] = text[index];
            }
            self.length += 1;
            index += 1;
        }
    }
}

/// Whether no handler before this one has the same filter.
const fn is_first(handlers: &[Handler], index: usize, filter: &str) -> bool {
    let mut before = 0;
    while before < index {
        if let Trigger::Topic { filter: earlier, .. } = handlers[before].trigger
            && equal(earlier, filter)
        {
            return false;
        }
        before += 1;
    }
    true
}

const fn highest_qos(handlers: &[Handler], filter: &str) -> u8 {
    let mut highest = 0;
    let mut index = 0;
    while index < handlers.len() {
        if let Trigger::Topic { filter: other, qos, .. } = handlers[index].trigger
            && qos > highest
            && equal(other, filter)
        {
            highest = qos;
        }
        index += 1;
    }
    highest
}

/// Whether no hook before this one is of the same kind.
const fn is_first_of_kind(hooks: &[Hook], index: usize) -> bool {
    let mut before = 0;
    while before < index {
        if equal(hooks[before].kind, hooks[index].kind) {
            return false;
        }
        before += 1;
    }
    true
}

/// The settings of the hooks of a kind.
const fn settings(hooks: &[Hook], kind: &str) -> &'static str {
    let mut settings = "";
    let mut index = 0;
    while index < hooks.len() {
        if equal(hooks[index].kind, kind) && !hooks[index].settings.is_empty() {
            assert!(
                settings.is_empty() || equal(settings, hooks[index].settings),
                "hooks of one kind have the same priority, deadline_ms and on_failure: say them at one of them"
            );
            settings = hooks[index].settings;
        }
        index += 1;
    }
    settings
}

const fn equal(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}
