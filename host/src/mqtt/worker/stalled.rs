//! Connections whose client takes nothing of what waits for it.
//!
//! A socket that does not take all that may leave is listed, and looked at in each sweep. A client that reads, however
//! slowly, is left alone; one that reads nothing for too long is cut, so that what waits for it does not wait for ever.

use std::rc::Rc;

use super::Worker;
use crate::mqtt::connection::Connection;

/// A connection with output that its socket did not take.
#[derive(Debug)]
pub(super) struct Stalled {
    /// The connection.
    connection: Rc<Connection>,
    /// Bytes that had left when some last did.
    left: u64,
    /// The sweep at which that was seen.
    since: u32,
}

impl Worker {
    /// Remembers a connection whose socket did not take all.
    pub(in crate::mqtt) fn list_as_stalled(&self, connection: &Rc<Connection>, left: u64) {
        let (connection, since) = (connection.clone(), self.tick.get());
        self.stalled.borrow_mut().push(Stalled { connection, left, since });
    }

    /// Cuts connections whose clients have taken nothing for too long, and forgets those that wait for nothing.
    pub(super) fn cut_stalled(&self) {
        let (now, patience) = (self.tick.get(), self.ticks(self.options.stalled_timeout_ms));
        let mut too_long = Vec::new();
        self.stalled.borrow_mut().retain_mut(|stalled| {
            let Some(left) = stalled.connection.left_while_stalled() else { return false };
            if left != stalled.left {
                (stalled.left, stalled.since) = (left, now);
            } else if now - stalled.since >= patience {
                too_long.push(stalled.connection.clone());
                return false;
            }
            true
        });
        for connection in too_long {
            connection.cut(self, "its client has taken nothing for too long");
        }
    }
}
