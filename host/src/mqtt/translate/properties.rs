//! Properties of the packets that a client may send (section 2.2.2.2), but for PUBLISH: which may stand where, of what
//! type, how often, and with which values.
//!
//! [`RULES`] is table 2-4 of the specification with the sections that it refers to. A list is walked before the codec sees
//! it, since the codec has one error for all that may be wrong. An identifier that is unknown or has no place in the
//! packet, or a value that is not of its type, makes the packet malformed (0x81); one that comes twice, or has a value
//! that it may not have, is a protocol error (0x82). PUBLISH, which is most of what comes, reads its own.

use vespiary_core::event::ReasonCode;

use crate::mqtt::frame::Fields;

/// Where a list of properties stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Connect,
    Will,
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Acknowledgement,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
}

/// A property, by its identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Property {
    PayloadFormat = 0x01,
    MessageExpiry = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionIdentifier = 0x0B,
    SessionExpiry = 0x11,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelay = 0x18,
    RequestResponseInformation = 0x19,
    ServerReference = 0x1C,
    ReasonString = 0x1F,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    User = 0x26,
    MaximumPacketSize = 0x27,
}

/// The type of a property.
#[derive(Debug, Clone, Copy)]
enum Type {
    /// A byte of 0 or 1; for another, the packet is refused so.
    Flag(ReasonCode),
    TwoBytes,
    /// Two bytes other than 0.
    TwoBytesAboveZero,
    FourBytes,
    /// Four bytes other than 0.
    FourBytesAboveZero,
    /// A variable byte integer other than 0.
    VariableAboveZero,
    Binary,
    Text,
    /// Two strings: the only type that may come more than once.
    Pairs,
}

/// A value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Of a flag, or an integer of any size.
    Number(u32),
    Binary(&'a [u8]),
    Text(&'a str),
    Pair(&'a str, &'a str),
}

/// One line of the table.
struct Rule {
    property: Property,
    /// What its value is.
    value: Type,
    /// Where it may stand.
    places: &'static [Place],
}

const fn rule(property: Property, value: Type, places: &'static [Place]) -> Rule {
    Rule { property, value, places }
}

/// Table 2-4 as far as clients send it.
const RULES: [Rule; 18] = {
    use Place::{Acknowledgement, Auth, Connect, Disconnect, Subscribe, Unsubscribe, Will};
    use Type::{
        Binary, Flag, FourBytes, FourBytesAboveZero, Pairs, Text, TwoBytes, TwoBytesAboveZero, VariableAboveZero,
    };
    [
        rule(Property::PayloadFormat, Flag(ReasonCode::MalformedPacket), &[Will]),
        rule(Property::MessageExpiry, FourBytes, &[Will]),
        rule(Property::ContentType, Text, &[Will]),
        rule(Property::ResponseTopic, Text, &[Will]),
        rule(Property::CorrelationData, Binary, &[Will]),
        rule(Property::SubscriptionIdentifier, VariableAboveZero, &[Subscribe]),
        rule(Property::SessionExpiry, FourBytes, &[Connect, Disconnect]),
        rule(Property::AuthenticationMethod, Text, &[Connect, Auth]),
        rule(Property::AuthenticationData, Binary, &[Connect, Auth]),
        rule(Property::RequestProblemInformation, Flag(ReasonCode::ProtocolError), &[Connect]),
        rule(Property::WillDelay, FourBytes, &[Will]),
        rule(Property::RequestResponseInformation, Flag(ReasonCode::ProtocolError), &[Connect]),
        // For servers to say; who reads DISCONNECT refuses it.
        rule(Property::ServerReference, Text, &[Disconnect]),
        rule(Property::ReasonString, Text, &[Acknowledgement, Disconnect, Auth]),
        rule(Property::ReceiveMaximum, TwoBytesAboveZero, &[Connect]),
        rule(Property::TopicAliasMaximum, TwoBytes, &[Connect]),
        rule(Property::User, Pairs, &[Connect, Will, Acknowledgement, Subscribe, Unsubscribe, Disconnect, Auth]),
        rule(Property::MaximumPacketSize, FourBytesAboveZero, &[Connect]),
    ]
};

/// A list of properties that is held to the table while it is read. Nothing follows an error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Properties<'a> {
    place: Place,
    /// What has not been read.
    rest: Fields<'a>,
    /// Those that came and may not come again, by identifier.
    seen: u64,
}

