//! The load: what all connections share ([`Traffic`]), and the course of a run from connecting to the last delivery.
//!
//! Connections are tasks of one thread that borrow [`Traffic`] for one poll at a time. A publisher that may not send
//! waits; whoever makes room for it (its own acknowledgements, deliveries, the clock) wakes it.

use std::cell::RefCell;
use std::io::{IsTerminal as _, Write as _};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use vespiary_core::Qos;

use super::alerts::Alerts;
use super::args::{Content, Extent, Plan, Readings};
use super::histogram::Histogram;
use super::publisher::Publisher;
use super::report::{Load, Mark, Results};
use super::socket::{READ_BYTES, Socket};
use super::subscriber::{Ledger, Subscriber};
use super::{inspect, pace, process};

/// Without progress for so long, what is missing in a closed loop is given up, so that the load goes on. Alerts never are: a
/// service that is slow has lost nothing, and one that lost something has failed.
const STALL: Duration = Duration::from_secs(1);

/// Without progress for so long, a run ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the run looks after its connections.
const STEP: Duration = Duration::from_millis(10);

/// What all connections share.
pub(super) struct Traffic {
    /// What is to be done.
    pub(super) plan: Plan,
    /// Zero of all times.
    start: Instant,
    /// Publishers send.
    running: bool,
    /// Latencies are recorded.
    pub(super) recording: bool,
    /// Messages that may be sent in all; `u64::MAX` for no bound.
    quota: u64,
    /// What each publisher has done.
    pub(super) progress: Vec<Progress>,
    /// What each subscriber got of each publisher.
    pub(super) ledgers: Vec<Ledger>,
    /// Counts since the start.
    pub(super) tally: Tally,
    /// From the time a message was due to its delivery; of readings, to its acknowledgement.
    pub(super) latency: Histogram,
    /// From the time a reading was due to the alert that names it.
    pub(super) handling: Histogram,
    /// Alerts of the service.
    pub(super) alerts: Alerts,
    /// Readings sent of each asset.
    pub(super) of_asset: Vec<u64>,
    /// The most readings that were unhandled at once.
    pub(super) unhandled_max: u64,
    /// Why a connection ended.
    failure: Option<anyhow::Error>,
    /// Sockets are read into this, one after the other.
    pub(super) buffer: Vec<u8>,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Published.
    pub(super) sent: u64,
    /// PUBACKs and PUBCOMPs.
    pub(super) acknowledged: u64,
    /// Of these, with a reason that is an error.
    pub(super) refused: u64,
    /// Messages delivered, or alerts of the service.
    pub(super) received: u64,
    /// Longest time that a message left after it was due.
    pub(super) late_max_ns: u64,
}

/// How far a publisher is.
#[derive(Default)]
pub(super) struct Progress {
    /// Messages sent.
    pub(super) sent: u64,
    /// Messages sent and not acknowledged; QoS 0 never counts.
    pub(super) unacknowledged: u32,
    /// Deliveries of its messages, with those given up.
    pub(super) delivered: u64,
    /// Messages that the clock has let go, in the open loop.
    due: u64,
    /// Wakes its task.
    pub(super) waker: Option<Waker>,
    /// Waits for room.
    pub(super) waiting: bool,
}

impl Traffic {
    fn new(plan: Plan) -> Self {
        let publishers = plan.publishers;
        let readings = plan.content.readings();
        let assets = readings.map_or(0, |readings| readings.assets as usize);
        let alerts = Alerts::new(readings.map_or(u64::MAX, |readings| readings.alarming_every), publishers);
        let ledgers = (0..plan.filters.len()).map(|index| Ledger::new(&plan, index)).collect();
        Self {
            start: Instant::now(),
            running: true,
            recording: false,
            quota: u64::MAX,
            progress: (0..publishers).map(|_| Progress::default()).collect(),
            ledgers,
            tally: Tally::default(),
            latency: Histogram::new(),
            handling: Histogram::new(),
            alerts,
            of_asset: vec![0; assets],
            unhandled_max: 0,
            failure: None,
            buffer: vec![0; READ_BYTES],
            plan,
        }
    }

