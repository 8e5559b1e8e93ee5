//! An MQTT client for the command line tools, the demo's simulated devices and the tests; not a public library.
//!
//! [`Client`] is a handle to a task that owns the socket. What outlives a connection (packet identifiers,
//! unacknowledged publishes, the QoS 2 ledger, subscriptions) is a plain value, `session::Session`, stepped by that
//! task; `packet` turns it into bytes. After the connection is lost, [`Client::reconnect`], or the task itself where
//! [`ConnectOptions::reconnect`] says so, resumes the session and sends again what is not acknowledged, in order.
//!
//! Everything is bounded: publishes by a window, undelivered messages by bytes (at the bound the socket is not read, so
//! a client that subscribes has to take its messages). Dropping the handle closes the socket without DISCONNECT.

mod options;

mod link;
mod session;

mod packet;
mod reason;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use vespiary_core::Qos;
use vespiary_core::event::{PacketId, RetainHandling, SubscriptionOptions};
use vespiary_core::message::MessageProperties;
use vespiary_core::topic::{InvalidTopic, Topic, TopicFilter};

use link::{Command, Ended};
pub use options::{Backoff, ConnectOptions, Will};
pub use reason::Reason;

/// Commands on their way to the task; one more waits.
const COMMANDS: usize = 64;

/// A message to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// Topic name; checked when it is handed to the client.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Quality of service.
    pub qos: Qos,
    /// RETAIN flag.
    pub retain: bool,
    /// Message expiry interval in seconds (5.0).
    pub expiry_s: Option<u32>,
    /// Other properties (5.0).
    pub properties: Option<Box<MessageProperties>>,
}

/// A message from the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Quality of service of this delivery.
    pub qos: Qos,
    /// RETAIN flag.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
    /// `Some` exactly for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Properties (5.0), `None` when there are none.
    pub properties: Option<Box<MessageProperties>>,
    /// Seconds of message expiry that remain (5.0).
    pub expiry_s: Option<u32>,
    /// Identifiers of the subscriptions it is for (5.0).
    pub subscription_identifiers: Vec<u32>,
}

/// Why something did not work; each fits on a line.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// No connection came about.
    #[error("connect to {address}: {cause}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        cause: String,
    },
    /// The broker answered CONNECT with a refusal.
    #[error("connect to {address}: refused by the broker: {reason}{}", detail(.text))]
    Refused {
        /// Where to.
        address: String,
        /// The CONNACK's reason.
        reason: Reason,
        /// What the broker says about it (5.0).
        text: Option<String>,
    },
    /// The connection is gone.
    #[error("connection to {address} lost: {cause}")]
    Lost {
        /// Where to.
        address: String,
        /// Why.
        cause: String,
    },
    /// The broker said DISCONNECT (5.0).
    #[error("connection to {address} closed by the broker: {reason}{}", detail(.text))]
    ClosedByBroker {
        /// Where to.
        address: String,
        /// Its reason.
        reason: Reason,
        /// What it says about it.
        text: Option<String>,
    },
    /// [`Client::disconnect`] was called.
    #[error("disconnected")]
    Disconnected,
    /// Not a topic name or not a filter.
    #[error("invalid topic {text:?}: {cause}")]
    InvalidTopic {
        /// What was given.
        text: String,
        /// What is wrong with it.
        cause: InvalidTopic,
    },
    /// A packet that cannot be sent: too large, or a text in it too long.
    #[error("send: {0}")]
    NotSendable(String),
    /// The broker refused a subscription or an unsubscription.
    #[error("subscribe to {filter}: {reason}")]
    SubscribeRefused {
        /// The filter.
        filter: String,
        /// The reason.
        reason: Reason,
    },
    /// The broker refused a publish (5.0).
    #[error("publish to {topic}: {reason}")]
    PublishRefused {
        /// The topic name.
        topic: String,
        /// The reason.
        reason: Reason,
    },
}

fn detail(text: &Option<String>) -> String {
    text.as_ref().map_or_else(String::new, |text| format!(" ({text})"))
}

/// A connected client. See the [module](self).
pub struct Client {
    /// Sends.
    publisher: Publisher,
    /// Messages for [`Client::receive`], with the bytes that they hold of `unread`.
    messages: mpsc::UnboundedReceiver<(Delivery, u32)>,
    /// Room for messages, in bytes.
    unread: Arc<Semaphore>,
    /// The task; what it leaves is needed to connect again.
    task: JoinHandle<Ended>,
    /// What the last CONNACK said.
    connected: watch::Receiver<Connected>,
}

/// The sending half of a [`Client`], cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    /// To the task.
    commands: mpsc::Sender<Command>,
    /// Why the connection is gone for good, once it is.
    ended: watch::Receiver<Option<ClientError>>,
    /// Asks the task to let go of the socket at once.
    abort: Arc<Notify>,
}

/// What the broker said when it took the connection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Connected {
    /// Whether it had a session of this client.
    pub session_present: bool,
    /// The client identifier, perhaps made up by the broker.
    pub client_id: String,
    /// Connections made so far.
    pub connections: u64,
}