impl<'a> Properties<'a> {
    /// The properties that `fields` come to next, with the length before them.
    pub(super) fn next(place: Place, fields: &mut Fields<'a>) -> Result<Self, ReasonCode> {
        Ok(Self { place, rest: fields.properties()?, seen: 0 })
    }

    /// Reads them all for what may be wrong.
    pub(super) fn check(self) -> Result<(), ReasonCode> {
        self.into_iter().try_for_each(|property| property.map(drop))
    }

    fn read(&mut self) -> Result<(Property, Value<'a>), ReasonCode> {
        let identifier = self.rest.byte()?;
        let rule = RULES.iter().find(|rule| rule.property as u8 == identifier && rule.places.contains(&self.place));
        let &Rule { property, value, .. } = rule.ok_or(ReasonCode::MalformedPacket)?;
        let bit = 1 << identifier;
        if self.seen & bit != 0 {
            return Err(ReasonCode::ProtocolError);
        }
        if !matches!(value, Type::Pairs) {
            self.seen |= bit;
        }
        Ok((property, value.read(&mut self.rest)?))
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = Result<(Property, Value<'a>), ReasonCode>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let property = self.read();
        if property.is_err() {
            self.rest = Fields::new(&[]);
        }
        Some(property)
    }
}

impl Type {
    fn read<'a>(self, fields: &mut Fields<'a>) -> Result<Value<'a>, ReasonCode> {
        let value = match self {
            Self::Flag(otherwise) => match fields.byte()? {
                flag @ 0..=1 => Value::Number(flag.into()),
                _ => return Err(otherwise),
            },
            Self::TwoBytes | Self::TwoBytesAboveZero => Value::Number(fields.two_bytes()?.into()),
            Self::FourBytes | Self::FourBytesAboveZero => Value::Number(fields.four_bytes()?),
            Self::VariableAboveZero => Value::Number(fields.variable()? as u32),
            Self::Binary => Value::Binary(fields.binary()?),
            Self::Text => Value::Text(fields.string()?),
            Self::Pairs => Value::Pair(fields.string()?, fields.string()?),
        };
        let is_above_zero =
            matches!(self, Self::TwoBytesAboveZero | Self::FourBytesAboveZero | Self::VariableAboveZero);
        if is_above_zero && value == Value::Number(0) { Err(ReasonCode::ProtocolError) } else { Ok(value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [Place; 7] = [
        Place::Connect,
        Place::Will,
        Place::Acknowledgement,
        Place::Subscribe,
        Place::Unsubscribe,
        Place::Disconnect,
        Place::Auth,
    ];

    /// A good value of every property that there is, and where clients may put it, by the place's first letter.
    const SPECIFIED: [(u8, &[u8], &str); 27] = [
        (0x01, &[1], "W"),
        (0x02, &[0, 0, 0, 0], "W"),
        (0x03, &[0, 1, b't'], "W"),
        (0x08, &[0, 1, b't'], "W"),
        (0x09, &[0, 1, 0], "W"),
        (0x0B, &[0x80, 1], "S"),
        (0x11, &[0, 0, 0, 0], "CD"),
        (0x12, &[0, 1, b'i'], ""),
        (0x13, &[0, 1], ""),
        (0x15, &[0, 1, b'm'], "C-"),
        (0x16, &[0, 1, 0], "C-"),
        (0x17, &[0], "C"),
        (0x18, &[0, 0, 0, 0], "W"),
        (0x19, &[1], "C"),
        (0x1A, &[0, 1, b'i'], ""),
        (0x1C, &[0, 1, b's'], "D"),
        (0x1F, &[0, 1, b'r'], "AD-"),
        (0x21, &[0, 1], "C"),
        (0x22, &[0, 0], "C"),
        (0x23, &[0, 1], ""),
        (0x24, &[1], ""),
        (0x25, &[1], ""),
        (0x26, &[0, 1, b'k', 0, 1, b'v'], "CWASUD-"),
        (0x27, &[0, 0, 0, 1], "C"),
        (0x28, &[1], ""),
        (0x29, &[1], ""),
        (0x2A, &[1], ""),
    ];

    /// AUTH is `-`, since `A` is taken.
    fn letter(place: Place) -> char {
        match place {
            Place::Connect => 'C',
            Place::Will => 'W',
            Place::Acknowledgement => 'A',
            Place::Subscribe => 'S',
            Place::Unsubscribe => 'U',
            Place::Disconnect => 'D',
            Place::Auth => '-',
        }
    }

    fn check(place: Place, list: &[u8]) -> Result<(), ReasonCode> {
        let bytes = [&[list.len() as u8], list].concat();
        Properties::next(place, &mut Fields::new(&bytes)).and_then(Properties::check)
    }

    #[test]
    fn a_property_stands_where_the_specification_has_it_and_once() {
        for place in PLACES {
            for identifier in 0..=0xFF {
                let specified = SPECIFIED.iter().find(|(found, _, _)| *found == identifier);
                let (value, places) = specified.map_or((&[0][..], ""), |(_, value, places)| (*value, *places));
                let once = [&[identifier], value].concat();
                let expected = if places.contains(letter(place)) { Ok(()) } else { Err(ReasonCode::MalformedPacket) };
                assert_eq!(check(place, &once), expected, "{place:?} {once:02x?}");
                if expected.is_ok() {
                    let repeats = if identifier == 0x26 { Ok(()) } else { Err(ReasonCode::ProtocolError) };
                    assert_eq!(check(place, &once.repeat(2)), repeats, "{place:?} {once:02x?} twice");
                    for cut in 1..once.len() {
                        let found = check(place, &once[..cut]);
                        assert_eq!(found, Err(ReasonCode::MalformedPacket), "{place:?} {:02x?}", &once[..cut]);
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_is_of_its_type_and_one_that_it_may_be() {
        use ReasonCode::{MalformedPacket, ProtocolError};
        for (place, list, reason) in [
            (Place::Will, &[0x01, 2][..], MalformedPacket),
            (Place::Will, &[0x03, 0, 1, 0xFF], MalformedPacket),
            (Place::Subscribe, &[0x0B, 0], ProtocolError),
            (Place::Subscribe, &[0x0B, 0x81, 0x00], MalformedPacket),
            (Place::Subscribe, &[0x0B, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], MalformedPacket),
            (Place::Auth, &[0x15, 0, 1, 0], MalformedPacket),
            (Place::Connect, &[0x17, 2], ProtocolError),
            (Place::Connect, &[0x19, 0xFF], ProtocolError),
            (Place::Connect, &[0x21, 0, 0], ProtocolError),
            (Place::Connect, &[0x27, 0, 0, 0, 0], ProtocolError),
            (Place::Unsubscribe, &[0x26, 0, 1, b'k', 0, 1, 0], MalformedPacket),
            (Place::Unsubscribe, &[0x26, 0, 1, 0xFF, 0, 0], MalformedPacket),
        ] {
            assert_eq!(check(place, list), Err(reason), "{place:?} {list:02x?}");
        }
    }

    #[test]
    fn values_are_given_in_order_until_something_is_wrong() {
        let bytes = [12, 0x16, 0, 1, 9, 0x21, 1, 2, 0x21, 0, 1, 0x17, 1];
        let list = Properties::next(Place::Connect, &mut Fields::new(&bytes)).unwrap();
        let found: Vec<_> = list.collect();
        let expected = [
            Ok((Property::AuthenticationData, Value::Binary(&[9]))),
            Ok((Property::ReceiveMaximum, Value::Number(0x102))),
            Err(ReasonCode::ProtocolError),
        ];
        assert_eq!(found, expected);
    }
}
