// SPDX-License-Identifier: Apache-2.0
//! The real `forebay` binary, run in an environment of its own.
//!
//! A [`Sandbox`] gives the binary a home, a runtime directory, a cache and a mount point below one
//! temporary directory. When it is dropped, also by a panic, everything in it is unmounted and every
//! process that was started in it is ended: it is known by the home directory in its environment,
//! so nothing else can be hit.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::storage::Storage;
use crate::wait;

/// How long a command of the binary may take, the wait for readers at `umount` included.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// How requests come in wherever a test asks for nothing else: the gate runs each test on both ways.
fn transport() -> String {
    std::env::var("FOREBAY_TRANSPORT").unwrap_or_else(|_| "auto".to_owned())
}

/// An environment for the binary.
#[derive(Debug)]
pub struct Sandbox {
    dir: TempDir,
    binary: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// What a command said when it had ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Finished {
    /// Returns the output of a command that has to succeed.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(
            self.status.success(),
            "{}\n{}{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Returns the message of a command that has to refuse: exit code not 0, one message, nothing
    /// that looks like a fault of the program.
    ///
    /// # Panics
    /// When it succeeded, was killed, crashed or said more than a few lines.
    #[track_caller]
    pub fn refusal(self) -> String {
        assert!(
            self.status
                .code()
                .is_some_and(|code| code != 0 && code != 101),
            "{self:?}"
        );
        assert_eq!(self.status.signal(), None, "{self:?}");
        let message = self.stderr.trim();
        assert!(
            !message.is_empty() && message.lines().count() <= 8,
            "not one message: {message}"
        );
        for noise in ["panicked", "RUST_BACKTRACE", "Os {", "Error {"] {
            assert!(!message.contains(noise), "{noise} in: {message}");
        }
        message.to_lowercase()
    }
}

impl Sandbox {
    /// Makes an environment that knows the credentials of `storage`.
    ///
    /// # Panics
    /// When the binary has not been built, or there is no room for a directory.
    pub fn new(storage: &Storage) -> Self {
        let sandbox = Sandbox {
            dir: TempDir::with_prefix("forebay-").expect("temporary directory"),
            binary: binary("forebay"),
            environment: storage.environment(),
        };
        for dir in ["home", "mnt"] {
            fs::create_dir(sandbox.dir.path().join(dir)).expect("directory of the sandbox");
        }
        sandbox
    }

    /// Has daemons send late requests again, as they do by default.
    #[must_use]
    pub fn with_hedging(self) -> Self {
        self.with_variable("FOREBAY_NO_HEDGING", "false")
    }

    /// Replaces a variable of the environment.
    #[must_use]
    pub fn with_variable(mut self, name: &'static str, value: &str) -> Self {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Returns the directory that holds everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the usual mount point, an empty directory.
    pub fn point(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Returns the usual cache directory; the binary makes it.
    pub fn cache_dir(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// Returns the log file of every daemon that is started in here.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("forebay.log")
    }

    /// Returns a command of the binary, for this environment and no other.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        let path = |name: &str| self.dir.path().join(name);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", path("home"))
            .env("FOREBAY_RUN_DIR", path("run"))
            .env("FOREBAY_LOG", self.log())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("FOREBAY_TRANSPORT", transport())
            // Tests count requests, and on a busy machine any answer may be late.
            .env("FOREBAY_NO_HEDGING", "true")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Finished {
        let mut command = self.command();
        command.args(arguments);
        self.finish(command)
    }

    /// Prepares `forebay mount` of `storage` at the usual place, with a cache of 1 GiB.
    pub fn mount(&self, storage: &Storage) -> Mounting<'_> {
        Mounting {
            sandbox: self,
            uri: storage.uri(),
            point: self.point(),
            cache: (self.cache_dir(), "1GiB".into()),
            flags: storage.flags(),
            crash_at: None,
            boot: None,
        }
    }

    /// Returns the processes that were started in here and still live.
    pub fn processes(&self) -> Vec<i32> {
        let mark = [
            b"HOME=",
            self.dir.path().join("home").as_os_str().as_bytes(),
        ]
        .concat();
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|all| all.split(|&byte| byte == 0).any(|one| one == mark))
            })
            .collect()
    }

    /// Returns what is mounted below this directory.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(1));
        points
            .map(PathBuf::from)
            .filter(|point| point.starts_with(self.dir.path()))
            .collect()
    }

    /// Checks that a command left no mount, no process and no socket.
    ///
    /// # Panics
    /// When it did.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        wait::until("every process has ended", || self.processes().is_empty());
        assert_eq!(self.mounts(), Vec::<PathBuf>::new());
        assert_eq!(sockets(self.dir.path()), Vec::<PathBuf>::new());
    }

    fn finish(&self, mut command: Command) -> Finished {
        // Files and not pipes: a daemon that keeps its output open must not make this wait.
        let outputs = TempDir::new_in(self.dir.path()).expect("directory of the output");
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| outputs.path().join(name));
        command.stdout(File::create(&stdout).expect("file of the output"));
        command.stderr(File::create(&stderr).expect("file of the output"));
        let mut child = command.spawn().expect("the binary starts");
        let mut ended = None;
        wait::holds_within(COMMAND_LIMIT, || {
            ended = child.try_wait().expect("own child");
            ended.is_some()
        });
        let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let (stdout, stderr) = (text(&stdout), text(&stderr));
        let Some(status) = ended else {
            child.kill().and_then(|()| child.wait()).expect("own child");
            panic!("{command:?} did not end in {COMMAND_LIMIT:?}\n{stdout}{stderr}");
        };
        Finished {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(pid, Signal::KILL);
        }
        wait::holds_within(wait::PATIENCE, || self.processes().is_empty());
        for point in self.mounts().into_iter().rev() {
            if let Err(error) = unmount(&point, UnmountFlags::DETACH) {
                eprint_line(&format!("{} stays mounted: {error}", point.display()));
            }
        }
    }
}

