//! Topic names and filters.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vespiary_core::fuzzing::topics(bytes));
