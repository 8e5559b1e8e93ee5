//! The task behind a client: one socket at a time, the session, and the loop between them.
//!
//! Reads what is there, decodes, steps the session, takes commands while window and output have room, writes once a
//! turn. Nothing is read while a message waits for room with the application, and nothing is taken from the command
//! channel while the output is above its bound, so every buffer is bounded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ntex_bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use vespiary_core::Qos;
use vespiary_core::event::{PacketId, SubscriptionOptions};

use super::packet::{Received, Sent, Wire, WireError};
use super::session::{Asked, Output, Session, Waiting};
use super::{Backoff, ClientError, ConnectOptions, Connected, Delivery, Publish};

/// Output above which no command is taken.
const OUTPUT_BYTES: usize = 256 * 1024;

/// Read in one turn at most, so that commands get their turn too.
const READ_BYTES: usize = 64 * 1024;

/// Unacknowledged publishes at most, so that packet identifiers remain.
const LARGEST_WINDOW: u16 = 32_767;

/// For PINGRESP, and for the last bytes before DISCONNECT.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the handle asks for.
pub(super) enum Command {
    Publish(Publish, Waiting),
    Subscribe(Vec<(String, SubscriptionOptions)>, Waiting),
    Unsubscribe(Vec<String>, Waiting),
    Acknowledge(PacketId, Qos),
    Settled(Waiting),
    Disconnect { with_will: bool, session_expiry_s: Option<u32> },
}

/// The task's ends of what joins it to its handle.
pub(super) struct Ports {
    /// Commands, in order.
    pub(super) commands: mpsc::Receiver<Command>,
    /// Messages for the application, each with its weight; bounded by `unread`.
    pub(super) messages: mpsc::UnboundedSender<(Delivery, u32)>,
    /// Room for messages, in bytes.
    pub(super) unread: Arc<Semaphore>,
    /// Why the connection is gone for good, once it is.
    pub(super) ended: watch::Sender<Option<ClientError>>,
    /// What the last CONNACK said.
    pub(super) connected: watch::Sender<Connected>,
    /// Asks to let go of the socket at once.
    pub(super) abort: Arc<Notify>,
}

/// What is needed to connect again.
pub(super) struct Ended {
    pub(super) options: ConnectOptions,
    pub(super) session: Session,
    pub(super) ports: Ports,
}

struct Link {
    kept: Ended,
    stream: TcpStream,
    output: Output,
    /// Read and not yet decoded.
    input: BytesMut,
    /// A message that waits for room, and how much it needs.
    stalled: Option<(Delivery, u32)>,
    /// Publishes that may be unacknowledged.
    window: usize,
    keep_alive: Option<Duration>,
    last_sent: Instant,
    /// When a PINGREQ was sent that is not answered.
    pinged: Option<Instant>,
}

/// Connects and starts the task.
pub(super) async fn start(
    options: ConnectOptions,
    session: Session,
    mut ports: Ports,
) -> Result<JoinHandle<Ended>, (ClientError, Box<Ended>)> {
    // An abort that came too late for the connection before is not meant for this one.
    tokio::select! {
        biased;
        () = ports.abort.notified() => {}
        () = std::future::ready(()) => {}
    }
    // Likewise commands: whoever gave them was told that the connection is gone.
    while ports.commands.try_recv().is_ok() {}
    let kept = Ended { options, session, ports };
    match Link::open(kept).await {
        Ok(link) => {
            link.kept.ports.ended.send_replace(None);
            Ok(tokio::spawn(link.run()))
        }
        Err(failed) => Err(*failed),
    }
}

