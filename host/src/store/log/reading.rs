//! Finding frames in a file.
//!
//! Frames stand one behind the other from the beginning of a file, numbered without a gap. The first place where the next
//! one is not is their end: zeros, a frame that was torn when the power went, or what is left of earlier frames, whose
//! numbers are lower. A higher number behind the end says that a frame between was damaged after it had been promised,
//! for a frame is begun only when the one before is on disk.

use std::io;

use vespiary_core::event::Change;

use super::frame::{self, HEADER_BYTES, Header, SECTOR_BYTES};
use super::{LogError, LogFile};

/// Bytes that are looked through at once.
const PIECE_BYTES: usize = 1 << 20;

/// A frame that was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its number.
    pub(super) number: u64,
    /// The file it is in.
    pub(super) file: usize,
    /// Where it begins.
    pub(super) offset: u64,
}

impl Place {
    /// An error about it.
    pub(super) fn damaged(&self, reason: String) -> LogError {
        LogError::Damaged { file: self.file, offset: self.offset, reason }
    }
}

/// The frames above `after` in both files, which follow each other and `after` without a gap.
pub(super) fn find(files: &[LogFile; 2], after: u64) -> Result<Vec<Place>, LogError> {
    let [first, second] = [find_in(files, 0, after)?, find_in(files, 1, after)?];
    let mut found = [first, second];
    found.sort_by_key(|places| places.first().map(|place| place.number));
    let places = found.concat();
    for (place, expected) in places.iter().zip(after + 1..) {
        if place.number != expected {
            return Err(place.damaged(format!("frame {expected} is missing before frame {}", place.number)));
        }
    }
    Ok(places)
}

/// The changes of a frame that was found.
pub(super) fn changes(files: &[LogFile; 2], place: &Place, payload: &mut Vec<u8>) -> Result<Vec<Change>, LogError> {
    let file = &files[place.file];
    let header = frame::read(file, file.len()?, place.offset, payload)?;
    let header = header.filter(|header| header.number == place.number);
    let header = header.ok_or_else(|| place.damaged(format!("frame {} is not read twice alike", place.number)))?;
    frame::decode(&header, payload).map_err(|reason| place.damaged(reason))
}

/// The frames above `after` from the beginning of a file to their end, behind which there must be none.
fn find_in(files: &[LogFile; 2], file: usize, after: u64) -> Result<Vec<Place>, LogError> {
    let (index, file) = (file, &files[file]);
    let length = file.len()?;
    let (mut offset, mut last, mut payload) = (0, None, Vec::new());
    let mut places = Vec::new();
    while let Some(header) = frame::read(file, length, offset, &mut payload)? {
        if last.is_some_and(|last| header.number.checked_sub(1) != Some(last)) {
            break;
        }
        last = Some(header.number);
        places.extend((header.number > after).then_some(Place { number: header.number, file: index, offset }));
        offset += header.frame_bytes();
    }
    match find_above(file, length, offset, last.map_or(after, |last| last.max(after)), &mut payload)? {
        None => Ok(places),
        Some((behind, number)) => Err(LogError::Damaged {
            file: index,
            offset,
            reason: format!("there is no whole frame, but frame {number} is behind at {behind}"),
        }),
    }
}

/// The first frame from `offset` on with a number above `last`, if there is one: where it begins, and its number.
fn find_above(
    file: &LogFile,
    length: u64,
    mut offset: u64,
    last: u64,
    payload: &mut Vec<u8>,
) -> io::Result<Option<(u64, u64)>> {
    let mut piece = vec![0; PIECE_BYTES];
    while offset + (HEADER_BYTES as u64) <= length {
        piece.truncate(usize::try_from(length - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES));
        file.read(offset, &mut piece)?;
        for (at, sector) in (offset..).step_by(SECTOR_BYTES).zip(piece.chunks(SECTOR_BYTES)) {
            // Most of what is left of earlier frames is ruled out by its number, without reading it.
            let Some(header) = Header::parse(sector).filter(|header| header.number > last) else { continue };
            if frame::read(file, length, at, payload)?.is_some() {
                return Ok(Some((at, header.number)));
            }
        }
        offset += PIECE_BYTES as u64;
    }
    Ok(None)
}
