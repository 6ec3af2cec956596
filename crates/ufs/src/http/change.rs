// SPDX-License-Identifier: Apache-2.0
//! The tries of one change of a key, and what is known after it.
//!
//! A request whose answer was lost is sent again; when that meets something, a look tells whether it
//! is its own success, by the mark of the write (`kept`) or by the tag of what was copied. A
//! condition that the storage does not check with the request is checked by a look right before.

use types::{Deadline, Error, ErrorKind, ObjectMeta, Result, VersionTag};

use super::kept::Kept;
use super::keys::{Draft, KeyWriter, Seen, Step, Stored, holds};
use super::objects::{ObjectStore, object};
use super::session::before;
use super::{Outcome, Session};
use crate::Expect;
use crate::retry::Retry;

/// A change of one key, as its tries need to know it.
pub(super) struct Change<'a> {
    /// The operation, for messages.
    pub(super) what: &'a str,
    pub(super) key: &'a str,
    pub(super) deadline: Deadline,
    /// Whether the request carries bytes: as [`Session::until_sent`] then.
    pub(super) carries_bytes: bool,
}

/// Sends a change until it is done, cannot be done, or the deadline comes. `mine` tells from a look
/// whether an earlier try, whose answer was lost, has done it.
pub(super) async fn change<S: ObjectStore, T, F>(
    store: &S,
    change: &Change<'_>,
    send: impl Fn() -> F + Send + Sync,
    mine: impl Fn(Option<Seen>) -> Option<T> + Send + Sync,
) -> Result<T>
where
    F: Future<Output = Outcome<T>> + Send,
{
    let session = store.session();
    let mut retry = Retry::new(change.deadline);
    let mut in_doubt = false;
    loop {
        let sent = async {
            let _connection = session.connection().await;
            send().await
        };
        let sent = match change.carries_bytes {
            true => sent.await,
            false => before(retry.deadline(), sent).await,
        };
        let fault = match sent {
            Ok(done) => return Ok(done),
            Err(fault) => fault,
        };
        if in_doubt && fault.is_final() {
            let look = || keys(store).look(change.key);
            let seen = session.until_done(change.what, &mut retry, look).await?;
            if let Some(done) = mine(seen) {
                return Ok(done);
            }
        }
        in_doubt |= fault.leaves_doubt();
        session.pause(change.what, &mut retry, fault).await?;
    }
}

/// Returns the requests that change the store.
pub(super) fn keys<S: ObjectStore>(store: &S) -> &dyn KeyWriter {
    let keys = store.writer();
    keys.expect("a bucket gives a writer only when its store has one")
}

/// Checks by a look what the storage does not check together with the request.
pub(super) async fn check_before(
    keys: &dyn KeyWriter,
    step: Step,
    key: &str,
    expect: &Expect,
) -> Outcome<()> {
    let can_be_sent = match expect {
        Expect::Anything => return Ok(()),
        Expect::Absent => true,
        Expect::Version(tag) => has_strong_tag(tag),
    };
    if keys.checks(step) && can_be_sent {
        return Ok(());
    }
    holds(expect, keys.look(key).await?.as_ref())
}

fn has_strong_tag(tag: &VersionTag) -> bool {
    let etag = tag.etag.as_deref();
    etag.is_some_and(|etag| !etag.starts_with("W/"))
}

/// Tells whether a look found what a draft has become.
pub(super) fn own(draft: &Draft, seen: Option<Seen>) -> Option<Stored> {
    let seen = seen.filter(|seen| seen.kept.mark.is_some() && seen.kept.mark == draft.kept.mark)?;
    Some(stored(seen))
}

pub(super) fn stored(seen: Seen) -> Stored {
    Stored {
        etag: seen.tag.etag,
        mtime_ns: Some(seen.tag.mtime_ns),
    }
}

/// Returns what a look would tell of an object that was just stored; looks when the storage did not
/// tell its tag.
pub(super) async fn describe<S: ObjectStore>(
    store: &S,
    change: &Change<'_>,
    draft: &Draft,
    stored: Stored,
    size: u64,
) -> Result<ObjectMeta> {
    let session = store.session();
    let Kept { attributes, .. } = &draft.kept;
    let tag = match stored.etag {
        None => {
            // The bytes may have taken all of the time.
            let mut retry = session.retry_of_page();
            let look = || keys(store).look(change.key);
            let seen = session.until_done(change.what, &mut retry, look).await?;
            let gone = || Error::new(ErrorKind::Stale, "the object is gone").context(change.what);
            seen.ok_or_else(gone)?.tag
        }
        etag => VersionTag {
            etag,
            mtime_ns: attributes
                .mtime_ns
                .or(stored.mtime_ns)
                .unwrap_or_else(|| storage_ns(session)),
            size,
        },
    };
    Ok(object(tag, &draft.kept))
}

/// Returns what time it is at the storage, in nanoseconds since 1970.
pub(super) fn storage_ns(session: &Session) -> i64 {
    let now = session.transport.skew.now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}
