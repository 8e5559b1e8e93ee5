//! One deployed plugin at run time: which code is live, and where the batch of each of its lanes is.
//!
//! ```text
//! Resting --ask--> Asking --Events--> Busy --Settle--> Settling --Settled--> Asking | Resting
//!    ^               |                  |
//!    +-TakeCancelled-+                  +--ReturnEvents--> Asking | Resting
//! ```
//! Each lane goes around by itself. While [`Run::may_ask`] says no, nothing is asked for: a swap, an operator's pause, an
//! open breaker or code that cannot run. A swap takes over when every lane is `Resting`, where the core has no batch out
//! and no demand standing, and no request to the HTTP service is under way.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vespiary_core::event::{InboxEvent, Lane, Lanes, PluginName, Revision, SessionId};
use vespiary_core::{ChangeNumber, Timestamp};

use super::breaker::Breaker;
use super::conflicts::Conflicts;
use super::counts::{Counts, Failure};
use super::deploy::canary::Canary;
use super::deploy::migration::Dirty;
use super::deploy::probation::Probation;
use super::grants::Grants;
use super::log::PluginLog;
use super::recent::RecentEvents;
use super::schedules::Schedules;
use super::service::Service;
use crate::wasm::{Compiled, Instance, Interrupter};

/// A deployed plugin.
pub(super) struct Plugin {
    /// Its name.
    pub name: PluginName,
    /// Its log.
    pub log: Arc<PluginLog>,
    /// Held while dead letters are replayed or dropped: one such request at a time.
    pub letters: Mutex<()>,
    run: Mutex<Run>,
    /// Signalled at every change of [`Run`] that somebody may wait for.
    changed: Condvar,
}

/// What changes while a plugin runs.
pub(super) struct Run {
    /// Its lanes, as the core has them; the last is the canary's, if there is one.
    pub lanes: Vec<LaneRun>,
    /// How events are spread over them.
    pub arrangement: Lanes,
    /// Whether a deploy, a removal or the like is under way; no other may begin.
    pub deploying: bool,
    /// Whether it is being brought to rest for a switch: nothing is asked for.
    pub swapping: bool,
    /// Whether the operator paused it.
    pub paused: bool,
    /// Why the code cannot run at all, if it cannot.
    pub broken: Option<String>,
    /// Pauses what keeps failing.
    pub breaker: Breaker,
    /// The active revision's code; `None` before the first deploy and when it cannot run.
    pub code: Option<Arc<Code>>,
    /// The active revision; `None` before the first deploy is complete.
    pub revision: Option<Revision>,
    /// The session that holds its inbox.
    pub session: Option<SessionId>,
    /// The generation of its state in use.
    pub state: Option<SessionId>,
    /// The last change of what it settled, over all lanes.
    pub settled: ChangeNumber,
    /// What the core answered to what a deploy asked.
    pub answers: Answers,
    /// Requests to its HTTP service.
    pub service: Service,
    /// What its lanes write while other lanes read.
    pub conflicts: Conflicts,
    /// The keys that are written while its state migrates.
    pub dirty: Option<Dirty>,
    /// The probation of the active revision, if it is on one.
    pub probation: Option<Probation>,
    /// New code that gets a part of the events, if there is some.
    pub canary: Option<Canary>,
    /// What became of the last new code that failed its trial, for the operator.
    pub rolled_back: Option<String>,
    /// Its last events.
    pub recent: RecentEvents,
    /// Its timers that fall due again and again.
    pub schedules: Schedules,
    /// What happened since start.
    pub counts: Counts,
}

/// Settlements of a lane that may still wait for the disk when its next call begins. Without any, each call would wait for a commit
/// first; without a bound, batches would stay small where the disk is slow.
const AHEAD: usize = 2;

