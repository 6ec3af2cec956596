// SPDX-License-Identifier: Apache-2.0
//! The writing side of HDFS, over RPC and over HTTP alike.
//!
//! A file is written under a temporary name (`crate::temporary`), closed, and given its name by a
//! rename, which HDFS does in one step. That a name is free is checked by that rename, so directories
//! are made by one, too; that a version is still there is checked right before it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use types::{ByteRange, Deadline, ErrorKind, NodeKind, ObjectMeta, ObjectPath, Result, VersionTag};

use super::files::{Failure, HadoopFiles, Step, Taken};
use super::steps::{
    Goal, Refusal, absent, change_name, create, give, look, naming, publish, refused, tidy_up,
    until_done,
};
use super::upload::HadoopUpload;
use crate::{Abilities, Expect, FileAttributes, UnderWriter, Upload};

/// Files have no largest size; this is what may sit in memory at once.
const PUT_MAX: u64 = 1 << 30;
#[async_trait]
impl<F: HadoopFiles> UnderWriter for Arc<F> {
    fn abilities(&self) -> Abilities {
        Abilities {
            directories: true,
            rename: true,
            attributes: true,
            symlinks: false,
            xattrs_max: 0,
            conditions: false,
            put_max: PUT_MAX,
            parts_max: u32::MAX,
            part_min: 1,
            part_max: PUT_MAX,
            parallel_parts: false,
        }
    }

    async fn put(
        &self,
        path: &ObjectPath,
        bytes: Bytes,
        expect: &Expect,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let goal = Goal::new(&**self, "write", path, attributes)?;
        let (step, len) = (goal.step(deadline), bytes.len() as u64);
        let written = until_done(&**self, deadline, || async {
            let temporary = goal.temporary();
            let write = async {
                let mut sink = Arc::clone(self)
                    .create(&step, &temporary, goal.mode())
                    .await?;
                sink.write(&step, bytes.clone()).await?;
                sink.finish(&step, Failure::Mended).await
            };
            match write.await {
                Ok(()) => Ok(temporary),
                Err(error) => {
                    tidy_up(&**self, &goal, &temporary).await;
                    Err(error)
                }
            }
        });
        let temporary = written.await?;
        publish(&**self, &goal, &step, (&temporary, len), expect).await
    }

