// SPDX-License-Identifier: Apache-2.0
//! How requests for extended attributes are answered.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::{Errno, INodeNo, ReplyEmpty, ReplyXattr, Request};
use types::{Error, ErrorKind};
use vfs::{Ino, XattrChange};

use crate::door::Door;
use crate::ops::Ops;
use crate::stats::Operation;

impl Ops {
    pub(crate) fn change_xattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        change: XattrChange,
        reply: ReplyEmpty,
    ) {
        let door = Arc::clone(self.count(Operation::SetAttr));
        let changed = self
            .door
            .vfs
            .change_xattr(Ino(ino.0), name.as_bytes(), change);
        self.door
            .change(request.pid(), changed, move |result| match result {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(xattr_fault(&door, Operation::SetAttr, ino, &e)),
            });
    }

    pub(crate) fn get_xattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let door = Arc::clone(self.count(Operation::GetXattr));
        let found = self.door.vfs.get_xattr(Ino(ino.0), name.as_bytes());
        self.door
            .finish(request.pid(), found, move |result| match result {
                Ok(value) => answer(&value, size, reply),
                Err(e) => reply.error(xattr_fault(&door, Operation::GetXattr, ino, &e)),
            });
    }

    pub(crate) fn list_xattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let door = Arc::clone(self.count(Operation::ListXattr));
        let listed = self.door.vfs.list_xattr(Ino(ino.0));
        self.door
            .finish(request.pid(), listed, move |result| match result {
                Ok(names) => answer(&names, size, reply),
                Err(e) => reply.error(door.fault(Operation::ListXattr, ino.0, &e)),
            });
    }
}

/// Answers with an extended attribute as its callers expect: its size first, then its bytes.
fn answer(bytes: &[u8], size: u32, reply: ReplyXattr) {
    match u32::try_from(bytes.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(bytes),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(_) => reply.error(Errno::E2BIG),
    }
}

/// Returns the error number of an extended attribute: one that is absent has its own.
fn xattr_fault(door: &Door, operation: Operation, ino: INodeNo, error: &Error) -> Errno {
    match error.kind() {
        ErrorKind::NotFound => Errno::ENODATA,
        // What a name of another kind is answered with is no failure.
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        _ => door.fault(operation, ino.0, error),
    }
}
