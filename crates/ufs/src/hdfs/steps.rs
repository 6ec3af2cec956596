// SPDX-License-Identifier: Apache-2.0
//! How a file on its way becomes what was wanted: the steps of `write`, each sent until it is done.
//!
//! A rename whose answer was lost has been done when the old name is gone, because nobody else
//! touches temporary names. HDFS has one exception for many reasons to refuse a rename: a look at
//! both names tells them apart.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use types::{Deadline, Error, ErrorKind, NodeKind, ObjectMeta, ObjectPath, Result};

use super::files::{Change, Failure, HadoopFiles, Seen, Sink, Step, Taken};
use super::version::{GRAIN, milliseconds};
use crate::retry::Retry;
use crate::temporary::{check_name, is_left_behind, set_aside_of, temporary_name};
use crate::{Expect, FileAttributes};

/// How long a writer that failed takes to tidy up behind itself.
const TIDY_UP: Duration = Duration::from_secs(5);
/// A listing is not held up for longer than so many removals take.
const SWEPT_AT_ONCE: usize = 16;
/// What HDFS keeps of a mode.
const MODE_BITS: u32 = 0o1777;

/// What a file on its way becomes.
#[derive(Debug, Clone)]
pub(super) struct Goal {
    pub(super) what: Arc<str>,
    /// The full path of the file.
    pub(super) target: String,
    /// The full path of its directory, with a slash at its end.
    dir: String,
    attributes: FileAttributes,
}

impl Goal {
    pub(super) fn new(
        files: &impl HadoopFiles,
        operation: &str,
        path: &ObjectPath,
        attributes: &FileAttributes,
    ) -> Result<Self> {
        let what = naming(files, operation, path);
        let told = |error: Error| error.context(what.to_string());
        check_name(path).map_err(told)?;
        let root = || Error::new(ErrorKind::IsADirectory, "it is the directory of the mount");
        let (dir, _) = path.split().ok_or_else(root).map_err(told)?;
        let dir = files.location().full(&dir).map_err(told)?;
        Ok(Goal {
            target: files.location().full(path).map_err(told)?,
            dir: format!("{}/", dir.trim_end_matches('/')),
            what,
            attributes: attributes.clone(),
        })
    }

    pub(super) fn step(&self, deadline: Deadline) -> Step {
        Step {
            what: Arc::clone(&self.what),
            deadline,
        }
    }

    pub(super) fn temporary(&self) -> String {
        format!("{}{}", self.dir, temporary_name())
    }

    pub(super) fn mode(&self) -> Option<u32> {
        self.attributes.owner.map(|owner| owner.mode & MODE_BITS)
    }
}

pub(super) fn naming(files: &impl HadoopFiles, operation: &str, path: &ObjectPath) -> Arc<str> {
    format!("{operation} {}{path}", files.location().uri()).into()
}

/// Tries until it succeeds, cannot succeed, or the deadline comes.
pub(super) async fn until_done<T, F>(
    files: &impl HadoopFiles,
    deadline: Deadline,
    attempt: impl Fn() -> F + Send + Sync,
) -> Result<T>
where
    F: Future<Output = Result<T>> + Send,
{
    let mut retry = Retry::new(deadline);
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => retry.pause(files.clock(), files.counters(), error).await?,
        }
    }
}

