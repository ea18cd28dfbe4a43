//! Shared-memory packet rings between two processes that need not trust each other.
//!
//! A flow is one sealed memfd with a ring each way and a socket pair as doorbell. Read bottom to top: `sync` (atomics, or
//! those of the model checker), `layout` (what is in the memory), `ring` (one direction, pure), `board` (beside them, a
//! file of counters), `descriptors` and `channel` (memory and doorbell), `spin` (whether to wait awake), `endpoint` (one side
//! of a flow: locks, waiting, going down). `SAFETY.md` lists what the unsafe code relies on.

#![deny(unsafe_code)]

pub mod layout;
pub mod ring;
pub mod sync;

#[cfg(not(loom))]
pub mod board;
#[cfg(not(loom))]
pub mod channel;
#[cfg(not(loom))]
pub mod descriptors;
#[cfg(not(loom))]
pub mod endpoint;
#[cfg(not(loom))]
pub mod spin;
