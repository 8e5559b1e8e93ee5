//! Every bound of the sandbox in one place.
//!
//! What happens at a bound is an error that the guest sees, a [`CallError`](super::CallError) that names the bound, or a
//! counter in a log line; never a panic of the host.

/// The bounds of one component, one instance or one call. `Default` is what `vespiary serve` uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WasmLimits {
    /// Instances alive at one time over all plugins; one more is refused. `None` sizes it from the machine's memory.
    pub instances: Option<u32>,
    /// Bytes of linear memory of one instance; a guest that grows beyond it is refused the growth, and usually traps.
    pub memory_bytes: usize,
    /// Elements of all tables of one instance.
    pub table_elements: usize,
    /// Bytes of stack of a call; beyond it the guest traps. The calling thread needs as much and 512 KiB.
    pub stack_bytes: usize,
    /// Milliseconds that one call may take, also instantiation, `init` and `health`; then it is ended.
    pub call_deadline_ms: u64,
    /// Milliseconds that one call may take of a plugin that may send HTTP requests.
    pub http_call_deadline_ms: u64,
    /// Messages that one call may publish; one more is refused with `quota-exceeded`.
    pub publishes_per_call: usize,
    /// Weight of the messages that one call may publish, and of the timers that it may set, in bytes; refused beyond it, as
    /// above.
    pub publish_bytes_per_call: usize,
    /// Timers that one call may set or cancel, one for each request too; one more is refused with `quota-exceeded`.
    pub timers_per_call: usize,
    /// Bytes of a timer's payload; a longer one is refused with `quota-exceeded`.
    pub timer_payload_bytes: usize,
    /// Clients that one call may disconnect; one more is refused with `quota-exceeded`.
    pub disconnects_per_call: usize,
    /// Measurements that one call may make; further ones are dropped, and the log says so once.
    pub measurements_per_call: u32,
    /// Bytes of keys and values that a plugin's state may hold; a write beyond it is refused with `quota-exceeded`.
    pub state_bytes: u64,
    /// Bytes of one state value; a longer one is refused with `too-large`.
    pub state_value_bytes: usize,
    /// Bytes of keys and values, and 64 for each, that one call may write; refused beyond it with `quota-exceeded`.
    pub write_bytes_per_call: usize,
    /// Bytes of keys and values that one `scan` may give back; refused beyond it with `quota-exceeded`.
    pub state_scan_bytes: usize,
    /// Bytes of the body of an HTTP request or response, to the plugin or from it; what happens beyond it is an error of HTTP.
    pub http_body_bytes: usize,
    /// HTTP requests that one call may send; one more is refused with `connection-limit-reached`.
    pub http_requests_per_call: u32,
    /// Lines that one instance may log in a second; further ones are dropped and counted.
    pub log_lines_per_s: u32,
    /// Bytes of one log line; the rest is cut off.
    pub log_line_bytes: usize,
    /// Bytes of one component; a larger one is refused.
    pub component_bytes: usize,
}

impl Default for WasmLimits {
    fn default() -> Self {
        Self {
            instances: None,
            memory_bytes: 64 << 20,
            table_elements: 10_000,
            stack_bytes: 512 << 10,
            call_deadline_ms: 1_000,
            http_call_deadline_ms: 30_000,
            publishes_per_call: 10_000,
            publish_bytes_per_call: 16 << 20,
            timers_per_call: 1_000,
            timer_payload_bytes: 64 << 10,
            disconnects_per_call: 1_000,
            measurements_per_call: 10_000,
            state_bytes: 1 << 30,
            state_value_bytes: 1 << 20,
            write_bytes_per_call: 16 << 20,
            state_scan_bytes: 4 << 20,
            http_body_bytes: 1 << 20,
            http_requests_per_call: 100,
            log_lines_per_s: 100,
            log_line_bytes: 4 << 10,
            component_bytes: 16 << 20,
        }
    }
}
