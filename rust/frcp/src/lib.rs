//! FRCP, the flow and retransmission control protocol: what makes a flow reliable and ordered over packets that are lost,
//! doubled and overtaken.
//!
//! Pure: no socket, no clock, no thread. Packets, messages and time go in; packets, messages and deadlines come out. Time is
//! nanoseconds of a clock that never goes back.
//!
//! Read bottom to top: `limits`, `seq` and `ranges` (numbers that wrap), `quirks` (what sets the peers apart), `header` (the
//! wire), `config` (what a flow is told and tells), `bytes`, `pacing` and `congestion` (how fast), `send` (what is to be sent),
//! `receive` and `ack` (what arrived), `rtt`, `recovery` (what was lost), `window` (what the peer takes), `outgoing` and
//! `incoming` (the two directions), `connection` (a flow).

#![forbid(unsafe_code)]

mod ack;
mod bytes;
mod config;
mod congestion;
mod connection;
mod header;
mod incoming;
pub mod limits;
mod outgoing;
mod pacing;
mod quirks;
mod ranges;
mod receive;
mod recovery;
mod rtt;
mod send;
mod seq;
mod window;

pub use config::{Config, Failure, MAX_MESSAGE, Peer, Pressure, Refused, SPARE, Stats, UNSENT};
pub use connection::Connection;
pub use header::{HEADER, Header, flag};
