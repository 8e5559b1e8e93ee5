//! What hooks say when they refuse, as a packet can carry it.
//!
//! A hook gives any reason code that is an error, and words. Which codes may stand where, the specification says; for
//! another, the client is told Not authorized.

use vespiary_core::event::{Protocol, ReasonCode};

/// Longest words that clients are told, in bytes: an acknowledgement keeps lengths of one byte.
const WORDS_BYTES: usize = 110;

/// The reason code of a CONNACK (table 3-1). What 3.1.1 has no return code for is lack of rights there.
pub(super) fn of_connect(code: u8, protocol: Protocol) -> ReasonCode {
    let reason = of_connect_v5(code);
    match (protocol, reason) {
        (
            Protocol::V3,
            ReasonCode::UnspecifiedError
            | ReasonCode::ImplementationSpecificError
            | ReasonCode::BadAuthenticationMethod
            | ReasonCode::TopicNameInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::PayloadFormatInvalid,
        ) => ReasonCode::NotAuthorized,
        (Protocol::V3 | Protocol::V5, reason) => reason,
    }
}

fn of_connect_v5(code: u8) -> ReasonCode {
    nearest(
        code,
        &[
            ReasonCode::UnspecifiedError,
            ReasonCode::ImplementationSpecificError,
            ReasonCode::ClientIdentifierNotValid,
            ReasonCode::BadUserNameOrPassword,
            ReasonCode::ServerUnavailable,
            ReasonCode::ServerBusy,
            ReasonCode::BadAuthenticationMethod,
            ReasonCode::TopicNameInvalid,
            ReasonCode::PacketTooLarge,
            ReasonCode::QuotaExceeded,
            ReasonCode::PayloadFormatInvalid,
            ReasonCode::UseAnotherServer,
        ],
    )
}

/// The reason code of a PUBACK or a PUBREC (tables 3-4 and 3-5).
pub(super) fn of_publish(code: u8) -> ReasonCode {
    nearest(
        code,
        &[
            ReasonCode::UnspecifiedError,
            ReasonCode::ImplementationSpecificError,
            ReasonCode::TopicNameInvalid,
            ReasonCode::QuotaExceeded,
            ReasonCode::PayloadFormatInvalid,
        ],
    )
}

/// The reason code of a SUBACK (table 3-8).
pub(super) fn of_subscribe(code: u8) -> ReasonCode {
    nearest(
        code,
        &[
            ReasonCode::UnspecifiedError,
            ReasonCode::ImplementationSpecificError,
            ReasonCode::TopicFilterInvalid,
            ReasonCode::QuotaExceeded,
            ReasonCode::SharedSubscriptionsNotSupported,
        ],
    )
}

fn nearest(code: u8, possible: &[ReasonCode]) -> ReasonCode {
    possible.iter().copied().find(|reason| *reason as u8 == code).unwrap_or(ReasonCode::NotAuthorized)
}

/// The words as a Reason String; none where there is nothing to say [MQTT-1.5.4-2].
pub(super) fn words(words: &str) -> Option<String> {
    let mut told: String = words.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    while told.len() > WORDS_BYTES {
        told.pop();
    }
    (!told.trim().is_empty()).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_carries_codes_that_it_may_and_words_that_fit() {
        assert_eq!(of_connect(0x86, Protocol::V3), ReasonCode::BadUserNameOrPassword);
        assert_eq!(of_connect(0x90, Protocol::V5), ReasonCode::TopicNameInvalid);
        assert_eq!(of_connect(0x90, Protocol::V3), ReasonCode::NotAuthorized);
        assert_eq!(of_publish(0x86), ReasonCode::NotAuthorized);
        assert_eq!(of_publish(0x99), ReasonCode::PayloadFormatInvalid);
        assert_eq!(of_subscribe(0x8F), ReasonCode::TopicFilterInvalid);
        assert_eq!(of_subscribe(0xFF), ReasonCode::NotAuthorized);
        assert_eq!(words("no\0w").as_deref(), Some("no w"));
        assert_eq!(words(" \n"), None);
        assert_eq!(words(&"ä".repeat(80)).map(|words| words.len()), Some(110));
    }
}
