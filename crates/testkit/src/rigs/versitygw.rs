// SPDX-License-Identifier: Apache-2.0
//! The S3 server of the tests: Versity Gateway over a local directory.
//!
//! A bucket is a directory below [`VersityGw::data_dir`], an object a file with its ETag in the
//! extended attribute `user.etag`. It refuses a key that is object and prefix at once, and knows no
//! `encoding-type`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::park_timeout;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use types::{Clock, SystemClock};

const MODULE: &str = "github.com/versity/versitygw/cmd/versitygw@v1.8.0";
/// It answers in half a second on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Another process may take the port between our look and the server's start.
const TRIES: usize = 5;

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
    child: Child,
}

impl VersityGw {
    /// Starts a server that keeps its objects and its log below `dir`.
    ///
    /// # Errors
    /// When the binary is missing and cannot be built, or the server does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        let binary = binary()?;
        let data_dir = dir.join("data");
        fs::create_dir_all(&data_dir).context("data directory of versitygw")?;
        for _ in 0..TRIES {
            if let Some(server) = Self::try_start(&binary, dir, &data_dir)? {
                return Ok(server);
            }
        }
        bail!(
            "versitygw ended {TRIES} times at its start; see {}",
            dir.join("log").display()
        )
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

    /// Starts it once; `None` when it ended at once, as it does when the port was taken.
    fn try_start(binary: &Path, dir: &Path, data_dir: &Path) -> Result<Option<Self>> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(dir.join("log"))?;
        let mut server = VersityGw {
            endpoint: format!("http://{address}"),
            access_key: "rigaccess".into(),
            secret_key: "rigsecretkey".into(),
            region: "us-east-1".into(),
            data_dir: data_dir.into(),
            child: Command::new(binary)
                .args([
                    "--access",
                    "rigaccess",
                    "--secret",
                    "rigsecretkey",
                    "--region",
                ])
                .args([
                    "us-east-1",
                    "--quiet",
                    "--keep-alive",
                    "--port",
                    &address.to_string(),
                    "posix",
                ])
                .arg(data_dir)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .context("start versitygw")?,
        };
        let deadline = SystemClock.deadline(PATIENCE);
        while !deadline.left(SystemClock.now()).is_zero() {
            if server.child.try_wait()?.is_some() {
                return Ok(None);
            }
            if answers(address) {
                return Ok(Some(server));
            }
            park_timeout(Duration::from_millis(10));
        }
        bail!("versitygw did not answer within {PATIENCE:?}")
    }
}

impl Drop for VersityGw {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Returns whether something there speaks HTTP.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: rig\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 5];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/")
    };
    ask().unwrap_or(false)
}

/// Returns the path of the server, which is built when it is missing.
fn binary() -> Result<PathBuf> {
    let dir = match std::env::var_os("FOREBAY_RIGS") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let home = std::env::var_os("HOME").context("HOME is not set, nor FOREBAY_RIGS")?;
            PathBuf::from(home).join(".cache/forebay/rigs")
        }
    };
    let bin = dir.join("bin");
    let binary = bin.join("versitygw");
    fs::create_dir_all(&bin).with_context(|| format!("make {}", bin.display()))?;
    // One of the tests that run at once builds; the others wait for it here.
    let lock = File::create(dir.join("lock"))?;
    lock.lock().context("lock the rigs")?;
    if binary.try_exists()? {
        return Ok(binary);
    }
    let status = Command::new("go")
        .args(["install", "-trimpath", "-ldflags=-s -w", MODULE])
        .env("GOBIN", &bin)
        .env("GOFLAGS", "-buildvcs=false")
        .status()
        .context("run go, which builds versitygw; install Go or put versitygw there")?;
    if !status.success() || !binary.try_exists()? {
        bail!("go install {MODULE} failed: {status}");
    }
    Ok(binary)
}
