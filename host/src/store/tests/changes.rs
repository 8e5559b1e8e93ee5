//! Changes as the log holds them: they are read as they were written, or not at all.

use proptest::collection::vec;
use proptest::prelude::*;

use super::model;
use super::{one_of_each, removals};
use crate::store::InvalidRow;
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

#[test]
fn a_row_that_no_change_has_is_refused() {
    let of_plugin = |begun: u8| {
        // Session 1, revision 1 of 32 bytes and no version, in generation 1, without a probation.
        let revision = [&[1][..], &[7; 32], &[0, 0]].concat();
        [&[15, 1, b'p', 2, 1][..], &revision, &[1, 0], if begun == 0 { &[0] } else { &[1, 9] }].concat()
    };
    record::decode(&mut of_plugin(0).as_slice()).unwrap();
    let released = |released| [7, 1, 2, 1, 1, 0, 0, 0, 0, released];
    record::decode(&mut released(0).as_slice()).unwrap();
    for (field, bytes) in [("begun", of_plugin(1)), ("released", released(1).to_vec()), ("kind", vec![0])] {
        let error = record::decode(&mut bytes.as_slice()).unwrap_err();
        assert!(matches!(error, InvalidRow::Field(name) if name == field), "{field}: {error}");
    }
}
