//! Every bound of the broker in one place.
//!
//! What happens at a bound is a named effect or reason code and a counter; nothing in the core grows without one.

/// The bounds that the core enforces. `Default` is what `vespiary serve` uses without a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Clients connected at one time; one more is refused with Quota exceeded (0x97).
    pub connections: usize,
    /// Sessions, connected or not; one more is refused with Quota exceeded (0x97).
    pub sessions: usize,
    /// Subscriptions of one session; one more is refused with Quota exceeded (0x97).
    pub subscriptions_per_session: usize,
    /// Messages waiting in one client's queue, beyond those in flight; further ones are dropped and counted.
    pub queued_messages: usize,
    /// Weight of the messages in one client's queue, in bytes; further ones are dropped and counted.
    pub queued_bytes: usize,
    /// QoS 1 and 2 messages sent to one client and not acknowledged; the client's Receive Maximum lowers it.
    pub inflight_messages: u16,
    /// QoS 1 and 2 messages that a 5.0 client may have unacknowledged towards the broker: our Receive Maximum; one more
    /// closes its connection with Receive Maximum exceeded (0x93). A 3.1.1 client cannot be told, and has at most 65,535.
    pub receive_maximum: u16,
    /// Weight of the publishes handed to a connection and not yet written to its socket, in bytes. At the bound, QoS 1
    /// and 2 wait in the queue; QoS 0 waits too, within the queue's bounds.
    pub unwritten_bytes: usize,
    /// Retained messages; one more is refused with Quota exceeded (0x97).
    pub retained_messages: usize,
    /// Weight of all retained messages, in bytes; beyond it a retained publish is refused with Quota exceeded (0x97).
    pub retained_bytes: usize,
    /// Longest session expiry interval in seconds; a client that asks for more gets this, and is told so (5.0).
    /// `u32::MAX` stands for a session that never expires.
    pub session_expiry_s: u32,
    /// Plugins deployed at one time.
    pub plugins: usize,
    /// Events waiting in one plugin's inbox; beyond it the publish is refused with Quota exceeded (0x97), so that the
    /// publisher keeps it.
    pub inbox_events: usize,
    /// Weight of the events in one plugin's inbox, in bytes; refused beyond it, as above.
    pub inbox_bytes: usize,
    /// Weight of the events handed to a plugin in one batch, in bytes; a batch has at least one event all the same.
    pub batch_bytes: usize,
    /// Dead letters kept for one plugin; beyond it the oldest is dropped and counted.
    pub dead_letters: usize,
}

impl Limits {
    /// Retained messages that are looked up for one subscription: more than window, queue and output can take.
    pub(crate) fn retained_burst(&self) -> usize {
        self.queued_messages.saturating_add(usize::from(self.inflight_messages) + self.unwritten_bytes / 16 + 1)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            sessions: 200_000,
            subscriptions_per_session: 10_000,
            queued_messages: 10_000,
            queued_bytes: 16 << 20,
            inflight_messages: 1024,
            receive_maximum: 1024,
            unwritten_bytes: 1 << 20,
            retained_messages: 1_000_000,
            retained_bytes: 1 << 30,
            session_expiry_s: u32::MAX,
            plugins: 1_000,
            inbox_events: 100_000,
            inbox_bytes: 128 << 20,
            batch_bytes: 1 << 20,
            dead_letters: 10_000,
        }
    }
}
