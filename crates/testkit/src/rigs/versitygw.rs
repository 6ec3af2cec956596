// SPDX-License-Identifier: Apache-2.0
//! The S3 server of the tests: Versity Gateway over a local directory.
//!
//! A bucket is a directory below [`VersityGw::data_dir`], an object a file with its ETag in the
//! extended attribute `user.etag`. It refuses a key that is object and prefix at once, and knows no
//! `encoding-type`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::installed::go_program;
use super::server::Server;

const MODULE: &str = "github.com/versity/versitygw/cmd/versitygw@v1.8.0";
const ACCESS_KEY: &str = "rigaccess";
const SECRET_KEY: &str = "rigsecretkey";
const REGION: &str = "us-east-1";

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct VersityGw {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    /// The access key of the root account.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// The region that requests must be signed for.
    pub region: String,
    /// The directory whose directories are the buckets.
    pub data_dir: PathBuf,
    _server: Server,
}

impl VersityGw {
    /// Starts a server that keeps its objects and its log below `dir`.
    ///
    /// # Errors
    /// When the binary is missing and cannot be built, or the server does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        let binary = go_program(MODULE)?;
        let data_dir = dir.join("data");
        fs::create_dir_all(&data_dir).context("data directory of versitygw")?;
        let server = Server::start("versitygw", dir, |address| {
            let mut command = Command::new(&binary);
            command
                .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY])
                .args(["--region", REGION, "--quiet", "--keep-alive"])
                .args(["--port", &address.to_string(), "posix"])
                .arg(&data_dir);
            Ok(command)
        })?;
        Ok(VersityGw {
            endpoint: format!("http://{}", server.address),
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            region: REGION.into(),
            data_dir,
            _server: server,
        })
    }

    /// Makes an empty bucket.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn create_bucket(&self, name: &str) -> Result<PathBuf> {
        let bucket = self.data_dir.join(name);
        fs::create_dir_all(&bucket).with_context(|| format!("bucket {name}"))?;
        Ok(bucket)
    }
}
