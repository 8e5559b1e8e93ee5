//! Thousands of clients at once, which then all go: nothing of them is left.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use anyhow::{Result, ensure};

use super::{counter, memory};
use crate::conformance::packets::{Connect, DISCONNECT, subscribe};
use crate::harness::{Broker, PATIENCE, eventually};

/// Clients of one wave. All of them are descriptors of this process and of the broker.
const CLIENTS: usize = 3_000;
/// Waves.
const WAVES: usize = 3;

/// Connects everybody, each with a subscription of its own and one that all have.
fn arrive(broker: &Broker) -> Result<Vec<TcpStream>> {
    let mut crowd = Vec::with_capacity(CLIENTS);
    for index in 0..CLIENTS {
        let level = 4 + (index % 2) as u8;
        let mut stream = TcpStream::connect(broker.mqtt)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let own = format!("crowd/{index}");
        let subscriptions = subscribe(level, 1, &[(own.as_str(), 1), ("crowd/all", 0)]);
        stream.write_all(&[Connect::new(level, format!("one-of-{index}")).bytes(), subscriptions].concat())?;
        crowd.push(stream);
    }
    for (index, stream) in crowd.iter_mut().enumerate() {
        let (connack, suback) = (read_packet(stream)?, read_packet(stream)?);
        ensure!(connack[0] == 0x20 && connack[2..4] == [0, 0], "client {index} was refused: {connack:02x?}");
        ensure!(suback[0] == 0x90 && suback.ends_with(&[1, 0]), "client {index} got {suback:02x?}");
    }
    Ok(crowd)
}

/// The next packet, which is a short one.
fn read_packet(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut packet = vec![0; 2];
    stream.read_exact(&mut packet)?;
    packet.resize(2 + usize::from(packet[1]), 0);
    stream.read_exact(&mut packet[2..])?;
    Ok(packet)
}

/// Everybody goes, each in one of three ways: with a word, without, or by shutting its side alone.
fn leave(crowd: Vec<TcpStream>) -> Result<()> {
    let mut open = Vec::new();
    for (index, mut stream) in crowd.into_iter().enumerate() {
        match index % 3 {
            0 => {
                stream.write_all(&DISCONNECT)?;
                open.push(stream);
            }
            1 => drop(stream),
            _ => {
                stream.shutdown(Shutdown::Write)?;
                open.push(stream);
            }
        }
    }
    for mut stream in open {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        ensure!(rest.is_empty(), "a goodbye was answered with {rest:02x?}");
    }
    Ok(())
}

#[test]
fn three_thousand_clients_that_go_leave_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    let empty = memory(&broker, "RssAnon")?;
    let (mut peaks, mut rests) = (Vec::new(), Vec::new());
    for _ in 0..WAVES {
        let crowd = arrive(&broker)?;
        ensure!(counter(&broker, "broker", "connections")? == CLIENTS as u64);
        ensure!(counter(&broker, "broker", "subscriptions")? == 2 * CLIENTS as u64);
        peaks.push(memory(&broker, "VmRSS")?);
        let own_peak = memory(&broker, "RssAnon")?;
        leave(crowd)?;
        for name in ["connections", "sessions", "subscriptions", "inflight_messages", "queued_messages"] {
            eventually(name, || Ok(counter(&broker, "broker", name)? == 0))?;
        }
        // Of its own memory, without the pages of the program that it has come to use.
        let half = empty + (own_peak - empty) / 2;
        eventually("memory goes back to the system", || Ok(memory(&broker, "RssAnon")? <= half))?;
        rests.push(memory(&broker, "VmRSS")?);
    }
    println!("resident with all of them: {peaks:?}; after they went: {rests:?}");
    for sizes in [peaks, rests] {
        for later in &sizes[1..] {
            ensure!(*later <= sizes[0] + sizes[0] / 5, "resident memory grew from wave to wave: {sizes:?}");
        }
    }
    Ok(())
}
