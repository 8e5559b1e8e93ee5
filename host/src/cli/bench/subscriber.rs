//! A connection that subscribes: acknowledges, measures, and keeps account of what it got.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::args::{Content, Plan};
use super::socket::Socket;
use super::traffic::{Progress, Traffic};
use super::wire::{Received, Stamp};

/// A subscriber.
pub(super) struct Subscriber {
    /// Its number.
    index: usize,
    socket: Socket,
    traffic: Rc<RefCell<Traffic>>,
}

/// What one subscriber got, by publisher.
pub(super) struct Ledger {
    /// Number of the publisher of the first account.
    first: usize,
    accounts: Vec<Account>,
}

/// What one subscriber got of one publisher.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Account {
    /// Different messages.
    pub(super) unique: u64,
    /// Messages that had come before.
    pub(super) duplicated: u64,
    /// Messages that came after a later one.
    pub(super) reordered: u64,
    /// The highest sequence number.
    highest: u32,
    /// Which of the 64 numbers up to the highest came, the highest in the lowest bit.
    recent: u64,
}

impl Subscriber {
    pub(super) fn new(index: usize, socket: Socket, traffic: Rc<RefCell<Traffic>>) -> Self {
        Self { index, socket, traffic }
    }

    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// One turn: read, account, write. Ends only with an error.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        let shared = Rc::clone(&self.traffic);
        let traffic = &mut *shared.borrow_mut();
        let mut buffer = std::mem::take(&mut traffic.buffer);
        // One look at the clock for all that came together.
        let now_ns = traffic.now_ns();
        let index = self.index;
        let read = self.socket.poll_read(cx, &mut buffer, |packet, output| match packet {
            Received::Publish { qos, id, payload } => {
                match qos {
                    0 => {}
                    1 => output.extend_from_slice(&[0x40, 2, id[0], id[1]]),
                    _ => output.extend_from_slice(&[0x50, 2, id[0], id[1]]),
                }
                traffic.took(index, payload, now_ns);
            }
            Received::Pubrel { id } => output.extend_from_slice(&[0x70, 2, id[0], id[1]]),
            _ => {}
        });
        traffic.buffer = buffer;
        let more_to_read = read?.is_ready();
        let _ = self.socket.poll_write(cx)?;
        if more_to_read {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Traffic {
    fn took(&mut self, subscriber: usize, payload: &[u8], now_ns: u64) {
        self.tally.received += 1;
        match &self.plan.content {
            Content::Stamped { .. } => {
                let Some(stamp) = Stamp::read(payload) else { return };
                let Some(account) = self.ledgers[subscriber].account(stamp.publisher) else { return };
                account.take(stamp.sequence);
                if self.recording {
                    self.latency.record(now_ns.saturating_sub(stamp.due_ns));
                }
                let publisher = stamp.publisher as usize;
                self.progress[publisher].delivered += 1;
                self.made_room(publisher);
            }
            Content::Readings(_) => {
                if let Some(due_ns) = self.alerts.take(payload).filter(|_| self.recording) {
                    self.handling.record(now_ns.saturating_sub(due_ns));
                }
                self.made_room_for_all();
            }
        }
    }
}

impl Ledger {
    /// The account book of one subscriber: of one publisher where each has its own, else of all.
    pub(super) fn new(plan: &Plan, subscriber: usize) -> Self {
        match &plan.content {
            Content::Stamped { .. } if plan.scenario == "p2p" => {
                Self { first: subscriber, accounts: vec![Account::default()] }
            }
            Content::Stamped { .. } => Self { first: 0, accounts: vec![Account::default(); plan.publishers] },
            Content::Readings(_) => Self { first: 0, accounts: Vec::new() },
        }
    }

    pub(super) fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Whether everything that was sent has come.
    pub(super) fn has_all_of(&self, progress: &[Progress]) -> bool {
        let sent = progress[self.first..].iter().map(|progress| progress.sent);
        self.accounts.iter().zip(sent).all(|(account, sent)| account.unique >= sent)
    }

    fn account(&mut self, publisher: u32) -> Option<&mut Account> {
        self.accounts.get_mut((publisher as usize).checked_sub(self.first)?)
    }
}

impl Account {
    /// A message came. A number that is more than 64 behind the highest counts as a duplicate.
    fn take(&mut self, sequence: u32) {
        if sequence > self.highest {
            let step = sequence - self.highest;
            self.recent = self.recent.checked_shl(step).unwrap_or(0) | 1;
            self.highest = sequence;
            self.unique += 1;
            return;
        }
        let behind = self.highest - sequence;
        let bit = 1_u64.checked_shl(behind).unwrap_or(0);
        if bit == 0 || self.recent & bit != 0 {
            self.duplicated += 1;
        } else {
            self.recent |= bit;
            self.unique += 1;
            self.reordered += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_tell_losses_duplicates_and_reordering_apart() {
        for (sequences, unique, duplicated, reordered) in [
            (&[1, 2, 3][..], 3, 0, 0),
            (&[1, 3, 4], 3, 0, 0),
            (&[1, 3, 2], 3, 0, 1),
            (&[1, 2, 2, 1], 2, 2, 0),
            (&[1, 3, 2, 2, 3], 3, 2, 1),
            (&[1, 100, 2], 2, 1, 0),
            (&[64, 1], 2, 0, 1),
            (&[65, 2, 1], 2, 1, 1),
        ] {
            let mut account = Account::default();
            sequences.iter().for_each(|sequence| account.take(*sequence));
            let found = (account.unique, account.duplicated, account.reordered);
            assert_eq!(found, (unique, duplicated, reordered), "{sequences:?}");
        }
    }
}
