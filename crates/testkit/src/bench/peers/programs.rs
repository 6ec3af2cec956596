// SPDX-License-Identifier: Apache-2.0
//! How each peer is started, with the options that its own guide has for data that is read again and
//! again and does not change, and how it is stopped.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use super::disk_usage;
use crate::rigs;
use crate::storage::{BUCKET, Storage};
use crate::wait;

/// How long a peer may take to mount, or to leave.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where JuiceFS keeps its own objects.
const JUICE_BUCKET: &str = "juicefs";

/// A file system of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// `rclone mount` with its full cache.
    Rclone,
    /// s3fs with its cache of whole files.
    S3fs,
    /// JuiceFS with a local database for its metadata: it keeps objects of its own, and its data set
    /// is written through it.
    JuiceFs,
    /// Not to be had as a package.
    GeeseFs,
    /// Not to be had as a package.
    MountpointS3,
    /// Speaks to Google Cloud Storage alone.
    GcsFuse,
}

impl Peer {
    /// All of them.
    pub const ALL: [Peer; 6] = [
        Peer::Rclone,
        Peer::S3fs,
        Peer::JuiceFs,
        Peer::GeeseFs,
        Peer::MountpointS3,
        Peer::GcsFuse,
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Rclone => "rclone",
            Peer::S3fs => "s3fs",
            Peer::JuiceFs => "JuiceFS",
            Peer::GeeseFs => "geesefs",
            Peer::MountpointS3 => "mountpoint-s3",
            Peer::GcsFuse => "gcsfuse",
        }
    }

    /// Finds its program, and writes the data set where its own objects are.
    pub(super) fn prepare(self, storage: &Storage, local: &Path) -> Result<Prepared> {
        let program = match self {
            Peer::Rclone => in_path("rclone")?,
            Peer::S3fs => in_path("s3fs")?,
            Peer::JuiceFs => rigs::peers::juicefs()?,
            Peer::GeeseFs => bail!("it could not be installed from a package registry"),
            Peer::MountpointS3 => bail!("its library is in a package registry, its program is not"),
            Peer::GcsFuse => bail!("it reads Google Cloud Storage alone, and this is S3"),
        };
        let own = TempDir::with_prefix("peer-").context("directory of a peer")?;
        let prepared = Prepared { program, own };
        if self == Peer::JuiceFs {
            prepared.write_through(storage, local)?;
        }
        Ok(prepared)
    }

    fn version(self, program: &Path) -> Result<String> {
        let flag = if self == Peer::S3fs {
            "--version"
        } else {
            "version"
        };
        let said = Command::new(program)
            .arg(flag)
            .output()
            .context("version")?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let first = said.lines().next().unwrap_or_default();
        let words = first.split_whitespace();
        // The word that has a number in it.
        let number = words.into_iter().find(|word| word.contains('.'));
        Ok(number.unwrap_or(first).to_owned())
    }
}

/// A program that was found, and a directory for what it keeps beside its cache.
#[derive(Debug)]
pub(super) struct Prepared {
    program: PathBuf,
    own: TempDir,
}

impl Prepared {
    fn database(&self) -> String {
        format!("sqlite3://{}/meta.db", self.own.path().display())
    }

    /// Makes a file system of JuiceFS and copies the data set into it.
    fn write_through(&self, storage: &Storage, local: &Path) -> Result<()> {
        let server = storage.server();
        server.create_bucket(JUICE_BUCKET)?;
        let endpoint = storage.relay().endpoint();
        let mut format = Command::new(&self.program);
        format
            .args(["format", "--storage", "s3", "--bucket"])
            .arg(format!("{endpoint}/{JUICE_BUCKET}"))
            .args([&self.database(), "bench"])
            .env("ACCESS_KEY", &server.access_key)
            .env("SECRET_KEY", &server.secret_key);
        let made = format.output().context("juicefs format")?;
        ensure!(made.status.success(), "juicefs format: {made:?}");
        let dir = TempDir::with_prefix("peer-").context("directory of a peer")?;
        let (mount, log) = (dir.path().join("mnt"), dir.path().join("log"));
        fs::create_dir(&mount)?;
        let mut command = Command::new(&self.program);
        command.args(["mount", &self.database()]).arg(&mount);
        command.arg("--cache-dir").arg(dir.path().join("cache"));
        let mounted = Running::start(command, &mount, &log)?;
        let mut copy = Command::new("cp");
        copy.arg("-r")
            .arg(format!("{}/.", local.display()))
            .arg(&mount);
        let copied = copy.status().context("cp")?;
        ensure!(
            copied.success(),
            "the data set could not be written through juicefs"
        );
        drop(mounted);
        Ok(())
    }
}

/// Where a peer is mounted, and with what.
pub(super) struct Place<'a> {
    storage: &'a Storage,
    prepared: Prepared,
    dir: TempDir,
}

impl<'a> Place<'a> {
    pub(super) fn new(storage: &'a Storage, prepared: Prepared) -> Result<Self> {
        let dir = TempDir::with_prefix("peer-").context("directory of a peer")?;
        for name in ["mnt", "cache", "home"] {
            fs::create_dir(dir.path().join(name))?;
        }
        Ok(Place {
            storage,
            prepared,
            dir,
        })
    }

