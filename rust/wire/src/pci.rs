//! What stands in front of each packet of a unicast layer (docs/spec/unicast-data.md 2.1). Little-endian.
//!
//! ```text
//! destination | cube | TTL | ECN | endpoint id | payload
//! 0             4      5     6     7             15
//! ```

/// Bytes of it.
pub const PCI: usize = 15;
/// Bytes of an address, and of an endpoint id.
pub const ADDRESS: usize = 4;
/// See `ADDRESS`.
pub const ENDPOINT: usize = 8;
/// Where in it the TTL stands.
const TTL: usize = 5;
/// Where in it the mark stands.
pub const ECN: usize = 6;

/// The first endpoint id that is one of a flow; those before are of the components of a member.
pub const FLOWS: u64 = 64;

/// It, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pci {
    /// The address of the member that the packet is for.
    pub destination: u32,
    /// How the packet is to be treated.
    pub cube: u8,
    /// Lower flows that it may still cross.
    pub ttl: u8,
    /// How full the queues on its way were.
    pub ecn: u8,
    /// For which flow of that member, or for which component.
    pub eid: u64,
}

impl Pci {
    /// Of its bytes.
    pub fn read(bytes: &[u8; PCI]) -> Self {
        let [a, b, c, d, cube, ttl, ecn, eid @ ..] = *bytes;
        Pci { destination: u32::from_le_bytes([a, b, c, d]), cube, ttl, ecn, eid: u64::from_le_bytes(eid) }
    }

    /// Its bytes.
    pub fn write(self) -> [u8; PCI] {
        let ([a, b, c, d], [e, f, g, h, i, j, k, l]) = (self.destination.to_le_bytes(), self.eid.to_le_bytes());
        [a, b, c, d, self.cube, self.ttl, self.ecn, e, f, g, h, i, j, k, l]
    }
}

/// The same bytes with another TTL, and with the bits of a mark added: all that a member changes in a packet of others.
pub fn forwarded(mut bytes: [u8; PCI], ttl: u8, mark: u8) -> [u8; PCI] {
    bytes[TTL] = ttl;
    bytes[ECN] |= mark;
    bytes
}

/// A packet of a layer whose fields may have other lengths; see `Pci`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "those of `Pci`")]
pub struct Packet<'a> {
    pub destination: u64,
    pub cube: u8,
    pub ttl: u8,
    pub ecn: u8,
    pub eid: u64,
    pub payload: &'a [u8],
}

/// The lengths of the fields that a layer agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    address: usize,
    eid: usize,
}

impl Form {
    /// Bytes of addresses and of endpoint ids, 1 to 8 each; None for others.
    pub fn new(address: usize, eid: usize) -> Option<Self> {
        let fits = |length| (1..=8).contains(&length);
        (fits(address) && fits(eid)).then_some(Form { address, eid })
    }

    /// That which members use whose layer agreed on this one. None: an address of another length than four bytes cannot be
    /// one of any member; endpoint ids have eight bytes whatever was agreed on (`unicast-data.md` 2.2).
    pub fn used(self) -> Option<Self> {
        (self.address == ADDRESS).then_some(Form { address: ADDRESS, eid: ENDPOINT })
    }

    /// Bytes in front of each packet.
    pub fn length(self) -> usize {
        self.address.saturating_add(self.eid).saturating_add(3)
    }

    /// A packet, taken apart. None: it is shorter.
    pub fn read(self, packet: &[u8]) -> Option<Packet<'_>> {
        let (destination, rest) = packet.split_at_checked(self.address)?;
        let ([cube, ttl, ecn], rest) = rest.split_first_chunk()?;
        let (eid, payload) = rest.split_at_checked(self.eid)?;
        let (destination, cube, ttl, ecn, eid) = (number(destination), *cube, *ttl, *ecn, number(eid));
        Some(Packet { destination, cube, ttl, ecn, eid, payload })
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_header_is_these_bytes() {
        let bytes = *b"\x8b\x8c\xd4\x1f\0\x3c\0\x42\0\0\0\xef\x8c\x88\xf6";
        let pci = Pci { destination: 0x1fd4_8c8b, cube: 0, ttl: 60, ecn: 0, eid: 0xf688_8cef_0000_0042 };
        assert_eq!((Pci::read(&bytes), pci.write()), (pci, bytes));
    }

    #[test]
    fn transit_takes_one_from_the_ttl_and_changes_nothing_else() {
        let [sent, came] = [0x3c, 0x3b].map(|ttl| {
            let mut bytes = *b"\xce\xcc\x55\x2a\0\0\0\x42\0\0\0\x29\x09\xb1\xdc";
            bytes[TTL] = ttl;
            bytes
        });
        assert_eq!(forwarded(sent, 0x3b, 0), came);
        assert_eq!(Pci::read(&forwarded(forwarded(sent, 3, 16), 2, 15)).ecn, 31);
    }

    #[test]
    fn a_layer_with_other_lengths_is_read_or_refused() {
        let form = Form::new(2, 4).unwrap_or_else(|| unreachable!());
        assert_eq!(form.length(), 9);
        let packet = Packet { destination: 0x1234, cube: 1, ttl: 60, ecn: 5, eid: 0x0102_0304, payload: b"rest" };
        assert_eq!(form.read(b"\x34\x12\x01\x3c\x05\x04\x03\x02\x01rest"), Some(packet));
        assert_eq!((form.read(&[0; 8]), form.used()), (None, None));
        assert_eq!(Form::new(4, 2).and_then(Form::used), Form::new(ADDRESS, ENDPOINT));
        assert!([(0, 8), (9, 8), (4, 0), (4, 9)].iter().all(|(address, eid)| Form::new(*address, *eid).is_none()));
    }

    proptest! {
        #[test]
        fn a_header_comes_back_as_it_went(destination: u32, cube: u8, ttl: u8, ecn: u8, eid: u64, payload in prop::collection::vec(any::<u8>(), 0..9)) {
            let pci = Pci { destination, cube, ttl, ecn, eid };
            prop_assert_eq!(Pci::read(&pci.write()), pci);
            let packet = [&pci.write()[..], &payload].concat();
            let general = Form::new(ADDRESS, ENDPOINT).and_then(|form| form.read(&packet));
            let expected = Packet { destination: destination.into(), cube, ttl, ecn, eid, payload: &payload };
            prop_assert_eq!(general, Some(expected));
        }

        #[test]
        fn any_bytes_are_read(address in 0..12usize, eid in 0..12usize, packet in prop::collection::vec(any::<u8>(), 0..30)) {
            if let Some(form) = Form::new(address, eid) {
                let read = form.read(&packet).map(|read| read.payload.len());
                prop_assert_eq!(read, packet.len().checked_sub(form.length()));
            }
        }
    }
}
