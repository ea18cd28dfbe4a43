//! The twelve bytes in front of every packet.

use crate::seq::WINDOW_MASK;

/// Length of the header, bytes.
pub const HEADER: usize = 12;

/// The flags of a packet, its first byte.
pub mod flag {
    /// There is a payload, and the sequence number is its own.
    pub const DATA: u8 = 0x01;
    /// Data run flag: the sender had nothing unacknowledged; a receiver that knows nothing begins here.
    pub const DRF: u8 = 0x02;
    /// The acknowledgement is valid.
    pub const ACK: u8 = 0x04;
    /// The window is valid.
    pub const FC: u8 = 0x08;
    /// Rendez-vous: asks for a window.
    pub const RDVS: u8 = 0x10;
    /// First fragment of a message.
    pub const FIRST: u8 = 0x20;
    /// More fragments of the message follow.
    pub const MORE: u8 = 0x40;
}

/// A header, decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// See [`flag`].
    pub flags: u8,
    /// The low 24 bits of the first sequence number that the sender of the packet does not take any more.
    pub window: u32,
    /// The number of this packet; in a bare packet 0, or with DRF the number of the next or oldest unacknowledged data.
    pub seqno: u32,
    /// The next sequence number that the sender of the packet expects.
    pub ackno: u32,
}

impl Header {
    /// The header and the payload of a packet; None: it is too short to have one.
    pub fn decode(packet: &[u8]) -> Option<(Header, &[u8])> {
        let (header, payload) = packet.split_first_chunk::<HEADER>()?;
        let [flags, w2, w1, w0, s3, s2, s1, s0, a3, a2, a1, a0] = *header;
        let header = Header {
            flags,
            window: u32::from_be_bytes([0, w2, w1, w0]),
            seqno: u32::from_be_bytes([s3, s2, s1, s0]),
            ackno: u32::from_be_bytes([a3, a2, a1, a0]),
        };
        Some((header, payload))
    }

    /// The bytes. Of the window only what fits into 24 bits.
    pub fn encode(&self) -> [u8; HEADER] {
        let [_, w2, w1, w0] = (self.window & WINDOW_MASK).to_be_bytes();
        let [s3, s2, s1, s0] = self.seqno.to_be_bytes();
        let [a3, a2, a1, a0] = self.ackno.to_be_bytes();
        [self.flags, w2, w1, w0, s3, s2, s1, s0, a3, a2, a1, a0]
    }

    /// All of these flags are set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}
