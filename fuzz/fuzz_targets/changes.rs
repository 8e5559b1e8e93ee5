//! Changes in the store's log.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vespiary::fuzzing::changes(bytes));
