// SPDX-License-Identifier: Apache-2.0
//! The append-only journal of a [`Kv`](super::Kv): files `path.journal-<seq>`.
//!
//! File: 24 bytes of header (magic with version, sequence number, CRC32C of both), then records.
//! Record: payload length (u32), CRC32C (u32), payload. Payload: number of changes (u32), then per
//! change key length (u32), value length (u32, all ones deletes), key, value. Little-endian.
//! The CRC also covers sequence number and offset, so that bytes of another journal or place, which
//! a file system may bring back after a crash, are never taken for a record.
//! Reading stops at the first record that fails; this file never syncs.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use types::{Error, Result};

use super::{Change, Changes, with_suffix};

/// The version is the last character: a journal of another one is not read.
const MAGIC: &[u8; 8] = b"FBJRNL-1";
const HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 8;
const DELETED: u32 = u32::MAX;

/// The journal being written.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    seq: u64,
    len: u64,
}

/// What older journals held.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) changes: Changes,
    pub(super) files: Vec<PathBuf>,
    pub(super) last_seq: u64,
    pub(super) bytes: u64,
    pub(super) damaged: u64,
}

impl Journal {
    /// Makes journal number `seq`, in place of a file of that name.
    pub(super) fn create(base: &Path, seq: u64) -> Result<Journal> {
        let path = with_suffix(base, &format!(".journal-{seq:020}"));
        let context = || format!("create {}", path.display());
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::io(context(), e))?;
        file.write_all_at(&header(seq), 0)
            .map_err(|e| Error::io(context(), e))?;
        Ok(Journal {
            path,
            file,
            seq,
            len: HEADER_LEN as u64,
        })
    }

    /// Appends a batch as one record; returns its length. After an error the journal is as before.
    pub(super) fn append(&mut self, batch: &[Change]) -> Result<u64> {
        let record = encode(batch, self.seq, self.len).ok_or_else(|| {
            Error::new(
                types::ErrorKind::Invalid,
                "a batch of 4 GiB or more cannot be written",
            )
        })?;
        if let Err(error) = self.file.write_all_at(&record, self.len) {
            // Part of it may be there; the next record goes over it, and its CRC would fail anyway.
            self.file.set_len(self.len).ok();
            return Err(Error::io(format!("write {}", self.path.display()), error));
        }
        self.len += record.len() as u64;
        Ok(record.len() as u64)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == HEADER_LEN as u64
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads the journals newer than `applied`, oldest first, and removes the others.
pub(super) fn recover(base: &Path, applied: u64) -> Result<Recovered> {
    let mut found = Recovered::default();
    for (seq, path) in list(base)? {
        if seq <= applied {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!("remove {}: {error}", path.display());
            }
            continue;
        }
        let bytes =
            std::fs::read(&path).map_err(|e| Error::io(format!("read {}", path.display()), e))?;
        let read = decode(&bytes, seq, &mut found.changes);
        if read < bytes.len() {
            tracing::warn!(
                "{}: {} of {} bytes are damaged or torn and were cut off",
                path.display(),
                bytes.len() - read,
                bytes.len()
            );
            found.damaged += 1;
        }
        found.bytes += bytes.len() as u64;
        found.last_seq = seq;
        found.files.push(path);
    }
    Ok(found)
}

fn list(base: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let context = || format!("list the journals of {}", base.display());
    let dir = base
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let prefix = with_suffix(Path::new(base.file_name().unwrap_or_default()), ".journal-");
    let prefix = prefix.to_string_lossy();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(context(), e))? {
        let entry = entry.map_err(|e| Error::io(context(), e))?;
        let name = entry.file_name();
        let seq = name
            .to_str()
            .and_then(|name| name.strip_prefix(&*prefix)?.parse().ok());
        found.extend(seq.map(|seq| (seq, entry.path())));
    }
    found.sort_unstable();
    Ok(found)
}

