// SPDX-License-Identifier: Apache-2.0
//! `forebay mounts check`: tries a storage without mounting it, one line for each step.
//!
//! Each step says pass, not supported or failed, and what to do about a failure; a step that
//! depends on one that failed is left out. Everything is asked of the same trait that a mount uses,
//! so what passes here works there. No line holds a secret: errors of storages hold none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use types::{
    ByteRange, ByteSize, Clock, Error, ErrorKind, NodeKind, ObjectPath, SystemClock, VersionTag,
};
use ufs::{Expect, FileAttributes, UnderStorage, UnderWriter};

use crate::cli::CheckArgs;
use crate::plan::MountPlan;
use crate::storage;

/// Longest time of one step.
const STEP_MAX: Duration = Duration::from_secs(20);
/// How long one measurement of throughput goes on.
const MEASURE: Duration = Duration::from_secs(3);
/// Bytes of the read that is tried first.
const SAMPLE: u64 = 64 << 10;
/// Bytes that one request of a measurement asks for, as a mount does.
const REQUEST: u64 = 8 << 20;
/// Directories looked into for a file.
const DIRECTORIES_MAX: usize = 50;
/// A larger file is worth a look at no more than so many names.
const NAMES_MAX: usize = 5_000;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Pass,
    NotSupported,
    Failed,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Step {
    name: &'static str,
    outcome: Outcome,
    detail: String,
    /// What to do about a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// What is printed with `--json`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    uri: String,
    steps: Vec<Step>,
    /// How many seconds the storage's clock is ahead of ours, when its answers told and it matters.
    #[serde(skip)]
    pub(super) clock_ahead: i64,
}

/// A file to read from.
struct Sample {
    path: ObjectPath,
    tag: VersionTag,
}

/// Checks a storage; fails when a step failed.
pub(crate) fn run(args: &CheckArgs) -> Result<()> {
    let plan = MountPlan::of_flags(&args.uri, &args.storage)?;
    let report = examine(&plan, args.json)?;
    if args.json {
        let text = serde_json::to_string_pretty(&report).context("write JSON")?;
        super::answer(text + "\n")?;
    }
    match report.failed() {
        None => Ok(()),
        Some(fault) => bail!(fault),
    }
}

/// Tries a storage step by step, and prints each unless it is to be quiet.
pub(super) fn examine(plan: &MountPlan, is_quiet: bool) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut check = Check {
        clock,
        is_quiet,
        report: Report {
            uri: plan.uri.clone(),
            ..Report::default()
        },
    };
    runtime.block_on(check.all(plan));
    runtime.shutdown_background();
    Ok(check.report)
}

impl Report {
    /// Says which step failed, if one did.
    pub(super) fn failed(&self) -> Option<String> {
        let failed = |step: &&Step| step.outcome == Outcome::Failed;
        let step = self.steps.iter().find(failed)?;
        Some(format!("{}: '{}' failed", self.uri, step.name))
    }
}

fn counted(count: usize, [one, many]: [&str; 2]) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

struct Check {
    clock: Arc<dyn Clock>,
    /// With JSON, the report comes at the end.
    is_quiet: bool,
    report: Report,
}

impl Check {
    async fn all(&mut self, plan: &MountPlan) {
        let opened = storage::open(plan, &self.clock, STEP_MAX).await;
        let opened = opened.map(|storage| (storage.uri().to_owned(), storage));
        let Some(storage) = self.step("resolve", opened) else {
            return;
        };
        let began = self.clock.now();
        let asked = ufs::probe(&*storage, self.clock.deadline(STEP_MAX)).await;
        self.report.clock_ahead = storage.clock_ahead();
        let took = self.since(began);
        let asked = asked.map(|()| (format!("answered in {took}"), ()));
        if self.step("reach and authenticate", asked).is_none() {
            return;
        }
        let found = self.look_for_a_file(&storage).await;
        let Some(sample) = self.step("list", found) else {
            return;
        };
        match sample {
            None => self.no_file(),
            Some(sample) => self.read(&storage, &sample).await,
        }
        self.write(plan, &storage).await;
    }

