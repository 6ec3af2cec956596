// SPDX-License-Identifier: Apache-2.0
//! How the index lies in the key-value store.
//!
//! | key | value |
//! |---|---|
//! | `o` id | size u64, stamp u64, birth u64, run u32; then the pages, if the object has one chunk |
//! | `p` id chunk-u64 | birth u64, then the pages of the chunk, for objects of several chunks |
//! | `k` id | place u64, wish u64: the object is pinned |
//! | `q` id | rule u64: the object follows that rule |
//! | `run` | run u32, trusted-since u32 |
//!
//! Pages of a chunk: one bit a page, padded to a byte, then a CRC32C u32 for each bit that is set.
//! Ids and chunk numbers in keys are big-endian, so that they sort; all else is little-endian.
//! A chunk is 256 pages (32 MiB): a fill of one page rewrites about a kilobyte at most.
//! `birth` tells two files apart that held the same object one after the other.

use types::{PAGE_SIZE, VersionId, page_count};

use crate::pins::Pin;

/// Pages whose checksums share a record.
pub(crate) const CHUNK_PAGES: u64 = 256;
/// Key of the run numbers.
pub(crate) const RUN_KEY: &[u8] = b"run";
/// First byte of the keys of heads, and of chunks.
pub(crate) const HEADS: u8 = b'o';
pub(crate) const CHUNKS: u8 = b'p';
/// First byte of the keys of pins.
pub(crate) const PINS: u8 = b'k';
/// First byte of the keys of what says which rule an object follows.
pub(crate) const RULES: u8 = b'q';

/// What is stored of every object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) size: u64,
    pub(crate) stamp: u64,
    pub(crate) birth: u64,
    /// The run in which all pages were last known good; zero when some are in doubt.
    pub(crate) run: u32,
}

/// The checksums of up to 256 pages; `None` where the page is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk(pub(crate) Vec<Option<u32>>);

/// Counts the openings of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Runs {
    /// This one or, before it starts, the last one.
    pub(crate) run: u32,
    /// Since this one every stop was clean.
    pub(crate) trusted_since: u32,
}

/// Returns whether the pages of such an object are stored with its head.
pub(crate) fn has_one_chunk(size: u64) -> bool {
    page_count(size) <= CHUNK_PAGES
}

/// Returns how many chunk records an object has besides its head.
pub(crate) fn chunk_records(size: u64) -> u64 {
    if has_one_chunk(size) {
        0
    } else {
        page_count(size).div_ceil(CHUNK_PAGES)
    }
}