/// Resolves when a publish is complete: sent (QoS 0), or acknowledged (QoS 1: PUBACK, QoS 2: PUBCOMP).
#[must_use = "dropping a receipt is fine, but then nobody learns of a refusal"]
pub struct Receipt {
    /// Resolved by the task.
    done: oneshot::Receiver<Result<Reason, ClientError>>,
    /// Tells that it never will be.
    ended: watch::Receiver<Option<ClientError>>,
}

impl Publish {
    /// A message at QoS 0, not retained.
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos: Qos::AtMostOnce,
            retain: false,
            expiry_s: None,
            properties: None,
        }
    }

    /// At this quality of service.
    pub fn qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// Retained.
    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }
}

/// A subscription without any of 5.0's options.
pub fn subscription(maximum_qos: Qos) -> SubscriptionOptions {
    SubscriptionOptions {
        maximum_qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::AtSubscribe,
    }
}

impl Client {
    /// Connects; the broker has accepted when this returns.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ClientError> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (messages_in, messages) = mpsc::unbounded_channel();
        let (ended_in, ended) = watch::channel(None);
        let (connected_in, connected) = watch::channel(Connected::default());
        let unread = Arc::new(Semaphore::new(options.unread_bytes as usize));
        let abort = Arc::new(Notify::new());
        let ports = link::Ports {
            commands: receiver,
            messages: messages_in,
            unread: Arc::clone(&unread),
            ended: ended_in,
            connected: connected_in,
            abort: Arc::clone(&abort),
        };
        let task = link::start(options, session::Session::default(), ports).await.map_err(|(error, _)| error)?;
        Ok(Self { publisher: Publisher { commands, ended, abort }, messages, unread, task, connected })
    }

    /// Connects again after the connection is lost or given up, and sends again what is not acknowledged: in order,
    /// with DUP where the broker still has the session, else as new publishes; subscriptions are made again then.
    pub async fn reconnect(&mut self) -> Result<(), ClientError> {
        self.publisher.stop().await;
        // The task only ever ends by returning; a panic in it is a bug of ours and goes on here.
        let Ended { options, session, ports } = match (&mut self.task).await {
            Ok(ended) => ended,
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        };
        match link::start(options, session, ports).await {
            Ok(task) => {
                self.task = task;
                Ok(())
            }
            Err((error, ended)) => {
                self.task = tokio::spawn(async move { *ended });
                Err(error)
            }
        }
    }

    /// The next message. Waits until there is one, or fails once the connection is gone for good and all messages are
    /// taken. Cancelling loses nothing.
    pub async fn receive(&mut self) -> Result<Delivery, ClientError> {
        let (delivery, weight) = tokio::select! {
            biased;
            message = self.messages.recv() => message.ok_or(ClientError::Disconnected)?,
            error = self.publisher.ended() => match self.messages.try_recv() {
                Ok(message) => message,
                Err(_) => return Err(error),
            },
        };
        self.unread.add_permits(weight as usize);
        Ok(delivery)
    }

    /// The next message if it is already there.
    pub fn try_receive(&mut self) -> Option<Delivery> {
        let (delivery, weight) = self.messages.try_recv().ok()?;
        self.unread.add_permits(weight as usize);
        Some(delivery)
    }

    /// The sending half, to be used elsewhere at the same time.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// What the last CONNACK said.
    pub fn connected(&self) -> Connected {
        self.connected.borrow().clone()
    }

    /// See [`Publisher::publish`].
    pub async fn publish(&self, publish: Publish) -> Result<Reason, ClientError> {
        self.publisher.publish(publish).await
    }

    /// See [`Publisher::start`].
    pub async fn start(&self, publish: Publish) -> Result<Receipt, ClientError> {
        self.publisher.start(publish).await
    }

    /// See [`Publisher::subscribe`].
    pub async fn subscribe(&self, filter: &str, qos: Qos) -> Result<Qos, ClientError> {
        self.publisher.subscribe(filter, subscription(qos)).await
    }

    /// See [`Publisher::unsubscribe`].
    pub async fn unsubscribe(&self, filter: &str) -> Result<(), ClientError> {
        self.publisher.unsubscribe(filter).await
    }

    /// See [`Publisher::acknowledge`].
    pub async fn acknowledge(&self, delivery: &Delivery) -> Result<(), ClientError> {
        self.publisher.acknowledge(delivery).await
    }

    /// Waits until nothing is unacknowledged, also of what was sent again after a reconnect.
    pub async fn settled(&self) -> Result<(), ClientError> {
        self.publisher.settled().await
    }

    /// Sends what is under way and DISCONNECT, then closes the socket. The session lives on as long as it was told to.
    pub async fn disconnect(&mut self) -> Result<(), ClientError> {
        self.publisher.disconnect().await
    }

    /// Closes the socket without DISCONNECT, as a crash would: the will falls due.
    pub async fn abort(&mut self) {
        self.publisher.stop().await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.publisher.abort.notify_one();
    }
}