/// A `forebay mount` that can still be changed.
#[derive(Debug, Clone)]
pub struct Mounting<'a> {
    sandbox: &'a Sandbox,
    uri: String,
    point: PathBuf,
    cache: (PathBuf, String),
    flags: Vec<String>,
    crash_at: Option<String>,
    boot: Option<String>,
}

impl<'a> Mounting<'a> {
    /// Mounts another location.
    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        uri.clone_into(&mut self.uri);
        self
    }

    /// Mounts at another place.
    #[must_use]
    pub fn at(mut self, point: impl Into<PathBuf>) -> Self {
        self.point = point.into();
        self
    }

    /// Uses another cache directory.
    #[must_use]
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache.0 = dir.into();
        self
    }

    /// Gives the cache another capacity.
    #[must_use]
    pub fn cache_size(mut self, size: &str) -> Self {
        size.clone_into(&mut self.cache.1);
        self
    }

    /// Adds a flag and its value, replacing that flag's earlier value.
    #[must_use]
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        if let Some(at) = self.flags.iter().position(|known| known == name) {
            self.flags.drain(at..=at + 1);
        }
        self.flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Adds a flag that takes no value.
    #[must_use]
    pub fn switch(mut self, name: &str) -> Self {
        self.flags.push(name.to_owned());
        self
    }

    /// Has the daemon believe that the machine was started anew, for the time of this number.
    #[must_use]
    pub fn boot(mut self, number: u64) -> Self {
        self.boot = Some(format!("{number:032x}"));
        self
    }

    /// Has the daemon abort when it comes by a fault point for the `passage`-th time.
    #[must_use]
    pub fn crash_at(mut self, point: &str, passage: u64) -> Self {
        self.crash_at = Some(format!("{point}:{passage}"));
        self
    }

    /// Returns the command as it would be run.
    pub fn command(&self) -> Command {
        let mut command = self.sandbox.command();
        command.args(["mount", &self.uri]).arg(&self.point);
        command
            .arg("--cache-dir")
            .arg(&self.cache.0)
            .args(["--cache-size", &self.cache.1]);
        command.args(&self.flags);
        command.envs(self.crash_at.iter().map(|at| ("FOREBAY_CRASH_AT", at)));
        command.envs(self.boot.iter().map(|boot| ("FOREBAY_BOOT_ID", boot)));
        command
    }

    /// Runs the command and returns what it said.
    pub fn run(&self) -> Finished {
        self.sandbox.finish(self.command())
    }

    /// Mounts.
    ///
    /// # Panics
    /// When the command fails, or succeeds without a mount.
    #[track_caller]
    pub fn start(&self) -> Mount<'a> {
        self.run().success();
        Mount::of(self.sandbox, self.point.clone())
    }
}

/// A mount that answers.
#[derive(Debug)]
pub struct Mount<'a> {
    sandbox: &'a Sandbox,
    point: PathBuf,
    pid: i32,
}