    /// Nanoseconds since the start.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether a publisher may send one more now.
    pub(super) fn may_send(&self, index: usize) -> bool {
        let Progress { sent, unacknowledged, delivered, due, .. } = self.progress[index];
        let (plan, window) = (&self.plan, u64::from(self.plan.window));
        let in_time = match plan.rate {
            Some(_) => sent < due,
            None => sent * plan.fan < delivered + window * plan.fan || plan.fan == 0,
        };
        self.running
            && self.tally.sent < self.quota
            && u64::from(unacknowledged) < window
            && in_time
            && self.unhandled().is_none_or(|(unhandled, most)| unhandled < most)
    }

    /// When a publisher's next message is due: now, or by the clock. Messages are due in turn, one publisher after the
    /// other.
    pub(super) fn next_due_ns(&self, index: usize, now_ns: u64) -> u64 {
        match self.plan.rate {
            None => now_ns,
            Some(rate) => {
                let number = self.progress[index].sent * self.plan.publishers as u64 + index as u64;
                (number as f64 * 1e9 / rate) as u64
            }
        }
    }

    /// Readings that are unhandled or whose alerts are undelivered, and how many may be; nothing where nothing tells.
    pub(super) fn unhandled(&self) -> Option<(u64, u64)> {
        let readings = self.plan.content.readings().filter(|readings| readings.expects_alerts)?;
        Some((self.alerts.unhandled(self.tally.sent), readings.backlog))
    }

    /// Keeps the most that was unhandled.
    pub(super) fn note_unhandled(&mut self) {
        if let Some((unhandled, _)) = self.unhandled() {
            self.unhandled_max = self.unhandled_max.max(unhandled);
        }
    }

