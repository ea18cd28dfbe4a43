//! What members of ours in a broadcast layer put in front of each packet to one another (docs/protocol/broadcast.md).
//! Big-endian. Packets to and from members of the C prototype have nothing in front.
//!
//! ```text
//! kind | hops | foreign | origin | number
//! 0      1      2         4        12       20
//! ```

/// Bytes of the header.
pub const RELAY: usize = 20;

/// The first byte of a message for the control side of a neighbour. The rest is the message.
pub const WORD: u8 = 4;

/// What follows the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A packet of a program at the origin.
    Packet = 1,
    /// A packet that a member of the prototype gave the origin.
    Foreign = 2,
    /// Nothing: the origin says how many such members are its neighbours.
    Border = 3,
}

/// See the module. `hops`: members that passed it on. `foreign`: neighbours of the origin that are of the prototype. `origin`: a
/// random number of the member where it entered the layer, and `number` that of the packet there, from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Relay {
    pub kind: Kind,
    pub hops: u8,
    pub foreign: u16,
    pub origin: u64,
    pub number: u64,
}

impl Relay {
    /// The header, and what is behind it; None: it is none.
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_first_chunk::<RELAY>()?;
        let kind = match head[0] {
            1 => Kind::Packet,
            2 => Kind::Foreign,
            3 => Kind::Border,
            _ => return None,
        };
        let foreign = u16::from_be_bytes([head[2], head[3]]);
        let [origin, number] =
            [4, 12].map(|at| head.iter().skip(at).take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)));
        let relay = Relay { kind, hops: head[1], foreign, origin, number };
        (relay.number > 0).then_some((relay, rest))
    }

    /// The bytes of the header.
    pub fn write(self) -> [u8; RELAY] {
        let mut head = [0; RELAY];
        let behind = [&self.foreign.to_be_bytes()[..], &self.origin.to_be_bytes(), &self.number.to_be_bytes()];
        let fields = [self.kind as u8, self.hops].into_iter().chain(behind.into_iter().flatten().copied());
        head.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        head
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let relay = Relay { kind: Kind::Foreign, hops: 3, foreign: 0x0102, origin: 0x1122_3344_5566_7788, number: 9 };
        let bytes = [2, 3, 1, 2, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(relay.write(), bytes);
        assert_eq!(Relay::read(&bytes), Some((relay, &[][..])));
        assert_eq!(Relay::read(&bytes[..19]), None);
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(bytes in prop::collection::vec(any::<u8>(), 0..40), kind in 0..6u8) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Some((relay, rest)) = Relay::read(&bytes) {
                prop_assert_eq!([&relay.write()[..], rest].concat(), bytes);
            }
        }
    }
}
