//! A frame of the log: a header, and the changes of one commit behind it.
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 4 | `VLog` |
//! | 4 | 4 | version of the frame: 1 |
//! | 8 | 8 | number of the frame |
//! | 16 | 8 | key of the payload |
//! | 24 | 8 | bytes of the payload |
//! | 32 | 4 | number of changes |
//! | 36 | 4 | CRC-32 of the header before it, and of the payload as it lies in the file |
//! | 40 | | payload: changes, as `record.rs` has them, each 8 bytes combined with the key by exclusive or |
//!
//! Numbers are little endian. Zeros follow up to the next sector. The header has the same fields in every version, so
//! that a frame of a later program is known for one.
//!
//! The key is nobody's but this process's and its file's. Much of a payload is what clients sent, and pieces of it are
//! left behind frames that are written over it: without the key a client could send what passes for a frame there.

use std::io;
use std::mem::size_of;

use vespiary_core::event::Change;

use super::{LogFile, record};
use crate::store::record::InvalidRow;

/// Frames begin on multiples of this, so that what is written later shares no sector with a frame that was promised.
pub(super) const SECTOR_BYTES: usize = 512;

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = CHECKSUM_AT + size_of::<u32>();

/// Where the checksum stands, which is of all before it and of the payload.
const CHECKSUM_AT: usize = 36;

/// What a frame begins with.
const MAGIC: [u8; 4] = *b"VLog";

/// The version that is written.
const VERSION: u32 = 1;

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// How the payload is written.
    version: u32,
    /// Its number.
    pub(super) number: u64,
    /// What the payload is combined with.
    key: u64,
    /// Bytes of the payload.
    payload_bytes: u64,
    /// Changes in the payload.
    changes: u32,
    /// Of the header and the payload.
    checksum: u32,
}

/// Writes a whole frame into `out`, replacing what was there. After an error it is empty.
pub(super) fn encode(number: u64, key: u64, changes: &[Change], out: &mut Vec<u8>) -> Result<(), InvalidRow> {
    out.clear();
    out.resize(HEADER_BYTES, 0);
    let encoded = changes.iter().try_for_each(|change| record::encode(change, out));
    encoded.inspect_err(|_| out.clear())?;
    let (head, payload) = out.split_at_mut(HEADER_BYTES);
    combine(payload, key);
    let (fields, checksum) = head.split_at_mut(CHECKSUM_AT);
    fields[0..4].copy_from_slice(&MAGIC);
    fields[4..8].copy_from_slice(&VERSION.to_le_bytes());
    fields[8..16].copy_from_slice(&number.to_le_bytes());
    fields[16..24].copy_from_slice(&key.to_le_bytes());
    fields[24..32].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    let count = u32::try_from(changes.len()).expect("a commit is in memory");
    fields[32..36].copy_from_slice(&count.to_le_bytes());
    checksum.copy_from_slice(&checksum_of(fields, payload).to_le_bytes());
    out.resize(out.len().next_multiple_of(SECTOR_BYTES), 0);
    Ok(())
}

/// Reads the frame at `offset` of a file of this length, if there is a whole one. Its payload replaces what is in `payload`.
pub(super) fn read(file: &LogFile, length: u64, offset: u64, payload: &mut Vec<u8>) -> io::Result<Option<Header>> {
    let begins_at = offset + HEADER_BYTES as u64;
    let Some(room) = length.checked_sub(begins_at) else { return Ok(None) };
    let mut head = [0; HEADER_BYTES];
    file.read(offset, &mut head)?;
    let Some(header) = Header::parse(&head).filter(|header| header.payload_bytes <= room) else { return Ok(None) };
    payload.resize(header.payload_bytes as usize, 0);
    file.read(begins_at, payload)?;
    Ok((header.checksum == checksum_of(&head[..CHECKSUM_AT], payload)).then_some(header))
}

/// Decodes the payload of a frame; an error says what is wrong with it.
pub(super) fn decode(header: &Header, payload: &mut [u8]) -> Result<Vec<Change>, String> {
    if header.version != VERSION {
        return Err(format!("frame {} has version {}, and only {VERSION} is known", header.number, header.version));
    }
    combine(payload, header.key);
    let mut rest = &*payload;
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let change = record::decode(&mut rest);
        changes.push(change.map_err(|error| format!("change {} of frame {}: {error}", changes.len(), header.number))?);
    }
    if changes.len() != header.changes as usize {
        return Err(format!("frame {} has {} changes instead of {}", header.number, changes.len(), header.changes));
    }
    Ok(changes)
}

impl Header {
    /// The header that these bytes begin with, as far as can be told without the payload.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let short = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        head.starts_with(&MAGIC).then(|| Self {
            version: short(4),
            number: long(8),
            key: long(16),
            payload_bytes: long(24),
            changes: short(32),
            checksum: short(CHECKSUM_AT),
        })
    }

    /// Bytes from the beginning of the frame to that of the next.
    pub(super) fn frame_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + self.payload_bytes).next_multiple_of(SECTOR_BYTES as u64)
    }
}

fn checksum_of(fields: &[u8], payload: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(fields);
    checksum.update(payload);
    checksum.finalize()
}

/// Combines bytes with a key; doing it again undoes it.
fn combine(payload: &mut [u8], key: u64) {
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ key).to_le_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.to_le_bytes()) {
        *byte ^= key;
    }
}
