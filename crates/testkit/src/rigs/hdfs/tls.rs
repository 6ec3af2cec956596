// SPDX-License-Identifier: Apache-2.0
//! A key and a certificate for the web service of the HDFS of the tests, made by the JDK's keytool.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::run;

/// It protects a key that is made for one test.
const PASSWORD: &str = "rigpassword";

/// A key for `127.0.0.1`, and the configuration by which Hadoop finds it.
#[derive(Debug)]
pub struct Tls {
    /// The certificate, which signs itself, as a PEM file.
    pub certificate: PathBuf,
    dir: PathBuf,
}

impl Tls {
    /// The property by which [`super::Hdfs::start`] learns where the configuration is.
    pub(super) const CLASSES: &str = "forebay.classes";

    /// Makes a key in a directory.
    ///
    /// # Errors
    /// When keytool is missing.
    pub fn new(dir: &Path) -> Result<Self> {
        let (keys, certificate) = (dir.join("keys.p12"), dir.join("certificate.pem"));
        let keytool = || {
            let mut keytool = Command::new("keytool");
            keytool.args(["-alias", "rig", "-storepass", PASSWORD, "-keystore"]);
            keytool.arg(&keys);
            keytool
        };
        run(keytool().args([
            "-genkeypair",
            "-keyalg",
            "EC",
            "-storetype",
            "PKCS12",
            "-dname",
            "CN=rig",
            "-ext",
            "san=ip:127.0.0.1",
        ]))?;
        run(keytool()
            .args(["-exportcert", "-rfc", "-file"])
            .arg(&certificate))?;
        let property = |name: &str, value: &str| {
            format!("<property><name>ssl.server.{name}</name><value>{value}</value></property>")
        };
        let site = [
            property("keystore.location", &keys.display().to_string()),
            property("keystore.password", PASSWORD),
            property("keystore.keypassword", PASSWORD),
            property("keystore.type", "PKCS12"),
        ];
        let site = format!("<configuration>{}</configuration>", site.concat());
        fs::write(dir.join("ssl-server.xml"), site)?;
        Ok(Tls {
            certificate,
            dir: dir.into(),
        })
    }

    /// Returns the properties with which HDFS serves the web with TLS only.
    pub fn properties(&self) -> Vec<(String, String)> {
        [
            (Self::CLASSES, self.dir.display().to_string().as_str()),
            ("dfs.http.policy", "HTTPS_ONLY"),
            ("dfs.namenode.https-address", "127.0.0.1:0"),
            ("dfs.datanode.https.address", "127.0.0.1:0"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into()
    }
}
