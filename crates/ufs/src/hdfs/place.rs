// SPDX-License-Identifier: Apache-2.0
//! How an HDFS is reached: URI, options and the site's configuration brought together.
//!
//! What can be told wrong without asking a server is told here, with what would be right.

use std::collections::BTreeMap;

use hdfs_native::client::IORuntime;
use hdfs_native::{Client, ClientBuilder};
use types::{Error, ErrorKind, Result};

use super::fault::Fault;
use super::location::HadoopLocation;
use super::site::Site;
use crate::Settings;

/// Where a name node listens when nobody says otherwise.
const DEFAULT_PORT: u16 = 8020;
const OPTIONS: [&str; 10] = [
    "name_node",
    "user",
    "hadoop_conf_dir",
    "authentication",
    "principal",
    "keytab",
    "ticket_cache",
    "data_transfer_protection",
    "use_datanode_hostname",
    "idmap",
];

/// All that a client is made of.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) location: HadoopLocation,
    /// The addresses of the name nodes.
    pub(super) name_nodes: Vec<String>,
    pub(super) kerberos: bool,
    properties: BTreeMap<String, String>,
    user: Option<String>,
    principal: Option<String>,
    keytab: Option<String>,
    ticket_cache: Option<String>,
}

impl Place {
    pub(super) fn new(location: HadoopLocation, settings: &Settings) -> Result<Self> {
        settings.check_options("hdfs", &OPTIONS)?;
        let site = Site::read(settings.text("hadoop_conf_dir"))?;
        let text = |name| settings.text(name).map(String::from);
        let mut place = Place {
            location: default_authority(location, &site)?,
            name_nodes: Vec::new(),
            kerberos: false,
            properties: site.resolved(),
            user: text("user"),
            principal: text("principal"),
            keytab: text("keytab"),
            ticket_cache: text("ticket_cache"),
        };
        place.set_authentication(settings)?;
        place.find_name_nodes(settings.text("name_node"))?;
        let millis = settings.request_timeout.as_millis().to_string();
        place.set("dfs.client.socket-timeout", &millis);
        // Each is tried once and none is waited for: whether to try again is `crate::retry`'s.
        let others = place.name_nodes.len().saturating_sub(1).to_string();
        place.set("dfs.client.failover.max.attempts", &others);
        match settings.text("data_transfer_protection") {
            Some(kind @ ("authentication" | "integrity" | "privacy")) => {
                place.set("dfs.data.transfer.protection", kind);
            }
            Some(other) => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "option 'data_transfer_protection' is '{other}'; write authentication, \
                         integrity or privacy, as dfs.data.transfer.protection of the cluster"
                    ),
                ));
            }
            None => {}
        }
        if let Some(by_name) = settings.flag("use_datanode_hostname")? {
            place.set("dfs.client.use.datanode.hostname", &by_name.to_string());
        }
        Ok(place)
    }

    /// Makes a client. It connects when it is first asked something.
    pub(super) fn client(&self, runtime: tokio::runtime::Handle) -> Result<Client> {
        let mut builder = ClientBuilder::new()
            .with_url(format!("hdfs://{}", self.location.authority))
            .with_config(self.properties.clone())
            // Read already; this keeps the library from reading where the environment says.
            .with_config_dir("/dev/null")
            .with_io_runtime(IORuntime::Handle(runtime));
        for (value, with) in [
            (&self.user, ClientBuilder::with_user as fn(_, String) -> _),
            (&self.principal, ClientBuilder::with_kerberos_principal),
            (&self.keytab, ClientBuilder::with_kerberos_keytab),
            (&self.ticket_cache, ClientBuilder::with_kerberos_cache),
        ] {
            if let Some(value) = value {
                builder = with(builder, value.clone());
            }
        }
        let what = format!("open storage {}", self.location.uri());
        builder
            .build()
            .map_err(|error| Fault::of(error).into_error(&what, self))
    }

    /// Returns what tells this file system from others.
    pub(super) fn identity(&self) -> String {
        let mut name_nodes = self.name_nodes.clone();
        name_nodes.sort();
        format!("{} at {}", self.location.uri(), name_nodes.join(","))
    }

    fn set(&mut self, name: &str, value: &str) {
        self.properties.insert(name.into(), value.into());
    }

    fn set_authentication(&mut self, settings: &Settings) -> Result<()> {
        const PROPERTY: &str = "hadoop.security.authentication";
        let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, why));
        let keys = self.principal.is_some() || self.keytab.is_some() || self.ticket_cache.is_some();
        match settings.text("authentication") {
            Some(kind @ ("simple" | "kerberos")) => self.set(PROPERTY, kind),
            Some(other) => {
                return invalid(format!(
                    "option 'authentication' is '{other}'; write simple or kerberos"
                ));
            }
            None if keys => self.set(PROPERTY, "kerberos"),
            None => {}
        }
        self.kerberos = self
            .properties
            .get(PROPERTY)
            .is_some_and(|kind| kind == "kerberos");
        match (keys, self.kerberos, &self.principal) {
            (true, false, _) => {
                invalid("options for Kerberos, but 'authentication' is simple".into())
            }
            (true, true, None) => invalid(
                "options 'keytab' and 'ticket_cache' need 'principal', such as user@REALM".into(),
            ),
            _ => Ok(()),
        }
    }

    /// Finds the name nodes' addresses: from the option, the URI, or the name service's properties.
    fn find_name_nodes(&mut self, option: Option<&str>) -> Result<()> {
        let service = self.location.authority.clone();
        let names = format!("dfs.ha.namenodes.{service}");
        if let Some(option) = option {
            if self.location.port().is_some() {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "option 'name_node' is for a URI with a name service, as hdfs://service/path; this one names a port",
                ));
            }
            let addresses: Vec<_> = option
                .split(',')
                .map(|address| with_port(address.trim()))
                .collect();
            let ids: Vec<_> = (0..addresses.len())
                .map(|index| format!("nn{index}"))
                .collect();
            for (id, address) in ids.iter().zip(&addresses) {
                self.set(&format!("dfs.namenode.rpc-address.{service}.{id}"), address);
            }
            self.set(&names, &ids.join(","));
            self.name_nodes = addresses;
            return Ok(());
        }
        let Some(ids) = self
            .properties
            .get(&names)
            .filter(|_| self.location.port().is_none())
        else {
            self.location.authority = with_port(&service);
            self.name_nodes = vec![self.location.authority.clone()];
            return Ok(());
        };
        // The client library takes the list as it stands.
        let ids: Vec<String> = ids.split(',').map(|id| id.trim().to_string()).collect();
        let address = |id: &String| format!("dfs.namenode.rpc-address.{service}.{id}");
        for id in &ids {
            let Some(found) = self.properties.get(&address(id)) else {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "name service '{service}': hdfs-site.xml lacks {}",
                        address(id)
                    ),
                ));
            };
            self.name_nodes.push(found.clone());
        }
        self.set(&names, &ids.join(","));
        Ok(())
    }
}