    async fn write(&mut self, plan: &MountPlan, storage: &Arc<dyn UnderStorage>) {
        const NAME: &str = "write and delete";
        let why = match (plan.read_only, storage.writer()) {
            (true, _) => "the mount is to be read-only",
            (false, None) => "this storage takes no writes",
            (false, Some(writer)) => {
                let written = self.write_and_delete(writer).await;
                self.step(NAME, written);
                return;
            }
        };
        self.tell(NAME, Outcome::NotSupported, why.to_owned(), None);
    }

    /// Writes a small object under a name that nobody has, and removes it.
    async fn write_and_delete(&self, writer: &dyn UnderWriter) -> types::Result<(String, ())> {
        let (began, process) = (self.clock.now(), std::process::id());
        let since = self.clock.wall().duration_since(std::time::UNIX_EPOCH);
        let name = format!(
            "forebay-check-{process}-{}",
            since.unwrap_or_default().as_nanos()
        );
        let path = ObjectPath::parse(name.as_bytes())?;
        let deadline = self.clock.deadline(STEP_MAX);
        let attributes = FileAttributes::default();
        let content = Bytes::from_static(b"written by 'forebay mounts check'; safe to delete\n");
        let put = writer.put(&path, content, &Expect::Absent, &attributes, deadline);
        let hint = "to only read here, mount with --read-only";
        put.await.map_err(|error| error.context(hint))?;
        let deadline = self.clock.deadline(STEP_MAX);
        let deleted = writer.delete(&path, &Expect::Anything, deadline).await;
        deleted.map_err(|error| error.context(format!("delete '{name}', which stays there")))?;
        Ok((
            format!("wrote and deleted an object in {}", self.since(began)),
            (),
        ))
    }

    fn no_file(&mut self) {
        for name in [
            "read a range",
            "throughput, 1 connection",
            "throughput, 16 connections",
        ] {
            let why = "there is no file with bytes in it to read from".to_owned();
            self.tell(name, Outcome::NotSupported, why, None);
        }
    }

    async fn read(&mut self, storage: &Arc<dyn UnderStorage>, sample: &Sample) {
        let first = self.first_byte(storage, sample).await;
        if self.step("read a range", first).is_none() {
            return;
        }
        let measured = self.throughput(storage, sample, 1).await;
        self.step("throughput, 1 connection", measured);
        let measured = self.throughput(storage, sample, 16).await;
        self.step("throughput, 16 connections", measured);
    }

    /// Lists until a file is found, and the rest of that page for a larger one.
    async fn look_for_a_file(
        &self,
        storage: &Arc<dyn UnderStorage>,
    ) -> types::Result<(String, Option<Sample>)> {
        let began = self.clock.now();
        let mut dirs = VecDeque::from([ObjectPath::root()]);
        let (mut looked_into, mut names) = (0, 0);
        let mut sample: Option<Sample> = None;
        while let Some(dir) = dirs.pop_front() {
            looked_into += 1;
            let mut pages = storage.list(&dir);
            let deadline = self.clock.deadline(STEP_MAX).instant();
            while let Some(page) = tokio::time::timeout_at(deadline.into(), pages.next())
                .await
                .map_err(|_| Error::new(ErrorKind::Timeout, "a listing did not end in time"))?
            {
                for entry in page?.entries {
                    names += 1;
                    let path = dir.join(&entry.name);
                    match entry.meta.kind {
                        NodeKind::Directory if dirs.len() < DIRECTORIES_MAX => dirs.push_back(path),
                        NodeKind::File if larger(&entry.meta.tag, sample.as_ref()) => {
                            let tag = entry.meta.tag;
                            sample = Some(Sample { path, tag });
                        }
                        _ => {}
                    }
                }
                if names >= NAMES_MAX {
                    break;
                }
            }
            if sample.is_some() || names >= NAMES_MAX || looked_into >= DIRECTORIES_MAX {
                break;
            }
        }
        let took = self.since(began);
        Ok((
            format!(
                "{} in {}, {took}",
                counted(names, ["name", "names"]),
                counted(looked_into, ["directory", "directories"])
            ),
            sample,
        ))
    }

