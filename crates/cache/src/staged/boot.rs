// SPDX-License-Identifier: Apache-2.0
//! Which boot of the machine this is: what was written and not synced is there until the next one.

use std::fmt;

/// Where Linux tells it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A debug build takes it from here, so that a test can play a power cut.
const VARIABLE: &str = "FOREBAY_BOOT_ID";

/// The id of a boot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    /// Returns the id of this boot; none where the system does not tell it.
    pub fn current() -> Option<BootId> {
        let told = if cfg!(debug_assertions) {
            std::env::var(VARIABLE).ok()
        } else {
            None
        };
        BootId::parse(&told.or_else(|| std::fs::read_to_string(BOOT_ID).ok())?)
    }

    /// Reads 32 hexadecimal digits, with or without dashes.
    fn parse(text: &str) -> Option<BootId> {
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        let is_one = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u128::from_str_radix(&digits, 16).ok().filter(|_| is_one)?;
        Some(BootId(number.to_be_bytes()))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootId({:032x})", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_the_system_writes_it_and_nothing_else_is() {
        let text = "01234567-89ab-cdef-0123-456789abcdef\n";
        let id = BootId::parse(text).unwrap();
        assert_eq!(id.0[..4], [0x01, 0x23, 0x45, 0x67]);
        for other in ["", "01234567", "+1234567-89ab-cdef-0123-456789abcdef"] {
            assert_eq!(BootId::parse(other), None, "{other}");
        }
        assert!(BootId::current().is_some());
    }
}
