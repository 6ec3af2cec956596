// SPDX-License-Identifier: Apache-2.0
//! Records of running daemons: one small JSON file per mount point in the run directory.
//!
//! A record leads the other commands to a daemon's socket. It is never believed on its own: a
//! daemon is alive when the process of that id started when the record says. Records of daemons
//! that died are removed by whoever meets them, once their mounts are gone too. The directory is
//! private to its user, and one that somebody else made is refused.

use std::io::{ErrorKind as Io, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::places;

/// The kernel's limit of a socket's address, less the byte that ends it.
const SOCKET_PATH_MAX: usize = 107;
/// A record with a thousand mounts is 100 KB.
const RECORD_MAX_BYTES: u64 = 1 << 20;

/// A running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: String,
    pub(crate) pid: i32,
    /// Start of the process in ticks since boot: tells it from a later one of the same id.
    pub(crate) start_ticks: u64,
    pub(crate) mount_point: PathBuf,
    pub(crate) uris: Vec<String>,
    pub(crate) socket: PathBuf,
    pub(crate) log: Option<PathBuf>,
    /// Who wrote the record. Root reads those of all users, and must not be led to a process or a
    /// file of somebody else by what they say.
    #[serde(skip)]
    owner: u32,
}

impl Record {
    /// Makes the record of this process.
    pub(crate) fn of_self(
        run_dir: &Path,
        mount_point: &Path,
        uris: Vec<String>,
        log: Option<PathBuf>,
    ) -> Result<Record> {
        let pid = rustix::process::getpid().as_raw_pid();
        Ok(Record {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid,
            start_ticks: start_ticks(pid).context("read /proc/self/stat")?,
            mount_point: mount_point.to_owned(),
            uris,
            socket: socket_path(run_dir, mount_point),
            log,
            owner: own_uid(),
        })
    }

    /// Returns whether the daemon still runs, as a process of whoever wrote the record.
    pub(crate) fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks) && process_uid(self.pid) == Some(self.owner)
    }

    /// Returns whether the mount is still there, with nobody behind it. The kernel answers that; a
    /// mount of another user is not asked, because it may be made to hang.
    fn is_dead_mount(&self) -> bool {
        if self.owner != own_uid() {
            return false;
        }
        let found = rustix::fs::statfs(&self.mount_point);
        found.is_err_and(|errno| errno == rustix::io::Errno::NOTCONN)
    }

    /// Writes the record where the other commands look; whole or not at all.
    pub(crate) fn write(&self, run_dir: &Path) -> Result<()> {
        let path = record_path(run_dir, &self.mount_point);
        let part = path.with_extension("part");
        let what = || format!("write '{}'", path.display());
        std::fs::write(&part, serde_json::to_vec(self).context("encode")?).with_context(what)?;
        std::fs::rename(&part, &path).with_context(what)
    }

    /// As [`Record::remove`], for this process; what another one has put there since stays.
    pub(crate) fn remove_own(run_dir: &Path, mount_point: &Path) {
        let own = rustix::process::getpid().as_raw_pid();
        let found = read(&record_path(run_dir, mount_point));
        if !found.is_some_and(|record| record.pid != own && record.is_alive()) {
            Record::remove(run_dir, mount_point);
        }
    }

    /// Removes the record of a daemon that died, and its socket unless a daemon that has no record
    /// yet listens there.
    fn remove_dead(&self, run_dir: &Path) {
        match UnixStream::connect(&self.socket) {
            Ok(_) => tracing::debug!("'{}' has a new owner", self.socket.display()),
            Err(_) => Record::remove(run_dir, &self.mount_point),
        }
    }

    /// Removes the record and the socket beside it.
    pub(crate) fn remove(run_dir: &Path, mount_point: &Path) {
        for path in [
            record_path(run_dir, mount_point),
            socket_path(run_dir, mount_point),
        ] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != Io::NotFound => {
                    tracing::warn!("remove '{}': {error}", path.display());
                }
                _ => {}
            }
        }
    }
}

/// Returns the path of a daemon's socket.
pub(crate) fn socket_path(run_dir: &Path, mount_point: &Path) -> PathBuf {
    run_dir.join(format!("{}.sock", places::key(mount_point)))
}

fn record_path(run_dir: &Path, mount_point: &Path) -> PathBuf {
    run_dir.join(format!("{}.json", places::key(mount_point)))
}

/// A run directory that was made for a daemon that has not started yet; goes with it.
#[derive(Debug)]
pub(crate) struct NewRunDir(Option<PathBuf>);

impl NewRunDir {
    /// Keeps the directory: the daemon has started.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for NewRunDir {
    fn drop(&mut self) {
        // Fails, as it should, when another daemon has begun to use it.
        self.0.take().map(std::fs::remove_dir);
    }
}

/// Makes the run directory, or checks that only this user writes into the one there.
pub(crate) fn prepare(run_dir: &Path) -> Result<NewRunDir> {
    let what = || format!("run directory '{}'", run_dir.display());
    let fix = "set XDG_RUNTIME_DIR or FOREBAY_RUN_DIR to a directory of your own";
    if run_dir.as_os_str().len() + "/0123456789abcdef.sock".len() > SOCKET_PATH_MAX {
        bail!("{}: its name is too long for a socket; {fix}", what());
    }
    let made = matches!(run_dir.try_exists(), Ok(false)).then(|| run_dir.to_owned());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run_dir)
        .with_context(|| format!("{}: cannot be made; {fix}", what()))?;
    let found = run_dir.symlink_metadata().with_context(what)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        bail!("{}: belongs to somebody else; {fix}", what());
    }
    if found.mode() & 0o022 != 0 {
        bail!("{}: others may write into it; {fix}", what());
    }
    Ok(NewRunDir(made))
}

