//! The functions that are fuzzed: any bytes go in, and what must be true of the answer is asserted.
//!
//! `fuzz/` calls them under `cargo fuzz`, and the tests at the end of each module over the corpus in `fuzz/corpus/`. Each
//! stands where it reaches what it looks at. Not a part of the broker: compiled for tests and with the feature
//! `fuzzing` only.

pub use crate::mqtt::fuzzing::connection;
pub use crate::plugins::fuzzing::manifest;
pub use crate::store::fuzzing::{changes, records};
