//! What guests log and print, on its way to the host's log: one bounded line at a time, and not too many.
//!
//! [`GuestLog`] is shared by the instance's host functions and by its standard output and error. It remembers the
//! last critical line of a call, which is the panic message where the SDK logs it, or else what a panic printed.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::bounded;

/// Takes the lines of an instance. Called on the thread that runs the call; must not block.
pub type LogSink = Arc<dyn Fn(LogLine) + Send + Sync>;

/// A line that a guest logged, or that the host logs about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How grave it is.
    pub level: LogLevel,
    /// The text; one line. Begins with what the guest named as context, or with `stdout` or `stderr` for printed lines.
    pub message: String,
}

/// The levels of `wasi:logging`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Values of variables and the flow of control.
    Trace,
    /// For somebody who debugs the plugin.
    Debug,
    /// For somebody who watches the plugin.
    Info,
    /// A hazard.
    Warn,
    /// A serious error.
    Error,
    /// A fatal error.
    Critical,
}

/// Longest context in bytes.
const CONTEXT_BYTES: usize = 128;
/// Longest panic message kept, in bytes.
const PANIC_BYTES: usize = 1024;
/// The span in which lines are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// Shortest text that is blotted out: a shorter one would be found everywhere, and is no secret.
const SHORTEST_SECRET_BYTES: usize = 4;

/// The log of one instance; cheap to clone.
#[derive(Clone)]
pub(super) struct GuestLog {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Where lines go.
    sink: LogSink,
    /// Lines let through in a window.
    lines_per_s: u32,
    /// Bytes of a line.
    line_bytes: usize,
    /// When the current window began.
    window: Instant,
    /// Lines let through in the current window.
    admitted: u32,
    /// Lines dropped since the last notice.
    dropped: u64,
    /// The last critical line of the current call.
    critical: Option<String>,
    /// What a panic printed to standard error in the current call.
    printed_panic: Option<String>,
    /// The unfinished lines of standard output and standard error.
    partial: [Vec<u8>; 2],
    /// What must not be seen, longest first: texts, and what stands in their place.
    concealed: Vec<(Box<str>, Box<str>)>,
}

/// One of the two streams that a guest can print to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Printed {
    Stdout,
    Stderr,
}

