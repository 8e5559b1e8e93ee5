//! Parts of frames that many connections share: written from where they are, instead of being copied to each.

use std::collections::VecDeque;
use std::rc::Rc;

/// A part of a shared frame, among the bytes of a connection.
#[derive(Debug)]
struct Link {
    /// How many of the connection's own bytes are before it.
    at: usize,
    /// The frame.
    frame: Rc<[u8]>,
    /// Where in the frame the part begins that has not left.
    start: usize,
}

/// The linked parts of a connection's output, in order.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// The parts.
    queue: VecDeque<Link>,
    /// Bytes of them that have not left.
    waiting: usize,
    /// Bytes of them that have left since the connection was made.
    left: u64,
}

impl Links {
    /// Appends the part of a frame that begins at `start`, behind `at` bytes of the connection's own.
    pub(super) fn push(&mut self, at: usize, frame: Rc<[u8]>, start: usize) {
        self.waiting += frame.len() - start;
        self.queue.push_back(Link { at, frame, start });
    }

    /// Whether all have left.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that have not left.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes that have left.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The parts, each with the number of own bytes before it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.queue.iter().map(|link| (link.at, &link.frame[link.start..]))
    }

    /// Own bytes before the first part.
    pub(super) fn first_at(&self) -> Option<usize> {
        self.queue.front().map(|link| link.at)
    }

    /// Notes that up to `count` bytes of the first part have left; gives how many that were.
    pub(super) fn advance(&mut self, count: usize) -> usize {
        let Some(link) = self.queue.front_mut() else { return 0 };
        let taken = count.min(link.frame.len() - link.start);
        link.start += taken;
        self.waiting -= taken;
        self.left += taken as u64;
        if link.start == link.frame.len() {
            self.queue.pop_front();
        }
        taken
    }

    /// `count` own bytes in front, all before the first part, are not counted any more.
    pub(super) fn move_up(&mut self, count: usize) {
        self.queue.iter_mut().for_each(|link| link.at -= count);
    }
}