impl<'a> Mount<'a> {
    /// Takes charge of a mount that a command of the sandbox made.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn of(sandbox: &'a Sandbox, point: PathBuf) -> Self {
        assert!(
            sandbox.mounts().contains(&point),
            "nothing is mounted at {}",
            point.display()
        );
        // A daemon that is starting is mounted a moment before it can be asked.
        wait::until("the daemon is known", || {
            sandbox
                .run(&["status".as_ref(), point.as_os_str()])
                .status
                .success()
        });
        let mut mount = Mount {
            sandbox,
            point,
            pid: 0,
        };
        mount.pid = i32::try_from(mount.status().number("/pid")).expect("process ids are small");
        assert!(
            sandbox.processes().contains(&mount.pid),
            "status names a foreign process"
        );
        mount
    }

    /// Returns the mount point.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Returns the process id of the daemon.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the path of an object in the mount.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.point.join(name)
    }

    /// Reads a whole file.
    ///
    /// # Panics
    /// When it cannot be read.
    #[track_caller]
    pub fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Asks the daemon how it is.
    ///
    /// # Panics
    /// When `forebay status --json` fails or does not know this mount.
    #[track_caller]
    pub fn status(&self) -> Status {
        let text = self.sandbox.run(&["status", "--json"]).success();
        let all: Value = serde_json::from_str(&text).expect("status --json prints JSON");
        let daemons = all["daemons"].as_array().expect("a list of daemons");
        let mine = daemons
            .iter()
            .find(|one| one["mount_point"].as_str() == self.point.to_str());
        let mine = mine.cloned();
        Status(mine.unwrap_or_else(|| panic!("status does not show the mount: {text}")))
    }

    /// Unmounts as a user does, and waits for the daemon to be gone.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn unmount(self) {
        self.sandbox
            .run(&["umount".as_ref(), self.point.as_os_str()])
            .success();
        assert!(
            !self.sandbox.mounts().contains(&self.point),
            "still mounted"
        );
        wait::until("the daemon has ended", || {
            !self.sandbox.processes().contains(&self.pid)
        });
    }

    /// Kills the daemon as a crash would; the dead mount stays.
    ///
    /// # Panics
    /// When it does not die.
    pub fn crash(self) {
        kill(self.pid, Signal::KILL);
        wait::until("the daemon is dead", || {
            !self.sandbox.processes().contains(&self.pid)
        });
    }

    /// Returns a number of `/proc/PID/status` in bytes: `VmRSS`, or `VmHWM` for the highest so far.
    ///
    /// # Panics
    /// When the daemon is gone.
    pub fn memory(&self, field: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("live daemon");
        let line = text
            .lines()
            .find(|line| line.starts_with(field))
            .expect("known field");
        let number = line
            .split_ascii_whitespace()
            .nth(1)
            .expect("a number follows");
        number.parse::<u64>().expect("a number of KiB") * 1024
    }

    /// Returns how many files the daemon holds open.
    ///
    /// # Panics
    /// When the daemon is gone.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid))
            .expect("live daemon")
            .count()
    }
}

/// What `forebay status --json` says of one daemon.
#[derive(Debug)]
pub struct Status(pub Value);

impl Status {
    /// Returns the number at a JSON pointer.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn number(&self, pointer: &str) -> u64 {
        let value = self.0.pointer(pointer).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("no number at {pointer} in {:#}", self.0))
    }

    /// Returns the requests of all mounts that ask the storage for something.
    ///
    /// # Panics
    /// When they are not told.
    #[track_caller]
    pub fn requests(&self) -> u64 {
        let mounts = self.0["mounts"].as_array().expect("a list of mounts").len();
        let kinds = ["list", "head", "get", "other"];
        let each = (0..mounts).flat_map(|index| kinds.map(|kind| (index, kind)));
        each.map(|(index, kind)| self.number(&format!("/mounts/{index}/requests/{kind}")))
            .sum()
    }
}

/// Empties the kernel's own caches, so that the next read must come to us. Needs root; without it,
/// only what this process may drop is dropped.
pub fn drop_kernel_caches() {
    rustix::fs::sync();
    if let Err(error) = fs::write("/proc/sys/vm/drop_caches", "3") {
        eprint_line(&format!("kernel caches stay warm: {error}"));
    }
}

/// Returns the path of a binary of this build: tests and tools lie beside the product.
///
/// # Panics
/// When it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("path of this program");
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"));
    let path = folder.expect("a program lies in a folder").join(name);
    let built = path.try_exists().is_ok_and(|exists| exists);
    assert!(
        built,
        "{} is missing: cargo build --package {name}",
        path.display()
    );
    path
}

/// Sends a signal to a process of a sandbox; one that is gone already is fine.
pub fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid)
        && let Err(error) = kill_process(pid, signal)
        && error != rustix::io::Errno::SRCH
    {
        eprint_line(&format!("kill {pid:?}: {error}"));
    }
}

/// Returns the Unix sockets below a directory.
fn sockets(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => sockets(&entry.path()),
            Ok(kind) if kind.is_socket() => vec![entry.path()],
            _ => Vec::new(),
        })
        .collect()
}

#[allow(
    clippy::print_stderr,
    reason = "the output of a test is where its reader looks"
)]
fn eprint_line(text: &str) {
    eprintln!("{text}");
}
