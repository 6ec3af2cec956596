// SPDX-License-Identifier: Apache-2.0
//! Maps of owners: for which storages there is something to map, and who does it.
//!
//! A local file system and Ceph FS tell numbers, which the tree maps when it shows them. HDFS tells
//! names, which only its driver sees: there the driver maps, and what was learnt with one map is not
//! shown with another. Other storages have no owners.

use types::idmap::IdMap;

/// The option by which a driver that knows names is told the map.
pub(crate) const OPTION: &str = "idmap";

/// What a storage tells of owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Names,
    Numbers,
    Nothing,
}

fn told(uri: &str) -> (&str, Told) {
    let scheme = uri.split_once("://").map_or("file", |(scheme, _)| scheme);
    let told = match scheme {
        "hdfs" | "webhdfs" | "swebhdfs" => Told::Names,
        "file" | "cephfs" => Told::Numbers,
        _ => Told::Nothing,
    };
    (scheme, told)
}

/// Refuses a map that can change nothing.
pub(crate) fn check(uri: &str, map: &IdMap) -> Result<(), String> {
    match told(uri) {
        _ if map.is_empty() => Ok(()),
        (scheme, Told::Nothing) => Err(format!(
            "idmap: {scheme}:// has no owners to map; say whose all is with uid and gid"
        )),
        (scheme, Told::Numbers) if map.has_names() => Err(format!(
            "idmap: {scheme}:// tells owners as numbers, not names: write uid:1000=0"
        )),
        (_, Told::Names | Told::Numbers) => Ok(()),
    }
}

/// Returns the map for the driver, where it is the driver that maps.
pub(crate) fn for_driver(uri: &str, map: &IdMap) -> Option<String> {
    (told(uri).1 == Told::Names && !map.is_empty()).then(|| map.to_string())
}

/// Returns the map for the tree, where it is the tree that maps.
pub(crate) fn for_tree(uri: &str, map: &IdMap) -> IdMap {
    match told(uri).1 {
        Told::Numbers => map.clone(),
        Told::Names | Told::Nothing => IdMap::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_goes_to_whoever_knows_the_owners_and_is_refused_where_there_are_none() {
        let map = |text: &str| text.parse::<IdMap>().unwrap();
        let (names, numbers, none) = (map("uid:alice=7"), map("uid:1=7"), IdMap::default());
        for (uri, takes_names, takes_numbers) in [
            ("hdfs://nn/x", true, true),
            ("swebhdfs://nn/x", true, true),
            ("/srv", false, true),
            ("cephfs:///x", false, true),
            ("s3://b", false, false),
        ] {
            assert_eq!(check(uri, &names).is_ok(), takes_names, "{uri}");
            assert_eq!(check(uri, &numbers).is_ok(), takes_numbers, "{uri}");
            assert_eq!(check(uri, &none), Ok(()), "{uri}");
            let (driver, tree) = (for_driver(uri, &numbers), for_tree(uri, &numbers));
            assert_eq!(driver.is_some() || !tree.is_empty(), takes_numbers, "{uri}");
            assert!(driver.is_none() || tree.is_empty(), "mapped twice: {uri}");
        }
        let error = check("s3://b", &numbers).unwrap_err();
        assert!(error.contains("uid and gid"), "{error}");
    }
}
