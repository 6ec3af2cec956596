// SPDX-License-Identifier: Apache-2.0
//! Objects that are sent in parts.
//!
//! The parts that were sent are remembered here, by number; a part that is sent again replaces the
//! earlier one. Nothing shows before the end, which is safe to ask for again: an upload that is not
//! there any more, but whose object has its mark, was completed by an earlier try.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use types::{Deadline, Error, ErrorKind, ObjectMeta, Result};

use super::change::{Change, change, check_before, describe, keys, own};
use super::keys::{Draft, Part, Parted, Step, Stored};
use super::objects::ObjectStore;
use crate::retry::Retry;
use crate::{Expect, Upload};

/// An upload of one object.
pub(super) struct ObjectUpload<S> {
    store: Arc<S>,
    what: String,
    upload: Parted,
    /// What was sent so far. Locked for as long as it takes to note or copy it.
    parts: Mutex<BTreeMap<u32, Part>>,
}

/// Begins an upload.
pub(super) async fn begin<S: ObjectStore>(
    store: &S,
    work: &Change<'_>,
    draft: &Draft,
) -> Result<Parted> {
    let begin = || keys(store).begin(draft);
    let mut retry = Retry::new(work.deadline);
    let session = store.session();
    Ok(Parted {
        id: session.until_done(work.what, &mut retry, begin).await?,
        draft: draft.clone(),
    })
}

/// Makes the parts the object.
pub(super) async fn complete<S: ObjectStore>(
    store: &S,
    work: &Change<'_>,
    upload: &Parted,
    parts: &[Part],
    expect: &Expect,
) -> Result<Stored> {
    let keys = keys(store);
    let send = || async {
        let checked = check_before(keys, Step::Complete, work.key, expect).await;
        let sent = match checked {
            Ok(()) => keys.complete(upload, parts, expect).await,
            Err(fault) => Err(fault),
        };
        sent.map_err(|fault| fault.while_writing(expect))
    };
    change(store, work, send, |seen| own(&upload.draft, seen)).await
}

/// Gives an upload up whose failure is told already; what stays is removed later.
pub(super) async fn abandon<S: ObjectStore>(store: &S, work: &Change<'_>, upload: &Parted) {
    let abort = || keys(store).abort(&upload.draft.key, &upload.id);
    let deadline = store
        .session()
        .clock
        .deadline(store.session().request_timeout);
    let mut retry = Retry::new(deadline);
    let session = store.session();
    if let Err(error) = session.until_done(work.what, &mut retry, abort).await {
        tracing::warn!(%error, "an upload that failed is left behind");
    }
}

impl<S: ObjectStore> ObjectUpload<S> {
    /// Begins one.
    pub(super) async fn begin(
        store: &Arc<S>,
        what: String,
        draft: Draft,
        deadline: Deadline,
    ) -> Result<Self> {
        let work = Change {
            what: &what,
            key: &draft.key,
            deadline,
            carries_bytes: false,
        };
        let upload = begin(&**store, &work, &draft).await?;
        Ok(ObjectUpload {
            store: Arc::clone(store),
            what,
            upload,
            parts: Mutex::default(),
        })
    }

    fn work(&self, deadline: Deadline) -> Change<'_> {
        Change {
            what: &self.what,
            key: &self.upload.draft.key,
            deadline,
            carries_bytes: false,
        }
    }

    /// Returns what was sent, in order; it must be all from 1 on.
    fn sent(&self) -> Result<Vec<Part>> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        match parts
            .keys()
            .zip(1..)
            .all(|(&number, wanted)| number == wanted)
        {
            true => Ok(parts.values().cloned().collect()),
            false => Err(Error::internal("a part was not sent").context(&self.what)),
        }
    }
}

#[async_trait]
impl<S: ObjectStore> Upload for ObjectUpload<S> {
    fn id(&self) -> Option<String> {
        Some(self.upload.id.clone())
    }

    async fn part(&self, number: u32, bytes: Bytes, deadline: Deadline) -> Result<()> {
        let keys = keys(&*self.store);
        let parts_max = keys.abilities().parts_max;
        if !(1..=parts_max).contains(&number) {
            let why = format!("part {number} of at most {parts_max}");
            return Err(Error::new(ErrorKind::Invalid, why).context(&self.what));
        }
        let send = || keys.part(&self.upload, number, bytes.clone());
        let mut retry = Retry::new(deadline);
        let session = self.store.session();
        let part = session.until_sent(&self.what, &mut retry, send).await?;
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(number, part);
        Ok(())
    }

    async fn complete(&self, expect: &Expect, deadline: Deadline) -> Result<ObjectMeta> {
        let mut parts = self.sent()?;
        if parts.is_empty() {
            // An object of no part at all is refused.
            self.part(1, Bytes::new(), deadline).await?;
            parts = self.sent()?;
        }
        let (store, work) = (&*self.store, self.work(deadline));
        let size = parts.iter().map(|part| part.len).sum();
        let stored = complete(store, &work, &self.upload, &parts, expect).await?;
        describe(store, &work, &self.upload.draft, stored, size).await
    }

    async fn abort(&self, deadline: Deadline) -> Result<()> {
        let abort = || keys(&*self.store).abort(&self.upload.draft.key, &self.upload.id);
        let mut retry = Retry::new(deadline);
        let session = self.store.session();
        session.until_done(&self.what, &mut retry, abort).await
    }
}

impl<S> fmt::Debug for ObjectUpload<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectUpload")
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}
