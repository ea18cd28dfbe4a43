//! The socket of a port on an Ethernet segment: a packet socket, bound to a device.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;

use ouroboros_stack::ether::{Framing, Header, Mac, Station};
use ouroboros_stack::{EID, Outgoing};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

/// Frames of one call of the kernel.
pub(crate) const FRAMES: usize = 64;
/// Bytes for a frame that arrives. Of a power of two, the first lines of all places would be in each other's way in a cache.
pub(crate) const PLACE: usize = 16_320;

/// How a port frames packets, and the address of its device.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// The frames.
    pub framing: Framing,
    /// Of the device.
    pub mac: Mac,
}

impl Segment {
    /// Take a frame of so many bytes: the sender, and where the packet is with its endpoint id. None: it is not for us, or was
    /// cut.
    pub(crate) fn open(self, place: &mut [u8], length: usize) -> Option<(SocketAddr, Range<usize>)> {
        let (from, at) = self.framing.open(&self.mac, place.get_mut(..length)?)?;
        Some((from.into(), at))
    }

    /// Send frames. Returns how many left.
    pub(crate) fn send(self, socket: &OwnedFd, outgoing: &Outgoing<'_>) -> io::Result<usize> {
        let Some(to) = Station::of(outgoing.to) else { return Err(io::ErrorKind::InvalidInput.into()) };
        let segment = outgoing.segment.unwrap_or(outgoing.bytes.len()).max(1);
        let split = |packet| split(packet).ok_or(io::Error::from(io::ErrorKind::InvalidInput));
        let mut frames: Vec<(Header, &[u8])> = Vec::with_capacity(FRAMES);
        for packet in outgoing.bytes.chunks(segment) {
            let (eid, packet) = split(packet)?;
            let header = self.framing.header(&self.mac, to, eid, packet.len());
            frames.push((header.ok_or(io::ErrorKind::InvalidInput)?, packet));
        }
        let slices: Vec<_> =
            frames.iter().map(|(header, packet)| [IoSlice::new(header.bytes()), IoSlice::new(packet)]).collect();
        let mut nothing: Vec<_> = slices.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: Vec<_> =
            slices.iter().zip(&mut nothing).map(|(slices, nothing)| MMsgHdr::new(slices, nothing)).collect();
        Ok(sendmmsg(socket, &mut messages, SendFlags::empty())?)
    }
}

/// The endpoint id in front of a packet, and the packet.
fn split(packet: &[u8]) -> Option<(u32, &[u8])> {
    let (eid, packet) = packet.split_first_chunk::<EID>()?;
    Some((u32::from_be_bytes(*eid), packet))
}
