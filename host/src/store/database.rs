//! The open database with the files of its log, and how they are opened anew after a failure.
//!
//! After an operation of the system on its file has failed, redb refuses everything, and rightly: what is on the disk
//! then only a fresh read tells. So the database is dropped ([`LiveDatabase::fail`]) and opened again
//! ([`LiveDatabase::reopen`]), and everybody reaches it through here. In between, and once it is closed, there is none,
//! and whoever wants to read is told. A read transaction that was begun before is cut off with its database: what it
//! has not read yet it cannot read any more.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, WriteTransaction};

use super::apply::WriteError;
use super::error::StoreError;
use super::log::LogFile;

/// What is open of a data directory.
pub(super) struct Files {
    /// The database.
    pub(super) database: Database,
    /// The files of its log.
    pub(super) log: [LogFile; 2],
}

/// Opens what was open before. Must not make anything new.
pub(super) type Reopen = Box<dyn Fn() -> Result<Files, StoreError> + Send + Sync>;

/// The database while there is one.
pub(super) struct LiveDatabase {
    /// Whether there is.
    state: RwLock<State>,
    /// Opens it again.
    reopen: Reopen,
    /// Its file, for errors.
    path: Arc<Path>,
}
/// Whether there is a database.
enum State {
    /// There is.
    Open(Database),
    /// An operation on it failed, with this reason; it will be opened again.
    Failing(Arc<str>),
    /// It is closed for good.
    Closed,
}

impl LiveDatabase {
    pub(super) fn new(database: Database, path: Arc<Path>, reopen: Reopen) -> Self {
        Self { state: RwLock::new(State::Open(database)), reopen, path }
    }

    /// The database file, for errors.
    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Reads. What takes long keeps the database from being opened anew.
    pub(super) fn read<T>(&self, operation: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let path = || self.path.to_path_buf();
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(database) => operation(database),
            State::Failing(reason) => Err(StoreError::Failing { path: path(), reason: reason.clone() }),
            State::Closed => Err(StoreError::Closed { path: path() }),
        }
    }

    /// Begins a write transaction; there is one at a time.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, WriteError> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(database) => Ok(database.begin_write().map_err(redb::Error::from)?),
            State::Failing(_) | State::Closed => Err(WriteError::Database(redb::Error::DatabaseClosed)),
        }
    }

    /// Drops the database after a failure.
    pub(super) fn fail(&self, reason: &Arc<str>) {
        self.replace(State::Failing(reason.clone()));
    }

    /// Opens the database anew, in place of the one that there may be; gives the files of the log.
    pub(super) fn reopen(&self) -> Result<[LogFile; 2], StoreError> {
        let Files { database, log } = (self.reopen)()?;
        self.replace(State::Open(database));
        Ok(log)
    }

    /// Closes the database for good. What goes wrong is logged: it costs a look through the file at the next start.
    pub(super) fn close(&self) {
        if let State::Open(database) = self.replace(State::Closed)
            && let Err(error) = database.close()
        {
            tracing::warn!(path = %self.path.display(), "the database did not close cleanly: {error}");
        }
    }

    fn replace(&self, state: State) -> State {
        std::mem::replace(&mut *self.state.write().unwrap_or_else(PoisonError::into_inner), state)
    }
}

impl std::fmt::Debug for LiveDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveDatabase").field("path", &self.path).finish_non_exhaustive()
    }
}
