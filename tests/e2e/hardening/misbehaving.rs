//! Peers that flood, stall, drip, or say nothing at all, beside two clients that only want their messages.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{configured, counter, memory};
use crate::conformance::packets::{Connect, acknowledge, property, publish};
use crate::conformance::peer::Peer;
use crate::harness::{PATIENCE, eventually};

/// Messages of the two that behave.
const MESSAGES: u32 = 3_000;
/// Of these, unacknowledged at a time.
const WINDOW: u32 = 32;

/// Payload of a flooding publish.
const FLOOD_PAYLOAD_BYTES: usize = 4096;
/// Bytes that the flood has at the least, however soon the others are done: far more than may be kept of it.
const FLOOD_BYTES: usize = 256 << 20;

/// Bytes of a client identifier that comes one by one.
const DRIP_BYTES: usize = 60_000;

/// `limits.buffered_bytes`: what waits for one client in memory.
const BUFFERED_BYTES: u64 = 4 << 20;
/// `limits.unwritten_bytes`: publishes handed to one connection and not on its socket yet.
const UNWRITTEN_PUBLISH_BYTES: u64 = 1 << 20;
/// What waits to be written to one connection, acknowledgements included, at most: the default of `MqttOptions`.
const UNWRITTEN_BYTES: u64 = 8 << 20;
/// Clients that subscribe to the flood and do not read.
const DEAF: u64 = 3;

/// What may be resident at most, where `at_rest` was when nobody was there: for each of the deaf the publishes that wait for it, for one
/// of them the answers as well, all of it twice, since a buffer that grows is there twice for a moment; and as much
/// again as there was at rest for everything else, such as buffers that are kept and code that runs for the first time.
fn most_resident_bytes(at_rest: u64) -> u64 {
    let waiting = DEAF * (BUFFERED_BYTES + UNWRITTEN_PUBLISH_BYTES) + UNWRITTEN_BYTES;
    at_rest + 2 * waiting + at_rest
}

/// Publishes at QoS 0 as fast as the broker reads, until told to stop.
fn flood(address: SocketAddr, stop: Arc<AtomicBool>, sent: Arc<AtomicUsize>) -> JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let (peer, _) = Peer::join_at(address, &Connect::new(4, "flood"));
        let mut stream = peer.writer();
        stream.set_write_timeout(Some(PATIENCE))?;
        let batch = publish(4, 0x30, "flood", 0, &[7; FLOOD_PAYLOAD_BYTES]).repeat(64);
        while !stop.load(Ordering::Relaxed) || sent.load(Ordering::Relaxed) < FLOOD_BYTES {
            stream.write_all(&batch)?;
            sent.fetch_add(batch.len(), Ordering::Relaxed);
        }
        peer.leave();
        Ok(())
    })
}

/// Asks for long answers and reads none, until it is cut.
fn ask_and_never_read(address: SocketAddr) -> JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let connect = Connect::new(5, "asks").property(property::REQUEST_PROBLEM_INFORMATION, &[1]);
        let (mut peer, _) = Peer::join_at(address, &connect);
        peer.subscribe("flood", 0);
        let mut stream = peer.writer();
        stream.set_write_timeout(Some(PATIENCE))?;
        // PUBREL for nothing: each four bytes are answered with a PUBCOMP that says why.
        let batch = acknowledge(0x62, 1).repeat(4096);
        let error = loop {
            if let Err(error) = stream.write_all(&batch) {
                break error;
            }
        };
        ensure!(!matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "never cut");
        Ok(())
    })
}

/// One byte a second of a CONNECT that would take most of a day; gives up when the broker does.
fn drip(address: SocketAddr) -> JoinHandle<Result<usize>> {
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let whole = Connect::new(5, "x".repeat(DRIP_BYTES)).bytes();
        for (sent, byte) in whole.iter().enumerate() {
            if stream.write_all(&[*byte]).is_err() {
                return Ok(sent);
            }
            match stream.read(&mut [0]) {
                Ok(0) => return Ok(sent),
                Ok(_) => anyhow::bail!("a CONNECT that never ended was answered"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Ok(sent),
            }
        }
        Ok(whole.len())
    })
}

