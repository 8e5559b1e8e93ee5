//! Writing: as much as the socket takes, at once; the rest when the task is woken.
//!
//! A client that does not read is cut here, by how much waits for it or, from the worker's sweep, by how long.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::AsyncWrite;
use vespiary_core::Input;

use super::{Connection, Phase};
use crate::mqtt::outgoing::{Outgoing, WRITE_SLICES};
use crate::mqtt::worker::Worker;

impl Connection {
    /// Writes what may be written. What the socket does not take is written by the task, which is then woken.
    pub(in crate::mqtt) fn flush(self: &Rc<Self>, worker: &Worker) {
        let mut outgoing = self.outgoing.borrow_mut();
        if outgoing.is_empty() {
            return;
        }
        let outcome = self.write(&mut outgoing);
        if let Some(buffer) = outgoing.take_empty() {
            worker.give_back(buffer);
            if self.phase.get() == Phase::Closing {
                self.wake();
            }
        }
        let (unwritten, left) = (outgoing.unwritten(), outgoing.left());
        let is_stalled = outgoing.has_writable();
        drop(outgoing);
        self.report_flushed(worker);
        if outcome.is_err() {
            self.lost(worker);
        } else if unwritten > worker.options.unwritten_bytes {
            self.cut(worker, "more waits for its client than may");
        } else if is_stalled && !self.stalled.replace(true) {
            worker.list_as_stalled(self, left);
        }
    }

    /// Closes at once, since the client does not read.
    pub(in crate::mqtt) fn cut(&self, worker: &Worker, why: &'static str) {
        tracing::info!(
            connection = self.id.0,
            unwritten = self.outgoing.borrow().unwritten(),
            why,
            "cutting a connection"
        );
        worker.options.counters.slow_clients.add();
        self.lost(worker);
    }

    /// How many bytes have left, while the socket does not take all; `None` once it has, or the connection is over.
    pub(in crate::mqtt) fn left_while_stalled(&self) -> Option<u64> {
        let outgoing = self.outgoing.borrow();
        let is_stalled = self.takes_packets() && outgoing.has_writable();
        self.stalled.set(is_stalled);
        is_stalled.then(|| outgoing.left())
    }

    fn write(&self, outgoing: &mut Outgoing) -> io::Result<()> {
        let mut context = Context::from_waker(self.waker.get().unwrap_or(Waker::noop()));
        let mut stream = self.stream.borrow_mut();
        while outgoing.has_writable() {
            let stream = Pin::new(&mut *stream);
            let outcome = if let Some(bytes) = outgoing.writable_alone() {
                stream.poll_write(&mut context, bytes)
            } else {
                let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
                let count = outgoing.writable(&mut slices);
                stream.poll_write_vectored(&mut context, &slices[..count])
            };
            match outcome {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    let weight = outgoing.advance(count);
                    self.flushed_weight.set(self.flushed_weight.get() + weight);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Tells the core how much has left, in portions.
    pub(super) fn report_flushed(&self, worker: &Worker) {
        let bytes = self.flushed_weight.get();
        if bytes >= worker.report_weight() && self.takes_packets() {
            self.flushed_weight.set(0);
            worker.push(Input::Written { connection: self.id, bytes });
        }
    }
}
