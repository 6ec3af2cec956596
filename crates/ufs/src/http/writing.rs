// SPDX-License-Identifier: Apache-2.0
//! The writing side of object stores: one request where one is enough.
//!
//! How each is sent, sent again and checked is in `change`; objects in parts are in `upload`. An
//! object `name/` without bytes marks a directory.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::HeaderMap;
use types::{
    ByteRange, Deadline, Error, ErrorKind, NodeKind, ObjectMeta, ObjectPath, Result, VersionTag,
};

use super::Outcome;
use super::change::{Change, change, check_before, describe, keys, own, storage_ns, stored};
use super::fault::Fault;
use super::kept::Kept;
use super::keys::{Copying, Draft, Parted, Seen, Step, Stored, Unfinished, holds};
use super::objects::{Below, Bucket, ObjectStore, marked_directory};
use super::upload::{self, ObjectUpload};
use crate::retry::Retry;
use crate::{Abilities, Expect, FileAttributes, UnderStorage, UnderWriter, Upload};

/// How much of a large object is copied with one request: some seconds' work of a storage.
const COPY_PART: u64 = 512 << 20;
/// How many parts of a copy are under way at once.
const COPY_PARTS_AT_ONCE: usize = 4;

#[async_trait]
impl<S: ObjectStore> UnderWriter for Bucket<S> {
    fn abilities(&self) -> Abilities {
        keys(&*self.store).abilities()
    }

    fn check_place(&self, path: &ObjectPath) -> Result<()> {
        let session = self.store.session();
        let taken = keys(&*self.store).takes(&self.key(path)?);
        taken.map_err(|fault| fault.into_error(&self.name("write", path), &session.endpoint))
    }

    async fn put(
        &self,
        path: &ObjectPath,
        bytes: Bytes,
        expect: &Expect,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = self.name("write", path);
        let draft = self.draft(path, attributes).map_err(context(&what))?;
        self.put_draft(&what, &draft, bytes, expect, deadline).await
    }

