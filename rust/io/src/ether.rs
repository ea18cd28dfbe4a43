//! The socket of a port on an Ethernet segment: a packet socket, bound to a device.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;

use ouroboros_stack::ether::{Framing, Header, Mac, Station};
use ouroboros_stack::{EID, Outgoing};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmmsg};

/// Frames of one call of the kernel.
pub(crate) const FRAMES: usize = 64;

/// How a port frames packets, and the address of its device.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// The frames.
    pub framing: Framing,
    /// Of the device.
    pub mac: Mac,
}

impl Segment {
    /// Receive a frame. None: there is none; else the packet with its endpoint id, and its sender, unless it is not for us.
    pub(crate) fn receive(self, socket: &OwnedFd, into: &mut [u8]) -> Option<Option<(SocketAddr, Range<usize>)>> {
        let length = loop {
            match recv(socket, &mut *into, RecvFlags::TRUNC) {
                Ok((_, length)) => break length,
                Err(Errno::WOULDBLOCK) => return None,
                // About the device, or an earlier frame.
                Err(_) => {}
            }
        };
        // One that was cut has a length beyond.
        let frame = into.get_mut(..length).unwrap_or_default();
        Some(self.framing.open(&self.mac, frame).map(|(from, at)| (SocketAddr::from(from), at)))
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
