// SPDX-License-Identifier: Apache-2.0
//! Delegation tokens in files: as Hadoop's tools write them, or as text.
//!
//! `hdfs fetchdt`, `hadoop dtutil` and YARN write several tokens into one file, in either of two
//! formats. A token goes into a URL as the text that Hadoop makes of it. Pure functions over bytes
//! that may be hostile, and a file that is read again when its token is refused: tokens end after
//! days.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use types::{Error, ErrorKind, Result};

/// How such a file begins.
const MAGIC: &[u8] = b"HDTS";
/// What tokens for HDFS are called; any of them is taken by its web service.
const KINDS: [&[u8]; 3] = [
    b"HDFS_DELEGATION_TOKEN",
    b"WEBHDFS delegation",
    b"SWEBHDFS delegation",
];

/// The token in a file.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    /// For which services it may be, should there be several.
    services: Vec<String>,
    /// Locked for as long as it takes to clone or replace it.
    current: RwLock<String>,
}

impl TokenFile {
    /// Reads the token for one of these services.
    pub(super) fn read(path: PathBuf, services: Vec<String>) -> Result<Self> {
        let current = RwLock::new(read(&path, &services)?);
        Ok(TokenFile {
            path,
            services,
            current,
        })
    }

    /// Returns the token as it stands in a URL.
    pub(super) fn current(&self) -> String {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Reads the file again; returns whether there is another token in it.
    pub(super) fn renew(&self) -> bool {
        match read(&self.path, &self.services) {
            Ok(new) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                std::mem::replace(&mut *current, new.clone()) != new
            }
            Err(error) => {
                tracing::warn!(%error, "no other token");
                false
            }
        }
    }
}

fn read(path: &Path, services: &[String]) -> Result<String> {
    let what = format!("read the token in '{}'", path.display());
    let bytes = std::fs::read(path).map_err(|error| Error::io(what.clone(), error))?;
    let token = match bytes.strip_prefix(MAGIC) {
        Some(rest) => tokens(rest).and_then(|tokens| choose(&tokens, services)),
        None => text(&bytes),
    };
    token.ok_or_else(|| {
        let why = "it holds no delegation token of this HDFS; write one with 'hdfs fetchdt'";
        Error::new(ErrorKind::Invalid, why).context(what)
    })
}

/// Takes a token that is text already.
fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte);
    (!text.is_empty() && text.bytes().all(is_token)).then(|| text.to_owned())
}

/// A token as it is kept.
#[derive(Debug, Default, PartialEq, Eq)]
struct Token<'a> {
    identifier: &'a [u8],
    password: &'a [u8],
    kind: &'a [u8],
    service: &'a [u8],
}

impl Token<'_> {
    /// Writes it as Hadoop does for a URL.
    fn to_text(&self) -> String {
        let mut bytes = Vec::new();
        for field in [self.identifier, self.password, self.kind, self.service] {
            write_number(&mut bytes, field.len());
            bytes.extend_from_slice(field);
        }
        let text = reqsign_core::hash::base64_encode(&bytes);
        let text = text.trim_end_matches('=');
        text.replace('+', "-").replace('/', "_")
    }
}

/// Chooses the token for a service, or the only one.
fn choose(tokens: &[Token<'_>], services: &[String]) -> Option<String> {
    let ours: Vec<_> = tokens
        .iter()
        .filter(|token| KINDS.contains(&token.kind))
        .collect();
    let fits = |token: &&&Token<'_>| {
        let mut services = services.iter();
        services.any(|service| service.as_bytes() == token.service)
    };
    let chosen = ours.iter().find(fits).or(match &ours[..] {
        [only] => Some(only),
        _ => None,
    });
    chosen.map(|token| token.to_text())
}

/// Reads the tokens behind the mark of the file.
fn tokens(bytes: &[u8]) -> Option<Vec<Token<'_>>> {
    let (format, mut rest) = bytes.split_first()?;
    match format {
        0 => {
            let count = number(&mut rest)?;
            let mut tokens = Vec::new();
            for _ in 0..count {
                field(&mut rest)?;
                tokens.push(Token {
                    identifier: field(&mut rest)?,
                    password: field(&mut rest)?,
                    kind: field(&mut rest)?,
                    service: field(&mut rest)?,
                });
            }
            Some(tokens)
        }
        1 => {
            let mut all = delimited(&mut rest)?;
            let mut tokens = Vec::new();
            while let Some((name, mut entry)) = message_field(&mut all)? {
                while let Some((part, mut token)) = message_field(&mut entry)? {
                    if (name, part) == (1, 2) {
                        tokens.push(message_token(&mut token)?);
                    }
                }
            }
            Some(tokens)
        }
        _ => None,
    }
}

/// Reads a number as Hadoop writes it; `None` when it is no length.
fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (first, rest) = bytes.split_first()?;
    let first = i8::from_be_bytes([*first]);
    if first >= 0 {
        *bytes = rest;
        return usize::try_from(first).ok();
    }
    // From -113 on it says how many bytes follow.
    let len = usize::try_from(-112 - i16::from(first)).ok()?;
    let (digits, rest) = rest
        .split_at_checked(len)
        .filter(|_| (1..=4).contains(&len))?;
    *bytes = rest;
    let value = digits
        .iter()
        .fold(0u64, |value, &digit| value << 8 | u64::from(digit));
    usize::try_from(value).ok()
}

