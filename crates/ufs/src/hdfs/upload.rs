// SPDX-License-Identifier: Apache-2.0
//! A file of HDFS on its way, part after part into one temporary file.
//!
//! What went into a file of HDFS cannot be taken back, so a part that failed, or whose future was
//! dropped, ends the upload. Whatever ends it removes the temporary file; one that is forgotten is
//! removed when it is a day old.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use types::{Deadline, Error, ErrorKind, ObjectMeta, Result};

use super::files::{Failure, HadoopFiles, Sink};
use super::steps::{Goal, publish, tidy_up};
use crate::{Expect, Upload};

/// See [`Upload`].
pub(super) struct HadoopUpload<F> {
    files: Arc<F>,
    goal: Goal,
    temporary: String,
    /// Taken out while a part is being sent, and for good by what ends it.
    open: Mutex<Option<Open>>,
}

struct Open {
    sink: Box<dyn Sink>,
    /// How many parts, and bytes, went in.
    parts: u32,
    len: u64,
}

impl<F: HadoopFiles> HadoopUpload<F> {
    pub(super) fn new(files: Arc<F>, goal: Goal, temporary: String, sink: Box<dyn Sink>) -> Self {
        HadoopUpload {
            files,
            goal,
            temporary,
            open: Mutex::new(Some(Open {
                sink,
                parts: 0,
                len: 0,
            })),
        }
    }

    fn take(&self) -> Result<Open> {
        let open = self
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        open.ok_or_else(|| {
            let why = "the upload has ended, or a part is under way; begin another";
            Error::new(ErrorKind::Invalid, why).context(self.goal.what.to_string())
        })
    }

    fn put_back(&self, open: Open) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
    }
}

#[async_trait]
impl<F: HadoopFiles> Upload for HadoopUpload<F> {
    async fn part(&self, number: u32, bytes: Bytes, deadline: Deadline) -> Result<()> {
        let mut open = self.take()?;
        if number != open.parts + 1 {
            let latest = open.parts;
            self.put_back(open);
            return match number == latest && number > 0 {
                // Sent again, unchanged, because its answer did not reach the caller.
                true => Ok(()),
                false => Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("part {number} after part {latest}: HDFS takes parts in order"),
                )
                .context(self.goal.what.to_string())),
            };
        }
        let len = bytes.len() as u64;
        match open.sink.write(&self.goal.step(deadline), bytes).await {
            Ok(()) => {
                open.parts = number;
                open.len += len;
                self.put_back(open);
                Ok(())
            }
            Err(error) => {
                tidy_up(&*self.files, &self.goal, &self.temporary).await;
                Err(error)
            }
        }
    }

    async fn complete(&self, expect: &Expect, deadline: Deadline) -> Result<ObjectMeta> {
        let mut open = self.take()?;
        let step = self.goal.step(deadline);
        if let Err(error) = open.sink.finish(&step, Failure::Final).await {
            tidy_up(&*self.files, &self.goal, &self.temporary).await;
            return Err(error);
        }
        let temporary = (self.temporary.as_str(), open.len);
        publish(&*self.files, &self.goal, &step, temporary, expect).await
    }

    async fn abort(&self, deadline: Deadline) -> Result<()> {
        drop(self.take());
        self.files
            .delete(&self.goal.step(deadline), &self.temporary)
            .await
    }
}

impl<F> fmt::Debug for HadoopUpload<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HadoopUpload")
            .field("goal", &self.goal)
            .finish_non_exhaustive()
    }
}
