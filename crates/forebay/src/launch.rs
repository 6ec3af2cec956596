// SPDX-License-Identifier: Apache-2.0
//! Starting a daemon: in this process, or as one of its own that outlives us.
//!
//! A daemon of its own is this binary run again as `forebay daemon`. A socket is its standard
//! input: the plan goes in as one line of JSON, and one line comes back, that the mount is ready or
//! why it is not. So nothing but the mount point shows in its argument list, secrets stay in the
//! environment it inherits, and a parent that is gone is noticed.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use types::SystemClock;

use crate::daemon::{self, Ready};
use crate::logging::{self, LogFile};
use crate::places;
use crate::plan::Plan;
use crate::usage::{self, Usage};

/// A start is bounded by the probe of the storages and the recovery of the cache.
const START_MAX: Duration = Duration::from_secs(120);
/// A plan with a thousand mounts is a megabyte.
const PLAN_MAX_BYTES: u64 = 16 << 20;

/// What a daemon tells whoever started it.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Ready(Ready),
    Failed(String),
    /// What was asked for cannot be right.
    Refused(String),
}

/// Runs a daemon in this process until it is unmounted.
pub(crate) fn in_foreground(plan: &Plan, on_ready: impl FnOnce(&Ready)) -> Result<()> {
    let log = logging::start(plan, Arc::new(SystemClock))?;
    daemon::run(plan, log, |ready| {
        on_ready(ready);
        Ok(())
    })
}

/// Starts a daemon of its own and returns when its mount answers. When that fails, nothing of it is
/// left.
pub(crate) fn in_background(plan: &Plan) -> Result<Ready> {
    let (ours, theirs) = UnixStream::pair().context("make a socket for the daemon")?;
    let log = NewLog::create(plan)?;
    let mut child = spawn(plan, theirs, &log)?;
    let ready = exchange(plan, &ours);
    if ready.is_err() {
        end(&mut child, &ours);
        log.undo();
    }
    ready
}

fn spawn(plan: &Plan, stdin: UnixStream, log: &NewLog) -> Result<Child> {
    let own = std::env::current_exe().context("find this program")?;
    keep_files_from_children();
    let output = |log: &NewLog| log.file.try_clone().context("share the log file");
    Command::new(own)
        .arg("daemon")
        .arg(&plan.mount_point)
        .stdin(Stdio::from(OwnedFd::from(stdin)))
        .stdout(output(log)?)
        .stderr(output(log)?)
        .spawn()
        .context("start the daemon")
}

/// What the caller has open, a lock or a file in some mount perhaps, is not for the daemon to hold
/// for days.
#[allow(unsafe_code, reason = "only the C library has this call")]
fn keep_files_from_children() {
    // SAFETY: it marks descriptors to be closed in programs that we start, and closes none here.
    // On a kernel without it (before 5.11) they are inherited, as they would be by any program.
    unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
}

fn exchange(plan: &Plan, mut socket: &UnixStream) -> Result<Ready> {
    let mut line = serde_json::to_vec(plan).context("write the plan")?;
    line.push(b'\n');
    socket
        .write_all(&line)
        .context("give the daemon its plan")?;
    socket
        .set_read_timeout(Some(START_MAX))
        .context("set a time limit")?;
    let mut answer = String::new();
    let read = BufReader::new(socket.take(PLAN_MAX_BYTES)).read_line(&mut answer);
    let log = plan
        .log
        .file
        .as_deref()
        .unwrap_or("the terminal".as_ref())
        .display();
    match read {
        Ok(0) => bail!("the daemon ended before its mount answered; its last words are in {log}"),
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            bail!(
                "the mount did not answer in {} s; see {log}",
                START_MAX.as_secs()
            )
        }
        Err(error) => return Err(error).context("listen to the daemon"),
    }
    match serde_json::from_str(&answer).context("understand the daemon")? {
        Answer::Ready(ready) => Ok(ready),
        Answer::Failed(message) => Err(anyhow!(message)),
        Answer::Refused(message) => Err(usage::wrong(message)),
    }
}

