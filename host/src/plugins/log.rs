//! A plugin's own log: the last lines that it wrote and that were written about it, kept in memory for the operator.
//!
//! Each line goes to the broker's log too, under the plugin's name. Lines are bounded in length and number; how fast a
//! plugin may write them is bounded by the wasm floor.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use vespiary_core::event::PluginName;

use crate::clock::wall_clock;
use crate::wasm::{LogLevel, LogLine};

/// Lines kept for each plugin.
const LINES: usize = 1_000;

/// The log of one plugin.
#[derive(Debug)]
pub(super) struct PluginLog {
    plugin: PluginName,
    lines: Mutex<VecDeque<Entry>>,
}

/// One line, as the admin API gives it.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// `trace` to `critical`.
    pub level: &'static str,
    /// The text.
    pub message: String,
}

impl PluginLog {
    /// An empty log.
    pub(super) fn new(plugin: PluginName) -> Self {
        Self { plugin, lines: Mutex::default() }
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
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(Entry { at: wall_clock().0, level, message });
    }

    /// Keeps a line about the plugin, from the broker.
    pub(super) fn note(&self, level: LogLevel, message: impl Into<String>) {
        self.write(LogLine { level, message: message.into() });
    }

    /// The last `count` lines, oldest first.
    pub(super) fn tail(&self, count: usize) -> Vec<Entry> {
        let lines = self.lock();
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
