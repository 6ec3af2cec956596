// SPDX-License-Identifier: Apache-2.0
//! `forebay umount`: ask the daemon to unmount, and wait until it has closed its cache and ended.
//!
//! A mount in use is waited for, and it is said who uses it. What a dead daemon left is taken away.
//! With `--force` the mount goes even when its daemon does not answer any more.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gateway::{Client, wire};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use types::ErrorKind;

use crate::cli::UmountArgs;
use crate::places;
use crate::records::{self, Record};

/// What an answer may take on top of the time that the daemon waits for readers.
const ANSWER_EXTRA: Duration = Duration::from_secs(15);
/// Writing what is queued and syncing the index of a large cache.
const END_MAX: Duration = Duration::from_secs(60);
/// A daemon answers what it knows at once; one that takes longer hangs.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// A daemon that hangs gets this long to end by itself before it is killed.
const TERMINATE_MAX: Duration = Duration::from_secs(2);

/// Unmounts; returns when the daemon has ended.
pub(crate) fn run(args: &UmountArgs, run_dir: Option<&Path>) -> Result<()> {
    let mount_point = places::mount_point(&args.dir)?;
    let Some(record) = records::find(&places::run_dirs(run_dir), &mount_point)? else {
        without_daemon(&mount_point, args.force)?;
        // With its mount gone, the record of a dead daemon goes too.
        records::scan(&places::run_dirs(run_dir))?;
        super::tell(format_args!("unmounted {}\n", mount_point.display()));
        return Ok(());
    };
    let pid = Pid::from_raw(record.pid).context("a record without a process")?;
    // Opened before anything else, so that it is this process that is waited for.
    let process = pidfd_open(pid, PidfdFlags::empty()).context("watch the daemon")?;
    ask(&record, args, &process)?;
    if !ends_within(std::os::fd::AsFd::as_fd(&process), END_MAX) {
        bail!(
            "unmounted '{}', but its daemon (pid {}) is still closing its cache",
            mount_point.display(),
            record.pid
        );
    }
    super::tell(format_args!("unmounted {}\n", mount_point.display()));
    Ok(())
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
        eprintln!(
            "waits up to {}: {error}",
            crate::values::show_duration(args.timeout)
        );
        asked = request(args.timeout);
    }
    match asked {
        Ok(_) => Ok(()),
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
    let process = std::os::fd::AsFd::as_fd(process);
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
    use std::os::fd::AsFd;
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
