// SPDX-License-Identifier: Apache-2.0
//! Finds the heads of requests in the bytes of an HTTP/1.1 connection.
//!
//! As much of the protocol as it takes to know where a request starts: heads, and bodies with a
//! `Content-Length`. A chunked body is taken for the end of what can be told.

/// A head longer than this is none.
const HEAD_MAX: usize = 64 << 10;

/// Follows one connection.
#[derive(Debug, Default)]
pub(super) struct RequestHeads {
    head: Vec<u8>,
    /// The head that ended last, in lower case.
    last: String,
    body_left: u64,
    lost: bool,
}

/// What a piece of the connection held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// A request began in it.
    pub(super) started: bool,
    /// How many heads ended in it.
    pub(super) ended: u64,
}

impl RequestHeads {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() && !self.lost {
            let body = usize::try_from(self.body_left)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            self.body_left -= body as u64;
            bytes = &bytes[body..];
            if bytes.is_empty() {
                break;
            }
            seen.started |= self.head.is_empty();
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            // The end may lie across two pieces.
            let from = before.saturating_sub(3);
            match self.head[from..]
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                Some(at) => {
                    let end = from + at + 4;
                    bytes = &bytes[end - before..];
                    seen.ended += 1;
                    self.begin_body(end);
                }
                None => {
                    self.lost = self.head.len() > HEAD_MAX;
                    break;
                }
            }
        }
        seen
    }

    /// Returns the head that ended last, in lower case.
    pub(super) fn last(&self) -> &str {
        &self.last
    }

    /// Returns whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        !self.head.is_empty() && !self.lost
    }

    /// Returns how much is to come of the body of the request whose head ended last.
    pub(super) fn body_left(&self) -> u64 {
        self.body_left
    }

    fn begin_body(&mut self, end: usize) {
        let head = String::from_utf8_lossy(&self.head[..end]).to_ascii_lowercase();
        let value = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        self.body_left = value("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        self.lost = value("transfer-encoding").is_some();
        self.head.clear();
        self.last = head;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] =
        b"PUT /a HTTP/1.1\r\nContent-Length: 6\r\n\r\n\r\n\r\n\r\nGET /b HTTP/1.1\r\n\r\n";

    #[test]
    fn requests_are_counted_however_the_bytes_are_cut() {
        for size in 1..TWO.len() {
            let mut heads = RequestHeads::default();
            let seen: Vec<Seen> = TWO.chunks(size).map(|piece| heads.feed(piece)).collect();
            assert_eq!(
                seen.iter().map(|seen| seen.ended).sum::<u64>(),
                2,
                "pieces of {size}"
            );
            assert!(
                seen.iter().filter(|seen| seen.started).count() <= 2,
                "pieces of {size}"
            );
            assert!(seen[0].started);
            assert_eq!(heads.last(), "get /b http/1.1\r\n\r\n");
            assert_eq!((heads.is_in_head(), heads.body_left()), (false, 0));
        }
    }
}
