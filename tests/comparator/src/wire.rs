//! The few packets of MQTT 3.1.1 that a client with QoS 1 needs, as bytes.

/// A packet from the broker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// CONNACK and its code.
    Connack(u8),
    /// SUBACK: whether every filter is granted at QoS 1.
    Suback { granted: bool },
    /// PUBLISH; without identifier at QoS 0.
    Publish { topic: &'a str, id: Option<[u8; 2]>, payload: &'a [u8] },
    /// PUBACK, PINGRESP.
    Other,
}

/// The first packet in `bytes` and its length, `None` if it is not all there.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Received<'_>, usize)>, &'static str> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, width)) = remaining_length(rest)? else { return Ok(None) };
    let Some(body) = rest.get(width..width + length) else { return Ok(None) };
    let packet = understand(first, body).ok_or("the broker sent a malformed packet")?;
    Ok(Some((packet, 1 + width + length)))
}

fn understand(first: u8, body: &[u8]) -> Option<Received<'_>> {
    Some(match first >> 4 {
        2 => Received::Connack(*body.get(1)?),
        3 => {
            let (length, rest) = body.split_first_chunk()?;
            let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let (id, payload) = match first >> 1 & 3 {
                0 => (None, rest),
                _ => rest.split_first_chunk().map(|(id, payload)| (Some(*id), payload))?,
            };
            Received::Publish { topic: std::str::from_utf8(topic).ok()?, id, payload }
        }
        9 => Received::Suback { granted: body.get(2..)?.iter().all(|code| *code == 1) },
        _ => Received::Other,
    })
}

fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, &'static str> {
    let mut length = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((length, index + 1)));
        }
    }
    if bytes.len() >= 4 { Err("the broker sent a length of more than four bytes") } else { Ok(None) }
}

fn put_head(output: &mut Vec<u8>, first: u8, mut length: usize) {
    output.push(first);
    while length > 0x7f {
        output.push(length as u8 | 0x80);
        length >>= 7;
    }
    output.push(length as u8);
}

fn put_text(output: &mut Vec<u8>, text: &str) {
    output.extend_from_slice(&(text.len() as u16).to_be_bytes());
    output.extend_from_slice(text.as_bytes());
}

/// CONNECT with a session that outlives the connection.
pub(crate) fn put_connect(output: &mut Vec<u8>, client_id: &str, keep_alive_s: u16) {
    put_head(output, 0x10, 10 + 2 + client_id.len());
    put_text(output, "MQTT");
    output.extend_from_slice(&[4, 0]);
    output.extend_from_slice(&keep_alive_s.to_be_bytes());
    put_text(output, client_id);
}

/// SUBSCRIBE at QoS 1.
pub(crate) fn put_subscribe(output: &mut Vec<u8>, filters: &[&str]) {
    put_head(output, 0x82, 2 + filters.iter().map(|filter| 3 + filter.len()).sum::<usize>());
    output.extend_from_slice(&[0, 1]);
    for filter in filters {
        put_text(output, filter);
        output.push(1);
    }
}

/// PUBLISH at QoS 1.
pub(crate) fn put_publish(output: &mut Vec<u8>, id: u16, topic: &str, payload: &[u8]) {
    put_head(output, 0x32, 2 + topic.len() + 2 + payload.len());
    put_text(output, topic);
    output.extend_from_slice(&id.to_be_bytes());
    output.extend_from_slice(payload);
}

/// PUBACK.
pub(crate) fn put_puback(output: &mut Vec<u8>, id: [u8; 2]) {
    output.extend_from_slice(&[0x40, 2, id[0], id[1]]);
}

/// PINGREQ.
pub(crate) fn put_ping(output: &mut Vec<u8>) {
    output.extend_from_slice(&[0xc0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        let payload = [7; 200];
        put_publish(&mut bytes, 513, "a/b", &payload);
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Ok(None));
        }
        bytes.push(0x40);
        let publish = Received::Publish { topic: "a/b", id: Some([2, 1]), payload: &payload };
        assert_eq!(read(&bytes), Ok(Some((publish, bytes.len() - 1))));
        for (bytes, packet) in [
            (&[0x20, 2, 0, 5][..], Received::Connack(5)),
            (&[0x90, 4, 0, 1, 1, 1], Received::Suback { granted: true }),
            (&[0x90, 4, 0, 1, 1, 0x80], Received::Suback { granted: false }),
            (&[0x30, 4, 0, 1, b'a', 9], Received::Publish { topic: "a", id: None, payload: &[9] }),
            (&[0x40, 2, 0, 1], Received::Other),
        ] {
            assert_eq!(read(bytes), Ok(Some((packet, bytes.len()))));
        }
        assert!(read(&[0x30, 1, 0]).is_err());
        assert!(read(&[0x30, 0x80, 0x80, 0x80, 0x80, 1]).is_err());
    }
}