/// A connection that ends without a word.
fn expect_closed(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    match stream.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => anyhow::bail!("something came"),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error).context("it stays open"),
    }
}

/// Publishes numbers at QoS 1, a window at a time, until all are acknowledged in their order.
fn send_all(address: SocketAddr) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut peer, _) = Peer::join_at(address, &Connect::new(5, "from"));
        let packet_id = |number: u32| number as u16 + 1;
        for number in 0..MESSAGES + WINDOW {
            if number < MESSAGES {
                peer.send(&publish(5, 0x32, "numbers", packet_id(number), &number.to_be_bytes()));
            }
            if let Some(acknowledged) = number.checked_sub(WINDOW) {
                peer.expect_acknowledgement(0x40, packet_id(acknowledged), 0);
            }
        }
        peer.leave();
    })
}

#[test]
fn beside_peers_that_misbehave_a_stream_loses_nothing_and_keeps_its_order() -> Result<()> {
    let (broker, _directory) = configured(&format!(
        "[mqtt]\nconnect_timeout_s = 2\n[limits]\nbuffered_bytes = {BUFFERED_BYTES}\nunwritten_bytes = {UNWRITTEN_PUBLISH_BYTES}\n"
    ))?;
    let at_rest = memory(&broker, "VmRSS")?;
    let (mut receiver, _) = Peer::join_at(broker.mqtt, &Connect::new(5, "to").resume());
    receiver.subscribe("numbers", 1);

    // Neither of these reads what it asked for; the second has a session that is kept.
    let deaf = [Connect::new(4, "deaf"), Connect::new(5, "deaf-and-kept").resume()].map(|connect| {
        let (mut peer, _) = Peer::join_at(broker.mqtt, &connect);
        peer.subscribe("flood", 0);
        peer
    });
    let silent = TcpStream::connect(broker.mqtt)?;
    let half = TcpStream::connect(broker.mqtt)?;
    (&half).write_all(&[0x10])?;
    // Gone without a FIN, as far as the broker can see: nothing comes any more.
    let (mut gone, _) = Peer::join_at(broker.mqtt, &Connect::new(5, "gone").keep_alive(1));
    let (stop, flooded) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let flooder = flood(broker.mqtt, stop.clone(), flooded.clone());
    let (asking, dripping) = (ask_and_never_read(broker.mqtt), drip(broker.mqtt));

    let sender = send_all(broker.mqtt);
    for number in 0..MESSAGES {
        let packet_id = receiver.expect_publish("numbers", &number.to_be_bytes()).packet_id;
        receiver.send(&acknowledge(0x40, packet_id));
    }
    sender.join().expect("every number is acknowledged in its order");
    receiver.expect_silence();

    gone.expect_disconnect(&[0x8D]);
    expect_closed(silent)?;
    expect_closed(half)?;
    let dripped = dripping.join().expect("a thread that ends")?;
    ensure!(dripped < DRIP_BYTES, "all of the endless CONNECT was taken");
    asking.join().expect("a thread that ends")?;
    ensure!(broker.log().matches("more waits for its client than may").count() == 1, "{}", broker.log());
    stop.store(true, Ordering::Relaxed);
    flooder.join().expect("a thread that ends")?;

    let peak = memory(&broker, "VmHWM")?;
    println!("flooded {} bytes; resident at rest {at_rest}, at most {peak}", flooded.load(Ordering::Relaxed));
    ensure!(peak <= most_resident_bytes(at_rest), "{peak} bytes were resident, {at_rest} at rest");
    ensure!(counter(&broker, "dropped", "queue_full")? > 0, "a flood that nobody reads is dropped and counted");
    // What was left of the deaf is let go with them.
    for peer in deaf {
        peer.writer().shutdown(Shutdown::Both)?;
    }
    eventually("only the receiver is left", || Ok(counter(&broker, "broker", "connections")? == 1))?;
    receiver.expect_silence();
    Ok(())
}
