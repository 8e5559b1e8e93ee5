//! One connection of the generator: reads what is there into a buffer that all share, writes once a turn.
//!
//! Polled by its task, not awaited: a turn is read, react, write, so that packets share system calls as far as the
//! broker's own do.

use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use vespiary_core::Qos;
use vespiary_core::event::Protocol;

use super::wire::{self, Received};
use crate::mqtt::client::Reason;

/// Size of the buffer that sockets are read into.
pub(super) const READ_BYTES: usize = 256 * 1024;

/// Reads in one turn; then others have theirs.
const READS: usize = 4;

/// A connection after CONNACK.
pub(super) struct Socket {
    stream: TcpStream,
    protocol: Protocol,
    /// The beginning of a packet whose rest has not come.
    torn: Vec<u8>,
    /// Staged for the next write.
    pub(super) output: Vec<u8>,
    /// QoS 1 and 2 publishes that the broker takes unacknowledged.
    pub(super) receive_maximum: u16,
}

impl Socket {
    /// Connects and waits for CONNACK.
    pub(super) async fn connect(
        address: &str,
        protocol: Protocol,
        client_id: &str,
        durable: bool,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        let mut socket = Self { stream, protocol, torn: Vec::new(), output: Vec::new(), receive_maximum: u16::MAX };
        match socket.ask(&wire::connect(protocol, client_id, durable)).await? {
            (0x20, 0) => Ok(socket),
            (0x20, code) => bail!("connect to {address}: refused by the broker (0x{code:02x})"),
            (_, _) => bail!("connect to {address}: the broker sent something else than CONNACK"),
        }
    }

    /// Subscribes and waits for SUBACK.
    pub(super) async fn subscribe(&mut self, filter: &str, qos: Qos) -> anyhow::Result<()> {
        let (_, code) = self.ask(&wire::subscribe(self.protocol, filter, qos)).await?;
        ensure!(code == qos as u8, "subscribe to {filter}: {}", Reason(code));
        Ok(())
    }

    /// Sends a packet and waits for the answer: its first byte, and its code. Nothing else is under way yet.
    async fn ask(&mut self, packet: &[u8]) -> anyhow::Result<(u8, u8)> {
        self.stream.write_all(packet).await?;
        let mut answer = Vec::new();
        loop {
            let received = wire::read(&answer, self.protocol);
            if let Some((packet, length)) = received.map_err(|error| anyhow::anyhow!("the broker sent {error}"))? {
                let code = match packet {
                    Received::Connack { code, receive_maximum } => {
                        self.receive_maximum = receive_maximum;
                        code
                    }
                    Received::Suback(code) => code,
                    _ => bail!("the broker sent an unexpected packet"),
                };
                self.torn = answer.split_off(length);
                return Ok((answer[0], code));
            }
            let read = self.stream.read_buf(&mut answer).await?;
            ensure!(read > 0, "closed by the broker");
        }
    }

    /// Reads what is there and hands out each packet, with the output to answer into. Pending means that the task is
    /// woken for more; ready, that there is more at once.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        mut take: impl FnMut(Received<'_>, &mut Vec<u8>),
    ) -> Poll<anyhow::Result<()>> {
        for _ in 0..READS {
            let kept = self.torn.len();
            ensure_ready(kept < buffer.len(), "the broker sent a packet that is too large")?;
            buffer[..kept].copy_from_slice(&self.torn);
            let mut room = ReadBuf::new(&mut buffer[kept..]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut room) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result?,
            }
            let read = room.filled().len();
            ensure_ready(read > 0, "closed by the broker")?;
            let filled = kept + read;
            let mut at = 0;
            loop {
                let next = wire::read(&buffer[at..filled], self.protocol);
                let next = next.map_err(|error| anyhow::anyhow!("the broker sent {error}"))?;
                let Some((packet, length)) = next else { break };
                if let Received::Disconnect(code) = packet {
                    return Poll::Ready(Err(anyhow::anyhow!("closed by the broker: {}", Reason(code))));
                }
                take(packet, &mut self.output);
                at += length;
            }
            self.torn.clear();
            self.torn.extend_from_slice(&buffer[at..filled]);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is staged; pending if not all of it fits, and then the task is woken for the rest.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        let mut written = 0;
        while written < self.output.len() {
            match self.stream.try_write(&self.output[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if self.stream.poll_write_ready(cx)?.is_pending() {
                        self.output.drain(..written);
                        return Poll::Pending;
                    }
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        self.output.clear();
        Poll::Ready(Ok(()))
    }
}

fn ensure_ready(holds: bool, otherwise: &'static str) -> anyhow::Result<()> {
    ensure!(holds, otherwise);
    Ok(())
}
