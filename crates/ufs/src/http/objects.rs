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
use types::meta::Owner;
use types::{
    ByteRange, Deadline, Error, ErrorKind, NodeKind, ObjectMeta, ObjectPath, Result, VersionTag,
};

use super::Outcome;
use super::body::{self, Got, Source, Wanted};
use super::fault::Fault;
use super::kept::Kept;
use super::keys::KeyWriter;
use super::listing::{self, Object, Page};
use super::session::Session;
use crate::retry::Retry;
use crate::{ByteStream, Counters, ListStream, TreeStream, UnderStorage, UnderWriter};

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// An object of this version.
    Object(VersionTag),
    /// The same, with what is kept beside it.
    Kept(VersionTag, Box<Kept>),
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

    /// Says whether all keys that start with a prefix can be listed, with those below a directory in a
    /// row.
    fn lists_trees(&self) -> bool {
        false
    }

    /// Asks for a page of all keys that start with `prefix`, whatever slashes follow.
    async fn keys(&self, _prefix: &str, _token: Option<&str>) -> Outcome<Page> {
        Err(Fault::Unfit("this storage lists no trees".into()))
    }

    /// Asks for a range, which is not empty, of a version; checks that the answer is of it.
    async fn get(&self, key: &str, tag: &VersionTag, range: ByteRange) -> Outcome<Got>;

    /// Returns the requests that change something, where the storage takes them.
    fn writer(&self) -> Option<&dyn KeyWriter> {
        None
    }
}

/// A bucket, or what lies below a prefix of one.
pub(crate) struct Bucket<S> {
    /// What is below the root: empty, or ends with a slash.
    pub(super) prefix: String,
    uri: String,
    identity: String,
    pub(super) store: Arc<S>,
}

/// What is below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    /// Nothing: there is no such directory.
    Nothing,
    /// Names only.
    Names,
    /// An object marks the directory.
    Marked {
        /// And nothing else is below it.
        is_empty: bool,
    },
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
    pub(super) fn key(&self, path: &ObjectPath) -> Result<String> {
        Ok(format!("{}{}", self.prefix, path.as_str()?))
    }

    /// Returns what all keys below a directory start with.
    pub(super) fn prefix_of(&self, dir: &ObjectPath) -> Result<String> {
        let slash = if dir.is_root() { "" } else { "/" };
        Ok(format!("{}{slash}", self.key(dir)?))
    }

    /// Words an operation for messages: "read s3://bucket/key".
    pub(super) fn name(&self, operation: &str, path: &ObjectPath) -> String {
        format!("{operation} {}{path}", self.uri)
    }

    /// Asks what is below a directory; its prefix ends with a slash.
    pub(super) async fn below(&self, prefix: &str) -> Outcome<Below> {
        // The marker sorts before all names, so that a second key is one.
        let page = self.store.page(prefix, None, Some(2)).await?;
        let is_marker = |object: &Object| object.key.as_deref() == Some(prefix);
        let names = page.objects.iter().filter(|object| !is_marker(object));
        let marked = page.objects.iter().any(is_marker);
        Ok(match (marked, names.count() + page.prefixes.len()) {
            (true, names) => Below::Marked {
                is_empty: names == 0,
            },
            (false, 0) => Below::Nothing,
            (false, _) => Below::Names,
        })
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
            Some(Found::Object(tag)) => Some(file(tag)),
            Some(Found::Kept(tag, kept)) => Some(object(tag, &kept)),
            None => None,
        };
        // An empty object may be one that tools put where a directory is.
        let is_sure = |file: &&ObjectMeta| file.tag.size > 0 || file.kind == NodeKind::Symlink;
        if let Some(file) = file.as_ref().filter(is_sure) {
            return Ok(file.clone());
        }
        let dir = self.prefix_of(path)?;
        let below = || self.below(&dir);
        match session.until_done(&what, &mut retry, below).await? {
            Below::Marked { .. } => {
                let marker = || self.store.head(&dir);
                let marker = session.until_done(&what, &mut retry, marker).await?;
                Ok(directory(marker))
            }
            Below::Names => Ok(ObjectMeta::implied_directory()),
            Below::Nothing => file.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "no such object or directory").context(what)
            }),
        }
    }

    async fn read_link(&self, path: &ObjectPath, deadline: Deadline) -> Result<Vec<u8>> {
        let (what, mut retry) = (self.name("read link", path), Retry::new(deadline));
        let (session, key) = (self.store.session(), self.key(path)?);
        let head = || self.store.head(&key);
        let (kind, message) = match session.until_done(&what, &mut retry, head).await? {
            Some(Found::Kept(_, kept)) if kept.link.is_some() => {
                return Ok(kept.link.unwrap_or_default());
            }
            Some(_) => (ErrorKind::Invalid, "not a symbolic link"),
            None => (ErrorKind::NotFound, "no such object"),
        };
        Err(Error::new(kind, message).context(what))
    }

    fn lists_all(&self) -> bool {
        false
    }

    async fn check(&self, deadline: Deadline) -> Result<()> {
        let what = self.name("list", &ObjectPath::root());
        let mut retry = Retry::new(deadline);
        let below = || self.below(&self.prefix);
        let below = self.store.session().check(&what, &mut retry, below).await;
        below.map(|_| ())
    }

    fn list(&self, dir: &ObjectPath) -> ListStream {
        let what = self.name("list", dir);
        listing::stream(Arc::clone(&self.store), what, self.prefix_of(dir))
    }

    fn list_tree(&self, dir: &ObjectPath) -> Option<TreeStream> {
        if !self.store.lists_trees() {
            return None;
        }
        let what = self.name("list all of", dir);
        let prefix = self.prefix_of(dir);
        let store = Arc::clone(&self.store);
        Some(listing::tree(store, what, prefix, self.prefix.len()))
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

    fn writer(&self) -> Option<&dyn UnderWriter> {
        self.store.writer().map(|_| self as &dyn UnderWriter)
    }

    fn clock_ahead(&self) -> i64 {
        self.store.session().transport.skew.ahead()
    }

    fn counters(&self) -> &Counters {
        self.store.session().counters()
    }
}

fn file(tag: VersionTag) -> ObjectMeta {
    ObjectMeta {
        kind: NodeKind::File,
        tag,
        owner: None,
        extras: None,
    }
}

/// Describes an object with what is kept beside it.
pub(super) fn object(tag: VersionTag, kept: &Kept) -> ObjectMeta {
    let (kind, size) = match &kept.link {
        Some(link) => (NodeKind::Symlink, link.len() as u64),
        None => (NodeKind::File, tag.size),
    };
    ObjectMeta {
        kind,
        tag: VersionTag { size, ..tag },
        owner: kept.attributes.owner,
        extras: Some(kept.extras()),
    }
}

/// Returns what the marker of a directory tells of it.
fn directory(marker: Option<Found>) -> ObjectMeta {
    match marker {
        Some(Found::Kept(tag, kept)) => ObjectMeta {
            extras: Some(kept.extras()),
            ..marked_directory(&tag, kept.attributes.owner)
        },
        Some(Found::Object(tag)) => marked_directory(&tag, None),
        Some(Found::Directory) | None => ObjectMeta::implied_directory(),
    }
}

/// Returns what a directory shows of its marker.
pub(super) fn marked_directory(tag: &VersionTag, owner: Option<Owner>) -> ObjectMeta {
    let implied = ObjectMeta::implied_directory();
    ObjectMeta {
        tag: VersionTag {
            mtime_ns: tag.mtime_ns,
            ..implied.tag
        },
        owner,
        ..implied
    }
}

impl<S> fmt::Debug for Bucket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
