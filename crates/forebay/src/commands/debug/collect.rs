// SPDX-License-Identifier: Apache-2.0
//! Gathers what goes into a bundle: of this machine, and of each daemon that runs.
//!
//! What cannot be had is told in the place of it: a bundle is made on machines where something is
//! wrong. Each text passes the redactor as the last thing before it becomes a member.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use gateway::{Client, wire};
use serde::Serialize;
use types::{Clock, SystemClock};

use super::Member;
use super::redact::{Redactor, add_file, add_secret, names_a_secret};
use crate::cli::BundleArgs;
use crate::commands::mounts::block_on;
use crate::places;
use crate::records::{self, Record};

/// What is known is answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// The doctor writes to the cache disk, which may hang.
const DOCTOR_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether the doctor is done.
const DOCTOR_LOOK: Duration = Duration::from_millis(50);
/// Bytes of the end of a log that are packed.
const LOG_BYTES: u64 = 2 << 20;
/// Facts of the kernel that matter to a mount.
const HOST_FILES: [(&str, &str); 13] = [
    ("kernel/version.txt", "/proc/version"),
    ("kernel/os-release.txt", "/etc/os-release"),
    ("kernel/memory.txt", "/proc/meminfo"),
    ("kernel/load.txt", "/proc/loadavg"),
    ("kernel/filesystems.txt", "/proc/filesystems"),
    ("kernel/pressure-io.txt", "/proc/pressure/io"),
    ("kernel/pressure-memory.txt", "/proc/pressure/memory"),
    ("kernel/max-pages.txt", "/proc/sys/fs/fuse/max_pages_limit"),
    (
        "kernel/io-uring-disabled.txt",
        "/proc/sys/kernel/io_uring_disabled",
    ),
    (
        "kernel/fuse-uring.txt",
        "/sys/module/fuse/parameters/enable_uring",
    ),
    ("kernel/file-limit.txt", "/proc/sys/fs/file-nr"),
    ("kernel/fuse.conf.txt", "/etc/fuse.conf"),
    ("kernel/cgroup.txt", "/proc/self/cgroup"),
];
/// Facts of a process.
const PROCESS_FILES: [&str; 5] = ["status", "limits", "cgroup", "io", "schedstat"];
/// Bounds of a cgroup and what it has used of them.
const CGROUP_FILES: [&str; 8] = [
    "memory.max",
    "memory.high",
    "memory.current",
    "memory.events",
    "cpu.max",
    "cpu.stat",
    "pids.max",
    "io.max",
];

/// Gathers all.
pub(super) fn members(args: &BundleArgs, run_dir: Option<&Path>) -> Result<Vec<Member>> {
    let found = records::scan(&places::run_dirs(run_dir))?;
    let mut live = found.live;
    if let Some(dir) = &args.dir {
        let point = places::mounted_at(dir).unwrap_or_else(|_| dir.clone());
        live.retain(|daemon| daemon.mount_point == point);
        if live.is_empty() {
            anyhow::bail!("no daemon of this user serves '{}'", dir.display());
        }
    }
    let asked: Vec<_> = live.iter().map(ask).collect::<Result<_>>()?;
    let redactor = Redactor::new(secrets(&live, &asked))?;
    let mut bundle = Bundle {
        redactor,
        members: Vec::new(),
    };
    bundle.add(
        "versions.txt",
        "versions of this program and of the daemons",
        versions(&live, &asked),
    );
    bundle.add_host();
    if let Some(config) = &args.config {
        bundle.add(
            "config.toml",
            "the configuration file that was named",
            read(config),
        );
    }
    for (number, (daemon, asked)) in live.iter().zip(&asked).enumerate() {
        bundle.add_daemon(&format!("daemon-{}", number + 1), daemon, asked);
    }
    if !found.dead.is_empty() {
        let dead = found
            .dead
            .iter()
            .map(|dead| format!("{}\n", dead.mount_point.display()));
        bundle.add(
            "dead-mounts.txt",
            "mounts whose daemons died",
            dead.collect(),
        );
    }
    let names: Vec<String> = (bundle.members.iter())
        .map(|member| format!("{}: {}\n", member.name, member.about))
        .collect();
    let text = format!(
        "Made by 'forebay debug bundle', version {}.\nSecrets were taken out, and so were users and queries \
         in URIs. Names of hosts, buckets, files and users are in it.\n\n{}",
        env!("CARGO_PKG_VERSION"),
        names.concat()
    );
    bundle.add("README.txt", "what is in the bundle", text);
    bundle.members.rotate_right(1);
    Ok(bundle.members)
}

