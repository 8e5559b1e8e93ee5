//! A disk for tests: it stops working when told to, works again when told to, and forgets some of what was not synced
//! when its power is cut.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redb::{Database, StorageBackend};
use vespiary_core::message::Timestamp;

use super::committer::Pauses;
use super::components::Components;
use super::database::{Files, Reopen};
use super::error::StoreError;
use super::purging::Clock;
use super::{Opened, Parts, Store, StoreOptions, directory, tables};

/// What is on a disk: the database, and the two files of its log.
pub(crate) type Image = [Vec<u8>; 3];

/// A disk with one database on it, and its log.
#[derive(Debug, Clone)]
pub(crate) struct Disk([DiskFile; 3]);

/// A file on a disk.
#[derive(Debug, Clone)]
pub(crate) struct DiskFile {
    content: Arc<Mutex<Content>>,
    /// That of the disk that it is on.
    health: Arc<Mutex<Health>>,
}

/// What is in a file.
#[derive(Debug, Default)]
struct Content {
    /// What is read: everything written.
    live: Vec<u8>,
    /// What survives for sure.
    synced: Vec<u8>,
    /// What was done since the last sync.
    unsynced: Vec<Unsynced>,
}

/// What a disk can do.
#[derive(Debug)]
struct Health {
    /// Operations that are still carried out.
    operations_left: usize,
    /// What the disk says then.
    says: io::ErrorKind,
    /// Whether reading fails as well.
    unreadable: bool,
}

#[derive(Debug)]
enum Unsynced {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Unsynced {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(offset, data) => {
                bytes.resize(bytes.len().max(offset + data.len()), 0);
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { operations_left: usize::MAX, says: io::ErrorKind::StorageFull, unreadable: false }
    }
}

impl DiskFile {
    /// A file with this in it, on a disk of its own.
    pub(crate) fn with(image: Vec<u8>) -> Self {
        let file = Self { content: Arc::default(), health: Arc::default() };
        file.replace(image);
        file
    }

    /// Its disk works for so many operations more, and then says that it is full.
    pub(crate) fn fail_after(&self, operations: usize) {
        self.fail_with(operations, io::ErrorKind::StorageFull);
    }

    /// The same with another word.
    pub(crate) fn fail_with(&self, operations: usize, says: io::ErrorKind) {
        let mut health = self.health.lock().unwrap();
        (health.operations_left, health.says) = (operations, says);
    }

    /// Its disk works again.
    pub(crate) fn mend(&self) {
        self.fail_after(usize::MAX);
    }

    /// The power was cut and is back: what was not synced is there or not.
    pub(crate) fn cut_power(&self, random: &mut fastrand::Rng) {
        self.replace(self.image_after_power_cut(random));
    }

    /// This is in the file from now on, and nothing else ever was.
    pub(crate) fn replace(&self, image: Vec<u8>) {
        *self.content.lock().unwrap() = Content { live: image.clone(), synced: image, unsynced: Vec::new() };
    }

    /// What is in it after the power is back: all that was synced, and of the rest each write whole, in part
    /// (sectors of 512 bytes), or not at all.
    pub(crate) fn image_after_power_cut(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let content = self.content.lock().unwrap();
        let mut image = content.synced.clone();
        for unsynced in &content.unsynced {
            match (random.u8(0..3), unsynced) {
                (0, _) => {}
                (1, Unsynced::Write(offset, data)) => {
                    let kept = random.usize(0..=data.len().div_ceil(512)) * 512;
                    Unsynced::Write(*offset, data[..kept.min(data.len())].to_vec()).apply(&mut image);
                }
                _ => unsynced.apply(&mut image),
            }
        }
        image
    }

