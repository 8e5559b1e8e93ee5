//! The functions that are fuzzed: any bytes go in, and what must be true of the answer is asserted.
//!
//! `fuzz/` calls them under `cargo fuzz`, and the tests at the end of each module over the corpus in `fuzz/corpus/`. Not a
//! part of the broker: compiled for tests and with the feature `fuzzing` only.

mod inputs;
mod topics;

pub use inputs::inputs;
pub use topics::topics;
