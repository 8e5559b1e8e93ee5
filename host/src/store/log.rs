//! The log: what was committed and is not in the database yet, in two files that are written in turn.
//!
//! A commit is one [frame], written behind the last and synced. When the database has caught up with the frames
//! of one file, the log goes on at the beginning of that file, and so back and forth; the files keep their length, for
//! writing over blocks that a file has already is what syncs fastest. What is in the database is for whoever uses the log
//! to know: here it is the number of a frame, `after`.
//!
//! Invariants: a frame is written only when the one before is on disk, so none but the last can be torn; numbers go up by
//! one; the frames that are written over are in the database.

mod file;
mod frame;
mod reading;
pub(super) mod record;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;

use redb::StorageBackend;
use vespiary_core::event::Change;

pub(super) use file::PlainFile;

use super::directory::LOG_FILES;
use super::error::StoreError;
use super::record::InvalidRow;

/// A file of the log.
pub(super) type LogFile = Box<dyn StorageBackend>;

/// Zeros are written up to the next multiple of this when a file grows: syncing a frame within them is cheaper by half
/// than one that makes the file longer, or fills a place without blocks.
const GROWTH_BYTES: u64 = 1 << 20;

/// A file that has grown beyond this is cut back to it before it is used again.
const FILE_BYTES: u64 = 64 << 20;

/// A buffer that has grown beyond this is given back when its frame is on disk.
const BUFFER_BYTES: usize = 1 << 20;

/// Two files of frames.
#[derive(Debug)]
pub(super) struct Log {
    /// The files.
    files: [LogFile; 2],
    /// What payloads are combined with; known to nobody who sends any.
    key: u64,
    /// Where the next frame goes; unknown until the files are empty.
    end: Option<End>,
    /// The last frame, if any was written since then.
    last: Option<u64>,
    /// The frame that is being written.
    buffer: Vec<u8>,
    /// Whether that is still to be written, because it could not be.
    unwritten: bool,
}

/// Where the next frame goes.
#[derive(Debug, Clone, Copy)]
struct End {
    /// Which file.
    file: usize,
    /// Where in it.
    offset: u64,
}

/// Why the log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    /// The operating system refused an operation.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A frame that was promised is not there, or cannot be understood.
    #[error("file {file} is damaged at {offset}: {reason}")]
    Damaged {
        /// Which of the two, 0 or 1.
        file: usize,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A change cannot be written down.
    #[error("a change cannot be encoded: {0}")]
    Row(#[from] InvalidRow),
}

impl LogError {
    /// The same for whoever opens the database at `path`.
    pub(super) fn of_store(self, path: &Path) -> StoreError {
        match self {
            Self::Io(source) => StoreError::io("use the log of", path)(source),
            Self::Damaged { file, offset, reason } => {
                let path = path.with_file_name(LOG_FILES[file]);
                StoreError::Damaged { path, reason: format!("at byte {offset}: {reason}") }
            }
            Self::Row(_) => StoreError::Damaged { path: path.to_owned(), reason: format!("its log: {self}") },
        }
    }
}

impl Log {
    /// Takes over two files. Nothing is read or written: frames may be read with [`Log::replay`], and [`Log::clear`] comes
    /// before anything is appended.
    pub(super) fn new(files: [LogFile; 2]) -> Self {
        let key = RandomState::new().hash_one(());
        Self { files, key, end: None, last: None, buffer: Vec::new(), unwritten: false }
    }

    /// Gives the changes of each frame above `after`, in order, and the number of the last; `after` if there is none.
    ///
    /// No frame is given before all have been found to be whole, and to follow each other and `after`. A last frame that is
    /// torn is not there: nobody was promised that it would be. It stays in its file until that is emptied.
    pub(super) fn replay<E: From<LogError>>(
        &mut self,
        after: u64,
        mut each: impl FnMut(u64, Vec<Change>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let places = reading::find(&self.files, after)?;
        let mut payload = Vec::new();
        for place in &places {
            each(place.number, reading::changes(&self.files, place, &mut payload)?)?;
        }
        Ok(places.last().map_or(after, |place| place.number))
    }

    /// Empties both files and begins anew with the first: everything that was in them is in the database.
    pub(super) fn clear(&mut self) -> Result<(), LogError> {
        (self.end, self.last, self.unwritten) = (None, None, false);
        for file in &self.files {
            file.set_len(0)?;
            file.sync_data()?;
        }
        self.end = Some(End { file: 0, offset: 0 });
        Ok(())
    }

    /// Writes a frame with this number, one more than the last one's, behind that, and waits until it is on disk.
    ///
    /// After an error of the system it is unknown whether it is there, and [`Log::retry`] has to come next. A change that
    /// cannot be encoded leaves the log as it was.
    pub(super) fn append(&mut self, frame: u64, changes: &[Change]) -> Result<(), LogError> {
        assert!(!self.unwritten, "the last frame is still to be written");
        assert!(self.last.is_none_or(|last| last + 1 == frame), "frame {frame} follows {:?}", self.last);
        frame::encode(frame, self.key, changes, &mut self.buffer)?;
        (self.last, self.unwritten) = (Some(frame), true);
        self.write()
    }

    /// Goes on after a failure with the files opened anew. The frame that could not be appended is written again, at the
    /// same place with the same bytes.
    pub(super) fn retry(&mut self, files: [LogFile; 2]) -> Result<(), LogError> {
        self.files = files;
        if self.unwritten { self.write() } else { Ok(()) }
    }

    /// The next frame goes to the beginning of the other file, whose frames are in the database by now.
    pub(super) fn switch(&mut self) {
        assert!(!self.unwritten, "the last frame is still to be written");
        let file = 1 - self.end().file;
        self.end = Some(End { file, offset: 0 });
    }

    /// Bytes of frames in the file that is written at present.
    pub(super) fn bytes(&self) -> u64 {
        self.end().offset
    }

    fn end(&self) -> End {
        self.end.expect("the log was emptied before it was used")
    }

    /// Writes what is in the buffer, and syncs it.
    fn write(&mut self) -> Result<(), LogError> {
        let End { file: index, offset } = self.end();
        let file = &self.files[index];
        let (mut length, end) = (file.len()?, offset + self.buffer.len() as u64);
        if offset == 0 && length > FILE_BYTES {
            file.set_len(FILE_BYTES)?;
            length = FILE_BYTES;
        }
        file.write(offset, &self.buffer)?;
        if end > length {
            let ahead = end.next_multiple_of(GROWTH_BYTES) - end;
            file.write(end, &vec![0; ahead as usize])?;
        }
        file.sync_data()?;
        self.end = Some(End { file: index, offset: end });
        self.unwritten = false;
        if self.buffer.capacity() > BUFFER_BYTES {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}
