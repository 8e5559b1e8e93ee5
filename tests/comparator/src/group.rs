//! The main comparator: the service as one writes it with Rust's most used MQTT client, [rumqttc], and group commit.
//!
//! The client's event loop runs on this thread and hands events to a worker, which takes whatever has come meanwhile, up to
//! [`BATCH`], under one commit. So a slow disk makes larger batches, not a longer queue. After the commit alerts are
//! published and then events acknowledged, on one connection in this order: a crash in between repeats events and alerts
//! and loses none. Events in memory are bounded by what the broker sends without acknowledgement.
//!
//! Promises: a reading that the broker handed out is counted at least once and its alert published at least once, whatever
//! happens to this process. What the broker does with it is the broker's affair; Mosquitto keeps it in memory.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rumqttc::{Client, Event, MqttOptions, Packet, Publish, QoS, SubscribeFilter};

use crate::service::{CLIENT_ID, FILTERS, Service};

/// Events under one commit, at most.
pub const BATCH: usize = 1_024;

/// Requests that the event loop has not taken yet. The worker waits when there are more.
const REQUESTS: usize = 4_096;

/// Alerts that the broker has not acknowledged. Beyond it the client sends nothing at all, acknowledgements included.
const INFLIGHT: u16 = 2_000;

/// Before the next try after the connection broke.
const PAUSE: Duration = Duration::from_secs(1);

/// What the event loop hands to the worker.
enum Work {
    Event(Publish),
    /// The broker knows no session of ours.
    Subscribe,
}

/// Runs until something fails that a restart has to mend. Prints `ready` when the subscriptions stand.
pub fn run(broker: SocketAddr, service: Service) -> anyhow::Result<()> {
    let mut options = MqttOptions::new(CLIENT_ID, broker.ip().to_string(), broker.port());
    options.set_clean_session(false).set_manual_acks(true).set_inflight(INFLIGHT);
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut connection) = Client::new(options, REQUESTS);
    connection.eventloop.network_options.set_tcp_nodelay(true);
    // Not bounded itself, lest event loop and worker wait for each other: the broker bounds what it sends unacknowledged.
    let (to_worker, work) = mpsc::channel();
    let worker = std::thread::spawn(move || handle_all(service, &client, &work));
    for event in connection.iter() {
        let work = match event {
            Ok(Event::Incoming(Packet::Publish(event))) => Work::Event(event),
            Ok(Event::Incoming(Packet::ConnAck(answer))) if !answer.session_present => Work::Subscribe,
            Ok(Event::Incoming(Packet::ConnAck(_) | Packet::SubAck(_))) => {
                println!("ready");
                continue;
            }
            Ok(_) => continue,
            Err(error) => {
                eprintln!("the connection broke: {error}");
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        if to_worker.send(work).is_err() {
            break;
        }
    }
    worker.join().map_err(|_| anyhow!("the worker panicked"))?
}

/// Handles events in batches. Ends with an error, or when the event loop has ended.
fn handle_all(mut service: Service, client: &Client, work: &Receiver<Work>) -> anyhow::Result<()> {
    let mut events = Vec::with_capacity(BATCH);
    let mut messages = Vec::new();
    while let Ok(first) = work.recv() {
        for work in std::iter::once(first).chain(work.try_iter()).take(BATCH) {
            match work {
                Work::Event(event) => events.push(event),
                Work::Subscribe => {
                    let filters = FILTERS.map(|filter| SubscribeFilter::new(filter.to_owned(), QoS::AtLeastOnce));
                    client.subscribe_many(filters).context("cannot subscribe")?;
                }
            }
        }
        for event in &events {
            service.handle(&event.topic, &event.payload, &mut messages)?;
        }
        service.commit()?;
        for message in messages.drain(..) {
            client.publish(message.topic, QoS::AtLeastOnce, false, message.payload).context("cannot publish")?;
        }
        for event in events.drain(..) {
            client.ack(&event).context("cannot acknowledge")?;
        }
    }
    Ok(())
}
