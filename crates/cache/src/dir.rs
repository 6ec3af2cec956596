// SPDX-License-Identifier: Apache-2.0
//! The cache directory itself: who holds it, which format it has, whether the last stop was clean.
//!
//! - `LOCK`: locked with `flock` for as long as the store is open; holds the pid of the holder.
//! - `FORMAT`: `forebay cache 1`. Another version is refused, not converted: all of it can be fetched
//!   again, but throwing it away is for the user to decide.
//! - `CLEAN`: number of the run that stopped cleanly. Taken away, durably, before anything changes.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use types::{Error, ErrorKind, Result};

const FORMAT: &str = "forebay cache 1\n";
const FORMAT_WORD: &str = "forebay cache ";

/// A killed process was seen to hold its files for some tens of milliseconds.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A directory that this process holds.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// The lock goes when it is closed.
    _lock: File,
}

impl Directory {
    /// Makes the directory if need be and takes hold of it.
    pub(crate) fn hold(path: &Path) -> Result<Directory> {
        let context = || format!("cache directory {}", path.display());
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| Error::io("cannot be made", e).context(context()))?;
        if matches!(path.join("FORMAT").try_exists(), Ok(false)) {
            // Not even a lock is left where it does not belong.
            refuse_foreign(path).map_err(|e| e.context(context()))?;
        }
        let directory = Directory {
            path: path.to_path_buf(),
            _lock: lock(path)?,
        };
        directory.check_format().map_err(|e| e.context(context()))?;
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the mark of a clean stop away and returns which run left it.
    pub(crate) fn take_clean(&self) -> Result<Option<u32>> {
        let path = self.path.join("CLEAN");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            // Unreadable is as good as absent; that it must go is checked below.
            Err(_) => String::new(),
        };
        let context = || format!("remove {}", path.display());
        std::fs::remove_file(&path).map_err(|e| Error::io(context(), e))?;
        self.sync().map_err(|e| Error::io(context(), e))?;
        Ok(text.trim_end().parse().ok())
    }

    /// Marks that `run` stopped cleanly, durably.
    pub(crate) fn mark_clean(&self, run: u32) -> std::io::Result<()> {
        write_synced(&self.path.join("CLEAN"), &format!("{run}\n"))?;
        self.sync()
    }

    fn check_format(&self) -> Result<()> {
        let path = self.path.join("FORMAT");
        match std::fs::read_to_string(&path) {
            Ok(text) if text == FORMAT => return Ok(()),
            Ok(text) if text.starts_with(FORMAT_WORD) => {
                let found = text[FORMAT_WORD.len()..]
                    .trim()
                    .chars()
                    .take(20)
                    .collect::<String>();
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "its format is '{found}', this program reads 1: remove all in it but 'staged', \
                         or use another one"
                    ),
                ));
            }
            // Torn while it was made: then the directory holds nothing yet.
            Ok(text) if !FORMAT.starts_with(&text) => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "its FORMAT file is damaged: remove all in it but 'staged', or use another one",
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read FORMAT", error)),
        }
        refuse_foreign(&self.path)?;
        write_synced(&path, FORMAT).map_err(|e| Error::io("write FORMAT", e))?;
        self.sync().map_err(|e| Error::io("sync", e))
    }

    fn sync(&self) -> std::io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// Keeps us from putting files among, or over, those of somebody else.
fn refuse_foreign(dir: &Path) -> Result<()> {
    let context = "list its files";
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(context, e))? {
        let name = entry.map_err(|e| Error::io(context, e))?.file_name();
        if !["LOCK", "FORMAT", "lost+found", "staged"]
            .iter()
            .any(|own| name == *own)
        {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "it is neither empty nor a cache (it holds '{}'): use an empty directory",
                    name.to_string_lossy()
                ),
            ));
        }
    }
    Ok(())
}

/// Locks the directory, or says who holds it.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let context = || format!("directory {}", dir.display());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| {
            Error::io(
                "cannot be written; check its owner and mode, or use another one",
                e,
            )
            .context(context())
        })?;
    if let Err(error) = lock_soon(&file) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(Error::io("cannot be locked", error.into()).context(context()));
        }
        let mut text = String::new();
        let holder = match file.read_to_string(&mut text) {
            Ok(_) if !text.trim().is_empty() => format!("process {}", text.trim()),
            _ => "another process".to_string(),
        };
        let message = format!("{holder} is using it: stop that one, or use another directory");
        return Err(Error::new(ErrorKind::Busy, message).context(context()));
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    written.map_err(|e| Error::io("write LOCK", e).context(context()))?;
    Ok(file)
}

/// Takes the lock as soon as a holder that is just dying lets go of it: its files are closed a moment
/// after it was killed.
fn lock_soon(file: &File) -> rustix::io::Result<()> {
    let mut tries = 0;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if tries < LOCK_TRIES => tries += 1,
            other => return other,
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "the kernel tells nobody when a lock is free, but to who waits for ever"
        )]
        std::thread::sleep(LOCK_PAUSE);
    }
}

fn write_synced(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
