//! End-to-end tests of the shipped binary: real sockets, files, components, signals and other people's clients.
//!
//! One test binary. Each test has a broker of its own on free ports and a data directory of its own.

mod client;
mod harness;
mod ledger;
mod tools;

mod admin;
mod benchmarks;
mod command_line;
mod conformance;
mod dev;
mod disk;
mod durability;
mod hardening;
mod hot_swap;
mod interop;
mod languages;
mod large_queues;
mod platform;
mod sandbox;
mod sandboxed_tests;
mod signing;
mod swaps;
mod torture;