/// Asks what is at a path; `None` when nothing is.
pub(super) async fn look(
    files: &impl HadoopFiles,
    step: &Step,
    path: &str,
) -> Result<Option<Seen>> {
    match until_done(files, step.deadline, || files.seen(step, path)).await {
        Ok(seen) => Ok(Some(seen)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn absent(step: &Step) -> Error {
    Error::new(ErrorKind::NotFound, "no such file or directory").context(step.what.to_string())
}

pub(super) fn refused(step: &Step, kind: ErrorKind, why: &str) -> Error {
    Error::new(kind, why).context(step.what.to_string())
}

/// Removes what a failed writer leaves; if that fails too, it is removed when it is a day old.
pub(super) async fn tidy_up(files: &impl HadoopFiles, goal: &Goal, temporary: &str) {
    let step = goal.step(files.clock().deadline(TIDY_UP));
    if let Err(error) = files.delete(&step, temporary).await {
        tracing::debug!(%error, "a temporary file stays for a day");
    }
}

/// A file on its way that nobody has changed for long, by our clock, or one that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    /// Its full path.
    pub(crate) path: String,
    pub(crate) mtime_ns: i64,
}

/// Removes what writers that died have left, and gives what they set aside its name back. Nobody waits
/// for it, so it is tried once. A clock that is a day ahead must not take files from writers that live:
/// a new file tells the name node's time. A writer that lives sets aside again what came back.
pub(crate) async fn sweep(files: &Arc<impl HadoopFiles>, what: &str, left: &[Left]) {
    let step = Step {
        what: what.into(),
        deadline: files.clock().deadline(TIDY_UP),
    };
    let own_path = |left: &Left| {
        let (dir, name) = left.path.rsplit_once('/')?;
        let own = set_aside_of(name.as_bytes())?;
        Some(format!("{dir}/{}", std::str::from_utf8(own).ok()?))
    };
    let (aside, drafts): (Vec<_>, Vec<_>) = left
        .iter()
        .take(SWEPT_AT_ONCE)
        .partition(|left| own_path(left).is_some());
    for left in aside {
        bring_back(
            &**files,
            &step,
            &left.path,
            &own_path(left).unwrap_or_default(),
        )
        .await;
    }
    let Some(first) = drafts.first() else {
        return;
    };
    let now = match time_of_storage(files, &step, &first.path).await {
        Ok(now) => now,
        Err(error) => {
            tracing::debug!(%error, "left for a mount that may write there");
            return;
        }
    };
    let old = |left: &&&Left| is_left_behind(left.mtime_ns, now);
    for Left { path, .. } in drafts.iter().filter(old) {
        match files.delete(&step, path).await {
            Ok(()) => tracing::info!(path, "removed what a writer that died has left"),
            Err(error) => tracing::debug!(%error, path, "left for the next listing"),
        }
    }
}

/// Gives a file that was set aside its name back, or removes it when another has taken its place.
async fn bring_back(files: &impl HadoopFiles, step: &Step, aside: &str, own: &str) {
    let back = match files.rename(step, aside, own, Taken::Refuse).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => files.delete(step, aside).await,
        back => back,
    };
    match back {
        Ok(()) => tracing::info!(aside, "ended what a writer that died began"),
        Err(error) => tracing::debug!(%error, aside, "left for the next listing"),
    }
}

/// Makes a file beside another, for its time.
async fn time_of_storage(
    files: &Arc<impl HadoopFiles>,
    step: &Step,
    beside: &str,
) -> Result<SystemTime> {
    let dir = beside.rsplit_once('/').map_or("", |(dir, _)| dir);
    let path = format!("{dir}/{}", temporary_name());
    let made = async {
        let mut sink = Arc::clone(files).create(step, &path, None).await?;
        sink.finish(step, Failure::Final).await?;
        files.seen(step, &path).await
    };
    let made = made.await;
    files.delete(step, &path).await?;
    let since = u64::try_from(made?.tag.mtime_ns).unwrap_or(0);
    Ok(UNIX_EPOCH + Duration::from_nanos(since))
}

/// Makes a temporary file for a goal.
pub(super) async fn create(
    files: &Arc<impl HadoopFiles>,
    goal: &Goal,
    step: &Step,
) -> Result<(String, Box<dyn Sink>)> {
    until_done(&**files, step.deadline, || async {
        let temporary = goal.temporary();
        let sink = Arc::clone(files)
            .create(step, &temporary, goal.mode())
            .await?;
        Ok((temporary, sink))
    })
    .await
}

/// Turns a closed temporary file of `len` bytes into what was wanted.
pub(super) async fn publish(
    files: &impl HadoopFiles,
    goal: &Goal,
    step: &Step,
    temporary: (&str, u64),
    expect: &Expect,
) -> Result<ObjectMeta> {
    let (temporary, len) = temporary;
    let sealed = async {
        let seen = async {
            let seen = look(files, step, temporary).await?;
            seen.ok_or_else(|| refused(step, ErrorKind::Stale, "the temporary file is gone"))
        };
        // The name node's clock moves on, so that no later file shares this one's time.
        let (seen, ()) = tokio::join!(seen, tokio::time::sleep(GRAIN));
        let seen = seen?;
        if seen.tag.size != len {
            let why = format!("{} bytes arrived of {len}", seen.tag.size);
            return Err(refused(step, ErrorKind::Corrupt, &why));
        }
        let seen = give(
            files,
            step,
            temporary,
            seen,
            &goal.attributes,
            Refusal::Ignored,
        )
        .await?;
        let taken = check(files, step, &goal.target, expect).await?;
        change_name(files, step, temporary, &goal.target, taken).await?;
        Ok(seen.meta(files.owners()))
    };
    let published = sealed.await;
    if published.is_err() {
        tidy_up(files, goal, temporary).await;
    }
    published
}

/// Checks what must be true of a path, as far as a rename does not.
async fn check(
    files: &impl HadoopFiles,
    step: &Step,
    target: &str,
    expect: &Expect,
) -> Result<Taken> {
    match expect {
        Expect::Anything => Ok(Taken::Replace),
        Expect::Absent => Ok(Taken::Refuse),
        Expect::Version(tag) => match look(files, step, target).await? {
            Some(seen) if seen.kind == NodeKind::File && seen.tag == *tag => Ok(Taken::Replace),
            Some(_) => Err(refused(step, ErrorKind::Stale, "the file changed")),
            None => Err(refused(step, ErrorKind::Stale, "the file is gone")),
        },
    }
}

/// Renames a temporary name, or another that nobody else removes meanwhile.
pub(super) async fn change_name(
    files: &impl HadoopFiles,
    step: &Step,
    from: &str,
    to: &str,
    taken: Taken,
) -> Result<()> {
    let mut retry = Retry::new(step.deadline);
    let mut lost = false;
    loop {
        let error = match files.rename(step, from, to, taken).await {
            Ok(()) => return Ok(()),
            Err(error) if lost && error.kind() == ErrorKind::NotFound => {
                // Done before, but the answer never came; unless what is missing is a directory.
                return match look(files, step, from).await? {
                    None => Ok(()),
                    Some(_) => Err(error),
                };
            }
            Err(error) => error,
        };
        lost |= error.is_retryable();
        if !error.is_retryable() {
            return Err(why_not(files, step, from, to, taken, error).await);
        }
        retry.pause(files.clock(), files.counters(), error).await?;
    }
}

/// Says why a rename was refused, for which HDFS has one exception for many causes.
async fn why_not(
    files: &impl HadoopFiles,
    step: &Step,
    from: &str,
    to: &str,
    taken: Taken,
    error: Error,
) -> Error {
    if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Invalid) {
        return error;
    }
    let kinds = futures::join!(look(files, step, from), look(files, step, to));
    match kinds {
        (Ok(Some(_)), Ok(Some(_))) if taken == Taken::Refuse => {
            refused(step, ErrorKind::AlreadyExists, "the name is taken")
        }
        (Ok(Some(from)), Ok(Some(to))) => match (from.kind, to.kind) {
            (NodeKind::Directory, NodeKind::Directory) => error,
            (NodeKind::Directory, _) => {
                refused(step, ErrorKind::NotADirectory, "a file has that name")
            }
            (_, NodeKind::Directory) => {
                refused(step, ErrorKind::IsADirectory, "a directory has that name")
            }
            _ => error,
        },
        _ => error,
    }
}

