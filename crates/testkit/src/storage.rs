// SPDX-License-Identifier: Apache-2.0
//! An under storage for a test: an S3 server behind a relay, or a local directory.
//!
//! Objects are put behind the product's back, as another machine would. The S3 server keeps its
//! objects as files with the ETag in an extended attribute, so that both kinds are written the same
//! way: a file beside the data, moved into place, so that a reader of the storage sees the old
//! object or the new one.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::data;
use crate::rigs::{Relay, VersityGw};

/// The bucket that holds the objects of a test.
pub const BUCKET: &str = "data";

/// An under storage with objects in it.
#[derive(Debug)]
pub struct Storage {
    root: PathBuf,
    /// None when it is a local directory.
    s3: Option<S3>,
    writes: Cell<u64>,
    // Last, so that the servers are gone before their directory.
    dir: TempDir,
}

#[derive(Debug)]
struct S3 {
    relay: Relay,
    server: VersityGw,
}

impl Storage {
    /// Starts an S3 server with an empty bucket, behind a relay.
    ///
    /// # Panics
    /// When it does not start.
    pub fn s3() -> Self {
        Storage::s3_at(TempDir::new().expect("temporary directory"))
    }

    /// Does so with the objects in memory: a server that has no part in the local disk.
    ///
    /// # Panics
    /// As [`Storage::s3`].
    pub fn s3_in_memory() -> Self {
        Storage::s3_at(TempDir::new_in("/dev/shm").expect("a directory in memory"))
    }

    fn s3_at(dir: TempDir) -> Self {
        let server = VersityGw::start(dir.path()).expect("versitygw starts");
        let relay = Relay::start(&server.endpoint).expect("the relay starts");
        let root = server.data_dir.join(BUCKET);
        fs::create_dir_all(&root).expect("bucket");
        Storage {
            root,
            s3: Some(S3 { relay, server }),
            writes: Cell::new(0),
            dir,
        }
    }

