//! What is said of an event that failed: the same words in the broker's log, the plugin's log and the dead letter.

use std::fmt;

use vespiary_core::event::{InboxEvent, PluginName};

/// One failure of one event.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailureReport<'a> {
    /// Whose code failed.
    pub plugin: &'a PluginName,
    /// Its revision, by number and version.
    pub revision: (u32, &'a str),
    /// The event.
    pub event: &'a InboxEvent,
    /// What the code said; of a panic, its message and its place in the source.
    pub reason: &'a str,
}

impl fmt::Display for FailureReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, version) = self.revision;
        let (event, attempt) = (self.event.sequence.0, u64::from(self.event.attempt) + 1);
        let (plugin, topic, reason) = (&self.plugin.0, &self.event.message.topic, self.reason);
        write!(
            f,
            "{reason} [plugin {plugin}, revision {number} ({version}), event {event} on {topic}, attempt {attempt}]"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vespiary_core::event::Sequence;
    use vespiary_core::{Message, Qos, Timestamp, Topic};

    use super::*;

    #[test]
    fn a_report_names_what_happened_and_to_whom() {
        let message = Message {
            topic: Topic::parse("a/b").unwrap(),
            payload: Box::default(),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: None,
            expires_at: None,
            received_at: Timestamp(0),
            publisher: "p".into(),
            user: None,
        };
        let (sequence, message) = (Sequence(17), Arc::new(message));
        let event = InboxEvent { sequence, message, qos: Qos::AtLeastOnce, retain: false, attempt: 4, replayed: false };
        let plugin = PluginName("asset-health".into());
        let reason = "the plugin panicked at src/lib.rs:7:5: no mean";
        let report = FailureReport { plugin: &plugin, revision: (3, "0.2.0"), event: &event, reason };
        assert_eq!(
            report.to_string(),
            "the plugin panicked at src/lib.rs:7:5: no mean [plugin asset-health, revision 3 (0.2.0), event 17 on a/b, \
             attempt 5]"
        );
    }
}
