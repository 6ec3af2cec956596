// SPDX-License-Identifier: Apache-2.0
//! The redb file under a [`Kv`](super::Kv): where checkpoints end up.
//!
//! Table `values` maps a key to CRC32C(key, value) and the value; table `meta` holds the number of
//! the newest journal that is in `values`. redb itself does not check what it reads back, hence the
//! CRC. A file that redb cannot read is replaced by an empty one, at the open or, when it is found
//! out later, at the next checkpoint. redb may panic on a damaged file; that is caught here and
//! counts as damage.

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase, StorageError,
    TableDefinition,
};
use types::{Error, ErrorKind, Result};

use super::guard::guarded;
use super::{Changes, Pair};

const VALUES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("values");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// What redb's own calls return.
type Stored<T> = std::result::Result<T, redb::Error>;

const APPLIED: &str = "journal";

#[derive(Debug)]
pub(super) struct Base {
    path: PathBuf,
    cache_bytes: usize,
    /// `None` only while the file cannot be opened again.
    database: RwLock<Option<Database>>,
    mend: Mutex<Mend>,
    damaged: AtomicU64,
}

/// What the file needs before it is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mend {
    Nothing,
    /// redb refuses to go on after an error of the disk.
    Reopen,
    /// Its bytes are damaged.
    Replace,
}

/// A view of the file at one instant.
pub(super) struct Snapshot(std::result::Result<ReadTransaction, Fault>);

impl Base {
    /// Opens or makes the file; also returns how often damage was found.
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<(Base, u64)> {
        let (database, damaged) = match open_database(path, cache_bytes) {
            Ok(database) => (database, 0),
            Err(Fault::Outside(error)) => return Err(error),
            Err(Fault::Damage(what)) => {
                tracing::warn!("{} is damaged and starts empty: {what}", path.display());
                (replace_database(path, cache_bytes)?, 1)
            }
        };
        let base = Base {
            path: path.to_path_buf(),
            cache_bytes,
            database: RwLock::new(Some(database)),
            mend: Mutex::new(Mend::Nothing),
            damaged: AtomicU64::new(0),
        };
        Ok((base, damaged))
    }

    pub(super) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Returns what the file takes: it is longer than that while it is young.
    pub(super) fn file_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |meta| meta.blocks() * 512)
    }

    /// Returns the number of the newest journal that the file holds; zero when none.
    pub(super) fn applied_seq(&self) -> Result<u64> {
        let found = self.read(|database| {
            let table = match database.begin_read()?.open_table(META) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(0),
                Err(error) => return Err(error.into()),
            };
            Ok(table.get(APPLIED)?.map_or(0, |seq| seq.value()))
        });
        self.absent_if_damaged(found)
    }

    /// Returns a value; damage reads as absence.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.read(|database| {
            let Some(table) = values(&database.begin_read()?)? else {
                return Ok(None);
            };
            Ok(table
                .get(key)?
                .map(|stored| checked(key, stored.value()).map(<[u8]>::to_vec)))
        });
        let value = self.absent_if_damaged(found)?;
        if value == Some(None) {
            self.note_damage("a value fails its checksum");
        }
        Ok(value.flatten())
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot(self.read(|database| Ok(database.begin_read()?)))
    }

    /// Returns the good pairs of a range, in key order.
    pub(super) fn range(&self, snapshot: Snapshot, from: &[u8], to: &[u8]) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        let mut bad = 0;
        let read = snapshot.0.and_then(|transaction| {
            caught(|| {
                // Its end is redb's work, too.
                let transaction = transaction;
                let Some(table) = values(&transaction)? else {
                    return Ok(());
                };
                for pair in table.range::<&[u8]>(from..to)? {
                    let (key, stored) = pair?;
                    match checked(key.value(), stored.value()) {
                        Some(value) => pairs.push((key.value().to_vec(), value.to_vec())),
                        None => bad += 1,
                    }
                }
                Ok(())
            })
        });
        self.absent_if_damaged(read)?;
        if bad > 0 {
            self.note_damage(&format!("{bad} values fail their checksums"));
        }
        // A damaged tree may give keys out of order, and callers merge.
        if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
            pairs.sort_unstable();
            pairs.dedup_by(|a, b| a.0 == b.0);
        }
        Ok(pairs)
    }

    /// Commits changes and the number of their journal, and syncs. Mends the file first, also when
    /// it is the commit that finds damage.
    pub(super) fn apply(&self, changes: &Changes, seq: u64) -> Result<()> {
        self.mend()?;
        let result = match self.try_apply(changes, seq) {
            Err(Fault::Damage(what)) => {
                self.note_broken(&what);
                self.mend()?;
                self.try_apply(changes, seq)
            }
            other => other,
        };
        result.map_err(|fault| {
            if matches!(fault, Fault::Outside(_)) {
                self.ask_for(Mend::Reopen);
            }
            fault.into_error(&self.path)
        })
    }

    /// Reopens the file or replaces it by an empty one, if it needs that.
    pub(super) fn mend(&self) -> Result<()> {
        let need = *self.mend.lock();
        if need == Mend::Nothing {
            return Ok(());
        }
        let mut database = self.database.write();
        // Dropping may panic on a broken file, too; its lock goes with the file descriptor.
        let old = database.take();
        guarded(move || drop(old));
        let opened = match need {
            Mend::Replace => Err(Fault::Damage(String::new())),
            Mend::Nothing | Mend::Reopen => open_database(&self.path, self.cache_bytes),
        };
        *database = Some(match opened {
            Ok(opened) => opened,
            Err(Fault::Outside(error)) => return Err(error),
            Err(Fault::Damage(_)) => replace_database(&self.path, self.cache_bytes)?,
        });
        *self.mend.lock() = Mend::Nothing;
        Ok(())
    }

    fn try_apply(&self, changes: &Changes, seq: u64) -> std::result::Result<(), Fault> {
        let guard = self.database.read();
        let Some(database) = guard.as_ref() else {
            return Err(Fault::closed());
        };
        caught(|| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(VALUES)?;
                let mut stored = Vec::new();
                for (key, value) in changes {
                    match value {
                        Some(value) => {
                            stored.clear();
                            stored.extend_from_slice(&checksum(key, value).to_le_bytes());
                            stored.extend_from_slice(value);
                            table.insert(key.as_slice(), stored.as_slice())?;
                        }
                        None => {
                            table.remove(key.as_slice())?;
                        }
                    }
                }
                transaction.open_table(META)?.insert(APPLIED, seq)?;
            }
            Ok(transaction.commit()?)
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Database) -> Stored<T>) -> std::result::Result<T, Fault> {
        match self.database.read().as_ref() {
            Some(database) => caught(|| read(database)),
            None => Err(Fault::closed()),
        }
    }

    /// Turns damage into what an empty file would give, and marks the file as broken.
    fn absent_if_damaged<T: Default>(&self, result: std::result::Result<T, Fault>) -> Result<T> {
        match result {
            Ok(value) => Ok(value),
            Err(Fault::Damage(what)) => {
                self.note_broken(&what);
                Ok(T::default())
            }
            Err(fault @ Fault::Outside(_)) => {
                self.ask_for(Mend::Reopen);
                Err(fault.into_error(&self.path))
            }
        }
    }

    fn ask_for(&self, need: Mend) -> bool {
        let mut mend = self.mend.lock();
        let first = *mend != Mend::Replace;
        if first {
            *mend = need;
        }
        first
    }

    fn note_broken(&self, what: &str) {
        if self.ask_for(Mend::Replace) {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                "{} is damaged and will start empty: {what}",
                self.path.display()
            );
        }
    }

    fn note_damage(&self, what: &str) {
        if self.damaged.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("{}: {what}; read as absent", self.path.display());
        }
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        // redb writes at its end, too.
        let database = self.database.get_mut().take();
        guarded(move || drop(database));
    }
}