fn write_number(bytes: &mut Vec<u8>, value: usize) {
    if value < 128 {
        bytes.extend(u8::try_from(value));
        return;
    }
    let digits = value.to_be_bytes();
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    let len = digits.len() - zeros;
    // -112 less the length, as a byte.
    bytes.extend(u8::try_from(144 - len));
    bytes.extend_from_slice(&digits[zeros..]);
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = number(bytes)?;
    let (field, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(field)
}

/// Reads a length of Protocol Buffers and as many bytes.
fn delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(bytes)?).ok()?;
    let (field, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(field)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 127) << shift;
        if byte & 128 == 0 {
            return Some(value);
        }
    }
    None
}

/// Reads the next field of a message: all of them have lengths here. The inner `None` is its end.
#[allow(clippy::option_option, reason = "a fault and an end are not the same")]
fn message_field<'a>(bytes: &mut &'a [u8]) -> Option<Option<(u64, &'a [u8])>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let key = varint(bytes)?;
    let field = delimited(bytes).filter(|_| key & 7 == 2)?;
    Some(Some((key >> 3, field)))
}

fn message_token<'a>(bytes: &mut &'a [u8]) -> Option<Token<'a>> {
    let mut token = Token::default();
    while let Some((part, field)) = message_field(bytes)? {
        match part {
            1 => token.identifier = field,
            2 => token.password = field,
            3 => token.kind = field,
            4 => token.service = field,
            _ => {}
        }
    }
    Some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hadoop(field: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_number(&mut bytes, field.len());
        [&bytes[..], field].concat()
    }

    /// A file of the first format with one token for each service.
    fn writable(kind: &[u8], services: &[&[u8]], identifier: &[u8]) -> Vec<u8> {
        let count = u8::try_from(services.len()).unwrap();
        let mut bytes = [MAGIC, &[0, count]].concat();
        for service in services {
            for field in [b"alias", identifier, b"secret", kind, service] {
                bytes.extend(hadoop(field));
            }
        }
        bytes.push(0);
        bytes
    }

    fn message(part: u8, field: &[u8]) -> Vec<u8> {
        let len = u8::try_from(field.len()).unwrap();
        [&[part << 3 | 2, len][..], field].concat()
    }

    fn chosen(file: &[u8], services: &[&str]) -> Option<String> {
        let services: Vec<_> = services.iter().map(|one| (*one).to_owned()).collect();
        choose(&tokens(file.strip_prefix(MAGIC)?)?, &services)
    }

    #[test]
    fn both_formats_tell_the_same_token() {
        let kind = KINDS[0];
        let one = writable(kind, &[b"1.2.3.4:8020"], b"who");
        let fields = [
            (1, &b"who"[..]),
            (2, b"secret"),
            (3, kind),
            (4, b"1.2.3.4:8020"),
        ];
        let token: Vec<_> = fields.map(|(part, field)| message(part, field)).concat();
        let entry = [message(1, b"alias"), message(2, &token)].concat();
        let all = message(1, &entry);
        let other = [MAGIC, &[1, u8::try_from(all.len()).unwrap()], &all].concat();
        // What Hadoop's encodeToUrlString makes of it.
        let text = "A3dobwZzZWNyZXQVSERGU19ERUxFR0FUSU9OX1RPS0VODDEuMi4zLjQ6ODAyMA";
        assert_eq!(chosen(&one, &[]).as_deref(), Some(text));
        assert_eq!(chosen(&other, &[]).as_deref(), Some(text));
    }

    #[test]
    fn the_token_of_the_service_is_chosen_and_none_at_random() {
        let two = writable(KINDS[1], &[b"a:1", b"ha-hdfs:b"], b"who");
        let token = |service: &'static [u8]| {
            let only = writable(KINDS[1], &[service], b"who");
            chosen(&only, &[]).unwrap()
        };
        assert_eq!(
            chosen(&two, &["b:2", "ha-hdfs:b"]),
            Some(token(b"ha-hdfs:b"))
        );
        assert_eq!(chosen(&two, &["a:1"]), Some(token(b"a:1")));
        assert_eq!(chosen(&two, &["c:1"]), None);
        assert_eq!(
            chosen(&writable(b"other", &[b"a:1"], b"who"), &["a:1"]),
            None
        );
    }

    #[test]
    fn long_fields_are_told_by_more_than_a_byte() {
        for len in [127, 128, 255, 256, 70_000] {
            let identifier = vec![7; len];
            let file = writable(KINDS[0], &[b"s"], &identifier);
            let found = tokens(file.strip_prefix(MAGIC).unwrap()).unwrap();
            assert_eq!(found[0].identifier, identifier, "{len}");
        }
    }

    #[test]
    fn files_that_are_cut_or_something_else_hold_no_token() {
        let whole = writable(KINDS[0], &[b"s"], &[7; 200]);
        for cut in 0..whole.len() - 1 {
            assert_eq!(chosen(&whole[..cut], &[]), None, "{cut}");
        }
        let huge = [MAGIC, &[0, 1, 0x8c, 0xff, 0xff, 0xff, 0xff]].concat();
        assert_eq!(chosen(&huge, &[]), None);
        assert_eq!(text(b" abc-_=\n").as_deref(), Some("abc-_="));
        for wrong in [&b""[..], b"\n", b"a&b=c", b"\xff"] {
            assert_eq!(text(wrong), None);
        }
    }
}