fn with_port(host: &str) -> String {
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port {
        host.into()
    } else {
        format!("{host}:{DEFAULT_PORT}")
    }
}

/// Fills in the authority of `hdfs:///path`.
fn default_authority(mut location: HadoopLocation, site: &Site) -> Result<HadoopLocation> {
    if location.authority.is_empty() {
        let default = site.get("fs.defaultFS");
        let authority = default
            .as_deref()
            .and_then(|uri| uri.strip_prefix("hdfs://"));
        let authority = authority.map(|rest| rest.split('/').next().unwrap_or(rest));
        let Some(authority) = authority.filter(|authority| !authority.is_empty()) else {
            return Err(Error::new(
                ErrorKind::Invalid,
                "hdfs:///path needs fs.defaultFS in core-site.xml; set HADOOP_CONF_DIR or the option \
                 'hadoop_conf_dir', or write hdfs://host:port/path",
            ));
        };
        location.authority = authority.into();
    }
    Ok(location)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn place(rest: &str, options: &[(&str, &str)]) -> Result<Place> {
        let settings = Settings {
            uri: format!("hdfs://{rest}"),
            options: options
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            request_timeout: Duration::from_secs(10),
            max_connections: 4,
        };
        Place::new(HadoopLocation::parse("hdfs", rest).unwrap(), &settings)
    }

    #[test]
    fn name_nodes_come_from_the_uri_the_option_or_the_site() {
        let dir = tempfile::tempdir().unwrap();
        let site = "<configuration>
            <property><name>fs.defaultFS</name><value>hdfs://ns</value></property>
            <property><name>dfs.ha.namenodes.ns</name><value>a, b</value></property>
            <property><name>dfs.namenode.rpc-address.ns.a</name><value>h1:9000</value></property>
            <property><name>dfs.namenode.rpc-address.ns.b</name><value>h2:9000</value></property>
            <property><name>dfs.ha.namenodes.half</name><value>a</value></property></configuration>";
        std::fs::write(dir.path().join("hdfs-site.xml"), site).unwrap();
        let conf = ("hadoop_conf_dir", dir.path().to_str().unwrap());
        for (rest, options, nodes, uri) in [
            ("h/d", vec![conf], vec!["h:8020"], "hdfs://h:8020/d/"),
            ("h:1/d", vec![conf], vec!["h:1"], "hdfs://h:1/d/"),
            (
                "ns/d",
                vec![conf],
                vec!["h1:9000", "h2:9000"],
                "hdfs://ns/d/",
            ),
            ("/d", vec![conf], vec!["h1:9000", "h2:9000"], "hdfs://ns/d/"),
            (
                "x/d",
                vec![conf, ("name_node", "a:7, b")],
                vec!["a:7", "b:8020"],
                "hdfs://x/d/",
            ),
        ] {
            let place = place(rest, &options).unwrap();
            assert_eq!(
                (place.name_nodes.clone(), place.location.uri()),
                (nodes.iter().map(ToString::to_string).collect(), uri.into())
            );
            let attempts = (place.name_nodes.len() - 1).to_string();
            assert_eq!(
                place.properties["dfs.client.failover.max.attempts"],
                attempts
            );
        }
        let error = place("half/d", &[conf]).unwrap_err().to_string();
        assert!(
            error.contains("lacks dfs.namenode.rpc-address.half.a"),
            "{error}"
        );
    }

    #[test]
    fn options_that_cannot_be_right_are_refused() {
        for (rest, options, why) in [
            ("h/", vec![("usr", "x")], "did you mean 'user'"),
            ("h/", vec![("authentication", "ldap")], "simple or kerberos"),
            ("h/", vec![("keytab", "/k")], "need 'principal'"),
            (
                "h/",
                vec![("principal", "a"), ("authentication", "simple")],
                "is simple",
            ),
            ("h:1/", vec![("name_node", "a")], "names a port"),
            (
                "h/",
                vec![("data_transfer_protection", "x")],
                "integrity or privacy",
            ),
            (
                "h/",
                vec![("use_datanode_hostname", "yes")],
                "true or false",
            ),
        ] {
            let error = place(rest, &options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(place("h/", &[("principal", "a@B")]).unwrap().kerberos);
    }
}
