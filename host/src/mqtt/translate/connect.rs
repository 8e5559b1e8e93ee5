//! CONNECT (section 3.1): which MQTT a client speaks, and everything that it says about itself.
//!
//! Nothing of CONNECT is kept but what [`Accepted`] holds. Whether user name and password are right is not decided here.

use std::sync::Arc;

use ntex_mqtt::v3;
use vespiary_core::event::{Connect, ConnectionId, Protocol, ReasonCode, Will};
use vespiary_core::message::MessageProperties;
use vespiary_core::{Message, Qos, Timestamp, Topic};

use super::properties::{Place, Properties, Property, Value};
use super::publish::check_payload;
use super::{Inbound, Quota, decode_v3, quality, response_topic, topic_reason, without_nul};
use crate::mqtt::frame::{Fields, Frame, PacketType};

/// What the broker wants of a connection.
#[derive(Debug, Clone, Copy)]
pub(in crate::mqtt) struct ConnectOptions {
    /// Longest keep-alive in seconds; a 5.0 client that asks for more, or for none, is told to use this. `None` for no
    /// bound.
    pub(in crate::mqtt) keep_alive_maximum_s: Option<u16>,
    /// Highest topic alias that a client may set.
    pub(in crate::mqtt) topic_alias_maximum: u16,
}

/// A CONNECT that goes to the core.
#[derive(Debug)]
pub(in crate::mqtt) struct Accepted {
    /// For the core.
    pub(in crate::mqtt) connect: Box<Connect>,
    /// For the packets that follow.
    pub(in crate::mqtt) inbound: Inbound,
    /// Seconds between packets that the client promises; 0 for no promise.
    pub(in crate::mqtt) keep_alive_s: u16,
    /// Server Keep Alive to announce, where it is not what the client asked for.
    pub(in crate::mqtt) server_keep_alive_s: Option<u16>,
    /// For the packets that it gets.
    pub(in crate::mqtt) wishes: Wishes,
    /// How it wants to authenticate; without, by its user name and its password if at all.
    pub(in crate::mqtt) authentication: Option<AuthenticationRequest>,
    /// Its password.
    pub(in crate::mqtt) password: Option<Box<[u8]>>,
}

impl Accepted {
    /// The client is known by this user name.
    pub(in crate::mqtt) fn rename(&mut self, user: Option<Arc<str>>) {
        self.inbound.rename(user.clone());
        if let Some(will) = &mut self.connect.will {
            will.message.user.clone_from(&user);
        }
        self.connect.user = user;
    }
}

/// What a client wants of the packets that it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct Wishes {
    /// Highest topic alias that it takes (section 3.1.2.11.5).
    pub(in crate::mqtt) topic_alias_maximum: u16,
    /// Which packets may have a Reason String, beside CONNACK and DISCONNECT.
    pub(in crate::mqtt) problem_information: ProblemInformation,
    /// Whether it wants Response Information in CONNACK [MQTT-3.1.2-28].
    pub(in crate::mqtt) response_information: bool,
}

/// Request Problem Information (section 3.1.2.11.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum ProblemInformation {
    /// 0: no Reason Strings but in CONNACK and DISCONNECT [MQTT-3.1.2-29].
    Refused,
    /// Not there, which stands for 1. Acknowledgements of single publishes go without all the same: who has not thought
    /// of them may not read more than a reason code there, and a publisher at a bound gets many.
    Unsaid,
    /// 1.
    Wanted,
}

/// How a client wants to authenticate (section 4.12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mqtt) struct AuthenticationRequest {
    /// Authentication Method.
    pub(in crate::mqtt) method: Arc<str>,
    /// User name.
    pub(in crate::mqtt) user_name: Option<Arc<str>>,
    /// Authentication Data.
    pub(in crate::mqtt) data: Option<Box<[u8]>>,
}

