//! What a client sends on a connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vespiary::fuzzing::connection(bytes));
