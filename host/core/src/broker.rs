//! The broker: one match, one method per input.
