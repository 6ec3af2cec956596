// SPDX-License-Identifier: Apache-2.0
//! A real Ceph cluster of one node: monitor, manager, one OSD in memory, object gateway, file system.
//!
//! Needs Debian's `ceph-mon ceph-mgr ceph-osd ceph-mds radosgw ceph-common ceph-fuse`. All of its
//! files are below the directory it is given; its processes end when it is dropped.

mod config;

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::park_timeout;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use types::{Clock, SystemClock};

use self::config::Ports;

/// It is ready in twenty seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// Another process may take a port between our look and the daemons' start.
const TRIES: usize = 3;

/// A running cluster; ends when dropped.
#[derive(Debug)]
pub struct Ceph {
    /// The object gateway: `http://127.0.0.1:PORT`.
    pub endpoint: String,
    /// The access key of its user.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    dir: PathBuf,
    daemons: Vec<(&'static str, Child)>,
}

/// A Ceph file system mounted by `ceph-fuse`; unmounted when dropped.
#[derive(Debug)]
pub struct CephFs {
    /// Where it is mounted.
    pub mounted_at: PathBuf,
    client: Child,
}

impl Ceph {
    /// Starts a cluster that keeps its files below `dir`.
    ///
    /// # Errors
    /// When its programs are missing or it does not come up.
    pub fn start(dir: &Path) -> Result<Self> {
        for last in 1..=TRIES {
            let home = dir.join(format!("ceph{last}"));
            match Self::try_start(&home) {
                Err(error) if last == TRIES => return Err(error),
                Err(error) if format!("{error:#}").contains("ended at its start") => {}
                started => return started,
            }
        }
        bail!("no try to start Ceph was made")
    }