/// One lane.
#[derive(Default)]
pub(super) struct LaneRun {
    /// Where its batch is.
    pub phase: Phase,
    /// Events that wait for a request to the HTTP service to end.
    pub held: Option<Vec<InboxEvent>>,
    /// A warm instance; `None` while a call has it and after it died.
    pub instance: Option<Instance>,
    /// Interrupts the call under way, if there is one.
    pub interrupter: Option<Interrupter>,
    /// Events that are still to be handed out one by one, after a call that failed as a whole.
    pub isolating: usize,
    /// The last change of each of its last settlements, oldest first: [`AHEAD`], and before them the one that the next call
    /// waits for.
    ahead: VecDeque<ChangeNumber>,
}

/// Where a lane's batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Nothing is out and nothing is asked for.
    #[default]
    Resting,
    /// The core was asked for events.
    Asking,
    /// A batch waits for a thread or is being handled.
    Busy,
    /// The outcome is with the core; `asked` says whether the next batch was already asked for.
    Settling {
        /// Whether the next batch was asked for.
        asked: bool,
    },
}

/// What the core answered, until whoever asked takes it.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// To an activation or a removal: the change it rests on.
    pub activated: Option<Result<ChangeNumber, Refused>>,
    /// To another arrangement of lanes.
    pub arranged: bool,
    /// To a change of dead letters: how many, and the change it rests on.
    pub letters: Option<(u32, ChangeNumber)>,
    /// To a step towards a new generation of the state: which it is, and the change it rests on.
    pub generation: Option<(Option<SessionId>, ChangeNumber)>,
    /// To the end of a probation, or unasked.
    pub probation: Option<ProbationOver>,
}

/// How a probation ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProbationOver {
    /// Whether the revision before is active again.
    pub rolled_back: bool,
    /// Events that were put back for it.
    pub put_back: u32,
    /// The change that this rests on.
    pub after: ChangeNumber,
}

/// The core refused an activation: one of its bounds is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused;

/// Code of a plugin that has passed staging.
pub(super) struct Code {
    /// The compiled component.
    pub compiled: Compiled,
    /// SHA-256 of the component.
    pub digest: [u8; 32],
    /// The version in its manifest.
    pub version: Arc<str>,
    /// What it may do.
    pub grants: Grants,
    /// Whether it has an HTTP service.
    pub serves: bool,
}

/// What a plugin is made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct PluginOptions {
    /// Failures in a row that open the breaker.
    pub breaker_failures: u32,
    /// Events to remember.
    pub recent_events: usize,
    /// Bytes of them.
    pub recent_bytes: usize,
}

impl Plugin {
    /// A plugin without code.
    pub(super) fn new(name: PluginName, options: PluginOptions) -> Self {
        let run = Run {
            lanes: vec![LaneRun::default()],
            arrangement: Lanes::default(),
            deploying: false,
            swapping: false,
            paused: false,
            broken: None,
            breaker: Breaker::new(options.breaker_failures),
            code: None,
            revision: None,
            session: None,
            state: None,
            settled: ChangeNumber(0),
            answers: Answers::default(),
            service: Service::default(),
            conflicts: Conflicts::default(),
            dirty: None,
            probation: None,
            canary: None,
            rolled_back: None,
            recent: RecentEvents::new(options.recent_events, options.recent_bytes),
            schedules: Schedules::default(),
            counts: Counts::default(),
        };
        let (log, letters) = (Arc::new(PluginLog::new(name.clone())), Mutex::default());
        Self { name, log, letters, run: Mutex::new(run), changed: Condvar::new() }
    }

