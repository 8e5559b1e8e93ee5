//! The data directory: made, kept private, and locked against a second process; the database file in it and the files of
//! its log are opened, or made whole before the database gets its name.
//!
//! Nothing here replaces a file that exists: a database that cannot be read is reported and left as it is.

use std::cell::Cell;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{Builder, Database, RepairSession};

use super::StoreOptions;
use super::database::Files;
use super::error::{LockHolder, StoreError};
use super::log::{LogFile, PlainFile};
use super::tables;

/// The database file.
const DATABASE_FILE: &str = "vespiary.redb";
/// The database file while it is made; left over only by a crash, and removed then.
const NEW_DATABASE_FILE: &str = "vespiary.redb.new";
/// The files of the log.
pub(super) const LOG_FILES: [&str; 2] = ["vespiary.wal.0", "vespiary.wal.1"];
/// The file whose lock stands for the directory; holds the process that has it.
const LOCK_FILE: &str = "lock";

/// Work at opening that lasts longer than this is logged, and its progress this often.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Makes sure that a directory exists and that nobody but its owner can enter it.
pub(super) fn create_private(path: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            // The umask may have taken more away, never less; set it so that both are excluded.
            set_private(path)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            sync_directory(parent)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::metadata(path).map_err(StoreError::io("read", path))?;
            if !metadata.is_dir() {
                return Err(StoreError::io("use as the data directory", path)(io::ErrorKind::NotADirectory.into()));
            }
            let mode = metadata.permissions().mode() & 0o7777;
            if mode & 0o077 != 0 {
                tracing::warn!(
                    path = %path.display(),
                    mode = format_args!("{mode:o}"),
                    "directory was open to others; its mode is set to 700"
                );
            }
            if mode != 0o700 { set_private(path) } else { Ok(()) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Without a parent to make, trying again would not end.
            let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
                return Err(StoreError::io("create", path)(error));
            };
            fs::create_dir_all(parent).map_err(StoreError::io("create", parent))?;
            create_private(path)
        }
        Err(error) => Err(StoreError::io("create", path)(error)),
    }
}

fn set_private(path: &Path) -> Result<(), StoreError> {
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(StoreError::io("set the mode of", path))
}

/// Makes names that were added to a directory, or taken from it, survive a power cut.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(StoreError::io("sync", path))
}

/// Locks the directory. The lock lasts as long as the file that is returned.
pub(super) fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // What cannot be read is left out of the message; that the directory is in use is certain.
            let _ = file.take(20).read_to_string(&mut pid);
            let pid = LockHolder(pid.trim().parse().ok());
            return Err(StoreError::InUse { path: directory.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error)),
    }
    file.set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(StoreError::io("write", &path))?;
    Ok(file)
}

/// Where the database of a data directory is.
pub(super) fn database_path(directory: &Path) -> PathBuf {
    directory.join(DATABASE_FILE)
}

