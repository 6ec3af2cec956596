// SPDX-License-Identifier: Apache-2.0
//! The Google Cloud Storage server of the tests: fake-gcs-server.
//!
//! It checks neither signatures nor the conditions of reads, so it proves neither; the tests of
//! conditions have a server of their own.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::installed::go_program;
use super::server::Server;

const MODULE: &str = "github.com/fsouza/fake-gcs-server@v1.56.1";

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct FakeGcs {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    _server: Server,
}

impl FakeGcs {
    /// Starts a server that keeps its objects in memory and its log below `dir`. It writes addresses
    /// of its own into answers; `public` is what clients reach it at, if not itself.
    ///
    /// # Errors
    /// When it is missing and cannot be built, or does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        let binary = go_program(MODULE)?;
        let server = Server::start("fake-gcs-server", dir, |address| {
            let mut command = Command::new(&binary);
            command
                .args(["-scheme", "http", "-host", "127.0.0.1", "-port"])
                .arg(address.port().to_string())
                .args(["-backend", "memory", "-log-level", "warn"])
                .args(["-public-host", &address.to_string()])
                .args(["-external-url", &format!("http://{address}")]);
            Ok(command)
        })?;
        Ok(FakeGcs {
            endpoint: format!("http://{}", server.address),
            _server: server,
        })
    }
}
