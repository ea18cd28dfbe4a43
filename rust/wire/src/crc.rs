//! The CRC32 behind each packet of a flow whose QoS tolerates no bit errors (docs/spec/flows.md 3.2).

/// Bytes that it adds.
pub const LENGTH: usize = 4;

/// The checksum of a packet, as it stands behind it.
pub fn of(packet: &[u8]) -> [u8; LENGTH] {
    crc32fast::hash(packet).to_be_bytes()
}

/// The packet without its checksum; None: damaged.
pub fn check(packet: &[u8]) -> Option<&[u8]> {
    let (body, crc) = packet.split_last_chunk()?;
    (of(body) == *crc).then_some(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_damaged_does_not_pass(packet in prop::collection::vec(any::<u8>(), 0..100), at: prop::sample::Index, damage in 1u8..) {
            let mut sent = [&packet[..], &of(&packet)].concat();
            prop_assert_eq!(check(&sent), Some(&packet[..]));
            *at.get_mut(&mut sent) ^= damage;
            prop_assert_eq!(check(&sent), None);
        }

        #[test]
        fn any_bytes_are_checked(packet in prop::collection::vec(any::<u8>(), 0..8)) {
            prop_assert!(check(&packet).is_none_or(|body| packet.len().checked_sub(LENGTH) == Some(body.len())));
        }
    }
}