impl Link {
    /// Connects the socket, introduces the client and resumes its session.
    async fn open(mut kept: Ended) -> Result<Self, Box<(ClientError, Box<Ended>)>> {
        let timeout = kept.options.connect_timeout;
        let address = kept.options.address.clone();
        let first = kept.ports.connected.borrow().connections == 0;
        let attempt = tokio::time::timeout(timeout, introduce(&kept.options, first)).await;
        let result = attempt.unwrap_or_else(|_| {
            let cause = format!("no answer within {} s", timeout.as_secs_f32());
            Err(ClientError::Connect { address: address.clone(), cause })
        });
        let (stream, mut output, input, connack) = match result {
            Ok(parts) => parts,
            Err(error) => return Err(Box::new((error, Box::new(kept)))),
        };
        if let Err(error) = kept.session.resume(connack.session_present, &mut output) {
            let error = ClientError::Lost { address, cause: error.to_string() };
            return Err(Box::new((error, Box::new(kept))));
        }
        let options = &kept.options;
        let client_id = connack.assigned_client_id.unwrap_or_else(|| options.client_id.clone());
        let seconds = connack.keep_alive_s.unwrap_or(options.keep_alive_s);
        let window = options.window.min(connack.receive_maximum).clamp(1, LARGEST_WINDOW).into();
        kept.ports.connected.send_modify(|connected| {
            connected.session_present = connack.session_present;
            connected.client_id = client_id;
            connected.connections += 1;
        });
        Ok(Self {
            kept,
            stream,
            output,
            input,
            stalled: None,
            window,
            keep_alive: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
            last_sent: Instant::now(),
            pinged: None,
        })
    }

    async fn run(mut self) -> Ended {
        loop {
            let error = self.serve().await;
            let Some(backoff) = self.kept.options.reconnect.filter(|_| error != ClientError::Disconnected) else {
                return self.kept.finish(error);
            };
            tracing::warn!("{error}; connecting again");
            // The socket goes first: a broker may refuse a second connection of the same client.
            let kept = self.kept;
            drop(self.stream);
            self = match again(kept, backoff, error).await {
                Ok(link) => link,
                Err((error, kept)) => return kept.finish(error),
            };
        }
    }

    /// Serves the connection until it is gone; why.
    async fn serve(&mut self) -> ClientError {
        loop {
            if let Err(error) = self.turn().await {
                return match error {
                    Stop::Said(error) => error,
                    Stop::Because(cause) => ClientError::Lost { address: self.kept.options.address.clone(), cause },
                };
            }
        }
    }

