//! Frames of layers on an Ethernet segment (docs/spec/shims.md 4 and 5), and the one form that the engine has for the packets in
//! them: as over UDP, an endpoint id of four bytes in front.
//!
//! ```text
//! DIX   to | from | ethertype | EID | length | packet       LLC   to | from | length | DSAP | SSAP | 0x03 | packet
//!       0    6      12          14    16       18                 0    6      12       14     15     16     17
//! ```
//!
//! Behind the packet there may be padding. LLC has identifiers (SAPs) of both ends in each frame, with their bits reversed; the
//! endpoint id of a packet that leaves is `own SAP << 8 | SAP of the peer`, and of one that came our own SAP. The peer's is in
//! its [`Station`].

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use crate::management::EID;

/// Bytes of addresses and of the ethertype, or the length.
const MACS: usize = 14;
/// The most bytes in front of a packet.
pub const LONGEST_HEADER: usize = 18;
/// The bytes in front of the packet that become its endpoint id end here.
const DIX: usize = 18;
const LLC: usize = 17;
/// In an LLC frame, a number above is an ethertype.
const LONGEST_LLC: usize = 0x5FF;
/// Unnumbered information.
const CONTROL: u8 = 3;
/// The SAP for management.
const MANAGEMENT: u8 = 1;
/// Bytes behind the length in an LLC frame, before the packet.
const SAPS: usize = 3;

/// The address of a network device.
pub type Mac = [u8; 6];

/// All stations of a segment.
pub const EVERYBODY: Mac = [0xFF; 6];

/// A peer on a segment. `sap`: of its end, in LLC frames; 0 in others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Station {
    /// Of its device.
    pub mac: Mac,
    /// Of its end.
    pub sap: u8,
}

/// A station in the form in which the engine knows peers: an address of the discard prefix (RFC 6666), which no host has.
impl From<Station> for SocketAddr {
    fn from(station: Station) -> Self {
        let [a, b, c, d, e, f] = station.mac;
        let ip = [0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f];
        SocketAddr::new(Ipv6Addr::from(ip).into(), station.sap.into())
    }
}

impl Station {
    /// The station at an address of the engine; None: that is an address of IP.
    pub fn of(address: SocketAddr) -> Option<Self> {
        let IpAddr::V6(ip) = address.ip() else { return None };
        let [0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, mac @ ..] = ip.octets() else { return None };
        Some(Station { mac, sap: address.port().try_into().ok()? })
    }
}

/// How packets are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// With an ethertype.
    Dix(u16),
    /// With IEEE 802.2 headers.
    Llc,
}

/// What stands in front of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; LONGEST_HEADER],
    length: usize,
}

impl Header {
    /// Itself.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Framing {
    /// The header for a packet of so many bytes. None: a frame cannot say its length.
    pub fn header(self, from: &Mac, to: Station, eid: u32, length: usize) -> Option<Header> {
        let [_, _, high, low] = eid.to_be_bytes();
        let (kind, rest) = match self {
            Framing::Dix(ethertype) => {
                let [a, b] = u16::try_from(length).ok()?.to_be_bytes();
                (ethertype, [high, low, a, b])
            }
            Framing::Llc => {
                let length = length.checked_add(SAPS).filter(|length| *length <= LONGEST_LLC)?;
                let (ours, theirs) = if eid == 0 { (MANAGEMENT, MANAGEMENT) } else { (high, low) };
                (u16::try_from(length).ok()?, [theirs.reverse_bits(), ours.reverse_bits(), CONTROL, 0])
            }
        };
        let mut bytes = [0; LONGEST_HEADER];
        let parts = to.mac.into_iter().chain(*from).chain(kind.to_be_bytes()).chain(rest);
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        Some(Header { bytes, length: if self == Framing::Llc { LLC } else { DIX } })
    }