fn header(seq: u64) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&seq.to_le_bytes());
    let crc = crc_fast::crc32_iscsi(&bytes[..16]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Returns the record for a batch at `offset`; `None` when a length does not fit.
fn encode(batch: &[Change], seq: u64, offset: u64) -> Option<Vec<u8>> {
    let bytes: usize = batch
        .iter()
        .map(|(key, value)| 8 + key.len() + value.as_ref().map_or(0, Vec::len))
        .sum();
    let len = u32::try_from(bytes + 4).ok()?;
    let mut record = Vec::with_capacity(RECORD_HEADER_LEN + len as usize);
    record.extend_from_slice(&len.to_le_bytes());
    record.extend_from_slice(&[0; 4]);
    record.extend_from_slice(&u32::try_from(batch.len()).ok()?.to_le_bytes());
    for (key, value) in batch {
        record.extend_from_slice(&u32::try_from(key.len()).ok()?.to_le_bytes());
        match value {
            Some(value) => {
                record.extend_from_slice(&u32::try_from(value.len()).ok()?.to_le_bytes());
                record.extend_from_slice(key);
                record.extend_from_slice(value);
            }
            None => {
                record.extend_from_slice(&DELETED.to_le_bytes());
                record.extend_from_slice(key);
            }
        }
    }
    let crc = checksum(seq, offset, &record[RECORD_HEADER_LEN..]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    Some(record)
}

fn checksum(seq: u64, offset: u64, payload: &[u8]) -> u32 {
    let mut seed = [0; 20];
    seed[..8].copy_from_slice(&seq.to_le_bytes());
    seed[8..16].copy_from_slice(&offset.to_le_bytes());
    seed[16..].copy_from_slice(&crc_fast::crc32_iscsi(payload).to_le_bytes());
    crc_fast::crc32_iscsi(&seed)
}

/// Adds the changes of all good records and returns how many bytes they take, header included.
fn decode(bytes: &[u8], seq: u64, into: &mut Changes) -> usize {
    if bytes.len() < HEADER_LEN || bytes[..HEADER_LEN] != header(seq) {
        return 0;
    }
    let mut offset = HEADER_LEN;
    while let Some(payload) = record_at(bytes, seq, offset) {
        let Some(changes) = parse(payload) else {
            break;
        };
        into.extend(changes);
        offset += RECORD_HEADER_LEN + payload.len();
    }
    offset
}

fn record_at(bytes: &[u8], seq: u64, offset: usize) -> Option<&[u8]> {
    let mut rest = bytes.get(offset..)?;
    let len = take_u32(&mut rest)? as usize;
    let crc = take_u32(&mut rest)?;
    let payload = rest.get(..len)?;
    (checksum(seq, offset as u64, payload) == crc).then_some(payload)
}

fn parse(mut payload: &[u8]) -> Option<Vec<Change>> {
    let rest = &mut payload;
    let count = take_u32(rest)?;
    let mut changes = Vec::new();
    for _ in 0..count {
        let (key_len, value_len) = (take_u32(rest)?, take_u32(rest)?);
        let key = rest.split_off(..key_len as usize)?.to_vec();
        let value = match value_len {
            DELETED => None,
            len => Some(rest.split_off(..len as usize)?.to_vec()),
        };
        changes.push((key, value));
    }
    rest.is_empty().then_some(changes)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seq: u64) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header(seq).to_vec();
        let mut ends = Vec::new();
        for i in 0..5u8 {
            let batch = [(vec![i], Some(vec![i; 10])), (vec![i, 9], None)];
            let record = encode(&batch, seq, bytes.len() as u64).unwrap();
            bytes.extend(record);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn a_journal_reads_back_what_was_written() {
        let (bytes, _) = sample(7);
        let mut changes = Changes::new();
        assert_eq!(decode(&bytes, 7, &mut changes), bytes.len());
        assert_eq!(changes.len(), 10);
        assert_eq!(changes[&vec![3]], Some(vec![3; 10]));
        assert_eq!(changes[&vec![3, 9]], None);
    }

    #[test]
    fn a_journal_cut_anywhere_keeps_the_records_before_the_cut() {
        let (bytes, ends) = sample(7);
        for cut in 0..bytes.len() {
            let mut changes = Changes::new();
            decode(&bytes[..cut], 7, &mut changes);
            assert_eq!(
                changes.len(),
                2 * ends.iter().filter(|end| **end <= cut).count()
            );
        }
    }

    #[test]
    fn a_flipped_byte_anywhere_keeps_the_records_before_it() {
        let (bytes, ends) = sample(7);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            let mut changes = Changes::new();
            decode(&bad, 7, &mut changes);
            let whole = if at < HEADER_LEN {
                0
            } else {
                ends.iter().filter(|e| **e <= at).count()
            };
            assert_eq!(changes.len(), 2 * whole, "byte {at}");
        }
    }

    #[test]
    fn a_record_of_another_journal_or_place_is_refused() {
        let (bytes, ends) = sample(7);
        assert_eq!(decode(&bytes, 8, &mut Changes::new()), 0);
        let mut moved = bytes[..ends[0]].to_vec();
        moved.extend_from_slice(&bytes[ends[1]..ends[2]]);
        let mut changes = Changes::new();
        assert_eq!(decode(&moved, 7, &mut changes), ends[0]);
        assert_eq!(changes.len(), 2);
    }
}
