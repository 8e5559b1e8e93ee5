//! The manifest, put together at compile time from the declaration and from the handlers that it lists.
//!
//! Subscriptions to one filter become one, with the highest QoS of theirs: to the broker they are one.

use crate::plugin::Handler;

/// Length of the manifest between `head`, which ends within the array of subscriptions, and `tail`, which ends that array.
#[doc(hidden)]
pub const fn manifest_length(head: &str, handlers: &[Handler], tail: &str) -> usize {
    let mut writer = Writer::<0> { bytes: [], length: 0 };
    writer.manifest(head, handlers, tail);
    writer.length
}

/// The manifest: JSON, `LENGTH` bytes.
#[doc(hidden)]
pub const fn manifest<const LENGTH: usize>(head: &str, handlers: &[Handler], tail: &str) -> [u8; LENGTH] {
    let mut writer = Writer::<LENGTH> { bytes: [0; LENGTH], length: 0 };
    writer.manifest(head, handlers, tail);
    assert!(writer.length == LENGTH);
    writer.bytes
}

/// Writes to an array as far as there is one, and counts.
struct Writer<const LENGTH: usize> {
    /// What is written.
    bytes: [u8; LENGTH],
    /// How much was written, or would have been.
    length: usize,
}

impl<const LENGTH: usize> Writer<LENGTH> {
    const fn manifest(&mut self, head: &str, handlers: &[Handler], tail: &str) {
        self.text(head);
        let mut index = 0;
        while index < handlers.len() {
            if is_first(handlers, index) {
                if index > 0 {
                    self.text(",");
                }
                self.text("{\"filter\":");
                self.text(handlers[index].filter_json);
                self.text(match highest_qos(handlers, index) {
                    0 => ",\"qos\":0}",
                    1 => ",\"qos\":1}",
                    _ => ",\"qos\":2}",
                });
            }
            index += 1;
        }
        self.text(tail);
    }

    const fn text(&mut self, text: &str) {
        let text = text.as_bytes();
        let mut index = 0;
        while index < text.len() {
            if self.length < LENGTH {
                self.bytes[self.length] = text[index];
            }
            self.length += 1;
            index += 1;
        }
    }
}

/// Whether no handler before this one has the same filter.
const fn is_first(handlers: &[Handler], index: usize) -> bool {
    let mut before = 0;
    while before < index {
        if equal(handlers[before].filter, handlers[index].filter) {
            return false;
        }
        before += 1;
    }
    true
}

const fn highest_qos(handlers: &[Handler], index: usize) -> u8 {
    let mut highest = 0;
    let mut other = 0;
    while other < handlers.len() {
        if handlers[other].qos > highest && equal(handlers[other].filter, handlers[index].filter) {
            highest = handlers[other].qos;
        }
        other += 1;
    }
    highest
}

const fn equal(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}
