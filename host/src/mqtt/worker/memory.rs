//! Memory of a crowd that has gone goes back to the system.
//!
//! The allocator keeps what is freed in the middle of its heap. That is right while connections come and go, and wrong
//! when most of a large number have gone for good.

use super::Worker;

/// Connections of a worker below which their memory is not worth the trouble.
const CROWD: usize = 1_000;

/// Sweeps from when a crowd was seen to go to when its memory is given back: the last of it are then gone, too.
const SWEEPS_TO_GO: u32 = 4;

impl Worker {
    /// A connection has come. A crowd may come and go between two sweeps.
    pub(super) fn count_crowd(&self) {
        self.most_connections.set(self.most_connections.get().max(self.slots.borrow().len()));
    }

    /// Looks, in each sweep, whether most of many connections have gone since memory was last given back.
    pub(super) fn give_back_memory(&self) {
        let (now, most) = (self.slots.borrow().len(), self.most_connections.get());
        if most >= CROWD && now < most / 4 {
            self.most_connections.set(now);
            self.trim_at.set(self.tick.get() + SWEEPS_TO_GO);
        }
        if self.trim_at.get() == self.tick.get() {
            trim();
        }
    }
}

/// Asks the allocator to give back what it does not use. Only glibc's has to be asked.
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function takes the allocator's own locks, and touches nothing but memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