/// How a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum Refusal {
    /// Closed without a word.
    Close,
    /// CONNACK.
    Told {
        /// Its form.
        protocol: Protocol,
        /// Why.
        reason: ReasonCode,
        /// Largest packet that the client takes, as far as is known.
        maximum_packet_size: Option<u32>,
    },
}

impl Refusal {
    /// A CONNACK to a client of which nothing but the version is known.
    fn told(protocol: Protocol, reason: ReasonCode) -> Self {
        Self::Told { protocol, reason, maximum_packet_size: None }
    }
}

/// Bits of the connect flags (section 3.1.2.3).
const RESERVED: u8 = 0x01;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

/// Understands the first packet of a connection, which must be CONNECT [MQTT-3.1.0-1]. `fresh_id` makes up an identifier
/// for a client that sends none.
pub(in crate::mqtt) fn connect(
    connection: ConnectionId,
    frame: Frame<'_>,
    now: Timestamp,
    options: ConnectOptions,
    fresh_id: impl FnOnce() -> Arc<str>,
) -> Result<Accepted, Refusal> {
    if frame.packet != PacketType::Connect {
        return Err(Refusal::Close);
    }
    match version(frame.body)? {
        Protocol::V3 => {
            let client = understand_v3(frame, now).map_err(refusal_v3)?;
            Ok(accept(connection, client, options, fresh_id))
        }
        Protocol::V5 => {
            let client = understand_v5(frame, now)?;
            Ok(accept(connection, client, options, fresh_id))
        }
    }
}

/// The version from the protocol name and level (sections 3.1.2.1 and 3.1.2.2).
fn version(body: &[u8]) -> Result<Protocol, Refusal> {
    let mut fields = Fields::new(body);
    let name = fields.binary().map_err(|_| Refusal::Close)?;
    let level = fields.byte().map_err(|_| Refusal::Close)?;
    match (name, level) {
        (b"MQTT", 4) => Ok(Protocol::V3),
        (b"MQTT", 5) => Ok(Protocol::V5),
        // A client of the future understands the 5.0 form [MQTT-3.1.2-2]. A Mosquitto bridge sets the top bit of level
        // 3 or 4, and tries again without it when it is told 0x01.
        (b"MQTT", level) if level > 5 && level & 0x7F > 4 => {
            Err(Refusal::told(Protocol::V5, ReasonCode::UnsupportedProtocolVersion))
        }
        // 3.1.1: [MQTT-3.1.2-2].
        (b"MQTT" | b"MQIsdp", _) => Err(Refusal::told(Protocol::V3, ReasonCode::UnsupportedProtocolVersion)),
        _ => Err(Refusal::Close), // [MQTT-3.1.2-1]
    }
}

/// 3.1.1 has a return code for a refused identifier or lack of rights; what is malformed is closed without a word.
fn refusal_v3(reason: ReasonCode) -> Refusal {
    match reason {
        ReasonCode::ClientIdentifierNotValid | ReasonCode::NotAuthorized => Refusal::told(Protocol::V3, reason),
        _ => Refusal::Close,
    }
}

/// A client as it describes itself, in the words of either protocol.
struct Client {
    /// CONNECT for the core; the identifier may still be empty.
    connect: Box<Connect>,
    /// Keep Alive as it came.
    keep_alive_s: u16,
    /// For the packets that it gets.
    wishes: Wishes,
    /// How it wants to authenticate.
    authentication: Option<AuthenticationRequest>,
    /// Its password.
    password: Option<Box<[u8]>>,
}

