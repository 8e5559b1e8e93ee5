//! What of a worker waits for the store: output that rests on changes not yet durable, and reading while the store is
//! behind.
//!
//! While commits fail nothing waits: whoever would is sent away, and the others are read and served on.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::Worker;
use crate::mqtt::connection::Connection;
use crate::store::Durability;

impl Worker {
    /// Lets go what has become durable; ends with the reason when the store fails.
    pub(super) async fn release(self: Rc<Self>) -> Arc<str> {
        let mut watch = self.driver.store().watch();
        loop {
            let durability = watch.borrow_and_update().clone();
            match durability {
                Durability::Failed(reason) => return reason,
                Durability::Failing(_) => {
                    self.send_the_held_away();
                    // The broker hears of it in a turn.
                    self.driver.wake(self.index).notify_one();
                }
                Durability::UpTo(durable) => {
                    if self.failing.replace(false) {
                        self.driver.wake(self.index).notify_one();
                    }
                    self.durable.set(durable.max(self.durable.get()));
                    for connection in self.held.take() {
                        connection.held.set(false);
                        connection.release(self.durable.get());
                        connection.flush(&self);
                        self.list_if_held(&connection);
                    }
                    self.resume();
                }
            }
            if watch.changed().await.is_err() {
                return "the store is closed".into();
            }
        }
    }

    /// Commits fail: closes the connections that wait for one, now and from now on. The others are served on, whatever
    /// the store is behind with: nothing more is added to that.
    pub(super) fn send_the_held_away(&self) {
        self.failing.set(true);
        for connection in self.held.take() {
            connection.held.set(false);
            connection.send_away(self);
        }
        self.read_again();
    }

    /// Remembers that a connection has output that waits, or sends it away where nobody knows for how long.
    pub(super) fn list_if_held(&self, connection: &Rc<Connection>) {
        if !connection.outgoing.borrow().is_held() {
            return;
        }
        // It may be over already, which this worker is about to hear.
        if self.failing.get() && self.driver.store().is_failing() {
            connection.send_away(self);
        } else if !connection.held.replace(true) {
            self.held.borrow_mut().push(connection.clone());
        }
    }

    /// Stops reading where the store is far behind.
    pub(super) fn pause_if_behind(&self) {
        if !self.failing.get() && self.driver.store().backlog_bytes() > self.options.store_backlog_bytes {
            self.paused.borrow_mut().get_or_insert_default();
        }
    }

    /// Whether nothing may be read for now; the task is then woken when that is over.
    pub(in crate::mqtt) fn pauses(&self, context: &Context<'_>) -> bool {
        match &mut *self.paused.borrow_mut() {
            None => false,
            Some(waiting) => {
                waiting.push(context.waker().clone());
                true
            }
        }
    }

    fn resume(&self) {
        let is_behind = self.driver.store().backlog_bytes() > self.options.store_backlog_bytes / 2;
        if !is_behind {
            self.read_again();
        }
    }

    fn read_again(&self) {
        if let Some(waiting) = self.paused.take() {
            waiting.iter().for_each(Waker::wake_by_ref);
        }
    }
}
