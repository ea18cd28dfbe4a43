//! The messages of the flow allocator of a unicast layer that the engine reads and writes (docs/spec/unicast-data.md 4.1, 5.3;
//! what nodes of ours add: docs/protocol/unicast.md). Big-endian.
//!
//! ```text
//! s_addr | r_eid | s_eid | bandwidth | response | delay | ... | ece | code | ...
//! 0        8       16      24          32         36            56    58     59
//! ```

use crate::management::Report;

/// Bytes of each.
pub const UPDATE: usize = 61;

const TO: usize = 8;
const FROM: usize = 16;
const COUNTED: usize = 24;
const WAIT: usize = 32;
const ROOM: usize = 36;
const ECE: usize = 56;
const CODE: usize = 58;
const FLOW_UPDATE: u8 = 2;
/// Between nodes of ours: what the receiver of a raw flow got.
const REPORT: u8 = 0x73;

/// One of those messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// To the sender of a flow, by its endpoint id: how congested the way to the receiver is.
    Congested(u64, u16),
    /// To the sender of a raw flow.
    Report(Report),
}

impl Word {
    /// Of a message of the flow allocator; None: it is for the control side.
    pub fn read(message: &[u8]) -> Option<Self> {
        let bytes: &[u8; UPDATE] = message.try_into().ok()?;
        match bytes[CODE] {
            FLOW_UPDATE => Some(Word::Congested(number(bytes, TO), u16::from_be_bytes([bytes[ECE], bytes[ECE + 1]]))),
            REPORT => Some(Word::Report(Report {
                source: number(bytes, FROM),
                destination: number(bytes, TO),
                counted: number(bytes, COUNTED),
                room: (number(bytes, ROOM) >> 32) as u32,
                wait: number(bytes, WAIT) >> 32 != 0,
            })),
            _ => None,
        }
    }

    /// The message.
    pub fn write(self) -> [u8; UPDATE] {
        let mut bytes = [0; UPDATE];
        let mut put = |at: usize, field: &[u8]| {
            bytes.iter_mut().skip(at).zip(field).for_each(|(byte, new)| *byte = *new);
        };
        match self {
            Word::Congested(eid, ece) => {
                put(TO, &eid.to_be_bytes());
                put(ECE, &ece.to_be_bytes());
                put(CODE, &[FLOW_UPDATE]);
            }
            Word::Report(Report { source, destination, counted, room, wait }) => {
                put(TO, &destination.to_be_bytes());
                put(FROM, &source.to_be_bytes());
                put(COUNTED, &counted.to_be_bytes());
                put(WAIT, &u32::from(wait).to_be_bytes());
                put(ROOM, &room.to_be_bytes());
                put(CODE, &[REPORT]);
            }
        }
        bytes
    }
}

fn number(bytes: &[u8; UPDATE], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    field.copied().map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_word_of_congestion_is_these_bytes() {
        let mut expected = [0; UPDATE];
        expected[8..16].copy_from_slice(b"\x9b\x61\x92\xf8\0\0\0\x42");
        expected[57..59].copy_from_slice(b"\x01\x02");
        assert_eq!(Word::Congested(0x9b61_92f8_0000_0042, 1).write(), expected);
    }

    proptest! {
        #[test]
        fn a_word_comes_back_as_it_went(source: u64, destination: u64, ece: u16, counted: u64, room: u32, wait: bool) {
            let report = Report { source, destination, counted, room, wait };
            for word in [Word::Congested(destination, ece), Word::Report(report)] {
                prop_assert_eq!(Word::read(&word.write()), Some(word));
            }
        }

        #[test]
        fn any_bytes_are_looked_at(message in prop::collection::vec(any::<u8>(), 58..64), code in prop_oneof![0..4u8, Just(0x73)]) {
            let mut message = message;
            if let Some(byte) = message.get_mut(CODE) {
                *byte = code;
            }
            prop_assert_eq!(Word::read(&message).is_some(), message.len() == UPDATE && [2, 0x73].contains(&code));
        }
    }
}
