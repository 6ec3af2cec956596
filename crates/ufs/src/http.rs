// SPDX-License-Identifier: Apache-2.0
//! What storages that speak HTTP have in common.
//!
//! From the wire upwards: connections and whom they trust (`tls`), who asks (`credentials`,
//! `references`),
//! requests with their counts and a first look at each answer (`transport`, `range`), at whose time (`skew`), what
//! traces tell of them (`spans`), what goes
//! wrong and what to do about it (`fault`), limits, deadlines and retries (`session`), bodies that
//! are checked and resumed (`body`), and object stores with keys and pages (`objects`, `listing`),
//! which are written through `keys`, `kept`, `links`, `change`, `writing` and `upload`.
//! A driver adds its addresses, its headers and its words, and is small.

mod body;
mod change;
mod command;
mod credentials;
mod endpoint;
mod fault;
mod follow;
mod kept;
mod keys;
mod links;
mod listing;
mod objects;
mod range;
mod references;
#[cfg(test)]
pub(crate) mod services;
mod session;
mod skew;
mod spans;
mod text;
mod tls;
mod transport;
mod upload;
mod writing;
mod xml;

pub(crate) use body::{Got, check_version};
#[cfg(test)]
pub(crate) use credentials::Files;
pub(crate) use credentials::{Authorize, Bearer, Signature, signing_context};
pub(crate) use endpoint::{check_endpoint, first_set};
pub(crate) use fault::{Fault, Refusal};
pub(crate) use follow::{Arrived, follow, next as next_place};
pub(crate) use kept::{
    BYTES as KEPT_BYTES, GCSFUSE_LINK, Kept, NAMES as KEPT_NAMES, XATTR as KEPT_XATTRS, xattrs_text,
};
pub(crate) use keys::{Copying, Draft, KeyWriter, Part, Parted, Seen, Step, Stored, Unfinished};
pub(crate) use links::Link;
pub(crate) use listing::{Object, Page};
pub(crate) use objects::{Bucket, Found, ObjectStore};
pub(crate) use range::whole_length;
pub(crate) use references::{Hidden, Who};
pub(crate) use session::Session;
pub(crate) use skew::Skew;
pub(crate) use text::{
    clean_etag, header_text, http_time, if_match, iso_time, percent_decode, percent_encode,
    percent_encode_path, printable, range_header,
};
pub(crate) use tls::Clients;
pub(crate) use transport::{Ask, Leeway, Payload, Transport};
pub(crate) use xml::{Element, walk};

/// What a request comes to below the level of operations.
pub(crate) type Outcome<T> = Result<T, Fault>;