    /// Starts a peer and waits until it is mounted.
    pub(super) fn mount(self, peer: Peer) -> Result<Mounted> {
        let mut command = match peer {
            Peer::Rclone => self.rclone(),
            Peer::S3fs => self.s3fs(),
            Peer::JuiceFs => self.juicefs(),
            Peer::GeeseFs | Peer::MountpointS3 | Peer::GcsFuse => bail!("it has no command here"),
        };
        let server = self.storage.server();
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path().join("home"))
            .env("RCLONE_S3_ACCESS_KEY_ID", &server.access_key)
            .env("RCLONE_S3_SECRET_ACCESS_KEY", &server.secret_key)
            .env("AWSACCESSKEYID", &server.access_key)
            .env("AWSSECRETACCESSKEY", &server.secret_key);
        let shown = self.shown(&command);
        let running = Running::start(command, &self.point(), &self.dir.path().join("log"))?;
        Ok(Mounted {
            version: peer.version(&self.prepared.program)?,
            command: shown,
            point: self.point(),
            cache: self.cache(),
            _running: running,
            _own: self.prepared.own,
            _dir: self.dir,
        })
    }

    /// https://rclone.org/commands/rclone_mount: the full cache for random reads; without the times
    /// that would cost a request for each file.
    fn rclone(&self) -> Command {
        let mut command = Command::new(&self.prepared.program);
        command
            .args(["mount", &format!(":s3:{BUCKET}")])
            .arg(self.point())
            .args(["--s3-provider", "Other", "--s3-endpoint"])
            .arg(self.storage.relay().endpoint())
            .args([
                "--s3-region",
                &self.storage.server().region,
                "--s3-force-path-style",
            ])
            .args(["--read-only", "--use-server-modtime", "--cache-dir"])
            .arg(self.cache())
            .args(["--vfs-cache-mode", "full", "--vfs-cache-max-age", "24h"])
            .args([
                "--dir-cache-time",
                "24h",
                "--attr-timeout",
                "60s",
                "--vfs-fast-fingerprint",
            ]);
        command
    }

    /// Its manual and wiki: a cache directory, many parallel requests for a large file, names and
    /// attributes that are believed for long.
    fn s3fs(&self) -> Command {
        let endpoint = self.storage.relay().endpoint();
        let cache = self.cache();
        let mut command = Command::new(&self.prepared.program);
        command.arg(BUCKET).arg(self.point()).arg("-f");
        for option in [
            format!("url={endpoint}"),
            "use_path_request_style".into(),
            format!("use_cache={}", cache.display()),
            "ro".into(),
            "parallel_count=32".into(),
            "multireq_max=32".into(),
            "max_stat_cache_size=1000000".into(),
            "stat_cache_expire=86400".into(),
            "enable_noobj_cache".into(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    /// https://juicefs.com/docs/community/guide/cache: for training, kernel caches that are believed
    /// for long and a large buffer.
    fn juicefs(&self) -> Command {
        let mut command = Command::new(&self.prepared.program);
        command
            .args(["mount", &self.prepared.database()])
            .arg(self.point())
            .arg("--cache-dir")
            .arg(self.cache())
            .args([
                "--cache-size",
                "102400",
                "--buffer-size",
                "1024",
                "--read-only",
            ])
            .args(["--attr-cache", "3600", "--entry-cache", "3600"])
            .args([
                "--dir-entry-cache",
                "3600",
                "--open-cache",
                "3600",
                "--no-usage-report",
            ]);
        command
    }

    fn point(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// Returns a command as somebody else would type it.
    fn shown(&self, command: &Command) -> String {
        let program = self.prepared.program.file_name().unwrap_or_default();
        let name = program.to_string_lossy();
        let mut words = vec![name.split('@').next().unwrap_or_default().to_owned()];
        words.extend(
            command
                .get_args()
                .map(|word| word.to_string_lossy().into_owned()),
        );
        let names = [
            (self.point().display().to_string(), "MNT"),
            (self.cache().display().to_string(), "CACHE"),
            (self.prepared.database(), "META"),
            (self.storage.relay().endpoint().to_owned(), "ENDPOINT"),
        ];
        let line = words.join(" ");
        names
            .iter()
            .fold(line, |line, (long, short)| line.replace(long, short))
    }
}

/// A peer at work; it is unmounted when this is dropped.
pub(super) struct Mounted {
    pub(super) version: String,
    pub(super) command: String,
    point: PathBuf,
    cache: PathBuf,
    _running: Running,
    _own: TempDir,
    _dir: TempDir,
}

impl Mounted {
    pub(super) fn root(&self) -> &Path {
        &self.point
    }

    pub(super) fn cached_bytes(&self) -> u64 {
        disk_usage(&self.cache)
    }
}

/// A process in the foreground that has something mounted.
struct Running {
    child: Child,
    point: PathBuf,
}

impl Running {
    fn start(mut command: Command, point: &Path, log: &Path) -> Result<Self> {
        let output = File::create(log).context("log of a peer")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("start a peer")?;
        let mut running = Running {
            child,
            point: point.to_owned(),
        };
        let mut ended = false;
        let mounted = wait::holds_within(PATIENCE, || {
            ended = matches!(running.child.try_wait(), Ok(Some(_)) | Err(_));
            ended || is_mounted(point)
        });
        if !mounted || ended {
            let said = fs::read_to_string(log).unwrap_or_default();
            let last = said.lines().last().unwrap_or("it says nothing");
            bail!("it does not mount: {last}");
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What is not mounted any more needs no unmounting; the process ends by itself after it.
        let _unmounted = unmount(&self.point, UnmountFlags::empty())
            .or_else(|_| unmount(&self.point, UnmountFlags::DETACH));
        let child = &mut self.child;
        if !wait::holds_within(PATIENCE, || !matches!(child.try_wait(), Ok(None))) {
            let _killed = child.kill();
            let _status = child.wait();
        }
    }
}

fn is_mounted(point: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    let above = point.parent().and_then(device);
    device(point).is_some_and(|here| above.is_some_and(|above| here != above))
}

/// Returns a program that is installed.
pub(super) fn in_path(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    found.with_context(|| format!("{name} is not installed"))
}
