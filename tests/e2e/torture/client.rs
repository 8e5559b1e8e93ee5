//! A client that follows the protocol to the letter, keeps its session over any number of connections, checks what it
//! is sent and logs it.
//!
//! It never waits: [`Client::turn`] does what can be done now. Whatever the broker may not send is an error at once;
//! what only the whole run can tell is left to `verdict`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::message::{Message, Number, understand};
use crate::conformance::packets::{self, Connect, property};

/// Publishes unacknowledged at a time.
const WINDOW: usize = 24;
/// Publishes sent in one turn, at most.
const PUBLISHES_PER_TURN: usize = 4;

/// What a client is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Role {
    /// Its client identifier.
    pub(crate) name: &'static str,
    /// 4 for MQTT 3.1.1, 5 for 5.0.
    pub(crate) level: u8,
    /// Filters with their maximum QoS, subscribed to as long as the session is new.
    pub(crate) filters: &'static [(&'static str, u8)],
    /// 5.0: publishes it takes at a time.
    pub(crate) receive_maximum: u16,
    /// Seconds that its session outlives its connection; `None`: for longer than the test lasts.
    pub(crate) expiry_s: Option<u32>,
    /// Time between two acknowledgements of one that is slow.
    pub(crate) pause: Duration,
    /// Rounds of ten in which it is away.
    pub(crate) away: u32,
}

/// A client with its session.
pub(crate) struct Client {
    pub(crate) role: Role,
    link: Option<Link>,
    /// How often it connected.
    connections: u32,
    /// Whether the broker has promised to keep this session with its subscriptions.
    kept: bool,
    /// When its last connection ended on which it was let in.
    left: Option<Instant>,
    /// Since when a broker that runs, or ran, knows this; none if it died with the connection.
    missed: Option<Instant>,
    /// Whether it acknowledges without pauses, whatever its role says.
    pub(crate) hurried: bool,
    /// Sessions that ended while it was away.
    pub(crate) ended_sessions: usize,
    /// QoS 1 and 2 publishes that are not completed, in the order in which they were sent first.
    outgoing: VecDeque<Outgoing>,
    last_packet_id: u16,
    /// QoS 2 deliveries that were not released, with what they carry.
    received: BTreeMap<u16, Number>,
    /// Messages it has sent; a message's number is its place.
    pub(crate) sent: Vec<Message>,
    /// Numbers of its messages for which it has the broker's word: PUBACK or PUBREC.
    pub(crate) acknowledged: BTreeSet<u32>,
    /// Everything that it was given, each QoS 2 delivery once, in order.
    pub(crate) deliveries: Vec<Delivery>,
}

/// A message that was given to a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    pub(crate) number: Number,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    /// The client's connection on which it came, from 1.
    pub(crate) connection: u32,
}

struct Outgoing {
    packet_id: u16,
    number: u32,
    qos: u8,
    /// Whether PUBREC has come.
    released: bool,
}

/// A connection with what is under way on it.
struct Link {
    stream: TcpStream,
    /// Bytes read and not yet understood.
    unread: Vec<u8>,
    /// Bytes that the socket did not take yet.
    unsent: Vec<u8>,
    /// When CONNECT was made.
    begun: Instant,
    /// Whether CONNACK has come.
    established: bool,
    /// Acknowledgements to be sent, in order; with the identifier that each of them gives back to the broker.
    owed: VecDeque<(Vec<u8>, Option<u16>)>,
    /// When the last of these was sent.
    paid: Instant,
    /// Identifiers of deliveries that are not completed, and whether their PUBLISH came on this connection: only these
    /// count towards the Receive Maximum [MQTT-4.9.0-2].
    open: BTreeMap<u16, bool>,
}

