// SPDX-License-Identifier: Apache-2.0
//! `mount -t forebay URI DIR -o OPTIONS`, and so a line of /etc/fstab.
//!
//! `mount` calls a helper of that name, which is this binary under the name `mount.forebay`: its
//! words are translated into those of `forebay mount`. An option is a flag without its dashes; what
//! only `mount` itself or a service manager understands is passed over.

use std::ffi::OsString;
use std::path::Path;

/// The name under which `mount` calls.
const HELPER: &str = "mount.forebay";
/// Options that mean nothing here: what `mount` and service managers keep for themselves.
const PASSED_OVER: [&str; 21] = [
    "defaults", "rw", "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev",
    "nofail", "exec", "suid", "nosuid", "dev", "nodev", "atime", "noatime", "relatime", "async",
    "sync",
];

/// Translates a command line of `mount`; any other one stays as it is.
pub(crate) fn translated(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let words: Vec<_> = words.into_iter().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name());
    match name {
        Some(name) if name == HELPER => of_helper(&words[1..]),
        _ => words,
    }
}

fn of_helper(words: &[OsString]) -> Vec<OsString> {
    let mut found: Vec<OsString> = vec!["forebay".into(), "mount".into()];
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("-o") => {
                let options = words.next().map(|text| text.to_string_lossy().into_owned());
                let options = options.unwrap_or_default();
                found.extend(
                    options
                        .split(',')
                        .filter_map(flag)
                        .flatten()
                        .map(OsString::from),
                );
            }
            // The kind of file system, which it is called by.
            Some("-t") => drop(words.next()),
            // Sloppy, fake, verbose, and not to be noted in a table.
            Some("-s" | "-f" | "-v" | "-n") => {}
            _ => found.push(word.clone()),
        }
    }
    found
}

/// Returns the words of an option.
fn flag(option: &str) -> Option<Vec<String>> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    if option.is_empty() || PASSED_OVER.contains(&name) || name.starts_with("x-") {
        return None;
    }
    let name = match name {
        "ro" => "read-only".to_owned(),
        name => name.replace('_', "-"),
    };
    let flag = std::iter::once(format!("--{name}"));
    Some(flag.chain(value.map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> String {
        let words = translated(line.split(' ').map(OsString::from));
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn options_of_a_mount_become_flags() {
        assert_eq!(
            of(
                "/sbin/mount.forebay s3://b/p /mnt/data -o rw,ro,_netdev,allow_other,cache-size=9GiB,\
                x-systemd.automount,option=a=b"
            ),
            "forebay mount s3://b/p /mnt/data --read-only --allow-other --cache-size 9GiB --option a=b"
        );
        assert_eq!(
            of("mount.forebay s3://b /m -n -v -t forebay"),
            "forebay mount s3://b /m"
        );
        assert_eq!(
            of("/usr/bin/forebay status -o x"),
            "/usr/bin/forebay status -o x"
        );
    }
}
