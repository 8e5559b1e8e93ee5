//! A connection that publishes: fills its window, counts acknowledgements, answers PUBREC.

use std::cell::RefCell;
use std::io::Write as _;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use vespiary_core::Qos;

use super::args::{Content, Plan};
use super::socket::Socket;
use super::traffic::Traffic;
use super::wire::{Received, Stamp, publish_prefix, put_publish_middle};

/// Staged output at which a turn ends; what is left to send follows in the next.
const STAGED_BYTES: usize = 64 * 1024;

/// A publisher.
pub(super) struct Publisher {
    /// Its number.
    index: usize,
    socket: Socket,
    /// Packet identifier of the next publish.
    next_id: u16,
    source: Source,
    traffic: Rc<RefCell<Traffic>>,
}

/// Where messages come from.
enum Source {
    /// The same packet again and again, but for identifier and stamp.
    Stamped { prefix: Vec<u8>, payload: Vec<u8> },
    /// Readings of this publisher's assets, in turn.
    Readings(Readings),
}

struct Readings {
    /// Numbers of the assets.
    assets: Vec<u32>,
    /// Whose turn it is, where they come in turn.
    next: usize,
    /// Assets that a reading has to be sent of before any come at random.
    unfilled: usize,
    /// When the publish under each packet identifier left.
    sent_ns: Vec<u64>,
    /// The topic, kept for its memory.
    topic: String,
    /// The payload, likewise.
    payload: Vec<u8>,
}

impl Publisher {
    pub(super) fn new(index: usize, socket: Socket, traffic: Rc<RefCell<Traffic>>) -> Self {
        let source = Source::new(index, &traffic.borrow().plan);
        Self { index, socket, next_id: 0, source, traffic }
    }

    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// One turn: read, fill the window, write. Ends only with an error.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        let shared = Rc::clone(&self.traffic);
        let traffic = &mut *shared.borrow_mut();
        let mut buffer = std::mem::take(&mut traffic.buffer);
        let (index, source) = (self.index, &mut self.source);
        let read =
            self.socket.poll_read(cx, &mut buffer, |packet, output| take(traffic, index, source, packet, output));
        traffic.buffer = buffer;
        let more_to_read = read?.is_ready();
        let more_to_send = self.fill(traffic);
        let written = self.socket.poll_write(cx)?.is_ready();
        let progress = &mut traffic.progress[index];
        // While the socket is full nobody need wake us but the socket.
        progress.waiting = written && !more_to_send;
        if !progress.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            progress.waker = Some(cx.waker().clone());
        }
        if more_to_read || (more_to_send && written) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Stages what may be sent; whether there is more.
    fn fill(&mut self, traffic: &mut Traffic) -> bool {
        let now_ns = traffic.now_ns();
        while traffic.may_send(self.index) {
            if self.socket.output.len() >= STAGED_BYTES {
                return true;
            }
            let due_ns = traffic.next_due_ns(self.index, now_ns);
            traffic.tally.late_max_ns = traffic.tally.late_max_ns.max(now_ns.saturating_sub(due_ns));
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            let progress = &mut traffic.progress[self.index];
            progress.sent += 1;
            progress.unacknowledged += u32::from(traffic.plan.qos != Qos::AtMostOnce);
            let stamp = Stamp { publisher: self.index as u32, sequence: progress.sent as u32, due_ns };
            traffic.tally.sent += 1;
            self.source.stage(traffic, stamp, self.next_id, &mut self.socket.output);
        }
        false
    }
}

/// Takes a packet from the broker.
fn take(traffic: &mut Traffic, index: usize, source: &Source, packet: Received<'_>, output: &mut Vec<u8>) {
    let (id, refused) = match packet {
        Received::Complete { id, refused } => (id, refused),
        Received::Pubrec { id, refused: true } => (id, true),
        Received::Pubrec { id, refused: false } => return output.extend_from_slice(&[0x62, 2, id[0], id[1]]),
        _ => return,
    };
    traffic.tally.acknowledged += 1;
    traffic.tally.refused += u64::from(refused);
    let progress = &mut traffic.progress[index];
    progress.unacknowledged = progress.unacknowledged.saturating_sub(1);
    if let Source::Readings(readings) = source
        && traffic.recording
    {
        let sent_ns = readings.sent_ns[usize::from(u16::from_be_bytes(id))];
        let taken_ns = traffic.now_ns().saturating_sub(sent_ns);
        traffic.latency.record(taken_ns);
    }
}

