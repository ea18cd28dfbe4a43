//! What a flow is told at its beginning, and what it tells.

use std::error::Error;
use std::fmt;

use crate::header::HEADER;
use crate::quirks::{self, LARGEST_WINDOW, PROTOTYPE_WINDOW, Quirks};

/// The longest message that is carried in fragments, bytes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// What may wait of a program that writes as fast as it can, bytes.
pub const UNSENT: usize = 512 << 10;

/// The other end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The C prototype, or one that cannot be told from it.
    Prototype,
    /// A node of ours, with what both sides can do.
    Own {
        /// Acknowledgements may list what came out of order.
        sack: bool,
        /// Messages may be carried in several packets.
        fragments: bool,
        /// Packets beyond the last one read that each side takes.
        window: u32,
    },
}

/// What a flow needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Everything arrives (mode R); otherwise what is lost stays lost (mode U). The order is kept in both.
    pub reliable: bool,
    /// Who is at the other end.
    pub peer: Peer,
    /// The longest packet, header included, bytes, in both directions.
    pub max_packet: usize,
    /// The longest time that the layer below may take for a packet, ns.
    pub mpl: u64,
    /// Bytes that may wait to be sent for the first time before there is room for no more: [`UNSENT`], or less where what is
    /// written late is written better. A message is taken whole if any is, and always if nothing waits.
    pub unsent: usize,
    /// Its memory is shared with other flows, see [`Connection::press`](crate::Connection::press): it begins with little, and
    /// has more while there is some.
    pub thrifty: bool,
}

/// How short memory is that a flow shares with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// It has what it needs.
    #[default]
    Easy,
    /// It has no more than at its beginning, and what one message needs.
    Tight,
    /// It begins no message that is longer than [`SPARE`], and the peer is told of no room for more of one.
    Over,
}

/// Memory that a flow which shares it has in any case, in each direction beside its first window: for packets to be sent, for
/// a message that comes in parts, and to be used again. Bytes.
pub const SPARE: usize = 32 << 10;

/// A sender whose data have all arrived, and that had none for so long, goes on with the first window only, until it is told
/// of another one. A receiver that got none for twice as long counts on that: it promises no more. Between nodes of ours, ns.
pub(crate) const IDLE: u64 = 10_000_000_000;

/// Memory that waits for one flow's packets at most, roughly, bytes.
const MOST_WAITING: usize = 16 << 20;
const LEAST_WINDOW: u32 = 16;

impl Config {
    /// How the peer behaves.
    pub(crate) fn quirks(&self) -> &'static Quirks {
        match (self.peer, self.reliable) {
            (Peer::Own { .. }, _) => &quirks::OWN,
            (Peer::Prototype, true) => &quirks::PROTOTYPE,
            (Peer::Prototype, false) => &quirks::PROTOTYPE_UNRELIABLE,
        }
    }

    /// Acknowledgements list what came out of order.
    pub(crate) fn sack(&self) -> bool {
        matches!(self.peer, Peer::Own { sack: true, .. })
    }

    /// Messages are carried in several packets.
    pub(crate) fn fragments(&self) -> bool {
        matches!(self.peer, Peer::Own { fragments: true, .. })
    }

    /// The longest payload of a packet.
    pub(crate) fn longest_payload(&self) -> usize {
        longest_payload(self.max_packet)
    }

    /// Packets that are sent before the peer has told its window.
    pub(crate) fn initial_window(&self) -> u32 {
        self.quirks().initial_window.min(self.window())
    }

    /// Memory that is kept for what comes next, in each direction, bytes.
    pub(crate) fn spare(&self) -> usize {
        if self.thrifty { SPARE } else { 1 << 20 }
    }

    /// Packets beyond the last one read that are taken.
    pub(crate) fn window(&self) -> u32 {
        match self.peer {
            Peer::Prototype => PROTOTYPE_WINDOW,
            Peer::Own { window, .. } => {
                let room = MOST_WAITING / self.max_packet.max(HEADER);
                window.min(u32::try_from(room).unwrap_or(u32::MAX)).clamp(LEAST_WINDOW, LARGEST_WINDOW)
            }
        }
    }
}

/// The longest payload of packets that are so long at most.
pub(crate) fn longest_payload(max_packet: usize) -> usize {
    max_packet.saturating_sub(HEADER).max(1)
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is longer than the flow carries.
    TooLong {
        /// The longest message that is taken, bytes.
        limit: usize,
    },
    /// There is no room now.
    Full,
    /// The flow was closed or has failed.
    Closed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::TooLong { limit } => write!(f, "the message is longer than {limit} bytes"),
            Refused::Full => f.write_str("there is no room for the message now"),
            Refused::Closed => f.write_str("the flow is closed"),
        }
    }
}

impl Error for Refused {}

/// Why a flow ended against the will of its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A packet was not acknowledged for the 120 s that it is retransmitted.
    GivenUp,
}

/// Counters and present state of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages taken from the program.
    pub messages_written: u64,
    /// Messages given to the program.
    pub messages_read: u64,
    /// Data packets sent, retransmissions among them.
    pub data_sent: u64,
    /// Data packets sent again.
    pub retransmitted: u64,
    /// Packets without data that were sent.
    pub bare_sent: u64,
    /// Data packets that came.
    pub data_received: u64,
    /// Packets without data that came.
    pub bare_received: u64,
    /// Data packets that came again, or too late.
    pub duplicates: u64,
    /// Data packets beyond the window.
    pub beyond: u64,
    /// Packets that came before the peer began, or are longer than they may be. They are counted above, too.
    pub rejected: u64,
    /// Packets that are none of FRCP, or came after this side failed.
    pub malformed: u64,
    /// Messages given up because a part was lost (mode U) or made no sense.
    pub broken: u64,
    /// Packets that never came (mode U).
    pub skipped: u64,
    /// Bytes of packets that were acknowledged, headers and an allowance for the layers below included.
    pub acknowledged: u64,
    /// Packets that were taken for lost.
    pub lost: u64,
    /// Packets that were taken for lost wrongly.
    pub spurious: u64,
    /// Times that nothing but waiting told of a loss.
    pub timeouts: u64,
    /// Times that a probe was sent because the end of what was sent was not acknowledged.
    pub probes: u64,
    /// Smoothed round trip, ns; 0 before the first sample.
    pub rtt: u64,
    /// Shortest round trip lately, ns; 0 before the first sample.
    pub min_rtt: u64,
    /// Bytes under way.
    pub in_flight: u64,
    /// Bytes that may be under way.
    pub congestion_window: u64,
    /// Delivery rate that is believed possible, bytes a second; 0 before the first sample.
    pub bandwidth: u64,
    /// The rate that packets are sent at, bytes a second; 0: as fast as the window allows.
    pub pacing_rate: u64,
    /// Bytes under way beyond which packets are believed to be lost; 0: none were found.
    pub loss_bound: u64,
    /// How long the oldest packet waits for an acknowledgement, ns.
    pub rto: u64,
    /// Packets that the peer takes now.
    pub window: u32,
    /// Bytes that wait to be sent for the first time.
    pub unsent: u64,
}
