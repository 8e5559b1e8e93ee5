//! Packets as bytes, written by hand and apart from the product's own codec. Nothing is checked here: a test may build
//! what no client should send.

/// Properties of a 5.0 packet (section 2.2.2.2).
pub(crate) mod property {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1C;
    pub(crate) const REASON_STRING: u8 = 0x1F;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];
pub(crate) const PINGRESP: [u8; 2] = [0xD0, 0];
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// A CONNECT under construction: a clean session without keep-alive, unless a method says otherwise.
#[derive(Clone)]
pub(crate) struct Connect {
    pub(crate) level: u8,
    flags: u8,
    keep_alive_s: u16,
    properties: Vec<u8>,
    client_id: Vec<u8>,
    will_properties: Vec<u8>,
    will: Vec<u8>,
    credentials: Vec<u8>,
}

impl Connect {
    pub(crate) fn new(level: u8, client_id: impl AsRef<[u8]>) -> Self {
        Self {
            level,
            flags: 0x02,
            keep_alive_s: 0,
            properties: Vec::new(),
            client_id: client_id.as_ref().to_vec(),
            will_properties: Vec::new(),
            will: Vec::new(),
            credentials: Vec::new(),
        }
    }

    /// A session that goes on, and outlives its connection by an hour or more.
    pub(crate) fn resume(mut self) -> Self {
        self.flags &= !0x02;
        self.expires_after(3600)
    }

    /// 5.0: a session that outlives its connection by this many seconds.
    pub(crate) fn expires_after(self, seconds: u32) -> Self {
        self.property(property::SESSION_EXPIRY, &seconds.to_be_bytes())
    }

    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive_s = seconds;
        self
    }

    pub(crate) fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    pub(crate) fn property(mut self, id: u8, value: &[u8]) -> Self {
        self.properties.push(id);
        self.properties.extend(value);
        self
    }

    pub(crate) fn will(mut self, topic: impl AsRef<[u8]>, payload: &[u8], qos: u8, retain: bool) -> Self {
        self.flags |= 0x04 | qos << 3 | u8::from(retain) << 5;
        self.will = [string(topic), string(payload)].concat();
        self
    }

    pub(crate) fn will_property(mut self, id: u8, value: &[u8]) -> Self {
        self.will_properties.push(id);
        self.will_properties.extend(value);
        self
    }

    pub(crate) fn user_name(mut self, name: &[u8]) -> Self {
        self.flags |= 0x80;
        self.credentials.extend(string(name));
        self
    }

    pub(crate) fn password(mut self, password: &[u8]) -> Self {
        self.flags |= 0x40;
        self.credentials.extend(string(password));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = [&string("MQTT")[..], &[self.level, self.flags], &self.keep_alive_s.to_be_bytes()].concat();
        let is_v5 = self.level == 5;
        if is_v5 {
            body.extend(prefixed(&self.properties));
        }
        body.extend(string(&self.client_id));
        if is_v5 && !self.will.is_empty() {
            body.extend(prefixed(&self.will_properties));
        }
        body.extend(&self.will);
        body.extend(&self.credentials);
        packet(0x10, &body)
    }
}

/// PUBLISH with this first byte; a packet identifier of 0 is left out, and in 3.1.1 so are properties.
pub(crate) fn publish_with(
    level: u8,
    first: u8,
    topic: impl AsRef<[u8]>,
    packet_id: u16,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = string(topic);
    if packet_id > 0 {
        body.extend(packet_id.to_be_bytes());
    }
    if level == 5 {
        body.extend(prefixed(properties));
    }
    body.extend(payload);
    packet(first, &body)
}

/// PUBLISH without properties.
pub(crate) fn publish(level: u8, first: u8, topic: impl AsRef<[u8]>, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    publish_with(level, first, topic, packet_id, &[], payload)
}

/// SUBSCRIBE to filters with their options.
pub(crate) fn subscribe<T: AsRef<[u8]>>(level: u8, packet_id: u16, filters: &[(T, u8)]) -> Vec<u8> {
    subscribe_with(level, packet_id, &[], filters)
}

/// The same with properties, which 3.1.1 does not have.
pub(crate) fn subscribe_with<T: AsRef<[u8]>>(
    level: u8,
    packet_id: u16,
    properties: &[u8],
    filters: &[(T, u8)],
) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if level == 5 {
        body.extend(prefixed(properties));
    }
    for (filter, options) in filters {
        body.extend(string(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE from filters.
pub(crate) fn unsubscribe<T: AsRef<[u8]>>(level: u8, packet_id: u16, filters: &[T]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if level == 5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(string(filter));
    }
    packet(0xA2, &body)
}

/// PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70).
pub(crate) fn acknowledge(first: u8, packet_id: u16) -> Vec<u8> {
    packet(first, &packet_id.to_be_bytes())
}

/// The same with a reason, for 5.0.
pub(crate) fn acknowledge_because(first: u8, packet_id: u16, reason: u8) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    packet(first, &[high, low, reason])
}

/// First byte, remaining length, and the rest.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first], &variable(body.len())[..], body].concat()
}

/// Bytes with a two-byte length before them.
pub(crate) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u16).to_be_bytes(), text].concat()
}

/// A User Property.
pub(crate) fn user_property(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [&[property::USER], &string(name)[..], &string(value)].concat()
}

fn prefixed(properties: &[u8]) -> Vec<u8> {
    [&variable(properties.len())[..], properties].concat()
}

/// A variable byte integer (section 1.5.5).
pub(crate) fn variable(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7F {
        bytes.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