    fn try_start(dir: &Path) -> Result<Self> {
        for part in ["run", "log", "mon", "mgr", "osd", "mds", "rgw"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let ports = Ports::free()?;
        let fsid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let fsid = fsid.trim();
        fs::write(dir.join("ceph.conf"), config::file(dir, fsid, &ports))?;
        let mut ceph = Ceph {
            endpoint: format!("http://127.0.0.1:{}", ports.gateway),
            access_key: "rigaccess".into(),
            secret_key: "rigsecretkey".into(),
            dir: dir.into(),
            daemons: Vec::new(),
        };
        ceph.make_keys()?;
        ceph.start_monitor(fsid, &ports)?;
        ceph.start_storage()?;
        ceph.start_files()?;
        ceph.start_gateway(ports.gateway)?;
        Ok(ceph)
    }

    /// Mounts the file system at an empty directory.
    ///
    /// # Errors
    /// When `ceph-fuse` or `/dev/fuse` is missing, or the mount does not come up.
    pub fn mount(&self, at: &Path) -> Result<CephFs> {
        fs::create_dir_all(at)?;
        let client = self
            .tool("ceph-fuse")
            .args(["-n", "client.admin", "-f"])
            .arg(at)
            .stdin(Stdio::null())
            .stdout(self.log("fuse")?)
            .stderr(self.log("fuse")?)
            .spawn()
            .context("start ceph-fuse")?;
        let mut mounted = CephFs {
            mounted_at: at.into(),
            client,
        };
        let deadline = SystemClock.deadline(PATIENCE);
        let shown = at.display().to_string();
        let is_mounted = || -> Result<bool> {
            let mounts = fs::read_to_string("/proc/self/mounts")?;
            Ok(mounts
                .lines()
                .any(|line| line.split(' ').nth(1) == Some(&shown)))
        };
        while !is_mounted()? {
            let ended = mounted.client.try_wait()?.is_some();
            if ended || deadline.left(SystemClock.now()).is_zero() {
                bail!("ceph-fuse did not mount: {}", self.words_of("fuse"));
            }
            park_timeout(Duration::from_millis(20));
        }
        Ok(mounted)
    }

    fn make_keys(&self) -> Result<()> {
        let all = ["mon", "osd", "mds", "mgr"].map(|kind| [kind, "allow *"]);
        self.make_key("mon.", &[["mon", "allow *"]])?;
        self.make_key("client.admin", &all)?;
        self.make_key(
            "mgr.x",
            &[
                ["mon", "allow profile mgr"],
                ["osd", "allow *"],
                ["mds", "allow *"],
            ],
        )?;
        self.make_key(
            "osd.0",
            &[
                ["mon", "allow profile osd"],
                ["mgr", "allow profile osd"],
                ["osd", "allow *"],
            ],
        )?;
        self.make_key(
            "mds.a",
            &[
                ["mon", "allow profile mds"],
                ["osd", "allow *"],
                ["mds", "allow *"],
                ["mgr", "allow profile mds"],
            ],
        )?;
        self.make_key(
            "client.rgw",
            &[
                ["mon", "allow rw"],
                ["osd", "allow rwx"],
                ["mgr", "allow rw"],
            ],
        )
    }

    fn make_key(&self, name: &str, rights: &[[&str; 2]]) -> Result<()> {
        let ring = self.dir.join("keyring");
        let mut tool = Command::new("ceph-authtool");
        if !ring.try_exists()? {
            tool.arg("--create-keyring");
        }
        tool.arg(&ring).args(["--gen-key", "-n", name]);
        for [kind, right] in rights {
            tool.args(["--cap", kind, right]);
        }
        run(&mut tool).map(drop)
    }

    fn start_monitor(&mut self, fsid: &str, ports: &Ports) -> Result<()> {
        let map = self.dir.join("monmap");
        let addresses = format!(
            "[v2:127.0.0.1:{},v1:127.0.0.1:{}]",
            ports.monitor, ports.old_monitor
        );
        run(Command::new("monmaptool")
            .args(["--create", "--fsid", fsid, "--addv", "a", &addresses])
            .arg(&map))?;
        run(self
            .tool("ceph-mon")
            .args(["--mkfs", "-i", "a", "--monmap"])
            .arg(&map))?;
        self.spawn("ceph-mon", &["-i", "a", "-f"])?;
        let ring = self.dir.join("keyring").display().to_string();
        self.until("the monitor answers", &["ceph-mon"], |ceph| {
            Ok(ceph.ask(&["auth", "import", "-i", &ring]).is_ok())
        })
    }

    fn start_storage(&mut self) -> Result<()> {
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        self.ask(&["osd", "new", uuid.trim()])?;
        run(self
            .tool("ceph-osd")
            .args(["-i", "0", "--mkfs", "--osd-uuid", uuid.trim()]))?;
        self.spawn("ceph-mgr", &["-i", "x", "-f"])?;
        self.spawn("ceph-osd", &["-i", "0", "-f"])?;
        self.until("the OSD is up", &["ceph-mon", "ceph-osd"], |ceph| {
            Ok(ceph.ask(&["osd", "stat"])?.contains(" 1 up"))
        })
    }

    fn start_files(&mut self) -> Result<()> {
        for pool in ["files-meta", "files-data"] {
            self.ask(&["osd", "pool", "create", pool, "8"])?;
        }
        self.ask(&["fs", "new", "cephfs", "files-meta", "files-data"])?;
        self.spawn("ceph-mds", &["-i", "a", "-f"])?;
        self.until("the file system is active", &["ceph-mds"], |ceph| {
            Ok(ceph.ask(&["mds", "stat"])?.contains("up:active"))
        })
    }

    fn start_gateway(&mut self, port: u16) -> Result<()> {
        run(self
            .tool("radosgw-admin")
            .args(["user", "create", "--uid=rig", "--display-name=rig"])
            .arg(format!("--access-key={}", self.access_key))
            .arg(format!("--secret-key={}", self.secret_key)))?;
        self.spawn("radosgw", &["-n", "client.rgw", "-f"])?;
        self.until("the gateway answers", &["radosgw"], |_| {
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
        })
    }

    /// Waits for a condition; fails at once when a daemon that it needs has ended.
    fn until(
        &mut self,
        what: &str,
        needs: &[&str],
        mut holds: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = SystemClock.deadline(PATIENCE);
        while !holds(self)? {
            for (name, daemon) in &mut self.daemons {
                if needs.contains(name) && daemon.try_wait()?.is_some() {
                    let name = *name;
                    bail!("{name} ended at its start: {}", self.words_of(name));
                }
            }
            ensure!(
                !deadline.left(SystemClock.now()).is_zero(),
                "waited {PATIENCE:?} in vain until {what}"
            );
            park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        run(self
            .tool("ceph")
            .args(["--connect-timeout", "30"])
            .args(words))
    }

    fn spawn(&mut self, name: &'static str, words: &[&str]) -> Result<()> {
        let child = self
            .tool(name)
            .args(words)
            .stdin(Stdio::null())
            .stdout(self.log(name)?)
            .stderr(self.log(name)?)
            .spawn()
            .with_context(|| format!("start {name}; Debian has it as a package"))?;
        self.daemons.push((name, child));
        Ok(())
    }

    fn tool(&self, name: &str) -> Command {
        let mut tool = Command::new(name);
        tool.arg("-c").arg(self.dir.join("ceph.conf"));
        tool.arg("-k").arg(self.dir.join("keyring"));
        tool
    }

    fn log(&self, name: &str) -> Result<File> {
        let path = self.dir.join("log").join(format!("{name}.out"));
        Ok(File::options().create(true).append(true).open(path)?)
    }

    fn words_of(&self, name: &str) -> String {
        let path = self.dir.join("log").join(format!("{name}.out"));
        fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        // All is in memory or in a directory that goes: nothing needs a clean end.
        for (_, daemon) in self.daemons.iter_mut().rev() {
            let _killed = daemon.kill();
            let _status = daemon.wait();
        }
    }
}

impl Drop for CephFs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.mounted_at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _lazily = Command::new("umount")
                .arg("-l")
                .arg(&self.mounted_at)
                .status();
            let _killed = self.client.kill();
        }
        let _status = self.client.wait();
    }
}

/// Runs a program to its end; returns what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {command:?}; Debian has it as a package"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns a port that was free.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