    fn operate(&self, unsynced: Option<Unsynced>) -> io::Result<()> {
        let mut health = self.health.lock().unwrap();
        if health.operations_left == 0 {
            return Err(health.says.into());
        }
        health.operations_left -= 1;
        let mut content = self.content.lock().unwrap();
        if let Some(unsynced) = unsynced {
            unsynced.apply(&mut content.live);
            content.unsynced.push(unsynced);
        } else {
            content.synced = content.live.clone();
            content.unsynced.clear();
        }
        Ok(())
    }
}

impl Disk {
    /// A disk with an empty database.
    pub(crate) fn new() -> Self {
        let disk = Self::with(Image::default());
        let database = Database::builder().create_with_backend(disk.0[0].clone()).unwrap();
        tables::create_all(&database).unwrap();
        database.close().unwrap();
        disk
    }

    /// A disk with this on it.
    pub(crate) fn with(image: Image) -> Self {
        let health: Arc<Mutex<Health>> = Arc::default();
        Self(image.map(|image| DiskFile { health: health.clone(), ..DiskFile::with(image) }))
    }

    /// The disk works for so many operations more, and then says that it is full.
    pub(crate) fn fail_after(&self, operations: usize) {
        self.0[0].fail_after(operations);
    }

    /// The same with another word.
    pub(crate) fn fail_with(&self, operations: usize, says: io::ErrorKind) {
        self.0[0].fail_with(operations, says);
    }

    /// Reading fails from now on, or works again.
    pub(crate) fn set_unreadable(&self, unreadable: bool) {
        self.0[0].health.lock().unwrap().unreadable = unreadable;
    }

    /// The disk works again.
    pub(crate) fn mend(&self) {
        self.0[0].mend();
    }

    /// The power was cut and is back.
    pub(crate) fn cut_power(&self, random: &mut fastrand::Rng) {
        self.0.iter().for_each(|file| file.cut_power(random));
    }

    /// This is on the disk from now on, and nothing else ever was.
    pub(crate) fn replace(&self, image: Image) {
        self.0.iter().zip(image).for_each(|(file, image)| file.replace(image));
    }

    /// What is on the disk after the power is back, file by file.
    pub(crate) fn image_after_power_cut(&self, random: &mut fastrand::Rng) -> Image {
        self.0.each_ref().map(|file| file.image_after_power_cut(random))
    }

    /// Opens a store on this disk, with its lock and components in a directory. It tries again after milliseconds, and no
    /// time passes.
    pub(crate) fn open(&self, data: &Path) -> Opened {
        self.open_at(data, &Arc::default())
    }

    /// The same, where it is as late as `now` says, in milliseconds.
    pub(crate) fn open_at(&self, data: &Path, now: &Arc<AtomicU64>) -> Opened {
        loop {
            match self.try_open(data, now.clone()) {
                // Processes that other tests start hold what is open here for a moment, until they have begun.
                Err(StoreError::InUse { .. }) => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    fn try_open(&self, data: &Path, now: Arc<AtomicU64>) -> Result<Opened, StoreError> {
        let (disk, path) = (self.clone(), data.to_owned());
        let reopen: Reopen = Box::new(move || {
            let database = directory::builder(&StoreOptions::default(), false, &path)
                .create_with_backend(disk.0[0].clone())
                .map_err(StoreError::database("open", &path))?;
            Ok(Files { database, log: [Box::new(disk.0[1].clone()), Box::new(disk.0[2].clone())] })
        });
        let pauses = Pauses {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(4),
            purge: Duration::from_millis(2),
            checkpoint: Duration::from_millis(3),
        };
        let (components, lock) = (Components::open(data)?, directory::lock(data)?);
        let clock: Clock = Box::new(move || Timestamp(now.load(Ordering::Relaxed)));
        Store::start(Parts { files: reopen()?, path: data.into(), reopen, pauses, clock, components, lock })
    }
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.health.lock().unwrap().unreadable {
            return Err(io::Error::other("unreadable sector"));
        }
        let content = self.content.lock().unwrap();
        let bytes = content.live.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.operate(Some(Unsynced::Length(length as usize)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate(Some(Unsynced::Write(offset as usize, data.to_vec())))
    }
}
