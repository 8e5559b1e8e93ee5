//! Dead letters, for the operator: looked at, handed out again, dropped.
//!
//! The broker keeps their numbers, the store what they hold. A letter that is replayed is a new event, behind those that
//! wait; what it holds is read here and given to the broker, in parts, each of which is one transaction.

use std::sync::{Arc, PoisonError};

use vespiary_core::Input;
use vespiary_core::event::{DeadLetterAction, PluginName, Sequence, SessionId};

use super::Plugins;
use super::deploy::{COMMIT_TIMEOUT, DeployError};
use super::plugin::Plugin;
use super::view::{DeadLetterContent, DeadLetterView};

/// Letters that are changed in one transaction.
const PART: usize = 256;
/// Letters that are listed at a time, at most.
const LISTED: usize = 1_000;

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadSelection {
    /// All that there are.
    All,
    /// Those of these events.
    Events(Vec<u64>),
}

/// What is to become of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Replay,
    Drop,
}

impl Plugins {
    /// Up to `limit` dead letters, oldest first, from the first after event `after`.
    pub fn dead_letters(
        &self,
        name: &PluginName,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<DeadLetterView>, DeployError> {
        let (_, session) = self.inbox_of(name)?;
        let Some(session) = session else { return Ok(Vec::new()) };
        let letters = self.store.dead_letters(session, after.map(Sequence), limit.min(LISTED))?;
        Ok(letters.iter().map(|(sequence, letter)| DeadLetterView::new(*sequence, letter)).collect())
    }

    /// One dead letter with all that it holds; `None` if there is none of this event.
    pub fn dead_letter(&self, name: &PluginName, event: u64) -> Result<Option<DeadLetterContent>, DeployError> {
        let (_, session) = self.inbox_of(name)?;
        let Some(session) = session else { return Ok(None) };
        let letter = self.store.dead_letter(session, Sequence(event))?;
        Ok(letter.map(|letter| DeadLetterContent::new(Sequence(event), &letter)))
    }

    /// Hands dead letters out again, as new events; gives how many. Those that are not there are passed over.
    pub fn replay_dead(&self, name: &PluginName, selection: DeadSelection) -> Result<u32, DeployError> {
        self.change_dead(name, selection, Change::Replay)
    }

    /// Drops dead letters; gives how many. Those that are not there are passed over.
    pub fn drop_dead(&self, name: &PluginName, selection: DeadSelection) -> Result<u32, DeployError> {
        self.change_dead(name, selection, Change::Drop)
    }

    fn change_dead(&self, name: &PluginName, selection: DeadSelection, change: Change) -> Result<u32, DeployError> {
        let (plugin, session) = self.inbox_of(name)?;
        let Some(session) = session else { return Ok(0) };
        self.store.check()?;
        let _one_at_a_time = plugin.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = 0;
        match selection {
            DeadSelection::Events(events) => {
                for part in events.chunks(PART) {
                    let events = part.iter().map(|&event| Sequence(event));
                    changed += self.change_part(&plugin, session, events, change)?;
                }
            }
            DeadSelection::All => {
                // Those that come while this runs are not meant, or one that fails at once would never end it.
                let mut all = Vec::new();
                let mut after = None;
                loop {
                    let page = self.store.dead_letters(session, after, PART)?;
                    let Some((last, _)) = page.last() else { break };
                    after = Some(*last);
                    all.extend(page.iter().map(|(sequence, _)| *sequence));
                }
                for part in all.chunks(PART) {
                    changed += self.change_part(&plugin, session, part.iter().copied(), change)?;
                }
            }
        }
        Ok(changed)
    }

    fn change_part(
        &self,
        plugin: &Plugin,
        session: SessionId,
        events: impl Iterator<Item = Sequence>,
        change: Change,
    ) -> Result<u32, DeployError> {
        let mut letters = Vec::new();
        for sequence in events {
            let action = match change {
                Change::Drop => DeadLetterAction::Drop,
                Change::Replay => match self.store.dead_letter(session, sequence)? {
                    Some(letter) => DeadLetterAction::Replay(letter.content),
                    None => continue,
                },
            };
            letters.push((sequence, action));
        }
        let unconfirmed = || DeployError::Unconfirmed(plugin.name.0.to_string());
        plugin.run(|run| run.answers.letters = None);
        self.post(Input::ChangeDeadLetters { plugin: plugin.name.clone(), letters });
        let answer = plugin.wait(COMMIT_TIMEOUT, |run| run.answers.letters.take());
        let (count, after) = answer.ok_or_else(unconfirmed)?;
        if self.pool.wait_durable(after, COMMIT_TIMEOUT) { Ok(count) } else { Err(unconfirmed()) }
    }

    fn inbox_of(&self, name: &PluginName) -> Result<(Arc<Plugin>, Option<SessionId>), DeployError> {
        let plugin = self.find(name).ok_or_else(|| DeployError::Unknown(name.0.to_string()))?;
        let session = plugin.run(|run| run.session);
        Ok((plugin, session))
    }
}
