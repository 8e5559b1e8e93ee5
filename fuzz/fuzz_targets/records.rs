//! Values of the store's tables.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vespiary::fuzzing::records(bytes));