impl Client {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            link: None,
            connections: 0,
            kept: false,
            left: None,
            missed: None,
            hurried: false,
            ended_sessions: 0,
            outgoing: VecDeque::new(),
            last_packet_id: 0,
            received: BTreeMap::new(),
            sent: Vec::new(),
            acknowledged: BTreeSet::new(),
            deliveries: Vec::new(),
        }
    }

    /// Connects and asks for its session; the answer comes in a later turn.
    pub(crate) fn connect(&mut self, broker: SocketAddr) -> Result<()> {
        let stream = TcpStream::connect(broker)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut connect = Connect::new(self.role.level, self.role.name).resume();
        if self.role.level == 5 {
            let expiry_s = self.role.expiry_s.unwrap_or(u32::MAX).to_be_bytes();
            let receive_maximum = self.role.receive_maximum.to_be_bytes();
            connect = Connect::new(5, self.role.name)
                .flags(0)
                .property(property::SESSION_EXPIRY, &expiry_s)
                .property(property::RECEIVE_MAXIMUM, &receive_maximum);
        }
        self.connections += 1;
        self.link = Some(Link {
            stream,
            unread: Vec::new(),
            unsent: connect.bytes(),
            begun: Instant::now(),
            established: false,
            owed: VecDeque::new(),
            paid: Instant::now(),
            open: BTreeMap::new(),
        });
        Ok(())
    }

    /// Does what can be done now; tells whether there was anything. A connection that ends is an error.
    pub(crate) fn turn(&mut self) -> Result<bool> {
        let name = self.role.name;
        self.advance().with_context(|| format!("client {name}"))
    }

    fn advance(&mut self) -> Result<bool> {
        let Some(link) = &mut self.link else { return Ok(false) };
        let (came, ended) = link.read();
        let worked = self.understand_all()?;
        ensure!(!ended, "the broker closed the connection");
        self.pay();
        let link = self.link.as_mut().context("the link was there")?;
        let sent = link.write()?;
        Ok(came || worked || sent)
    }

    /// The broker is dead, and began to die then: takes what it had sent before, and gives up the connection.
    pub(crate) fn bury(&mut self, died: Instant) -> Result<()> {
        if let Some(link) = &mut self.link {
            link.read();
            self.understand_all().with_context(|| format!("client {}, after the kill", self.role.name))?;
            self.leave(died);
            self.missed = None;
        }
        Ok(())
    }

    /// Gives up the connection as it is.
    pub(crate) fn cut(&mut self) {
        self.leave(Instant::now());
    }

    fn leave(&mut self, at: Instant) {
        if let Some(link) = self.link.take() {
            // Who was not let in may have been away all the time.
            self.left = if link.established { Some(at) } else { self.left };
            self.missed = Some(at);
        }
    }

    /// A broker runs that sees that the client is not there.
    pub(crate) fn is_missed(&mut self) {
        self.missed.get_or_insert_with(Instant::now);
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Whether it has its session and its subscriptions.
    pub(crate) fn is_ready(&self) -> bool {
        self.kept && self.link.as_ref().is_some_and(|link| link.established)
    }

    /// Whether all that it published is completed, and all that it was given acknowledged.
    pub(crate) fn is_done(&self) -> bool {
        let nothing_open = |link: &Link| link.owed.is_empty() && link.open.is_empty() && link.unsent.is_empty();
        self.is_ready() && self.outgoing.is_empty() && self.link.as_ref().is_some_and(nothing_open)
    }

    /// Publishes some messages, as far as the window allows.
    pub(crate) fn publish(&mut self, mut next: impl FnMut(u32) -> Message) {
        for _ in 0..PUBLISHES_PER_TURN {
            if !self.is_ready() || self.outgoing.len() >= WINDOW {
                return;
            }
            let number = self.sent.len() as u32;
            let message = next(number);
            let packet_id = self.free_packet_id();
            self.outgoing.push_back(Outgoing { packet_id, number, qos: message.qos, released: false });
            self.send(message.packet(self.role.level, packet_id, false));
            self.sent.push(message);
        }
    }

    fn free_packet_id(&mut self) -> u16 {
        loop {
            // A small range, so that identifiers are soon used again.
            self.last_packet_id = self.last_packet_id % (2 * WINDOW as u16) + 1;
            if self.outgoing.iter().all(|outgoing| outgoing.packet_id != self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }

    fn send(&mut self, packet: Vec<u8>) {
        if let Some(link) = &mut self.link {
            link.unsent.extend(packet);
        }
    }

    /// Sends what it owes, as fast as it is.
    fn pay(&mut self) {
        let pause = if self.hurried { Duration::ZERO } else { self.role.pause };
        let Some(link) = &mut self.link else { return };
        while link.paid.elapsed() >= pause
            && let Some((packet, completed)) = link.owed.pop_front()
        {
            link.unsent.extend(packet);
            link.paid = Instant::now();
            if let Some(packet_id) = completed {
                link.open.remove(&packet_id);
            }
        }
    }

    fn owe(&mut self, first_byte: u8, packet_id: u16, completes: bool) {
        if let Some(link) = &mut self.link {
            let packet = packets::acknowledge(first_byte, packet_id);
            link.owed.push_back((packet, completes.then_some(packet_id)));
        }
    }

    fn understand_all(&mut self) -> Result<bool> {
        let mut worked = false;
        while let Some((first_byte, body)) = self.link.as_mut().map(Link::take_packet).transpose()?.flatten() {
            worked = true;
            let begin = &body[..body.len().min(24)];
            self.take(first_byte, &body).with_context(|| format!("{first_byte:02x}, then {begin:02x?}"))?;
        }
        Ok(worked)
    }

    fn take(&mut self, first_byte: u8, body: &[u8]) -> Result<()> {
        let established = self.link.as_ref().is_some_and(|link| link.established);
        ensure!(established == (first_byte != 0x20), "CONNACK comes first, and once");
        let number = || -> Result<u16> { Ok(u16::from_be_bytes(*body.first_chunk().context("too short")?)) };
        // A reason code is left out where it is Success, and 3.1.1 has none.
        let reason = body.get(2).copied().unwrap_or(0);
        match first_byte {
            0x20 => self.connected(body),
            0x40 => self.puback(number()?, reason),
            0x50 => self.pubrec(number()?, reason),
            0x62 => self.pubrel(number()?),
            0x70 => self.pubcomp(number()?, reason),
            0x90 => self.subscribed(body),
            0x30..=0x3F => self.delivered(first_byte, body),
            // Server shutting down; what follows is the end of the connection.
            0xE0 if self.role.level == 5 && body.first() == Some(&0x8B) => Ok(()),
            _ => bail!("a packet that nobody asked for"),
        }
    }

    fn connected(&mut self, body: &[u8]) -> Result<()> {
        ensure!(body[1] == 0 && body[0] < 2, "refused");
        let present = body[0] == 1;
        self.check_presence(present)?;
        if let Some(link) = &mut self.link {
            link.established = true;
        }
        if !present {
            self.received.clear();
            self.ended_sessions += usize::from(self.kept);
            self.kept = false;
        }
        if self.role.filters.is_empty() {
            self.kept = true;
        } else if !self.kept {
            self.send(packets::subscribe(self.role.level, 1, self.role.filters));
        }
        let again: Vec<Vec<u8>> = self.outgoing.iter().map(|outgoing| self.again(outgoing)).collect();
        self.send(again.concat());
        Ok(())
    }

    /// A session that was kept is there, unless it has expired, and then it is not.
    fn check_presence(&self, present: bool) -> Result<()> {
        // At the most when the broker looked, and at the least.
        let away = self.left.map_or(Duration::ZERO, |left| left.elapsed());
        let begun = self.link.as_ref().map_or_else(Instant::now, |link| link.begun);
        let missed = self.missed.map_or(Duration::ZERO, |missed| begun.saturating_duration_since(missed));
        let expiry = self.role.expiry_s.map(|seconds| Duration::from_secs(seconds.into()));
        let margin = Duration::from_secs(1);
        ensure!(present || !self.kept || expiry.is_some_and(|expiry| away > expiry), "the session is gone");
        ensure!(!present || self.left.is_some(), "a session out of nothing");
        ensure!(!present || expiry.is_none_or(|expiry| missed < expiry + margin), "a session after {missed:?}");
        Ok(())
    }

    /// What is sent again in a new connection [MQTT-4.4.0-1].
    fn again(&self, outgoing: &Outgoing) -> Vec<u8> {
        if outgoing.released {
            packets::acknowledge(0x62, outgoing.packet_id)
        } else {
            self.sent[outgoing.number as usize].packet(self.role.level, outgoing.packet_id, true)
        }
    }

    fn subscribed(&mut self, body: &[u8]) -> Result<()> {
        let granted = &body[if self.role.level == 5 { 3 } else { 2 }..];
        ensure!(granted.iter().eq(self.role.filters.iter().map(|(_, qos)| qos)), "not the QoS that was asked for");
        self.kept = true;
        Ok(())
    }

    fn find(&self, packet_id: u16, qos: u8) -> Option<usize> {
        self.outgoing.iter().position(|outgoing| outgoing.packet_id == packet_id && outgoing.qos == qos)
    }

    fn puback(&mut self, packet_id: u16, reason: u8) -> Result<()> {
        ensure!(reason < 0x80, "refused");
        let place = self.find(packet_id, 1).context("a PUBACK of nothing")?;
        let outgoing = self.outgoing.remove(place).context("it was found")?;
        self.acknowledged.insert(outgoing.number);
        Ok(())
    }

    fn pubrec(&mut self, packet_id: u16, reason: u8) -> Result<()> {
        ensure!(reason < 0x80, "refused");
        let place = self.find(packet_id, 2).context("a PUBREC of nothing")?;
        let outgoing = &mut self.outgoing[place];
        ensure!(!outgoing.released, "a second PUBREC");
        outgoing.released = true;
        self.acknowledged.insert(outgoing.number);
        self.send(packets::acknowledge(0x62, packet_id));
        Ok(())
    }

    fn pubcomp(&mut self, packet_id: u16, reason: u8) -> Result<()> {
        // Packet Identifier not found: the broker had completed it, and the kill took the PUBCOMP.
        ensure!(reason == 0 || reason == 0x92, "refused");
        let place = self.find(packet_id, 2).context("a PUBCOMP of nothing")?;
        let outgoing = self.outgoing.remove(place).context("it was found")?;
        ensure!(outgoing.released, "a PUBCOMP without a PUBREL");
        Ok(())
    }

    fn pubrel(&mut self, packet_id: u16) -> Result<()> {
        let link = self.link.as_mut().context("a link")?;
        // Where this side had completed it, the kill took the PUBCOMP.
        let goes_on = self.received.remove(&packet_id).is_some();
        ensure!(goes_on || !link.open.contains_key(&packet_id), "a second PUBREL");
        link.open.entry(packet_id).or_insert(false);
        self.owe(0x70, packet_id, true);
        Ok(())
    }

    fn delivered(&mut self, first_byte: u8, body: &[u8]) -> Result<()> {
        let (qos, dup, retain) = (first_byte >> 1 & 3, first_byte & 8 != 0, first_byte & 1 != 0);
        ensure!((1..=2).contains(&qos) && !retain, "flags");
        let (packet_id, number) = understand(self.role.level, body)?;
        let link = self.link.as_mut().context("a link")?;
        ensure!(packet_id != 0 && link.open.insert(packet_id, true).is_none(), "an identifier that is in use");
        let unacknowledged = link.open.values().filter(|counts| **counts).count();
        ensure!(unacknowledged <= usize::from(self.role.receive_maximum), "more than the Receive Maximum");
        let delivery = Delivery { number, qos, dup, connection: self.connections };
        if qos == 1 {
            self.deliveries.push(delivery);
            self.owe(0x40, packet_id, true);
            return Ok(());
        }
        match self.received.insert(packet_id, number) {
            None => self.deliveries.push(delivery),
            Some(before) => ensure!(dup && before == number, "{number:?} with the identifier of {before:?}"),
        }
        self.owe(0x50, packet_id, false);
        Ok(())
    }
}

impl Link {
    /// Reads what is there; tells whether anything was, and whether the connection has ended.
    fn read(&mut self) -> (bool, bool) {
        let before = self.unread.len();
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return (self.unread.len() > before, true),
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (self.unread.len() > before, false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return (self.unread.len() > before, true),
            }
        }
    }

    fn write(&mut self) -> Result<bool> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.stream.write(&self.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.unsent.drain(..sent);
        Ok(sent > 0)
    }

    /// Takes one whole packet from what was read: its first byte, and what follows its length.
    fn take_packet(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let (mut length, mut shift, mut at) = (0usize, 0, 1);
        loop {
            let Some(&byte) = self.unread.get(at) else { return Ok(None) };
            length |= usize::from(byte & 0x7F) << shift;
            (shift, at) = (shift + 7, at + 1);
            if byte & 0x80 == 0 {
                break;
            }
            ensure!(shift < 28, "a remaining length of more than four bytes");
        }
        if self.unread.len() < at + length {
            return Ok(None);
        }
        let packet: Vec<u8> = self.unread.drain(..at + length).collect();
        Ok(Some((packet[0], packet[at..].to_vec())))
    }
}