fn accept(
    connection: ConnectionId,
    client: Client,
    options: ConnectOptions,
    fresh_id: impl FnOnce() -> Arc<str>,
) -> Accepted {
    let Client { mut connect, keep_alive_s: asked, wishes, authentication, password } = client;
    if connect.client_id.is_empty() {
        connect.client_id = fresh_id(); // [MQTT-3.1.3-6]
        connect.client_id_assigned = true;
        if let Some(will) = &mut connect.will {
            will.message.publisher = connect.client_id.clone();
        }
    }
    let server_keep_alive_s = match options.keep_alive_maximum_s {
        Some(maximum) if connect.protocol == Protocol::V5 && (asked == 0 || asked > maximum) => Some(maximum),
        _ => None,
    };
    let inbound = Inbound {
        connection,
        protocol: connect.protocol,
        client_id: connect.client_id.clone(),
        user: None,
        last_topic: None,
        aliases: None,
        topic_alias_maximum: options.topic_alias_maximum,
        session_outlives_connection: connect.session_expiry_s > 0,
        quota: Quota::default(),
    };
    let keep_alive_s = server_keep_alive_s.unwrap_or(asked);
    let user = connect.user.clone();
    let mut accepted =
        Accepted { connect, inbound, keep_alive_s, server_keep_alive_s, wishes, authentication, password };
    accepted.rename(user);
    accepted
}

fn understand_v3(frame: Frame<'_>, now: Timestamp) -> Result<Client, ReasonCode> {
    check_layout_v3(frame.body)?;
    let v3::codec::Packet::Connect(packet) = decode_v3(frame)? else { return Err(ReasonCode::MalformedPacket) };
    let client_id = client_id(without_nul(&packet.client_id)?)?;
    if let Some(name) = &packet.username {
        without_nul(name)?;
    }
    let will = match &packet.last_will {
        None => None,
        Some(will) => Some(Box::new(Will {
            message: Message {
                topic: will_topic(&will.topic)?,
                payload: will.message[..].into(),
                qos: quality(will.qos),
                retain: will.retain,
                properties: None,
                expires_at: None,
                received_at: now,
                publisher: client_id.clone(),
                user: None,
            },
            expiry_s: None,
            delay_s: 0,
        })),
    };
    let connect = Box::new(Connect {
        protocol: Protocol::V3,
        client_id,
        client_id_assigned: false,
        clean_start: packet.clean_session,
        session_expiry_s: if packet.clean_session { 0 } else { u32::MAX },
        receive_maximum: u16::MAX,
        maximum_packet_size: None,
        will,
        user: packet.username.as_deref().map(Into::into),
        address: "".into(),
    });
    let password = packet.password.as_deref().map(Into::into);
    let wishes = Wishes {
        topic_alias_maximum: 0,
        problem_information: ProblemInformation::Refused,
        response_information: false,
    };
    Ok(Client { connect, keep_alive_s: packet.keep_alive, wishes, authentication: None, password })
}

fn understand_v5(frame: Frame<'_>, now: Timestamp) -> Result<Client, Refusal> {
    let mut announced = Announced::default();
    // What came before a mistake holds for the answer to it, too [MQTT-3.1.2-24].
    read_v5(frame.body, now, &mut announced).map_err(|reason| Refusal::Told {
        protocol: Protocol::V5,
        reason,
        maximum_packet_size: announced.maximum_packet_size,
    })
}

