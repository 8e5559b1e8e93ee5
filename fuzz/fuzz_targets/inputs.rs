//! Sequences of inputs to the broker's core.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vespiary_core::fuzzing::inputs(bytes));
