//! Was anything lost? What each machine sent, compared with what asset-health says it committed.
//!
//! The service's own counters say how many readings it handled and how many were missing, repeated or late; the hash
//! over the payloads in the order of their handling says the same without having to believe the counters.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use vespiary_core::Qos;

use super::it_system::Reserved;
use super::machine::Sent;
use super::plant::Plant;
use super::story::Announced;
use crate::mqtt::client::{Client, ConnectOptions, Publish};

/// How long the services may take to handle what still waits, and to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Marks the answers to this audit.
const REQUEST: &str = "demo-audit";

/// What the comparison gave.
#[derive(Debug)]
pub(super) struct Audit {
    sent: u64,
    handled: u64,
    handled_by: BTreeMap<String, u64>,
    lost: u64,
    doubled: u64,
    reordered: u64,
    /// Machines whose hash differs from the service's.
    chains_differ: u64,
    pause_ms: f64,
    announced: Announced,
    /// What is reserved in the IT system.
    reserved: Reserved,
    /// The one machine that should have raised an anomaly.
    failing: String,
}

impl Audit {
    /// Asks the service about every machine. The answers come after all readings that were sent before: each asset's
    /// question goes the same way as its readings.
    pub(super) async fn run(
        address: &str,
        plant: &Plant,
        sent: Vec<Sent>,
        pause_ms: f64,
        announced: Announced,
        reserved: Reserved,
    ) -> anyhow::Result<Self> {
        let mut client = Client::connect(ConnectOptions::new(address).client_id("demo-audit")).await?;
        client.subscribe("assets/+/health", Qos::AtLeastOnce).await?;
        for machine in &sent {
            let question = json!({ "request": REQUEST }).to_string();
            let topic = format!("assets/{}/health/query", machine.asset);
            client.publish(Publish::new(topic, question).qos(Qos::AtLeastOnce)).await?;
        }
        let mut audit = Self {
            sent: sent.iter().map(|machine| machine.readings).sum(),
            handled: 0,
            handled_by: BTreeMap::new(),
            lost: 0,
            doubled: 0,
            reordered: 0,
            chains_differ: 0,
            pause_ms,
            announced,
            reserved,
            failing: plant.machines()[plant.failing()].asset.clone(),
        };
        let mut open: BTreeMap<String, Sent> = sent.into_iter().map(|sent| (sent.asset.clone(), sent)).collect();
        while !open.is_empty() {
            let delivery = tokio::time::timeout(ANSWER_TIMEOUT, client.receive())
                .await
                .with_context(|| format!("asset-health does not answer for {} machines", open.len()))??;
            let answer: Value = serde_json::from_slice(&delivery.payload)?;
            let asset = answer["asset"].as_str().unwrap_or_default();
            if answer["request"] == REQUEST
                && let Some(sent) = open.remove(asset)
            {
                audit.compare(&sent, &answer);
            }
        }
        client.disconnect().await?;
        Ok(audit)
    }

    /// Compares one machine with what the service says of it.
    fn compare(&mut self, sent: &Sent, answer: &Value) {
        let count = |field: &str| answer[field].as_u64().unwrap_or(0);
        let (handled, repeats) = (count("handled"), count("repeats"));
        self.handled += handled;
        self.doubled += repeats;
        self.reordered += count("reordered");
        self.lost += sent.readings.saturating_sub(handled.saturating_sub(repeats)).max(count("gaps"));
        let chain = answer["chain"].as_str().and_then(|chain| u64::from_str_radix(chain, 16).ok());
        self.chains_differ += u64::from(chain != Some(sent.chain));
        for (version, handled) in answer["handled_by"].as_object().into_iter().flatten() {
            *self.handled_by.entry(version.clone()).or_default() += handled.as_u64().unwrap_or(0);
        }
    }

    /// Whether nothing was lost, doubled or reordered, both versions did their part, and the failing machine, and no
    /// other, got one work order and one planned check, for which technician and tools are reserved.
    pub(super) fn is_clean(&self) -> bool {
        self.lost == 0
            && self.doubled == 0
            && self.reordered == 0
            && self.chains_differ == 0
            && self.sent == self.handled
            && self.handled_by.len() == 2
            && self.announced.anomalies == [self.failing.as_str()]
            && self.announced.orders == 1
            && self.announced.checks == 1
            && self.announced.reserved == 1
            && self.reserved.technicians.len() == 1
            && self.reserved.technicians == self.reserved.tools
    }

    /// The summary.
    pub(super) fn print(&self) {
        let by: Vec<_> = self.handled_by.iter().map(|(version, count)| format!("{count} by {version}")).collect();
        println!("\nevents sent          {}", self.sent);
        println!("events handled       {} ({})", self.handled, by.join(", "));
        println!("lost                 {}", self.lost);
        println!("doubled              {}", self.doubled);
        println!("out of order         {}", self.reordered);
        println!(
            "hashes               {}",
            match self.chains_differ {
                0 => "equal for every machine: each reading took effect once, in the order it was sent".to_owned(),
                differ => format!("differ for {differ} machines"),
            }
        );
        println!("dispatch pause       {:.2} ms at the swap", self.pause_ms);
        println!(
            "announced            anomalies of {:?} (it is {} that fails), {} work order, {} planned check",
            self.announced.anomalies, self.failing, self.announced.orders, self.announced.checks
        );
        println!(
            "reserved             technicians for {} order, tools for {}",
            self.reserved.technicians.len(),
            self.reserved.tools.len()
        );
    }
}
