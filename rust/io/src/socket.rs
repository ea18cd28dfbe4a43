//! The socket of a port: abilities of its kernel, and calls.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use ouroboros_stack::{MemberId, Outgoing, Run, Stack};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, socket_recv_buffer_size};

use crate::program::Program;

/// The buffer of the kernel that we ask for.
const KERNEL_BUFFER: usize = 4 << 20;
/// Buffers of one call of the kernel, each for a run of datagrams.
const BUFFERS: usize = 16;
const BUFFER: usize = 65_536;

/// The datagrams of one call.
#[derive(Debug)]
pub(crate) struct Arrivals {
    bytes: Vec<u8>,
    metas: [RecvMeta; BUFFERS],
    count: usize,
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        Arrivals { bytes: vec![0; BUFFERS * BUFFER], metas: [RecvMeta::default(); BUFFERS], count: 0 }
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = (SocketAddr, Run<'_>)> {
        let metas = self.metas.iter().take(self.count);
        self.bytes
            .chunks_exact(BUFFER)
            .zip(metas)
            .map(|(bytes, meta)| (meta.addr, Run::new(&bytes[..meta.len.min(BUFFER)], meta.stride)))
    }
}

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) descriptor: OwnedFd,
    state: UdpSocketState,
    /// Bytes of the kernel's buffer for arrivals.
    pub(crate) room: u32,
    /// There may be something to receive.
    pub(crate) readable: bool,
}

impl Socket {
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let state = UdpSocketState::new((&descriptor).into())?;
        // Only root may have more than the system allows everybody; less than wanted is no error.
        if set_socket_recv_buffer_size_force(&descriptor, KERNEL_BUFFER).is_err() {
            set_socket_recv_buffer_size(&descriptor, KERNEL_BUFFER)?;
        }
        let room = u32::try_from(socket_recv_buffer_size(&descriptor)?).unwrap_or(u32::MAX);
        Ok(Socket { descriptor, state, room, readable: true })
    }

    /// Datagrams of one size that the kernel takes at once.
    pub(crate) fn segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Receive the datagrams of one call of the kernel. False: there are none.
    pub(crate) fn receive(&mut self, into: &mut Arrivals) -> bool {
        let mut chunks = into.bytes.chunks_exact_mut(BUFFER);
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        match self.state.recv((&self.descriptor).into(), &mut slices, &mut into.metas) {
            Ok(count) => {
                into.count = count;
                // With room left there was no more, and what comes after that is a new event.
                self.readable = count == BUFFERS;
                true
            }
            Err(error) => {
                // Another error is about an earlier packet.
                self.readable = error.kind() != io::ErrorKind::WouldBlock;
                false
            }
        }
    }

    /// Send the staged datagrams, until there are none or the kernel takes no more.
    pub(crate) fn drain(&self, port: MemberId, stack: &mut Stack<Program>) {
        while let Some(Outgoing { to: destination, bytes: contents, segment: segment_size }) = stack.transmit(port) {
            let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
            match self.state.try_send((&self.descriptor).into(), &transmit) {
                Ok(()) => stack.sent(port, true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => stack.blocked(port),
                // A path that cannot segment; the state has noted it for the next time.
                Err(_) if segment_size.is_some() => stack.part(port, self.segments()),
                // No route, a datagram too long for it, a neighbour that refuses: lost, as anywhere on the way.
                Err(_) => stack.sent(port, false),
            }
        }
    }
}
