//! Changes as the log holds them: they are read as they were written, or not at all.

use proptest::collection::vec;
use proptest::prelude::*;

use super::model;
use super::{one_of_each, removals};
use crate::store::log::record;
use vespiary_core::event::{Change, SessionId};

/// Writes changes one behind the other and reads them again.
#[track_caller]
fn check_recorded(changes: &[Change]) {
    let mut bytes = Vec::new();
    for change in changes {
        record::encode(change, &mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    for change in changes {
        assert_eq!(record::decode(&mut rest).unwrap(), *change);
    }
    assert!(rest.is_empty());
}

#[test]
fn changes_of_every_kind_are_read_as_they_were_written() {
    let changes = [one_of_each(), removals()].concat();
    let kinds: std::collections::HashSet<_> = changes.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 26, "a kind of change has no example");
    check_recorded(&changes);
    let kept = Change::QueueKept { session: SessionId(1), messages: 1, bytes: 5 };
    record::encode(&kept, &mut Vec::new()).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_changes_are_read_as_they_were_written(steps in vec(any::<model::Step>(), 0..200)) {
        check_recorded(&model::changes(&steps).concat());
    }
}

#[test]
fn a_change_that_is_cut_is_refused() {
    for change in [one_of_each(), removals()].concat() {
        let mut bytes = Vec::new();
        record::encode(&change, &mut bytes).unwrap();
        for length in 0..bytes.len() {
            assert!(record::decode(&mut &bytes[..length]).is_err(), "{length} bytes of {change:?}");
        }
    }
}
