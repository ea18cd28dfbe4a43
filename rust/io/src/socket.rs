//! The socket of a port: abilities of its kernel, and calls.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use ouroboros_shm::descriptors::{Backlog, backlog, receive_many};
use ouroboros_stack::{MemberId, Outgoing, Run, Stack};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, socket_recv_buffer_size};

use crate::ether::{FRAMES, PLACE, Segment};
use crate::program::Program;

/// The buffer of the kernel that we ask for.
const KERNEL_BUFFER: usize = 4 << 20;
/// Buffers of one call of the kernel, each for a run of datagrams.
const BUFFERS: usize = 16;
const BUFFER: usize = 65_536;
/// Runs, and frames, of one call that are many.
const MANY: usize = 4;
const MANY_FRAMES: usize = FRAMES / 4;

/// The datagrams, or frames, of one call.
#[derive(Debug)]
pub(crate) struct Arrivals {
    buffers: [Vec<u8>; BUFFERS],
    metas: [RecvMeta; BUFFERS],
    /// Empty until the first ones come.
    frames: Vec<u8>,
    /// The first ones last.
    runs: Vec<Arrived>,
    /// So much came at once that more may wait.
    pub(crate) many: bool,
}

/// A run, and its sender.
#[derive(Debug)]
enum Arrived {
    /// The buffer, how much of it, and the bytes of each datagram.
    Datagrams(SocketAddr, usize, (usize, usize)),
    /// Where it is, and the bytes in a place before the packet and behind it.
    Frames(SocketAddr, Range<usize>, (usize, usize)),
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        Arrivals {
            buffers: std::array::from_fn(|_| vec![0; BUFFER]),
            metas: [RecvMeta::default(); BUFFERS],
            frames: Vec::new(),
            runs: Vec::new(),
            many: false,
        }
    }

    /// Hand the next run to the stack. False: that was the last one.
    pub(crate) fn hand(&mut self, now: u64, port: MemberId, stack: &mut Stack<Program>) -> bool {
        match self.runs.pop() {
            Some(Arrived::Datagrams(from, number, lengths)) => {
                if let Some(buffer) = self.buffers.get_mut(number) {
                    stack.receive_in(now, port, from, buffer, lengths);
                }
                true
            }
            Some(Arrived::Frames(from, at, around)) => {
                let frames = self.frames.get(at).unwrap_or_default();
                stack.receive(now, port, from, Run::in_places(frames, PLACE, around));
                true
            }
            None => false,
        }
    }

    /// The frames that are in the first places, so many bytes each.
    fn take_frames(&mut self, segment: Segment, lengths: &[usize]) {
        let Arrivals { frames, runs, .. } = self;
        for ((number, place), length) in frames.chunks_exact_mut(PLACE).enumerate().zip(lengths) {
            let Some((sender, Range { start, end })) = segment.open(place, *length) else { continue };
            let (begin, bounds) = (number * PLACE, (start, PLACE - end));
            match runs.last_mut() {
                Some(Arrived::Frames(from, at, around)) if (*from, at.end, *around) == (sender, begin, bounds) => {
                    at.end += PLACE;
                }
                _ => runs.push(Arrived::Frames(sender, begin..begin + PLACE, bounds)),
            }
        }
        runs.reverse();
    }
}

#[derive(Debug)]
enum Kind {
    Udp(UdpSocketState),
    Ether(Segment),
}

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) descriptor: OwnedFd,
    kind: Kind,
    /// Bytes of the kernel's buffer for arrivals.
    pub(crate) room: u32,
    /// There may be something to receive.
    pub(crate) readable: bool,
}

impl Socket {
    /// `segment`: of a packet socket; None: it is one of UDP.
    pub(crate) fn new(descriptor: OwnedFd, segment: Option<Segment>) -> io::Result<Self> {
        let kind = match segment {
            Some(segment) => Kind::Ether(segment),
            None => Kind::Udp(UdpSocketState::new((&descriptor).into())?),
        };
        // Only root may have more than the system allows everybody; less than wanted is no error.
        if set_socket_recv_buffer_size_force(&descriptor, KERNEL_BUFFER).is_err() {
            set_socket_recv_buffer_size(&descriptor, KERNEL_BUFFER)?;
        }
        let room = u32::try_from(socket_recv_buffer_size(&descriptor)?).unwrap_or(u32::MAX);
        Ok(Socket { descriptor, kind, room, readable: true })
    }

    /// Datagrams of one size that the kernel takes at once.
    pub(crate) fn segments(&self) -> usize {
        match &self.kind {
            Kind::Udp(state) => state.max_gso_segments(),
            Kind::Ether(_) => FRAMES,
        }
    }

    /// Messages of management have a form that only control knows.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self.kind, Kind::Ether(_))
    }

    /// How full the kernel's buffer is. None: it does not say.
    pub(crate) fn backlog(&self) -> Option<Backlog> {
        backlog(self.descriptor.as_fd()).ok()
    }

    /// Receive the datagrams of one call of the kernel, or some frames. False: there are none.
    pub(crate) fn receive(&mut self, into: &mut Arrivals) -> bool {
        into.runs.clear();
        match &self.kind {
            Kind::Udp(state) => {
                let mut slices = into.buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
                match state.recv((&self.descriptor).into(), &mut slices, &mut into.metas) {
                    Ok(count) => {
                        let metas = into.metas.iter().enumerate().take(count).rev();
                        into.runs.extend(metas.map(|(number, meta)| {
                            Arrived::Datagrams(meta.addr, number, (meta.len.min(BUFFER), meta.stride))
                        }));
                        into.many = into.runs.len() >= MANY;
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
            Kind::Ether(segment) => {
                let (segment, mut lengths) = (*segment, [0; FRAMES]);
                into.frames.resize(FRAMES * PLACE, 0);
                match receive_many(self.descriptor.as_fd(), &mut into.frames, &mut lengths) {
                    Ok(count) => {
                        into.take_frames(segment, lengths.get(..count).unwrap_or_default());
                        into.many = count >= MANY_FRAMES;
                        self.readable = count == FRAMES;
                    }
                    // Another error is about the device, or an earlier frame.
                    Err(error) => self.readable = error.kind() != io::ErrorKind::WouldBlock,
                }
                !into.runs.is_empty()
            }
        }
    }

    /// Send the staged datagrams, until there are none or the kernel takes no more.
    pub(crate) fn drain(&self, port: MemberId, stack: &mut Stack<Program>) {
        while let Some(outgoing) = stack.transmit(port) {
            let count = outgoing.count();
            let left = match &self.kind {
                Kind::Udp(state) => {
                    let Outgoing { to: destination, bytes: contents, segment: segment_size } = outgoing;
                    let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
                    state.try_send((&self.descriptor).into(), &transmit).map(|()| count)
                }
                Kind::Ether(segment) => segment.send(&self.descriptor, &outgoing).map(|left| left as u64),
            };
            match left {
                Ok(left) if left >= count => stack.sent(port, true),
                // The first ones.
                Ok(left) => {
                    stack.part(port, self.segments());
                    (0..left).for_each(|_| stack.sent(port, true));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => stack.blocked(port),
                // A path that cannot segment; the state has noted it for the next time.
                Err(_) if count > 1 => stack.part(port, self.segments()),
                // No route, a datagram too long for it, a neighbour that refuses: lost, as anywhere on the way.
                Err(_) => stack.sent(port, false),
            }
        }
    }
}
