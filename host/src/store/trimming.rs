//! What comes and goes within one commit never touches the disk.
//!
//! An event that a plugin handles at once enters its inbox and leaves it again in the changes of one commit, and a message
//! that is acknowledged at once a queue. An entry above every sequence that the store has seen has no row, so nothing has
//! to be written of it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use vespiary_core::event::{Change, Sequence, SessionId};

/// Whether an entry that came also went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is there.
    Came,
    /// It came and went.
    Went,
    /// More happened to it: all of that is written.
    Involved,
}

/// Takes out of the changes of one commit what comes and goes within them. No sequence above `highest` has been seen before.
pub(super) fn trim(changes: &mut Vec<Change>, highest: u64) {
    let mut fates: HashMap<(SessionId, Sequence), Fate, RandomState> = HashMap::default();
    let mut went = 0_usize;
    for change in &*changes {
        match change {
            Change::Queued { session, sequence, .. } if sequence.0 > highest => {
                match fates.entry((*session, *sequence)) {
                    Entry::Vacant(place) => drop(place.insert(Fate::Came)),
                    Entry::Occupied(mut place) => drop(place.insert(Fate::Involved)),
                }
            }
            Change::Dequeued { session, sequence, .. } if sequence.0 > highest => {
                match fates.entry((*session, *sequence)) {
                    Entry::Vacant(place) => drop(place.insert(Fate::Involved)),
                    Entry::Occupied(mut place) if *place.get() == Fate::Came => drop(place.insert(Fate::Went)),
                    Entry::Occupied(_) => {}
                }
                went += 1;
            }
            Change::Kept { session, sequence } | Change::PutBack { session, sequence } if sequence.0 > highest => {
                fates.insert((*session, *sequence), Fate::Involved);
            }
            _ => {}
        }
    }
    if went == 0 {
        return;
    }
    let has_gone = |session: &SessionId, sequence: &Sequence| {
        sequence.0 > highest && fates.get(&(*session, *sequence)) == Some(&Fate::Went)
    };
    let mut referred_to: HashSet<u64, RandomState> = HashSet::default();
    changes.retain(|change| match change {
        Change::Queued { session, sequence, entry } => {
            let stays = !has_gone(session, sequence);
            if stays {
                referred_to.insert(entry.message.0);
            }
            stays
        }
        Change::Sent { session, sequence, .. }
        | Change::Released { session, sequence }
        | Change::Dequeued { session, sequence, .. } => !has_gone(session, sequence),
        _ => true,
    });
    changes.retain(|change| match change {
        Change::MessageStored { message, .. } => referred_to.contains(&message.0),
        _ => true,
    });
}
