// SPDX-License-Identifier: Apache-2.0
//! How an operation answers: at once, or through a future that the door drives.

use bytes::Bytes;
use futures::future::BoxFuture;
use types::Result;

/// The answer of an operation.
///
/// A [`Reply::Pending`] may be dropped at any time; what it would have counted (a reference, a
/// handle) is counted only when it resolves, so a door that drops it owes nothing.
pub enum Reply<T> {
    /// Known: no request was needed.
    Ready(Result<T>),
    /// The storage has to be asked.
    Pending(BoxFuture<'static, Result<T>>),
}

impl<T> Reply<T> {
    /// Returns the answer, waiting for it if need be.
    pub async fn wait(self) -> Result<T> {
        match self {
            Reply::Ready(result) => result,
            Reply::Pending(future) => future.await,
        }
    }
}

/// The answer of a read.
pub enum ReadReply {
    /// A hit, or nothing to read: the bytes were appended to the caller's buffer.
    Ready(Result<()>),
    /// A miss: the bytes come later, and the caller's buffer is as it was.
    Pending(BoxFuture<'static, Result<Bytes>>),
}
