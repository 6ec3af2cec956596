// SPDX-License-Identifier: Apache-2.0
//! How notes lie in the file `notes`.
//!
//! Header, 48 bytes: magic with version, generation u64, first id u64, id of the boot, CRC32C of these,
//! four zeros.
//! Frame: marker u32, payload length u32, generation u64, durable length u64, CRC32C u32, payload.
//! Little-endian.
//! Payload: changes, each a kind u8 and an id u64; kind 1 sets a note that outlives a power cut, kind 2
//! one that outlives the process: length of the shape u32, all ones where there is none, length of the
//! note u32, shape, note. Kind 0 removes both.
//!
//! The CRC covers offset and generation as well, so that bytes of another place are never a frame.
//! A frame says how much of the file was on the disk when it was written. Bad bytes with no good frame
//! behind them are the last write, cut short by a crash, which nobody was told of. Bad bytes before a
//! good frame are damage, except after another boot and behind everything that was known to be durable:
//! a power cut leaves any part of that.

use std::collections::BTreeMap;

use super::{BootId, Outlives};

/// The version is the last character.
const MAGIC: &[u8; 8] = b"FBNOTE-2";
pub(super) const HEADER_LEN: usize = 48;
const FRAME_HEADER_LEN: usize = 28;
const MARKER: [u8; 4] = *b"\xf0NT\x9b";
const NO_SHAPE: u32 = u32::MAX;
const NO_BOOT: [u8; 16] = [0; 16];
const REMOVE: u8 = 0;
const SET: u8 = 1;
const SET_FOR_THE_BOOT: u8 = 2;

/// What a `notes` file begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Counts the files of this name.
    pub(super) generation: u64,
    /// Where the ids of the process began that made it.
    pub(super) first_id: u64,
    /// The boot that the process ran in, where the system told it.
    pub(super) boot: Option<BootId>,
}

/// What is noted under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Noted {
    /// The encoded shape of the file; none for a note without one.
    pub(super) shape: Option<Vec<u8>>,
    pub(super) note: Vec<u8>,
}

/// What is noted under an id, by what it outlives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// What outlives a power cut.
    pub(super) sealed: Option<Noted>,
    /// What was noted after that and outlives the process.
    pub(super) noted: Option<Noted>,
}

impl Standing {
    /// Returns what stands once a note outlives a power cut.
    pub(super) fn sealed(noted: Noted) -> Self {
        Standing {
            sealed: Some(noted),
            noted: None,
        }
    }
}

/// What was found in a file.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) header: Option<Header>,
    pub(super) notes: BTreeMap<u64, Standing>,
    /// Where the first bad bytes lie that have a good frame behind them.
    pub(super) damage: Option<usize>,
    /// Good frames before and behind that place.
    pub(super) frames: [usize; 2],
    /// How much of the file was durable for sure.
    pub(super) durable: u64,
    /// The end of the last good frame.
    pub(super) end: usize,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_id.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.boot.map_or(NO_BOOT, |boot| boot.0));
        let crc = crc_fast::crc32_iscsi(&bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Header> {
        let mut rest = bytes.get(8..40)?;
        let header = Header {
            generation: take_u64(&mut rest)?,
            first_id: take_u64(&mut rest)?,
            boot: Some(BootId(*rest.first_chunk()?)).filter(|boot| boot.0 != NO_BOOT),
        };
        bytes.starts_with(&header.encode()).then_some(header)
    }
}

/// Appends the removal of what is noted under an id.
pub(super) fn put_removal(payload: &mut Vec<u8>, id: u64) {
    payload.push(REMOVE);
    payload.extend_from_slice(&id.to_le_bytes());
}

/// Appends a note to a payload; none, with the payload as it was, when a length does not fit.
pub(super) fn put_note(
    payload: &mut Vec<u8>,
    id: u64,
    noted: &Noted,
    outlives: Outlives,
) -> Option<()> {
    let len_of = |bytes: &Vec<u8>| {
        u32::try_from(bytes.len())
            .ok()
            .filter(|len| *len != NO_SHAPE)
    };
    let shape_len = noted.shape.as_ref().map_or(Some(NO_SHAPE), len_of)?;
    let note_len = len_of(&noted.note)?;
    payload.push(match outlives {
        Outlives::PowerCut => SET,
        Outlives::Kill => SET_FOR_THE_BOOT,
    });
    payload.extend_from_slice(&id.to_le_bytes());
    payload.extend_from_slice(&shape_len.to_le_bytes());
    payload.extend_from_slice(&note_len.to_le_bytes());
    payload.extend_from_slice(noted.shape.as_deref().unwrap_or_default());
    payload.extend_from_slice(&noted.note);
    Some(())
}