    /// Wakes a publisher that waits, if it need not wait any longer.
    pub(super) fn made_room(&mut self, index: usize) {
        if self.progress[index].waiting && self.may_send(index) {
            let progress = &mut self.progress[index];
            progress.waiting = false;
            if let Some(waker) = &progress.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// Wakes all publishers that need not wait any longer.
    pub(super) fn made_room_for_all(&mut self) {
        (0..self.progress.len()).for_each(|index| self.made_room(index));
    }

    /// Lets go what is due, of `released` messages that are; gives their number, and when the next one is.
    fn release(&mut self, mut released: u64, rate: f64) -> (u64, Duration) {
        loop {
            let due = Duration::from_secs_f64(released as f64 / rate);
            let now = self.start.elapsed();
            if due > now {
                return (released, due - now);
            }
            let index = (released % self.plan.publishers as u64) as usize;
            self.progress[index].due += 1;
            self.made_room(index);
            released += 1;
        }
    }

    /// Gives up what was sent and not delivered, so that a closed loop goes on after a loss.
    fn give_up_missing(&mut self) {
        for index in 0..self.progress.len() {
            let progress = &mut self.progress[index];
            progress.delivered = progress.delivered.max(progress.sent * self.plan.fan);
            self.made_room(index);
        }
    }

    /// A connection ended.
    fn failed(&mut self, error: anyhow::Error) {
        self.failure.get_or_insert(error);
    }

    /// Whether everything that was sent has come to its end.
    fn is_complete(&self) -> bool {
        let Tally { sent, acknowledged, .. } = self.tally;
        let acknowledged = self.plan.qos == Qos::AtMostOnce || acknowledged >= sent;
        let delivered = match &self.plan.content {
            Content::Stamped { .. } => self.ledgers.iter().all(|ledger| ledger.has_all_of(&self.progress)),
            Content::Readings(readings) => !readings.expects_alerts || self.alerts.missing() == 0,
        };
        acknowledged && delivered
    }

    fn mark(&self) -> Mark {
        let cpu_time = |pid: Option<u32>| pid.and_then(|pid| process::cpu_time(&pid.to_string()));
        Mark {
            at: self.start.elapsed(),
            tally: self.tally,
            broker_cpu: cpu_time(self.plan.broker_pid),
            service_cpu: cpu_time(self.plan.service_pid),
            own_cpu: process::cpu_time("self"),
        }
    }
}

/// Connects, loads, measures, waits for what is under way.
pub(super) async fn run(mut plan: Plan) -> anyhow::Result<Results> {
    for pid in plan.broker_pid.iter().chain(&plan.service_pid) {
        ensure!(process::cpu_time(&pid.to_string()).is_some(), "there is no process {pid} in /proc");
    }
    let name = format!("vespiary-bench-{:08x}", fastrand::u32(..));
    let mut sockets = connect(&plan, &name).await?;
    let publishing = sockets.split_off(plan.filters.len());
    if plan.qos != Qos::AtMostOnce {
        let taken = publishing.iter().map(|socket| u32::from(socket.receive_maximum)).min();
        plan.window = plan.window.min(taken.unwrap_or(u32::MAX)).max(1);
    }
    let traffic = Rc::new(RefCell::new(Traffic::new(plan)));
    for (index, socket) in sockets.into_iter().enumerate() {
        watch(&traffic, Subscriber::new(index, socket, Rc::clone(&traffic)).run());
    }
    for (index, socket) in publishing.into_iter().enumerate() {
        watch(&traffic, Publisher::new(index, socket, Rc::clone(&traffic)).run());
    }
    let rate = traffic.borrow().plan.rate;
    if let Some(rate) = rate {
        watch(&traffic, pace(Rc::clone(&traffic), rate));
    }
    let plan = traffic.borrow().plan.clone();
    let mut course = Course { traffic: Rc::clone(&traffic), shown: Instant::now(), progress: (Instant::now(), 0) };
    let mut results = course.follow().await;
    if let (Ok(results), Some((topic, answers))) =
        (&mut results, plan.content.readings().and_then(Readings::inspection))
    {
        let sent = std::mem::take(&mut traffic.borrow_mut().of_asset);
        results.inspected(inspect::run(&plan, &name, topic, answers, sent).await?);
    }
    if plan.durable {
        end_sessions(&plan, &name).await?;
    }
    results
}

/// Takes the place of each subscriber with a session that ends, so that nothing is left at the broker.
async fn end_sessions(plan: &Plan, name: &str) -> anyhow::Result<()> {
    for number in 0..plan.filters.len() {
        Socket::connect(&plan.address, plan.protocol, &format!("{name}-{number}"), false).await?;
    }
    Ok(())
}

/// Runs a task; its failure is the run's.
fn watch(traffic: &Rc<RefCell<Traffic>>, task: impl Future<Output = anyhow::Result<()>> + 'static) {
    let traffic = Rc::clone(traffic);
    tokio::task::spawn_local(async move {
        if let Err(error) = task.await {
            traffic.borrow_mut().failed(error);
        }
    });
}

/// Subscribers first, so that nothing is published that they miss.
async fn connect(plan: &Plan, name: &str) -> anyhow::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    let total = plan.filters.len() + plan.publishers;
    for number in 0..total {
        let durable = plan.durable && number < plan.filters.len();
        let connected = Socket::connect(&plan.address, plan.protocol, &format!("{name}-{number}"), durable).await;
        let mut socket = connected.with_context(|| format!("connection {} of {total}", number + 1))?;
        if let Some(filter) = plan.filters.get(number) {
            socket.subscribe(filter, plan.qos).await?;
        }
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Lets messages go as they are due.
async fn pace(traffic: Rc<RefCell<Traffic>>, rate: f64) -> anyhow::Result<()> {
    let mut timer = pace::Timer::new().context("cannot make a timer")?;
    let mut released = 0;
    loop {
        let pause;
        (released, pause) = traffic.borrow_mut().release(released, rate);
        timer.sleep(pause).await.context("cannot set a timer")?;
    }
}

/// The course of a run.
struct Course {
    traffic: Rc<RefCell<Traffic>>,
    /// When progress was last shown.
    shown: Instant,
    /// When there last was any, and the sum of what was counted then.
    progress: (Instant, u64),
}

impl Course {
    async fn follow(&mut self) -> anyhow::Result<Results> {
        let plan = self.traffic.borrow().plan.clone();
        let warm = Instant::now();
        let fill = plan.content.readings().filter(|readings| readings.fill).map_or(0, |readings| readings.assets);
        while warm.elapsed() < plan.warm_up || self.traffic.borrow().tally.sent < u64::from(fill) {
            self.step("warming up").await?;
        }
        let is_service = plan.content.readings().is_some();
        if is_service && plan.rate.is_none() {
            // What the warm-up left is not measured.
            self.traffic.borrow_mut().running = false;
            self.drain("waiting for the warm-up's rest").await?;
        }
        let begin = self.begin(plan.extent);
        let measured = Instant::now();
        loop {
            let finished = match plan.extent {
                Extent::Time(time) => measured.elapsed() >= time,
                Extent::Messages(count) => self.traffic.borrow().tally.sent >= begin.tally.sent + count,
            };
            if finished {
                break;
            }
            self.step("measuring").await?;
        }
        let mut end = self.end();
        let drained = Instant::now();
        self.drain("waiting for the rest").await?;
        if is_service {
            // A reading that was accepted is no work done: the measured part lasts until the last alert.
            end = self.traffic.borrow().mark();
        }
        self.show_end();
        let memory = |pid: Option<u32>| pid.and_then(|pid| process::resident_bytes(&pid.to_string()));
        let (resident, service_resident) = (memory(plan.broker_pid), memory(plan.service_pid));
        let traffic = self.traffic.borrow();
        Ok(Results::new(&traffic, &Load { begin, end, drain: drained.elapsed(), resident, service_resident }))
    }

    /// Waits until nothing is under way, or nothing moves any more.
    async fn drain(&mut self, what: &str) -> anyhow::Result<()> {
        self.progress.0 = Instant::now();
        while !self.traffic.borrow().is_complete() && self.progress.0.elapsed() < PATIENCE {
            self.step(what).await?;
        }
        Ok(())
    }

    fn begin(&mut self, extent: Extent) -> Mark {
        let mut traffic = self.traffic.borrow_mut();
        let mark = traffic.mark();
        traffic.recording = true;
        traffic.running = true;
        if let Extent::Messages(count) = extent {
            traffic.quota = mark.tally.sent + count;
        }
        traffic.made_room_for_all();
        mark
    }

    /// Publishers stop. In the open loop what is still under way counts too: there, lateness is the result.
    fn end(&mut self) -> Mark {
        let mut traffic = self.traffic.borrow_mut();
        traffic.running = false;
        traffic.recording = traffic.plan.rate.is_some() || traffic.plan.content.readings().is_some();
        traffic.mark()
    }

    /// Lets the connections work for a moment, and looks whether they do.
    async fn step(&mut self, what: &str) -> anyhow::Result<()> {
        tokio::time::sleep(STEP).await;
        let mut traffic = self.traffic.borrow_mut();
        if let Some(error) = traffic.failure.take() {
            return Err(error);
        }
        let Tally { sent, acknowledged, received, .. } = traffic.tally;
        let sum = sent + acknowledged + received;
        if sum != self.progress.1 {
            self.progress = (Instant::now(), sum);
        }
        let still = self.progress.0.elapsed();
        if traffic.running && traffic.plan.rate.is_none() && still > STALL {
            traffic.give_up_missing();
        }
        if traffic.running && still > PATIENCE {
            bail!("nothing moves any more: {sent} sent, {acknowledged} acknowledged, {received} received");
        }
        if self.shown.elapsed() >= Duration::from_secs(1) {
            self.shown = Instant::now();
            show(&format!("{what}: {sent} sent, {received} received"));
        }
        Ok(())
    }

    fn show_end(&self) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

/// Shows progress: over itself on a terminal, a line each otherwise.
fn show(line: &str) {
    let mut stderr = std::io::stderr();
    // Progress is a courtesy; a run does not fail for it.
    let _ = if stderr.is_terminal() { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
}