    /// Looks at or changes how it runs, and wakes who waits for a change.
    pub(super) fn run<R>(&self, change: impl FnOnce(&mut Run) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Blocks until `condition` gives a value, at most for `timeout`.
    pub(super) fn wait<R>(&self, timeout: Duration, mut condition: impl FnMut(&mut Run) -> Option<R>) -> Option<R> {
        let deadline = Instant::now() + timeout;
        let mut run = self.lock();
        loop {
            if let Some(result) = condition(&mut run) {
                return Some(result);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            run = self.changed.wait_timeout(run, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).finish_non_exhaustive()
    }
}

impl LaneRun {
    /// Whether a batch is being handled.
    pub(super) fn is_busy(&self) -> bool {
        self.phase == Phase::Busy
    }

    /// What it settled is handed to the store, up to this change.
    pub(super) fn settled(&mut self, after: ChangeNumber) {
        if self.ahead.len() > AHEAD {
            self.ahead.pop_front();
        }
        self.ahead.push_back(after);
    }

    /// The change that has to be on disk before the next call.
    pub(super) fn waits_for(&self) -> ChangeNumber {
        self.ahead.front().filter(|_| self.ahead.len() > AHEAD).copied().unwrap_or(ChangeNumber(0))
    }
}

impl Run {
    /// Whether events may be asked for.
    pub(super) fn may_ask(&self) -> bool {
        !self.swapping && !self.paused && self.broken.is_none() && self.breaker.pause().is_none() && self.code.is_some()
    }

    /// Events that a lane asks for: one while a culprit is looked for or the breaker tries again.
    pub(super) fn batch(&self, lane: Lane, most: usize) -> usize {
        let isolating = self.lanes.get(usize::from(lane.0)).is_some_and(|lane| lane.isolating > 0);
        if isolating || self.breaker.is_half_open() { 1 } else { most }
    }

    /// A lane; `None` where the arrangement has none of this number any more.
    pub(super) fn lane(&mut self, lane: Lane) -> Option<&mut LaneRun> {
        self.lanes.get_mut(usize::from(lane.0))
    }

    /// The numbers of all lanes.
    pub(super) fn lane_numbers(&self) -> impl Iterator<Item = Lane> + use<> {
        (0..u16::try_from(self.lanes.len()).unwrap_or(u16::MAX)).map(Lane)
    }

    /// Whether calls may run at the same time, so that what they read has to be noted.
    pub(super) fn is_concurrent(&self) -> bool {
        self.lanes.len() > 1
    }

    /// Whether nothing of it is under way.
    pub(super) fn is_resting(&self) -> bool {
        self.lanes.iter().all(|lane| lane.phase == Phase::Resting) && self.service.is_idle()
    }

    /// Whether a lane is the canary's.
    pub(super) fn is_canary(&self, lane: Lane) -> bool {
        self.canary.is_some() && self.arrangement.canary_percent > 0 && lane.0 == self.arrangement.count
    }

    /// The code that a lane runs.
    pub(super) fn code_of(&self, lane: Lane) -> Option<Arc<Code>> {
        match &self.canary {
            Some(canary) if self.is_canary(lane) => Some(Arc::clone(&canary.code)),
            Some(_) | None => self.code.clone(),
        }
    }

    /// Number and version of the revision that a lane runs.
    pub(super) fn revision_of(&self, lane: Lane) -> (u32, Arc<str>) {
        let revision = match &self.canary {
            Some(canary) if self.is_canary(lane) => Some(&canary.revision),
            Some(_) | None => self.revision.as_ref(),
        };
        revision.map_or_else(|| (0, "".into()), |revision| (revision.number, Arc::clone(&revision.version)))
    }

    /// Spreads events over lanes in another way, as the core has just been told; all of them rest.
    pub(super) fn arrange(&mut self, lanes: Lanes) {
        debug_assert!(self.lanes.iter().all(|lane| lane.phase == Phase::Resting), "no batch is out");
        self.arrangement = lanes;
        let count = usize::from(lanes.count.max(1)) + usize::from(lanes.canary_percent > 0);
        self.lanes = (0..count).map(|_| LaneRun::default()).collect();
        self.conflicts = Conflicts::default();
    }

    /// Interrupts every call that is under way.
    pub(super) fn interrupt(&mut self) {
        for interrupter in self.lanes.iter_mut().filter_map(|lane| lane.interrupter.take()) {
            interrupter.interrupt();
        }
        self.service.interrupt();
    }

    /// Notes a failure, for the operator.
    pub(super) fn note_failure(&mut self, now: Timestamp, reason: &str) {
        self.counts.last_failure = Some(Failure { at: now.0, reason: reason.to_owned() });
    }
}
