//! Shared-memory packet rings between two processes that need not trust each other.
//!
//! A flow is one sealed memfd with a ring each way and a socket pair as doorbell. Read bottom to top: `layout` (what is in
//! the memory), `ring` (one direction, pure), `channel` (the descriptors), `endpoint` (one side of a flow: locks, waiting,
//! going down). `SAFETY.md` lists what the unsafe code relies on.

pub mod layout;
pub mod ring;
pub mod sync;

#[cfg(not(loom))]
pub mod channel;
#[cfg(not(loom))]
pub mod endpoint;
#[cfg(not(loom))]
pub mod spin;
