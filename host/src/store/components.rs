//! Components of plugins: files named after the SHA-256 of their bytes.
//!
//! A file appears under its name whole and on disk, or not at all. What is read is verified, so a damaged file is an
//! error and never runs. Which components are still wanted is for others to say.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::directory;
use super::error::StoreError;

/// How a component's file ends.
const EXTENSION: &str = ".wasm";
/// How a file ends that is being written; left over only by a crash.
const TEMPORARY: &str = ".tmp";

/// The components of a data directory, by digest.
#[derive(Debug)]
pub struct Components {
    /// Where they are.
    directory: PathBuf,
    /// Tells apart the temporary files of writers at work.
    writers: AtomicU64,
}

impl Components {
    /// Opens `<data>/components`, made if need be, and removes what a crash left half-written.
    pub(super) fn open(data: &Path) -> Result<Self, StoreError> {
        let components = Self { directory: data.join("components"), writers: AtomicU64::new(0) };
        directory::create_private(&components.directory)?;
        for name in components.names()? {
            if name.ends_with(TEMPORARY) {
                let path = components.directory.join(name);
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(components)
    }

    /// Keeps a component; gives the digest it is kept under. It is on disk when this returns.
    pub fn put(&self, bytes: &[u8]) -> Result<[u8; 32], StoreError> {
        let digest = Sha256::digest(bytes).into();
        if matches!(self.get(&digest), Ok(Some(_))) {
            return Ok(digest);
        }
        let path = self.path(&digest);
        let writer = self.writers.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!("{}.{writer}{TEMPORARY}", hexadecimal(&digest)));
        if let Err(error) = write_synced(&temporary, bytes) {
            // The first error is the one to report; what is left is removed at the next start.
            let _ = fs::remove_file(&temporary);
            return Err(StoreError::io("write", &temporary)(error));
        }
        fs::rename(&temporary, &path).map_err(StoreError::io("rename", &temporary))?;
        directory::sync_directory(&self.directory)?;
        Ok(digest)
    }

    /// The component of this digest, verified; `None` if there is none.
    pub fn get(&self, digest: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        let found: [u8; 32] = Sha256::digest(&bytes).into();
        if found != *digest {
            return Err(StoreError::ComponentDamaged { path, found: hexadecimal(&found) });
        }
        Ok(Some(bytes))
    }

    /// Removes a component; whether there was one.
    pub fn remove(&self, digest: &[u8; 32]) -> Result<bool, StoreError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => directory::sync_directory(&self.directory).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("remove", &path)(error)),
        }
    }

    /// The digests of all components, in order. Files that are none of ours are left out.
    pub fn list(&self) -> Result<Vec<[u8; 32]>, StoreError> {
        let names = self.names()?;
        let mut digests: Vec<_> = names.iter().filter_map(|name| digest_of(name.strip_suffix(EXTENSION)?)).collect();
        digests.sort_unstable();
        Ok(digests)
    }

    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        self.directory.join(hexadecimal(digest) + EXTENSION)
    }

    /// The names of all files that are UTF-8; ours are.
    fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(StoreError::io("list", &self.directory))? {
            let entry = entry.map_err(StoreError::io("list", &self.directory))?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn hexadecimal(digest: &[u8; 32]) -> String {
    digest.iter().fold(String::with_capacity(64 + EXTENSION.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest_of(name: &str) -> Option<[u8; 32]> {
    if name.len() != 64 || !name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&name[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(digest)
}