/// Waits for a daemon that failed; one that hangs is asked to end, by the closing of its socket
/// and then by force.
fn end(child: &mut Child, socket: &UnixStream) {
    // An answer after this finds no reader, and a daemon without one unmounts and ends.
    socket.shutdown(std::net::Shutdown::Both).ok();
    let pid = rustix::process::Pid::from_child(child);
    if let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        && !crate::commands::umount::ends_within(pidfd.as_fd(), Duration::from_secs(20))
    {
        child.kill().ok();
    }
    child.wait().ok();
}

/// A log file, and what was not there before.
struct NewLog {
    file: std::fs::File,
    made: Option<PathBuf>,
    /// The topmost directory that was made for it.
    made_dir: Option<PathBuf>,
}

impl NewLog {
    fn create(plan: &Plan) -> Result<NewLog> {
        let path = plan
            .log
            .file
            .as_deref()
            .context("a daemon of its own needs a log file")?;
        let made = matches!(path.try_exists(), Ok(false)).then(|| path.to_owned());
        let made_dir = path.parent().and_then(places::topmost_missing);
        Ok(NewLog {
            file: LogFile::open(path)?.into_file(),
            made,
            made_dir,
        })
    }

    /// Removes the log of a start that failed: its one message is printed. Others that log into the
    /// same file hold a lock on it.
    fn undo(&self) {
        let Some(path) = &self.made else { return };
        if flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        std::fs::remove_file(path).ok();
        let Some(top) = &self.made_dir else { return };
        for dir in path.ancestors().skip(1).take_while(|d| d.starts_with(top)) {
            // Fails, as it should, when other logs are in there.
            std::fs::remove_dir(dir).ok();
        }
    }
}

/// The life of a daemon of its own, from the plan on its standard input to its end.
pub(crate) fn as_daemon() -> Result<()> {
    let stdin = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("take the socket")?;
    let socket = UnixStream::from(stdin);
    let mut line = String::new();
    BufReader::new((&socket).take(PLAN_MAX_BYTES))
        .read_line(&mut line)
        .context("read the plan")?;
    let plan: Plan = serde_json::from_str(&line)
        .context("'forebay daemon' is started by 'forebay mount', not by hand")?;
    // Away from the terminal's signals, and from a working directory that somebody may unmount.
    rustix::process::setsid().context("leave the terminal")?;
    std::env::set_current_dir("/").context("leave the working directory")?;
    let started = logging::start(&plan, Arc::new(SystemClock));
    let mut told = false;
    let outcome = started.and_then(|log| {
        daemon::run(&plan, log, |ready| {
            told = true;
            tell(&socket, &Answer::Ready(ready.clone()))
        })
    });
    match outcome {
        Err(error) if !told => {
            let message = format!("{error:#}");
            let answer = match error.is::<Usage>() {
                true => Answer::Refused(message),
                false => Answer::Failed(message),
            };
            tell(&socket, &answer)
        }
        Err(error) => {
            tracing::error!("{error:#}");
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

fn tell(mut socket: &UnixStream, answer: &Answer) -> Result<()> {
    let mut line = serde_json::to_vec(answer).context("write the answer")?;
    line.push(b'\n');
    socket
        .write_all(&line)
        .context("nobody waits for this mount any more")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(log: PathBuf) -> Plan {
        let mut plan = Plan::of_node(
            "/m".into(),
            Vec::new(),
            &crate::cli::NodeArgs::default(),
            crate::plan::NodeDefaults::default(),
            None,
        )
        .unwrap();
        plan.log.file = Some(log);
        plan
    }

    #[test]
    fn a_failed_start_takes_away_the_log_and_the_directories_it_made_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        for log in [kept.join("x.log"), kept.join("a/b/x.log")] {
            NewLog::create(&plan(log)).unwrap().undo();
            assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_child_does_not_inherit_what_its_parent_has_open() {
        let file = tempfile::tempfile().unwrap();
        let inherited = file.as_fd();
        rustix::io::fcntl_setfd(inherited, rustix::io::FdFlags::empty()).unwrap();
        keep_files_from_children();
        let flags = rustix::io::fcntl_getfd(inherited).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn a_failed_start_leaves_a_log_into_which_another_daemon_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let failed = NewLog::create(&plan(path.clone())).unwrap();
        let other = LogFile::open(&path).unwrap();
        failed.undo();
        assert!(path.try_exists().unwrap());
        drop(other);
        failed.undo();
        assert!(!path.try_exists().unwrap());
    }
}
