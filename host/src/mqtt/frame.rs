//! Frames: where a packet begins and ends, and the fields inside it, before anybody looks at what they mean.
//!
//! [`next`] hands out a packet only when all of it is there, its fixed header is well-formed and it is within the limit,
//! so whatever decodes it sees exactly its bytes and never those of the packet behind it. That guards the codec of
//! ntex-mqtt, which by itself would read past a frame whose inner lengths lie, reserve what a header claims, and hand
//! out a PUBLISH without its payload. PUBLISH and its acknowledgements, which are nearly all there is, are taken
//! apart here by [`Fields`] and never reach the codec.

use vespiary_core::event::ReasonCode;

/// Most bytes of a fixed header: the type and four bytes of remaining length.
pub(super) const MAX_HEADER_BYTES: usize = 5;

/// Largest remaining length that four bytes can express (section 2.1.4).
pub(super) const MAX_REMAINING_LENGTH: usize = 268_435_455;

/// Packet types (section 2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PacketType {
    Connect,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Pingreq,
    Pingresp,
    Disconnect,
    Auth,
}

/// A whole packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// The type.
    pub(super) packet: PacketType,
    /// The low four bits of the first byte; those that are reserved have been checked.
    pub(super) flags: u8,
    /// What follows the fixed header.
    pub(super) body: &'a [u8],
    /// All of it, fixed header included.
    pub(super) bytes: &'a [u8],
}

/// The first packet in `buffer`, `None` if it is not all there yet. `limit` bounds a packet with its header.
pub(super) fn next(buffer: &[u8], limit: usize) -> Result<Option<Frame<'_>>, ReasonCode> {
    let Some((&first, rest)) = buffer.split_first() else { return Ok(None) };
    let packet = packet_type(first)?;
    let Some((remaining, length_bytes)) = remaining_length(rest)? else { return Ok(None) };
    let header = 1 + length_bytes;
    let total = header + remaining;
    if total > limit {
        return Err(ReasonCode::PacketTooLarge); // [MQTT-3.1.2-24], and our own Maximum Packet Size
    }
    match buffer.get(..total) {
        Some(bytes) => Ok(Some(Frame { packet, flags: first & 0x0F, body: &bytes[header..], bytes })),
        None => Ok(None),
    }
}

/// The type from the first byte of a packet. Reserved flags that are not as they must be make it malformed
/// [MQTT-2.1.3-1] (3.1.1: [MQTT-2.2.2-2]).
fn packet_type(first: u8) -> Result<PacketType, ReasonCode> {
    let flags = first & 0x0F;
    let (packet, expected) = match first >> 4 {
        1 => (PacketType::Connect, 0),
        2 => (PacketType::Connack, 0),
        3 => (PacketType::Publish, flags),
        4 => (PacketType::Puback, 0),
        5 => (PacketType::Pubrec, 0),
        6 => (PacketType::Pubrel, 2),
        7 => (PacketType::Pubcomp, 0),
        8 => (PacketType::Subscribe, 2),
        9 => (PacketType::Suback, 0),
        10 => (PacketType::Unsubscribe, 2),
        11 => (PacketType::Unsuback, 0),
        12 => (PacketType::Pingreq, 0),
        13 => (PacketType::Pingresp, 0),
        14 => (PacketType::Disconnect, 0),
        15 => (PacketType::Auth, 0),
        _ => return Err(ReasonCode::MalformedPacket),
    };
    if flags == expected { Ok(packet) } else { Err(ReasonCode::MalformedPacket) }
}

/// A variable byte integer and the bytes it takes, `None` if it is not all there. It must use as few bytes as its value
/// needs, four at most [MQTT-1.5.5-1].
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, ReasonCode> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let overlong = index > 0 && byte == 0;
            return if overlong { Err(ReasonCode::MalformedPacket) } else { Ok(Some((value, index + 1))) };
        }
    }
    if bytes.len() >= 4 { Err(ReasonCode::MalformedPacket) } else { Ok(None) }
}

/// Reads fields one after the other; each fails as malformed where the bytes end too soon [MQTT-1.5.4-1].
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    /// What has not been read.
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], ReasonCode> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ReasonCode::MalformedPacket)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, ReasonCode> {
        let (&byte, rest) = self.rest.split_first().ok_or(ReasonCode::MalformedPacket)?;
        self.rest = rest;
        Ok(byte)
    }

    pub(super) fn two_bytes(&mut self) -> Result<u16, ReasonCode> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(ReasonCode::MalformedPacket)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    pub(super) fn four_bytes(&mut self) -> Result<u32, ReasonCode> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(ReasonCode::MalformedPacket)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A variable byte integer.
    pub(super) fn variable(&mut self) -> Result<usize, ReasonCode> {
        let (value, length) = remaining_length(self.rest)?.ok_or(ReasonCode::MalformedPacket)?;
        self.rest = &self.rest[length..];
        Ok(value)
    }

    /// Binary data, or the bytes of a string.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], ReasonCode> {
        let length = self.two_bytes()?;
        self.take(usize::from(length))
    }

    /// A UTF-8 string without U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2].
    pub(super) fn string(&mut self) -> Result<&'a str, ReasonCode> {
        text(self.binary()?)
    }

    /// Properties, with the length in front of them.
    pub(super) fn properties(&mut self) -> Result<Fields<'a>, ReasonCode> {
        let length = self.variable()?;
        Ok(Self { rest: self.take(length)? })
    }
}

