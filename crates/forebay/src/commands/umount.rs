// SPDX-License-Identifier: Apache-2.0
//! `forebay umount`: ask the daemon to unmount, and wait until it has closed its cache and ended.
//!
//! A mount in use is waited for, and it is said who uses it. What a dead daemon left is taken away.
//! With `--force` the mount goes even when its daemon does not answer any more.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gateway::{Client, wire};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use types::ErrorKind;

use crate::cli::UmountArgs;
use crate::places;
use crate::records::{self, Record};
use crate::values::show_duration;

/// What an answer may take on top of the time that the daemon waits for readers.
const ANSWER_EXTRA: Duration = Duration::from_secs(15);
/// Writing what is queued and syncing the index of a large cache.
const END_MAX: Duration = Duration::from_secs(60);
/// A daemon answers what it knows at once; one that takes longer hangs.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// A daemon that closes its socket before its mount is gone ends so soon after it.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);
/// A daemon that hangs gets this long to end by itself before it is killed.
const TERMINATE_MAX: Duration = Duration::from_secs(2);

/// Unmounts; returns when the daemon has ended.
pub(crate) fn run(args: &UmountArgs, run_dir: Option<&Path>) -> Result<()> {
    let mount_point = places::mounted_at(&args.dir)?;
    match records::find(&places::run_dirs(run_dir), &mount_point)? {
        Some(record) => with_daemon(&record, args)?,
        None => {
            check_there(&mount_point)?;
            without_daemon(&mount_point, args.force)?;
        }
    }
    // With its mount gone, the record of a dead daemon goes too.
    records::scan(&places::run_dirs(run_dir))?;
    super::tell(format_args!("unmounted {}\n", mount_point.display()));
    Ok(())
}

/// Has a daemon unmount, and waits for its end.
fn with_daemon(record: &Record, args: &UmountArgs) -> Result<()> {
    let mount_point = &record.mount_point;
    let pid = Pid::from_raw(record.pid).context("a record without a process")?;
    // Opened before anything else, so that it is this process that is waited for.
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        // It has ended since its record was read.
        Err(Errno::SRCH) => return take_rest(mount_point, args.force),
        process => process.context("watch the daemon")?,
    };
    ask(record, args, &process)?;
    if !ends_within(process.as_fd(), END_MAX) {
        bail!(
            "unmounted '{}', but its daemon (pid {}) is still closing its cache",
            mount_point.display(),
            record.pid
        );
    }
    take_rest(mount_point, args.force)
}

/// Takes away what a daemon left that died instead of unmounting.
fn take_rest(mount_point: &Path, force: bool) -> Result<()> {
    match mount_options(mount_point).is_some() {
        true => without_daemon(mount_point, force),
        false => Ok(()),
    }
}

/// Refuses what is not there, and a mount that another user made.
fn check_there(mount_point: &Path) -> Result<()> {
    let shown = mount_point.display();
    let Some(options) = mount_options(mount_point) else {
        if matches!(mount_point.try_exists(), Ok(false)) {
            bail!("'{shown}' does not exist; 'forebay status' lists the mounts");
        }
        return Ok(());
    };
    let own = rustix::process::getuid().as_raw();
    match owner_in(&options) {
        Some(owner) if own != 0 && owner != own => bail!(
            "'{shown}' was mounted by {}; only that user and root can unmount it",
            user_name(owner)
        ),
        _ => Ok(()),
    }
}

/// Returns the options of what is mounted there, from the kernel's table: the mount is not asked.
fn mount_options(mount_point: &Path) -> Option<String> {
    let table = std::fs::read("/proc/self/mounts").ok()?;
    options_in(&String::from_utf8_lossy(&table), mount_point)
}

fn options_in(table: &str, mount_point: &Path) -> Option<String> {
    let mut escaped = String::new();
    for letter in mount_point.to_str()?.chars() {
        match letter {
            ' ' | '\t' | '\n' | '\\' => escaped.push_str(&format!("\\{:03o}", letter as u32)),
            letter => escaped.push(letter),
        }
    }
    table.lines().rev().find_map(|line| {
        let mut fields = line.split(' ');
        let is_it = fields.nth(1)? == escaped;
        is_it.then(|| fields.nth(1).unwrap_or_default().to_owned())
    })
}

/// Returns the user whose process made a FUSE mount.
fn owner_in(options: &str) -> Option<u32> {
    let uid = options
        .split(',')
        .find_map(|option| option.strip_prefix("user_id="))?;
    uid.parse().ok()
}

fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.map_or_else(|| format!("user {uid}"), |name| format!("user '{name}'"))
}

/// A mount that no live daemon has a record of: dead, or started with another run directory.
fn without_daemon(mount_point: &Path, force: bool) -> Result<()> {
    match fuse::clean_dead_mount(mount_point)? {
        true => Ok(()),
        false => Ok(fuse::unmount(mount_point, force)?),
    }
}

