//! The service outside of a broker: events in, records changed, messages out. How they travel is its callers' affair.

use anyhow::Context as _;

use crate::store::Store;
use crate::vibration::Reading;

/// The client identifier, under which the broker keeps the session.
pub const CLIENT_ID: &str = "vibration-service";

/// What the service subscribes to, at QoS 1.
pub const FILTERS: [&str; 2] = ["assets/+/vibration", "assets/+/inspect"];

/// A message to be published at QoS 1, once the store has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The payload, JSON.
    pub payload: Vec<u8>,
}

/// The service.
pub struct Service {
    store: Store,
}

impl Service {
    /// A service over a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Handles one event. What it wants published is added to `messages`. An event that makes no sense is told of and
    /// otherwise passed over; an error is one of the store, after which the service must end.
    pub fn handle(&mut self, topic: &str, payload: &[u8], messages: &mut Vec<Message>) -> anyhow::Result<()> {
        let Some((asset, kind)) = topic.strip_prefix("assets/").and_then(|rest| rest.split_once('/')) else {
            return Ok(());
        };
        match kind {
            "vibration" => {
                let reading: Reading<'_> = match serde_json::from_slice(payload) {
                    Ok(reading) => reading,
                    Err(error) => {
                        eprintln!("a reading on {topic} is passed over: {error}");
                        return Ok(());
                    }
                };
                if let Some(alert) = self.store.change(asset, |record| record.observe(&reading))? {
                    let payload = serde_json::to_vec(&alert).context("an alert")?;
                    messages.push(Message { topic: format!("assets/{asset}/alerts"), payload });
                }
            }
            "inspect" => {
                let payload = serde_json::to_vec(&self.store.record(asset)?.answer(asset)).context("an answer")?;
                messages.push(Message { topic: format!("assets/{asset}/record"), payload });
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes durable what was handled. After it, messages may be published and events acknowledged.
    pub fn commit(&mut self) -> anyhow::Result<()> {
        self.store.commit().context("cannot commit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_change_records_and_the_alarming_ones_give_alerts() {
        let directory = tempfile::tempdir().unwrap();
        let mut service = Service::new(Store::open(directory.path()).unwrap());
        let mut messages = Vec::new();
        for (seq, mm_s) in [(1, 2.0), (2, 12.0)] {
            let reading = format!(
                r#"{{"asset":"a","seq":{seq},"ts":5,"mm_s":{mm_s},"temperature_c":1.5,"unit":"mm/s","sensor":"x"}}"#
            );
            service.handle("assets/a/vibration", reading.as_bytes(), &mut messages).unwrap();
        }
        service.handle("assets/a/vibration", b"{", &mut messages).unwrap();
        service.handle("elsewhere", b"", &mut messages).unwrap();
        service.handle("assets/a/inspect", b"", &mut messages).unwrap();
        service.commit().unwrap();
        let topics: Vec<&str> = messages.iter().map(|message| &*message.topic).collect();
        assert_eq!(topics, ["assets/a/alerts", "assets/a/record"]);
        let text = |index: usize| String::from_utf8_lossy(&messages[index].payload).into_owned();
        assert!(text(0).contains(r#""seq":2"#), "{}", text(0));
        assert!(text(1).contains(r#""readings":2,"alerts":1"#), "{}", text(1));
    }
}