impl GuestLog {
    pub(super) fn new(sink: LogSink, lines_per_s: u32, line_bytes: usize, now: Instant) -> Self {
        let state = State {
            sink,
            lines_per_s,
            line_bytes,
            window: now,
            admitted: 0,
            dropped: 0,
            critical: None,
            printed_panic: None,
            partial: [Vec::new(), Vec::new()],
            concealed: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A line from the guest through `wasi:logging`. Further lines of a text become spaces.
    pub(super) fn logged(&self, now: Instant, level: LogLevel, context: &str, message: &str) {
        let mut state = self.state();
        if level == LogLevel::Critical {
            let text = one_line(&state.blot(message), PANIC_BYTES);
            state.critical = Some(text);
        }
        state.offer(now, level, context, message);
    }

    /// Bytes that the guest printed; whole lines are logged, the rest waits for its end.
    pub(super) fn printed(&self, now: Instant, stream: Printed, bytes: &[u8]) {
        let mut state = self.state();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            // So much more is kept that a secret at the end of the line is whole when it is looked for.
            let max = state.line_bytes + state.concealed.first().map_or(0, |(longest, _)| longest.len());
            let partial = &mut state.partial[stream as usize];
            let room = max.saturating_sub(partial.len()).min(text.len());
            partial.extend_from_slice(&text[..room]);
            if ended {
                state.end_line(now, stream);
            }
        }
    }

    /// From here on, the value of a secret is blotted out of all lines; of several lines, each by itself too.
    pub(super) fn conceal(&self, name: &str, value: &str) {
        let mut state = self.state();
        let mark = format!("[secret {name}]");
        for text in [value].into_iter().chain(value.lines()) {
            let text = text.trim();
            if text.len() >= SHORTEST_SECRET_BYTES && state.concealed.iter().all(|(known, _)| **known != *text) {
                state.concealed.push((text.into(), mark.as_str().into()));
            }
        }
        state.concealed.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    }

    /// A text without secrets.
    pub(super) fn blotted(&self, text: String) -> String {
        let state = self.state();
        if state.concealed.is_empty() { text } else { state.blot(&text).into_owned() }
    }

    /// A line of the host about this instance.
    pub(super) fn host(&self, now: Instant, level: LogLevel, message: &str) {
        self.state().offer(now, level, "", message);
    }

    /// A call begins: what an earlier one said about a panic is forgotten.
    pub(super) fn begin_call(&self) {
        let mut state = self.state();
        state.critical = None;
        state.printed_panic = None;
    }

    /// A call ended: unfinished lines are logged, and lines dropped in windows that are over are reported.
    pub(super) fn end_call(&self, now: Instant) {
        let mut state = self.state();
        for stream in [Printed::Stdout, Printed::Stderr] {
            if !state.partial[stream as usize].is_empty() {
                state.end_line(now, stream);
            }
        }
        state.roll(now);
    }

    /// What the guest said about a panic in this call.
    pub(super) fn panic_message(&self) -> Option<String> {
        let state = self.state();
        state.critical.clone().or_else(|| state.printed_panic.clone())
    }

    /// Reports lines dropped and not reported yet; the instance ends.
    pub(super) fn close(&self) {
        self.state().report_dropped();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end_line(&mut self, now: Instant, stream: Printed) {
        let bytes = std::mem::take(&mut self.partial[stream as usize]);
        let text = String::from_utf8_lossy(&bytes);
        let text = self.blot(text.trim_end()).into_owned();
        let text = text.as_str();
        if text.is_empty() {
            return;
        }
        match stream {
            Printed::Stdout => self.offer(now, LogLevel::Info, "stdout", text),
            Printed::Stderr => {
                self.remember_panic(text);
                self.offer(now, LogLevel::Warn, "stderr", text);
            }
        }
    }

    /// Rust's own panic hook prints `thread ... panicked at PLACE:` and the message on the lines that follow.
    fn remember_panic(&mut self, text: &str) {
        if let Some((_, place)) = text.split_once("panicked at ") {
            self.printed_panic = Some(bounded(place, PANIC_BYTES));
        } else if let Some(panic) = &mut self.printed_panic
            && !text.starts_with("note: ")
            && panic.len() < PANIC_BYTES
        {
            panic.push(' ');
            panic.push_str(&bounded(text, PANIC_BYTES - panic.len()));
        }
    }

    fn offer(&mut self, now: Instant, level: LogLevel, context: &str, message: &str) {
        self.roll(now);
        if self.admitted >= self.lines_per_s {
            self.dropped += 1;
            return;
        }
        self.admitted += 1;
        let mut text = one_line(&self.blot(message), self.line_bytes);
        if !context.is_empty() {
            text = format!("{}: {text}", one_line(&self.blot(context), CONTEXT_BYTES));
        }
        (self.sink)(LogLine { level, message: text });
    }

    /// A text in which nothing is seen that must not be.
    fn blot<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for (concealed, mark) in &self.concealed {
            if text.contains(&**concealed) {
                text = text.replace(&**concealed, mark).into();
            }
        }
        text
    }

    /// Begins a new window where the current one is over.
    fn roll(&mut self, now: Instant) {
        if now.saturating_duration_since(self.window) >= WINDOW {
            self.window = now;
            self.admitted = 0;
            self.report_dropped();
        }
    }

    fn report_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let message = format!("{dropped} log lines were dropped: more than {} in a second", self.lines_per_s);
            (self.sink)(LogLine { level: LogLevel::Warn, message });
        }
    }
}

