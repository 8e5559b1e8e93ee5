//! Manifests of plugins.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vespiary::fuzzing::manifest(bytes));