    async fn begin(
        &self,
        path: &ObjectPath,
        _part_size: u64,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<Box<dyn Upload>> {
        let what = self.name("write", path);
        let draft = self.draft(path, attributes).map_err(context(&what))?;
        self.check_room(&what, &draft)?;
        let upload = ObjectUpload::begin(&self.store, what, draft, deadline).await?;
        Ok(Box::new(upload))
    }

    async fn delete(&self, path: &ObjectPath, expect: &Expect, deadline: Deadline) -> Result<()> {
        let what = self.name("remove", path);
        self.not_the_root(path).map_err(context(&what))?;
        let key = self.key(path)?;
        self.delete_key(&what, &key, expect, deadline).await
    }

    async fn create_dir(
        &self,
        path: &ObjectPath,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = self.name("make directory", path);
        let taken = || Error::new(ErrorKind::AlreadyExists, "the name is taken").context(&what);
        let (session, key) = (self.store.session(), self.key(path)?);
        if path.is_root() {
            return Err(taken());
        }
        let draft = self.marker(path, Kept::new(attributes), HeaderMap::new())?;
        let (mut retry_head, mut retry_below) = (Retry::new(deadline), Retry::new(deadline));
        let (head, below) = (|| self.store.head(&key), || self.below(&draft.key));
        let (file, below) = futures::try_join!(
            session.until_done(&what, &mut retry_head, head),
            session.until_done(&what, &mut retry_below, below),
        )?;
        if file.is_some() || below != Below::Nothing {
            return Err(taken());
        }
        let (nothing, absent) = (Bytes::new(), Expect::Absent);
        let made = self.put_draft(&what, &draft, nothing, &absent, deadline);
        let made = made.await?;
        Ok(marked_directory(&made.tag, made.owner))
    }

    async fn remove_dir(&self, path: &ObjectPath, deadline: Deadline) -> Result<()> {
        let what = self.name("remove directory", path);
        self.not_the_root(path).map_err(context(&what))?;
        let (session, prefix) = (self.store.session(), self.prefix_of(path)?);
        let mut retry = Retry::new(deadline);
        let below = || self.below(&prefix);
        match session.until_done(&what, &mut retry, below).await? {
            Below::Nothing => Ok(()),
            Below::Marked { is_empty: true } => {
                let expect = Expect::Anything;
                self.delete_key(&what, &prefix, &expect, deadline).await
            }
            Below::Marked { is_empty: false } | Below::Names => {
                Err(Error::new(ErrorKind::NotEmpty, "the directory is not empty").context(what))
            }
        }
    }

    async fn copy(
        &self,
        from: &ObjectPath,
        tag: &VersionTag,
        to: &ObjectPath,
        expect: &Expect,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = format!("{} to {to}", self.name("copy", from));
        let source = self.source(&what, from, tag, deadline).await?;
        let mut draft = self
            .draft(to, &source.kept.attributes)
            .map_err(context(&what))?;
        draft.kept = source.kept;
        draft.rest = source.rest;
        let copying = Copying {
            from: &self.key(from)?,
            tag: &source.tag,
            to: &draft,
            changes_kept: false,
            expect,
        };
        self.copy_key(&what, &copying, deadline).await
    }

    async fn set_attributes(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = self.name("change attributes of", path);
        if tag.etag.is_none() && self.stat(path, deadline).await?.kind == NodeKind::Directory {
            return self.set_of_directory(path, attributes, deadline).await;
        }
        let source = self.source(&what, path, tag, deadline).await?;
        let draft = Draft {
            key: self.key(path)?,
            is_directory: false,
            kept: source.kept.changed_by(attributes),
            rest: source.rest,
        };
        self.check_room(&what, &draft)?;
        let copying = Copying {
            from: &draft.key,
            tag: &source.tag,
            to: &draft,
            changes_kept: true,
            expect: &Expect::Anything,
        };
        self.copy_key(&what, &copying, deadline).await
    }

    async fn symlink(
        &self,
        path: &ObjectPath,
        target: &[u8],
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = self.name("make link", path);
        let mut draft = self.draft(path, attributes).map_err(context(&what))?;
        draft.kept.link = Some(target.to_vec());
        if let Some(why) = self.is_too_much(&draft) {
            return Err(Error::new(ErrorKind::TooLong, why).context(what));
        }
        let bytes = keys(&*self.store).link_bytes();
        let absent = Expect::Absent;
        self.put_draft(&what, &draft, bytes, &absent, deadline)
            .await
    }

    async fn give_up(&self, path: &ObjectPath, id: &str, deadline: Deadline) -> Result<()> {
        let (what, key) = (self.name("give up the upload of", path), self.key(path)?);
        let abort = || keys(&*self.store).abort(&key, id);
        let mut retry = Retry::new(deadline);
        let session = self.store.session();
        session.until_done(&what, &mut retry, abort).await
    }

    async fn clean(&self, age: Duration, deadline: Deadline) -> Result<u64> {
        let what = self.name("clean up", &ObjectPath::root());
        let (session, keys) = (self.store.session(), keys(&*self.store));
        let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        let (mut given_up, mut token) = (0, None);
        loop {
            let list = || keys.unfinished(&self.prefix, token.as_deref());
            let mut retry = Retry::new(deadline);
            let (uploads, next) = session.until_done(&what, &mut retry, list).await?;
            // The answer told the storage's time, by which uploads began.
            let latest = storage_ns(session).saturating_sub(age);
            let is_old = |upload: &&Unfinished| upload.begun_ns != 0 && upload.begun_ns < latest;
            for upload in uploads.iter().filter(is_old) {
                let abort = || keys.abort(&upload.key, &upload.id);
                session.until_done(&what, &mut retry, abort).await?;
                given_up += 1;
            }
            match next {
                Some(next) if token.as_ref() != Some(&next) => token = Some(next),
                Some(_) | None => return Ok(given_up),
            }
        }
    }
}

impl<S: ObjectStore> Bucket<S> {
    /// Makes the draft of a file.
    fn draft(&self, path: &ObjectPath, attributes: &FileAttributes) -> Result<Draft> {
        self.not_the_root(path)?;
        Ok(Draft {
            key: self.key(path)?,
            is_directory: false,
            kept: Kept::new(attributes),
            rest: HeaderMap::new(),
        })
    }

