//! The flows and layers of one node, pure: bytes, time and randomness come in as arguments, and packets and events come out.
//!
//! ```text
//! program ══ Ring ══ Flow: Protocol (raw or FRCP) ── Outlet (AEAD, CRC, bad link) ── Way ─┬─ Port ── Stage ──▶ transmit
//!                       ▲                                                                 ├─ Transfer: a flow below, used by
//!                       │                                                                 │            the member
//!                       │                                                                 ├─ Unicast: the flow that leads to
//!                       │                                                                 │           the next member
//!                       │                                                                 ├─ Loop: the other end, in this stack
//!                       └──── dispatch by endpoint id ◀── Member ◀── receive              └─ Broadcast: all others of the member,
//!                                                                                            and its neighbours
//! ```
//!
//! A layer over a layer is a call: a packet is written once, behind the headers of all levels, and read where it arrived.
//! `stack` has the rules for calls.

#![forbid(unsafe_code)]

mod balance;
mod board;
mod broadcast;
mod counters;
mod credit;
mod door;
mod flow;
mod id;
pub mod link;
mod member;
mod memory;
mod outlet;
pub mod ring;
mod run;
mod stack;
mod stage;
mod tap;
mod timers;
mod transfer;

pub use balance::Balance;
pub use board::{Board, Source, names, publish_flow, publish_member};
pub use counters::{Counted, FlowCounters, LayerCounters, MemberCounted, Snapshot, TransferCounters, each_of_flow};
pub use flow::{How, Setup, User};
pub use id::{FlowId, MemberId, Names};
pub use memory::Account;
pub use ouroboros_wire::ether;
pub use ouroboros_wire::management::{EID, LONGEST as MANAGEMENT};
pub use run::Run;
pub use stack::{Carrier, Event, Kind, Stack, Where};
pub use stage::Outgoing;
pub use tap::{About, HEAD as CAPTURE_HEAD};
pub use transfer::{Settings as TransferSettings, Table, WAYS};

/// Layers over layers, at the most, over the one that is over nothing but a port or a loop.
pub const DEPTH: usize = 8;
