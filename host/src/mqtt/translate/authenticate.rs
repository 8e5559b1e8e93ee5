//! AUTH from a client (section 3.15), read straight from its frame: the codec takes properties for optional that are not.

use vespiary_core::event::ReasonCode;

use super::properties::{Place, Properties, Property, Value};
use crate::mqtt::frame::{Fields, Frame};

/// AUTH, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct Auth<'a> {
    /// What the client wants.
    pub(in crate::mqtt) step: AuthStep,
    /// Authentication Method.
    pub(in crate::mqtt) method: &'a str,
    /// Authentication Data.
    pub(in crate::mqtt) data: Option<&'a [u8]>,
}

/// What a client may say with AUTH (table 3-11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum AuthStep {
    /// Continue authentication (0x18).
    Continue,
    /// Re-authenticate (0x19).
    Reauthenticate,
}

/// Understands an AUTH packet.
pub(in crate::mqtt) fn auth(frame: Frame<'_>) -> Result<Auth<'_>, ReasonCode> {
    let mut fields = Fields::new(frame.body);
    // Nothing at all stands for Success, which is for servers to say [MQTT-3.15.2-1].
    let step = match fields.byte().map_err(|_| ReasonCode::ProtocolError)? {
        0x18 => AuthStep::Continue,
        0x19 => AuthStep::Reauthenticate,
        _ => return Err(ReasonCode::ProtocolError),
    };
    let properties = Properties::next(Place::Auth, &mut fields)?;
    if !fields.is_empty() {
        return Err(ReasonCode::MalformedPacket);
    }
    let (mut method, mut data) = (None, None);
    for property in properties {
        match property? {
            (Property::AuthenticationMethod, Value::Text(text)) => method = Some(text),
            (Property::AuthenticationData, Value::Binary(bytes)) => data = Some(bytes),
            _ => {}
        }
    }
    // The method may not be left out (section 3.15.2.2.2).
    Ok(Auth { step, method: method.ok_or(ReasonCode::ProtocolError)?, data })
}
