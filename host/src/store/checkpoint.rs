//! Checkpoints: what is in the log is brought into the database, in one transaction for many commits.
//!
//! A thread of its own writes them, so that commits go on meanwhile. There is one at a time. One that fails is given back
//! to the thread that commits, which sees to everything that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use redb::{Durability as RedbDurability, WriteTransaction};
use vespiary_core::event::ChangeNumber;
use vespiary_core::message::Timestamp;

use super::apply::{self, WriteError};
use super::batch::Batch;
use super::database::LiveDatabase;
use super::exchange::Exchange;
use super::failure::Failure;

/// Scratch space that grew beyond this many bytes is given back after use.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;

/// What a checkpoint writes.
#[derive(Debug)]
pub(super) struct Sealed {
    /// The changes, coalesced.
    pub(super) batch: Batch,
    /// The number of the last frame of which there is something in it.
    pub(super) frame: u64,
    /// The number of its last change, if the overlay was sealed there.
    pub(super) last: Option<ChangeNumber>,
}

/// A checkpoint that has ended: what was written, or what was not and why.
pub(super) type Finished = Result<Written, Box<(Sealed, Failure)>>;

/// What a checkpoint that succeeded leaves to be noted.
#[derive(Debug)]
pub(super) struct Written {
    /// The number of the last frame of which there is something in the database.
    pub(super) frame: u64,
    /// Values that expire, as often as they were written.
    pub(super) expiring: usize,
    /// Whether expired state was purged.
    pub(super) purged: bool,
    /// When the first value of state expires that is there now.
    pub(super) next_expiry: Option<Timestamp>,
}

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// Takes one at a time.
    sealed: Option<mpsc::Sender<Sealed>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread.
    pub(super) fn start(exchange: Arc<Exchange>, database: Arc<LiveDatabase>) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Sealed>();
        let thread = thread::Builder::new().name("vespiary-check".to_owned()).spawn(move || {
            let mut scratch = Vec::new();
            for sealed in receiver {
                let last = sealed.last;
                let finished = write(&exchange, &database, sealed, &mut scratch);
                let stored = last.filter(|_| finished.is_ok());
                exchange.finish(finished, stored);
            }
        })?;
        Ok(Self { sealed: Some(sender), thread: Some(thread) })
    }

    /// Has the thread write this. [`Exchange::finish`] tells when it has.
    pub(super) fn begin(&self, sealed: Sealed) {
        if let Some(sender) = &self.sealed {
            // The thread lives as long as the sender, and catches what panics in it.
            let _ = sender.send(sealed);
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.sealed = None;
        if let Some(thread) = self.thread.take() {
            // The thread catches its own panics.
            let _ = thread.join();
        }
    }
}

/// Writes a checkpoint, and lets go of what the overlay has of it.
pub(super) fn write(exchange: &Exchange, database: &LiveDatabase, sealed: Sealed, scratch: &mut Vec<u8>) -> Finished {
    let started = Instant::now();
    // redb may panic on a file that was altered behind its back; those who wait have to hear of it.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let transaction = database.begin_write()?;
        write_batch(transaction, &sealed.batch, sealed.frame, scratch)
    }))
    .map_err(|_| Failure::Final("the database library panicked".into()))
    .and_then(|outcome| outcome.map_err(Failure::from));
    let next_expiry = match outcome {
        Ok(next_expiry) => next_expiry,
        Err(failure) => return Err(Box::new((sealed, failure))),
    };
    if let Some(last) = sealed.last {
        exchange.overlay.drop_sealed(last);
    }
    exchange.count_checkpoint(started.elapsed());
    if scratch.capacity() > SCRATCH_KEPT_BYTES {
        *scratch = Vec::new();
    }
    let Sealed { batch, frame, .. } = sealed;
    Ok(Written { frame, expiring: batch.expiring, purged: batch.purge.is_some(), next_expiry })
}

/// Writes a batch in one durable transaction with the number of its last frame; gives when the first value of state
/// expires.
pub(super) fn write_batch(
    mut transaction: WriteTransaction,
    batch: &Batch,
    frame: u64,
    scratch: &mut Vec<u8>,
) -> Result<Option<Timestamp>, WriteError> {
    transaction.set_durability(RedbDurability::Immediate).map_err(redb::Error::from)?;
    let next_expiry = apply::write(&transaction, batch, frame, scratch)?;
    transaction.commit().map_err(redb::Error::from)?;
    Ok(next_expiry)
}
