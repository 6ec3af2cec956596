// SPDX-License-Identifier: Apache-2.0
//! The Azure Blob server of the tests: Azurite, Microsoft's own emulator.
//!
//! It checks signatures and conditions. Its account is the one that every emulator of Azure knows,
//! and stands in the path of its endpoint.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::installed::Installed;
use super::server::Server;

const PACKAGE: &str = "azurite@3.37.0";

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Azurite {
    /// The account's URL.
    pub endpoint: String,
    /// The name of the account.
    pub account: String,
    /// Its key, which is published and no secret.
    pub key: String,
    _server: Server,
}

impl Azurite {
    /// Starts a server that keeps its blobs and its log below `dir`.
    ///
    /// # Errors
    /// When it is missing and cannot be installed, or does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        let package = install()?;
        let data = dir.join("data");
        let server = Server::start("azurite", dir, |address| {
            let mut command = Command::new("node");
            command
                .arg(package.join("node_modules/azurite/dist/src/blob/main.js"))
                .args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"])
                .args(["--blobHost", "127.0.0.1", "--blobPort"])
                .arg(address.port().to_string())
                .arg("--location")
                .arg(&data);
            Ok(command)
        })?;
        let account = "devstoreaccount1";
        Ok(Azurite {
            endpoint: format!("http://{}/{account}", server.address),
            account: account.into(),
            key: "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
                .into(),
            _server: server,
        })
    }
}

fn install() -> Result<PathBuf> {
    Installed::new("azurite", PACKAGE)?.or_install(|dir| {
        let status = Command::new("npm")
            .args([
                "install",
                "--no-save",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
            ])
            .arg("--prefix")
            .arg(dir)
            .arg(PACKAGE)
            .stdout(std::process::Stdio::null())
            .status()
            .context("run npm, which installs Azurite; install Node.js")?;
        ensure!(status.success(), "npm install {PACKAGE} failed: {status}");
        Ok(())
    })
}
