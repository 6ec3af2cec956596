// SPDX-License-Identifier: Apache-2.0
//! Names of files that are being written, on storages whose files show before they are whole.
//!
//! Such a file lies in the directory of the file that it becomes, so that it gets that directory's
//! group, quota and policies. Listings leave these names out; one that nobody changed for a day was
//! left behind by a writer that died, and a listing of a mount that writes removes it. Nobody else
//! may use such names.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use types::{Error, ErrorKind, ObjectPath, Result};

const START: &str = ".forebay-";
const END: &str = ".part";
const DIGITS: usize = 32;

/// How long nobody has changed what was left behind.
pub(crate) const LEFT_BEHIND: Duration = Duration::from_secs(86_400);

/// Returns a name that nothing has yet.
pub(crate) fn temporary_name() -> String {
    // The keys of the standard library's hashes are random, and differ from one to the next.
    let noise = || RandomState::new().build_hasher().finish();
    format!("{START}{:016x}{:016x}{END}", noise(), noise())
}

/// Returns whether a name is one of these.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    let digits = name
        .strip_prefix(START.as_bytes())
        .and_then(|rest| rest.strip_suffix(END.as_bytes()));
    digits.is_some_and(|digits| digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Refuses to write under such a name.
pub(crate) fn check_name(path: &ObjectPath) -> Result<()> {
    match path.split() {
        Some((_, name)) if is_temporary(name.as_bytes()) => Err(Error::new(
            ErrorKind::Invalid,
            format!("names such as '{START}*{END}' are kept for files on their way; take another"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_comes_twice_and_only_such_names_are_kept() {
        let (one, other) = (temporary_name(), temporary_name());
        assert_ne!(one, other);
        assert!(is_temporary(one.as_bytes()) && is_temporary(other.as_bytes()));
        for name in [
            ".forebay-.part",
            ".forebay-x.part",
            &one[1..],
            &format!("{one}x"),
        ] {
            assert!(!is_temporary(name.as_bytes()), "{name}");
        }
        let kept = ObjectPath::parse(format!("d/{one}").as_bytes()).unwrap();
        assert_eq!(check_name(&kept).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(check_name(&ObjectPath::root()).is_ok());
    }
}