    /// Take a frame that came to a device: its sender, and where in it the packet is now, with its endpoint id in front, as it
    /// is written there. None: it is none of the layer, not for this station, or wrong.
    pub fn open(self, own: &Mac, frame: &mut [u8]) -> Option<(Station, Range<usize>)> {
        let (macs, rest) = frame.split_first_chunk::<MACS>()?;
        let (to, from) = (macs.first_chunk::<6>()?, macs.get(6..)?.first_chunk::<6>()?);
        let kind = u16::from_be_bytes(*macs.last_chunk()?);
        // The lowest bit of a first byte is that of groups, which send nothing.
        if (to != own && *to != EVERYBODY) || from.first()? & 1 != 0 {
            return None;
        }
        let (sap, eid, start, length) = match self {
            Framing::Dix(ethertype) if kind == ethertype => {
                let [a, b, c, d] = *rest.first_chunk()?;
                (0, u16::from_be_bytes([a, b]), DIX, usize::from(u16::from_be_bytes([c, d])))
            }
            Framing::Llc if usize::from(kind) <= LONGEST_LLC => {
                let [dsap, ssap, CONTROL] = *rest.first_chunk()? else { return None };
                let eid = match (dsap.reverse_bits(), ssap.reverse_bits()) {
                    (MANAGEMENT, MANAGEMENT) => 0,
                    (0 | MANAGEMENT, _) | (_, 0 | MANAGEMENT) => return None,
                    (ours, _) => u16::from(ours),
                };
                (ssap.reverse_bits(), eid, LLC, usize::from(kind).checked_sub(SAPS)?)
            }
            _ => return None,
        };
        let station = Station { mac: *from, sap };
        let end = start.checked_add(length).filter(|end| *end <= frame.len())?;
        let begin = start.checked_sub(EID)?;
        frame.get_mut(begin..start)?.copy_from_slice(&u32::from(eid).to_be_bytes());
        Some((station, begin..end))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const US: Mac = [2, 0, 0, 0, 0, 1];
    const THEM: Mac = [2, 0, 0, 0, 0, 2];

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn a_keepalive_is_the_one_of_the_prototype() {
        let header = Framing::Dix(0xA000).header(&US, Station { mac: THEM, sap: 0 }, 64, 0).unwrap();
        assert_eq!(header.bytes(), hex("020000000002 020000000001 a000 0040 0000"));
    }

    #[test]
    fn saps_have_their_bits_reversed() {
        let to = Station { mac: THEM, sap: 3 };
        let header = Framing::Llc.header(&US, to, 9 << 8 | 3, 5).unwrap();
        assert_eq!(header.bytes(), hex("020000000002 020000000001 0008 c0 90 03"));
        let management = Framing::Llc.header(&US, to, 0, 5).unwrap();
        assert_eq!(management.bytes(), hex("020000000002 020000000001 0008 80 80 03"));
    }

    #[test]
    fn padding_is_stripped_and_a_length_beyond_the_frame_is_refused() {
        let mut frame = hex("020000000001 020000000002 a000 1234 0002 aabb 0000000000");
        let (from, at) = Framing::Dix(0xA000).open(&US, &mut frame).unwrap();
        assert_eq!((from, &frame[at]), (Station { mac: THEM, sap: 0 }, &hex("00001234 aabb")[..]));
        let mut frame = hex("020000000001 020000000002 a000 1234 0003 aabb");
        assert_eq!(Framing::Dix(0xA000).open(&US, &mut frame), None);
    }

    #[test]
    fn only_frames_of_the_layer_for_this_station_are_taken() {
        let good = hex("020000000001 020000000002 a000 1234 0000");
        let opened = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = good.clone();
            change(&mut frame);
            Framing::Dix(0xA000).open(&US, &mut frame).is_some()
        };
        assert!(opened(&|_| {}));
        assert!(opened(&|frame| frame[..6].fill(0xFF)));
        assert!(!opened(&|frame| frame[5] = 9), "for another station");
        assert!(!opened(&|frame| frame[0] = 3), "for a group");
        assert!(!opened(&|frame| frame[6] = 3), "from a group");
        assert!(!opened(&|frame| frame[13] = 1), "of another ethertype");
    }

    #[test]
    fn management_has_its_own_saps() {
        let opened = |dsap: u8, ssap: u8, control: u8| {
            let mut frame = [&THEM[..], &US, &[0, 3, dsap, ssap, control]].concat();
            Framing::Llc.open(&THEM, &mut frame).map(|(from, at)| (from.sap, frame[at].to_vec()))
        };
        assert_eq!(opened(0x80, 0x80, 3), Some((1, vec![0, 0, 0, 0])));
        assert_eq!(opened(0x40, 0xC0, 3), Some((3, vec![0, 0, 0, 2])));
        for wrong in [(0x80, 0x40, 3), (0x40, 0x80, 3), (0, 0x40, 3), (0x40, 0, 3), (0x40, 0x40, 0xF3)] {
            assert_eq!(opened(wrong.0, wrong.1, wrong.2), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_framed_is_opened(
            llc: bool, eid in 0u16.., sap in 2u8..128, packet in prop::collection::vec(any::<u8>(), 0..1490), padding in 0usize..60
        ) {
            let framing = if llc { Framing::Llc } else { Framing::Dix(0xA000) };
            let sent = if llc { u32::from(sap) << 8 | u32::from(eid % 126 + 2) } else { eid.into() };
            let header = framing.header(&US, Station { mac: THEM, sap: 0 }, sent, packet.len()).unwrap();
            let mut frame = [header.bytes(), &packet, &vec![0; padding]].concat();
            let (from, at) = framing.open(&THEM, &mut frame).unwrap();
            prop_assert_eq!(from, Station { mac: US, sap: if llc { sap } else { 0 } });
            let got = if llc { sent & 0xFF } else { sent };
            prop_assert_eq!(&frame[at], &[&got.to_be_bytes()[..], &packet].concat()[..]);
        }

        #[test]
        fn no_frame_does_harm(llc: bool, frame in prop::collection::vec(any::<u8>(), 0..80), for_us: bool) {
            let framing = if llc { Framing::Llc } else { Framing::Dix(0xA000) };
            let mut frame = frame;
            if for_us && frame.len() >= MACS {
                frame[..6].copy_from_slice(&US);
                frame[6] &= 0xFE;
                frame[12..14].copy_from_slice(if llc { &[0, 9] } else { &[0xA0, 0] });
            }
            let length = frame.len();
            if let Some((_, at)) = framing.open(&US, &mut frame) {
                prop_assert!(at.start + EID <= at.end && at.end <= length);
            }
        }

        #[test]
        fn a_station_is_an_address_and_no_host(mac: [u8; 6], sap: u8, ip: [u8; 16], port: u16) {
            let station = Station { mac, sap };
            prop_assert_eq!(Station::of(station.into()), Some(station));
            let host = SocketAddr::new(Ipv6Addr::from(ip).into(), port);
            prop_assert_eq!(Station::of(host), None);
        }
    }
}
