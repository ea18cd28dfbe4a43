//! The most that what is measured or learned may come to. Sums and products of these fit into 64 bits, so arithmetic with
//! them cannot overflow whatever a path or a peer does.

/// A round trip, ns: no packet is waited for longer than R.
pub const MOST_RTT: u64 = 120_000_000_000;
/// The time between two tries of a packet, ns: several have to fit into what is left of R after most of it was spent in
/// silence.
pub const MOST_RTO: u64 = 4_000_000_000;
/// The same towards the prototype.
pub const MOST_RTO_PROTOTYPE: u64 = 16_000_000_000;
/// A delivery rate, bytes a second: 8.8 Tbit/s, more than one thread moves.
pub const MOST_RATE: u64 = 1 << 40;
/// Bytes under way: more than a flow keeps for sending again, with what packets cost beside their bytes.
pub const MOST_WINDOW: u64 = 64 << 20;