/// A text without line breaks and other control characters, cut to `max` bytes.
fn one_line(text: &str, max: usize) -> String {
    let text = bounded(text.trim_end(), max);
    if text.contains(char::is_control) { text.replace(char::is_control, " ") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines_per_s: u32, line_bytes: usize) -> (GuestLog, Arc<Mutex<Vec<LogLine>>>, Instant) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let now = Instant::now();
        (GuestLog::new(Arc::new(move |line| sink.lock().unwrap().push(line)), lines_per_s, line_bytes, now), lines, now)
    }

    fn messages(lines: &Mutex<Vec<LogLine>>) -> Vec<String> {
        lines.lock().unwrap().iter().map(|line| line.message.clone()).collect()
    }

    #[test]
    fn excess_lines_are_dropped_and_one_line_says_how_many() {
        let (log, lines, start) = log(2, 100);
        for number in 0..5 {
            log.logged(start, LogLevel::Info, "", &format!("line {number}"));
        }
        log.end_call(start);
        assert_eq!(messages(&lines), ["line 0", "line 1"]);
        log.logged(start + WINDOW, LogLevel::Info, "", "next");
        assert_eq!(messages(&lines)[2..], ["3 log lines were dropped: more than 2 in a second", "next"]);
    }

    #[test]
    fn printed_text_is_cut_into_bounded_lines() {
        let (log, lines, now) = log(100, 8);
        log.printed(now, Printed::Stdout, b"one\ntw");
        log.printed(now, Printed::Stderr, b"error\n\n");
        log.printed(now, Printed::Stdout, b"o\n0123456789\nthe rest");
        log.end_call(now);
        assert_eq!(
            messages(&lines),
            ["stdout: one", "stderr: error", "stdout: two", "stdout: 01234567", "stdout: the rest"]
        );
    }

    #[test]
    fn a_line_is_one_line_and_not_longer_than_the_limit() {
        let (log, lines, now) = log(100, 10);
        log.logged(now, LogLevel::Info, "a\nb", "first\nsecond\u{e9}");
        assert_eq!(messages(&lines), ["a b: first seco..."]);
    }

    #[test]
    fn a_secret_is_blotted_out_of_whatever_is_said() {
        let (log, lines, now) = log(100, 24);
        log.conceal("token", "s3cr3t-value");
        log.conceal("pin", "123");
        log.conceal("key", "-----BEGIN\nabcdef\n-----END\n");
        log.logged(now, LogLevel::Info, "with s3cr3t-value", "a s3cr3t-value, 123");
        log.printed(now, Printed::Stdout, b"it is s3cr3t-value\nabcdef\nand s3cr3");
        log.printed(now, Printed::Stderr, b"panicked at s3cr3t-value\n0123456789012345s3cr3t-value");
        log.printed(now, Printed::Stdout, b"t-value again");
        log.end_call(now);
        let expected = [
            "with [secret token]: a [secret token], 123",
            "stdout: it is [secret token]",
            "stdout: [secret key]",
            "stderr: panicked at [secret toke...",
            "stdout: and [secret token] again",
            "stderr: 0123456789012345[secret ...",
        ];
        assert_eq!(messages(&lines), expected);
        assert_eq!(log.panic_message().as_deref(), Some("[secret token] 0123456789012345[secret token]"));
        assert_eq!(log.blotted("no s3cr3t-value".to_owned()), "no [secret token]");
    }

    #[test]
    fn the_last_critical_line_is_the_panic_message_even_when_it_was_dropped() {
        let (log, _, now) = log(0, 100);
        log.printed(now, Printed::Stderr, b"thread 'main' panicked at src/lib.rs:3:5:\nboom\nnote: run with\n");
        assert_eq!(log.panic_message().as_deref(), Some("src/lib.rs:3:5: boom"));
        log.logged(now, LogLevel::Critical, "", "first");
        log.logged(now, LogLevel::Critical, "", "second");
        assert_eq!(log.panic_message().as_deref(), Some("second"));
        log.begin_call();
        assert_eq!(log.panic_message(), None);
    }
}