/// What a daemon said of itself.
struct Asked {
    status: types::Result<wire::Status>,
    mounts: types::Result<wire::MountList>,
    rules: types::Result<wire::RuleList>,
    jobs: types::Result<wire::JobList>,
    staged: types::Result<wire::StagedList>,
    metrics: types::Result<String>,
}

fn ask(daemon: &Record) -> Result<Asked> {
    let client = Client::new(&daemon.socket);
    block_on(async {
        Asked {
            status: client.status(PATIENCE).await,
            mounts: client.mounts(PATIENCE).await,
            rules: client.rules(PATIENCE).await,
            jobs: client.jobs(PATIENCE).await,
            staged: client.staged(PATIENCE).await,
            metrics: client.metrics(PATIENCE).await,
        }
    })
}

struct Bundle {
    redactor: Redactor,
    members: Vec<Member>,
}

impl Bundle {
    fn add(&mut self, name: &str, about: &'static str, text: String) {
        self.members.push(Member {
            name: name.to_owned(),
            about,
            text: self.redactor.redact(&text),
        });
    }

    fn add_host(&mut self) {
        let variables = variables(own_environment());
        self.add(
            "environment.txt",
            "names of variables that are set; of some the values",
            variables,
        );
        for (name, path) in HOST_FILES {
            self.add(
                name,
                "a fact of the kernel or of this machine",
                read(Path::new(path)),
            );
        }
        self.add(
            "kernel/mounts.txt",
            "what FUSE and overlays are mounted",
            mounts(),
        );
        self.add(
            "doctor.txt",
            "what 'forebay doctor' says of this machine",
            doctor(None),
        );
    }

    fn add_daemon(&mut self, dir: &str, daemon: &Record, asked: &Asked) {
        let mut add = |name: &str, about, text| self.add(&format!("{dir}/{name}"), about, text);
        add(
            "status.json",
            "what 'forebay status' shows",
            json(&asked.status),
        );
        add(
            "mounts.json",
            "its mounts with all options",
            json(&asked.mounts),
        );
        add(
            "rules.json",
            "TTLs, quotas and priorities of paths",
            json(&asked.rules),
        );
        add("jobs.json", "its loads", json(&asked.jobs));
        add(
            "staged.json",
            "what was written and is not stored yet",
            json(&asked.staged),
        );
        let metrics = match &asked.metrics {
            Ok(metrics) => metrics.clone(),
            Err(error) => format!("{error}\n"),
        };
        add("metrics.txt", "its metrics", metrics);
        for name in PROCESS_FILES {
            let path = format!("/proc/{}/{name}", daemon.pid);
            add(
                &format!("process-{name}.txt"),
                "a fact of its process",
                read(Path::new(&path)),
            );
        }
        add("cgroup.txt", "bounds of its cgroup", cgroup(daemon.pid));
        add("arguments.txt", "how it was started", arguments(daemon.pid));
        if let Some(config) = config_of(daemon.pid) {
            add("config.toml", "its configuration file", read(&config));
        }
        let environment = environment_of(daemon.pid);
        add(
            "environment.txt",
            "names of variables that it has; of some the values",
            variables(environment),
        );
        let log = daemon.log.as_deref();
        add(
            "log.txt",
            "the end of its log",
            log.map_or_else(|| "it logs to a terminal\n".into(), tail),
        );
        let doctor = doctor(Some(&daemon.mount_point));
        add("doctor.txt", "what 'forebay doctor' says of it", doctor);
    }
}