/// Returns how many bytes a note takes in a payload.
pub(super) fn cost(noted: &Noted) -> u64 {
    17 + noted.shape.as_ref().map_or(0, Vec::len) as u64 + noted.note.len() as u64
}

/// Makes the frame for a payload at `offset`; none when it is too long for one.
pub(super) fn encode(
    generation: u64,
    offset: u64,
    durable: u64,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let len = u32::try_from(payload.len()).ok()?;
    let mut frame = Vec::with_capacity(FRAME_HEADER_LEN + payload.len());
    frame.extend_from_slice(&MARKER);
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&generation.to_le_bytes());
    frame.extend_from_slice(&durable.to_le_bytes());
    let checksum = checksum([generation, offset, durable], payload);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(payload);
    Some(frame)
}

/// Reads all good frames, those behind damage as well.
pub(super) fn read(bytes: &[u8]) -> Reading {
    let header = Header::decode(bytes);
    let mut found = Reading {
        header,
        damage: header.is_none().then_some(0),
        end: HEADER_LEN.min(bytes.len()),
        ..Reading::default()
    };
    let generation = header.map(|header| header.generation);
    let mut at = found.end;
    while at < bytes.len() {
        match frame_at(bytes, at, generation) {
            Some((changes, durable, len)) => {
                if at > found.end {
                    found.damage.get_or_insert(found.end);
                }
                found.durable = found.durable.max(durable);
                changes
                    .into_iter()
                    .for_each(|(id, change)| found.apply(id, change));
                found.frames[usize::from(found.damage.is_some())] += 1;
                at += len;
                found.end = at;
            }
            None => at = next_marker(bytes, at + 1),
        }
    }
    found
}

impl Reading {
    fn apply(&mut self, id: u64, change: Option<(Outlives, Noted)>) {
        match change {
            None => drop(self.notes.remove(&id)),
            Some((Outlives::PowerCut, noted)) => {
                self.notes.insert(id, Standing::sealed(noted));
            }
            Some((Outlives::Kill, noted)) => {
                self.notes.entry(id).or_default().noted = Some(noted);
            }
        }
    }
}

type Changes = Vec<(u64, Option<(Outlives, Noted)>)>;

/// Returns the changes of a good frame, how much was durable when it was written, and its length.
fn frame_at(bytes: &[u8], at: usize, generation: Option<u64>) -> Option<(Changes, u64, usize)> {
    let mut rest = bytes.get(at..)?.strip_prefix(&MARKER)?;
    let len = take_u32(&mut rest)? as usize;
    let own = take_u64(&mut rest)?;
    let durable = take_u64(&mut rest)?;
    let crc = take_u32(&mut rest)?;
    let payload = rest.get(..len)?;
    let good = generation.is_none_or(|generation| generation == own)
        && checksum([own, at as u64, durable], payload) == crc;
    let changes = good.then(|| parse(payload))??;
    Some((changes, durable, FRAME_HEADER_LEN + len))
}

fn next_marker(bytes: &[u8], from: usize) -> usize {
    let found = bytes[from..]
        .windows(MARKER.len())
        .position(|window| window == MARKER);
    found.map_or(bytes.len(), |at| from + at)
}

fn checksum(numbers: [u64; 3], payload: &[u8]) -> u32 {
    let mut seed = [0; 28];
    for (part, number) in seed.chunks_exact_mut(8).zip(numbers) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    seed[24..].copy_from_slice(&crc_fast::crc32_iscsi(payload).to_le_bytes());
    crc_fast::crc32_iscsi(&seed)
}