    /// Makes the draft of the object that marks a directory.
    fn marker(&self, path: &ObjectPath, kept: Kept, rest: HeaderMap) -> Result<Draft> {
        Ok(Draft {
            key: self.prefix_of(path)?,
            is_directory: true,
            kept,
            rest,
        })
    }

    fn not_the_root(&self, path: &ObjectPath) -> Result<()> {
        match path.is_root() {
            true => Err(Error::new(
                ErrorKind::IsADirectory,
                "the root of a storage is a directory and stays",
            )),
            false => Ok(()),
        }
    }

    /// Returns why an object cannot keep all that it is to keep beside its bytes.
    fn is_too_much(&self, draft: &Draft) -> Option<String> {
        let (needed, max) = (draft.kept.len(), keys(&*self.store).metadata_max());
        (needed > max).then(|| format!("{needed} bytes of metadata, of which an object has {max}"))
    }

    /// Checks that an object can keep the extended attributes that it is to have.
    fn check_room(&self, what: &str, draft: &Draft) -> Result<()> {
        let has_some = draft.kept.attributes.xattrs.is_some();
        match self.is_too_much(draft).filter(|_| has_some) {
            Some(why) => Err(Error::new(ErrorKind::OutOfSpace, why).context(what)),
            None => Ok(()),
        }
    }

    async fn put_draft(
        &self,
        what: &str,
        draft: &Draft,
        bytes: Bytes,
        expect: &Expect,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let (store, size) = (&*self.store, bytes.len() as u64);
        let keys = keys(store);
        let put_max = keys.abilities().put_max;
        if size > put_max {
            let why = format!("{size} bytes at once, of which the storage takes {put_max}");
            return Err(Error::internal(why).context(what));
        }
        self.check_room(what, draft)?;
        let key = draft.key.as_str();
        let work = Change {
            what,
            key,
            deadline,
            carries_bytes: true,
        };
        let send = || async {
            let checked = check_before(keys, Step::Put, key, expect).await;
            let sent = match checked {
                Ok(()) => keys.put(draft, bytes.clone(), expect).await,
                Err(fault) => Err(fault),
            };
            sent.map_err(|fault| fault.while_writing(expect))
        };
        let stored = change(store, &work, send, |seen| own(draft, seen)).await?;
        describe(store, &work, draft, stored, size).await
    }

    async fn delete_key(
        &self,
        what: &str,
        key: &str,
        expect: &Expect,
        deadline: Deadline,
    ) -> Result<()> {
        let keys = keys(&*self.store);
        let send = || async {
            let checked = check_before(keys, Step::Delete, key, expect).await;
            match checked {
                Ok(()) => keys.delete(key, expect).await,
                // What is to be removed is not there.
                Err(Fault::Stale(_)) if keys.look(key).await?.is_none() => Ok(()),
                Err(fault) => Err(fault),
            }
        };
        let gone = |seen: Option<Seen>| seen.is_none().then_some(());
        let work = Change {
            what,
            key,
            deadline,
            carries_bytes: false,
        };
        change(&*self.store, &work, send, gone).await
    }

    /// Looks at what is to be copied: it must be the version.
    async fn source(
        &self,
        what: &str,
        path: &ObjectPath,
        tag: &VersionTag,
        deadline: Deadline,
    ) -> Result<Seen> {
        let (session, key) = (self.store.session(), self.key(path)?);
        let expect = Expect::Version(tag.clone());
        let look = || async {
            let seen = keys(&*self.store).look(&key).await?;
            holds(&expect, seen.as_ref())?;
            seen.ok_or_else(|| Fault::Stale("the object is gone".into()))
        };
        session
            .until_done(what, &mut Retry::new(deadline), look)
            .await
    }

