// SPDX-License-Identifier: Apache-2.0
//! The web servers of the tests: nginx from Debian's package, and Python's `http.server`.
//!
//! nginx knows ranges, conditions and ETags, and makes an ETag of the time in seconds and the
//! length. Python's server knows none of them: it answers every range with the whole file.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::installed::Installed;
use super::server::Server;

const PACKAGE: &str = "nginx";

/// A running server of a directory; ends when dropped.
#[derive(Debug)]
pub struct WebServer {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    /// The directory that it shows.
    pub data_dir: PathBuf,
    _server: Server,
}

impl WebServer {
    /// Starts nginx, with indexes on, over a directory below `dir`.
    ///
    /// # Errors
    /// When it is missing and cannot be fetched, or does not answer.
    pub fn nginx(dir: &Path) -> Result<Self> {
        let package = install()?;
        let work = dir.to_path_buf();
        Self::start("nginx", dir, |address, data| {
            let config = work.join("nginx.conf");
            fs::write(&config, nginx_config(address, data, &work))?;
            let mut command = Command::new(package.join("usr/sbin/nginx"));
            command.arg("-p").arg(&work).arg("-c").arg(&config);
            command.arg("-e").arg(work.join("log"));
            Ok(command)
        })
    }

    /// Starts Python's server over a directory below `dir`.
    ///
    /// # Errors
    /// When there is no Python, or it does not answer.
    pub fn python(dir: &Path) -> Result<Self> {
        Self::start("python", dir, |address, data| {
            let mut command = Command::new("python3");
            command
                .args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"])
                .arg(data)
                .arg(address.port().to_string());
            Ok(command)
        })
    }

    fn start(
        name: &str,
        dir: &Path,
        mut command: impl FnMut(SocketAddr, &Path) -> Result<Command>,
    ) -> Result<Self> {
        let data_dir = dir.join("data");
        fs::create_dir_all(&data_dir)?;
        let server = Server::start(name, dir, |address| command(address, &data_dir))?;
        Ok(WebServer {
            endpoint: format!("http://{}", server.address),
            data_dir,
            _server: server,
        })
    }
}

/// One process in the foreground that writes only below `work`.
fn nginx_config(address: SocketAddr, data: &Path, work: &Path) -> String {
    let (data, work) = (data.display(), work.display());
    format!(
        "daemon off;\nmaster_process off;\npid {work}/nginx.pid;\nworker_rlimit_nofile 1024;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n  default_type application/octet-stream;\n\
         client_body_temp_path {work}/body;\n  proxy_temp_path {work}/proxy;\n\
         fastcgi_temp_path {work}/fastcgi;\n  uwsgi_temp_path {work}/uwsgi;\n\
         scgi_temp_path {work}/scgi;\n  keepalive_requests 1000000;\n\
         server {{\n    listen {address};\n    root \"{data}\";\n    autoindex on;\n\
         absolute_redirect off;\n    index no-such-index;\n  }}\n}}\n"
    )
}

/// Unpacks Debian's package; nothing of the system changes.
fn install() -> Result<PathBuf> {
    Installed::new("nginx", PACKAGE)?.or_install(|dir| {
        let fetched = Command::new("apt-get")
            .args(["download", "-qq", PACKAGE])
            .current_dir(dir)
            .status()
            .context("run apt-get, which fetches nginx; this rig needs Debian or Ubuntu")?;
        ensure!(
            fetched.success(),
            "apt-get download {PACKAGE} failed: {fetched}; run apt-get update"
        );
        for file in fs::read_dir(dir)? {
            let unpacked = Command::new("dpkg-deb")
                .arg("--extract")
                .arg(file?.path())
                .arg(dir)
                .status()
                .context("run dpkg-deb")?;
            ensure!(unpacked.success(), "dpkg-deb failed: {unpacked}");
        }
        Ok(())
    })
}
