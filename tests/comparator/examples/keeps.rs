//! The hook of `vespiary bench hooks`: it looks at all of a publish's payload and keeps the publish, so that what is measured is to be
//! asked, not to work.

use vespiary_sdk::prelude::*;

plugin! {
    name: "keeps",
    version: "1.0.0",
    hooks: [kept],
}

/// A payload of nothing but zeroes is refused, so that the payload is looked at. The deadline is long, because a machine under load
/// should make figures worse and not end the measurement.
#[intercept_publish("asked/#", deadline_ms = 5_000)]
fn kept(message: &Message) -> PublishVerdict {
    let sum = message.payload.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    if sum == 0 { PublishVerdict::deny("the payload says nothing") } else { PublishVerdict::Keep }
}