/// Reads a CONNECT of 5.0 from its first byte to its last, and then judges it.
fn read_v5<'a>(body: &'a [u8], now: Timestamp, announced: &mut Announced<'a>) -> Result<Client, ReasonCode> {
    let mut fields = Fields::new(body);
    let (flags, keep_alive_s) = read_flags(&mut fields, Protocol::V5)?;
    announced.read(Properties::next(Place::Connect, &mut fields)?)?;
    let id = fields.string()?;
    let will = if flags & WILL != 0 { Some(WillFields::read(&mut fields)?) } else { None };
    let user_name = if flags & USER_NAME != 0 { Some(fields.string()?) } else { None };
    let password = if flags & PASSWORD != 0 { Some(fields.binary()?.into()) } else { None };
    if !fields.is_empty() {
        return Err(ReasonCode::MalformedPacket);
    }
    let authentication = announced.authentication(user_name)?;
    let client_id = client_id(id)?;
    let will = match will {
        None => None,
        Some(will) => Some(Box::new(will.understand(flags, &client_id, now)?)),
    };
    let connect = Box::new(Connect {
        protocol: Protocol::V5,
        client_id,
        client_id_assigned: false,
        clean_start: flags & CLEAN_START != 0,
        session_expiry_s: announced.session_expiry_s,
        receive_maximum: announced.receive_maximum.unwrap_or(u16::MAX),
        maximum_packet_size: announced.maximum_packet_size,
        will,
        user: user_name.map(Into::into),
        address: "".into(),
    });
    let wishes = Wishes {
        topic_alias_maximum: announced.topic_alias_maximum,
        problem_information: match announced.problem_information {
            None => ProblemInformation::Unsaid,
            Some(false) => ProblemInformation::Refused,
            Some(true) => ProblemInformation::Wanted,
        },
        response_information: announced.response_information,
    };
    Ok(Client { connect, keep_alive_s, wishes, authentication, password })
}

/// What the properties of a CONNECT say (section 3.1.2.11).
#[derive(Debug, Default)]
struct Announced<'a> {
    /// Session Expiry Interval in seconds.
    session_expiry_s: u32,
    /// Receive Maximum.
    receive_maximum: Option<u16>,
    /// Maximum Packet Size in bytes.
    maximum_packet_size: Option<u32>,
    /// Topic Alias Maximum.
    topic_alias_maximum: u16,
    /// Request Problem Information.
    problem_information: Option<bool>,
    /// Request Response Information.
    response_information: bool,
    /// Authentication Method.
    method: Option<&'a str>,
    /// Authentication Data.
    data: Option<&'a [u8]>,
}

impl<'a> Announced<'a> {
    fn read(&mut self, properties: Properties<'a>) -> Result<(), ReasonCode> {
        for property in properties {
            match property? {
                (Property::SessionExpiry, Value::Number(seconds)) => self.session_expiry_s = seconds,
                (Property::ReceiveMaximum, Value::Number(count)) => self.receive_maximum = Some(count as u16),
                (Property::MaximumPacketSize, Value::Number(bytes)) => self.maximum_packet_size = Some(bytes),
                (Property::TopicAliasMaximum, Value::Number(highest)) => self.topic_alias_maximum = highest as u16,
                (Property::RequestProblemInformation, Value::Number(flag)) => {
                    self.problem_information = Some(flag == 1)
                }
                (Property::RequestResponseInformation, Value::Number(flag)) => self.response_information = flag == 1,
                (Property::AuthenticationMethod, Value::Text(name)) => self.method = Some(name),
                (Property::AuthenticationData, Value::Binary(data)) => self.data = Some(data),
                _ => {}
            }
        }
        Ok(())
    }

    /// The method by which a client wants to authenticate. Data without one is a protocol error (section 3.1.2.11.10).
    fn authentication(&self, user_name: Option<&str>) -> Result<Option<AuthenticationRequest>, ReasonCode> {
        match (self.method, self.data) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(ReasonCode::ProtocolError),
            (Some(method), data) => Ok(Some(AuthenticationRequest {
                method: method.into(),
                user_name: user_name.map(Into::into),
                data: data.map(Into::into),
            })),
        }
    }
}

/// A will as it came.
#[derive(Debug, Clone, Copy)]
struct WillFields<'a> {
    /// They have been checked.
    properties: Properties<'a>,
    /// Where it is to be published.
    topic: &'a str,
    /// What it says.
    payload: &'a [u8],
}

impl<'a> WillFields<'a> {
    fn read(fields: &mut Fields<'a>) -> Result<Self, ReasonCode> {
        let properties = Properties::next(Place::Will, fields)?;
        properties.check()?;
        Ok(Self { properties, topic: fields.string()?, payload: fields.binary()? })
    }

