// SPDX-License-Identifier: Apache-2.0
//! Objects as whole files: small ones are fetched whole, and what is cached whole is a file.
//!
//! The fetch waits for the cache, so that the file can be handed to the kernel, but not for long: a
//! disk that cannot follow makes an open slower, never fail. What it has not taken yet is served
//! from memory.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use types::{ByteRange, Deadline, ObjectRef, Result};

use crate::LocalFile;
use crate::flights::Piece;
use crate::pages::TRIES;
use crate::progress::renewed;
use crate::worker::Worker;

/// How long a fetch of a whole object waits for the cache to take it.
const CACHE_PATIENCE: Duration = Duration::from_secs(1);

impl Worker {
    /// Fetches a small object whole. Resolves when it is in the cache, known not to fit there, or
    /// in memory and the cache takes long.
    ///
    /// # Errors
    /// As [`Worker::read`].
    pub fn fetch_whole(
        self: &Arc<Self>,
        object: ObjectRef,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<()>> {
        let worker = Arc::clone(self);
        async move {
            let whole = ByteRange::new(0, object.size());
            let (mut tries, mut deadline) = (1, deadline);
            let pieces = loop {
                let claim = worker.claim(&object, whole, whole, true, deadline).await?;
                deadline = claim.deadline;
                match arrived(&claim.pieces, &mut deadline).await {
                    Ok(()) => break claim.pieces,
                    Err(error)
                        if !claim.own
                            && tries < TRIES
                            && worker.may_try_again(&error, deadline) =>
                    {
                        tries += 1;
                    }
                    Err(error) => return Err(error),
                }
            };
            let patience = worker.clock.deadline(CACHE_PATIENCE);
            let patience = patience.min(deadline.renewed(worker.clock.now()));
            for piece in &pieces {
                if piece.wait_settled(patience).await.is_err() {
                    break;
                }
            }
            Ok(())
        }
        .boxed()
    }

    /// Returns the cache file of an object that is cached whole and verified.
    pub fn local_file(&self, object: &ObjectRef) -> Option<LocalFile> {
        self.cache.as_ref()?.local_file(object.id)
    }
}

async fn arrived(pieces: &[Arc<Piece>], deadline: &mut Deadline) -> Result<()> {
    for piece in pieces {
        let arrived = piece.wait(*deadline).await;
        *deadline = renewed(*deadline, piece.moved());
        arrived?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::runtime::Handle;
    use types::{Clock, MountId, ObjectPath, SystemClock, VersionTag};

    use super::*;
    use crate::Settings;

    #[tokio::test]
    async fn a_cache_that_takes_for_ever_does_not_fail_an_open() {
        let clock = Arc::new(SystemClock);
        let worker =
            Worker::new(Settings::default(), None, None, Handle::current(), clock).unwrap();
        let tag = VersionTag {
            size: 5,
            ..VersionTag::default()
        };
        let path = ObjectPath::parse(b"a").unwrap();
        let object = ObjectRef::new(MountId(1), path, tag);
        let pages = ByteRange::new(0, 5).pages();
        // As it is while the bytes are on their way to a disk that hangs: landed, never settled.
        let piece = worker
            .flights
            .claim(object.id, pages, 0, u64::MAX, |_| vec![false])
            .remove(0);
        piece.land(Ok(Bytes::from_static(b"bytes")));
        let deadline = SystemClock.deadline(Duration::from_millis(1200));
        worker.fetch_whole(object.clone(), deadline).await.unwrap();
        assert!(SystemClock.now() < deadline.instant());
        let mut buf = Vec::new();
        assert!(worker.read_cached(&object, ByteRange::new(0, 5), &mut buf));
        assert_eq!(buf, b"bytes");
    }
}