impl Source {
    fn new(index: usize, plan: &Plan) -> Self {
        match &plan.content {
            Content::Stamped { topics, payload_bytes } => {
                let prefix = publish_prefix(plan.protocol, &topics[index % topics.len()], plan.qos, *payload_bytes);
                Self::Stamped { prefix, payload: (0..*payload_bytes).map(|byte| byte as u8).collect() }
            }
            Content::Readings(readings) => Self::Readings(Readings {
                assets: (index as u32..readings.assets).step_by(plan.publishers).collect(),
                next: 0,
                unfilled: if readings.fill {
                    (index..readings.assets as usize).step_by(plan.publishers).len()
                } else {
                    0
                },
                sent_ns: vec![0; usize::from(u16::MAX) + 1],
                topic: String::new(),
                payload: Vec::new(),
            }),
        }
    }

    fn stage(&mut self, traffic: &mut Traffic, stamp: Stamp, packet_id: u16, output: &mut Vec<u8>) {
        let plan = &traffic.plan;
        match (self, &plan.content) {
            (Self::Stamped { prefix, payload }, _) => {
                stamp.write(payload);
                output.extend_from_slice(prefix);
                put_publish_middle(output, plan.protocol, plan.qos, packet_id);
                output.extend_from_slice(payload);
            }
            (Self::Readings(readings), Content::Readings(wanted)) => {
                readings.sent_ns[usize::from(packet_id)] = stamp.due_ns;
                let (seq, alarming) = (traffic.tally.sent, traffic.alerts.is_alarming(stamp));
                let asset = readings.next_asset(wanted.random);
                wanted.topic.write(asset, &mut readings.topic);
                readings.write_payload(asset, seq, alarming);
                let Readings { topic, payload, .. } = readings;
                output.extend_from_slice(&publish_prefix(plan.protocol, topic, plan.qos, payload.len()));
                put_publish_middle(output, plan.protocol, plan.qos, packet_id);
                output.extend_from_slice(payload);
                traffic.of_asset[asset as usize] += 1;
                if alarming && wanted.expects_alerts {
                    traffic.alerts.expect(seq, stamp);
                }
                traffic.note_unhandled();
            }
            (Self::Readings(_), Content::Stamped { .. }) => unreachable!("readings are made of readings"),
        }
    }
}

impl Readings {
    fn next_asset(&mut self, random: bool) -> u32 {
        let at_random = random && self.unfilled == 0;
        self.unfilled = self.unfilled.saturating_sub(1);
        let turn = if at_random { fastrand::usize(..self.assets.len()) } else { self.next };
        self.next = (self.next + 1) % self.assets.len();
        self.assets[turn]
    }

    /// Writes a reading: a machine that vibrates about its normal value, or far beyond it. `seq` names it in its alert.
    fn write_payload(&mut self, asset: u32, seq: u64, alarming: bool) {
        let noise = fastrand::f64();
        let mm_s = if alarming { 12.0 + noise } else { 2.0 + noise * 0.5 };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.payload.clear();
        // Writing into memory does not fail.
        let _ = write!(
            self.payload,
            r#"{{"asset":"press-{asset:06}","seq":{seq},"ts":{now},"mm_s":{mm_s:.3},"temperature_c":{:.1},"unit":"mm/s","sensor":"drive-end"}}"#,
            40.0 + noise
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn readings_are_json_of_their_asset() {
        let mut readings = Readings {
            assets: vec![0, 2],
            next: 0,
            unfilled: 0,
            sent_ns: Vec::new(),
            topic: String::new(),
            payload: Vec::new(),
        };
        for (asset, seq, alarming) in [(0, 1, false), (2, 2, true), (0, 3_000_000, false)] {
            assert_eq!(readings.next_asset(false), asset);
            readings.write_payload(asset, seq, alarming);
            let reading: Value = serde_json::from_slice(&readings.payload).unwrap();
            assert_eq!(reading["asset"], format!("press-{asset:06}"));
            assert_eq!(reading["seq"], seq);
            assert_eq!(reading["mm_s"].as_f64().unwrap() > 10.0, alarming);
            assert!((100..=130).contains(&readings.payload.len()), "{}", readings.payload.len());
        }
        assert!((0..100).all(|_| [0, 2].contains(&readings.next_asset(true))));
        (readings.next, readings.unfilled) = (0, 2);
        assert_eq!([readings.next_asset(true), readings.next_asset(true)], [0, 2]);
    }
}