    async fn copy_key(
        &self,
        what: &str,
        copying: &Copying<'_>,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let (store, draft) = (&*self.store, copying.to);
        let work = Change {
            what,
            key: &draft.key,
            deadline,
            carries_bytes: false,
        };
        let size = copying.tag.size;
        let stored = if size > keys(store).copy_max() {
            self.copy_in_parts(&work, copying).await?
        } else {
            let send = || self.copy_once(copying);
            let same = |seen: &Seen| !copying.changes_kept && seen.tag.etag == copying.tag.etag;
            let mine = |seen: Option<Seen>| {
                own(draft, seen.clone()).or_else(|| seen.filter(same).map(stored))
            };
            change(store, &work, send, mine).await?
        };
        describe(store, &work, draft, stored, size).await
    }

    async fn copy_once(&self, copying: &Copying<'_>) -> Outcome<Stored> {
        let keys = keys(&*self.store);
        let expect = copying.expect;
        check_before(keys, Step::Copy, &copying.to.key, expect).await?;
        let fault = match keys.copy(copying).await {
            Ok(stored) => return Ok(stored),
            Err(fault) => fault.while_reading(),
        };
        if *expect == Expect::Anything || !fault.is_stale() {
            return Err(fault);
        }
        // Either of two conditions did not hold.
        let source = keys.look(copying.from).await?;
        holds(&Expect::Version(copying.tag.clone()), source.as_ref())?;
        Err(fault.while_writing(expect))
    }

    async fn copy_in_parts(&self, work: &Change<'_>, copying: &Copying<'_>) -> Result<Stored> {
        let upload = upload::begin(&*self.store, work, copying.to).await?;
        let copied = self.copy_parts(work, copying, &upload).await;
        if copied.is_err() {
            upload::abandon(&*self.store, work, &upload).await;
        }
        copied
    }

    async fn copy_parts(
        &self,
        work: &Change<'_>,
        copying: &Copying<'_>,
        upload: &Parted,
    ) -> Result<Stored> {
        let (store, size) = (&*self.store, copying.tag.size);
        let part_size = COPY_PART.max(size.div_ceil(u64::from(keys(store).abilities().parts_max)));
        let ranges = (0..size.div_ceil(part_size)).map(|index| {
            let offset = index * part_size;
            ByteRange::new(offset, part_size.min(size - offset))
        });
        let copies = (1..).zip(ranges).map(|(number, range)| async move {
            let copy = || async {
                let part = keys(store).copy_part(copying, upload, number, range);
                part.await.map_err(Fault::while_reading)
            };
            let mut retry = Retry::new(work.deadline);
            let session = store.session();
            session.until_done(work.what, &mut retry, copy).await
        });
        let copies = stream::iter(copies).buffered(COPY_PARTS_AT_ONCE);
        let parts: Vec<_> = copies.try_collect().await?;
        upload::complete(store, work, upload, &parts, copying.expect).await
    }

    /// Keeps the attributes of a directory beside its marker, which is made if there is none.
    async fn set_of_directory(
        &self,
        path: &ObjectPath,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = self.name("change attributes of", path);
        self.not_the_root(path).map_err(context(&what))?;
        let (session, prefix) = (self.store.session(), self.prefix_of(path)?);
        let look = || keys(&*self.store).look(&prefix);
        let seen = session
            .until_done(&what, &mut Retry::new(deadline), look)
            .await?;
        let (kept, rest) = seen.map(|seen| (seen.kept, seen.rest)).unwrap_or_default();
        let draft = self.marker(path, kept.changed_by(attributes), rest)?;
        let (nothing, anything) = (Bytes::new(), Expect::Anything);
        let put = self.put_draft(&what, &draft, nothing, &anything, deadline);
        let put = put.await?;
        Ok(ObjectMeta {
            extras: put.extras,
            ..marked_directory(&put.tag, put.owner)
        })
    }
}

fn context(what: &str) -> impl Fn(Error) -> Error {
    move |error| error.context(what)
}
