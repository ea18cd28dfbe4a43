//! Views of packets. A view checks the length once, then names the fields; nothing is allocated, and no byte of a peer can
//! make it panic.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod crc;
pub mod ether;
pub mod management;
pub mod pci;
pub mod relay;
pub mod update;