    async fn turn(&mut self) -> Result<(), Stop> {
        self.decode()?;
        self.write()?;
        let reading = self.stalled.is_none();
        let writing = !self.output.bytes.is_empty();
        let interest = match (reading, writing) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::WRITABLE,
            (true, false) | (false, false) => Interest::READABLE,
        };
        let deadline = self.deadline();
        let needed = self.stalled.as_ref().map_or(0, |(_, weight)| *weight);
        let ports = &mut self.kept.ports;
        let room = self.output.bytes.len() < OUTPUT_BYTES && self.kept.session.has_room(self.window);
        let command = tokio::select! {
            () = ports.abort.notified() => return Err(Stop::Said(ClientError::Disconnected)),
            ready = self.stream.ready(interest), if reading || writing => {
                ready.map_err(plain)?;
                None
            }
            permit = Arc::clone(&ports.unread).acquire_many_owned(needed), if !reading => {
                self.deliver(permit.ok())?;
                None
            }
            command = ports.commands.recv(), if room => Some(command),
            () = sleep_until(deadline) => return self.keep_alive(),
        };
        match command {
            Some(Some(command)) => self.obey(command).await,
            Some(None) => Err(Stop::Said(ClientError::Disconnected)),
            None if reading => self.read(),
            None => Ok(()),
        }
    }

    /// Carries out a command, and those behind it as far as there is room.
    async fn obey(&mut self, first: Command) -> Result<(), Stop> {
        let mut next = Some(first);
        while let Some(command) = next {
            let Ended { session, .. } = &mut self.kept;
            match command {
                Command::Publish(publish, done) => session.publish(publish, done, &mut self.output),
                Command::Subscribe(filters, done) => {
                    session.request(Asked::Subscribe(filters), done, &mut self.output);
                }
                Command::Unsubscribe(filters, done) => {
                    session.request(Asked::Unsubscribe(filters), done, &mut self.output);
                }
                Command::Acknowledge(packet_id, qos) => session.received(packet_id, qos, &mut self.output)?,
                Command::Settled(done) => session.when_settled(done),
                Command::Disconnect { with_will, session_expiry_s } => {
                    return self.disconnect(with_will, session_expiry_s).await;
                }
            }
            let room = self.output.bytes.len() < OUTPUT_BYTES && session.has_room(self.window);
            next = if room { self.kept.ports.commands.try_recv().ok() } else { None };
        }
        Ok(())
    }

    async fn disconnect(&mut self, with_will: bool, session_expiry_s: Option<u32>) -> Result<(), Stop> {
        self.output.send(Sent::Disconnect { with_will, session_expiry_s })?;
        let farewell = async {
            self.stream.write_all(&self.output.bytes).await?;
            self.stream.shutdown().await
        };
        match tokio::time::timeout(PATIENCE, farewell).await {
            Ok(Ok(())) => Err(Stop::Said(ClientError::Disconnected)),
            Ok(Err(error)) => Err(plain(error).into()),
            Err(_) => Err(Stop::Because("the broker does not read".to_owned())),
        }
    }

    /// Reads what is there, up to a bound.
    fn read(&mut self) -> Result<(), Stop> {
        let mut chunk = [0; 16 * 1024];
        let mut total = 0;
        while total < READ_BYTES {
            match self.stream.try_read(&mut chunk) {
                Ok(0) => {
                    self.decode()?;
                    return Err(Stop::Because("closed by the broker".to_owned()));
                }
                Ok(length) => {
                    self.input.extend_from_slice(&chunk[..length]);
                    total += length;
                    if length < chunk.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(plain(error).into()),
            }
        }
        Ok(())
    }

    /// Decodes what was read, until a message has to wait for room.
    fn decode(&mut self) -> Result<(), Stop> {
        while self.stalled.is_none() {
            let Some(received) = self.output.wire.decode(&mut self.input)? else { return Ok(()) };
            let session = &mut self.kept.session;
            match received {
                Received::Publish(delivery) => self.take(delivery)?,
                Received::Acknowledge { packet_id, step, reason } => {
                    session.acknowledged(packet_id, step, reason, &mut self.output)?;
                }
                Received::Answer { packet_id, reasons } => session.answered(packet_id, &reasons),
                Received::Pong => self.pinged = None,
                Received::Disconnect { reason, text } => {
                    let address = self.kept.options.address.clone();
                    return Err(Stop::Said(ClientError::ClosedByBroker { address, reason, text }));
                }
                Received::Connack(_) => return Err(WireError::Unexpected("a second CONNACK").into()),
            }
        }
        Ok(())
    }

    fn take(&mut self, delivery: Delivery) -> Result<(), Stop> {
        let Ended { session, options, ports } = &mut self.kept;
        if let Some(packet_id) = delivery.packet_id
            && delivery.qos == Qos::ExactlyOnce
            && session.is_received(packet_id)
        {
            // Sent again because our PUBREC got lost; the application has it.
            session.received(packet_id, delivery.qos, &mut self.output)?;
            return Ok(());
        }
        let weight = u32::try_from(delivery.topic.len() + delivery.payload.len() + 64).unwrap_or(u32::MAX);
        let weight = weight.min(options.unread_bytes);
        self.stalled = Some((delivery, weight));
        match Arc::clone(&ports.unread).try_acquire_many_owned(weight) {
            Ok(permit) => self.deliver(Some(permit)),
            Err(_) => Ok(()),
        }
    }

    /// Hands the message that waited to the application; the permit returns when it is taken.
    fn deliver(&mut self, permit: Option<OwnedSemaphorePermit>) -> Result<(), Stop> {
        let (Some(permit), Some((delivery, weight))) = (permit, self.stalled.take()) else { return Ok(()) };
        permit.forget();
        let Ended { session, options, ports } = &mut self.kept;
        if let Some(packet_id) = delivery.packet_id.filter(|_| !options.manual_acknowledge) {
            session.received(packet_id, delivery.qos, &mut self.output)?;
        }
        // A failure means that the handle is gone, and then the abort is on its way.
        let _ = ports.messages.send((delivery, weight));
        Ok(())
    }

    fn write(&mut self) -> Result<(), Stop> {
        let mut written = 0;
        let result = loop {
            if written == self.output.bytes.len() {
                break Ok(());
            }
            match self.stream.try_write(&self.output.bytes[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if written > 0 {
            self.last_sent = Instant::now();
            self.output.bytes.drain(..written);
        }
        let Err(error) = result else { return Ok(()) };
        // The broker may have said why before it closed.
        self.read()?;
        self.decode()?;
        Err(plain(error).into())
    }

    fn deadline(&self) -> Option<Instant> {
        let keep_alive = self.keep_alive?;
        Some(self.pinged.map_or(self.last_sent + keep_alive, |at| at + keep_alive.min(PATIENCE)))
    }

    fn keep_alive(&mut self) -> Result<(), Stop> {
        if self.stalled.is_some() {
            // The answer may lie in the socket that we do not read.
            self.pinged = None;
        }
        if self.pinged.is_some() {
            return Err(Stop::Because("no answer to a ping".to_owned()));
        }
        self.output.send(Sent::Ping)?;
        self.pinged = Some(Instant::now());
        Ok(())
    }
}

impl Ended {
    fn finish(mut self, error: ClientError) -> Self {
        self.session.lost(&error);
        self.ports.ended.send_replace(Some(error));
        self
    }
}

type Introduced = (TcpStream, Output, BytesMut, super::packet::Connack);

/// Connects, sends CONNECT and waits for CONNACK.
async fn introduce(options: &ConnectOptions, first: bool) -> Result<Introduced, ClientError> {
    let address = &options.address;
    let failed = |cause: String| ClientError::Connect { address: address.clone(), cause };
    let mut stream = TcpStream::connect(address).await.map_err(|error| failed(plain(error)))?;
    stream.set_nodelay(true).map_err(|error| failed(plain(error)))?;
    let mut output = Output { wire: Wire::new(options.protocol, options.maximum_packet_bytes), bytes: Vec::new() };
    // Only the first connect may throw a session away that is to be resumed.
    let clean_start = options.clean_start && (first || !options.is_durable());
    output.send(Sent::Connect { options, clean_start }).map_err(|error| failed(error.to_string()))?;
    stream.write_all(&output.bytes).await.map_err(|error| failed(plain(error)))?;
    output.bytes.clear();
    let mut input = BytesMut::new();
    loop {
        let received = output.wire.decode(&mut input);
        match received.map_err(|error| failed(format!("the broker sent {error}")))? {
            Some(Received::Connack(connack)) if connack.reason.is_error() => {
                let (reason, text) = (connack.reason, connack.reason_text);
                return Err(ClientError::Refused { address: address.clone(), reason, text });
            }
            Some(Received::Connack(connack)) => return Ok((stream, output, input, connack)),
            Some(_) => return Err(failed("the broker sent something else than CONNACK".to_owned())),
            None => {
                let mut chunk = [0; 1024];
                match stream.read(&mut chunk).await.map_err(|error| failed(plain(error)))? {
                    0 => return Err(failed("closed by the broker before CONNACK".to_owned())),
                    length => input.extend_from_slice(&chunk[..length]),
                }
            }
        }
    }
}

/// Connects again, with pauses. A refusal that time does not heal ends it at once.
async fn again(mut kept: Ended, backoff: Backoff, lost: ClientError) -> Result<Link, (ClientError, Ended)> {
    let abort = Arc::clone(&kept.ports.abort);
    let mut pause = backoff.first;
    let mut error = lost;
    for _ in 0..backoff.attempts {
        match Link::open(kept).await {
            Ok(link) => return Ok(link),
            Err(failed) => (error, kept) = (failed.0, *failed.1),
        }
        let hopeless =
            matches!(&error, ClientError::Refused { reason, .. } if !matches!(reason.0, 0x80 | 0x88 | 0x89 | 0x9F));
        if hopeless {
            break;
        }
        tokio::select! {
            () = abort.notified() => return Err((ClientError::Disconnected, kept)),
            () = tokio::time::sleep(pause.mul_f32(0.5 + 0.5 * fastrand::f32())) => {}
        }
        pause = (pause * 2).min(backoff.longest);
    }
    Err((error, kept))
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Why a connection is served no longer.
enum Stop {
    /// This error says it.
    Said(ClientError),
    /// The connection is lost for this cause.
    Because(String),
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        Self::Because(format!("the broker sent {error}"))
    }
}

impl From<String> for Stop {
    fn from(cause: String) -> Self {
        Self::Because(cause)
    }
}

/// An I/O error as a lower-case fragment, without the number.
fn plain(error: io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}
