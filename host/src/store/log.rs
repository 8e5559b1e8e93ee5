//! placeholder
#![cfg_attr(not(test), expect(dead_code, reason = "nothing writes a log yet"))]
pub(super) mod record;
