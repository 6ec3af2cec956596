// SPDX-License-Identifier: Apache-2.0
//! What both drivers of HDFS, over RPC and over HTTP, can ask for when they write.
//!
//! Each method is one attempt: whether to send again is decided in `write`, which knows what was
//! sent before. Paths are full paths of the file system.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use types::{ByteRange, Clock, Deadline, NodeKind, ObjectMeta, ObjectPath, Result, VersionTag};

use super::location::HadoopLocation;
use super::owners::{Named, Owners};
use crate::{ByteStream, Counters};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: NodeKind,
    pub(crate) tag: VersionTag,
    pub(crate) named: Named,
}

impl Seen {
    /// Returns the description; the owners have been learnt.
    pub(crate) fn meta(&self, owners: &Owners) -> ObjectMeta {
        ObjectMeta {
            kind: self.kind,
            tag: self.tag.clone(),
            owner: Some(owners.owner(&self.named)),
            extras: None,
        }
    }
}

/// What a request serves, for messages, and when it must end.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) what: Arc<str>,
    pub(crate) deadline: Deadline,
}

/// The requests of a file system of Hadoop.
#[async_trait]
pub(crate) trait HadoopFiles: Send + Sync + Debug + 'static {
    fn location(&self) -> &HadoopLocation;
    fn clock(&self) -> &dyn Clock;
    fn counters(&self) -> &Counters;
    fn owners(&self) -> &Owners;

    /// Asks what is at a path; its owners have been learnt when this returns.
    async fn seen(&self, step: &Step, path: &str) -> Result<Seen>;

    /// Makes a file, and the directories above it, and replaces one that is there.
    async fn create(
        self: Arc<Self>,
        step: &Step,
        path: &str,
        mode: Option<u32>,
    ) -> Result<Box<dyn Sink>>;

    /// Gives another name, in one step. `AlreadyExists` when the name is taken and not to be
    /// replaced.
    async fn rename(&self, step: &Step, from: &str, to: &str, taken: Taken) -> Result<()>;

    /// Removes a file, or a directory that is empty. `Ok` also when there is nothing.
    async fn delete(&self, step: &Step, path: &str) -> Result<()>;

    /// Makes a directory. `NotFound` when there is none to make it in.
    async fn make_dir(&self, step: &Step, path: &str, mode: Option<u32>) -> Result<()>;

    /// Changes permission bits, owner and group, or time.
    async fn change(&self, step: &Step, path: &str, change: Change) -> Result<()>;

    /// Reads a version.
    async fn read_range(
        self: Arc<Self>,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<ByteStream>;
}

/// What to do with what has the new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Replace it.
    Replace,
    /// Leave both as they are.
    Refuse,
}

/// A change of what is kept beside the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Permission bits.
    Mode(u32),
    /// Owner and group, by name; what is `None` stays.
    Names(Option<String>, Option<String>),
    /// Modification time in milliseconds since 1970.
    Time(u64),
}

/// What it costs when a file cannot be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is written again.
    Mended,
    /// What was written is lost.
    Final,
}

/// A file that is being written. Dropping it leaves the file as it is.
#[async_trait]
pub(crate) trait Sink: Send + Sync + Debug {
    /// Writes the bytes that come next. Nothing can follow a failure, nor a future that was dropped.
    async fn write(&mut self, step: &Step, bytes: Bytes) -> Result<()>;

    /// Returns when all bytes are on the disks of data nodes and the file is closed.
    async fn finish(&mut self, step: &Step, failure: Failure) -> Result<()>;
}
