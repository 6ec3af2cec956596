// SPDX-License-Identifier: Apache-2.0
//! Bytes that tell which object they belong to and where in it they lie.
//!
//! Each eight bytes are a hash of a seed and of their position. Two versions of an object that are
//! mixed, a page served at the wrong place or a run of zeros cannot pass for the right content.

/// Returns `len` bytes of the content of `seed`, from its start.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut content = vec![0; len];
    fill(seed, 0, &mut content);
    content
}

/// Fills `buf` with the content of `seed` from `offset` on.
pub fn fill(seed: u64, offset: u64, buf: &mut [u8]) {
    let skip = usize::try_from(offset % 8).expect("a remainder of 8 fits");
    let mut position = offset / 8;
    let (head, rest) = buf.split_at_mut(buf.len().min((8 - skip) % 8));
    if !head.is_empty() {
        head.copy_from_slice(&word(seed, position)[skip..skip + head.len()]);
        position += 1;
    }
    for eight in rest.chunks_mut(8) {
        eight.copy_from_slice(&word(seed, position)[..eight.len()]);
        position += 1;
    }
}

/// Compares `found`, read at `offset`, with the content of `seed`: the error is the first wrong
/// position.
pub fn check(seed: u64, offset: u64, found: &[u8]) -> Result<(), u64> {
    let mut expected = vec![0; found.len()];
    fill(seed, offset, &mut expected);
    match found.iter().zip(&expected).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(offset + at as u64),
    }
}

/// Returns a number below `bound` that depends on `seed` and `index` alone.
///
/// # Panics
/// When `bound` is 0.
pub fn pick(seed: u64, index: u64, bound: usize) -> usize {
    let random = u64::from_le_bytes(word(seed, index));
    usize::try_from(random % bound as u64).expect("below a usize")
}

/// Returns `0..count` in an order that depends on `seed` alone.
pub fn shuffled(seed: u64, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, pick(seed, last as u64, last + 1));
    }
    order
}

/// SplitMix64 (Steele, Lea, Flood 2014) of the position, keyed by the seed.
fn word(seed: u64, position: u64) -> [u8; 8] {
    let mut z = seed
        .wrapping_mul(0xD134_2543_DE82_EF95)
        .wrapping_add(position);
    z = z.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_is_a_slice_of_the_whole() {
        let whole = bytes(7, 100);
        for offset in 0..40 {
            for len in 0..40 {
                let mut part = vec![0; len];
                fill(7, offset as u64, &mut part);
                assert_eq!(part, whole[offset..offset + len], "{offset} {len}");
                assert_eq!(check(7, offset as u64, &part), Ok(()));
            }
        }
    }

    #[test]
    fn other_places_and_other_seeds_are_told_apart() {
        assert_ne!(bytes(1, 64), bytes(2, 64));
        assert!(check(1, 8, &bytes(1, 64)).is_err());
        let mut flipped = bytes(1, 64);
        flipped[33] ^= 1;
        assert_eq!(check(1, 0, &flipped), Err(33));
    }

    #[test]
    fn a_shuffle_has_each_index_once() {
        let mut order = shuffled(3, 1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
