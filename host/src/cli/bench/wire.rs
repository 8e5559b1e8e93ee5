//! The few packets that the generator needs, written and read by hand: it must cost less than the broker it measures.
//!
//! Trusts its own packets and checks the broker's as far as their lengths go. Not a codec: unknown packets are skipped.

use vespiary_core::Qos;
use vespiary_core::event::Protocol;

/// Bytes at the front of each payload: publisher, sequence number, time.
pub(super) const STAMP_BYTES: usize = 16;

/// The front of a payload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stamp {
    /// Who published.
    pub(super) publisher: u32,
    /// Counts this publisher's messages from 1.
    pub(super) sequence: u32,
    /// When it was due, in nanoseconds since the start.
    pub(super) due_ns: u64,
}

impl Stamp {
    pub(super) fn write(self, payload: &mut [u8]) {
        payload[..4].copy_from_slice(&self.publisher.to_le_bytes());
        payload[4..8].copy_from_slice(&self.sequence.to_le_bytes());
        payload[8..16].copy_from_slice(&self.due_ns.to_le_bytes());
    }

    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (publisher, rest) = payload.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (due_ns, _) = rest.split_first_chunk()?;
        Some(Self {
            publisher: u32::from_le_bytes(*publisher),
            sequence: u32::from_le_bytes(*sequence),
            due_ns: u64::from_le_bytes(*due_ns),
        })
    }
}

/// A packet from the broker.
#[derive(Debug, PartialEq)]
pub(super) enum Received<'a> {
    /// CONNACK with its code, and how many publishes the broker takes unacknowledged (5.0).
    Connack { code: u8, receive_maximum: u16 },
    /// SUBACK with the first filter's code.
    Suback(u8),
    /// PUBLISH.
    Publish { qos: u8, id: [u8; 2], payload: &'a [u8] },
    /// PUBACK or PUBCOMP.
    Complete { id: [u8; 2], refused: bool },
    /// PUBREC.
    Pubrec { id: [u8; 2], refused: bool },
    /// PUBREL.
    Pubrel { id: [u8; 2] },
    /// DISCONNECT with its code.
    Disconnect(u8),
    /// Anything else.
    Other,
}

/// The first packet in `bytes` and its length; `None` if it is not all there, an error if it is none.
pub(super) fn read(bytes: &[u8], protocol: Protocol) -> Result<Option<(Received<'_>, usize)>, &'static str> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, width)) = variable_length(rest)? else { return Ok(None) };
    let Some(body) = rest.get(width..width + length) else { return Ok(None) };
    let packet = understand(first, body, protocol).ok_or("a packet that is too short")?;
    Ok(Some((packet, 1 + width + length)))
}

fn understand(first: u8, body: &[u8], protocol: Protocol) -> Option<Received<'_>> {
    let id = || body.first_chunk::<2>().copied();
    // 5.0 leaves the reason out when it is success.
    let refused = || body.get(2).is_some_and(|reason| *reason >= 0x80);
    Some(match first >> 4 {
        2 => {
            let receive_maximum = match protocol {
                Protocol::V3 => None,
                Protocol::V5 => receive_maximum(body.get(2..)?),
            };
            Received::Connack { code: *body.get(1)?, receive_maximum: receive_maximum.unwrap_or(u16::MAX) }
        }
        3 => {
            let qos = first >> 1 & 3;
            let (topic_length, rest) = body.split_first_chunk()?;
            let rest = rest.get(usize::from(u16::from_be_bytes(*topic_length))..)?;
            let (id, rest) =
                if qos > 0 { rest.split_first_chunk().map(|(id, rest)| (*id, rest))? } else { ([0; 2], rest) };
            let payload = match protocol {
                Protocol::V3 => rest,
                Protocol::V5 => without_properties(rest)?,
            };
            Received::Publish { qos, id, payload }
        }
        4 | 7 => Received::Complete { id: id()?, refused: refused() },
        5 => Received::Pubrec { id: id()?, refused: refused() },
        6 => Received::Pubrel { id: id()? },
        9 => {
            let codes = body.get(2..)?;
            Received::Suback(
                *match protocol {
                    Protocol::V3 => codes,
                    Protocol::V5 => without_properties(codes)?,
                }
                .first()?,
            )
        }
        14 => Received::Disconnect(body.first().copied().unwrap_or(0)),
        _ => Received::Other,
    })
}

/// The Receive Maximum among the properties of a CONNACK (section 3.2.2.3), if it is there.
fn receive_maximum(bytes: &[u8]) -> Option<u16> {
    let (length, width) = variable_length(bytes).ok()??;
    let mut rest = bytes.get(width..width + length)?;
    loop {
        let (&property, value) = rest.split_first()?;
        let text = |value: &[u8]| Some(2 + usize::from(u16::from_be_bytes(*value.first_chunk()?)));
        let taken = match property {
            0x21 => return value.first_chunk().map(|maximum| u16::from_be_bytes(*maximum)),
            0x11 | 0x27 => 4,
            0x13 | 0x22 => 2,
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => text(value)?,
            0x26 => {
                let name = text(value)?;
                name + text(value.get(name..)?)?
            }
            _ => return None,
        };
        rest = value.get(taken..)?;
    }
}