    fn understand(self, flags: u8, client_id: &Arc<str>, now: Timestamp) -> Result<Will, ReasonCode> {
        let mut properties = MessageProperties::default();
        let (mut expiry_s, mut delay_s) = (None, 0);
        for property in self.properties {
            match property? {
                (Property::PayloadFormat, Value::Number(flag)) => properties.payload_is_utf8 = Some(flag == 1),
                (Property::MessageExpiry, Value::Number(seconds)) => expiry_s = Some(seconds),
                (Property::WillDelay, Value::Number(seconds)) => delay_s = seconds,
                (Property::ContentType, Value::Text(text)) => properties.content_type = Some(text.into()),
                (Property::ResponseTopic, Value::Text(name)) => properties.response_topic = Some(response_topic(name)?),
                (Property::CorrelationData, Value::Binary(data)) => properties.correlation_data = Some(data.into()),
                (Property::User, Value::Pair(name, value)) => {
                    properties.user_properties.push((name.into(), value.into()));
                }
                _ => {}
            }
        }
        check_payload(&properties, self.payload)?;
        let any = properties != MessageProperties::default();
        let message = Message {
            topic: will_topic(self.topic)?,
            payload: self.payload.into(),
            qos: Qos::from_u8((flags & WILL_QOS) >> 3).ok_or(ReasonCode::MalformedPacket)?,
            retain: flags & WILL_RETAIN != 0,
            properties: any.then(|| Box::new(properties)),
            expires_at: None,
            received_at: now,
            publisher: client_id.clone(),
            user: None,
        };
        Ok(Will { message, expiry_s, delay_s })
    }
}

/// Reads a CONNECT from its protocol name to its keep-alive; gives the flags, which do not contradict each other, and the
/// keep-alive.
fn read_flags(fields: &mut Fields<'_>, protocol: Protocol) -> Result<(u8, u16), ReasonCode> {
    fields.binary()?; // protocol name
    fields.byte()?; // protocol level
    let flags = fields.byte()?;
    let keep_alive_s = fields.two_bytes()?;
    if flags & RESERVED != 0 // [MQTT-3.1.2-3]
        || flags & WILL_QOS == WILL_QOS // [MQTT-3.1.2-12]
        || (flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0) // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
        || (protocol == Protocol::V3 && flags & PASSWORD != 0 && flags & USER_NAME == 0)
    // 3.1.1: [MQTT-3.1.2-22]
    {
        return Err(ReasonCode::MalformedPacket);
    }
    Ok((flags, keep_alive_s))
}

/// Walks a CONNECT of 3.1.1, since the codec neither looks at flags that contradict each other nor at bytes behind the last
/// field.
fn check_layout_v3(body: &[u8]) -> Result<(), ReasonCode> {
    let mut fields = Fields::new(body);
    let (flags, _) = read_flags(&mut fields, Protocol::V3)?;
    fields.binary()?; // client identifier
    if flags & WILL != 0 {
        fields.binary()?; // topic
        fields.binary()?; // payload
    }
    if flags & USER_NAME != 0 {
        fields.binary()?;
    }
    if flags & PASSWORD != 0 {
        fields.binary()?;
    }
    if fields.is_empty() { Ok(()) } else { Err(ReasonCode::MalformedPacket) }
}

/// A client identifier. Those that begin with `$` are the broker's own (`$plugin/NAME`).
fn client_id(id: &str) -> Result<Arc<str>, ReasonCode> {
    if id.starts_with('$') { Err(ReasonCode::ClientIdentifierNotValid) } else { Ok(id.into()) }
}

/// The topic of a will: not one that begins with `$`.
fn will_topic(name: &str) -> Result<Topic, ReasonCode> {
    let topic = Topic::parse(name).map_err(topic_reason)?;
    if topic.is_reserved() { Err(ReasonCode::NotAuthorized) } else { Ok(topic) }
}
