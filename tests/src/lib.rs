//! End-to-end tests; everything is in `e2e/` and `tidy.rs`, this target is empty.