/// What the records say, each kind in order of the mount points.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Daemons that run.
    pub(crate) live: Vec<Record>,
    /// Daemons that died and left their mount behind.
    pub(crate) dead: Vec<Record>,
}

/// Reads the records below these directories, and removes those of which nothing is left.
pub(crate) fn scan(run_dirs: &[PathBuf]) -> Result<Found> {
    let mut found = Found::default();
    for dir in run_dirs {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == Io::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read '{}'", dir.display())),
        };
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Some(record) if record.is_alive() => found.live.push(record),
                Some(record) if record.is_dead_mount() => found.dead.push(record),
                Some(record) => record.remove_dead(dir),
                // Not a record of ours, or one of a version to come: left alone.
                None => tracing::debug!("'{}' is not a record", path.display()),
            }
        }
    }
    for records in [&mut found.live, &mut found.dead] {
        records.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    }
    Ok(found)
}

/// Returns the live daemon of one mount point.
pub(crate) fn find(run_dirs: &[PathBuf], mount_point: &Path) -> Result<Option<Record>> {
    Ok(scan(run_dirs)?
        .live
        .into_iter()
        .find(|record| record.mount_point == mount_point))
}

fn read(path: &Path) -> Option<Record> {
    let file = std::fs::File::open(path).ok()?;
    let mut text = Vec::new();
    (&file).take(RECORD_MAX_BYTES).read_to_end(&mut text).ok()?;
    let mut record: Record = serde_json::from_slice(&text).ok()?;
    record.owner = file.metadata().ok()?.uid();
    record.socket = socket_path(path.parent()?, &record.mount_point);
    Some(record)
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Returns the effective user of a process.
fn process_uid(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Returns when a process started, in ticks since boot; none when it is gone or only a zombie.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, a parenthesis too; fields are counted after it.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    match state {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn own_record(dir: &Path) -> Record {
        Record::of_self(dir, Path::new("/mnt/data"), vec!["s3://b".into()], None).unwrap()
    }

    #[test]
    fn a_record_does_not_lead_to_a_process_of_another_user() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = own_record(dir.path());
        assert!(record.is_alive());
        record.owner += 1;
        assert!(!record.is_alive());
    }

    #[test]
    fn a_live_daemon_is_found_by_its_mount_point() {
        let dir = tempfile::tempdir().unwrap();
        let record = own_record(dir.path());
        record.write(dir.path()).unwrap();
        let dirs = [dir.path().to_owned(), dir.path().join("absent")];
        assert_eq!(find(&dirs, Path::new("/mnt/data")).unwrap(), Some(record));
        assert_eq!(find(&dirs, Path::new("/mnt/other")).unwrap(), None);
    }

    #[test]
    fn what_a_dead_daemon_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = own_record(dir.path());
        record.start_ticks += 1; // The id was given to another process since.
        record.write(dir.path()).unwrap();
        std::fs::write(&record.socket, b"").unwrap();
        std::fs::write(dir.path().join("notes.json"), b"{}").unwrap();
        assert_eq!(scan(&[dir.path().to_owned()]).unwrap(), Found::default());
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn the_socket_of_a_daemon_that_has_no_record_yet_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = own_record(dir.path());
        record.start_ticks += 1; // Of the daemon before, which died.
        record.write(dir.path()).unwrap();
        let starting = std::os::unix::net::UnixListener::bind(&record.socket).unwrap();
        assert_eq!(scan(&[dir.path().to_owned()]).unwrap(), Found::default());
        assert!(record.socket.try_exists().unwrap());
        drop(starting);
        assert_eq!(scan(&[dir.path().to_owned()]).unwrap(), Found::default());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_ending_daemon_leaves_what_its_successor_put_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = own_record(dir.path());
        record.write(dir.path()).unwrap();
        Record::remove_own(dir.path(), &record.mount_point);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut other = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        record.pid = i32::try_from(other.id()).unwrap();
        record.start_ticks = start_ticks(record.pid).unwrap();
        record.write(dir.path()).unwrap();
        Record::remove_own(dir.path(), &record.mount_point);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(other.stdin.take());
        other.wait().unwrap();
    }

    #[test]
    fn the_run_directory_is_private_and_not_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a/run");
        drop(prepare(&run).unwrap());
        assert!(!run.try_exists().unwrap(), "the daemon did not start");
        prepare(&run).unwrap().keep();
        assert_eq!(run.metadata().unwrap().mode() & 0o777, 0o700);
        drop(prepare(&run).unwrap());
        assert!(run.try_exists().unwrap(), "it was there before");
        std::fs::set_permissions(&run, PermissionsExt::from_mode(0o1777)).unwrap();
        assert!(
            prepare(&run)
                .unwrap_err()
                .to_string()
                .contains("others may write")
        );
        std::fs::write(dir.path().join("file"), b"").unwrap();
        assert!(prepare(&dir.path().join("file")).is_err());
        std::os::unix::fs::symlink(&run, dir.path().join("link")).unwrap();
        assert!(prepare(&dir.path().join("link")).is_err());
        let long = dir.path().join("x".repeat(100));
        assert!(prepare(&long).unwrap_err().to_string().contains("too long"));
    }
}