fn without_properties(bytes: &[u8]) -> Option<&[u8]> {
    let (length, width) = variable_length(bytes).ok()??;
    bytes.get(width + length..)
}

fn variable_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, &'static str> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 { Err("a packet whose length has more than four bytes") } else { Ok(None) }
}

fn put_variable_length(output: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        output.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

fn put_text(output: &mut Vec<u8>, text: &str) {
    output.extend_from_slice(&(text.len() as u16).to_be_bytes());
    output.extend_from_slice(text.as_bytes());
}

/// CONNECT, with a keep-alive far longer than the generator is ever silent. The session begins anew, and is durable or
/// ends with the connection.
pub(super) fn connect(protocol: Protocol, client_id: &str, durable: bool) -> Vec<u8> {
    let properties: &[u8] = match protocol {
        Protocol::V3 => &[],
        Protocol::V5 if durable => &[5, 0x11, 0, 0, 0x0E, 0x10], // Session Expiry Interval: an hour
        Protocol::V5 => &[0],
    };
    let clean = if protocol == Protocol::V3 && durable { 0 } else { 0x02 };
    let mut output = vec![0x10];
    put_variable_length(&mut output, 10 + properties.len() + 2 + client_id.len());
    put_text(&mut output, "MQTT");
    output.extend_from_slice(&[if protocol == Protocol::V5 { 5 } else { 4 }, clean]);
    output.extend_from_slice(&3600_u16.to_be_bytes());
    output.extend_from_slice(properties);
    put_text(&mut output, client_id);
    output
}

/// SUBSCRIBE to one filter, under identifier 1.
pub(super) fn subscribe(protocol: Protocol, filter: &str, qos: Qos) -> Vec<u8> {
    let mut output = vec![0x82];
    let v5 = protocol == Protocol::V5;
    put_variable_length(&mut output, 2 + usize::from(v5) + 2 + filter.len() + 1);
    output.extend_from_slice(&[0, 1]);
    if v5 {
        output.push(0);
    }
    put_text(&mut output, filter);
    output.push(qos as u8);
    output
}

/// The beginning of a PUBLISH, up to its packet identifier.
pub(super) fn publish_prefix(protocol: Protocol, topic: &str, qos: Qos, payload_bytes: usize) -> Vec<u8> {
    let mut output = vec![0x30 | (qos as u8) << 1];
    let id = if qos == Qos::AtMostOnce { 0 } else { 2 };
    let properties = usize::from(protocol == Protocol::V5);
    put_variable_length(&mut output, 2 + topic.len() + id + properties + payload_bytes);
    put_text(&mut output, topic);
    output
}

/// What stands between a [prefix](publish_prefix) and the payload.
pub(super) fn put_publish_middle(output: &mut Vec<u8>, protocol: Protocol, qos: Qos, packet_id: u16) {
    if qos != Qos::AtMostOnce {
        output.extend_from_slice(&packet_id.to_be_bytes());
    }
    if protocol == Protocol::V5 {
        output.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_are_read_whole_or_not_at_all() {
        for protocol in [Protocol::V3, Protocol::V5] {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let stamp = Stamp { publisher: 7, sequence: 9, due_ns: u64::MAX };
                let mut payload = [0; 200];
                stamp.write(&mut payload);
                let mut bytes = publish_prefix(protocol, "bench/x", qos, payload.len());
                put_publish_middle(&mut bytes, protocol, qos, 513);
                bytes.extend_from_slice(&payload);
                for cut in 0..bytes.len() {
                    assert_eq!(read(&bytes[..cut], protocol), Ok(None));
                }
                bytes.push(0xd0);
                let (packet, length) = read(&bytes, protocol).unwrap().unwrap();
                let id = if qos == Qos::AtMostOnce { [0, 0] } else { [2, 1] };
                assert_eq!(packet, Received::Publish { qos: qos as u8, id, payload: &payload });
                assert_eq!((length, Stamp::read(&payload)), (bytes.len() - 1, Some(stamp)));
            }
        }
        for (properties, receive_maximum) in [
            (&[0][..], u16::MAX),
            (&[3, 0x21, 0, 20], 20),
            (&[11, 0x26, 0, 1, b'a', 0, 0, 0x24, 1, 0x21, 1, 0], 256),
            (&[4, 0x26, 0, 9, b'a'], u16::MAX),
        ] {
            let bytes = [&[0x20, 2 + properties.len() as u8, 0, 0], properties].concat();
            let expected = Received::Connack { code: 0, receive_maximum };
            assert_eq!(read(&bytes, Protocol::V5), Ok(Some((expected, bytes.len()))));
        }
        assert_eq!(read(&[0x90, 3, 0, 1, 0x80], Protocol::V3), Ok(Some((Received::Suback(0x80), 5))));
        assert_eq!(read(&[0x90, 4, 0, 1, 0, 1], Protocol::V5), Ok(Some((Received::Suback(1), 6))));
        assert_eq!(
            read(&[0x40, 3, 0, 1, 0x97], Protocol::V5),
            Ok(Some((Received::Complete { id: [0, 1], refused: true }, 5)))
        );
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_past_their_end(bytes in prop::collection::vec(any::<u8>(), 0..64), v5 in any::<bool>()) {
            let protocol = if v5 { Protocol::V5 } else { Protocol::V3 };
            if let Ok(Some((_, length))) = read(&bytes, protocol) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