/// Collects what is secret and known here: by the references of the mounts, and by the names of
/// variables.
fn secrets(live: &[Record], asked: &[Asked]) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    let mut environments = vec![own_environment()];
    environments.extend(live.iter().map(|daemon| environment_of(daemon.pid)));
    let mounts = asked.iter().flat_map(|asked| asked.status.iter());
    let mounts = mounts.flat_map(|status| &status.mounts);
    let references: Vec<&String> = mounts
        .flat_map(|mount| mount.credentials.values())
        .collect();
    for (name, value) in environments.iter().flatten() {
        let is_meant = |reference: &&&String| reference.strip_prefix("env:") == Some(name.as_str());
        if names_a_secret(name) || references.iter().any(|reference| is_meant(&reference)) {
            add_secret(&mut known, value);
            // Some hold the name of a file that holds it.
            if value.starts_with('/') {
                add_file(&mut known, Path::new(value));
            }
        }
    }
    for path in references
        .iter()
        .filter_map(|reference| reference.strip_prefix("file:"))
    {
        add_file(&mut known, Path::new(path));
    }
    for home in environments
        .iter()
        .flatten()
        .filter(|(name, _)| name == "HOME")
    {
        add_file(&mut known, &Path::new(&home.1).join(".aws/credentials"));
    }
    known
}

fn own_environment() -> Vec<(String, String)> {
    let all = std::env::vars_os();
    all.map(|(name, value)| {
        let text = |word: std::ffi::OsString| word.to_string_lossy().into_owned();
        (text(name), text(value))
    })
    .collect()
}

