//! Every bound of the broker in one place.
//!
//! What happens at a bound is a named effect or reason code and a counter; nothing in the core grows without one.

/// Which member of a shared subscription's group gets the next message. Members that can take it at once go before
/// those for whom others wait, and both before those that are away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharedStrategy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The same until it is not ready.
    Sticky,
    /// Any.
    Random,
    /// The one with the fewest messages unacknowledged and waiting.
    LeastInFlight,
}

/// The bounds that the core enforces. `Default` is what `vespiary serve` uses without a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Clients connected at one time; one more is refused with Quota exceeded (0x97).
    pub connections: usize,
    /// Sessions, connected or not; one more is refused with Quota exceeded (0x97).
    pub sessions: usize,
    /// Subscriptions of one session; one more is refused with Quota exceeded (0x97).
    pub subscriptions_per_session: usize,
    /// Messages waiting in the queue of one durable session, beyond those in flight; further ones are dropped and
    /// counted. They are on disk.
    pub queued_messages: usize,
    /// Weight of the messages in the queue of one durable session, in bytes; further ones are dropped and counted.
    pub queued_bytes: usize,
    /// Messages of a connected client's durable queue that are also in memory, at most; the rest is read when they run
    /// low.
    pub window_messages: usize,
    /// Weight of the messages of a durable queue that are also in memory, in bytes; one message at the least.
    pub window_bytes: usize,
    /// Messages waiting for one client in memory alone, because its session is not durable or they have QoS 0; further
    /// ones are dropped and counted.
    pub buffered_messages: usize,
    /// Weight of what waits for one client in memory, in bytes; further messages that are in memory alone are dropped
    /// and counted.
    pub buffered_bytes: usize,
    /// QoS 1 and 2 messages sent to one client and not acknowledged; the client's Receive Maximum lowers it.
    pub inflight_messages: u16,
    /// QoS 1 and 2 messages that a 5.0 client may have unacknowledged towards the broker: our Receive Maximum; one more
    /// closes its connection with Receive Maximum exceeded (0x93). A 3.1.1 client cannot be told, and has at most
    /// 65,535.
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
    /// Timers of one plugin, with its requests that wait for an answer; one more is dropped and counted.
    pub timers: usize,
    /// Events that are kept of a revision on probation; with so many the probation ends, and the revision stays.
    pub probation_events: usize,
    /// Subscribers that a message is given to in the turn in which it is published. Where there are more of them whose
    /// copies are in memory alone, those are served in later turns, so that nobody else waits for them.
    pub fan_out_at_once: usize,
    /// Subscribers that are served in one of these later turns.
    pub fan_out_per_turn: usize,
    /// How the next member of a shared subscription's group is chosen.
    pub shared_strategy: SharedStrategy,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            sessions: 200_000,
            subscriptions_per_session: 10_000,
            queued_messages: 100_000,
            queued_bytes: 256 << 20,
            window_messages: 256,
            window_bytes: 256 << 10,
            buffered_messages: 10_000,
            buffered_bytes: 16 << 20,
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
            timers: 100_000,
            probation_events: 1_000,
            fan_out_at_once: 256,
            fan_out_per_turn: 64,
            shared_strategy: SharedStrategy::RoundRobin,
        }
    }
}
