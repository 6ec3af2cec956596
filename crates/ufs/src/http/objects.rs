// SPDX-License-Identifier: Apache-2.0
//! Object stores: keys, of which the common starts look like directories.
//!
//! A driver says how one request for one key or one page is made ([`ObjectStore`]); [`Bucket`]
//! makes an under storage of it. Keys are the mount's prefix and the path, byte for byte.
//!
//! What object stores leave open is decided so: a name that is an object and a prefix is a
//! directory in listings. A look at one name costs one request if it is an object that is not
//! empty, which then answers for it, even if there are names below: only a second request could
//! tell, each time.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use types::{
    ByteRange, Deadline, Error, ErrorKind, NodeKind, ObjectMeta, ObjectPath, Result, VersionTag,
};

use super::Outcome;
use super::body::{self, Got, Source, Wanted};
use super::listing::{self, Page};
use super::session::Session;
use crate::retry::Retry;
use crate::{ByteStream, Counters, ListStream, UnderStorage};

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// An object of this version.
    Object(VersionTag),
    /// A directory, on storages that have them.
    Directory,
}

/// The requests of a storage of keys.
#[async_trait]
pub(crate) trait ObjectStore: Send + Sync + 'static {
    /// Returns the limits that requests run under.
    fn session(&self) -> &Arc<Session>;

    /// Asks what is under a key, with one request; `None` when the storage says that nothing is.
    async fn head(&self, key: &str) -> Outcome<Option<Found>>;

    /// Asks for a page of the keys that start with `prefix`, up to the next slash. A `limit` says
    /// how many keys are enough to know.
    async fn page(&self, prefix: &str, token: Option<&str>, limit: Option<u32>) -> Outcome<Page>;

    /// Asks for a range, which is not empty, of a version; checks that the answer is of it.
    async fn get(&self, key: &str, tag: &VersionTag, range: ByteRange) -> Outcome<Got>;
}

/// A bucket, or what lies below a prefix of one.
pub(crate) struct Bucket<S> {
    /// What is below the root: empty, or ends with a slash.
    prefix: String,
    uri: String,
    identity: String,
    store: Arc<S>,
}

/// A store in the role of a source of bytes.
struct Keys<S>(Arc<S>);

#[async_trait]
impl<S: ObjectStore> Source for Keys<S> {
    async fn get(&self, key: &str, tag: &VersionTag, range: ByteRange) -> Outcome<Got> {
        self.0.get(key, tag, range).await
    }
}

impl<S: ObjectStore> Bucket<S> {
    /// Makes a storage of what is below `prefix`. The URI holds no secrets.
    pub(crate) fn new(uri: String, prefix: String, store: S) -> Self {
        Bucket {
            identity: format!("{uri} at {}", store.session().endpoint),
            prefix,
            uri,
            store: Arc::new(store),
        }
    }

    /// Returns the key of a path.
    fn key(&self, path: &ObjectPath) -> Result<String> {
        Ok(format!("{}{}", self.prefix, path.as_str()?))
    }

    /// Returns what all keys below a directory start with.
    fn prefix_of(&self, dir: &ObjectPath) -> Result<String> {
        let slash = if dir.is_root() { "" } else { "/" };
        Ok(format!("{}{slash}", self.key(dir)?))
    }

    /// Words an operation for messages: "read s3://bucket/key".
    fn name(&self, operation: &str, path: &ObjectPath) -> String {
        format!("{operation} {}{path}", self.uri)
    }

    async fn any_below(&self, prefix: &str) -> Outcome<bool> {
        let page = self.store.page(prefix, None, Some(1)).await?;
        Ok(!page.objects.is_empty() || !page.prefixes.is_empty())
    }
}

#[async_trait]
impl<S: ObjectStore> UnderStorage for Bucket<S> {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    async fn stat(&self, path: &ObjectPath, deadline: Deadline) -> Result<ObjectMeta> {
        if path.is_root() {
            return Ok(ObjectMeta::implied_directory());
        }
        let (what, mut retry) = (self.name("look at", path), Retry::new(deadline));
        let (session, key) = (self.store.session(), self.key(path)?);
        let head = || self.store.head(&key);
        let file = match session.until_done(&what, &mut retry, head).await? {
            Some(Found::Directory) => return Ok(ObjectMeta::implied_directory()),
            Some(Found::Object(tag)) => Some(ObjectMeta {
                kind: NodeKind::File,
                tag,
                owner: None,
            }),
            None => None,
        };
        // An empty object may be one that tools put where a directory is.
        if let Some(file) = file.as_ref().filter(|file| file.tag.size > 0) {
            return Ok(file.clone());
        }
        let dir = self.prefix_of(path)?;
        let any = || self.any_below(&dir);
        match session.until_done(&what, &mut retry, any).await? {
            true => Ok(ObjectMeta::implied_directory()),
            false => file.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "no such object or directory").context(what)
            }),
        }
    }

    async fn check(&self, deadline: Deadline) -> Result<()> {
        let what = self.name("list", &ObjectPath::root());
        let mut retry = Retry::new(deadline);
        let any = || self.any_below(&self.prefix);
        let any = self.store.session().check(&what, &mut retry, any).await;
        any.map(|_| ())
    }

    fn list(&self, dir: &ObjectPath) -> ListStream {
        let what = self.name("list", dir);
        listing::stream(Arc::clone(&self.store), what, self.prefix_of(dir))
    }

    async fn read(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<ByteStream> {
        let wanted = Wanted {
            what: self.name("read", path),
            key: self.key(path)?,
            tag: tag.clone(),
            range,
            deadline,
        };
        let session = Arc::clone(self.store.session());
        let source = Arc::new(Keys(Arc::clone(&self.store)));
        body::stream(session, source, wanted).await
    }

    fn counters(&self) -> &Counters {
        self.store.session().counters()
    }
}

impl<S> fmt::Debug for Bucket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
