//! Encryption of the packets of a flow.
//!
//! ```text
//! | IV (12 or 16) | ciphertext | tag (16; none in counter mode) |
//! ```
//!
//! A [`Session`] is one end of it. It draws the IVs, changes the keys, finds the key of a packet and, between our own ends,
//! rejects what is replayed or sent back. No clock, no threads; nothing is allocated per packet. What is opened may be
//! anything: the worst that comes of it is [`Rejected`].
//!
//! # What is protected from whom
//!
//! Who does not know the key learns lengths, times and the number of packets; altered packets are rejected (not in counter
//! mode). Between our own ends every packet is delivered once at most. With a peer of the prototype the protocol knows no
//! packet numbers: a replayed packet is opened again, and only FRCP above it may tell. One of our own packets that is
//! sent back to us is rejected in any case.
//!
//! # What becomes of the keys
//!
//! The keys of the chain are in a page of their own: locked in memory as far as the limit of the process allows, not in
//! core files, empty in the child of a fork, wiped when they are replaced or the session is dropped. aws-lc keeps expanded
//! keys on its heap; it wipes them when they are freed, but they are not locked and a core file of the process has them.
//! A session that is used in the child of a fork refuses.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod chain;
mod cipher;
mod numbers;
mod proof;
mod rotation;
mod session;
mod suite;
mod vault;
mod window;

pub use proof::Proofs;
pub use session::{Counters, Refused, Rejected, Replay, Role, Session, Settings};
pub use suite::Suite;