    async fn first_byte(
        &self,
        storage: &Arc<dyn UnderStorage>,
        sample: &Sample,
    ) -> types::Result<(String, ())> {
        let began = self.clock.now();
        let range = ByteRange::new(0, SAMPLE).clamp(sample.tag.size);
        let deadline = self.clock.deadline(STEP_MAX);
        let mut body = storage
            .read(&sample.path, &sample.tag, range, deadline)
            .await?;
        let (mut first, mut read) = (None, 0);
        while let Some(bytes) = body.next().await {
            read += bytes?.len() as u64;
            first.get_or_insert_with(|| self.since(began));
        }
        let (path, first) = (&sample.path, first.unwrap_or_default());
        let read = ByteSize(read);
        Ok((format!("{read} of '{path}', first byte after {first}"), ()))
    }

    /// Reads the file again and again over so many connections for a while.
    async fn throughput(
        &self,
        storage: &Arc<dyn UnderStorage>,
        sample: &Sample,
        connections: usize,
    ) -> types::Result<(String, ())> {
        let began = self.clock.now();
        let until = began + MEASURE;
        let deadline = self.clock.deadline(MEASURE + STEP_MAX);
        let mut next = 0;
        let mut request = || {
            let range = ByteRange::new(next, REQUEST).clamp(sample.tag.size);
            next = match range.offset + range.len {
                end if end >= sample.tag.size => 0,
                end => end,
            };
            async move {
                let mut body = storage
                    .read(&sample.path, &sample.tag, range, deadline)
                    .await?;
                let mut read = 0;
                while let Some(bytes) = body.next().await {
                    read += bytes?.len() as u64;
                    if self.clock.now() >= until {
                        break;
                    }
                }
                types::Result::Ok(read)
            }
        };
        let mut under_way: FuturesUnordered<_> = (0..connections).map(|_| request()).collect();
        let mut total = 0;
        while let Some(read) = under_way.next().await {
            total += read?;
            if self.clock.now() < until {
                under_way.push(request());
            }
        }
        let seconds = self
            .clock
            .now()
            .saturating_duration_since(began)
            .as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = total as f64 / seconds.max(0.001) / 1e6;
        let small = match sample.tag.size < REQUEST {
            true => ", from a small file: a larger one would tell more",
            false => "",
        };
        Ok((format!("{rate:.1} MB/s over {seconds:.1} s{small}"), ()))
    }

    fn since(&self, began: Instant) -> String {
        let took = self.clock.now().saturating_duration_since(began);
        format!("{:.1} ms", took.as_secs_f64() * 1e3)
    }

    fn step<T>(&mut self, name: &'static str, result: types::Result<(String, T)>) -> Option<T> {
        match result {
            Ok((detail, value)) => {
                self.tell(name, Outcome::Pass, detail, None);
                Some(value)
            }
            Err(error) => {
                let outcome = match error.kind() {
                    ErrorKind::Unsupported => Outcome::NotSupported,
                    _ => Outcome::Failed,
                };
                let fix = fix(error.kind(), Place::of(&self.report.uri));
                self.tell(name, outcome, error.to_string(), Some(fix.to_owned()));
                None
            }
        }
    }

    fn tell(&mut self, name: &'static str, outcome: Outcome, detail: String, fix: Option<String>) {
        let step = Step {
            name,
            outcome,
            detail,
            fix,
        };
        if !self.is_quiet {
            super::tell(line(&step));
        }
        self.report.steps.push(step);
    }
}

fn larger(tag: &VersionTag, than: Option<&Sample>) -> bool {
    tag.size > than.map_or(0, |sample| sample.tag.size)
}

fn line(step: &Step) -> String {
    let outcome = match step.outcome {
        Outcome::Pass => "pass",
        Outcome::NotSupported => "not supported",
        Outcome::Failed => "failed",
    };
    let fix = step
        .fix
        .as_ref()
        .map(|fix| format!("\n{:<44}fix: {fix}", ""));
    let (name, detail) = (step.name, &step.detail);
    format!(
        "{outcome:<14}{name:<28}  {detail}{}\n",
        fix.unwrap_or_default()
    )
}

/// What kind of place a URI names, as far as the mending of a failure depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A directory of this machine.
    Directory,
    /// An HDFS, by either protocol.
    Hadoop,
    /// Anything else: on the other side of HTTP.
    Service,
}

impl Place {
    fn of(uri: &str) -> Place {
        match uri.split_once("://").map(|(scheme, _)| scheme) {
            None | Some("file" | "cephfs") => Place::Directory,
            Some("hdfs" | "webhdfs" | "swebhdfs") => Place::Hadoop,
            Some(_) => Place::Service,
        }
    }
}