fn environment_of(pid: i32) -> Vec<(String, String)> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let pairs = bytes.split(|byte| *byte == 0).filter_map(|pair| {
        let pair = String::from_utf8_lossy(pair);
        let (name, value) = pair.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

/// Tells which variables are set, and what those of our own say that hold no secret.
fn variables(mut all: Vec<(String, String)>) -> String {
    all.sort();
    let mut text = String::new();
    for (name, value) in all {
        let is_told = name.starts_with("FOREBAY_") && !names_a_secret(&name);
        match is_told {
            true => writeln!(text, "{name}={value}").ok(),
            false => writeln!(text, "{name} (set)").ok(),
        };
    }
    text
}

fn versions(live: &[Record], asked: &[Asked]) -> String {
    let seconds = SystemClock.wall().duration_since(std::time::UNIX_EPOCH);
    let mut text = format!(
        "forebay {}\nmade at {} seconds since 1970\n",
        env!("CARGO_PKG_VERSION"),
        seconds.map_or(0, |since| since.as_secs())
    );
    for (daemon, asked) in live.iter().zip(asked) {
        let state = match &asked.status {
            Ok(status) => format!("up for {} s", status.uptime_seconds),
            Err(error) => error.to_string(),
        };
        writeln!(
            text,
            "{}: daemon {} (pid {}), {state}",
            daemon.mount_point.display(),
            daemon.version,
            daemon.pid
        )
        .ok();
    }
    text
}

fn json<T: Serialize>(answer: &types::Result<T>) -> String {
    match answer {
        Ok(answer) => serde_json::to_string_pretty(answer)
            .map_or_else(|error| error.to_string(), |text| text + "\n"),
        Err(error) => format!("{error}\n"),
    }
}

fn read(path: &Path) -> String {
    match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("{}: {error}\n", path.display()),
    }
}

/// Returns the lines of the mount table that are about us or what we may lie on.
fn mounts() -> String {
    let all = read(Path::new("/proc/self/mounts"));
    let is_told = |line: &&str| ["fuse", "overlay"].iter().any(|kind| line.contains(kind));
    all.lines()
        .filter(is_told)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Returns the bounds of the cgroup of a process, and of those around it.
fn cgroup(pid: i32) -> String {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let Some(path) = path else {
        return "no cgroup of version 2\n".to_owned();
    };
    let root = Path::new("/sys/fs/cgroup");
    let mut text = String::new();
    let inner = root.join(path);
    for dir in inner.ancestors().take_while(|dir| dir.starts_with(root)) {
        for name in CGROUP_FILES {
            if let Ok(value) = std::fs::read_to_string(dir.join(name)) {
                let value = value.trim().replace('\n', ", ");
                writeln!(text, "{}: {value}", dir.join(name).display()).ok();
            }
        }
    }
    match text.is_empty() {
        true => "no bounds of a cgroup can be seen\n".to_owned(),
        false => text,
    }
}

fn arguments_of(pid: i32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

fn arguments(pid: i32) -> String {
    arguments_of(pid).join(" ") + "\n"
}

/// Returns the configuration file that a daemon was started with.
fn config_of(pid: i32) -> Option<PathBuf> {
    let words = arguments_of(pid);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if let Some(path) = word.strip_prefix("--config=") {
            return Some(path.into());
        }
        if word == "--config" {
            return words.next().map(PathBuf::from);
        }
    }
    let variables = environment_of(pid);
    let found = variables
        .into_iter()
        .find(|(name, _)| name == "FOREBAY_CONFIG");
    found.map(|(_, path)| path.into())
}

/// Returns the end of a log, whole lines of it, with what was written before it was last begun anew.
fn tail(path: &Path) -> String {
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    let now = last_bytes(path, LOG_BYTES);
    let left = LOG_BYTES.saturating_sub(now.len() as u64);
    let before = last_bytes(Path::new(&older), left);
    match now.is_empty() && before.is_empty() {
        true => format!("{}: nothing could be read\n", path.display()),
        false => before + &now,
    }
}

fn last_bytes(path: &Path, max: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let len = file.metadata()?.len();
        let from = len.saturating_sub(max);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // Half a line may be half a secret, that nothing recognises.
        Ok(match from {
            0 => text,
            _ => text
                .split_once('\n')
                .map_or_else(String::new, |(_, rest)| rest.to_owned()),
        })
    };
    read().unwrap_or_default()
}

/// Asks the doctor, for a while.
fn doctor(mount_point: Option<&Path>) -> String {
    let Ok(program) = std::env::current_exe() else {
        return "this program cannot be found\n".to_owned();
    };
    let mut command = Command::new(program);
    command.arg("doctor").args(mount_point).stdin(Stdio::null());
    let out = tempfile::tempfile().and_then(|file| {
        command.stdout(file.try_clone()?).stderr(file.try_clone()?);
        let child = command.spawn()?;
        Ok((file, child))
    });
    let (mut file, mut child) = match out {
        Ok(out) => out,
        Err(error) => return format!("ask the doctor: {error}\n"),
    };
    let deadline = SystemClock.deadline(DOCTOR_MAX);
    let ended = block_on(async {
        loop {
            match child.try_wait() {
                Ok(Some(_)) => return true,
                _ if deadline.left(SystemClock.now()).is_zero() => return false,
                _ => tokio::time::sleep(DOCTOR_LOOK).await,
            }
        }
    });
    let note = match ended {
        Ok(true) => String::new(),
        _ => {
            child.kill().ok();
            child.wait().ok();
            format!("it did not end within {DOCTOR_MAX:?}\n")
        }
    };
    use std::io::{Read, Seek};
    let mut text = String::new();
    file.rewind()
        .and_then(|()| file.read_to_string(&mut text))
        .ok();
    text + &note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_variables_names_are_told_and_values_of_our_own_only() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let text = variables(vec![
            pair("HF_TOKEN", "hush"),
            pair("FOREBAY_CACHE_SIZE", "1GiB"),
            pair("FOREBAY_TOKEN", "hush"),
        ]);
        assert_eq!(
            text,
            "FOREBAY_CACHE_SIZE=1GiB\nFOREBAY_TOKEN (set)\nHF_TOKEN (set)\n"
        );
    }

    #[test]
    fn the_end_of_a_log_is_whole_lines_of_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        std::fs::write(&log, "new 1\nnew 2\n").unwrap();
        std::fs::write(dir.path().join("x.log.1"), "old 1\nold 2\n").unwrap();
        assert_eq!(tail(&log), "old 1\nold 2\nnew 1\nnew 2\n");
        assert_eq!(last_bytes(&log, 8), "new 2\n");
        assert!(tail(Path::new("/nowhere")).contains("nothing could be read"));
    }
}