/// What to do when an owner cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A new file belongs to whom HDFS says; only a superuser gives files away.
    Ignored,
    /// Told to the caller.
    Told,
}

/// Sets what differs from what is wanted. Returns what is there then.
pub(super) async fn give(
    files: &impl HadoopFiles,
    step: &Step,
    path: &str,
    seen: Seen,
    wanted: &FileAttributes,
    refusal: Refusal,
) -> Result<Seen> {
    let mut changed = false;
    // The owner comes last: whoever gave a file away may not change it any more.
    if let Some(owner) = wanted
        .owner
        .filter(|owner| owner.mode & MODE_BITS != seen.named.mode & MODE_BITS)
    {
        let mode = Change::Mode(owner.mode & MODE_BITS);
        change(files, step, path, &mode).await?;
        changed = true;
    }
    let millis = wanted.mtime_ns.map(milliseconds);
    if let Some(millis) = millis.filter(|millis| *millis != milliseconds(seen.tag.mtime_ns)) {
        change(files, step, path, &Change::Time(millis)).await?;
        changed = true;
    }
    if let Some(owner) = wanted.owner {
        let names = files.owners().names_that_differ(&seen.named, owner).await;
        let done = match names {
            Ok((None, None)) => Ok(false),
            Ok((user, group)) => change(files, step, path, &Change::Names(user, group))
                .await
                .map(|()| true),
            Err(error) => Err(error.context(step.what.to_string())),
        };
        changed |= match done {
            Err(error) if refusal == Refusal::Ignored && is_forbidden(&error) => false,
            done => done?,
        };
    }
    if !changed {
        return Ok(seen);
    }
    look(files, step, path).await?.ok_or_else(|| absent(step))
}

fn is_forbidden(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::Invalid
    )
}

