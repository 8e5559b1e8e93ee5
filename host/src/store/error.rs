//! Why the store could not do something.
//!
//! Messages are lower-case fragments that name the path concerned, fit for "cannot start: {error}". No type of the
//! database library crosses this edge: its errors travel as boxed sources or as text.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::InvalidRow;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused an operation on a file or a directory.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process holds the lock of the data directory.
    #[error("data directory {} is in use by another process ({pid})", .path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The other process.
        pid: LockHolder,
    },
    /// The data directory was written by a newer version of the program.
    #[error(
        "data directory {} has format version {found}; this program reads up to version {supported}: \
         use the newer program that wrote it",
        .path.display()
    )]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// The version it has.
        found: u64,
        /// The newest version this program reads.
        supported: u64,
    },
    /// The database file is torn or was altered. It is left as it is.
    #[error("database {} is damaged: {reason}; it was left as it is: restore it from a backup", .path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A row of the database does not say what a row of its table says.
    #[error("database {} holds an unreadable row in table {table}: {reason}", .path.display())]
    Row {
        /// The database file.
        path: PathBuf,
        /// The table.
        table: String,
        /// What is wrong with the row.
        reason: InvalidRow,
    },
    /// The database refused an operation.
    #[error("cannot {action} database {}: {source}", .path.display())]
    Database {
        /// What was tried, as a verb.
        action: &'static str,
        /// The database file.
        path: PathBuf,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A component's bytes are not those it was stored under.
    #[error("component {} is damaged: its SHA-256 is {found}", .path.display())]
    ComponentDamaged {
        /// The component's file, named after the digest it should have.
        path: PathBuf,
        /// The digest it has.
        found: String,
    },
    /// Operations on the database fail at present; it will be opened anew.
    #[error("database {} cannot be used at present: {reason}", .path.display())]
    Failing {
        /// The database file.
        path: PathBuf,
        /// What failed.
        reason: Arc<str>,
    },
    /// Changes were handed over that will never be on disk.
    #[error("{changes} changes are not in database {} and are lost: {reason}", .path.display())]
    Lost {
        /// The database file.
        path: PathBuf,
        /// How many.
        changes: u64,
        /// What failed.
        reason: Arc<str>,
    },
    /// The store was closed before.
    #[error("database {} is closed", .path.display())]
    Closed {
        /// The database file.
        path: PathBuf,
    },
}

/// The process that holds a data directory, as far as its lock file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockHolder(pub Option<u32>);

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "pid {pid}"),
            None => f.write_str("pid unknown"),
        }
    }
}

impl StoreError {
    /// Whether the store is failing at present, so that the same may succeed later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Failing { .. } | Self::Database { .. })
    }

    /// For `map_err` on operations of the operating system.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// For `map_err` on operations of the database. What redb found damaged becomes [`StoreError::Damaged`].
    pub(super) fn database<E: Into<redb::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |error| {
            let error: redb::Error = error.into();
            let path = path.to_owned();
            match error {
                redb::Error::Corrupted(reason) => Self::Damaged { path, reason },
                redb::Error::Io(source)
                    if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
                {
                    Self::Damaged { path, reason: source.to_string() }
                }
                redb::Error::DatabaseClosed => Self::Closed { path },
                other => Self::Database { action, path, source: Box::new(other) },
            }
        }
    }

    /// For `map_err` where a row is decoded.
    pub(super) fn row(table: &'static str, path: &Path) -> impl FnOnce(InvalidRow) -> Self {
        move |reason| Self::Row { path: path.to_owned(), table: table.to_owned(), reason }
    }
}