/// Opens the database of a locked directory with its log, or makes both where there is none.
pub(super) fn open_files(directory: &Path, options: &StoreOptions) -> Result<Files, StoreError> {
    let path = database_path(directory);
    let new = directory.join(NEW_DATABASE_FILE);
    match fs::remove_file(&new) {
        Ok(()) => tracing::info!(path = %new.display(), "removed what a crash left of a database being made"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io("remove", &new)(error)),
    }
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() == 0 => {
            // redb would take an empty file for a new database; ours never has this name before it is whole.
            return Err(StoreError::Damaged { path, reason: "the file is empty".to_owned() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refuse_orphaned_log(directory)?;
            create_database(directory, &new, &path)?;
        }
        Err(error) => return Err(StoreError::io("read", &path)(error)),
    }
    let started = Instant::now();
    let length = fs::metadata(&path).map_err(StoreError::io("read", &path))?.len();
    let database = builder(options, length <= options.verify_up_to_bytes, &path)
        .open(&path)
        .map_err(StoreError::database("open", &path))?;
    if started.elapsed() > PROGRESS_INTERVAL {
        tracing::info!(path = %path.display(), bytes = length, elapsed = ?started.elapsed(), "opened the database");
    }
    check_version(&database, directory)?;
    Ok(Files { database, log: open_log(directory)? })
}

/// Opens them again after an operation on one of them has failed. They have to be there: nothing is made.
pub(super) fn reopen_files(directory: &Path, options: &StoreOptions) -> Result<Files, StoreError> {
    let path = database_path(directory);
    sync_and_forget(&path)?;
    for path in log_paths(directory) {
        sync_and_forget(&path)?;
    }
    let database = builder(options, false, &path).open(&path).map_err(StoreError::database("open", &path))?;
    check_version(&database, directory)?;
    Ok(Files { database, log: open_log(directory)? })
}

/// Where the files of a log are.
fn log_paths(directory: &Path) -> [PathBuf; 2] {
    LOG_FILES.map(|name| directory.join(name))
}

/// Opens the files of a log.
fn open_log(directory: &Path) -> Result<[LogFile; 2], StoreError> {
    let open = |path: PathBuf| match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => Ok::<LogFile, _>(Box::new(PlainFile(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::Damaged { path, reason: "this file of its log is missing".to_owned() })
        }
        Err(error) => Err(StoreError::io("open", &path)(error)),
    };
    let [first, second] = log_paths(directory);
    Ok([open(first)?, open(second)?])
}

/// Makes the files of a log, empty, where there are none.
fn create_log(directory: &Path) -> Result<(), StoreError> {
    for path in log_paths(directory) {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(StoreError::io("create", &path))?;
        file.sync_all().map_err(StoreError::io("sync", &path))?;
    }
    sync_directory(directory)
}

/// Refuses to make a new database beside the log of one that is gone.
fn refuse_orphaned_log(directory: &Path) -> Result<(), StoreError> {
    for path in log_paths(directory) {
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > 0 => {
                let reason = format!("the file is missing, and its log {} is there", path.display());
                return Err(StoreError::Damaged { path: database_path(directory), reason });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        }
    }
    Ok(())
}

/// Sees to it that a file is read from its disk. After a sync that failed, the system may go on showing in memory what
/// never got there.
fn sync_and_forget(path: &Path) -> Result<(), StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    file.sync_all().map_err(StoreError::io("sync", path))?;
    // SAFETY: the descriptor is open for the call; the call touches no memory of ours.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(StoreError::io("read anew", path)(io::Error::from_raw_os_error(error))),
    }
}

/// Makes a log, and a database under another name, which is renamed when both are whole and on disk.
fn create_database(directory: &Path, new: &Path, path: &Path) -> Result<(), StoreError> {
    create_log(directory)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)
        .map_err(StoreError::io("create", new))?;
    let database = Builder::new().create(new).map_err(StoreError::database("create", new))?;
    tables::create_all(&database).map_err(StoreError::database("create", new))?;
    database.close().map_err(StoreError::database("create", new))?;
    file.sync_all().map_err(StoreError::io("sync", new))?;
    fs::rename(new, path).map_err(StoreError::io("rename", new))?;
    sync_directory(directory)?;
    tracing::info!(path = %path.display(), "made a new database");
    Ok(())
}

/// How databases are opened: with a bounded cache, and telling of repairs that take long.
pub(super) fn builder(options: &StoreOptions, verify: bool, path: &Path) -> Builder {
    let started = Instant::now();
    let reported = Cell::new(started);
    let path = path.to_owned();
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes).set_check_integrity_on_open(verify).set_repair_callback(
        move |session: &mut RepairSession| {
            if reported.get().elapsed() >= PROGRESS_INTERVAL {
                reported.set(Instant::now());
                tracing::info!(
                    path = %path.display(),
                    percent = (session.progress() * 100.0) as u32,
                    elapsed = ?started.elapsed(),
                    "the database was not closed cleanly or is being checked; reading it through"
                );
            }
        },
    );
    builder
}

/// Refuses a database that a newer program wrote, and one that says nothing of its version; brings an older one up to
/// date.
pub(super) fn check_version(database: &Database, directory: &Path) -> Result<(), StoreError> {
    let path = database_path(directory);
    match tables::format_version(database).map_err(StoreError::database("read", &path))? {
        None => Err(StoreError::Damaged { path, reason: "it has no format version".to_owned() }),
        Some(tables::FORMAT_VERSION) => Ok(()),
        Some(found @ tables::UNCOUNTED_FORMAT_VERSION..=tables::UNLOGGED_FORMAT_VERSION) => {
            tracing::info!(path = %path.display(), "bringing the database to format version {}", tables::FORMAT_VERSION);
            create_log(directory)?;
            tables::upgrade(database, found).map_err(|error| error.of_store("migrate", &path))
        }
        Some(found) if found > tables::FORMAT_VERSION => {
            Err(StoreError::Newer { path: directory.to_owned(), found, supported: tables::FORMAT_VERSION })
        }
        Some(found) => Err(StoreError::Damaged { path, reason: format!("format version {found} never existed") }),
    }
}
