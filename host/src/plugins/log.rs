//! A plugin's own log: the last lines that it wrote and that were written about it, kept in memory for the operator.
//!
//! Each line goes to the broker's log too, under the plugin's name. Lines are bounded in length and number; how fast a
//! plugin may write them is bounded by the wasm floor.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use vespiary_core::event::PluginName;

use crate::clock::wall_clock;
use crate::wasm::{LogLevel, LogLine};

/// Lines kept for each plugin.
const LINES: usize = 1_000;

/// Lines that somebody who follows may be behind before they are told that they missed some.
const FOLLOWED: usize = 256;

/// The log of one plugin.
#[derive(Debug)]
pub(super) struct PluginLog {
    plugin: PluginName,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    kept: VecDeque<Entry>,
    /// The sequence of the next line.
    next: u64,
    /// Those who follow.
    followers: broadcast::Sender<Entry>,
}

/// One line, as the admin API gives it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Grows from line to line, also over restarts; who followed up to one goes on behind it.
    pub sequence: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// `trace` to `critical`.
    pub level: String,
    /// The text.
    pub message: String,
}

impl PluginLog {
    /// An empty log.
    pub(super) fn new(plugin: PluginName) -> Self {
        // A plugin may not write more than some hundred lines a second, so that a later start is a later sequence.
        let next = wall_clock().0;
        let lines = Lines { kept: VecDeque::new(), next, followers: broadcast::Sender::new(FOLLOWED) };
        Self { plugin, lines: Mutex::new(lines) }
    }

    /// Keeps a line that the plugin wrote and passes it on.
    pub(super) fn write(&self, line: LogLine) {
        let plugin = &*self.plugin.0;
        let message = line.message;
        let level = match line.level {
            LogLevel::Trace => {
                tracing::trace!(plugin, "{message}");
                "trace"
            }
            LogLevel::Debug => {
                tracing::debug!(plugin, "{message}");
                "debug"
            }
            LogLevel::Info => {
                tracing::info!(plugin, "{message}");
                "info"
            }
            LogLevel::Warn => {
                tracing::warn!(plugin, "{message}");
                "warn"
            }
            LogLevel::Error => {
                tracing::error!(plugin, "{message}");
                "error"
            }
            LogLevel::Critical => {
                tracing::error!(plugin, "{message}");
                "critical"
            }
        };
        let mut lines = self.lock();
        let entry = Entry { sequence: lines.next, at: wall_clock().0, level: level.to_owned(), message };
        lines.next += 1;
        if lines.kept.len() == LINES {
            lines.kept.pop_front();
        }
        lines.kept.push_back(entry.clone());
        // An error means that nobody follows.
        let _ = lines.followers.send(entry);
    }

    /// Keeps a line about the plugin, from the broker.
    pub(super) fn note(&self, level: LogLevel, message: impl Into<String>) {
        self.write(LogLine { level, message: message.into() });
    }

    /// The last `count` lines, oldest first.
    pub(super) fn tail(&self, count: usize) -> Vec<Entry> {
        let lines = self.lock();
        lines.kept.iter().skip(lines.kept.len().saturating_sub(count)).cloned().collect()
    }

    /// The lines to come, until the plugin is removed.
    pub(super) fn follow(&self) -> broadcast::Receiver<Entry> {
        self.lock().followers.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