async fn change(files: &impl HadoopFiles, step: &Step, path: &str, change: &Change) -> Result<()> {
    until_done(files, step.deadline, || {
        files.change(step, path, change.clone())
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;
    use types::{ByteRange, Clock, SystemClock, VersionTag};

    use super::super::location::HadoopLocation;
    use super::super::owners::{Named, Owners};
    use super::*;
    use crate::{ByteStream, Counters, Settings, UnderWriter};

    /// Files in memory. The answers to some renames are lost.
    #[derive(Debug)]
    struct Fake {
        location: HadoopLocation,
        owners: Owners,
        counters: Counters,
        files: Mutex<BTreeMap<String, u64>>,
        answers_lost: Mutex<u32>,
    }

    impl Fake {
        fn new(answers_lost: u32) -> Arc<Self> {
            let settings = Settings {
                uri: String::new(),
                options: BTreeMap::new(),
                request_timeout: Duration::from_secs(1),
                max_connections: 1,
            };
            Arc::new(Fake {
                location: HadoopLocation::parse("hdfs", "h/d").unwrap(),
                owners: Owners::new(&settings, Arc::new(SystemClock)).unwrap(),
                counters: Counters::default(),
                files: Mutex::default(),
                answers_lost: Mutex::new(answers_lost),
            })
        }

        fn names(&self) -> Vec<String> {
            self.files.lock().unwrap().keys().cloned().collect()
        }
    }

    #[derive(Debug)]
    struct FakeSink(Arc<Fake>, String);

    #[async_trait]
    impl Sink for FakeSink {
        async fn write(&mut self, _: &Step, bytes: Bytes) -> Result<()> {
            let mut files = self.0.files.lock().unwrap();
            *files.entry(self.1.clone()).or_default() += bytes.len() as u64;
            Ok(())
        }

        async fn finish(&mut self, _: &Step, _: Failure) -> Result<()> {
            Ok(())
        }
    }

    #[async_trait]
    impl HadoopFiles for Fake {
        fn location(&self) -> &HadoopLocation {
            &self.location
        }

        fn clock(&self) -> &dyn Clock {
            &SystemClock
        }

        fn counters(&self) -> &Counters {
            &self.counters
        }

        fn owners(&self) -> &Owners {
            &self.owners
        }

        async fn seen(&self, step: &Step, path: &str) -> Result<Seen> {
            let files = self.files.lock().unwrap();
            let size = *files.get(path).ok_or_else(|| absent(step))?;
            Ok(Seen {
                kind: NodeKind::File,
                tag: VersionTag {
                    size,
                    ..VersionTag::default()
                },
                named: Named {
                    mode: 0o644,
                    owner: "root".into(),
                    group: "root".into(),
                },
            })
        }

        async fn create(
            self: Arc<Self>,
            _: &Step,
            path: &str,
            _: Option<u32>,
        ) -> Result<Box<dyn Sink>> {
            self.files.lock().unwrap().insert(path.into(), 0);
            Ok(Box::new(FakeSink(self, path.into())))
        }

        async fn rename(&self, step: &Step, from: &str, to: &str, taken: Taken) -> Result<()> {
            let mut files = self.files.lock().unwrap();
            if taken == Taken::Refuse && files.contains_key(from) && files.contains_key(to) {
                return Err(refused(step, ErrorKind::AlreadyExists, "the name is taken"));
            }
            let size = files.remove(from).ok_or_else(|| absent(step))?;
            files.insert(to.into(), size);
            let mut lost = self.answers_lost.lock().unwrap();
            if *lost > 0 {
                *lost -= 1;
                return Err(refused(step, ErrorKind::Unavailable, "lost").retryable());
            }
            Ok(())
        }

        async fn delete(&self, _: &Step, path: &str) -> Result<()> {
            self.files.lock().unwrap().remove(path);
            Ok(())
        }

        async fn make_dir(&self, _: &Step, _: &str, _: Option<u32>) -> Result<()> {
            Ok(())
        }

        async fn change(&self, _: &Step, _: &str, _: Change) -> Result<()> {
            Ok(())
        }

        async fn read_range(
            self: Arc<Self>,
            _: &ObjectPath,
            _: &VersionTag,
            _: ByteRange,
            _: Deadline,
        ) -> Result<ByteStream> {
            Err(Error::internal("nothing is read here"))
        }
    }

    async fn put(files: &Arc<Fake>, name: &str, len: u8, expect: &Expect) -> Result<ObjectMeta> {
        let path = ObjectPath::parse(name.as_bytes()).unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(10));
        let bytes = Bytes::from(vec![0; usize::from(len)]);
        let attributes = FileAttributes::default();
        UnderWriter::put(files, &path, bytes, expect, &attributes, deadline).await
    }

    #[tokio::test]
    async fn an_own_success_whose_answer_was_lost_is_no_change_by_others() {
        for expect in [Expect::Absent, Expect::Anything] {
            let files = Fake::new(1);
            let put = put(&files, "f", 3, &expect).await.unwrap();
            assert_eq!((put.tag.size, files.names()), (3, vec!["/d/f".to_string()]));
            assert_eq!(files.counters.snapshot().retries, 1);
        }
        let files = Fake::new(0);
        let first = put(&files, "f", 3, &Expect::Absent).await.unwrap();
        *files.answers_lost.lock().unwrap() = 1;
        let expect = Expect::Version(first.tag);
        assert_eq!(put(&files, "f", 4, &expect).await.unwrap().tag.size, 4);
        let late = put(&files, "f", 5, &expect).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Stale);
        let taken = put(&files, "f", 5, &Expect::Absent).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
        assert_eq!(files.names(), ["/d/f"], "nothing is left behind");
    }
}
