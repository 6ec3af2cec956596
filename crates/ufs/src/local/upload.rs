// SPDX-License-Identifier: Apache-2.0
//! Files that are written in parts: each part at its place in a hidden file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use types::{Deadline, Error, ErrorKind, ObjectMeta, ObjectPath, Result};

use super::Inner;
use super::draft::{Draft, write_at, write_error};
use crate::counters::count;
use crate::{Expect, FileAttributes, Upload};

/// A file on its way.
#[derive(Debug)]
pub(super) struct LocalUpload {
    inner: Arc<Inner>,
    what: String,
    path: ObjectPath,
    part_size: u64,
    attributes: FileAttributes,
    /// None after its end.
    draft: Mutex<Option<Arc<Draft>>>,
    /// The lengths of the parts that were written.
    parts: Mutex<BTreeMap<u32, u64>>,
}

impl LocalUpload {
    /// Begins one.
    pub(super) async fn begin(
        inner: &Arc<Inner>,
        path: &ObjectPath,
        part_size: u64,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<Self> {
        let what = inner.name("write", path);
        count(&inner.counters.upload);
        let place = path.clone();
        let make = move |inner: &Inner| Draft::new(inner, &place);
        let draft = inner.work(&what, deadline, make).await?;
        Ok(LocalUpload {
            inner: Arc::clone(inner),
            what,
            path: path.clone(),
            part_size: part_size.max(1),
            attributes: attributes.clone(),
            draft: Mutex::new(Some(Arc::new(draft))),
            parts: Mutex::default(),
        })
    }

    fn draft(&self) -> Result<Arc<Draft>> {
        let draft = self.draft.lock().unwrap_or_else(PoisonError::into_inner);
        draft.clone().ok_or_else(|| self.ended())
    }

    fn ended(&self) -> Error {
        Error::internal("the upload has ended").context(&self.what)
    }

    /// Returns the length of the file; all parts but the last must be there and whole.
    fn len(&self) -> Result<u64> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let last = parts.last_key_value().map_or(0, |(&number, _)| number);
        let whole = parts.iter().zip(1..).all(|((&number, &len), wanted)| {
            number == wanted && (number == last || len == self.part_size)
        });
        match whole {
            true => Ok(parts.values().sum()),
            false => Err(Error::internal("a part was not sent, or not whole").context(&self.what)),
        }
    }
}

#[async_trait]
impl Upload for LocalUpload {
    async fn part(&self, number: u32, bytes: Bytes, deadline: Deadline) -> Result<()> {
        let len = bytes.len() as u64;
        let offset = number
            .checked_sub(1)
            .filter(|_| len <= self.part_size)
            .and_then(|index| u64::from(index).checked_mul(self.part_size));
        let Some(offset) = offset else {
            let why = format!("part {number} of {len} bytes");
            return Err(Error::new(ErrorKind::Invalid, why).context(&self.what));
        };
        count(&self.inner.counters.put);
        let draft = self.draft()?;
        let write = move |inner: &Inner| {
            write_at(&draft.file, &bytes, offset)?;
            inner.wrote(len);
            Ok(())
        };
        self.inner.work(&self.what, deadline, write).await?;
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(number, len);
        Ok(())
    }

    async fn complete(&self, expect: &Expect, deadline: Deadline) -> Result<ObjectMeta> {
        count(&self.inner.counters.upload);
        let len = self.len()?;
        let draft = {
            let mut draft = self.draft.lock().unwrap_or_else(PoisonError::into_inner);
            draft.take().ok_or_else(|| self.ended())?
        };
        let (path, expect, attributes) =
            (self.path.clone(), expect.clone(), self.attributes.clone());
        let publish = move |inner: &Inner| {
            let busy = || Error::internal("a part is still being written");
            let draft = Arc::into_inner(draft).ok_or_else(busy)?;
            // A last part that was sent again may be shorter than before.
            rustix::fs::ftruncate(&draft.file, len).map_err(|errno| write_error("cut", errno))?;
            draft.publish(inner, &path, &expect, &attributes)
        };
        self.inner.work(&self.what, deadline, publish).await
    }

    async fn abort(&self, deadline: Deadline) -> Result<()> {
        count(&self.inner.counters.upload);
        let draft = {
            let mut draft = self.draft.lock().unwrap_or_else(PoisonError::into_inner);
            draft.take()
        };
        let remove = move |_: &Inner| {
            drop(draft);
            Ok(())
        };
        self.inner.work(&self.what, deadline, remove).await
    }
}