fn ask(record: &Record, args: &UmountArgs, process: &OwnedFd) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let client = Client::new(&record.socket);
    let request = |timeout: Duration| {
        let request = wire::Unmount {
            force: args.force,
            timeout_seconds: timeout.as_secs(),
        };
        runtime.block_on(client.unmount(request, timeout + ANSWER_EXTRA))
    };
    // Whether anybody is there is asked first: it is answered sooner than an unmount may be.
    let answers = runtime.block_on(client.status(SILENCE_MAX));
    let mut asked = answers.and_then(|_| request(Duration::ZERO));
    if let Err(error) = &asked
        && error.kind() == ErrorKind::Busy
        && !args.timeout.is_zero()
    {
        let (time, error) = (show_duration(args.timeout), error.to_string());
        // What to do about it is told when the waiting was in vain.
        let who = error.split(';').next().unwrap_or_default();
        super::complain(format_args!("waits up to {time}: {who}"));
        asked = request(args.timeout);
        if let Err(error) = &asked
            && error.kind() == ErrorKind::Busy
        {
            bail!("waited {time} in vain: {error}");
        }
    }
    match asked {
        Ok(unmounted) => {
            if unmounted.waiting_files > 0 {
                super::complain(format_args!(
                    "{} files are not stored yet; they are kept in the cache directory and are \
                     stored when it is mounted again",
                    unmounted.waiting_files
                ));
            }
            Ok(())
        }
        // Somebody else had it unmounted while we asked.
        Err(error) if is_silent(error.kind()) && is_ending(record, process) => Ok(()),
        Err(error) if is_silent(error.kind()) && !args.force => Err(error).with_context(|| {
            format!(
                "the daemon (pid {}) does not answer; --force ends it",
                record.pid
            )
        }),
        Err(error) if is_silent(error.kind()) => take_down(record, process),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether a daemon that does not answer has unmounted, or ends.
fn is_ending(record: &Record, process: &OwnedFd) -> bool {
    mount_options(&record.mount_point).is_none() || ends_within(process.as_fd(), LAST_WORDS_MAX)
}

/// Returns whether an error of the client means that nobody answered.
fn is_silent(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable)
}

/// Unmounts without the daemon's help, and ends it.
fn take_down(record: &Record, process: &OwnedFd) -> Result<()> {
    match fuse::unmount(&record.mount_point, true) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let process = process.as_fd();
    let pid = Pid::from_raw(record.pid).context("a record without a process")?;
    for (signal, patience) in [(Signal::TERM, TERMINATE_MAX), (Signal::KILL, TERMINATE_MAX)] {
        if !record.is_alive() {
            break;
        }
        kill_process(pid, signal).context("end the daemon")?;
        if ends_within(process, patience) {
            break;
        }
    }
    if let Some(run_dir) = record.socket.parent() {
        Record::remove(run_dir, &record.mount_point);
    }
    Ok(())
}

/// Waits for a process; returns whether it ended in time.
pub(crate) fn ends_within(process: BorrowedFd<'_>, time: Duration) -> bool {
    let Ok(time) = Timespec::try_from(time) else {
        return false;
    };
    let mut fds = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&time)), Ok(1))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_end_of_a_process_is_noticed_and_a_live_one_is_not_dead() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        assert!(!ends_within(process.as_fd(), Duration::from_millis(1)));
        drop(child.stdin.take());
        assert!(ends_within(process.as_fd(), Duration::from_secs(20)));
        child.wait().unwrap();
    }

    #[test]
    fn the_kernel_tells_who_mounted_what() {
        let table = "x /m/a\\040b fuse.forebay ro,user_id=1001,group_id=5 0 0\n\
                     y /m ext4 rw 0 0\nz /m fuse.forebay ro,user_id=0 0 0\n";
        let owner = |point: &str| options_in(table, Path::new(point)).map(|all| owner_in(&all));
        assert_eq!(owner("/m/a b"), Some(Some(1001)));
        assert_eq!(owner("/m"), Some(Some(0)), "the one on top");
        assert_eq!(owner("/m/a"), None);
        assert!(mount_options(Path::new("/proc")).is_some());
        assert_eq!(user_name(0), "user 'root'");
        assert_eq!(user_name(4_000_000_000), "user 4000000000");
    }

    #[test]
    fn a_directory_that_is_no_mount_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let args = UmountArgs {
            dir: dir.path().to_owned(),
            force: false,
            timeout: Duration::ZERO,
        };
        let run_dir = dir.path().join("run");
        let error = run(&args, Some(&run_dir)).unwrap_err().to_string();
        assert!(error.contains("nothing is mounted"), "{error}");
    }
}
