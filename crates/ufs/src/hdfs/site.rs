// SPDX-License-Identifier: Apache-2.0
//! The configuration of a Hadoop client: `core-site.xml` and `hdfs-site.xml`.
//!
//! They are looked for where Hadoop's own tools look: the option `hadoop_conf_dir`, the environment
//! variable `HADOOP_CONF_DIR`, or `etc/hadoop` below `HADOOP_HOME`. References such as `${name}` to
//! other properties are resolved; includes are not followed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use types::{Error, ErrorKind, Result};

const FILES: [&str; 2] = ["core-site.xml", "hdfs-site.xml"];
/// A configuration of a large cluster has some hundred KiB.
const SIZE_MAX: u64 = 16 << 20;
/// As many references as Hadoop follows.
const REFERENCES_MAX: usize = 20;

/// Properties by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Site(BTreeMap<String, String>);

impl Site {
    /// Reads the files of the directory that is named, or else of the one the environment names.
    pub(crate) fn read(dir: Option<&str>) -> Result<Self> {
        let named = dir.map(PathBuf::from);
        let from_home =
            || std::env::var_os("HADOOP_HOME").map(|home| PathBuf::from(home).join("etc/hadoop"));
        let found = || {
            std::env::var_os("HADOOP_CONF_DIR")
                .map(PathBuf::from)
                .or_else(from_home)
        };
        let Some(dir) = named.clone().or_else(found) else {
            return Ok(Site::default());
        };
        let mut site = Site::default();
        let mut seen = false;
        for path in FILES.map(|file| dir.join(file)) {
            seen |= site.add_file(&path)?;
        }
        match seen || named.is_none() {
            true => Ok(site),
            false => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "option 'hadoop_conf_dir': {} has no core-site.xml or hdfs-site.xml",
                    dir.display()
                ),
            )),
        }
    }

    /// Returns a property with its references resolved; `None` when it is absent or empty.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let mut value = self.0.get(name)?.clone();
        for _ in 0..REFERENCES_MAX {
            let Some(start) = value.find("${") else { break };
            let Some(len) = value[start..].find('}') else {
                break;
            };
            let Some(other) = self.0.get(&value[start + 2..start + len]) else {
                break;
            };
            value.replace_range(start..=start + len, other);
        }
        Some(value).filter(|value| !value.is_empty())
    }

    /// Returns all properties with their references resolved.
    pub(super) fn resolved(&self) -> BTreeMap<String, String> {
        let resolve = |name: &String| Some((name.clone(), self.get(name)?));
        self.0.keys().filter_map(resolve).collect()
    }

    /// Adds the properties of a file; says whether it is there.
    fn add_file(&mut self, path: &Path) -> Result<bool> {
        let cannot = |error| Error::io(format!("read {}", path.display()), error);
        let size = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(cannot(error)),
        };
        let invalid =
            |why: String| Error::new(ErrorKind::Invalid, format!("{}: {why}", path.display()));
        if size > SIZE_MAX {
            return Err(invalid(format!("{size} bytes are no configuration")));
        }
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        self.add(&text)
            .map_err(|error| invalid(error.to_string()))?;
        Ok(true)
    }

    fn add(&mut self, text: &str) -> std::result::Result<(), roxmltree::Error> {
        let options = roxmltree::ParsingOptions {
            allow_dtd: true,
            ..Default::default()
        };
        let document = roxmltree::Document::parse_with_options(text, options)?;
        for property in document
            .root_element()
            .children()
            .filter(|node| node.has_tag_name("property"))
        {
            let child = |tag| property.children().find(|node| node.has_tag_name(tag));
            let text = |tag| child(tag).and_then(|node| node.text()).map(str::trim);
            if let Some(name) = text("name") {
                self.0
                    .insert(name.into(), text("value").unwrap_or_default().into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_of_both_files_are_read_and_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let core = "<?xml version='1.0'?><configuration>
            <property><name>fs.defaultFS</name><value> hdfs://${cluster}:${port} </value></property>
            <property><name>cluster</name><value>a&amp;b</value><final>true</final></property>
            <property><name>loop</name><value>${loop}</value></property>
            <property><name>empty</name><value/></property></configuration>";
        std::fs::write(dir.path().join("core-site.xml"), core).unwrap();
        let site = Site::read(dir.path().to_str()).unwrap();
        assert_eq!(site.get("fs.defaultFS").unwrap(), "hdfs://a&b:${port}");
        assert_eq!(site.get("loop").unwrap(), "${loop}");
        assert_eq!((site.get("empty"), site.get("absent")), (None, None));
        let hdfs =
            "<configuration><property><name>port</name><value>1</value></property></configuration>";
        std::fs::write(dir.path().join("hdfs-site.xml"), hdfs).unwrap();
        let site = Site::read(dir.path().to_str()).unwrap();
        assert_eq!(site.resolved()["fs.defaultFS"], "hdfs://a&b:1");
    }

    #[test]
    fn a_directory_that_is_named_must_hold_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let error = Site::read(dir.path().to_str()).unwrap_err();
        assert!(
            error.to_string().contains("has no core-site.xml"),
            "{error}"
        );
        std::fs::write(dir.path().join("core-site.xml"), "<configuration>").unwrap();
        let error = Site::read(dir.path().to_str()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("core-site.xml"), "{error}");
    }
}