/// Returns what a user can do about a failure of a kind.
fn fix(kind: ErrorKind, place: Place) -> &'static str {
    use Place::{Directory, Hadoop, Service};
    match (kind, place) {
        (ErrorKind::PermissionDenied, Directory) => {
            "let who runs Forebay search, list and read the directory, or run it as another user"
        }
        (ErrorKind::PermissionDenied, Hadoop) => {
            "give --option user=NAME of somebody who may, a Kerberos ticket or keytab, or a \
             delegation token"
        }
        (ErrorKind::PermissionDenied, Service) => {
            "give credentials that may list and read here: --credentials env:NAME, file:/path or \
             profile:NAME, or the environment variables of the storage"
        }
        (ErrorKind::NotFound, Directory | Hadoop) => "check the path, or make the directory first",
        (ErrorKind::NotFound, Service) => {
            "check the name of the bucket or directory, the endpoint and the region"
        }
        (ErrorKind::NotADirectory, _) => "mount the directory that it is in",
        (ErrorKind::Unavailable, Directory) => "check that its file system is mounted and works",
        (ErrorKind::Unavailable, Hadoop) => {
            "check host and port of the name node, and the network from this machine"
        }
        (ErrorKind::Unavailable, Service) => {
            "check the address (--endpoint), the network and the proxy from this machine"
        }
        (ErrorKind::Timeout, Directory) => "it hangs: check the server that it is mounted from",
        (ErrorKind::Timeout, Hadoop | Service) => {
            "it does not answer in time: check the address, network and firewall"
        }
        (ErrorKind::Invalid, _) => "correct the URI or the option that is named",
        (ErrorKind::Unsupported, _) => {
            "use it without this, or switch it on in the storage where that is possible"
        }
        (ErrorKind::ReadOnly, _) => "mount it with --read-only",
        (ErrorKind::OutOfSpace, _) => "make room in the storage or raise its quota",
        (ErrorKind::Stale | ErrorKind::Busy, _) => "something changed meanwhile: try again",
        (
            ErrorKind::AlreadyExists
            | ErrorKind::IsADirectory
            | ErrorKind::NotEmpty
            | ErrorKind::TooLong
            | ErrorKind::CrossMount
            | ErrorKind::Corrupt
            | ErrorKind::Internal,
            _,
        ) => "try again; if it stays, the storage or Forebay has a fault: report the line above",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str) -> Report {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let plan = MountPlan::with_defaults(String::new(), uri.to_owned());
        let mut check = Check {
            clock: Arc::new(SystemClock),
            is_quiet: true,
            report: Report::default(),
        };
        runtime.block_on(check.all(&plan));
        check.report
    }

    #[test]
    fn a_storage_without_files_is_reached_and_not_measured() {
        let dir = tempfile::tempdir().unwrap();
        let report = check(dir.path().to_str().unwrap());
        let outcomes: Vec<_> = report.steps.iter().map(|step| step.outcome).collect();
        let (pass, not) = (Outcome::Pass, Outcome::NotSupported);
        assert_eq!(outcomes, [pass, pass, pass, not, not, not, pass]);
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 0, "what was written is removed");
    }

    #[test]
    fn what_to_do_fits_the_kind_of_the_place() {
        let denied = |uri| fix(ErrorKind::PermissionDenied, Place::of(uri));
        for (uri, words) in [
            ("/data", "who runs Forebay"),
            ("file:///data", "who runs Forebay"),
            ("cephfs:///data", "who runs Forebay"),
            ("hdfs://h/data", "--option user="),
            ("swebhdfs://h/data", "delegation token"),
            ("s3://b/", "--credentials"),
            ("https://h/", "--credentials"),
        ] {
            assert!(denied(uri).contains(words), "{uri}: {}", denied(uri));
        }
    }

    #[test]
    fn what_is_wrong_comes_with_its_fix_and_ends_the_check() {
        let report = check("/nowhere/at/all");
        let [step] = &report.steps[..] else {
            panic!("{report:?}")
        };
        assert_eq!((step.name, step.outcome), ("resolve", Outcome::Failed));
        let text = line(step);
        assert!(text.contains("/nowhere") && text.contains("fix:"), "{text}");
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains("\"failed\""), "{json}");
    }
}
