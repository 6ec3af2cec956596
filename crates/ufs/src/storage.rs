// SPDX-License-Identifier: Apache-2.0
//! What every under storage can do, and how one is opened.
//!
//! The contract, which the suite in `conformance` checks on each driver:
//! * Absence is a fact: [`ErrorKind::NotFound`] only if the storage said so.
//! * Bytes belong to the version asked for, or the answer is [`ErrorKind::Stale`]. A short or
//!   overlong body is an error, never data.
//! * Every wait ends at the deadline, which bytes of a read renew ([`types::MOVED_MIN`] of them, or a
//!   piece of a driver that reads in larger ones). Dropping a future or a stream ends its request.
//! * Names that a file system cannot show are left out of listings and counted.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use types::{
    ByteRange, Clock, Deadline, Error, ErrorKind, Name, ObjectMeta, ObjectPath, Result, VersionTag,
    Xattrs,
};

use crate::uri::Location;
use crate::write::UnderWriter;
use crate::{
    Counters, Secrets, Settings, azure, cephfs, gcs, hdfs, huggingface, local, s3, web, webhdfs,
};

/// Bytes of one version of one object, in order. Ends early only with an error.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// A listing, page by page as the storage answers. Ends after the first error.
pub type ListStream = Pin<Box<dyn Stream<Item = Result<ListPage>> + Send>>;

/// One page of a listing.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// What the page names. A name comes once in a listing; pages need not be sorted.
    pub entries: Vec<ListEntry>,
    /// How many names were left out because a file system cannot show them: `//`, `.`, `..`, too
    /// long, special files, and objects hidden by a directory of the same name.
    pub unshowable: u64,
}

/// A listing of all that is below a directory, page by page. Ends after the first error.
pub type TreeStream = Pin<Box<dyn Stream<Item = Result<TreePage>> + Send>>;

/// One page of a listing of a tree.
#[derive(Debug, Clone, Default)]
pub struct TreePage {
    /// Paths of objects, and of directories that an object marks. The directories above them are
    /// there too. What is below a directory comes in a row.
    pub entries: Vec<(ObjectPath, ObjectMeta)>,
    /// How many keys were left out because a file system cannot show them.
    pub unshowable: u64,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// The name.
    pub name: Name,
    /// What the storage told of it.
    pub meta: ObjectMeta,
}

/// How much room a storage has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that are free for who runs Forebay.
    pub free: u64,
    /// Files that there may be.
    pub files: u64,
    /// How many more there may be.
    pub files_free: u64,
}

/// A place in a storage that holds objects.
#[async_trait]
pub trait UnderStorage: Send + Sync + Debug {
    /// Returns where this is, normalised. Holds no secrets.
    fn uri(&self) -> &str;

    /// Returns what identifies this place over restarts: the URI and, where there is one, the
    /// endpoint.
    fn identity(&self) -> &str;

    /// Asks what `path` is. Costs one request when it is a file with bytes in it.
    ///
    /// # Errors
    /// `NotFound` only if the storage said so.
    async fn stat(&self, path: &ObjectPath, deadline: Deadline) -> Result<ObjectMeta>;

    /// Lists one directory level. Each page is bounded by the request timeout of the settings. An
    /// absent directory is empty on object stores, `NotFound` elsewhere.
    fn list(&self, dir: &ObjectPath) -> ListStream;

    /// Lists all that is below a directory at once, where the storage has such a listing and keeps
    /// together in it what is below a directory. Pages are bounded as those of [`UnderStorage::list`].
    fn list_tree(&self, _dir: &ObjectPath) -> Option<TreeStream> {
        None
    }

    /// Reads `range`, which lies inside the object, of the version `tag`.
    ///
    /// # Errors
    /// `Stale` when the object is another version now or gone, also in the middle of the stream.
    async fn read(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<ByteStream>;

    /// Reads the target of a symbolic link.
    async fn read_link(&self, path: &ObjectPath, _deadline: Deadline) -> Result<Vec<u8>> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("read link {path}: {} has no symbolic links", self.uri()),
        ))
    }

    /// Reads the extended attributes of users, where the storage has such things and a
    /// [`UnderStorage::stat`] does not tell them.
    async fn xattrs(&self, path: &ObjectPath, _deadline: Deadline) -> Result<Xattrs> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("attributes of {path}: {} has none", self.uri()),
        ))
    }

    /// Asks how much room the storage has; `None` where it has no bounds that it tells.
    async fn space(&self, _deadline: Deadline) -> Result<Option<Space>> {
        Ok(None)
    }

    /// Returns whether a listing tells all that a [`UnderStorage::stat`] would. Elsewhere a symbolic
    /// link in a listing has neither its length nor [`types::ObjectMeta::extras`].
    fn lists_all(&self) -> bool {
        true
    }

    /// Returns the writing side, where there is one. A mount that is read-only does not ask for it.
    fn writer(&self) -> Option<&dyn UnderWriter> {
        None
    }

    /// Asks the least that tells whether the storage can be used; see [`probe`].
    async fn check(&self, deadline: Deadline) -> Result<()> {
        let mut listing = self.list(&ObjectPath::root());
        let first = tokio::time::timeout_at(deadline.instant().into(), listing.next()).await;
        match first {
            Ok(None) => Ok(()),
            Ok(Some(page)) => page.map(|_| ()),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                "no answer before the deadline",
            )),
        }
    }

    /// Returns how many seconds the storage's clock is ahead of ours, or less than zero when it is
    /// behind, as its latest answer told; zero when it tells no time, or about ours.
    fn clock_ahead(&self) -> i64 {
        0
    }

    /// Returns the counts of requests.
    fn counters(&self) -> &Counters;
}

/// Opens the storage that the settings name. Sends no request: see [`probe`].
///
/// # Errors
/// `Invalid` for a URI or an option that cannot be right, with what would be; for a local
/// directory also what keeps it from being opened.
pub async fn open(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Arc<dyn UnderStorage>> {
    open_with(settings, None, clock).await
}

/// Opens as [`open`], and asks for the secrets among the options again when the storage refuses
/// those that it was opened with. Drivers that take no secrets do not ask.
///
/// # Errors
/// Those of [`open`].
pub async fn open_with(
    settings: &Settings,
    secrets: Option<Secrets>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    match Location::parse(&settings.uri)? {
        Location::S3(location) => s3::open(location, settings, secrets, clock),
        Location::Azure(location) => azure::open(location, settings, secrets, clock),
        Location::Gcs(location) => gcs::open(location, settings, secrets, clock),
        Location::Hf(location) => huggingface::open(location, settings, secrets, clock),
        Location::Web(location) => web::open(location, settings, secrets, clock),
        Location::Hdfs(location) => hdfs::open(location, settings, clock),
        Location::WebHdfs(location) => webhdfs::open(location, settings, secrets, clock),
        Location::CephFs(location) => cephfs::open(location, settings, clock).await,
        Location::Local(path) => local::open(path, settings.clone(), clock).await,
    }
}

/// Asks the storage once, so that wrong places, credentials and endpoints show before anybody
/// waits for a file. An endpoint that takes no connection is not waited for.
///
/// # Errors
/// One message with the cause and what to do about it.
pub async fn probe(storage: &dyn UnderStorage, deadline: Deadline) -> Result<()> {
    storage
        .check(deadline)
        .await
        .map_err(|error| error.context(format!("reach {}", storage.uri())))
}
