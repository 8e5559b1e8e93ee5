//! Reason Strings: what was wrong, in a short sentence, and what to do about it where that helps.
//!
//! A reason code is one byte, and several mean different things in different packets. These sentences are for people
//! who read a client's log; no client is to act on them. They are fixed, so they tell nobody anything about other
//! clients.

use vespiary_core::event::{AcknowledgeStep, ReasonCode};

/// Longest sentence in bytes: an acknowledgement that carries one keeps lengths of one byte.
const LONGEST: usize = 110;

/// What a sentence stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// CONNACK.
    Connect,
    /// PUBACK or PUBREC.
    Publish,
    /// PUBREL or PUBCOMP.
    Release,
    /// SUBACK.
    Subscribe,
    /// UNSUBACK.
    Unsubscribe,
    /// DISCONNECT.
    Connection,
}

impl About {
    /// What an acknowledgement of this kind is about.
    pub(super) fn step(step: AcknowledgeStep) -> Self {
        match step {
            AcknowledgeStep::Puback | AcknowledgeStep::Pubrec => Self::Publish,
            AcknowledgeStep::Pubrel | AcknowledgeStep::Pubcomp => Self::Release,
        }
    }
}

/// The sentence for a reason.
pub(super) fn explain(about: About, reason: ReasonCode) -> &'static str {
    let sentence = match (about, reason) {
        (About::Connect, ReasonCode::QuotaExceeded) => "the broker has no room for one more client; try again later",
        (About::Connect, ReasonCode::NotAuthorized) => "this client may not connect, or not with this will",
        (About::Connect, ReasonCode::PacketTooLarge) => "the answer exceeds the client's Maximum Packet Size; raise it",
        (About::Publish, ReasonCode::QuotaExceeded) => {
            "the message cannot be kept, a bound is reached; send it again later"
        }
        (About::Publish, ReasonCode::NotAuthorized) => "topics that begin with $ are the broker's own; choose another",
        (About::Subscribe, ReasonCode::QuotaExceeded) => "the session has as many subscriptions as it may have",
        (About::Subscribe, ReasonCode::UnspecifiedError) => "the operator denies this topic filter",
        (About::Subscribe, ReasonCode::TopicFilterInvalid) => {
            "the topic filter is malformed: # is the last level, + a whole level, and $share is $share/name/filter"
        }
        (
            About::Connect
            | About::Publish
            | About::Release
            | About::Subscribe
            | About::Unsubscribe
            | About::Connection,
            reason,
        ) => of_any_packet(reason),
    };
    debug_assert!(sentence.len() <= LONGEST);
    sentence
}

/// The sentence for a reason that means the same wherever it stands.
fn of_any_packet(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::Success
        | ReasonCode::GrantedQos1
        | ReasonCode::GrantedQos2
        | ReasonCode::NoMatchingSubscribers
        | ReasonCode::NoSubscriptionExisted => "nothing is wrong",
        ReasonCode::UnspecifiedError => "the broker could not do it",
        ReasonCode::MalformedPacket => "the packet cannot be parsed",
        ReasonCode::ProtocolError => "the packet may not come here, or says what it may not",
        ReasonCode::ImplementationSpecificError => "the packet is valid and not accepted by this broker",
        ReasonCode::UnsupportedProtocolVersion => "this broker speaks MQTT 3.1.1 and 5.0",
        ReasonCode::ClientIdentifierNotValid => {
            "client identifiers that begin with $ are the broker's own; choose another"
        }
        ReasonCode::BadUserNameOrPassword => "the credentials are not right",
        ReasonCode::NotAuthorized => "this client may not do that",
        ReasonCode::ServerUnavailable => "the broker takes no clients at present; try again later",
        ReasonCode::ServerBusy => "the broker is busy; try again later",
        ReasonCode::ServerShuttingDown => "the broker is stopping",
        ReasonCode::BadAuthenticationMethod => "the broker does not offer this authentication method",
        ReasonCode::KeepAliveTimeout => "nothing came for 1.5 times the keep-alive; send PINGREQ",
        ReasonCode::SessionTakenOver => "another connection uses this client identifier",
        ReasonCode::TopicFilterInvalid => "the topic filter is not accepted",
        ReasonCode::TopicNameInvalid => "the topic name has a wildcard, or too many levels",
        ReasonCode::PacketIdentifierInUse => "the packet identifier is in use",
        ReasonCode::PacketIdentifierNotFound => "no exchange under this packet identifier is under way",
        ReasonCode::ReceiveMaximumExceeded => {
            "more unacknowledged QoS 1 and 2 publishes than Receive Maximum in CONNACK"
        }
        ReasonCode::TopicAliasInvalid => "the topic alias is 0 or above Topic Alias Maximum in CONNACK",
        ReasonCode::PacketTooLarge => "a packet exceeds the Maximum Packet Size of whoever was to receive it",
        ReasonCode::QuotaExceeded => "a bound of the broker is reached; try again later",
        ReasonCode::AdministrativeAction => "closed by the operator",
        ReasonCode::PayloadFormatInvalid => "the payload is announced as UTF-8 and is not",
        ReasonCode::UseAnotherServer => "the broker has no room or is stopping; use the server that is named here",
        ReasonCode::SharedSubscriptionsNotSupported => "the broker does not offer shared subscriptions",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_say_what_is_meant_in_their_packet_and_are_short() {
        for (about, reason, expected) in [
            (About::Connect, ReasonCode::QuotaExceeded, "one more client"),
            (About::Publish, ReasonCode::QuotaExceeded, "send it again"),
            (About::Subscribe, ReasonCode::QuotaExceeded, "subscriptions"),
            (About::Publish, ReasonCode::NotAuthorized, "begin with $"),
            (About::Subscribe, ReasonCode::UnspecifiedError, "operator"),
            (About::Connection, ReasonCode::NotAuthorized, "may not"),
            (About::step(AcknowledgeStep::Pubrec), ReasonCode::PayloadFormatInvalid, "UTF-8"),
            (About::step(AcknowledgeStep::Pubcomp), ReasonCode::PacketIdentifierNotFound, "no exchange"),
            (About::Unsubscribe, ReasonCode::UnspecifiedError, "could not"),
            (About::Subscribe, ReasonCode::TopicFilterInvalid, "$share/name/filter"),
        ] {
            let sentence = explain(about, reason);
            assert!(sentence.contains(expected), "{about:?} {reason:?}: {sentence}");
            assert!(sentence.len() <= LONGEST, "{sentence}");
        }
    }
}
