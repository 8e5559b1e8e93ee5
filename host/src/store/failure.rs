//! Which failures pass, and what an operator can do about them.
//!
//! What the system refuses today it may allow tomorrow: a full device, a limit, an unplugged disk. Damage stays.

use std::io;
use std::sync::Arc;

use super::apply::WriteError;
use super::error::StoreError;
use super::log::LogError;

/// Why something is not on disk.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may be tried again.
    Passing(Reason),
    /// Trying again does not help.
    Final(Arc<str>),
}

/// Why something failed that may be tried again.
#[derive(Debug, Clone)]
pub(super) struct Reason {
    /// What was said.
    pub(super) text: Arc<str>,
    /// What can be done about it.
    pub(super) advice: &'static str,
}

impl Failure {
    /// The reason of a failure that passes; that of one that does not as an error.
    pub(super) fn passing(self) -> Result<Reason, Arc<str>> {
        match self {
            Self::Passing(reason) => Ok(reason),
            Self::Final(reason) => Err(reason),
        }
    }

    /// Somebody could not read.
    pub(super) fn unreadable() -> Self {
        Self::Passing(Reason { text: "it cannot be read".into(), advice: LOOK_AT_THE_DEVICE })
    }

    /// An operation of the system failed; `text` says which.
    fn of_system(error: &io::Error, text: String) -> Self {
        let text = text.into();
        let advice = match error.kind() {
            // A file that ends too soon, or says nonsense.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => return Self::Final(text),
            io::ErrorKind::StorageFull => "make room on its device",
            io::ErrorKind::QuotaExceeded => "raise the quota of its owner, or make room",
            io::ErrorKind::FileTooLarge => "raise the limit of file sizes, of the process or of the file system",
            io::ErrorKind::ReadOnlyFilesystem => "make its file system writable",
            io::ErrorKind::PermissionDenied => "make it writable for the broker",
            io::ErrorKind::NotFound => "bring its file back, or what holds it",
            _ => LOOK_AT_THE_DEVICE,
        };
        Self::Passing(Reason { text, advice })
    }

    fn of_database(error: &redb::Error, text: String) -> Self {
        match error {
            redb::Error::Io(error) => Self::of_system(error, text),
            redb::Error::PreviousIo => Self::Passing(Reason { text: text.into(), advice: LOOK_AT_THE_DEVICE }),
            _ => Self::Final(text.into()),
        }
    }
}

const LOOK_AT_THE_DEVICE: &str = "look at its device, and at the log of the system";

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        let text = format!("its log: {error}");
        match error {
            LogError::Io(error) => Self::of_system(&error, text),
            LogError::Damaged { .. } | LogError::Row(..) => Self::Final(text.into()),
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let text = error.to_string();
        match error {
            WriteError::Database(error) => Self::of_database(&error, text),
            WriteError::Row(..) => Self::Final(text.into()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match &error {
            StoreError::Io { source, .. } => Self::of_system(source, text),
            StoreError::Database { source, .. } => match source.downcast_ref::<redb::Error>() {
                Some(error) => Self::of_database(error, text),
                None => Self::Final(text.into()),
            },
            _ => Self::Final(text.into()),
        }
    }
}
