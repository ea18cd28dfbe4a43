//! Arithmetic of sequence numbers, which wrap, and of window edges, of which only 24 bits travel.

/// The bits of a window edge that travel.
pub const WINDOW_MASK: u32 = 0x00FF_FFFF;

/// `a` comes before `b`, if they are less than half of the numbers apart.
pub fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// How far `to` is ahead of `from`; 0 when it is not.
pub fn ahead(from: u32, to: u32) -> u32 {
    if before(from, to) { to.wrapping_sub(from) } else { 0 }
}

/// The edge that a field of 24 bits stands for: of all numbers that end in it the one next to the edge that is known.
pub fn rebuild(edge: u32, field: u32) -> u32 {
    // The difference, moved to the upper bits, gets its sign there.
    let difference = (field.wrapping_sub(edge) << 8) as i32 >> 8;
    edge.wrapping_add(difference as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        assert!(before(1, 2) && !before(2, 1) && !before(7, 7));
        assert!(before(0xFFFF_FFFF, 0) && before(0xFFFF_FF00, 0x100) && !before(0x100, 0xFFFF_FF00));
        assert_eq!(ahead(0xFFFF_FFF0, 0x10), 0x20);
        assert_eq!(ahead(0x10, 0xFFFF_FFF0), 0);
    }

    #[test]
    fn an_edge_is_rebuilt_to_the_nearest() {
        assert_eq!(rebuild(0x96c7_1065, 0xc7_1125), 0x96c7_1125);
        assert_eq!(rebuild(0x00ff_ff40, 0x00_0040), 0x0100_0040);
        assert_eq!(rebuild(0xffff_ff40, 0x00_0040), 0x0000_0040);
    }

    /// The prototype takes this one for 0x01ffff40, which would open the window by 16 million packets.
    #[test]
    fn an_older_edge_stays_older_across_a_carry() {
        assert_eq!(rebuild(0x0100_0040, 0xff_ff40), 0x00ff_ff40);
        assert!(before(rebuild(0x0100_0040, 0xff_ff40), 0x0100_0040));
    }
}
