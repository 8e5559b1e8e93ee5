//! Sagas: work in steps at several services, of which all are done or none remains (Garcia-Molina and Salem, "Sagas", 1987).
//!
//! A saga is a small state machine over what the SDK has anyway: each step is a [`request`](crate::Context::request), or a
//! message whose answer the plugin recognises itself; time limits are timers; all that it knows is one entry in the plugin's
//! state, `saga/NAME/ID`. Each move is part of the transaction of the event that brings it, so a crash repeats a move or loses
//! it, and never leaves half of one.
//!
//! It is not a transaction: between its steps, others see what the earlier ones did.

mod record;
mod run;
mod step;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::record::{Status, Turn};
pub use self::step::{Ask, Reply, Step};
use crate::context::Context;
use crate::error::Result;

/// How long a saga takes at most unless it is told.
const DEADLINE: Duration = Duration::from_secs(3_600);

/// How long a saga that ended is remembered unless it is told: so long, beginning it again does nothing.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A saga: its steps in order, and what follows from them. `D` is what it knows, and what its steps learn.
///
/// Steps are asked one after the other. When one is refused, is not answered in time, or the saga's deadline passes,
/// the steps that are done are undone by their compensations, the last one first. A step of which nobody knows whether it was
/// done (no answer came, or one that makes no sense) is undone as well, so a compensation has to accept that there is nothing to
/// undo. Each compensation is tried until it is acknowledged, five times with growing pauses; then the saga is
/// [`Stuck`](Status::Stuck), stays in the state until somebody calls [`retry`](Self::retry) or [`forget`](Self::forget), and is
/// in the log and in the metrics.
///
/// Requests carry the user property `saga` = `NAME/ID/STEP`. It is the same at each attempt, so that who does the work can
/// tell a repetition from new work. Order holds within a topic only: a compensation may overtake a step that was not answered in
/// time, unless both go to one topic.
///
/// Two handlers hand events to the saga:
///
/// ```
/// use std::time::Duration;
/// use vespiary_sdk::prelude::*;
/// use vespiary_sdk::saga::{Ask, Ended, Reply, Saga, Status, Step, Turn};
///
/// plugin! {
///     name: "travel",
///     handlers: [wanted, answered, due],
///     publishes: ["rooms/book", "rooms/cancel", "trains/book", "trips/+"],
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct Trip { city: String, room: Option<u32> }
///
/// fn trip() -> Saga<Trip> {
///     Saga::new("trip")
///         .step(Step::new("room", |_, _, trip: &Trip| Ask::request("rooms/book", Json(&trip.city)), room_booked)
///             .compensated_by(|_, _, trip| Ask::request("rooms/cancel", Json(trip.room)), Reply::accepted))
///         .step(Step::new("train", |_, _, trip| Ask::request("trains/book", Json(&trip.city)), train_booked))
///         .deadline(Duration::from_secs(600))
///         .on_end(ended)
/// }
///
/// fn room_booked(trip: &mut Trip, answer: &Event) -> Result<Reply> {
///     trip.room = answer.json()?;
///     Ok(trip.room.map_or_else(|| Reply::refused("no room"), |_| Reply::Accepted))
/// }
///
/// fn train_booked(_: &mut Trip, answer: &Event) -> Result<Reply> {
///     Ok(if answer.json()? { Reply::Accepted } else { Reply::refused("no seat") })
/// }
///
/// fn ended(cx: &Context, id: &str, ended: &Ended<'_, Trip>) -> Result<()> {
///     cx.publish(format!("trips/{id}"), Json((ended.status, ended.reason)))
/// }
///
/// #[on("trips/{id}/wanted")]
/// fn wanted(cx: &mut Context, id: &str, Text(city): Text) -> Result<()> {
///     trip().begin(cx, id, Trip { city, room: None }).map(drop)
/// }
///
/// #[on_response("saga/trip/{id}/{turn}")]
/// fn answered(cx: &mut Context, id: &str, turn: Turn) -> Result<()> {
///     trip().advance(cx, id, turn)
/// }
///
/// #[on_timer("saga/trip/{id}/{turn}")]
/// fn due(cx: &mut Context, id: &str, turn: Turn) -> Result<()> {
///     trip().advance(cx, id, turn)
/// }
///
/// let mut host = vespiary_sdk::testing::TestHost::new(plugin());
/// host.publish_bytes("trips/7/wanted", "Lyon");
/// host.answer("rooms/book", "12");
/// host.answer("trains/book", "false");
/// host.assert_nothing_published("trips/7");
/// host.answer("rooms/cancel", "");
/// host.assert_published("trips/7", json!(["compensated", "train: no seat"]));
/// ```
pub struct Saga<D> {
    /// Its name: part of keys, tags and timers.
    name: &'static str,
    /// The steps, in order.
    steps: Vec<Step<D>>,
    /// How long all steps may take together.
    deadline: Duration,
    /// How long it is remembered after its end.
    kept: Duration,
    /// Called when it ends.
    on_end: Option<EndFunction<D>>,
}

/// See [`Saga::on_end`].
type EndFunction<D> = fn(&Context, &str, &Ended<'_, D>) -> Result<()>;

/// How a saga ended: for [`Saga::on_end`].
#[derive(Debug)]
pub struct Ended<'saga, D> {
    /// `Completed`, `Compensated` or `Stuck`.
    pub status: Status,
    /// Why it is not completed, beginning with the step's name.
    pub reason: Option<&'saga str>,
    /// What it knows.
    pub data: &'saga D,
}

impl<D: Serialize + DeserializeOwned> Saga<D> {
    /// A saga without steps. The name becomes part of topics' and timers' names: use letters, digits and `-`.
    ///
    /// # Panics
    /// If the name is empty or has a character that is something else in a topic.
    pub fn new(name: &'static str) -> Self {
        assert!(is_level(name), "`{name}` cannot be the name of a saga");
        Self { name, steps: Vec::new(), deadline: DEADLINE, kept: KEPT, on_end: None }
    }

    /// Adds a step.
    ///
    /// # Panics
    /// If there is one of this name.
    pub fn step(mut self, step: Step<D>) -> Self {
        assert!(self.find(step.name).is_none(), "the saga `{}` has two steps `{}`", self.name, step.name);
        self.steps.push(step);
        self
    }

    /// Sets how long all steps may take together; without this, an hour. What is not completed then is compensated. The
    /// compensations take the time that they need.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how long the saga is remembered after its end, so that beginning it again does nothing; without this, a week.
    /// One that is stuck is kept until it is not.
    pub fn kept_for(mut self, time: Duration) -> Self {
        self.kept = time;
        self
    }

    /// Sets what happens at the end, in the same transaction. It is called once, and once more if a stuck saga is
    /// [tried again](Self::retry) and ends.
    pub fn on_end(mut self, on_end: EndFunction<D>) -> Self {
        self.on_end = Some(on_end);
        self
    }
}

/// Whether a text can be one level of a topic, of a timer's name and of a key.
fn is_level(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.contains(['/', '+', '#']) && !text.contains(char::is_control)
}
