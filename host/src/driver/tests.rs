//! The driver with a store and without sockets.

use std::future::Future;
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};

use vespiary_core::event::{
    Activation, Connect, Lane, Outcome, Packet, PluginName, Protocol, Publish, RetainHandling, Revision, Settlement,
    Subscribe, SubscriptionOptions, Will,
};
use vespiary_core::{Message, Qos, Topic, TopicFilter};

use super::*;
use crate::store::StoreOptions;
use crate::store::testing::Disk;

const NOW: Timestamp = Timestamp(1_000);

/// A driver with a store, and what its plugin port was given.
fn driver(workers: usize, limits: Limits) -> (Driver, mpsc::Receiver<Effect>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let opened = Store::open(directory.path(), &StoreOptions::default()).unwrap();
    let (sender, receiver) = mpsc::channel();
    let port = Box::new(move |effect| sender.send(effect).unwrap());
    let broker = Broker::restore(limits.clone(), 1, opened.changes);
    (Driver::new(broker, limits, opened.store, workers, port), receiver, directory)
}

fn turn(driver: &Driver, worker: usize, inputs: Vec<Input>) -> Vec<Effect> {
    let (mut inputs, mut effects) = (VecDeque::from(inputs), Vec::new());
    driver.turn(worker, NOW, &mut inputs, &mut effects);
    assert!(inputs.is_empty());
    effects
}

fn on_worker(worker: u64) -> ConnectionId {
    ConnectionId(worker << 48)
}

fn connect(connection: ConnectionId, will_delay_s: Option<u32>) -> Input {
    let client_id: Arc<str> = format!("client {}", connection.0).into();
    let will = will_delay_s.map(|delay_s| Box::new(Will { message: message("will"), expiry_s: None, delay_s }));
    let connect = Connect {
        user: None,
        address: "".into(),
        protocol: Protocol::V5,
        client_id,
        client_id_assigned: false,
        clean_start: true,
        session_expiry_s: 100,
        receive_maximum: u16::MAX,
        maximum_packet_size: None,
        will,
    };
    Input::Connect { connection, connect: Box::new(connect) }
}

fn subscribe(connection: ConnectionId) -> Input {
    let options = SubscriptionOptions {
        maximum_qos: Qos::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::AtSubscribe,
    };
    let filters = vec![Ok((TopicFilter::parse("t").unwrap(), options))];
    let subscribe = Subscribe { packet_id: std::num::NonZeroU16::MIN, identifier: None, filters };
    Input::Subscribe { connection, subscribe: Box::new(subscribe) }
}

fn message(payload: &str) -> Message {
    Message {
        topic: Topic::parse("t").unwrap(),
        payload: payload.as_bytes().into(),
        qos: Qos::AtMostOnce,
        retain: false,
        properties: None,
        expires_at: None,
        received_at: NOW,
        publisher: "publisher".into(),
        user: None,
    }
}

fn publish(connection: ConnectionId, payload: &str) -> Input {
    Input::Publish { connection, publish: Publish { packet_id: None, dup: false, message: message(payload) } }
}

fn payloads(effects: &[Effect]) -> Vec<&str> {
    let payload = |effect| match effect {
        &Effect::Send { packet: Packet::Publish(ref delivery), .. } => {
            std::str::from_utf8(&delivery.message.payload).ok()
        }
        Effect::FanOut(fan_out) => std::str::from_utf8(&fan_out.delivery.message.payload).ok(),
        _ => None,
    };
    effects.iter().filter_map(payload).collect()
}

