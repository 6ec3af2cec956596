// SPDX-License-Identifier: Apache-2.0
//! A Kerberos realm of its own for the HDFS of the tests: MIT's KDC.
//!
//! Needs Debian's `krb5-kdc`, `krb5-admin-server` and `krb5-user`. The KDC ends when dropped; its
//! files are in a directory of the caller's.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::park_timeout;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use types::{Clock, SystemClock};

use super::run;

const REALM: &str = "RIG.TEST";
const PATIENCE: Duration = Duration::from_secs(30);
/// Where Debian puts the daemons, which is not on every user's path.
const SBIN: &str = "/usr/sbin";

/// A running KDC of the realm `RIG.TEST`.
#[derive(Debug)]
pub struct Kdc {
    /// What `KRB5_CONFIG` must be for clients.
    pub config: PathBuf,
    /// The keys of the servers and of `alice`.
    pub keytab: PathBuf,
    dir: PathBuf,
    child: Child,
}

impl Kdc {
    /// The property by which [`super::Hdfs::start`] learns of the client configuration.
    pub(super) const CONFIG: &str = "forebay.krb5.conf";

    /// Starts a KDC with the servers' principals and `alice`.
    ///
    /// # Errors
    /// When the programs are missing or it does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = dir.join("krb5.conf");
        let shown = dir.display();
        fs::write(
            &config,
            format!(
                "[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n \
                 dns_lookup_realm = false\n dns_canonicalize_hostname = false\n rdns = false\n \
                 udp_preference_limit = 1\n[realms]\n {REALM} = {{\n  kdc = {address}\n }}\n\
                 [domain_realm]\n localhost = {REALM}\n"
            ),
        )?;
        let types = "aes256-cts-hmac-sha1-96:normal aes128-cts-hmac-sha1-96:normal";
        fs::write(
            dir.join("kdc.conf"),
            format!(
                "[kdcdefaults]\n kdc_listen = {address}\n kdc_tcp_listen = {address}\n[realms]\n \
                 {REALM} = {{\n  database_name = {shown}/principal\n  key_stash_file = {shown}/stash\n  \
                 acl_file = {shown}/acl\n  supported_enctypes = {types}\n }}\n"
            ),
        )?;
        let keytab = dir.join("keytab");
        let tool = |name: &str| tool(dir, name);
        run(tool("kdb5_util").args(["create", "-s", "-r", REALM, "-P", "rig"]))?;
        for principal in ["hdfs/localhost", "HTTP/localhost", "alice"] {
            run(tool("kadmin.local").args(["-q", &format!("addprinc -randkey {principal}")]))?;
            let export = format!("ktadd -k {} {principal}", keytab.display());
            run(tool("kadmin.local").args(["-q", &export]))?;
        }
        let log = File::create(dir.join("log"))?;
        let child = tool("krb5kdc")
            .arg("-n")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start krb5kdc")?;
        let mut kdc = Kdc {
            config,
            keytab,
            dir: dir.into(),
            child,
        };
        let deadline = SystemClock.deadline(PATIENCE);
        while TcpStream::connect(address).is_err() {
            if kdc.child.try_wait()?.is_some() || deadline.left(SystemClock.now()).is_zero() {
                bail!("krb5kdc did not come up; see {shown}/log");
            }
            park_timeout(Duration::from_millis(10));
        }
        Ok(kdc)
    }

    /// Gets a ticket for `alice`; returns what `KRB5CCNAME` must be to use it.
    ///
    /// # Errors
    /// When the KDC gives none.
    pub fn ticket(&self) -> Result<PathBuf> {
        let cache = self.dir.join("ticket");
        run(tool(&self.dir, "kinit")
            .env("KRB5CCNAME", &cache)
            .arg("-kt")
            .arg(&self.keytab)
            .arg("alice"))?;
        Ok(cache)
    }

    /// Returns the properties with which HDFS asks for tickets of this realm.
    pub fn properties(&self) -> Vec<(String, String)> {
        let keytab = self.keytab.display().to_string();
        let (hdfs, http) = (
            format!("hdfs/localhost@{REALM}"),
            format!("HTTP/localhost@{REALM}"),
        );
        [
            (Self::CONFIG, self.config.display().to_string().as_str()),
            ("hadoop.security.authentication", "kerberos"),
            ("hadoop.security.authorization", "true"),
            ("ignore.secure.ports.for.testing", "true"),
            ("dfs.namenode.kerberos.principal", &hdfs),
            ("dfs.namenode.keytab.file", &keytab),
            ("dfs.datanode.kerberos.principal", &hdfs),
            ("dfs.datanode.keytab.file", &keytab),
            ("dfs.web.authentication.kerberos.principal", &http),
            ("dfs.web.authentication.kerberos.keytab", &keytab),
            ("hadoop.http.authentication.type", "kerberos"),
            ("hadoop.http.authentication.kerberos.principal", &http),
            ("hadoop.http.authentication.kerberos.keytab", &keytab),
            ("dfs.block.access.token.enable", "true"),
            ("dfs.data.transfer.protection", "privacy"),
            ("hadoop.rpc.protection", "privacy"),
            ("dfs.http.policy", "HTTP_ONLY"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into()
    }
}

impl Drop for Kdc {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

fn tool(dir: &Path, name: &str) -> Command {
    let in_sbin = Path::new(SBIN).join(name);
    let mut command = match in_sbin.try_exists() {
        Ok(true) => Command::new(in_sbin),
        _ => Command::new(name),
    };
    command
        .env("KRB5_CONFIG", dir.join("krb5.conf"))
        .env("KRB5_KDC_PROFILE", dir.join("kdc.conf"));
    command
}
