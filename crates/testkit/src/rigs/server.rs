// SPDX-License-Identifier: Apache-2.0
//! A process that serves HTTP on a port that was free, and ends when it is dropped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::park_timeout;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use types::{Clock, SystemClock};

/// The slowest of them answers in five seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Another process may take the port between our look and the server's start.
const TRIES: usize = 5;

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts the command that `command` makes for an address, with its output in `dir/log`, and
    /// waits until it answers.
    pub(super) fn start(
        name: &str,
        dir: &Path,
        mut command: impl FnMut(SocketAddr) -> Result<Command>,
    ) -> Result<Self> {
        fs::create_dir_all(dir)?;
        for _ in 0..TRIES {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            if let Some(server) = Self::try_start(name, dir, address, command(address)?)? {
                return Ok(server);
            }
        }
        let log = dir.join("log");
        bail!(
            "{name} ended {TRIES} times at its start; see {}",
            log.display()
        )
    }

    /// Starts it once; `None` when it ended at once, as it does when the port was taken.
    fn try_start(
        name: &str,
        dir: &Path,
        address: SocketAddr,
        mut command: Command,
    ) -> Result<Option<Self>> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(dir.join("log"))?;
        let mut server = Server {
            address,
            child: command
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .with_context(|| format!("start {name}"))?,
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
        bail!("{name} did not answer within {PATIENCE:?}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Returns whether something there speaks HTTP, and says anything but that it is not ready.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: rig\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut start)?;
        Ok(start.starts_with(b"HTTP/") && !start.ends_with(b" 503"))
    };
    ask().unwrap_or(false)
}
