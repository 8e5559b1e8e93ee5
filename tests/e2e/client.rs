//! A blocking MQTT 3.1.1 client, written by hand and apart from the product's own codec, so that a test controls each
//! packet and sees each one.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// A connected client.
pub(crate) struct Client {
    stream: TcpStream,
    /// Bytes read and not yet understood.
    unread: Vec<u8>,
    /// Whether CONNACK said that a session was there.
    pub session_present: bool,
}

/// A packet from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    /// PUBLISH.
    Publish { topic: String, payload: Vec<u8>, qos: u8, dup: bool, retain: bool, packet_id: u16 },
    /// PUBACK.
    Puback(u16),
    /// PUBREC.
    Pubrec(u16),
    /// PUBREL.
    Pubrel(u16),
    /// PUBCOMP.
    Pubcomp(u16),
    /// SUBACK with its return codes.
    Suback(u16, Vec<u8>),
    /// UNSUBACK.
    Unsuback(u16),
    /// PINGRESP.
    Pingresp,
    /// CONNACK: session present, return code.
    Connack(bool, u8),
}

impl Client {
    /// Connects and waits for a CONNACK that accepts.
    pub(crate) fn connect(address: SocketAddr, client_id: &str, clean: bool) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, unread: Vec::new(), session_present: false };
        let mut body = b"\x00\x04MQTT\x04".to_vec();
        body.extend([if clean { 0x02 } else { 0x00 }, 0, 0]);
        put_string(&mut body, client_id);
        client.send(0x10, &body)?;
        match client.expect()? {
            Packet::Connack(session_present, 0) => client.session_present = session_present,
            other => bail!("instead of an accepting CONNACK: {other:?}"),
        }
        Ok(client)
    }

    /// Subscribes and waits for the SUBACK.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let mut body = vec![0, 1];
        put_string(&mut body, filter);
        body.push(qos);
        self.send(0x82, &body)?;
        let answer = self.expect()?;
        ensure!(answer == Packet::Suback(1, vec![qos]), "instead of SUBACK: {answer:?}");
        Ok(())
    }

    /// Sends a PUBLISH. `packet_id` is left out for QoS 0.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, packet_id: u16, dup: bool) -> Result<()> {
        let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
        put_string(&mut body, topic);
        if qos > 0 {
            body.extend(packet_id.to_be_bytes());
        }
        body.extend_from_slice(payload);
        self.send(0x30 | u8::from(dup) << 3 | qos << 1, &body)
    }

    /// Sends a PUBLISH with QoS 1 and waits for its PUBACK; other packets in between are an error.
    pub(crate) fn publish_acknowledged(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        self.publish(topic, payload, 1, 1, false)?;
        let answer = self.expect()?;
        ensure!(answer == Packet::Puback(1), "instead of PUBACK: {answer:?}");
        Ok(())
    }

    /// Sends PUBACK.
    pub(crate) fn puback(&mut self, packet_id: u16) -> Result<()> {
        self.send(0x40, &packet_id.to_be_bytes())
    }

    /// Sends PUBREC.
    pub(crate) fn pubrec(&mut self, packet_id: u16) -> Result<()> {
        self.send(0x50, &packet_id.to_be_bytes())
    }

    /// Sends PUBREL.
    pub(crate) fn pubrel(&mut self, packet_id: u16) -> Result<()> {
        self.send(0x62, &packet_id.to_be_bytes())
    }

    /// Sends PUBCOMP.
    pub(crate) fn pubcomp(&mut self, packet_id: u16) -> Result<()> {
        self.send(0x70, &packet_id.to_be_bytes())
    }

    /// The next packet, however long it takes within reason.
    pub(crate) fn expect(&mut self) -> Result<Packet> {
        self.receive(super::harness::PATIENCE)?.context("nothing came")
    }

    /// The next packet, or none within `wait`. A closed connection is an error.
    pub(crate) fn receive(&mut self, wait: Duration) -> Result<Option<Packet>> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(packet) = self.take_packet()? {
                return Ok(Some(packet));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            self.stream.set_read_timeout(Some(left.max(Duration::from_micros(100))))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if left.is_zero() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next PUBLISH within `wait`, acknowledged as its QoS asks.
    pub(crate) fn receive_publish(&mut self, wait: Duration) -> Result<Option<(String, Vec<u8>)>> {
        loop {
            match self.receive(wait)? {
                None => return Ok(None),
                Some(Packet::Publish { topic, payload, qos, packet_id, .. }) => {
                    match qos {
                        0 => {}
                        1 => self.puback(packet_id)?,
                        _ => self.pubrec(packet_id)?,
                    }
                    return Ok(Some((topic, payload)));
                }
                Some(Packet::Pubrel(packet_id)) => self.pubcomp(packet_id)?,
                Some(other) => bail!("instead of PUBLISH: {other:?}"),
            }
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    fn send(&mut self, first_byte: u8, body: &[u8]) -> Result<()> {
        let mut packet = vec![first_byte];
        let mut length = body.len();
        loop {
            let low = (length % 128) as u8;
            length /= 128;
            packet.push(if length > 0 { low | 0x80 } else { low });
            if length == 0 {
                break;
            }
        }
        packet.extend_from_slice(body);
        self.send_raw(&packet)
    }

    /// Takes one whole packet from what was read.
    fn take_packet(&mut self) -> Result<Option<Packet>> {
        let (mut length, mut shift, mut at) = (0usize, 0, 1);
        loop {
            let Some(&byte) = self.unread.get(at) else { return Ok(None) };
            length |= usize::from(byte & 0x7F) << shift;
            (shift, at) = (shift + 7, at + 1);
            if byte & 0x80 == 0 {
                break;
            }
            ensure!(shift < 28, "a remaining length of more than four bytes");
        }
        if self.unread.len() < at + length {
            return Ok(None);
        }
        let packet: Vec<u8> = self.unread.drain(..at + length).collect();
        understand(packet[0], &packet[at..]).map(Some)
    }
}

fn understand(first_byte: u8, body: &[u8]) -> Result<Packet> {
    let number = |at: usize| -> Result<u16> {
        let bytes = body.get(at..at + 2).context("a packet that is too short")?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    Ok(match first_byte >> 4 {
        2 => Packet::Connack(body[0] & 1 == 1, body[1]),
        3 => {
            let qos = first_byte >> 1 & 3;
            let topic_end = 2 + usize::from(number(0)?);
            let topic = String::from_utf8(body.get(2..topic_end).context("a topic that is too long")?.to_vec())?;
            let (packet_id, start) = if qos > 0 { (number(topic_end)?, topic_end + 2) } else { (0, topic_end) };
            let (dup, retain) = (first_byte & 8 != 0, first_byte & 1 != 0);
            Packet::Publish { topic, payload: body[start..].to_vec(), qos, dup, retain, packet_id }
        }
        4 => Packet::Puback(number(0)?),
        5 => Packet::Pubrec(number(0)?),
        6 => Packet::Pubrel(number(0)?),
        7 => Packet::Pubcomp(number(0)?),
        9 => Packet::Suback(number(0)?, body[2..].to_vec()),
        11 => Packet::Unsuback(number(0)?),
        13 => Packet::Pingresp,
        other => bail!("a packet of type {other}"),
    })
}

fn put_string(packet: &mut Vec<u8>, text: &str) {
    packet.extend((text.len() as u16).to_be_bytes());
    packet.extend_from_slice(text.as_bytes());
}