/// The string that these bytes are, if it is one that MQTT allows [MQTT-1.5.4-1] [MQTT-1.5.4-2].
pub(super) fn text(bytes: &[u8]) -> Result<&str, ReasonCode> {
    if bytes.contains(&0) {
        return Err(ReasonCode::MalformedPacket);
    }
    std::str::from_utf8(bytes).map_err(|_| ReasonCode::MalformedPacket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1024;

    #[test]
    fn frames_are_whole_minimal_and_within_the_limit() {
        let incomplete = Ok(None);
        for (bytes, expected) in [
            (&[][..], incomplete),
            (&[0xC0], incomplete),
            (&[0x30, 0x80], incomplete),
            (&[0x30, 0x05, 0, 1, b'a', b'x'], incomplete),
            (&[0xC0, 0x00], Ok(Some((PacketType::Pingreq, 2)))),
            (&[0xC0, 0x00, 0xC0], Ok(Some((PacketType::Pingreq, 2)))),
            (&[0x3D, 0x02, 0, 0], Ok(Some((PacketType::Publish, 4)))),
            // Remaining length longer than it need be, or than four bytes.
            (&[0xC0, 0x80, 0x00], Err(ReasonCode::MalformedPacket)),
            (&[0x30, 0x85, 0x80, 0x00], Err(ReasonCode::MalformedPacket)),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], Err(ReasonCode::MalformedPacket)),
            (&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], Err(ReasonCode::MalformedPacket)),
            // 256 MB announced by five bytes.
            (&[0x82, 0xFF, 0xFF, 0xFF, 0x7F], Err(ReasonCode::PacketTooLarge)),
            (&[0x30, 0xFF, 0x07], Err(ReasonCode::PacketTooLarge)),
            // Reserved type and reserved flags.
            (&[0x00, 0x00], Err(ReasonCode::MalformedPacket)),
            (&[0xC1, 0x00], Err(ReasonCode::MalformedPacket)),
            (&[0x60, 0x02, 0, 1], Err(ReasonCode::MalformedPacket)),
            (&[0x80], Err(ReasonCode::MalformedPacket)),
        ] {
            let found = next(bytes, LIMIT).map(|frame| frame.map(|frame| (frame.packet, frame.bytes.len())));
            assert_eq!(found, expected, "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_is_exactly_header_and_remaining_length(
            first in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..300), tail in prop::collection::vec(any::<u8>(), 0..9)
        ) {
            let mut bytes = vec![first];
            match body.len() {
                short @ 0..=127 => bytes.push(short as u8),
                long => bytes.extend([(long & 0x7F) as u8 | 0x80, (long >> 7) as u8]),
            }
            bytes.extend_from_slice(&body);
            let whole = bytes.len();
            bytes.extend_from_slice(&tail);
            let reserved = match first >> 4 { 0 => false, 3 => true, 6 | 8 | 10 => first & 0x0F == 2, _ => first & 0x0F == 0 };
            match next(&bytes, LIMIT) {
                Ok(Some(frame)) => {
                    prop_assert!(reserved);
                    prop_assert_eq!(frame.bytes, &bytes[..whole]);
                    prop_assert_eq!(frame.body, &body[..]);
                }
                other => {
                    prop_assert!(!reserved);
                    prop_assert_eq!(other, Err(ReasonCode::MalformedPacket));
                }
            }
            for cut in 0..whole {
                prop_assert!(!matches!(next(&bytes[..cut], LIMIT), Ok(Some(_))));
            }
        }

        #[test]
        fn fields_never_read_past_the_end(bytes in prop::collection::vec(any::<u8>(), 0..40), reads in prop::collection::vec(0..7u8, 0..20)) {
            let mut fields = Fields::new(&bytes);
            for read in reads {
                let _ = match read {
                    0 => fields.byte().map(drop),
                    1 => fields.two_bytes().map(drop),
                    2 => fields.four_bytes().map(drop),
                    3 => fields.variable().map(drop),
                    4 => fields.binary().map(drop),
                    5 => fields.string().map(drop),
                    _ => fields.properties().map(drop),
                };
                prop_assert!(bytes.ends_with(fields.rest()));
            }
        }
    }
}