fn is_woken(driver: &Driver, worker: usize) -> bool {
    let mut woken = std::pin::pin!(driver.wake(worker).notified());
    woken.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn effects_for_another_worker_wait_for_its_turn_in_order() {
    let (driver, _, _directory) = driver(2, Limits::default());
    let (here, there) = (on_worker(0), on_worker(1));
    turn(&driver, 1, vec![connect(there, None), subscribe(there)]);
    assert!(!is_woken(&driver, 0));
    turn(&driver, 0, vec![connect(here, None), subscribe(here)]);
    let effects = turn(&driver, 0, vec![publish(here, "1"), publish(here, "2")]);
    assert_eq!(payloads(&effects), ["1", "2"]);
    assert!(is_woken(&driver, 1) && !is_woken(&driver, 0));
    let effects = turn(&driver, 1, vec![publish(there, "3")]);
    assert_eq!(payloads(&effects), ["1", "2", "3"]);
    assert_eq!(payloads(&turn(&driver, 0, vec![])), ["3"]);
    assert_eq!(payloads(&turn(&driver, 1, vec![])), [""; 0]);
}

#[test]
fn what_other_threads_post_is_taken_by_worker_0_and_answered_at_the_plugin_port() {
    let (driver, port, _directory) = driver(2, Limits::default());
    driver.post(Input::RemovePlugin { plugin: PluginName("nobody".into()) });
    assert!(is_woken(&driver, 0) && !is_woken(&driver, 1));
    turn(&driver, 1, vec![]);
    assert!(port.try_recv().is_err());
    assert_eq!(turn(&driver, 0, vec![]), []);
    assert!(port.try_recv().is_ok());
}

#[test]
fn a_deadline_that_comes_sooner_wakes_worker_0() {
    let (driver, _, _directory) = driver(2, Limits::default());
    let connection = on_worker(1);
    turn(&driver, 1, vec![connect(connection, Some(5))]);
    assert_eq!(driver.next_deadline(), None);
    turn(&driver, 1, vec![Input::ConnectionLost { connection }]);
    let wait_ms = driver.next_deadline().expect("the will is due").since_ms(wall_clock());
    assert!((1..=5_000).contains(&wait_ms), "{wait_ms}");
    assert!(is_woken(&driver, 0));
}

#[test]
fn what_plugins_have_to_say_waits_while_the_store_is_failing() {
    let (disk, directory) = (Disk::new(), tempfile::tempdir().unwrap());
    let opened = disk.open(directory.path());
    let (sender, port) = mpsc::channel();
    let broker = Broker::restore(Limits::default(), 1, opened.changes);
    let port_of = Box::new(move |effect| sender.send(effect).unwrap());
    let driver = Driver::new(broker, Limits::default(), opened.store, 1, port_of);
    let wait = |failing| {
        while driver.store().is_failing() != failing {
            std::thread::yield_now();
        }
    };
    let plugin = PluginName("p".into());
    let revision = Revision { number: 1, digest: [0; 32], version: "1".into(), activated_at: NOW };
    let subscriptions = vec![(TopicFilter::parse("t").unwrap(), Qos::AtLeastOnce)];
    let activation = Box::new(Activation::plain(revision, subscriptions));
    turn(&driver, 0, vec![Input::ActivatePlugin { plugin: plugin.clone(), activation }]);
    let connection = on_worker(0);
    turn(&driver, 0, vec![connect(connection, None), publish(connection, "x")]);
    turn(&driver, 0, vec![Input::TakeEvents { lane: Lane(0), plugin: plugin.clone(), max: 9 }]);
    let events = port.try_iter().find_map(|effect| match effect {
        Effect::Events { events, .. } => Some(events),
        _ => None,
    });
    let outcomes = vec![(events.expect("an event")[0].sequence, Outcome::Done)];

    disk.fail_after(0);
    turn(&driver, 0, vec![connect(on_worker(0), None)]);
    wait(true);
    let settlement = Box::new(Settlement { outcomes, ..Settlement::default() });
    driver.post(Input::Settle { lane: Lane(0), plugin: plugin.clone(), settlement });
    turn(&driver, 0, vec![]);
    turn(&driver, 0, vec![]);
    assert!(port.try_recv().is_err());
    disk.mend();
    wait(false);
    turn(&driver, 0, vec![]);
    assert!(matches!(port.try_recv(), Ok(Effect::Settled { .. })));
    assert_eq!(driver.inspect(|broker| broker.plugins().map(|plugin| plugin.inbox_events).sum::<usize>()), 0);
}

#[test]
fn what_is_dropped_is_counted() {
    let limits = Limits { unwritten_bytes: 1, buffered_messages: 1, ..Limits::default() };
    let (driver, _, _directory) = driver(1, limits);
    let connection = on_worker(0);
    turn(&driver, 0, vec![connect(connection, None), subscribe(connection)]);
    turn(&driver, 0, (0..5).map(|number| publish(connection, &number.to_string())).collect());
    assert_eq!(driver.dropped(DropReason::QueueFull), 3);
    assert_eq!(driver.dropped(DropReason::Expired), 0);
}

#[test]
fn a_turn_that_comes_to_much_leaves_inputs_for_the_next() {
    let (driver, _, _directory) = driver(1, Limits::default());
    let connection = on_worker(0);
    turn(&driver, 0, vec![connect(connection, None), subscribe(connection)]);
    let mut inputs: VecDeque<_> = (0..1_000).map(|number| publish(connection, &number.to_string())).collect();
    let mut delivered = Vec::new();
    while !inputs.is_empty() {
        let mut effects = Vec::new();
        driver.turn(0, NOW, &mut inputs, &mut effects);
        assert!(effects.len() <= EFFECTS_PER_TURN);
        delivered.extend(payloads(&effects).iter().map(|payload| payload.parse::<usize>().unwrap()));
    }
    assert!(delivered.iter().copied().eq(0..1_000));
}

#[test]
fn every_reason_has_a_counter_of_its_own() {
    let (driver, _, _directory) = driver(1, Limits::default());
    for (index, &(reason, _)) in DropReason::ALL.iter().enumerate() {
        driver.count_dropped(reason, index as u32 + 1);
    }
    for (index, &(reason, _)) in DropReason::ALL.iter().enumerate() {
        assert_eq!(driver.dropped(reason), index as u64 + 1);
    }
}
