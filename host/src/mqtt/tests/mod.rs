//! The real workers and the real store behind real sockets, driven with bytes written by hand.

mod failing;
mod opening;
mod publishing;

mod aliases;
mod explaining;
mod quota;

mod authenticating;

mod hooks;

mod closing;
mod hardening;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use vespiary_core::{Broker, Limits};

use super::{Counters, MqttOptions, ServeError, serve};
use crate::driver::Driver;
use crate::store::{Opened, Store, StoreOptions};

/// Longest that a test waits for bytes that are to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Workers that serve on a free port, with a store in a directory of their own; stopped when dropped.
struct Served {
    address: SocketAddr,
    driver: Arc<Driver>,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
    _directory: tempfile::TempDir,
}

fn served() -> Served {
    served_with(1, MqttOptions::default(), Limits::default())
}

fn served_with(workers: usize, options: MqttOptions, limits: Limits) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let opened = Store::open(directory.path(), &StoreOptions::default()).unwrap();
    served_by(directory, opened, workers, options, limits)
}

/// The same with a store that is open already, and its directory.
fn served_by(
    directory: tempfile::TempDir,
    opened: Opened,
    workers: usize,
    options: MqttOptions,
    limits: Limits,
) -> Served {
    let broker = Broker::restore(limits.clone(), 1, opened.changes);
    let driver = Arc::new(Driver::new(broker, limits, opened.store, workers, Box::new(|_| {})));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let counters = options.counters.clone();
    let thread = std::thread::spawn({
        let driver = driver.clone();
        move || serve(driver, listener, options, stopped)
    });
    Served { address, driver, counters, stop, thread: Some(thread), _directory: directory }
}

impl Served {
    /// A socket on which nothing has been said.
    fn socket(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream }
    }

    /// A 3.1.1 client, connected with a clean session and no keep-alive.
    fn v3(&self, client_id: &str) -> Client {
        let mut client = self.socket();
        client.send(&connect(4, 2, 0, client_id));
        client.expect(&[0x20, 2, 0, 0]);
        client
    }

    /// A 5.0 client, connected with a clean start and no keep-alive.
    fn v5(&self, client_id: &str) -> Client {
        let mut client = self.socket();
        client.send(&connect(5, 2, 0, client_id));
        let connack = client.packet();
        assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0), "{connack:02x?}");
        client
    }

    /// A 5.0 client that sends these properties with CONNECT, connected with a clean start and no keep-alive; and what it
    /// was answered.
    fn v5_with(&self, client_id: &str, properties: &[u8]) -> (Client, Vec<u8>) {
        let mut client = self.socket();
        client.send(&connect_with(client_id, properties));
        let connack = client.packet();
        assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0), "{connack:02x?}");
        (client, connack)
    }

    fn stop(mut self) -> Result<(), ServeError> {
        self.stop.send(true).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.stop.send(true);
            let _ = thread.join();
        }
        let _ = self.driver.store().close();
    }
}

/// One end of a connection to the broker.
struct Client {
    stream: TcpStream,
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads as many bytes as these, and they are these.
    #[track_caller]
    fn expect(&mut self, bytes: &[u8]) {
        let mut found = vec![0; bytes.len()];
        self.stream.read_exact(&mut found).unwrap();
        assert_eq!(found, bytes, "{found:02x?} is not {bytes:02x?}");
    }

    /// The next packet.
    #[track_caller]
    fn packet(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.stream.read_exact(&mut packet).unwrap();
        let mut remaining = usize::from(packet[1] & 0x7F);
        while packet[packet.len() - 1] & 0x80 != 0 {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            remaining |= usize::from(byte[0] & 0x7F) << (7 * (packet.len() - 1));
            packet.push(byte[0]);
        }
        let header = packet.len();
        packet.resize(header + remaining, 0);
        self.stream.read_exact(&mut packet[header..]).unwrap();
        packet
    }

    /// The broker has nothing more to say, and closes without a reset.
    #[track_caller]
    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "nothing is left to read: {rest:?}");
    }

    /// The broker says DISCONNECT with this reason, and what is wrong.
    #[track_caller]
    fn expect_disconnect(&mut self, reason: u8) {
        let packet = self.packet();
        assert_eq!((packet[0], packet[2]), (0xE0, reason), "{packet:02x?}");
        assert_eq!(packet[4], 0x1F, "a reason string in {packet:02x?}");
    }

    /// The broker closes in whatever way.
    fn expect_gone(&mut self) {
        let mut rest = [0; 4096];
        while self.stream.read(&mut rest).is_ok_and(|count| count > 0) {}
    }

    /// Nothing else has come by the time at which the broker has answered a PINGREQ.
    #[track_caller]
    fn expect_silence(&mut self) {
        self.send(&[0xC0, 0]);
        self.expect(&[0xD0, 0]);
    }
}

/// CONNECT.
fn connect(level: u8, flags: u8, keep_alive_s: u16, client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, flags];
    body.extend(keep_alive_s.to_be_bytes());
    if level == 5 {
        body.push(0);
    }
    body.extend((client_id.len() as u16).to_be_bytes());
    body.extend(client_id.as_bytes());
    frame(0x10, &body)
}

/// CONNECT of 5.0 with a clean start, no keep-alive and properties.
fn connect_with(client_id: &str, properties: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, properties.len() as u8];
    body.extend(properties);
    body.extend((client_id.len() as u16).to_be_bytes());
    body.extend(client_id.as_bytes());
    frame(0x10, &body)
}

/// SUBSCRIBE to one filter, in the form of `level`.
fn subscribe(level: u8, packet_id: u8, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, packet_id];
    if level == 5 {
        body.push(0);
    }
    body.extend((filter.len() as u16).to_be_bytes());
    body.extend(filter.as_bytes());
    body.push(qos);
    frame(0x82, &body)
}

/// PUBLISH of 5.0 with properties; a packet identifier of 0 is left out.
fn publish_with(first: u8, topic: &str, packet_id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    if packet_id != 0 {
        body.extend(packet_id.to_be_bytes());
    }
    body.push(properties.len() as u8);
    body.extend(properties);
    body.extend(payload);
    frame(first, &body)
}

/// PUBLISH, in the form of `level`; a packet identifier of 0 is left out.
fn publish(level: u8, first: u8, topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    if packet_id != 0 {
        body.extend(packet_id.to_be_bytes());
    }
    if level == 5 {
        body.push(0);
    }
    body.extend(payload);
    frame(first, &body)
}

fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    while length > 0x7F {
        packet.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend(body);
    packet
}
