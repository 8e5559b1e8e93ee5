//! Reason codes.

/// Reason codes (MQTT 5.0 section 2.4) that the core uses; the connection turns them into what 3.1.1 has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReasonCode {
    /// Success, normal disconnection, granted QoS 0.
    Success = 0x00,
    /// Granted QoS 1.
    GrantedQos1 = 0x01,
    /// Granted QoS 2.
    GrantedQos2 = 0x02,
    /// The message was taken and nobody subscribes to it.
    NoMatchingSubscribers = 0x10,
    /// UNSUBSCRIBE of a filter that was not subscribed to.
    NoSubscriptionExisted = 0x11,
    /// An error for which there is no better code.
    UnspecifiedError = 0x80,
    /// A packet that cannot be parsed.
    MalformedPacket = 0x81,
    /// A packet that comes where it may not, or says what it may not.
    ProtocolError = 0x82,
    /// Valid, and not accepted by this broker.
    ImplementationSpecificError = 0x83,
    /// The protocol version is not spoken here.
    UnsupportedProtocolVersion = 0x84,
    /// The client identifier is not accepted.
    ClientIdentifierNotValid = 0x85,
    /// User name, password or the data of an authentication exchange are not right.
    BadUserNameOrPassword = 0x86,
    /// Not allowed.
    NotAuthorized = 0x87,
    /// The broker does not take connections now.
    ServerUnavailable = 0x88,
    /// The broker is busy; try again later.
    ServerBusy = 0x89,
    /// The broker is stopping.
    ServerShuttingDown = 0x8B,
    /// The authentication method is not offered, or is not the one that was agreed on.
    BadAuthenticationMethod = 0x8C,
    /// Nothing came for 1.5 times the keep-alive.
    KeepAliveTimeout = 0x8D,
    /// Another connection uses the same client identifier.
    SessionTakenOver = 0x8E,
    /// The topic filter is not accepted.
    TopicFilterInvalid = 0x8F,
    /// The topic name is not accepted.
    TopicNameInvalid = 0x90,
    /// The packet identifier is in use.
    PacketIdentifierInUse = 0x91,
    /// The packet identifier is not in use.
    PacketIdentifierNotFound = 0x92,
    /// More publishes in flight than Receive Maximum allows.
    ReceiveMaximumExceeded = 0x93,
    /// A topic alias that is 0, too large or unknown.
    TopicAliasInvalid = 0x94,
    /// A packet larger than Maximum Packet Size.
    PacketTooLarge = 0x95,
    /// A bound of the broker is reached.
    QuotaExceeded = 0x97,
    /// Closed by an operator's action.
    AdministrativeAction = 0x98,
    /// The payload is not of the format announced.
    PayloadFormatInvalid = 0x99,
    /// Another server takes the client for now.
    UseAnotherServer = 0x9C,
    /// Shared subscriptions are not offered.
    SharedSubscriptionsNotSupported = 0x9E,
}

impl ReasonCode {
    /// Whether the code stands for a failure (0x80 and above).
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }
}
