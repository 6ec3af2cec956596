// SPDX-License-Identifier: Apache-2.0
//! How is written down what an object store keeps beside the bytes.
//!
//! ```text
//! link?(1) [length(4) link] count(4) [length(4) name length(4) value]...
//! ```

use std::sync::Arc;

use types::{Extras, Xattrs};

use super::Input;

pub(super) fn write(out: &mut Vec<u8>, extras: &Extras) {
    out.push(u8::from(extras.link.is_some()));
    if let Some(link) = &extras.link {
        write_bytes(out, link);
    }
    write_len(out, extras.xattrs.len());
    for (name, value) in extras.xattrs.iter() {
        write_bytes(out, name.as_bytes());
        write_bytes(out, value);
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn write_len(out: &mut Vec<u8>, len: usize) {
    // Metadata has some kilobytes.
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

pub(super) fn read(input: &mut Input<'_>) -> Option<Extras> {
    let link = match input.u8()? {
        0 => None,
        _ => Some(input.bytes()?.to_vec()),
    };
    let mut xattrs = Xattrs::new();
    for _ in 0..input.u32()? {
        let name = String::from_utf8(input.bytes()?.to_vec()).ok()?;
        xattrs.insert(name, input.bytes()?.to_vec());
    }
    let xattrs = Arc::new(xattrs);
    Some(Extras { link, xattrs })
}
