//! What can be had from an external service by hand: one thread, one blocking socket, packets read and written in bulk.
//!
//! A turn: one read takes whatever has come, all of it is handled, one commit, and one write carries alerts and
//! acknowledgements, in this order. So system calls and commits are shared by all events of a turn, and nothing crosses a
//! thread. Nobody writes services like this; it is here as the upper bound. It promises what [`group`](crate::group) does,
//! but ends when the connection breaks and leaves the restart to its supervisor.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::service::{CLIENT_ID, FILTERS, Service};
use crate::wire::{self, Received};

/// What is read at once, at most; also the largest packet.
const READ_BYTES: usize = 512 << 10;

/// Seconds after which the broker may take a silent client for dead.
const KEEP_ALIVE_S: u16 = 60;

/// Runs until the connection or the store fails. Prints `ready` when the subscriptions stand.
pub fn run(broker: SocketAddr, mut service: Service) -> anyhow::Result<()> {
    let mut socket = TcpStream::connect(broker).with_context(|| format!("cannot connect to {broker}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(u64::from(KEEP_ALIVE_S) / 2)))?;
    let mut output = Vec::new();
    wire::put_connect(&mut output, CLIENT_ID, KEEP_ALIVE_S);
    socket.write_all(&output)?;
    let mut input = vec![0; READ_BYTES];
    let mut filled = 0;
    let mut packet_id = 0_u16;
    let (mut messages, mut acknowledgements) = (Vec::new(), Vec::new());
    loop {
        ensure!(filled < input.len(), "the broker sent a packet of more than {READ_BYTES} bytes");
        output.clear();
        match socket.read(&mut input[filled..]) {
            Ok(0) => bail!("closed by the broker"),
            Ok(read) => filled += read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                wire::put_ping(&mut output)
            }
            Err(error) => return Err(error).context("cannot read from the broker"),
        }
        let mut at = 0;
        while let Some((packet, length)) = wire::read(&input[at..filled]).map_err(anyhow::Error::msg)? {
            match packet {
                Received::Connack(0) => wire::put_subscribe(&mut output, &FILTERS),
                Received::Connack(code) => bail!("refused by the broker with code {code}"),
                Received::Suback { granted: true } => println!("ready"),
                Received::Suback { granted: false } => bail!("the broker refuses a subscription"),
                Received::Publish { topic, id, payload } => {
                    service.handle(topic, payload, &mut messages)?;
                    if let Some(id) = id {
                        wire::put_puback(&mut acknowledgements, id);
                    }
                }
                Received::Other => {}
            }
            at += length;
        }
        input.copy_within(at..filled, 0);
        filled -= at;
        service.commit()?;
        for message in messages.drain(..) {
            packet_id = packet_id.checked_add(1).unwrap_or(1);
            wire::put_publish(&mut output, packet_id, &message.topic, &message.payload);
        }
        output.append(&mut acknowledgements);
        if !output.is_empty() {
            socket.write_all(&output).context("cannot write to the broker")?;
        }
    }
}
