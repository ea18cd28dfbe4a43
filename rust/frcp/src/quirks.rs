//! What sets the peers apart, as values: the rest of the crate asks how a peer behaves, not what it is.

use crate::limits::{MOST_RTO, MOST_RTO_PROTOTYPE};

const MS: u64 = 1_000_000;
/// Packets that the prototype takes beyond the last one read.
pub const PROTOTYPE_WINDOW: u32 = 256;
/// Windows of our own nodes are smaller than this.
pub const LARGEST_WINDOW: u32 = 1 << 16;

/// How a peer behaves, and what it needs. Times are ns.
#[derive(Debug)]
pub struct Quirks {
    /// Packets that it takes before it has told its window.
    pub initial_window: u32,
    /// A window that ends so many packets after the last one sent is of another run, or nonsense.
    pub farthest_edge: u32,
    /// Packets that it gets before it has acknowledged one.
    pub first_flight: usize,
    /// After so many data packets without an acknowledgement it gets a bare one, which it answers at once; 0: never.
    pub poke: u32,
    /// It acknowledges what its program reads, late, and never out of order: few packets are repaired together.
    pub in_order: bool,
    /// It answers a packet that it has already got, so that the loss of the last one sent is found out before RTO.
    pub probed: bool,
    /// Bounds of RTO.
    pub least_rto: u64,
    pub most_rto: u64,
    /// With room for so few packets it is asked for more.
    pub ask_room: u32,
    /// How long it may tell of room unasked before the first question; bounds of the time between two.
    pub ask_after: u64,
    pub least_pause: u64,
    pub most_pause: u64,
    /// Each packet that is lost narrows its window for good.
    pub shrinks: bool,
    /// After a pause it takes no more than its first window, see `IDLE`.
    pub rests: bool,
    /// It begins anew, with other numbers, when it has not sent data for long.
    pub forgets: bool,
    /// With so few packets left it may have stopped, and does not ask: it is told of room again and again.
    pub narrow: u32,
}

/// A node of ours: a first flight need not wait for its first word.
pub const OWN: Quirks = Quirks {
    initial_window: 64,
    farthest_edge: LARGEST_WINDOW,
    first_flight: usize::MAX,
    poke: 0,
    in_order: false,
    probed: true,
    least_rto: 10 * MS,
    most_rto: MOST_RTO,
    ask_room: 0,
    ask_after: 20 * MS,
    least_pause: 20 * MS,
    most_pause: 1_000 * MS,
    shrinks: false,
    rests: true,
    forgets: false,
    narrow: 0,
};

/// The C prototype, in mode R. If it misses the first packet it drops all that follow, and tells of each only once it is
/// repaired: so the first flight is short.
pub const PROTOTYPE: Quirks = Quirks {
    initial_window: 64,
    farthest_edge: PROTOTYPE_WINDOW,
    first_flight: 16,
    poke: 64,
    in_order: true,
    probed: false,
    least_rto: 20 * MS,
    most_rto: MOST_RTO_PROTOTYPE,
    ask_room: 0,
    ask_after: 20 * MS,
    least_pause: 100 * MS,
    most_pause: 10_000 * MS,
    shrinks: false,
    rests: false,
    forgets: true,
    narrow: 8,
};

/// The same in mode U: it acknowledges nothing, and tells of its window only when asked.
pub const PROTOTYPE_UNRELIABLE: Quirks = Quirks {
    first_flight: usize::MAX,
    poke: 0,
    ask_room: PROTOTYPE_WINDOW / 8,
    ask_after: 0,
    shrinks: true,
    ..PROTOTYPE
};
