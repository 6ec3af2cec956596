// SPDX-License-Identifier: Apache-2.0
//! A real HDFS: one or two name nodes and a data node, in one JVM (`rigs/hdfs/HdfsRig.java`).
//!
//! Needs a JDK of 11 or 17 and Maven, which fetches Hadoop's jars once. The server ends, and removes
//! its directory, when this process does, however it ends; so it may be kept in a static.
//! [`Hdfs::tell`] changes files and servers behind a client's back, through Hadoop's own client.

mod kerberos;
mod tls;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::park_timeout;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use types::{Clock, SystemClock};

pub use kerberos::Kdc;
pub use tls::Tls;

use super::installed::Installed;

const POM: &str = include_str!("../../rigs/hdfs/pom.xml");
const SOURCE: &str = include_str!("../../rigs/hdfs/HdfsRig.java");
/// It is ready in four seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The only answers of more than a few bytes are messages of exceptions.
const ANSWER_MAX: usize = 1 << 20;

/// A running HDFS; ends when dropped.
#[derive(Debug)]
pub struct Hdfs {
    /// The address of each name node's RPC, as `127.0.0.1:PORT`.
    pub name_nodes: Vec<String>,
    /// The address of each name node's WebHDFS.
    pub web: Vec<String>,
    control: u16,
    child: Child,
}

/// How many name nodes there are: two are an HA pair, the name service "rig".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameNodes {
    /// One, always active.
    One,
    /// An active one and a standby.
    Pair,
}

impl Hdfs {
    /// Starts it with further Hadoop properties; it keeps its files in a temporary directory.
    ///
    /// # Errors
    /// When the jars are missing and cannot be fetched, or it does not come up.
    pub fn start(name_nodes: NameNodes, properties: &[(String, String)]) -> Result<Self> {
        let rig = install()?;
        // The JVM removes it: nobody here would, if this server is in a static.
        let dir = tempfile::Builder::new()
            .prefix("hdfs-rig-")
            .tempdir()?
            .keep();
        let log = dir.with_extension("log");
        let mut java = Command::new("java");
        java.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args([
                "-Djava.net.preferIPv4Stack=true",
                "-Djava.awt.headless=true",
            ])
            // The JAXB of WebHDFS's REST library looks into classes of the JDK.
            .args(["--add-opens", "java.base/java.lang=ALL-UNNAMED"]);
        if let Some(config) = properties.iter().find(|(name, _)| name == Kdc::CONFIG) {
            java.arg(format!("-Djava.security.krb5.conf={}", config.1));
        }
        let mut classes = format!("{0}/classes:{0}/lib/*", rig.display());
        if let Some(tls) = properties.iter().find(|(name, _)| name == Tls::CLASSES) {
            classes = format!("{}:{classes}", tls.1);
        }
        let count = if name_nodes == NameNodes::Pair {
            "2"
        } else {
            "1"
        };
        let child = java
            .args(["-cp", &classes, "HdfsRig"])
            .arg(&dir)
            .arg(count)
            .args(
                properties
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            )
            .stdin(Stdio::piped())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()
            .context("start HDFS: run java, which a JDK of 11 or 17 has")?;
        let mut server = Hdfs {
            name_nodes: Vec::new(),
            web: Vec::new(),
            control: 0,
            child,
        };
        let ports = server.wait(&dir.join("ready"), &log)?;
        // Kept until here for its last words.
        fs::remove_file(&log).context("remove the log of HDFS")?;
        let address = |port: &u16| format!("127.0.0.1:{port}");
        server.control = ports[0];
        server.name_nodes = ports[1..].iter().step_by(2).map(address).collect();
        server.web = ports[2..].iter().step_by(2).map(address).collect();
        Ok(server)
    }

    /// Sends a command of `HdfsRig.java`: a word and what it is about. Returns the answer.
    ///
    /// # Errors
    /// What Hadoop said, when it refused.
    pub fn tell(&self, words: &[&[u8]]) -> Result<String> {
        let number = |len: usize| u32::try_from(len).map(u32::to_be_bytes);
        let mut message = number(words.len())?.to_vec();
        for word in words {
            message.extend(number(word.len())?);
            message.extend(*word);
        }
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.control))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&message)?;
        let mut head = [0; 8];
        stream.read_exact(&mut head).context("an answer of HDFS")?;
        let [status, len] =
            [0, 4].map(|at| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes")));
        let len = usize::try_from(len)?;
        ensure!(len <= ANSWER_MAX, "an answer of {len} bytes");
        let mut answer = vec![0; len];
        stream.read_exact(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        ensure!(status == 0, "{}: {answer}", words[0].escape_ascii());
        Ok(answer)
    }

    /// Changes the servers: "no data node", "data node", "safe mode", "no safe mode", "other name
    /// node".
    ///
    /// # Errors
    /// What Hadoop said, when it refused.
    pub fn change(&self, what: &str) -> Result<()> {
        self.tell(&[b"servers", what.as_bytes()]).map(drop)
    }

    /// Starts HttpFS in front of the name nodes; returns its address, as `127.0.0.1:PORT`.
    ///
    /// # Errors
    /// What Hadoop said, when it does not start.
    pub fn start_gateway(&self) -> Result<String> {
        let port = self.tell(&[b"gateway"])?;
        Ok(format!("127.0.0.1:{port}"))
    }

    /// Waits for the file that tells the ports.
    fn wait(&mut self, ready: &Path, log: &Path) -> Result<Vec<u16>> {
        let deadline = SystemClock.deadline(PATIENCE);
        while !ready.try_exists()? {
            let ended = self.child.try_wait()?;
            if ended.is_some() || deadline.left(SystemClock.now()).is_zero() {
                let log = fs::read_to_string(log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(30).collect();
                bail!(
                    "HDFS did not come up ({ended:?}):\n{}",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            park_timeout(Duration::from_millis(20));
        }
        let ports: Result<Vec<u16>, _> = fs::read_to_string(ready)?
            .split_whitespace()
            .map(str::parse)
            .collect();
        let ports = ports.context("the ports of HDFS")?;
        ensure!(ports.len() >= 3, "too few ports: {ports:?}");
        Ok(ports)
    }
}

impl Drop for Hdfs {
    fn drop(&mut self) {
        // The end of its input is its sign to tidy up and end.
        drop(self.child.stdin.take());
        let _status = self.child.wait();
    }
}

/// Returns where the rig's classes and Hadoop's jars are.
fn install() -> Result<PathBuf> {
    Installed::new("hdfs", &format!("{POM}{SOURCE}"))?.or_install(|dir| {
        fs::write(dir.join("pom.xml"), POM)?;
        fs::write(dir.join("HdfsRig.java"), SOURCE)?;
        let classes = dir.join("classes");
        for page in ["hdfs", "datanode", "static"] {
            fs::create_dir_all(classes.join("webapps").join(page))?;
        }
        let lib = dir.join("lib");
        run(Command::new("mvn")
            .args(["-q", "-B", "-f"])
            .arg(dir.join("pom.xml"))
            .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
            .arg(format!("-DoutputDirectory={}", lib.display())))?;
        run(Command::new("javac")
            .args(["-proc:none", "-nowarn", "-Xlint:none", "-cp"])
            .arg(format!("{}/*", lib.display()))
            .arg("-d")
            .arg(&classes)
            .arg(dir.join("HdfsRig.java")))
    })
}

/// Runs a program to its end.
fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
