//! Datagrams that go out together: a run of equal sizes to one destination is one call of the kernel (GSO).

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use quinn_udp::{Transmit, UdpSocketState};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, socket_recv_buffer_size};

/// Bytes of one call: the most that UDP carries, less its headers.
const LIMIT: usize = 65_000;
/// The buffer of the kernel that we ask for.
const BUFFER: usize = 4 << 20;

/// The outgoing side of a socket. Append a datagram to `bytes`, then `commit` it.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Where the datagram that is being written starts.
    start: usize,
    to: Option<SocketAddr>,
    segment: usize,
    count: usize,
    /// The last datagram was shorter, so no other can follow in the same call.
    full: bool,
    /// The socket takes nothing now.
    pub(super) blocked: bool,
    /// Calls of the kernel, and those that failed for another reason than a full socket.
    pub(super) calls: u64,
    pub(super) errors: u64,
}

impl Batch {
    pub(super) fn new() -> Self {
        Batch {
            bytes: Vec::with_capacity(2 * LIMIT),
            start: 0,
            to: None,
            segment: 0,
            count: 0,
            full: false,
            blocked: false,
            calls: 0,
            errors: 0,
        }
    }

    /// The datagram that is being written.
    pub(super) fn written(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The same, to be changed where it stands.
    pub(super) fn written_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// The datagram written behind `start` is complete. Sends the run before it when it cannot join that. `mtu`: no datagram
    /// that is longer goes out with others, because the kernel does not cut a run whose parts have to be cut again.
    pub(super) fn commit(&mut self, socket: &Socket, to: SocketAddr, mtu: usize) {
        let length = self.bytes.len() - self.start;
        if self.count > 0 && !self.joins(socket, to, length) {
            self.send_run(socket);
            if self.blocked {
                // Callers look before they write; who does not loses the packet, as anywhere on the way.
                self.errors += 1;
                return self.discard();
            }
        }
        if self.count == 0 {
            (self.to, self.segment, self.full) = (Some(to), length, length > mtu);
        }
        self.full |= length < self.segment;
        self.count += 1;
        self.start = self.bytes.len();
    }

    /// The datagram written behind `start` is not to be sent.
    pub(super) fn discard(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// The datagram written behind `start`, which is then not sent from here.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let datagram = self.bytes[self.start..].to_vec();
        self.discard();
        datagram
    }

    /// Send what is committed. What a full socket does not take stays, and `blocked` is set.
    pub(super) fn flush(&mut self, socket: &Socket) {
        if self.count > 0 {
            self.send_run(socket);
        }
    }

    fn joins(&self, socket: &Socket, to: SocketAddr, length: usize) -> bool {
        !self.full
            && self.to == Some(to)
            && length <= self.segment
            && self.count < socket.state.max_gso_segments()
            && self.start + length <= LIMIT
    }

    fn send_run(&mut self, socket: &Socket) {
        let Some(destination) = self.to else { return };
        self.calls += 1;
        let contents = &self.bytes[..self.start];
        let segment_size = (self.count > 1).then_some(self.segment);
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        match socket.send(&transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                return;
            }
            // No route, a datagram too long for it, a neighbour that refuses: lost, as anywhere on the way.
            Err(_) => self.errors += 1,
            Ok(()) => {}
        }
        self.bytes.drain(..self.start);
        (self.start, self.count, self.full) = (0, 0, false);
    }
}

/// A UDP socket with what its kernel can do.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) descriptor: OwnedFd,
    pub(super) state: UdpSocketState,
    /// Bytes of the kernel's buffer for what arrives.
    pub(super) room: u32,
}

impl Socket {
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let state = UdpSocketState::new((&descriptor).into())?;
        // Only root may have more than the system allows everybody; less than wanted is no error.
        if set_socket_recv_buffer_size_force(&descriptor, BUFFER).is_err() {
            set_socket_recv_buffer_size(&descriptor, BUFFER)?;
        }
        let room = u32::try_from(socket_recv_buffer_size(&descriptor)?).unwrap_or(u32::MAX);
        Ok(Socket { descriptor, state, room })
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.state.try_send((&self.descriptor).into(), transmit) {
            // A path that cannot segment: one by one. The state has noted it for the next time.
            Err(error) if transmit.segment_size.is_some() && error.kind() != io::ErrorKind::WouldBlock => {
                let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
                for contents in transmit.contents.chunks(segment) {
                    let one = Transmit { contents, segment_size: None, ..*transmit };
                    // Part of the run may be out: a socket that is full now loses the rest.
                    self.state.try_send((&self.descriptor).into(), &one)?;
                }
                Ok(())
            }
            result => result,
        }
    }
}
