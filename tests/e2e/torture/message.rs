//! A message of the torture test: everything about it follows from its publisher and its number, so that a delivery can
//! be checked byte by byte.

use anyhow::{Context as _, Result, ensure};

use crate::conformance::packets;

/// Whose message it is, and its place among those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number {
    /// Index of the publisher.
    pub(super) publisher: u16,
    /// From 0 as it publishes.
    pub(super) number: u32,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) number: Number,
    pub(super) topic: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

impl Message {
    /// What its publisher sends.
    pub(super) fn packet(&self, level: u8, packet_id: u16, dup: bool) -> Vec<u8> {
        let first_byte = 0x30 | u8::from(dup) << 3 | self.qos << 1 | u8::from(self.retain);
        packets::publish(level, first_byte, &self.topic, packet_id, &payload(&self.topic, self.number))
    }
}

/// The topic, who and which; some are long, so that pages of the store overflow.
fn payload(topic: &str, Number { publisher, number }: Number) -> Vec<u8> {
    let mut text = format!("{topic} {publisher} {number} ").into_bytes();
    let length = text.len() + if number % 41 == 0 { 6_000 } else { number as usize % 7 * 20 };
    text.resize(length, b'a' + (number % 26) as u8);
    text
}

/// The message that a payload is, if it is whole and came to its topic.
pub(super) fn number_in(topic: &str, bytes: &[u8]) -> Result<Number> {
    let mut words = bytes.split(|byte| *byte == b' ').skip(1).map(|word| std::str::from_utf8(word).unwrap_or(""));
    let mut word = || words.next().context("a payload that nobody sent");
    let found = Number { publisher: word()?.parse()?, number: word()?.parse()? };
    ensure!(bytes == payload(topic, found), "a payload that nobody sent to {topic}");
    Ok(found)
}

/// The packet identifier and the message in the body of a QoS 1 or 2 PUBLISH.
pub(super) fn understand(level: u8, body: &[u8]) -> Result<(u16, Number)> {
    let take = |range: std::ops::Range<usize>| body.get(range).context("too short");
    let number = |at: usize| Ok::<_, anyhow::Error>(u16::from_be_bytes(*take(at..at + 2)?.first_chunk().context("2")?));
    let topic_end = 2 + usize::from(number(0)?);
    let topic = std::str::from_utf8(take(2..topic_end)?)?;
    let mut start = topic_end + 2;
    if level == 5 {
        ensure!(take(start..start + 1)? == [0], "properties that nobody sent");
        start += 1;
    }
    Ok((number(topic_end)?, number_in(topic, take(start..body.len())?)?))
}