/// What can be wrong with the file.
enum Fault {
    /// Its bytes: it can be replaced.
    Damage(String),
    /// The disk, its space or its modes: replacing does not help.
    Outside(Error),
}

impl Fault {
    fn closed() -> Fault {
        Fault::Outside(Error::new(
            ErrorKind::Unavailable,
            "the file could not be reopened",
        ))
    }

    fn into_error(self, path: &Path) -> Error {
        match self {
            Fault::Outside(error) => error.context(path.display().to_string()),
            Fault::Damage(what) => Error::new(
                ErrorKind::Unavailable,
                format!("{}: damaged: {what}", path.display()),
            ),
        }
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Fault {
        use std::io::ErrorKind as Io;
        match error {
            redb::Error::Io(io)
                if !matches!(
                    io.kind(),
                    Io::InvalidData | Io::UnexpectedEof | Io::InvalidInput
                ) =>
            {
                Fault::Outside(Error::io("redb", io))
            }
            redb::Error::PreviousIo => Fault::Outside(Error::new(
                ErrorKind::Unavailable,
                "redb stopped at an I/O error",
            )),
            other => Fault::Damage(other.to_string()),
        }
    }
}

fn caught<T>(work: impl FnOnce() -> Stored<T>) -> std::result::Result<T, Fault> {
    match guarded(work) {
        Some(result) => result.map_err(Fault::from),
        None => Err(Fault::Damage("redb panicked on it".into())),
    }
}

fn open_database(path: &Path, cache_bytes: usize) -> std::result::Result<Database, Fault> {
    let opened = guarded(|| {
        // redb would make it readable for all.
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        if let Err(error) = made
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(StorageError::Io(error).into());
        }
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes);
        builder.create(path)
    });
    let context = || format!("open {}", path.display());
    match opened {
        Some(Ok(database)) => Ok(database),
        Some(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(Fault::Outside(
            Error::new(ErrorKind::Busy, "another process has it open").context(context()),
        )),
        Some(Err(DatabaseError::Storage(StorageError::Io(io)))) => {
            Err(match Fault::from(redb::Error::Io(io)) {
                Fault::Outside(error) => Fault::Outside(error.context(context())),
                damage => damage,
            })
        }
        Some(Err(other)) => Err(Fault::Damage(other.to_string())),
        None => Err(Fault::Damage("redb panicked on it".into())),
    }
}

fn replace_database(path: &Path, cache_bytes: usize) -> Result<Database> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io(
                format!("remove the damaged {}", path.display()),
                error,
            ));
        }
        _ => {}
    }
    open_database(path, cache_bytes).map_err(|fault| fault.into_error(path))
}

/// Opens the table; none before the first checkpoint.
fn values(
    transaction: &ReadTransaction,
) -> Stored<Option<ReadOnlyTable<&'static [u8], &'static [u8]>>> {
    match transaction.open_table(VALUES) {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut crcs = [0; 8];
    crcs[..4].copy_from_slice(&crc_fast::crc32_iscsi(key).to_le_bytes());
    crcs[4..].copy_from_slice(&crc_fast::crc32_iscsi(value).to_le_bytes());
    crc_fast::crc32_iscsi(&crcs)
}

/// Returns the value in what is stored, if its checksum holds.
fn checked<'a>(key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, value) = stored.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*crc) == checksum(key, value)).then_some(value)
}
