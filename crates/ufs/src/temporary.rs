// SPDX-License-Identifier: Apache-2.0
//! Names of files that are being written, on storages whose files show before they are whole.
//!
//! Such a file lies in the directory of the file that it becomes, so that it gets that directory's
//! group, quota and policies. Listings leave these names out; one that nobody changed for a day was
//! left behind by a writer that died, and a listing of a mount that writes removes it. Nobody else
//! may use such names.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use types::{Error, ErrorKind, ObjectPath, Result};

const START: &str = ".forebay-";
const END: &str = ".part";
const DIGITS: usize = 32;

/// How long nobody has changed what was left behind.
pub(crate) const LEFT_BEHIND: Duration = Duration::from_secs(86_400);

/// Returns whether a file of such a name, changed at this time, was left behind.
pub(crate) fn is_left_behind(mtime_ns: i64, now: SystemTime) -> bool {
    let changed = Duration::from_nanos(u64::try_from(mtime_ns).unwrap_or(0));
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(changed) > LEFT_BEHIND
}

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

/// Says of such a name that nothing has it.
pub(crate) fn hide(path: &ObjectPath) -> Result<()> {
    match path.split() {
        Some((_, name)) if is_temporary(name.as_bytes()) => Err(Error::new(
            ErrorKind::NotFound,
            "a file on its way is not shown",
        )),
        _ => Ok(()),
    }
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
        assert_eq!(hide(&kept).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(check_name(&ObjectPath::root()).is_ok() && hide(&ObjectPath::root()).is_ok());
    }

    #[test]
    fn what_nobody_changed_for_a_day_was_left_behind() {
        let day = 86_400_000_000_000;
        let now = UNIX_EPOCH + Duration::from_nanos(2 * day + 1);
        for (changed, left) in [(day, true), (day + 1, false), (3 * day, false)] {
            let changed = i64::try_from(changed).unwrap();
            assert_eq!(is_left_behind(changed, now), left, "{changed}");
        }
    }
}