fn parse(mut payload: &[u8]) -> Option<Changes> {
    let rest = &mut payload;
    let mut changes = Vec::new();
    while let Some(kind) = rest.split_off_first() {
        let id = take_u64(rest)?;
        let change = match *kind {
            REMOVE => None,
            SET | SET_FOR_THE_BOOT => {
                let (shape_len, note_len) = (take_u32(rest)?, take_u32(rest)?);
                let shape = match shape_len {
                    NO_SHAPE => None,
                    len => Some(rest.split_off(..len as usize)?.to_vec()),
                };
                let note = rest.split_off(..note_len as usize)?.to_vec();
                let outlives = match *kind {
                    SET => Outlives::PowerCut,
                    _ => Outlives::Kill,
                };
                Some((outlives, Noted { shape, note }))
            }
            _ => return None,
        };
        changes.push((id, change));
    }
    Some(changes)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    Some(u64::from_le_bytes(*bytes))
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        generation: 3,
        first_id: 7 << 40,
        boot: Some(BootId([9; 16])),
    };

    fn noted(n: u8) -> Noted {
        Noted {
            shape: n.is_multiple_of(2).then(|| vec![n; 3]),
            note: vec![n; usize::from(n) + 5],
        }
    }

    fn put(payload: &mut Vec<u8>, n: u8) {
        put_note(payload, u64::from(n), &noted(n), Outlives::PowerCut).unwrap();
    }

    fn sealed(n: u8) -> Standing {
        Standing::sealed(noted(n))
    }

    /// Five frames that set a note each, and the second also removes the first note.
    fn sample() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = HEADER.encode().to_vec();
        let mut ends = vec![bytes.len()];
        for n in 0..5u8 {
            let mut payload = Vec::new();
            put(&mut payload, n);
            if n == 1 {
                put_removal(&mut payload, 0);
            }
            let len = bytes.len() as u64;
            let frame = encode(HEADER.generation, len, len, &payload).unwrap();
            bytes.extend(frame);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn notes_read_back() {
        let (bytes, _) = sample();
        let found = read(&bytes);
        assert_eq!(found.header, Some(HEADER));
        assert_eq!((found.damage, found.end), (None, bytes.len()));
        let expected: BTreeMap<u64, Standing> = (1..5).map(|n| (u64::from(n), sealed(n))).collect();
        assert_eq!(found.notes, expected);
    }

    #[test]
    fn what_outlives_a_kill_leaves_what_outlives_more_until_it_does_too() {
        let mut bytes = HEADER.encode().to_vec();
        let mut standing = |change: Option<(u8, Outlives)>| {
            let mut payload = Vec::new();
            match change {
                Some((n, outlives)) => put_note(&mut payload, 7, &noted(n), outlives).unwrap(),
                None => put_removal(&mut payload, 7),
            }
            let len = bytes.len() as u64;
            bytes.extend(encode(HEADER.generation, len, len, &payload).unwrap());
            let found = read(&bytes);
            assert_eq!((found.damage, found.durable), (None, len));
            found.notes.get(&7).cloned()
        };
        let both = |sealed: Option<u8>, light: Option<u8>| {
            Some(Standing {
                sealed: sealed.map(noted),
                noted: light.map(noted),
            })
        };
        let (kill, cut) = (Outlives::Kill, Outlives::PowerCut);
        assert_eq!(standing(Some((1, kill))), both(None, Some(1)));
        assert_eq!(standing(Some((2, kill))), both(None, Some(2)));
        assert_eq!(standing(Some((3, cut))), both(Some(3), None));
        assert_eq!(standing(Some((4, kill))), both(Some(3), Some(4)));
        assert_eq!(standing(None), None);
    }

    #[test]
    fn a_torn_tail_is_no_damage_and_loses_only_the_last_frame() {
        let (bytes, ends) = sample();
        for cut in HEADER_LEN..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let mut torn = bytes[..cut].to_vec();
            for tail in [0, 1, 5000] {
                torn.resize(cut + tail, 0xaa);
                let found = read(&torn);
                assert_eq!(
                    (found.damage, found.end),
                    (None, ends[whole]),
                    "cut at {cut}"
                );
                assert_eq!(found.frames, [whole, 0]);
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_costs_its_frame_and_no_other() {
        let (bytes, ends) = sample();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x20;
            let found = read(&bad);
            let frame = ends.iter().filter(|end| **end <= at).count();
            assert_eq!(found.header.is_some(), frame > 0);
            let last = frame == ends.len() - 1;
            let start = if frame == 0 { 0 } else { ends[frame - 1] };
            assert_eq!(found.damage, (!last).then_some(start), "byte {at}");
            assert_eq!(
                found.frames.iter().sum::<usize>(),
                if frame == 0 { 5 } else { 4 }
            );
            for n in 1..5u8 {
                let lost = usize::from(n) + 1 == frame;
                assert_eq!(found.notes.contains_key(&u64::from(n)), !lost, "byte {at}");
            }
        }
    }

    #[test]
    fn a_frame_of_another_place_or_generation_is_no_frame() {
        let (bytes, ends) = sample();
        let mut moved = bytes[..ends[1]].to_vec();
        moved.extend_from_slice(&bytes[ends[2]..ends[3]]);
        let found = read(&moved);
        assert_eq!((found.end, found.notes.len()), (ends[1], 1));
        let next = Header {
            generation: 4,
            ..HEADER
        };
        let mut other = bytes;
        other[..HEADER_LEN].copy_from_slice(&next.encode());
        assert!(read(&other).notes.is_empty());
    }
}