    async fn begin(
        &self,
        path: &ObjectPath,
        _part_size: u64,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<Box<dyn Upload>> {
        let goal = Goal::new(&**self, "write", path, attributes)?;
        let (temporary, sink) = create(self, &goal, &goal.step(deadline)).await?;
        Ok(Box::new(HadoopUpload::new(
            Arc::clone(self),
            goal,
            temporary,
            sink,
        )))
    }

    async fn delete(&self, path: &ObjectPath, expect: &Expect, deadline: Deadline) -> Result<()> {
        let goal = Goal::new(&**self, "remove", path, &FileAttributes::default())?;
        let step = goal.step(deadline);
        let Some(seen) = look(&**self, &step, &goal.target).await? else {
            return Ok(());
        };
        match expect {
            _ if seen.kind == NodeKind::Directory => {
                return Err(refused(&step, ErrorKind::IsADirectory, "it is a directory"));
            }
            Expect::Anything => {}
            Expect::Absent => {
                return Err(refused(
                    &step,
                    ErrorKind::AlreadyExists,
                    "the file is there",
                ));
            }
            Expect::Version(tag) if seen.tag == *tag => {}
            Expect::Version(_) => return Err(refused(&step, ErrorKind::Stale, "the file changed")),
        }
        until_done(&**self, deadline, || {
            HadoopFiles::delete(&**self, &step, &goal.target)
        })
        .await
    }

    async fn create_dir(
        &self,
        path: &ObjectPath,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let goal = Goal::new(&**self, "make directory", path, attributes)?;
        let (files, step, temporary) = (&**self, goal.step(deadline), goal.temporary());
        until_done(files, deadline, || {
            files.make_dir(&step, &temporary, goal.mode())
        })
        .await?;
        let made = async {
            let seen = look(files, &step, &temporary).await?;
            let seen = seen.ok_or_else(|| absent(&step))?;
            give(files, &step, &temporary, seen, attributes, Refusal::Ignored).await?;
            change_name(files, &step, &temporary, &goal.target, Taken::Refuse).await
        };
        if let Err(error) = made.await {
            tidy_up(files, &goal, &temporary).await;
            return Err(error);
        }
        let seen = look(files, &step, &goal.target).await?;
        Ok(seen.ok_or_else(|| absent(&step))?.meta(files.owners()))
    }

    async fn remove_dir(&self, path: &ObjectPath, deadline: Deadline) -> Result<()> {
        let goal = Goal::new(
            &**self,
            "remove directory",
            path,
            &FileAttributes::default(),
        )?;
        let step = goal.step(deadline);
        match look(&**self, &step, &goal.target).await? {
            None => return Ok(()),
            Some(seen) if seen.kind == NodeKind::Directory => {}
            Some(_) => {
                return Err(refused(
                    &step,
                    ErrorKind::NotADirectory,
                    "it is no directory",
                ));
            }
        }
        until_done(&**self, deadline, || {
            HadoopFiles::delete(&**self, &step, &goal.target)
        })
        .await
    }

    async fn copy(
        &self,
        from: &ObjectPath,
        tag: &VersionTag,
        to: &ObjectPath,
        expect: &Expect,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        // HDFS copies nothing by itself: the bytes come here and go back.
        let source = Goal::new(&**self, "copy", from, &FileAttributes::default())?;
        let step = source.step(deadline);
        let seen = look(&**self, &step, &source.target).await?;
        let seen = seen.filter(|seen| seen.kind == NodeKind::File && seen.tag == *tag);
        let seen = seen.ok_or_else(|| refused(&step, ErrorKind::Stale, "the file changed"))?;
        let attributes = FileAttributes {
            owner: seen.meta(self.owners()).owner,
            mtime_ns: Some(tag.mtime_ns),
            xattrs: None,
        };
        let upload = self.begin(to, PUT_MAX, &attributes, deadline).await?;
        let sent = async {
            let whole = ByteRange::new(0, tag.size);
            let mut bytes = Arc::clone(self)
                .read_range(from, tag, whole, deadline)
                .await?;
            let mut number = 0;
            while let Some(piece) = bytes.try_next().await? {
                number += 1;
                upload.part(number, piece, deadline).await?;
            }
            Ok(())
        };
        match sent.await {
            Ok(()) => upload.complete(expect, deadline).await,
            Err(error) => {
                upload.abort(deadline).await?;
                Err(error)
            }
        }
    }

    async fn rename(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let none = FileAttributes::default();
        let goal = Goal::new(&**self, &format!("rename {from} to"), to, &none)?;
        let from = Goal::new(&**self, "rename", from, &none)?.target;
        let (files, step) = (&**self, goal.step(deadline));
        if look(files, &step, &from).await?.is_none() {
            return Err(absent(&step));
        }
        if from != goal.target {
            change_name(files, &step, &from, &goal.target, Taken::Replace).await?;
        }
        let seen = look(files, &step, &goal.target).await?;
        Ok(seen.ok_or_else(|| absent(&step))?.meta(files.owners()))
    }

    async fn set_attributes(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let step = Step {
            what: naming(&**self, "change attributes of", path),
            deadline,
        };
        let full = self.location().full(path)?;
        let seen = look(&**self, &step, &full).await?;
        let seen = seen.ok_or_else(|| absent(&step))?;
        if seen.kind != NodeKind::Directory && seen.tag != *tag {
            return Err(refused(&step, ErrorKind::Stale, "the file changed"));
        }
        let seen = give(&**self, &step, &full, seen, attributes, Refusal::Told).await?;
        Ok(seen.meta(self.owners()))
    }
}