impl Publisher {
    /// Publishes and waits for the acknowledgement (QoS 0: until the message is in the socket). A refusal is an error.
    pub async fn publish(&self, publish: Publish) -> Result<Reason, ClientError> {
        self.start(publish).await?.done().await
    }

    /// Hands a publish over, waiting for room in the window; the [`Receipt`] resolves when it is complete. Publishes
    /// leave in the order of the calls.
    pub async fn start(&self, publish: Publish) -> Result<Receipt, ClientError> {
        if let Err(cause) = Topic::parse(&publish.topic) {
            return Err(ClientError::InvalidTopic { text: publish.topic, cause });
        }
        let (sender, done) = oneshot::channel();
        self.send(Command::Publish(publish, sender)).await?;
        Ok(Receipt { done, ended: self.ended.clone() })
    }

    /// Subscribes and waits for SUBACK; gives the granted QoS.
    pub async fn subscribe(&self, filter: &str, options: SubscriptionOptions) -> Result<Qos, ClientError> {
        check_filter(filter)?;
        let (sender, done) = oneshot::channel();
        self.send(Command::Subscribe(vec![(filter.to_owned(), options)], sender)).await?;
        let reason = self.wait(done).await?;
        Qos::from_u8(reason.0).ok_or(ClientError::SubscribeRefused { filter: filter.to_owned(), reason })
    }

    /// Unsubscribes and waits for UNSUBACK.
    pub async fn unsubscribe(&self, filter: &str) -> Result<(), ClientError> {
        check_filter(filter)?;
        let (sender, done) = oneshot::channel();
        self.send(Command::Unsubscribe(vec![filter.to_owned()], sender)).await?;
        let reason = self.wait(done).await?;
        if reason.is_error() {
            return Err(ClientError::SubscribeRefused { filter: filter.to_owned(), reason });
        }
        Ok(())
    }

    /// Sends PUBACK (QoS 1) or PUBREC (QoS 2) for a message; for [`ConnectOptions::manual_acknowledge`].
    pub async fn acknowledge(&self, delivery: &Delivery) -> Result<(), ClientError> {
        match delivery.packet_id {
            Some(packet_id) => self.send(Command::Acknowledge(packet_id, delivery.qos)).await,
            None => Ok(()),
        }
    }

    /// Waits until every QoS 1 and 2 publish handed over so far is acknowledged.
    pub async fn settled(&self) -> Result<(), ClientError> {
        let (sender, done) = oneshot::channel();
        self.send(Command::Settled(sender)).await?;
        self.wait(done).await.map(drop)
    }

    /// See [`Client::disconnect`].
    pub async fn disconnect(&self) -> Result<(), ClientError> {
        self.disconnect_with(false, None).await
    }

    /// Disconnects, asking for the will to be published all the same, or with a new session expiry interval (5.0).
    pub async fn disconnect_with(&self, with_will: bool, session_expiry_s: Option<u32>) -> Result<(), ClientError> {
        self.send(Command::Disconnect { with_will, session_expiry_s }).await?;
        match self.ended().await {
            ClientError::Disconnected => Ok(()),
            error => Err(error),
        }
    }

    /// Closes the socket at once; returns when the task has let go of it.
    async fn stop(&self) {
        if self.ended.borrow().is_none() {
            self.abort.notify_one();
            self.ended().await;
        }
    }

    async fn send(&self, command: Command) -> Result<(), ClientError> {
        if let Some(error) = &*self.ended.borrow() {
            return Err(error.clone());
        }
        tokio::select! {
            biased;
            sent = self.commands.send(command) => sent.map_err(|_| ClientError::Disconnected),
            error = self.ended() => Err(error),
        }
    }

    async fn wait<T>(&self, done: oneshot::Receiver<Result<T, ClientError>>) -> Result<T, ClientError> {
        wait(done, &self.ended).await
    }

    /// Waits until the connection is gone for good; why.
    async fn ended(&self) -> ClientError {
        ended(&self.ended).await
    }
}

impl Receipt {
    /// Waits until the publish is complete.
    pub async fn done(self) -> Result<Reason, ClientError> {
        wait(self.done, &self.ended).await
    }
}

async fn wait<T>(
    done: oneshot::Receiver<Result<T, ClientError>>,
    why: &watch::Receiver<Option<ClientError>>,
) -> Result<T, ClientError> {
    tokio::select! {
        biased;
        result = done => match result {
            Ok(result) => result,
            Err(_) => Err(ended(why).await),
        },
        error = ended(why) => Err(error),
    }
}

async fn ended(why: &watch::Receiver<Option<ClientError>>) -> ClientError {
    let mut why = why.clone();
    match why.wait_for(Option::is_some).await {
        Ok(error) => error.clone().unwrap_or(ClientError::Disconnected),
        Err(_) => ClientError::Disconnected,
    }
}

fn check_filter(filter: &str) -> Result<(), ClientError> {
    match TopicFilter::parse(filter) {
        Ok(_) => Ok(()),
        Err(cause) => Err(ClientError::InvalidTopic { text: filter.to_owned(), cause }),
    }
}