pub(crate) fn head_key(id: VersionId) -> Vec<u8> {
    let mut key = vec![HEADS];
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// Returns the key under which it is noted that an object is pinned.
pub(crate) fn pin_key(id: VersionId) -> Vec<u8> {
    let mut key = vec![PINS];
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// Returns the key under which it is noted which rule an object follows.
pub(crate) fn rule_key(id: VersionId) -> Vec<u8> {
    let mut key = vec![RULES];
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// Returns the id in the key of a rule.
pub(crate) fn parse_rule_key(key: &[u8]) -> Option<VersionId> {
    let (kind, id) = key.split_first()?;
    (*kind == RULES).then_some(VersionId(u128::from_be_bytes(id.try_into().ok()?)))
}

pub(crate) fn encode_rule(rule: u64) -> Vec<u8> {
    rule.to_le_bytes().to_vec()
}

pub(crate) fn decode_rule(mut value: &[u8]) -> Option<u64> {
    let rule = take_u64(&mut value)?;
    value.is_empty().then_some(rule)
}

pub(crate) fn chunk_key(id: VersionId, chunk: u64) -> Vec<u8> {
    let mut key = vec![CHUNKS];
    key.extend_from_slice(&id.0.to_be_bytes());
    // The largest object has 2^64 / 2^25 chunks: more than 32 bits can number, so all 64 are kept.
    key.extend_from_slice(&chunk.to_be_bytes());
    key
}

/// Returns the id in the key of a head.
pub(crate) fn parse_head_key(key: &[u8]) -> Option<VersionId> {
    let (kind, id) = key.split_first()?;
    (*kind == HEADS).then_some(VersionId(u128::from_be_bytes(id.try_into().ok()?)))
}

/// Returns the id in the key of a pin.
pub(crate) fn parse_pin_key(key: &[u8]) -> Option<VersionId> {
    let (kind, id) = key.split_first()?;
    (*kind == PINS).then_some(VersionId(u128::from_be_bytes(id.try_into().ok()?)))
}

pub(crate) fn encode_pin(pin: Pin) -> Vec<u8> {
    [pin.place.to_le_bytes(), pin.wish.to_le_bytes()].concat()
}

pub(crate) fn decode_pin(mut value: &[u8]) -> Option<Pin> {
    let pin = Pin {
        place: take_u64(&mut value)?,
        wish: take_u64(&mut value)?,
    };
    value.is_empty().then_some(pin)
}

/// Returns id and number in the key of a chunk.
pub(crate) fn parse_chunk_key(key: &[u8]) -> Option<(VersionId, u64)> {
    let (kind, rest) = key.split_first()?;
    let (id, chunk) = rest.split_first_chunk::<16>()?;
    let chunk = u64::from_be_bytes(chunk.try_into().ok()?);
    (*kind == CHUNKS).then_some((VersionId(u128::from_be_bytes(*id)), chunk))
}

impl Chunk {
    /// Makes an empty chunk of the size that number `chunk` of an object has.
    pub(crate) fn empty(size: u64, chunk: u64) -> Self {
        let pages = page_count(size)
            .saturating_sub(chunk * CHUNK_PAGES)
            .min(CHUNK_PAGES);
        Chunk(vec![None; usize::try_from(pages).unwrap_or(0)])
    }

    pub(crate) fn get(&self, page: u64) -> Option<u32> {
        self.0
            .get(usize::try_from(page % CHUNK_PAGES).ok()?)
            .copied()
            .flatten()
    }

    pub(crate) fn set(&mut self, page: u64, crc: Option<u32>) {
        let at = usize::try_from(page % CHUNK_PAGES).unwrap_or(usize::MAX);
        if let Some(slot) = self.0.get_mut(at) {
            *slot = crc;
        }
    }

    fn encode(&self, into: &mut Vec<u8>) {
        let start = into.len();
        into.resize(start + self.0.len().div_ceil(8), 0);
        for (at, _) in self.0.iter().enumerate().filter(|(_, crc)| crc.is_some()) {
            into[start + at / 8] |= 1 << (at % 8);
        }
        for crc in self.0.iter().flatten() {
            into.extend_from_slice(&crc.to_le_bytes());
        }
    }

    fn decode(mut self, bytes: &[u8]) -> Option<Self> {
        let (bits, mut crcs) = bytes.split_at_checked(self.0.len().div_ceil(8))?;
        for (at, slot) in self.0.iter_mut().enumerate() {
            if bits[at / 8] & 1 << (at % 8) != 0 {
                let (crc, rest) = crcs.split_first_chunk::<4>()?;
                *slot = Some(u32::from_le_bytes(*crc));
                crcs = rest;
            }
        }
        crcs.is_empty().then_some(self)
    }
}

/// Returns the value of a head; `chunk` is stored with it if the object has one only.
pub(crate) fn encode_head(head: Head, chunk: Option<&Chunk>) -> Vec<u8> {
    let mut value = Vec::with_capacity(64);
    value.extend_from_slice(&head.size.to_le_bytes());
    value.extend_from_slice(&head.stamp.to_le_bytes());
    value.extend_from_slice(&head.birth.to_le_bytes());
    value.extend_from_slice(&head.run.to_le_bytes());
    if let Some(chunk) = chunk.filter(|_| has_one_chunk(head.size)) {
        chunk.encode(&mut value);
    }
    value
}

/// Reads the value of a head, with the only chunk if there is one.
pub(crate) fn decode_head(mut value: &[u8]) -> Option<(Head, Option<Chunk>)> {
    let head = Head {
        size: take_u64(&mut value)?,
        stamp: take_u64(&mut value)?,
        birth: take_u64(&mut value)?,
        run: take_u32(&mut value)?,
    };
    if !has_one_chunk(head.size) {
        return value.is_empty().then_some((head, None));
    }
    Some((head, Some(Chunk::empty(head.size, 0).decode(value)?)))
}

pub(crate) fn encode_chunk(birth: u64, chunk: &Chunk) -> Vec<u8> {
    let mut value = birth.to_le_bytes().to_vec();
    chunk.encode(&mut value);
    value
}

/// Reads chunk number `chunk` of an object; none when it belongs to an earlier file of it.
pub(crate) fn decode_chunk(head: Head, chunk: u64, mut value: &[u8]) -> Option<Chunk> {
    if take_u64(&mut value)? != head.birth {
        return None;
    }
    Chunk::empty(head.size, chunk).decode(value)
}

impl Runs {
    pub(crate) fn encode(self) -> Vec<u8> {
        [self.run.to_le_bytes(), self.trusted_since.to_le_bytes()].concat()
    }

    pub(crate) fn decode(mut value: &[u8]) -> Option<Self> {
        Some(Runs {
            run: take_u32(&mut value)?,
            trusted_since: take_u32(&mut value)?,
        })
    }
}

/// Returns the length of a page of an object.
pub(crate) fn page_len(size: u64, page: u64) -> u64 {
    size.saturating_sub(page.saturating_mul(PAGE_SIZE))
        .min(PAGE_SIZE)
}

fn take_u64(value: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = value.split_first_chunk::<8>()?;
    *value = rest;
    Some(u64::from_le_bytes(*bytes))
}

fn take_u32(value: &mut &[u8]) -> Option<u32> {
    let (bytes, rest) = value.split_first_chunk::<4>()?;
    *value = rest;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(size: u64) -> Head {
        Head {
            size,
            stamp: 2,
            birth: 3,
            run: 4,
        }
    }

    #[test]
    fn records_read_back() {
        for pages in [0, 1, 7, 8, 9, 256] {
            let size = pages * PAGE_SIZE;
            let mut chunk = Chunk::empty(size, 0);
            for page in (0..pages).step_by(2) {
                chunk.set(page, Some(u32::try_from(page).unwrap() + 100));
            }
            let value = encode_head(head(size), Some(&chunk));
            assert_eq!(decode_head(&value), Some((head(size), Some(chunk))));
        }
        let large = head(1000 * PAGE_SIZE);
        assert_eq!(decode_head(&encode_head(large, None)), Some((large, None)));
        let mut chunk = Chunk::empty(large.size, 3);
        chunk.set(900, Some(5));
        let value = encode_chunk(3, &chunk);
        assert_eq!(decode_chunk(large, 3, &value), Some(chunk));
        assert_eq!(decode_chunk(Head { birth: 9, ..large }, 3, &value), None);
    }

    #[test]
    fn records_of_any_other_length_are_refused() {
        let size = 9 * PAGE_SIZE;
        let mut chunk = Chunk::empty(size, 0);
        chunk.set(8, Some(1));
        let mut value = encode_head(head(size), Some(&chunk));
        for len in 0..value.len() {
            assert_eq!(decode_head(&value[..len]), None, "{len}");
        }
        value.push(0);
        assert_eq!(decode_head(&value), None);
    }

    #[test]
    fn keys_read_back() {
        let id = VersionId(7 << 100);
        assert_eq!(parse_head_key(&head_key(id)), Some(id));
        assert_eq!(parse_chunk_key(&chunk_key(id, 9)), Some((id, 9)));
        assert_eq!(parse_head_key(&chunk_key(id, 9)), None);
        assert_eq!(parse_chunk_key(&head_key(id)), None);
        assert_eq!(parse_pin_key(&pin_key(id)), Some(id));
        assert_eq!(parse_pin_key(&head_key(id)), None);
        let pin = Pin { place: 7, wish: 9 };
        assert_eq!(decode_pin(&encode_pin(pin)), Some(pin));
        assert_eq!(decode_pin(&encode_pin(pin)[..15]), None);
        assert_eq!(parse_rule_key(&rule_key(id)), Some(id));
        assert_eq!(parse_rule_key(RUN_KEY), None);
        assert_eq!(decode_rule(&encode_rule(7)), Some(7));
        assert_eq!(decode_rule(&encode_rule(7)[..7]), None);
    }
}
