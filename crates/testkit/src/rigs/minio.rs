// SPDX-License-Identifier: Apache-2.0
//! The other S3 server of the tests: MinIO, one node with one drive.
//!
//! It keeps keys and conditions as AWS does, and pages of listings with tokens of its own. Built
//! from the Go module proxy, which takes minutes once: `scripts/setup storages` does it before the
//! tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::installed::go_program;
use super::server::Server;

const MODULE: &str = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c";
const ACCESS_KEY: &str = "rigaccess";
const SECRET_KEY: &str = "rigsecretkey";
const REGION: &str = "us-east-1";

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Minio {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    /// The access key of the root account.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// The region that requests must be signed for.
    pub region: String,
    _server: Server,
}

impl Minio {
    /// Starts a server that keeps its objects and its log below `dir`.
    ///
    /// # Errors
    /// When the binary is missing and cannot be built, or the server does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        let binary = go_program(MODULE)?;
        let drive = dir.join("drive");
        fs::create_dir_all(&drive).context("drive of MinIO")?;
        let certificates = dir.join("certificates");
        let server = Server::start("minio", dir, |address| {
            let mut command = Command::new(&binary);
            command
                .args(["server", "--quiet", "--address", &address.to_string()])
                .arg("--certs-dir")
                .arg(&certificates)
                .arg(&drive)
                .env("MINIO_ROOT_USER", ACCESS_KEY)
                .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
                // It tests itself for a minute at its start otherwise, and asks for updates.
                .envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off")])
                .env("MINIO_CI_CD", "1")
                // Without it, it takes signatures for any region.
                .env("MINIO_SITE_REGION", REGION);
            Ok(command)
        })?;
        Ok(Minio {
            endpoint: format!("http://{}", server.address),
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            region: REGION.into(),
            _server: server,
        })
    }
}
