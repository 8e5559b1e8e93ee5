//! The plant's IT system, as the services see it: an MQTT client that answers questions about machines and keeps reservations.
//!
//! It answers as MQTT 5 says (section 4.10): to the response topic, with the correlation data. What it knows is what the
//! plant is made of; what it reserves, it counts for the audit.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use vespiary_core::Qos;
use vespiary_core::message::MessageProperties;

use super::plant::Plant;
use crate::mqtt::client::{Client, ConnectOptions, Delivery, Publish};

/// Who works in the plant: key, name and skills.
pub(super) const TECHNICIANS: [(&str, &str, &[&str]); 3] = [
    ("chika", "Chika Obi", &["bearings", "alignment", "motors"]),
    ("marta", "Marta Lind", &["bearings", "compressors", "fans"]),
    ("jonas", "Jonas Weiss", &["alignment", "motors", "fans", "bearings", "compressors"]),
];

/// An IT system at work.
pub(super) struct ItSystem {
    reserved: Arc<Mutex<Reserved>>,
    worker: JoinHandle<()>,
}

/// The orders for which something is reserved.
#[derive(Debug, Clone, Default)]
pub(super) struct Reserved {
    /// A technician.
    pub(super) technicians: BTreeSet<String>,
    /// Tools.
    pub(super) tools: BTreeSet<String>,
}

impl ItSystem {
    /// Connects, and begins to answer.
    pub(super) async fn begin(address: &str, plant: Arc<Plant>) -> anyhow::Result<Self> {
        let mut client = Client::connect(ConnectOptions::new(address).client_id("demo-it-system")).await?;
        client.subscribe("api/+/+", Qos::AtLeastOnce).await?;
        let reserved = Arc::new(Mutex::new(Reserved::default()));
        let book = Arc::clone(&reserved);
        let worker = tokio::spawn(async move {
            while let Ok(question) = client.receive().await {
                let Some((topic, properties)) = return_address(&question) else { continue };
                let asked = serde_json::from_slice(&question.payload).unwrap_or_default();
                let answer = {
                    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                    answer(&plant, &mut book, &question.topic, &asked)
                };
                let mut publish = Publish::new(topic, answer.to_string()).qos(Qos::AtLeastOnce);
                publish.properties = Some(Box::new(properties));
                // The connection is gone with the broker: `receive` says so too.
                let _ = client.publish(publish).await;
            }
        });
        Ok(Self { reserved, worker })
    }

    /// What is reserved now.
    pub(super) fn reserved(&self) -> Reserved {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leaves.
    pub(super) async fn end(self) {
        self.worker.abort();
        // Aborted: that is how it ends.
        let _ = self.worker.await;
    }
}

/// Where an answer goes, and with what; none if nobody asks for one.
fn return_address(question: &Delivery) -> Option<(String, MessageProperties)> {
    let asked = question.properties.as_ref()?;
    let topic = asked.response_topic.as_ref()?.as_str().to_owned();
    let properties =
        MessageProperties { correlation_data: asked.correlation_data.clone(), ..MessageProperties::default() };
    Some((topic, properties))
}

/// Does what is asked for, and gives the answer.
fn answer(plant: &Plant, book: &mut Reserved, topic: &str, asked: &Value) -> Value {
    let order = || asked["order"].as_str().unwrap_or_default().to_owned();
    let machine = plant.machines().iter().find(|machine| asked["asset"] == machine.asset.as_str());
    match (topic, machine) {
        ("api/location/get", Some(machine)) => json!({ "location": machine.location }),
        ("api/skills/get", Some(machine)) => json!({ "skills": machine.skills }),
        ("api/tools/get", Some(machine)) => json!({ "tools": machine.tools }),
        ("api/technicians/reserve", _) => {
            let wanted: Vec<&str> =
                asked["skills"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let able = TECHNICIANS.iter().find(|(_, _, skills)| wanted.iter().all(|skill| skills.contains(skill)));
            let Some((technician, _, _)) = able else {
                return json!({ "reserved": false, "reason": "nobody has all of the skills" });
            };
            book.technicians.insert(order());
            json!({ "reserved": true, "technician": technician })
        }
        ("api/tools/reserve", _) => {
            book.tools.insert(order());
            json!({ "reserved": true })
        }
        ("api/technicians/release", _) => {
            book.technicians.remove(&order());
            json!({ "released": true })
        }
        ("api/tools/release", _) => {
            book.tools.remove(&order());
            json!({ "released": true })
        }
        _ => json!({ "reason": "it is not known" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::plant::PlantOptions;

    #[test]
    fn what_the_plant_has_is_known_and_reservations_are_kept_per_order() {
        let plant = Plant::new(PlantOptions::for_run(7, 0, 40, 600));
        let machine = &plant.machines()[3];
        let mut book = Reserved::default();
        let mut ask = |topic: &str, asked: Value| answer(&plant, &mut book, topic, &asked);
        assert_eq!(ask("api/location/get", json!({ "asset": machine.asset })), json!({ "location": machine.location }));
        assert_eq!(ask("api/tools/get", json!({ "asset": "NONE" })), json!({ "reason": "it is not known" }));
        for machine in plant.machines() {
            let wanted = json!({ "order": machine.asset, "skills": machine.skills });
            assert_eq!(ask("api/technicians/reserve", wanted)["reserved"], json!(true), "{machine:?}");
        }
        assert_eq!(
            ask("api/technicians/reserve", json!({ "order": "x", "skills": ["welding"] }))["reserved"],
            json!(false)
        );
        ask("api/technicians/release", json!({ "order": machine.asset }));
        assert_eq!(book.technicians.len(), plant.machines().len() - 1);
    }
}
