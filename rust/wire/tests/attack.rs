//! Hostile bytes for all views of packets, a fixed number of them.

use proptest::prelude::*;

#[path = "common/attack.rs"]
#[allow(clippy::indexing_slicing)]
mod attack;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_bytes_break_a_view(kind: u8, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        attack::run(&[&[kind], &bytes[..]].concat());
    }

    /// Most of what comes is nearly right.
    #[test]
    fn bytes_that_are_mostly_zero_break_none(
        kind: u8, length in 0..150usize, set in prop::collection::vec((0..150usize, any::<u8>()), 0..12)
    ) {
        let mut bytes = vec![0; length + 1];
        bytes[0] = kind;
        set.into_iter().filter(|(at, _)| *at < length).for_each(|(at, byte)| bytes[at + 1] = byte);
        attack::run(&bytes);
    }
}