    /// Makes an empty local directory.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn local() -> Self {
        let dir = TempDir::new().expect("temporary directory");
        let root = dir.path().join(BUCKET);
        fs::create_dir(&root).expect("directory");
        Storage {
            root,
            s3: None,
            writes: Cell::new(0),
            dir,
        }
    }

    /// Returns both kinds.
    pub fn each() -> [Self; 2] {
        [Storage::s3(), Storage::local()]
    }

    /// Returns the location that is mounted.
    pub fn uri(&self) -> String {
        match &self.s3 {
            Some(_) => format!("s3://{BUCKET}"),
            None => format!("file://{}", self.root.display()),
        }
    }

    /// Returns the flags of `forebay mount` that lead to it.
    pub fn flags(&self) -> Vec<String> {
        match &self.s3 {
            Some(S3 { relay, server }) => {
                ["--endpoint", relay.endpoint(), "--region", &server.region]
                    .map(String::from)
                    .into()
            }
            None => Vec::new(),
        }
    }

    /// Returns the environment that holds the credentials.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        match &self.s3 {
            Some(S3 { server, .. }) => vec![
                ("AWS_ACCESS_KEY_ID", server.access_key.clone()),
                ("AWS_SECRET_ACCESS_KEY", server.secret_key.clone()),
            ],
            None => Vec::new(),
        }
    }

    /// Returns the directory whose files are the objects.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns how many uploads were begun and neither completed nor given up.
    pub fn unfinished_uploads(&self) -> usize {
        let objects = fs::read_dir(self.root().join(".sgwtmp/multipart"));
        // What is gone by now is no upload any more.
        let uploads = |object: fs::DirEntry| fs::read_dir(object.path()).map_or(0, Iterator::count);
        objects.map_or(0, |objects| objects.flatten().map(uploads).sum())
    }

    /// Returns the relay in front of the S3 server.
    ///
    /// # Panics
    /// When this is a local directory.
    pub fn relay(&self) -> &Relay {
        match &self.s3 {
            Some(S3 { relay, .. }) => relay,
            None => panic!("a local directory has no relay"),
        }
    }

    /// Returns the S3 server.
    ///
    /// # Panics
    /// When this is a local directory.
    pub fn server(&self) -> &VersityGw {
        match &self.s3 {
            Some(S3 { server, .. }) => server,
            None => panic!("a local directory has no server"),
        }
    }

    /// Puts an object with the content of `seed`, and returns its bytes.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, name: impl AsRef<OsStr>, seed: u64, len: usize) -> Vec<u8> {
        let content = data::bytes(seed, len);
        self.put_bytes(name, &content);
        content
    }

    /// Puts an object.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put_bytes(&self, name: impl AsRef<OsStr>, content: &[u8]) {
        let staged = self
            .dir
            .path()
            .join(format!("staged-{}", self.writes.get()));
        fs::write(&staged, content).expect("staged object");
        self.put_file(name, &staged);
    }

    /// Puts an object that is `len` bytes of nothing but for the given parts.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put_sparse(&self, name: impl AsRef<OsStr>, len: u64, parts: &[(u64, &[u8])]) {
        use std::os::unix::fs::FileExt;
        let staged = self.dir.path().join("staged-sparse");
        let file = fs::File::create(&staged).expect("staged object");
        file.set_len(len).expect("sparse file");
        for (offset, part) in parts {
            file.write_all_at(part, *offset).expect("part");
        }
        self.put_file(name, &staged);
    }

    /// Lets clients without credentials read the bucket, but not list it.
    ///
    /// # Panics
    /// When the file system keeps no extended attributes.
    pub fn let_everybody_read(&self) {
        self.let_everybody(&[("s3:GetObject", "/*")]);
    }

    /// Lets clients without credentials read and list the bucket, but not change it.
    ///
    /// # Panics
    /// When the file system keeps no extended attributes.
    pub fn let_everybody_read_and_list(&self) {
        self.let_everybody(&[("s3:GetObject", "/*"), ("s3:ListBucket", "")]);
    }

    /// Lets anybody put objects, also in parts.
    ///
    /// # Panics
    /// When the file system keeps no extended attributes.
    pub fn let_everybody_write(&self) {
        self.let_everybody(&[("s3:PutObject", "/*")]);
    }

    fn let_everybody(&self, actions: &[(&str, &str)]) {
        let allow = |(action, below): &(&str, &str)| {
            serde_json::json!({
                "Effect": "Allow",
                "Principal": "*",
                "Action": action,
                "Resource": format!("arn:aws:s3:::{BUCKET}{below}"),
            })
        };
        let statement: Vec<_> = actions.iter().map(allow).collect();
        let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": statement });
        set_attribute(&self.root, "user.policy", &policy.to_string());
    }

    /// Removes an object.
    ///
    /// # Panics
    /// When there is none.
    pub fn remove(&self, name: impl AsRef<OsStr>) {
        fs::remove_file(self.root.join(name.as_ref())).expect("object to remove");
    }

    /// Returns how many requests reached the S3 server.
    ///
    /// # Panics
    /// When this is a local directory: the product counts its own operations there.
    pub fn requests(&self) -> u64 {
        self.relay().requests()
    }

    /// Makes the storage unreachable.
    ///
    /// # Panics
    /// When the directory cannot be moved away.
    pub fn switch_off(&self) {
        match &self.s3 {
            Some(S3 { relay, .. }) => relay.switch_off(),
            None => fs::rename(&self.root, self.root.with_extension("away")).expect("move"),
        }
    }

    /// Makes the storage reachable again.
    ///
    /// # Panics
    /// When the directory cannot be moved back.
    pub fn switch_on(&self) {
        match &self.s3 {
            Some(S3 { relay, .. }) => relay.switch_on(),
            None => fs::rename(self.root.with_extension("away"), &self.root).expect("move"),
        }
    }

    fn put_file(&self, name: impl AsRef<OsStr>, staged: &Path) {
        self.writes.set(self.writes.get() + 1);
        let place = self.root.join(name.as_ref());
        let parent = place.parent().expect("objects lie below the root");
        fs::create_dir_all(parent).expect("directories of the object");
        if self.s3.is_some() {
            let etag = format!(
                "\"{:032x}\"",
                u128::from(self.writes.get()) << 64 | hash(&place)
            );
            set_attribute(staged, "user.etag", &etag);
        }
        fs::rename(staged, &place).expect("object moves into place");
    }
}

/// Tells apart the ETags of objects of different names; FNV-1a is enough for that.
fn hash(path: &Path) -> u128 {
    let bytes = path.as_os_str().as_bytes().iter();
    u128::from(bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    }))
}

fn set_attribute(path: &Path, name: &str, value: &str) {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(path, name, value.as_bytes(), flags)
        .expect("this file system keeps extended attributes");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::http::Connection;

    #[test]
    fn an_object_that_is_put_behind_the_server_is_served_and_counted() {
        let storage = Storage::s3();
        storage.put("dir/object", 1, 100_000);
        storage.let_everybody_read();
        let mut connection = Connection::new(storage.relay().endpoint());
        let mut body = Vec::new();
        connection
            .get(&format!("/{BUCKET}/dir/object"), None, &mut body)
            .unwrap();
        assert_eq!(data::check(1, 0, &body), Ok(()));
        storage.put("dir/object", 2, 50_000);
        connection
            .get(&format!("/{BUCKET}/dir/object"), Some((8, 1000)), &mut body)
            .unwrap();
        assert_eq!((body.len(), data::check(2, 8, &body)), (1000, Ok(())));
        assert_eq!(storage.requests(), 2);
        storage.switch_off();
        assert!(
            connection
                .get(&format!("/{BUCKET}/dir/object"), None, &mut body)
                .is_err()
        );
        assert_eq!(storage.requests(), 2);
    }
}
