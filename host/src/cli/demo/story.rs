//! The story in plain lines: what the services publish, put into words as it comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinHandle;
use vespiary_core::Qos;

use super::plant::Plant;
use crate::mqtt::client::{Client, ConnectOptions, Delivery};

/// How often the progress of the readings is told.
const REPORT_INTERVAL: Duration = Duration::from_secs(4);

/// The teller; clones tell the same story.
#[derive(Clone)]
pub(super) struct Story {
    inner: Arc<Inner>,
}

struct Inner {
    began: Instant,
    counts: Counts,
    listener: Mutex<Option<JoinHandle<()>>>,
}

/// What the services announced.
#[derive(Debug, Default)]
struct Counts {
    /// The asset of each.
    anomalies: Mutex<Vec<String>>,
    orders: AtomicU64,
    reserved: AtomicU64,
    checks: AtomicU64,
}

/// What the services announced, counted.
#[derive(Debug, Clone)]
pub(super) struct Announced {
    /// The asset of each anomaly detected.
    pub(super) anomalies: Vec<String>,
    /// Work orders opened.
    pub(super) orders: u64,
    /// Work orders for which somebody is reserved.
    pub(super) reserved: u64,
    /// Checks planned.
    pub(super) checks: u64,
}

impl Story {
    /// Subscribes to what is worth telling and begins to tell it.
    pub(super) async fn begin(address: &str) -> anyhow::Result<Self> {
        let mut client = Client::connect(ConnectOptions::new(address).client_id("demo-story")).await?;
        for filter in ["assets/+/alerts", "workorders/+", "checks/+"] {
            client.subscribe(filter, Qos::AtLeastOnce).await?;
        }
        let inner = Inner { began: Instant::now(), counts: Counts::default(), listener: Mutex::default() };
        let story = Self { inner: Arc::new(inner) };
        let teller = story.clone();
        let listener = tokio::spawn(async move {
            while let Ok(delivery) = client.receive().await {
                teller.announce(&delivery);
            }
        });
        *story.inner.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
        Ok(story)
    }

    /// Says a line.
    pub(super) fn tell(&self, line: &str) {
        println!("{:6.1} s  {line}", self.inner.began.elapsed().as_secs_f64());
    }

    /// What was announced so far.
    pub(super) fn counts(&self) -> Announced {
        let Counts { anomalies, orders, reserved, checks } = &self.inner.counts;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let anomalies = anomalies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Announced { anomalies, orders: count(orders), reserved: count(reserved), checks: count(checks) }
    }

    /// Stops listening.
    pub(super) async fn end(&self) {
        let listener = self.inner.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            listener.abort();
            // Aborted: that is how it ends.
            let _ = listener.await;
        }
    }

    /// Puts an event of a service into words.
    fn announce(&self, delivery: &Delivery) {
        let Ok(event) = serde_json::from_slice::<Value>(&delivery.payload) else { return };
        let text = |field: &str| event[field].as_str().unwrap_or("?").to_owned();
        let number = |field: &str| event[field].as_f64().unwrap_or(0.0);
        let counts = &self.inner.counts;
        match event["event"].as_str() {
            Some("AnomalyDetected") => {
                counts.anomalies.lock().unwrap_or_else(PoisonError::into_inner).push(text("asset"));
                self.tell(&format!(
                    "{}: ANOMALY. {:.2} mm/s, normal for it is {:.2}; {}, zone {} (detector {}).",
                    text("asset"),
                    number("mm_s"),
                    number("baseline_mm_s"),
                    text("severity"),
                    text("zone"),
                    text("detector")
                ));
            }
            Some("AnomalyEscalated") => self.tell(&format!(
                "{}: it gets worse. {:.2} mm/s; now {}, zone {}.",
                text("asset"),
                number("mm_s"),
                text("severity"),
                text("zone")
            )),
            Some("AnomalyCleared") => self.tell(&format!("{}: back to normal.", text("asset"))),
            Some("WorkOrderCreated") => {
                counts.orders.fetch_add(1, Ordering::Relaxed);
                counts.reserved.fetch_add(u64::from(event["reserved_technician"].is_string()), Ordering::Relaxed);
                self.tell(&format!(
                    "{}: WORK ORDER {} for {} in {}; needs {} and {}; {}.",
                    text("asset"),
                    text("order"),
                    text("fault"),
                    text("location"),
                    list(&event["skills"]),
                    list(&event["tools"]),
                    match event["reserved_technician"].as_str() {
                        Some(technician) => format!("{technician} and the tools are reserved"),
                        None => "nobody is reserved".to_owned(),
                    }
                ));
            }
            Some("WorkOrderEscalated") => {
                self.tell(&format!("{}: work order {} is {} now.", text("asset"), text("order"), text("severity")));
            }
            Some("CheckPlanned") => {
                counts.checks.fetch_add(1, Ordering::Relaxed);
                self.tell(&format!("{}: CHECK PLANNED. {}.", text("asset"), appointment(&event)));
            }
            Some("CheckMoved") => self.tell(&format!("{}: the check moves. {}.", text("asset"), appointment(&event))),
            Some("CheckUnplannable") => {
                self.tell(&format!("{}: no check can be planned: {}.", text("asset"), text("why")))
            }
            Some(_) | None => {}
        }
    }
}

/// Tells now and then how many readings were sent and how the failing machine runs.
pub(super) async fn report_progress(story: Story, plant: Arc<Plant>, started: Instant, interval: Duration, ticks: u64) {
    let failing = plant.failing();
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        let tick = ((started.elapsed().as_micros() / interval.as_micros().max(1)) as u64).min(ticks - 1);
        let reading = plant.reading(failing, tick);
        story.tell(&format!(
            "{} readings sent. {} measures {:.2} mm/s at {:.0} degrees.",
            (tick + 1) * plant.machines().len() as u64,
            reading.asset,
            reading.mm_s,
            reading.temperature_c
        ));
    }
}

fn appointment(event: &Value) -> String {
    let text = |field: &str| event[field].as_str().unwrap_or("?");
    // `2026-01-01T00:45:00.000Z`: to the minute is enough.
    let minute = |field: &str| text(field).get(..16).unwrap_or("?").replace('T', " ");
    format!("{} takes {} from {} to {} UTC", text("technician_name"), text("order"), minute("from"), minute("to"))
}

fn list(values: &Value) -> String {
    let words: Vec<&str> = values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if words.is_empty() { "nothing special".to_owned() } else { words.join(", ") }
}
